"""One value changed in the file: nothing else changes, nothing wrong is written."""

from __future__ import annotations

import copy
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmwright.errors import SpecError, UsageError
from vmwright.spec import edit as editing
from vmwright.spec.edit import EditRefused, set_value
from vmwright.spec.yaml import Document, parse

from .conftest import Desk

FILE = """\
# A cloud.
cloud: test
hosts: {here: {pools: {images: {dir: /srv/images}}}}   # this machine
networks:
  lan: {bridge: br0, subnet: 10.0.0.0/24, "gateway": '10.0.0.1'}
templates: {base: {build: debian, disk: 4G}}
defaults:
  template: base


vms:
  web:   # the front
    memory: 16G    # much
    'vcpus':   2
    packages:
      - vim
      # an editor
      - curl   # a client
    address: "10.0.0.7"

  g: {count: 3, memory: [1G, 2G, 3G]}
  empty:
  none: {}
  last: &last
    timezone: UTC
    runcmd:
    - |
      echo a
      echo b
  # the end
"""


def edited(desk: Desk, key: str, value: str, text: str = FILE) -> list[str]:
    """The lines that differ after an edit: -old, +new."""
    path = desk.write(text)
    before = path.read_bytes().decode().split("\n")
    set_value(path, key, value)
    after = path.read_bytes().decode().split("\n")
    return difference(before, after)


def difference(before: list[str], after: list[str]) -> list[str]:
    """The one region of lines that differs."""
    start = next(
        (n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after))
    )
    end = next(
        (n for n, (a, b) in enumerate(zip(before[start:][::-1], after[start:][::-1], strict=False)) if a != b),
        min(len(before), len(after)) - start,
    )
    return [f"-{line}" for line in before[start : len(before) - end]] + [
        f"+{line}" for line in after[start : len(after) - end]
    ]


@pytest.mark.parametrize(
    ("key", "value", "lines"),
    [
        ("cloud", "other", ["-cloud: test", "+cloud: other"]),
        ("vms.web.memory", "8G", ["-    memory: 16G    # much", "+    memory: 8G    # much"]),
        ("vms.web.memory", " 8G  # less", ["-    memory: 16G    # much", "+    memory: 8G    # much"]),
        ("vms.web.vcpus", "4", ["-    'vcpus':   2", "+    'vcpus':   4"]),
        ("vms.web.address", "10.0.0.8", ['-    address: "10.0.0.7"', '+    address: "10.0.0.8"']),
        ("vms.web.address", "'10.0.0.8'", ['-    address: "10.0.0.7"', "+    address: '10.0.0.8'"]),
        ("networks.lan.gateway", "10.0.0.2", [
            """-  lan: {bridge: br0, subnet: 10.0.0.0/24, "gateway": '10.0.0.1'}""",
            """+  lan: {bridge: br0, subnet: 10.0.0.0/24, "gateway": '10.0.0.2'}"""]),
        ("networks.lan.dns", "[1.1.1.1, 9.9.9.9]", [
            """-  lan: {bridge: br0, subnet: 10.0.0.0/24, "gateway": '10.0.0.1'}""",
            """+  lan: {bridge: br0, subnet: 10.0.0.0/24, "gateway": '10.0.0.1', dns: [1.1.1.1, 9.9.9.9]}"""]),
        ("vms.web.packages", "[git]", [
            "-    packages:", "-      - vim", "-      # an editor", "-      - curl   # a client",
            "+    packages: [git]   # a client"]),
        ("vms.web.packages.0", "emacs", ["-      - vim", "+      - emacs"]),
        ("vms.web.packages.1", "a, b", ["-      - curl   # a client", "+      - a, b   # a client"]),
        ("vms.web.timezone", "UTC", ["+    timezone: UTC"]),
        ("vms.web.disks.data", "10G", ["+    disks: {data: 10G}"]),
        ("vms.g.memory", "4G", ["-  g: {count: 3, memory: [1G, 2G, 3G]}", "+  g: {count: 3, memory: 4G}"]),
        ("vms.g.memory.1", "4G", ["-  g: {count: 3, memory: [1G, 2G, 3G]}", "+  g: {count: 3, memory: [1G, 4G, 3G]}"]),
        ("vms.g.runcmd", "['a: b', [c, d]]", [
            "-  g: {count: 3, memory: [1G, 2G, 3G]}",
            "+  g: {count: 3, memory: [1G, 2G, 3G], runcmd: ['a: b', [c, d]]}"]),
        ("vms.empty.memory", "2G", ["-  empty:", "+  empty: {memory: 2G}"]),
        ("vms.empty", "{memory: 2G}", ["-  empty:", "+  empty: {memory: 2G}"]),
        ("vms.none.memory", "2G", ["-  none: {}", "+  none: {memory: 2G}"]),
        ("vms.new", "{memory: 2G}", ["+  new: {memory: 2G}"]),
        ("vms.last.memory", "2G", ["+    memory: 2G"]),
        ("vms.last.runcmd", "ls", ["-    runcmd:", "-    - |", "-      echo a", "-      echo b", "+    runcmd: [ls]"]),
        ("vms.last.runcmd.0", "ls -l", ["-    - |", "-      echo a", "-      echo b", "+    - ls -l"]),
        ("defaults.memory", "2G", ["+  memory: 2G"]),
        ("users.amy.shell", "/bin/sh", None),
    ],
)  # fmt: skip
def test_only_that_line_changes(desk: Desk, key: str, value: str, lines: list[str] | None) -> None:
    if lines is None:
        with pytest.raises(UsageError, match="there is no user 'amy'"):
            edited(desk, key, value)
    elif key == "vms.last.runcmd":
        with pytest.raises(EditRefused, match="a list is needed"):
            edited(desk, key, value)
        assert edited(desk, key, f"[{value}]") == lines
    else:
        assert edited(desk, key, value) == lines


