"""Probes: one script, split again, each output parsed; recorded hosts, and outputs that are torn or odd."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmwright.errors import HostError
from vmwright.facts import probes
from vmwright.facts.model import IntentFacts, LinkFacts, PathFacts, VolumeFacts
from vmwright.facts.probes import Output, split
from vmwright.names import HOST_STATE
from vmwright.plan.needs import tools_of
from vmwright.spec.cloud import BuildSource, Filesystem, ImageSource

RECORDINGS = Path(__file__).parents[2] / "machines"
NAMES = ("hostname", "os", "kernel", "user", "cpus", "memory", "topology", "links", "tools", "kvm", "kvm-device",
         "intents", "work", "paths", "files", "platform", "own-files")


def recorded(name: str) -> dict[str, Output]:
    """The outputs of a recorded host."""
    return split((RECORDINGS / f"{name}.txt").read_text())


@pytest.mark.parametrize("host", ["debian12", "ubuntu2004"])
def test_a_recording_has_every_probe(host: str) -> None:
    outputs = recorded(host)
    assert tuple(outputs) == NAMES == tuple(probes.commands("lab", ()))
    probes.demand(outputs, "here")
    assert all(output.code == 0 for output in outputs.values())


def test_a_script_is_the_commands_between_marks() -> None:
    text = probes.script({"one": ["echo", "a b; rm -rf /"], "two": ["true"]})
    assert [shlex.split(line)[0] for line in text.splitlines()] == ["printf", "printf"]
    assert "'a b; rm -rf /'" in text


def test_paths_and_names_are_words_and_not_shell() -> None:
    """A directory may be called anything that the spec allows."""
    odd = "/srv/a b$(touch x)'\"`"
    for name in ("paths", "files"):
        assert odd in probes.commands("lab", {odd}, {odd})[name]


def test_vmwrights_own_directory_is_looked_at_too() -> None:
    assert HOST_STATE in probes.commands("lab", ())["paths"]


@pytest.mark.parametrize("source", [
    *(BuildSource("debian", "bookworm", filesystem) for filesystem in Filesystem),
    *(ImageSource(f"https://example.org/i{ending}") for ending in (".qcow2", ".raw.xz", ".img.gz", ".raw.zst"))])
def test_every_program_that_the_plan_asks_for_is_looked_for(source: BuildSource | ImageSource) -> None:
    """Else it would be missing on every host."""
    assert set(tools_of(source)) <= set(probes.TOOLS)


def test_split_passes_over_what_the_login_shell_prints() -> None:
    text = "Welcome to kvm1!\nLast login: ...\n" + (RECORDINGS / "debian12.txt").read_text() + "logout\n"
    assert split(text) == recorded("debian12")


@pytest.mark.parametrize("torn", ["--vmwright-end--", "--vmwright-end-- x", "--vmwright-end", ""])
def test_a_probe_whose_end_is_torn_is_not_there(torn: str) -> None:
    assert split(f"--vmwright-begin-- os\nNAME=x\n\n{torn}") == {}


def test_split_keeps_exit_codes_and_empty_lines_inside() -> None:
    text = ("\n--vmwright-begin-- a\none\n\ntwo\n\n\n--vmwright-end-- 3\n"
            "--vmwright-begin-- b\n\n--vmwright-end-- 127\n")
    assert split(text) == {"a": Output("one\n\ntwo", 3), "b": Output("", 127)}


@given(st.integers(0, 10_000))
def test_any_beginning_of_a_recording_is_understood_or_refused(length: int) -> None:
    """A connection that breaks leaves a part: what is missing is named, and nothing half is believed."""
    whole = (RECORDINGS / "debian12.txt").read_text()
    outputs = split(whole[:length])
    full = recorded("debian12")
    assert all(full[name] == output for name, output in outputs.items())
    if len(outputs) < len(full):
        with pytest.raises(HostError, match="did not answer the probe"):
            probes.demand(outputs, "here")


def test_a_missing_probe_is_named_with_what_to_do() -> None:
    with pytest.raises(HostError) as caught:
        probes.demand({name: Output("", 0) for name in NAMES if name != "kvm"}, "zcloud")
    assert str(caught.value) == (
        "host zcloud did not answer the probe kvm\n  why: its shell ended too early\n"
        "  do:  is the login shell there a POSIX shell, and does it print nothing by itself?")


@pytest.mark.parametrize(("text", "name"), [
    ('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME=x', "Debian GNU/Linux 12 (bookworm)"),
    ("NAME='Arch Linux'\n# comment\nnonsense", "Arch Linux"),
    ("NAME=Alpine", "Alpine"), ("", "unknown"), ("===", "unknown")])
def test_os_release(text: str, name: str) -> None:
    assert probes.parse_os(text) == name


def test_recorded_systems() -> None:
    assert probes.parse_os(recorded("debian12")["os"].text) == "Debian GNU/Linux 12 (bookworm)"
    assert probes.parse_os(recorded("ubuntu2004")["os"].text) == "Ubuntu 20.04.6 LTS"


@pytest.mark.parametrize(("text", "sizes"), [
    ("MemTotal: 2048 kB\nMemAvailable: 1024 kB", (2 << 20, 1 << 20)),
    ("MemTotal: 2048 kB\nMemFree: 1 kB", (2 << 20, 2 << 20)),  # before Linux 3.14
    ("MemTotal: 2048 kB\nMemAvailable:", (2 << 20, 2 << 20)),
    ("odd line\nMemTotal: 2048 kB\nHugePages_Total: 0\nX: y z", (2 << 20, 2 << 20))])
def test_meminfo(text: str, sizes: tuple[int, int]) -> None:
    assert probes.parse_meminfo(text) == sizes


@pytest.mark.parametrize("text", ["", "MemTotal:", "MemTotal: much kB"])
def test_meminfo_without_a_total_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="it has no MemTotal"):
        probes.parse_meminfo(text)


def test_links_of_a_debian_host() -> None:
    links = probes.parse_links(recorded("debian12")["links"].text)
    assert links[:2] == (LinkFacts("lo", "loopback", ("127.0.0.1/8",), True, "00:00:00:00:00:00"),
                         LinkFacts("eth0", "ethernet", ("192.0.2.2/24",), True, "02:fc:00:00:00:01"))
    assert (links[2].kind, links[2].up) == ("bridge", True)


def test_links_of_an_ubuntu_host_with_bridges() -> None:
    """Older iproute2 prints an empty object where it leaves an interface out."""
    assert probes.parse_links(recorded("ubuntu2004")["links"].text) == (
        LinkFacts("lo", "loopback", ("127.0.0.1/8",), True, "00:00:00:00:00:00"),
        LinkFacts("eno1", "ethernet", (), True, "94:18:82:00:00:01", master="br0"),
        *(LinkFacts(f"eno{number}", "ethernet", (), False, f"94:18:82:00:00:{number:02x}")
          for number in (3, 4, 50, 51, 52)),
        LinkFacts("eno2", "ethernet", (), True, "94:18:82:00:00:02"),
        LinkFacts("eno49", "ethernet", (), False, "94:18:82:00:00:49"),
        LinkFacts("br0", "bridge", ("192.168.6.200/24", "192.168.7.200/24"), True, "94:18:82:00:00:01",
                  forward_delay=4.0),
        LinkFacts("virbr0", "bridge", ("192.168.122.1/24",), True, "52:54:00:4d:7d:4b", stp=True, forward_delay=2.0),
        LinkFacts("tun0", "tun", ("10.8.0.6/32",), True))


@pytest.mark.parametrize(("text", "links"), [
    ("", ()), ("[]", ()), ("[{}]", ()),
    ('[{"ifname":"x.7","link":"x","address":"02:00:00:00:00:01","linkinfo":{"info_kind":"vlan","info_data":{"id":7}},'
     '"addr_info":[{"family":"inet","local":"10.0.0.9","prefixlen":8,"dynamic":true}]}]',
     (LinkFacts("x.7", "vlan", ("10.0.0.9/8",), mac="02:00:00:00:00:01", lower="x", vlan=7, dynamic=True),)),
    ('[{"ifname":"x"}]', (LinkFacts("x", "ethernet"),)),
    ('[{"ifname":"x","addr_info":[{"family":"inet"},{"family":"inet6","local":"::1","prefixlen":1}]}]',
     (LinkFacts("x", "ethernet"),))])
def test_odd_links(text: str, links: tuple[LinkFacts, ...]) -> None:
    assert probes.parse_links(text) == links


def test_notes_of_what_was_begun() -> None:
    """The recording's second one is torn: nothing was done after it."""
    assert probes.parse_intents(recorded("debian12")["intents"].text) == (
        IntentFacts("lab", "web", "create", ("/srv/images/lab.web.root.qcow2",), "0a1b2c3d4e5f"),)


