"""What the docs show is so: generated pages are fresh, files are accepted, commands exist, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from docs import generate, record
from tests.unit.plan.build import public_key

from vmwright.cli.main import app
from vmwright.plan.actions import Plan
from vmwright.rack.shape import read as read_shape
from vmwright.report.data import plan_data
from vmwright.spec.load import load

ROOT = Path(__file__).parents[2]
ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
PAGES = [ENGLISH, CHINESE, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
YAML = re.compile(r"(?:<!-- (?P<mark>cloud|part|made|shape|file: cloud\.yaml) -->\n)?```yaml\n(?P<text>.*?)```",
                  re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")

# What a part of a file is put together with: each section that the part does not have.
BASE = {
    "cloud": "cloud: lab\n",
    "hosts": "hosts: {here: {pools: {vms: {dir: /var/lib/libvirt/vms}}}}\n",
    "networks": "networks: {lan: {nat: 192.168.130.0/24}}\n",
    "users": "users: {admin: {ssh_keys: ~/.ssh/id_ed25519.pub}}\n",
    "templates": "templates: {debian: {build: debian, disk: 4G}}\n",
}


def shown(page: Path) -> str:
    """A page's name, as a test's id."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """The code blocks of a page: language and text."""
    for found in BLOCK.finditer(page.read_text(encoding="utf-8")):
        yield found[2], found[3]


def prose(page: Path) -> str:
    """A page without its code blocks and comments."""
    return re.sub(r"<!--.*?-->\n?", "", BLOCK.sub("", page.read_text(encoding="utf-8")), flags=re.DOTALL)


def test_generated_pages_are_fresh() -> None:
    stale = [shown(path) for path, text in generate.documents().items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run: python -m docs.generate"


# ---- files ----


def yaml_blocks() -> list[Any]:
    """Every YAML block of every page, with its mark."""
    return [pytest.param(found["mark"], found["text"], id=f"{shown(page)}:{number}")
            for page in PAGES for number, found in enumerate(YAML.finditer(page.read_text(encoding="utf-8")))]


@pytest.mark.parametrize(("mark", "text"), yaml_blocks())
def test_every_file_shown_is_accepted(
    mark: str | None, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mark, "say what it is: <!-- cloud --> (a whole file) or <!-- part --> before the block"
    if mark == "shape":
        read_shape("shape.yaml", text.encode())
        return
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (".ssh/id_ed25519.pub", "keys/operators.pub"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{public_key()}\n")
    (tmp_path / "operator.hash").write_text("$6$salt$hash\n")
    for name in ("golden.qcow2", "micro.qcow2"):
        (tmp_path / name).write_text("")
    base = "" if mark != "part" else "".join(
        line for section, line in BASE.items() if not re.search(rf"^{section}:", text, re.MULTILINE))
    file = tmp_path / "cloud.yaml"
    file.write_text(base + text, encoding="utf-8")
    cloud = load(file)
    assert (cloud.not_yet, cloud.missing) == ((), ())


def test_no_file_shown_is_missed() -> None:
    assert len(yaml_blocks()) == sum(language == "yaml" for page in PAGES for language, _ in blocks(page))


def test_the_reference_shows_every_key() -> None:
    text = (ROOT / "docs/reference/spec.md").read_text(encoding="utf-8")
    from vmwright.spec.model import json_schema

    keys = {key for part in json_schema()["$defs"].values() for key in part.get("properties", ())}
    assert keys
    assert [key for key in sorted(keys) if f"| `{key}` |" not in text and f"`{key}`," not in text] == []


# ---- commands ----


def command_lines(page: Path) -> Iterator[str]:
    """Every command line of vmwright that a page shows, in blocks and in sentences."""
    for language, text in blocks(page):
        if language in ("sh", "console"):
            yield from (line.strip().removeprefix("$ ") for line in text.splitlines())
    yield from SPAN.findall(prose(page))


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_command_shown_exists(page: Path) -> None:
    for line in command_lines(page):
        if line.startswith("vmwright "):
            assert parse(shlex.split(line.partition(" > ")[0], comments=True)[1:]) == "", line


def parse(words: list[str]) -> str:
    """What the command line would complain about; empty when it would not."""
    group: Any = typer.main.get_command(app)
    if words[0].startswith("-"):
        return "" if words[0] in {name for param in group.params for name in param.opts} else f"no option {words[0]}"
    if words[0].isupper():  # a placeholder
        return ""
    command = group.commands.get(words[0])
    if command is None:
        return f"no command {words[0]}"
    if hasattr(command, "commands"):  # a group of commands
        if len(words) == 1:
            return ""
        command, words = command.commands.get(words[1]), words[1:]
        if command is None:
            return f"no command {words[0]}"
    names = {name for param in command.params for name in param.opts} | {"--help"}
    if missing := [param.name for param in command.params if param.required and len(words) < 2]:
        return "" if prose_only(words) else f"lacks {missing}"
    wrong = [word for word in options(words[1:]) if word not in names]
    return f"no option {', '.join(wrong)}" if wrong else complaint(command, words)


def prose_only(words: list[str]) -> bool:
    """A command named in a sentence, without what it is for."""
    return len(words) == 1


def options(words: list[str]) -> list[str]:
    """The options among words, up to --."""
    ours = words[: words.index("--")] if "--" in words else words
    return [word.partition("=")[0] for word in ours if re.match(r"--?[a-z]", word)]


def complaint(command: Any, words: list[str]) -> str:
    """What the command's own parser says of its words. None of it is carried out."""
    if "--help" in words:
        return ""
    try:
        command.make_context(words[0], list(words[1:]))
    except Exception as error:  # typer's own kinds
        return str(error) or type(error).__name__
    return ""