def test_what_was_done_is_told(desk: Desk) -> None:
    path = desk.write(FILE)
    assert set_value(path, "vms.web.memory", "8G").describe() == f"{path}:13:13: vms.web.memory: 16G -> 8G"
    assert set_value(path, "vms.web.memory", "8G").describe() == f"{path}:13:13: vms.web.memory: 8G already"
    assert set_value(path, "vms.web.cpu", "EPYC").describe() == f"{path}:20:10: vms.web.cpu: EPYC (new)"
    assert (
        set_value(path, "vms.g.memory", "[1G, 1G, 1G]")
        .describe()
        .endswith("vms.g.memory: [1G, 2G, 3G] -> [1G, 1G, 1G]")
    )


def test_a_section_that_was_not_there(desk: Desk) -> None:
    text = "cloud: t\ntemplates: {base: {build: debian}}\nvms: {a: {template: base}}"
    assert edited(desk, "defaults.memory", "2G", text)[-1] == "+defaults: {memory: 2G}"
    assert edited(desk, "hosts.h", "{connect: local}", text)[-1] == "+hosts: {h: {connect: local}}"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("vms.wbe.memory", "8G", "there is no VM 'wbe'\n  do:  did you mean web?"),
        ("vm.web.memory", "8G", "there is no section 'vm'\n  do:  did you mean vms?"),
        ("vms..memory", "8G", "'vms..memory' is not a key\n  do:  write it with dots, like vms.z-dev.disk"),
        ("vms.web.memory.size", "8G", "vms.web.memory is a single value: there is no 'size' in it"),
        ("vms.web.packages.7", "x", "vms.web.packages is a list of 2: there is no item 7\n  do:  items count from 0"),
        ("vms.web.packages.x", "x", "vms.web.packages is a list of 2: there is no item 'x'"),
        (
            "vms.g-2.memory",
            "8G",
            "g-2 is one of the group g, and has no keys of its own\n"
            "  do:  set vms.g.memory for all of them, or to a list of 3, one each: vms.g.memory=[...]",
        ),
        (
            "vms.web.memory",
            "",
            "vms.web.memory: '' is not a value\n  do:  write a word, a number, [a, b] or {a: b}; as text: \"\"",
        ),
        ("vms.web.runcmd", "a: b", "vms.web.runcmd: 'a: b' is not a value"),
        ("vms.web.runcmd", "[a", "vms.web.runcmd: '[a' is not a value"),
        ("vms.web.runcmd", "- a", "vms.web.runcmd: '- a' is not a value"),
        ("vms.web.memory", "8G\nvcpus: 3", "vms.web.memory: '8G\\nvcpus: 3' is not a value"),
        ("vms.web.memory", "&a 8G", "vms.web.memory: '&a 8G' is not a value"),
        ("vms.web.memory", "*last", "vms.web.memory: '*last' is not a value"),
    ],
)
def test_what_cannot_be_set(desk: Desk, key: str, value: str, message: str) -> None:
    path = desk.write(FILE)
    with pytest.raises(UsageError) as caught:
        set_value(path, key, value)
    assert str(caught.value).startswith(message)
    assert path.read_text() == FILE


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("vms.web.memory", "8GB", "13:13: vms.web.memory: 8GB has two meanings"),
        ("vms.web.memroy", "8G", "20:5: vms.web.memroy: unknown key\n    did you mean memory?"),
        ("vms.web.address", "10.0.0.1", "19:14: vms.web.address: 10.0.0.1 is the gateway of network lan"),
        ("templates.base.disk", "[1]", "6:41: templates.base.disk: one value is needed, not a list"),
        ("vms.web", "3", "12:8: vms.web: keys and values are needed, not the number 3"),
        ("vms.web.memory", "~", "13:5: vms.web.memory: has no value"),
        ("cloud", "Bad_Name", "2:8: cloud: 'Bad_Name' is not a valid cloud name"),
        ("defaults.template", "bse", "8:13: defaults.template: there is no template 'bse'\n    did you mean base?"),
        ("include", "[other.yaml]", "30:11: include: cannot read"),
    ],
)
def test_a_wrong_outcome_is_not_written(desk: Desk, key: str, value: str, message: str) -> None:
    path = desk.write(FILE)
    with pytest.raises(EditRefused) as caught:
        set_value(path, key, value)
    assert str(caught.value).startswith(f"{path}:{message}")
    assert str(caught.value).endswith("\nnot set: the file is unchanged")
    assert path.read_text() == FILE