@pytest.mark.parametrize("line", [
    "", "{", "[]", "3", '"text"', "null", '{"cloud": "lab"}', '{"cloud": 1, "object": "a", "operation": "b"}',
    '{"cloud": "a", "object": "b", "operation": "c", "volumes": "/path"}', "\x00"])
def test_what_is_no_note_is_passed_over(line: str) -> None:
    good = json.dumps({"cloud": "lab", "object": "web", "operation": "boot"})
    assert probes.parse_intents(f"{line}\n{good}") == (IntentFacts("lab", "web", "boot"),)


def test_work_directories() -> None:
    assert probes.parse_work(recorded("debian12")["work"].text) == (IntentFacts("", "base-0123456789ab", "template"),)
    assert probes.parse_work("") == ()


def test_directories() -> None:
    assert probes.parse_paths(recorded("debian12")["paths"].text) == (
        PathFacts("/root/vms", False, 78748848128, "/root", "ext4"),
        PathFacts("/srv/images", True, 78748012544, None, "ext4"),
        PathFacts("/var/lib/vmwright", True, 78746906624, None, "ext4"))
    assert probes.parse_paths("df: no file system\n1\tmuch\t\t\t/srv\ntoo\tfew") == (PathFacts("/srv", True, 0),)


def test_volumes_that_libvirt_does_not_tell_of() -> None:
    text = recorded("debian12")["files"].text
    base = "/srv/images/lab.base.template-0123456789ab.qcow2"
    assert probes.parse_files(text, {"/srv/images": "vms"}) == (
        VolumeFacts("vms", base.rpartition("/")[2], base, "qcow2", 4 << 30, 200704),
        VolumeFacts("vms", "lab.web.root.qcow2", "/srv/images/lab.web.root.qcow2", "qcow2", 8 << 30, 200704, base),
        VolumeFacts("vms", "lab.web.seed.iso", "/srv/images/lab.web.seed.iso", "raw", 71680, 73728))
    assert probes.parse_files(text, {}) == ()
    assert len(probes.parse_files(text[: text.rindex("{")] + '{"torn', {"/srv/images": "vms"})) == 2
    assert probes.parse_files("[1] {} 3 ", {"": "vms"}) == ()
