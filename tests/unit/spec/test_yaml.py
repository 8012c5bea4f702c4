"""YAML: every way a file can be broken has its own sentence and place; values mean what a person means."""

from __future__ import annotations

import pytest

from vmwright.spec.yaml import parse

from .conftest import Desk


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "f.yaml:1:1: the file is empty\n    start with `cloud: NAME`"),
        (b"# only a comment\n", "f.yaml:1:1: the file is empty"),
        (b"- a\n- b\n", "f.yaml:1:1: the file is a list, not keys and values"),
        (b"just words\n", "f.yaml:1:1: the file is a single value, not keys and values"),
        (b"cloud: x\nvms:\n\tweb: {}\n", "f.yaml:3:1: not valid YAML: a tab\n    use spaces instead"),
        (b"cloud: x\nvms:\n  web: {}\n \tdb: {}\n", "f.yaml:4:2: not valid YAML: a tab\n    use spaces instead"),
        (b"cloud: a: b\n", "f.yaml:1:9: not valid YAML: a ':' where no key can be\n    check the indentation"),
        (b"cloud: x\n  vms: {}\n", "f.yaml:2:6: not valid YAML: a ':' where no key can be"),
        (
            b"cloud: 'x\n",
            "f.yaml:2:1: not valid YAML: a quote is not closed before the end of the file (opened at line 1)",
        ),
        (
            b"vms:\n  web: {a: 1\ncloud: x\n",
            "f.yaml:3:6: not valid YAML: a bracket is not closed, or a comma is missing",
        ),
        (b"vms: [1,\n", "f.yaml:2:1: not valid YAML: the file ends inside a bracket"),
        (b"cloud: @x\n", "f.yaml:1:8: not valid YAML: '@' cannot start a value\n    put the value in quotes"),
        (b"a: *nope\n", "f.yaml:1:4: not valid YAML: alias 'nope' has no anchor before it\n    write &NAME"),
        (b"a: 1\n---\nb: 2\n", "f.yaml:2:1: not valid YAML: a second document (---)\n    one file holds one document"),
        (b"a: \x01\n", "f.yaml:1:4: not valid YAML: control character '\\x01'\n    remove it"),
        (b"a: 1\nb: \xff\n", "f.yaml:2:4: not UTF-8 text: byte 0xff\n    save the file as UTF-8"),
        ("größe: 1\n".encode("latin-1"), "f.yaml:1:3: not UTF-8 text: byte 0xf6"),
        (b"a: " + b"[" * 100 + b"]" * 100, "f.yaml:1:43: not valid YAML: nested deeper than 40 levels"),
        (b"a: &x [*x]\n", "f.yaml:1:4: a value holds itself, by its own alias\n    remove the alias"),
        (b"a: 1\na: 2\n", "f.yaml:2:1: 'a' is given twice; first at f.yaml:1:1\n    keep one of them"),
        (b"? [a]\n: 1\n", "f.yaml:1:3: a key must be a word, not a list or a mapping"),
        (b"a: !cmd ls\n", "f.yaml:1:4: the tag !cmd means nothing here\n    leave it out"),
        (b"a: {<<: 3}\n", "f.yaml:1:9: << takes a mapping, by its alias: <<: *NAME"),
    ],
)
def test_broken_file(content: bytes, message: str) -> None:
    problems = [str(problem) for problem in parse("f.yaml", content).problems]
    assert len(problems) == 1
    assert problems[0].startswith(message)


def test_aliases_that_multiply_are_cut_off() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    document = parse("f.yaml", "\n".join(lines).encode())
    assert document.problems[0].what == "the file unfolds to more than 200000 values"
    assert document.root is None


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("4", 4), ("-1", -1), ("0", 0), ("0644", "0644"), ("0x1f", "0x1f"), ("1_000", "1_000"), ("22.04", "22.04"),
        ("1.50", "1.50"),
        ("1e3", "1e3"), ("true", True), ("False", False), ("yes", "yes"), ("no", "no"), ("on", "on"), ("~", None),
        ("", None),
        ("null", None), ("'4'", "4"), ('"true"', "true"), ("52:54:00:12:34:56", "52:54:00:12:34:56"), ("12:30:45",
        "12:30:45"),
        ("2024-01-01", "2024-01-01"), ("0-3,8", "0-3,8"), ("24-27", "24-27"), ("!!str 12", "12"), ("~/.ssh/key.pub",
        "~/.ssh/key.pub"),
        ("99999999999999999999999", "99999999999999999999999"), ("&anchor 5", 5), ("|\n  a\n  b\n", "a\nb\n"),
    ],
)  # fmt: skip
def test_values_mean_what_a_person_means(written: str, meant: object) -> None:
    document = parse("f.yaml", f"a: {written}\n".encode())
    assert document.problems == ()
    assert document.data == {"a": meant}
    assert type(document.data["a"]) is type(meant)


def test_old_yaml_does_not_turn_a_mac_into_a_number() -> None:
    document = parse("f.yaml", b"%YAML 1.1\n---\nmac: 52:54:00:12:34:56\nnumber: 11:22:33\nword: yes\n")
    assert document.data == {"mac": "52:54:00:12:34:56", "number": "11:22:33", "word": "yes"}


def test_merge_keys() -> None:
    text = b"a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], x: 3}\nd:\n  w: 4\n  <<: *b\n"
    document = parse("f.yaml", text)
    assert document.problems == ()
    assert document.data["c"] == {"x": 3, "y": 1, "z": 2}
    assert document.data["d"] == {"w": 4, "y": 2, "z": 2}
    assert str(document.marks[("c", "x")].key) == "f.yaml:3:19"
    assert str(document.marks[("c", "y")].value) == "f.yaml:1:17"  # where it is written


def test_places_count_characters_from_one() -> None:
    document = parse("f.yaml", "größe: {日本: [x, 四]}\r\nb:\r\n  c: 1\r\n".encode())
    assert str(document.marks[("größe", "日本", 1)].value) == "f.yaml:1:17"
    assert (str(document.marks[("b", "c")].key), str(document.marks[("b", "c")].value)) == ("f.yaml:3:3", "f.yaml:3:6")


def test_byte_order_mark_is_no_character() -> None:
    document = parse("f.yaml", b"\xef\xbb\xbfcloud: x\n")
    assert document.data == {"cloud": "x"}
    assert str(document.marks[("cloud",)].key) == "f.yaml:1:1"


def test_a_broken_file_says_nothing_else(desk: Desk) -> None:
    assert desk.problems("cloud: x\nvms: {web: {nonsense: 1}\n") == [
        "cloud.yaml:3:1: not valid YAML: a bracket is not closed, or a comma is missing (opened at line 2)\n"
        "    close it with ] or }, and put commas between items"
    ]