def test_a_wrong_command_line_would_be_found() -> None:
    assert parse(["aply"]) == "no command aply"
    assert parse(["apply", "--prun"]) == "no option --prun"
    assert parse(["set", "a=1", "b=2"]) != ""
    assert parse(["plan", "--facts"]) != ""
    assert parse(["rebuild", "web-1", "-y"]) == ""


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_dev_command_shown_exists(page: Path) -> None:
    known = re.findall(r"^([a-z]+)\)", (ROOT / "dev").read_text(encoding="utf-8").rpartition("case $command in")[2],
                       re.MULTILINE)
    for line in command_lines(page):
        if line.startswith("./dev "):
            assert line.split()[1] in known, line


def test_the_packages_to_install_are_those_that_dev_installs() -> None:
    sets = dict(re.findall(r"^        (run|host)\) echo (.*?) ;;", (ROOT / "dev").read_text(encoding="utf-8"),
                           re.MULTILINE | re.DOTALL))
    said = [text for language, text in blocks(ENGLISH) if text.startswith("apt-get install")]
    lists = [text.replace("\\\n", " ").splitlines()[0].split()[2:] for text in said]
    assert lists == [sets["run"].split(), sets["host"].replace("\\\n", " ").split()]


# ---- links ----


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{shown(page)}: {target}"
        if anchor:
            assert anchor in {slug(line) for line in headings(file)}, f"{shown(page)}: {target}"


def headings(page: Path) -> list[str]:
    """The headings of a page, with their signs."""
    return re.findall(r"^#+ .*$", BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)


def slug(heading: str) -> str:
    """What the link to a heading is called: lower case, without signs, spaces as dashes."""
    return re.sub(r"[^\w\- ]", "", heading.lstrip("# ").lower()).replace(" ", "-")


# ---- both languages ----


def test_both_readmes_show_the_same_blocks() -> None:
    assert list(blocks(CHINESE)) == list(blocks(ENGLISH))


def test_both_readmes_have_the_same_parts() -> None:
    assert [shape(part) for part in parts(CHINESE)] == [shape(part) for part in parts(ENGLISH)]


def parts(page: Path) -> list[str]:
    """A page's prose, cut at its headings."""
    return re.split(r"^(?=##* )", prose(page), flags=re.MULTILINE)


def shape(part: str) -> dict[str, Any]:
    """What must be the same in every language: level, lists, tables, links, names of commands and keys."""
    lines = part.splitlines()
    return {
        "level": len(part) - len(part.lstrip("#")),
        "items": sum(line.startswith("- ") for line in lines),
        "rows": sum(line.startswith("|") for line in lines),
        "links": sorted(set(LINK.findall(part)) - {"README.md", "README.zh-CN.md"}),
        "code": sorted(set(SPAN.findall(part))),
    }


# ---- what else is said ----


def test_the_reference_names_every_key_of_a_plan() -> None:
    text = (ROOT / "docs/reference/facts-and-plan-json.md").read_text(encoding="utf-8")
    assert [key for key in plan_data(Plan("lab")) if f"| `{key}` |" not in text] == []


def test_a_recorded_terminal_has_what_stands_at_the_end() -> None:
    moving = "one\r\n\x1b[?25lworking 1\r\x1b[2Kworking 2\r\n\r\x1b[2K\x1b[1A\x1b[2K\x1b[32mdone\x1b[0m\r\n\x1b[?25h"
    assert record.settled(moving) == ["one", "\x1b[32mdone\x1b[0m"]