def test_a_wrong_file_can_be_set_right(desk: Desk) -> None:
    assert edited(desk, "vms.web.memory", "16G", FILE.replace("16G", "16GB"))[1] == "+    memory: 16G    # much"


def test_a_broken_file_is_left_alone(desk: Desk) -> None:
    path = desk.write("cloud: [\n")
    with pytest.raises(SpecError, match="the file ends inside a bracket"):
        set_value(path, "cloud", "x")


ALIASES = """\
cloud: t
templates: {base: {build: debian, disk: &size 4G}}
defaults: {template: base, disk: *size}
vms:
  a: &a {memory: &mem 2G, disks: {x: 1G, y: 1G}}
  b: {<<: *a, vcpus: 2}
  c:
    <<: *a
    ready_timeout: 5
  d: *a
  e: {memory: *mem, cpu: &cpu EPYC}
"""


@pytest.mark.parametrize(
    ("key", "value", "lines"),
    [
        ("vms.b.memory", "3G", ["-  b: {<<: *a, vcpus: 2}", "+  b: {<<: *a, vcpus: 2, memory: 3G}"]),
        ("vms.c.memory", "3G", ["+    memory: 3G"]),
        ("vms.c.disks.x", "3G", ["+    disks: {x: 3G, y: 1G}"]),
        ("vms.d.memory", "3G", ["-  d: *a", "+  d: {<<: *a, memory: 3G}"]),
        ("vms.d.disks.x", "3G", ["-  d: *a", "+  d: {memory: 2G, disks: {x: 3G, y: 1G}}"]),
        ("vms.d", "{vcpus: 3}", ["-  d: *a", "+  d: {vcpus: 3}"]),
        ("vms.e.memory", "3G", ["-  e: {memory: *mem, cpu: &cpu EPYC}", "+  e: {memory: 3G, cpu: &cpu EPYC}"]),
        ("vms.e.cpu", "maximum", ["-  e: {memory: *mem, cpu: &cpu EPYC}", "+  e: {memory: *mem, cpu: &cpu maximum}"]),
        ("defaults.disk", "5G", ["-defaults: {template: base, disk: *size}", "+defaults: {template: base, disk: 5G}"]),
    ],
)
def test_what_comes_by_an_alias_gets_its_own_entry(desk: Desk, key: str, value: str, lines: list[str]) -> None:
    assert edited(desk, key, value, ALIASES) == lines


