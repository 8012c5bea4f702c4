"""What a user can get wrong at the command line: words and the exit code of its class, never a traceback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.plan.build import made
from tests.unit.plan.simulate import Machine, all_facts

import vmwright
from vmwright.cli import specs
from vmwright.cli.main import main
from vmwright.facts.store import dumps
from vmwright.spec.load import load

FILE = """\
cloud: lab
hosts:
  far: {connect: ssh://root@127.0.0.1:9, ssh_config: ./ssh_config, pools: {images: {dir: /srv/images}}}
networks: {lan: {nat: 10.0.0.0/24}}
users: {admin: {ssh_keys: [./key.pub]}}
templates: {base: {build: debian, disk: 4G}}
vms: {web-1: {template: base, memory: 1G, address: 10.0.0.10}}
"""
SOURCES = str(Path(vmwright.__file__).parents[1])
ON_HOSTS = (["facts"], ["plan"], ["apply", "-y"], ["rebuild", "web-1", "-y"], ["destroy", "web-1", "-y"], ["status"],
            ["start", "web-1"], ["stop", "web-1"], ["console", "web-1"], ["ssh", "web-1"])
ON_FILES = (*ON_HOSTS, ["check"], ["set", "vms.web-1.memory=2G"], ["log"], ["doctor"])
ON_VMS = ("rebuild", "start", "stop", "console", "ssh")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "200")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key"], check=True)
    Path("ssh_config").write_text("BatchMode yes\n")
    Path("cloud.yaml").write_text(FILE)


class Ran:
    """How a run of the command line ended."""

    def __init__(self, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setattr(sys, "argv", ["vmwright", *words])
        self.code: object = 0
        try:
            main()
        except SystemExit as end:
            self.code = end.code or 0
        self.out, self.err = capsys.readouterr()
        assert "Traceback" not in self.out + self.err
        assert "a bug in vmwright" not in self.err


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    return lambda *words: Ran(list(words), monkeypatch, capsys)


def name(words: list[str]) -> str:
    return words[0]


@pytest.mark.parametrize("words", ON_FILES, ids=name)
def test_a_file_that_is_not_there(words: list[str], ran) -> None:  # type: ignore[no-untyped-def]
    said = ran(words[0], "-f", "nowhere.yaml", *words[1:])
    assert (said.code, said.err) == (64, "error: cannot read nowhere.yaml: No such file or directory\n"
                                        "  do:  name the file, or let `vmwright init` write one\n")


@pytest.mark.parametrize("words", [words for words in ON_FILES if words[0] != "doctor"], ids=name)
def test_no_file_here(words: list[str], ran) -> None:  # type: ignore[no-untyped-def]
    """Without -f it is cloud.yaml; a newcomer who has none is told how to come by one."""
    Path("cloud.yaml").unlink()
    said = ran(*words)
    assert said.code == 64, said.err
    what, todo = said.err.splitlines()
    assert what in ("error: there is no cloud.yaml here", "error: cannot read cloud.yaml: No such file or directory")
    assert "vmwright init" in todo


@pytest.mark.parametrize("words", ON_FILES, ids=name)
def test_a_file_that_is_no_yaml(words: list[str], ran) -> None:  # type: ignore[no-untyped-def]
    Path("cloud.yaml").write_text("cloud: lab\nvms: {web-1: [\n")
    said = ran(*words)
    assert said.code == 3, said.err
    assert said.err.startswith("error: cloud.yaml:"), said.err


@pytest.mark.parametrize("words", ON_FILES, ids=name)
def test_a_file_with_several_mistakes(words: list[str], ran) -> None:  # type: ignore[no-untyped-def]
    """All of them at once, each with its place."""
    Path("cloud.yaml").write_text(FILE.replace("memory: 1G", "memory: 1GB").replace("template: base", "template: bas"))
    said = ran(*words)
    assert said.code == 3, said.err
    mistakes = 1 if words[0] == "set" else 2  # it would set the other one right
    assert len(re.findall(r"cloud\.yaml:7:\d+: ", said.err)) == mistakes, said.err
    assert "did you mean base?" in said.err


@pytest.mark.parametrize("command", ON_VMS)
def test_an_unknown_vm(command: str, ran) -> None:  # type: ignore[no-untyped-def]
    """The nearest name, or all there are; no host is asked."""
    said = ran(command, "wbe-1")
    assert (said.code, said.err) == (64, "error: there is no vm wbe-1 in the file\n  do:  did you mean web-1?\n"
                                         "       see them: vmwright status\n")
    said = ran(command, "other")
    assert (said.code, said.err) == (64, "error: there is no vm other in the file\n  do:  there is: web-1\n"
                                         "       see them: vmwright status\n")


@pytest.mark.parametrize(("words", "err"), [
    (["plan", "--bad"], "Error: No such option: --bad"), (["plna"], "Error: No such command 'plna'"),
    (["destroy"], "Error: Missing argument"), (["log", "-n", "x"], "Error: Invalid value for '-n' / '--run'"),
    (["check", "more"], "Error: Got unexpected extra argument"), (["--bad"], "Error: No such option: --bad")])
def test_a_wrong_command_line(words: list[str], err: str, ran) -> None:  # type: ignore[no-untyped-def]
    """It does not end like `plan --exit-code` where there is something to do."""
    said = ran(*words)
    assert (said.code, said.out) == (64, "")
    assert err in said.err
    assert "-h' for help." in said.err


@pytest.mark.parametrize(("options", "code"), [([], 0), (["--exit-code"], 2)])
def test_only_a_plan_with_something_to_do_ends_with_2(options: list[str], code: int, ran) -> None:  # type: ignore[no-untyped-def]
    wanted = load("cloud.yaml")
    Path("facts.json").write_text(dumps(all_facts(wanted, Machine("far"))))
    said = ran("plan", "--facts", "facts.json", *options)
    assert (said.code, said.err) == (code, "")
    assert said.out.endswith("\n\n4 to add.\n")


def test_a_plan_with_nothing_to_do_ends_with_0(ran) -> None:  # type: ignore[no-untyped-def]
    wanted = load("cloud.yaml")
    Path("facts.json").write_text(dumps(all_facts(wanted, made(wanted, Machine("far")))))
    said = ran("plan", "--facts", "facts.json", "--exit-code")
    assert (said.code, said.err) == (0, "")
    assert said.out.endswith("\n\nNothing to do: everything is as the file says.\n")


@pytest.mark.parametrize("words", [["check", "--schema"], ["check"], ["--help"],  # of typer
                                   ["plan", "--facts", "facts.json"]])  # of rich
def test_the_reader_of_the_output_has_gone(words: list[str]) -> None:
    """It is nobody's error, and nothing is said of it."""
    Path("facts.json").write_text(dumps(all_facts(load("cloud.yaml"), Machine("far"))))
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs) as out:
        done = subprocess.run([sys.executable, "-m", "vmwright.cli.main", *words], stdout=out, stderr=subprocess.PIPE,
                              env={**os.environ, "PYTHONPATH": SOURCES}, check=False)
    assert (done.returncode, done.stderr) == (141, b"")


