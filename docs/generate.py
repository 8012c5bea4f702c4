"""Writes what in docs/ follows from the code: the reference of the spec, the commands, the exit codes and the JSON, and
the output of the commands that pages show. Run it from the checkout: python -m docs.generate
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import typer
from docs import sessions
from pydantic import TypeAdapter

from vmwright import errors
from vmwright.cli.main import app
from vmwright.facts import model as facts
from vmwright.image.catalogue import lookup, names
from vmwright.plan.action import Effect
from vmwright.spec import model, values
from vmwright.units import format_size

DOCS = Path(__file__).parent
_BY_HAND = "<!-- Made by docs/generate.py. Do not edit: change the code's words, and run it again. -->\n"

# What a section's table is called, and the models whose tables follow it, with the place where such a mapping stands.
_SECTIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "hosts.NAME": (("HostIn", ""), ("PoolIn", "hosts.NAME.pools.POOL"), ("ThinIn", "hosts.NAME.pools.POOL.thin"),
                   ("DeviceIn", "hosts.NAME.devices.DEVICE"),
                   ("BridgeIn", "hosts.NAME.bridges.BRIDGE"), ("ServicesIn", "hosts.NAME.services"),
                   ("DnsIn", "hosts.NAME.services.dns"), ("NtpIn", "hosts.NAME.services.ntp"),
                   ("ProxyIn", "hosts.NAME.services.proxy"), ("MasqueradeIn", "hosts.NAME.services.masquerade")),
    "networks.NAME": (("NetworkIn", ""),),
    "users.NAME": (("UserIn", ""),),
    "templates.NAME": (("TemplateIn", ""),),
    "vms.NAME": (("VmIn", ""), ("DiskIn", "vms.NAME.disks.DISK"), ("NicIn", "vms.NAME.nics[]"),
                 ("WriteFileIn", "vms.NAME.write_files[]"), ("AutostartIn", "vms.NAME.autostart"),
                 ("PinIn", "vms.NAME.pin")),
}
_DEALT = {"VmIn": model.DEALT, "NicIn": model.DEALT_NIC, "PinIn": model.DEALT_PIN}


def documents() -> dict[Path, str]:
    """Every file that is made here, with what should be in it."""
    reference = DOCS / "reference"
    made = {reference / name: make() for name, make in _REFERENCE.items()}
    return made | {path: sessions.refreshed(path) for path in sessions.pages(DOCS)}


# ---- the spec ----


def spec() -> str:
    """The reference of the spec."""
    schema = model.Spec.model_json_schema(by_alias=True, mode="validation")
    return "\n".join([_BY_HAND, *_spec_head(schema), *_spec_sections(schema), *_catalogue()]) + "\n"


def _spec_head(schema: dict[str, Any]) -> Iterator[str]:
    yield from ("# Reference: the cloud's file", "", schema["description"], "", _SPEC_RULES, "## The file", "")
    yield from _table(schema["properties"], schema["$defs"], frozenset())


_SPEC_RULES = """\
- An unknown key, a key given twice and a reference to something that is not there are errors, each with its place.
- A size has a unit, and one meaning: `16G` and `16GiB` are 16 · 2³⁰ bytes. `16GB` is refused.
- YAML anchors and merge keys (`<<`) work. An address or MAC need not be quoted; a PCI address must.
- A path that starts with `~`, `/`, `./` or `../` is one of the machine that vmwright runs on; `./` is relative to the
  file that says it. Passwords and the like are never in the file, only in files that it names.
- Keys marked *not applied yet* are checked, but `plan` and `apply` refuse a file that uses them, naming the key.
- **Groups.** A VM with `count: N` is N VMs, NAME-1 to NAME-N. A key marked *dealt* may then hold a list of N values,
  one for each; every other value goes to each VM as it is, and `address` counts upwards.

For editors, `vmwright check --schema` prints the same as JSON Schema.
"""


def _spec_sections(schema: dict[str, Any]) -> Iterator[str]:
    for section, parts in _SECTIONS.items():
        if section == "templates.NAME":
            yield from _defaults(schema)
        for name, place in parts:
            known = schema["$defs"][name]
            yield from (f"{'###' if place else '##'} {place or section}", "", known["description"], "")
            yield from _table(known["properties"], schema["$defs"], _DEALT.get(name, frozenset()))


def _defaults(schema: dict[str, Any]) -> Iterator[str]:
    known = schema["$defs"]["DefaultsIn"]
    common = [key for key in known["properties"] if key in schema["$defs"]["VmIn"]["properties"]]
    others = {key: value for key, value in known["properties"].items() if key not in common}
    yield from ("## defaults", "", known["description"], "")
    yield from (f"These keys of [vms.NAME](#vmsname): {', '.join(f'`{key}`' for key in common)}. And:", "")
    yield from _table(others, schema["$defs"], frozenset())


def _table(properties: dict[str, Any], definitions: dict[str, Any], dealt: frozenset[str]) -> Iterator[str]:
    yield from ("| key | value | meaning |", "|---|---|---|")
    for key, value in properties.items():
        form = _form(value, definitions) + ("; *dealt*" if key in dealt else "")
        yield f"| `{key}` | {_cell(form)} | {_cell(value.get('description', ''))} |"
    yield ""


def _cell(text: str) -> str:
    """Text of a table's cell."""
    return text.replace("|", "\\|").replace("Not applied yet", "*Not applied yet*")