@pytest.mark.parametrize(
    ("key", "value", "other"),
    [
        ("vms.a.memory", "3G", "vms.b.memory"),
        ("templates.base.disk", "3G", "defaults.disk"),
        ("vms.a.disks.x", "3G", "vms.b.disks.x"),
    ],
)
def test_what_others_take_by_an_alias_is_not_changed_for_them(desk: Desk, key: str, value: str, other: str) -> None:
    path = desk.write(ALIASES)
    with pytest.raises(UsageError) as caught:
        set_value(path, key, value)
    assert f"{key} cannot be set alone\n  why: {other} takes its value from there, by an alias" in str(caught.value)
    assert f"do:  give {other} a value of its own first" in str(caught.value)
    assert path.read_text() == ALIASES


def test_a_shorter_value_that_others_take_by_an_alias(desk: Desk) -> None:
    path = desk.write(ALIASES.replace("d: *a", "d: *a\n  f: &f {<<: *a}\n  g: *f"))
    with pytest.raises(UsageError, match=r"vms.f.disks cannot be set alone\n  why: vms.g"):
        set_value(path, "vms.f.disks", "{z: 5G}")


def test_the_file_that_holds_it_is_changed(desk: Desk) -> None:
    more = desk.write("templates: {base: {build: debian}}\nvms:\n  db: {template: base}\n", "sub/more.yaml")
    main = desk.write("cloud: t\ninclude: [sub/more.yaml]\nvms: {web: {template: base}}\n")
    edit = set_value(main, "vms.db.memory", "2G")
    assert (edit.file, more.read_text().split("\n")[2]) == (str(more), "  db: {template: base, memory: 2G}")
    assert main.read_text() == "cloud: t\ninclude: [sub/more.yaml]\nvms: {web: {template: base}}\n"
    with pytest.raises(EditRefused, match=r"cloud.yaml:3:23: vms.web.template: there is no template 'base'"):
        set_value(main, "templates", "{other: {build: debian}}")


def test_line_endings_and_byte_order_mark_stay(desk: Desk) -> None:
    path = desk.write(
        b"\xef\xbb\xbfcloud: t\r\ntemplates: {base: {build: debian}}\r\nvms:\r\n  a:\r\n    template: base # x\r\n"
    )
    set_value(path, "vms.a.memory", "2G")
    set_value(path, "cloud", "tt")
    assert path.read_bytes() == (
        b"\xef\xbb\xbfcloud: tt\r\ntemplates: {base: {build: debian}}\r\nvms:\r\n  a:\r\n    template: base # x\r\n"
        b"    memory: 2G\r\n"
    )


def test_mode_and_link_stay(desk: Desk) -> None:
    real = desk.write(FILE, "real/cloud.yaml")
    real.chmod(0o640)
    link = desk.root / "cloud.yaml"
    link.symlink_to("real/cloud.yaml")
    set_value(link, "vms.web.memory", "8G")
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert "memory: 8G" in real.read_text()
    assert os.listdir(real.parent) == ["cloud.yaml"]