def test_ctrl_c_while_nothing_is_changed(ran, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    def interrupted(file: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(specs, "load_cloud", interrupted)
    said = ran("check")
    assert (said.code, said.out, said.err) == (130, "", "stopped\n")


def test_a_key_file_that_is_not_there(ran) -> None:  # type: ignore[no-untyped-def]
    """check says it, plan refuses; both say what to do."""
    here = Path.cwd()
    Path("cloud.yaml").write_text(FILE.replace("./key.pub", "./id_ed25519.pub"))
    wanted = load("cloud.yaml")
    Path("facts.json").write_text(dumps(all_facts(wanted, Machine("far"))))
    what = (f"cloud.yaml:5:28: users.admin.ssh_keys.0: the key file ./id_ed25519.pub is not on this machine\n"
            f"    make it: ssh-keygen -t ed25519 -f {here}/id_ed25519\n"
            "    or name the one that is there: ./key.pub\n")
    said = ran("check")
    assert (said.code, said.out) == (0, f"! {what}cloud.yaml: right. Cloud lab: 1 host, 1 template, 1 VM.\n")
    said = ran("plan", "--facts", "facts.json")
    assert (said.code, said.err) == (4, f"error: {what}refused: nothing was changed\n")
    (found,) = json.loads(ran("plan", "--facts", "facts.json", "--json").out)["refused"]
    assert (found["where"], found["do"].splitlines()[0]) == (
        "cloud.yaml:5:28", f"make it: ssh-keygen -t ed25519 -f {here}/id_ed25519")


def test_a_console_needs_a_terminal(ran) -> None:  # type: ignore[no-untyped-def]
    said = ran("console", "web-1")
    assert said.code == 64
    assert said.err == ("error: a console needs a terminal\n  do:  run it in one, or see what it said so far, on the "
                        "host: /var/log/libvirt/qemu/web-1.serial.log\n")


@pytest.mark.parametrize("words", [words for words in ON_HOSTS if words[0] != "console"], ids=name)
def test_a_host_that_cannot_be_reached(words: list[str], ran) -> None:  # type: ignore[no-untyped-def]
    """Port 9 of this machine is closed."""
    said = ran(*words)
    assert said.code == 5, said.err
    assert said.err.startswith("error: cannot connect to host far (root@127.0.0.1:9)\n  why: "), said.err
    assert "Connection refused" in said.err
    assert said.err.endswith("  do:  nothing answers at that port: is sshd running there, and is the port right?\n")


def test_doctor_tells_of_a_host_that_cannot_be_reached(ran) -> None:  # type: ignore[no-untyped-def]
    said = ran("doctor")
    assert said.code == 1
    assert "FAIL  cannot connect to host far (root@127.0.0.1:9)" in said.out
    assert "do:  nothing answers at that port" in said.out
    assert said.out.endswith("\n1 will not work.\n")
    said = ran("doctor", "--json")
    (check,) = json.loads(said.out)["checks"]
    assert said.code == 1
    assert (check["host"], check["verdict"], check["what"]) == (
        "far", "fail", "cannot connect to host far (root@127.0.0.1:9)")
    assert "Connection refused" in check["why"] and check["todo"]


@pytest.mark.parametrize(("assignment", "code", "words"), [
    ("vms.web-1.memory", 64, "'vms.web-1.memory' is not PATH=VALUE"),
    ("=2G", 64, "'=2G' is not PATH=VALUE"),
    ("vms.wbe-1.memory=2G", 64, "web-1"),
    ("vms.web-1.memroy=2G", 3, "memory"),
    ("vms.web-1.memory=2GB", 3, "GB"),
])
def test_what_cannot_be_set(assignment: str, code: int, words: str, ran) -> None:  # type: ignore[no-untyped-def]
    """And the file is as it was."""
    said = ran("set", assignment)
    assert said.code == code, said.err
    assert words in said.err
    assert Path("cloud.yaml").read_text() == FILE


def test_what_is_set_and_what_is_applied_stand_apart(ran) -> None:  # type: ignore[no-untyped-def]
    said = ran("set", "vms.web-1.memory=2G", "--apply", "-y")
    assert said.code == 5, said.err
    assert re.fullmatch(r"(\S.*\n)+\n", said.out)
    assert said.err.endswith("\nnote: cloud.yaml has the new value, and what it asks for is not done, or not all of "
                             "it: apply it with `vmwright apply`, or set the old value again\n")
    assert "memory: 2G" in Path("cloud.yaml").read_text()


@pytest.mark.parametrize(("content", "words"), [("", "facts.json"), ("{", "facts.json"), ("[]", "facts.json"),
                                                ('{"format": 999}', "facts.json")])
def test_facts_that_are_none(content: str, words: str, ran) -> None:  # type: ignore[no-untyped-def]
    Path("facts.json").write_text(content)
    said = ran("plan", "--facts", "facts.json")
    assert said.code not in (0, 1, 70), said.err
    assert words in said.err


def test_facts_that_are_not_there(ran) -> None:  # type: ignore[no-untyped-def]
    said = ran("plan", "--facts", "nowhere.json")
    assert said.code not in (0, 1, 70), said.err
    assert "nowhere.json" in said.err


def test_a_run_that_is_not_in_the_journal(ran) -> None:  # type: ignore[no-untyped-def]
    assert ran("log").out == "There is no journal yet: nothing has been applied from this machine.\n"
    assert ran("log", "-n", "3").code == 0


def test_init_overwrites_nothing(ran) -> None:  # type: ignore[no-untyped-def]
    said = ran("init")
    assert (said.code, said.err) == (
        64, "error: cloud.yaml is there already\n  do:  name another file, or edit this one\n")
    assert Path("cloud.yaml").read_text() == FILE


def test_a_bug_is_one_line_and_a_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What nobody foresaw: not the user's doing, and said so."""
    def broken(file: str) -> None:
        raise KeyError(file)

    monkeypatch.setattr(specs, "load_cloud", broken)
    monkeypatch.setattr(sys, "argv", ["vmwright", "check"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 70
    said = re.fullmatch(r"error: this is a bug in vmwright: KeyError: 'cloud\.yaml'\n  why: traceback: (\S+)\n"
                        r"  do:  please report it with that file\n", capsys.readouterr().err)
    assert said is not None
    trace = Path(said[1])
    try:
        assert "Traceback (most recent call last):" in trace.read_text()
        assert "raise KeyError(file)" in trace.read_text()
    finally:
        trace.unlink()