def _pattern(kind: Any) -> str:
    return str(TypeAdapter(kind).json_schema()["pattern"])


_PATTERNS = {
    _pattern(values.Size): "size", _pattern(values.Address): "IPv4 address", _pattern(values.Subnet): "address/prefix",
    _pattern(values.VmAddress): "IPv4 address, or address/prefix", _pattern(values.Mac): "MAC address",
    _pattern(values.AbsolutePath): "absolute path", _pattern(values.Url): "URL",
    _pattern(values.Proxy): "URL or `none`", _pattern(values.Range): "FIRST-LAST, IPv4 addresses",
    _pattern(values.Connect): "`local` or ssh://USER@HOST[:PORT]", _pattern(values.Sha256): "64 hexadecimal digits",
}


def _form(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """What a value looks like, in words."""
    if "$ref" in schema:
        known = definitions[schema["$ref"].rpartition("/")[2]]
        return _form(known, definitions) if "enum" in known else "mapping"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(
            _form(one, definitions) for one in schema["anyOf"] if one != {"type": "null"}))
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{word}`" for word in schema.get("enum", [schema.get("const")]))
    match schema.get("type"):
        case "boolean":
            return "`true` or `false`"
        case "integer":
            low, high = schema.get("minimum"), schema.get("maximum")
            return "number" + (f", {low} to {high}" if high is not None else f" from {low}" if low is not None else "")
        case "array":
            inner = _form(schema["items"], definitions)
            return f"list of {'mappings' if inner == 'mapping' else inner if ' or ' not in inner else f'({inner})'}"
        case "object":
            inner = _form(schema["additionalProperties"], definitions) if schema.get("additionalProperties") else ""
            return "mapping" if not inner or inner == "mapping" else f"mapping of name to {inner}"
        case _:
            return _PATTERNS.get(schema.get("pattern", ""), "text")


def _catalogue() -> Iterator[str]:
    yield from ("## Names for `os:`", "", "The publishers' own cloud images, x86_64. The sum is looked up in the "
                "publisher's list over https when the template is made, or is fixed in vmwright (*fixed*).", "",
                "| name | system | disk at least | sum | address |", "|---|---|---|---|---|")
    for name in names():
        entry = lookup(name)
        title = entry.title + (" (no updates any more)" if entry.archived else "")
        how = "fixed" if entry.sha256 else entry.sums_algorithm
        yield f"| `{name}` | {title} | {format_size(entry.min_disk)} | {how} | {entry.location} |"


# ---- the commands ----


def commands() -> str:
    """The reference of the commands."""
    group: Any = typer.main.get_command(app)
    lines = [_BY_HAND, "# Reference: the commands", "", group.help or "", "",
             "`vmwright COMMAND --help` prints the same. Exit codes: [exit-codes.md](exit-codes.md).", ""]
    known = dict(_flat(group))
    lines += ["| command | what it does |", "|---|---|"]
    lines += [f"| [`{name}`](#vmwright-{name.replace(' ', '-')}) | {_cell(command.help)} |"
              for name, command in known.items()]
    lines += ["", "Options before the command:", "", *_options(group)]
    for name, command in known.items():
        lines += [f"## vmwright {name}", "", "```", f"vmwright {name} {_usage(command)}", "```", "", command.help, ""]
        lines += _arguments(command)
        lines += _options(command)
    return "\n".join(lines).rstrip() + "\n"


def _flat(group: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """All commands; those of a group under it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _flat(command, f"{above}{name} ")
        else:
            yield f"{above}{name}", command


def _usage(command: Any) -> str:
    """What comes after the command's name."""
    words = [_metavar(param) for param in command.params if param.param_type_name == "argument"]
    extra = ["[COMMAND...]"] if command.context_settings.get("allow_extra_args") else []
    return " ".join(["[OPTIONS]", *words, *extra])


def _metavar(param: Any) -> str:
    word = param.metavar or param.name.upper().removesuffix("S" if param.nargs == -1 else "")
    shown = word + ("..." if param.nargs == -1 else "")
    return shown if param.required else f"[{shown}]"


def _arguments(command: Any) -> list[str]:
    rows = [f"| `{_metavar(param)}` | {_cell(param.help or '')}{_default(param)} |" for param in command.params
            if param.param_type_name == "argument"]
    return ["| argument | meaning |", "|---|---|", *rows, ""] if rows else []


def _options(command: Any) -> list[str]:
    rows = [f"| {_spelling(param)} | {_cell(param.help or '')}{_default(param)} |" for param in command.params
            if param.param_type_name == "option" and not param.hidden]
    return ["| option | meaning |", "|---|---|", *rows, ""] if rows else []


def _spelling(param: Any) -> str:
    value = "" if param.is_flag else f" {param.metavar or param.name.upper()}"
    return ", ".join(f"`{name}{value}`" for name in param.opts)


def _default(param: Any) -> str:
    shown = not param.required and param.default not in (None, "", False, ()) and not callable(param.default)
    return f" Default: `{param.default}`." if shown and not getattr(param, "is_flag", False) else ""


# ---- exit codes ----

_OTHER_CODES = (
    (0, "Done, or nothing to do."),
    (1, "`doctor` found something that will not work."),
    (9, "`doctor` found something to look at, and nothing that will not work."),
    (2, "`plan --exit-code`: there is something to do."),
    (141, "The reader of the output (`head`, `less`) has closed it."),
)


def exit_codes() -> str:
    """The reference of the exit codes."""
    rows = [(code, words, "") for code, words in _OTHER_CODES] + list(_errors())
    lines = [_BY_HAND, "# Reference: exit codes", "",
             "A command that ends with an error says on standard error what happened, why, and what to do.", "",
             "| code | meaning | class in `errors.py` |", "|---|---|---|"]
    lines += [f"| {code} | {_cell(words)} | {f'`{name}`' if name else ''} |" for code, words, name in sorted(rows)]
    return "\n".join([*lines, "", _EXIT_WORDS])


_EXIT_WORDS = """\
`console` and `ssh` end with the code of the program that they run. When several actions of a run fail, the code is that
of the first. `status` and `facts` end with 0 whatever they find, `doctor` by the worst that
it finds: 1, 9, or 0 where there is nothing but advice.
"""


def _errors() -> Iterable[tuple[int, str, str]]:
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, errors.VmwrightError) and kind is not errors.VmwrightError:
            said = re.split(r"(?<=\.)\s+", inspect.getdoc(kind) or "")
            yield kind.exit_code, " ".join(one for one in said if not one.startswith("Carries ")), name


# ---- JSON ----

_JSON_HEAD = """\
# Reference: facts and plans as JSON

For programs, and for keeping. Both carry `format`, a number that changes when a program that reads them must change.
Sizes are bytes. No secret is in either.

## Plans: `vmwright plan --json`

| key | meaning |
|---|---|
| `format` | 1 |
| `cloud` | The cloud's name. |
| `empty` | `true` when there is nothing to do. |
| `counts` | How many actions of each kind: `add`, `change`, `remove`. |
| `costs` | Which objects pay for it, by effect. |
| `actions` | What is to be done, each after all that it needs: see below. |
| `refused` | What stands in the way: `what`, `do`, and `where` in the file (or `null`). The exit code is then 4. |
| `warnings` | Sentences. |
| `kept` | What is left alone: `host`, `object`, `why`. |
| `unlisted` | What is no longer in the file, in the same form. |

An action has `id` (unique in a plan, the same at every run), `sign` (`+`, `~`, `-`, `!`), `host`, `object`, `verb`,
`why`, `effects` (any of {effects}), `needs`
(ids of actions that come first), and `changes`: `key`, `old` (empty for something new), `new`, and `when` (`now`,
`at next start`, or empty).

A plan that gives a VM a second CPU:

```json
{plan}
```

## Facts: `vmwright facts --json`

What is on the hosts, from one read. `vmwright plan --facts FILE` plans against it. An unknown or missing key is an
error.
"""


def facts_json() -> str:
    """The reference of the JSON of facts and plans."""
    effects = ", ".join(f"`{effect.value}`" for effect in Effect)
    head = _JSON_HEAD.replace("{effects}", effects).replace("{plan}", sessions.plan_example())
    return "\n".join([_BY_HAND, head, *(line for kind in _FACTS for line in _record(kind))]).rstrip() + "\n"


_FACTS = (facts.Facts, facts.HostFacts, facts.PoolFacts, facts.VolumeFacts, facts.NetworkFacts, facts.LinkFacts,
          facts.DomainFacts, facts.ConfigFacts, facts.DiskFacts, facts.NicFacts, facts.OwnerFacts, facts.IntentFacts,
          facts.ImageFacts, facts.PathFacts, facts.BlockFacts, facts.GroupFacts, facts.ThinFacts,
          facts.CpuFacts, facts.NodeFacts, facts.HugepageFacts, facts.DeviceFacts, facts.UseFacts, facts.IommuFacts)


def _record(kind: Any) -> Iterator[str]:
    """A table of a record's fields; what they mean is said in the comments beside them."""
    said = dict(re.findall(r"^    (\w+): [^#\n]*?  # (.*)$", inspect.getsource(kind), re.MULTILINE))
    yield from (f"### {kind.__name__}", "", inspect.getdoc(kind) or "", "", "| key | type | |", "|---|---|---|")
    for known in fields(kind):
        form = re.sub(r"tuple\[(\w+), \.\.\.\]", r"list of \1", str(known.type)).replace("None", "null")
        yield f"| `{known.name}` | {_cell(form)} | {_cell(said.get(known.name, ''))} |"
    yield ""


_REFERENCE = {"spec.md": spec, "commands.md": commands, "exit-codes.md": exit_codes,
              "facts-and-plan-json.md": facts_json}


def main() -> None:
    """Write every file that differs."""
    for path, text in documents().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(DOCS.parent)}")


if __name__ == "__main__":
    main()