def test_a_write_that_fails_leaves_the_file(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    path = desk.write(FILE)

    def full(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(editing.os, "replace", full)
    with pytest.raises(UsageError) as caught:
        set_value(path, "vms.web.memory", "8G")
    assert str(caught.value) == f"cannot write {path}: No space left on device\n  why: the file is unchanged"
    assert path.read_text() == FILE
    assert os.listdir(desk.root) == ["cloud.yaml"]


def test_nothing_to_change_writes_nothing(desk: Desk) -> None:
    path = desk.write(FILE)
    before = path.stat().st_ino
    assert not set_value(path, "vms.web.memory", "16G").changed
    assert path.stat().st_ino == before


# Round trip: files in every layout a person may choose.

VALUES: dict[str, list[Any]] = {
    "memory": ["1G", "2G", "1.5G"], "vcpus": [1, 2, 7], "timezone": ["UTC", "Asia/Shanghai"], "protect": [True, False],
    "packages": [["a"], ["a", "b c", "d: e"], []], "disks": [{"data": "10G"}, {"a": {"size": "1G", "mount": "/a"},
    "b": "2G"}, {}],
    "runcmd": [["echo 'a'", ["sleep", "1"]], ["x # y", "a, b", "-"]], "search": [["example.org"]],
    "write_files": [[{"path": "/a", "content": "one\ntwo\n"}, {"path": "/b", "content": ""}]], "cpu": ["EPYC"],
}  # fmt: skip
NEW = {
    "memory": ["3G", '"3G"', "'64M'"], "vcpus": ["5"], "timezone": ["Europe/Berlin"], "protect": ["true", "false"],
    "packages": ["[x]", "['y, z', w]", "vim", "[]"], "disks": ["{q: 5G}", "{}"], "disks.new": ["7G",
    "{size: 3G, mount: /new}"],
    "runcmd": ["[ls]", "['a: b', [c, 'd, e']]"], "search": ["[a.example, b.example]"], "ready_timeout": ["7"],
    "cpu": ["maximum"],
    "write_files": ["[]"],
}  # fmt: skip
COMMENTS = (" # note", "   # a: b, {c}")


class Writer:
    """Writes data as YAML in a layout that is drawn."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.anchors = 0

    def chance(self, percent: int) -> bool:
        return self.draw(st.integers(0, 99)) < percent

    def scalar(self, value: Any, flow: bool) -> str:
        if not isinstance(value, str):
            return json.dumps(value)
        style = self.draw(st.sampled_from(["plain", "single", "double"]))
        plain = f"[ {value} ]" if flow else value
        if style == "plain" and value and parse("", f"a: {plain}\n".encode()).data == {"a": [value] if flow else value}:
            return value
        return "'" + value.replace("'", "''") + "'" if style == "single" and "\n" not in value else json.dumps(value)

    def flow(self, value: Any) -> str:
        gap = self.draw(st.sampled_from(["", " "]))
        if isinstance(value, dict):
            return "{" + gap + ", ".join(f"{key}: {self.flow(inner)}" for key, inner in value.items()) + gap + "}"
        if isinstance(value, list):
            return "[" + gap + ", ".join(map(self.flow, value)) + gap + "]"
        return self.scalar(value, flow=True)

    def comment(self) -> str:
        return self.draw(st.sampled_from(["", "", *COMMENTS]))

    def anchor(self) -> str:
        self.anchors += 1
        return f"&x{self.anchors} " if self.chance(10) else ""

    def entry(self, key: str, value: Any, indent: str) -> str:
        lines = self.draw(st.sampled_from(["", "", "\n", f"{indent}# about it\n", "# far left\n"]))
        head = f"{lines}{indent}{key}:"
        if isinstance(value, str) and "\n" in value and self.chance(70):
            text = "".join(f"{indent}    {line}\n" for line in value.splitlines())
            return f"{head} |\n{text}"
        if not isinstance(value, dict | list) or not value or self.chance(50):
            inline = self.flow(value) if isinstance(value, dict | list) else self.scalar(value, flow=False)
            return f"{head} {self.anchor()}{inline}{self.comment()}\n"
        inner = indent + " " * self.draw(st.integers(1, 4))
        return f"{head} {self.anchor()}".rstrip() + f"{self.comment()}\n" + self.block(value, inner)

    def block(self, value: Any, indent: str) -> str:
        if isinstance(value, dict):
            return "".join(self.entry(key, inner, indent) for key, inner in value.items())
        lines = []
        for item in value:
            if isinstance(item, dict) and item and self.chance(50):
                lines.append(indent + "- " + self.block(item, indent + "  ").lstrip(" "))
            else:
                text = self.flow(item) if isinstance(item, dict | list) else self.scalar(item, flow=False)
                lines.append(f"{indent}- {text}{self.comment()}\n")
        return "".join(lines)


@st.composite
def files(draw: st.DrawFn) -> tuple[str, int]:
    """A spec file in some layout, and how many VMs it has."""
    writer = Writer(draw)
    count = draw(st.integers(1, 4))
    text = "cloud: t\ntemplates: {base: {build: debian}}\ndefaults:\n  template: base\nvms:\n"
    indent = " " * draw(st.integers(1, 4))
    anchored: list[int] = []
    for number in range(count):
        keys = draw(st.lists(st.sampled_from(sorted(VALUES)), unique=True, max_size=5))
        vm = {key: draw(st.sampled_from(VALUES[key])) for key in keys}
        merge = f"*v{draw(st.sampled_from(anchored))}" if anchored and writer.chance(30) else ""
        if merge and not vm and writer.chance(50):
            text += f"{indent}vm{number}: {merge}\n"
            continue
        anchored.append(number)
        if writer.chance(50) or not (vm or merge):
            body = ", ".join(
                ([f"<<: {merge}"] if merge else []) + [f"{key}: {writer.flow(value)}" for key, value in vm.items()]
            )
            text += f"{indent}vm{number}: &v{number} {{{body}}}{writer.comment()}\n"
        else:
            inner = indent + " " * draw(st.integers(1, 4))
            text += f"{indent}vm{number}: &v{number}{writer.comment()}\n"
            text += (f"{inner}<<: {merge}\n" if merge else "") + writer.block(vm, inner)
    text += draw(st.sampled_from(["", "# the end\n", "users: {}\n"]))
    if draw(st.booleans()):
        text = text.rstrip("\n")
    return (text.replace("\n", "\r\n") if draw(st.booleans()) else text), count


@settings(max_examples=300)
@given(file=files(), data=st.data())
def test_the_data_differs_in_that_value_and_the_text_in_those_lines(file: tuple[str, int], data: st.DataObject) -> None:
    text, count = file
    name = f"vm{data.draw(st.integers(0, count - 1))}"
    key = data.draw(st.sampled_from(sorted(NEW)))
    value = data.draw(st.sampled_from(NEW[key]))
    old = parse("f", text.encode())
    assert old.problems == ()
    wanted = copy.deepcopy(old.data)
    wanted["vms"][name] = wanted["vms"].get(name) or {}
    holder = wanted["vms"][name]
    if key == "disks.new":
        holder = holder.setdefault("disks", {})
    holder[key.rpartition(".")[2]] = parse("", f"a: {value}".encode()).data["a"]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "f.yaml"
        path.write_bytes(text.encode())
        try:
            set_value(path, f"vms.{name}.{key}", value)
        except UsageError as error:
            assert "cannot be set alone" in str(error) and "by an alias" in str(error) and f"*v{name[2:]}" in text
            assert path.read_bytes() == text.encode()
            return
        after = path.read_bytes().decode()
    assert parse("f", after.encode()).data == wanted
    assert after.count("\r\n") in (0, after.count("\n"))
    changed = difference(text.splitlines(), after.splitlines())
    gone, come = ([line[1:] for line in changed if line[0] == sign] for sign in "-+")
    assert len(come) == (1 if changed else 0)
    if len(gone) == 1 and gone[0].rstrip().endswith(COMMENTS):
        assert come[0].rstrip().endswith(COMMENTS)
    assert len(gone) <= max(1, value_lines(old, ("vms", name, *key.split("."))))


def value_lines(document: Document, path: tuple[str, ...]) -> int:
    """How many lines a value takes in the text, its key's line included; comments behind it counted in."""
    lines = document.text.split("\n")
    mark = document.marks.get(path)
    if mark is None:
        return 1
    start = mark.key.line
    indent = mark.key.column - 1
    end = start
    while end < len(lines) and (
        not lines[end].strip()
        or len(lines[end]) - len(lines[end].lstrip()) > indent
        or "#" in lines[end]
        or lines[end].lstrip().startswith("- ")
    ):
        end += 1
    return end - start + 1
