"""The agent's client, where a real agent cannot be made to answer so; tests/local/test_agent_real.py has the rest."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from vmwright.errors import AgentSilent, Cancelled, GuestError
from vmwright.guest.agent import Agent, AgentRefused, Ran, failed, must
from vmwright.guest.wait import pauses


class Script:
    """Answers commands from a list, notes what was asked, and moves a clock when it is waited for."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked, self.slept, self.now = list(answers), [], [], 0.0

    def command(self, text: str, timeout: int) -> str:
        request = json.loads(text)
        self.asked.append((request["execute"], request.get("arguments")))
        answer = self.answers.pop(0) if self.answers else {"return": {"exited": False}}
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, str) else json.dumps(answer)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def agent(self) -> Agent:
        return Agent(self.command, clock=lambda: self.now, sleep=self.sleep)


def returns(value: Any) -> dict[str, Any]:
    return {"return": value}


PID = returns({"pid": 7})
DONE = returns({"exited": True, "exitcode": 0, "out-data": b64encode(b"x").decode()})
RUNS = returns({"exited": False})


def test_pauses_double_up_to_the_limit() -> None:
    steps = pauses(0.05, 2.0)
    assert [next(steps) for _ in range(8)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_a_command_that_ends_at_once_is_not_waited_for() -> None:
    script = Script(PID, DONE)
    assert script.agent().exec(["true"]) == Ran(0, "x", "")
    assert script.slept == []


def test_polling_backs_off() -> None:
    script = Script(PID, *[RUNS] * 8, DONE)
    script.agent().exec(["sleep", "9"])
    assert script.slept == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_what_is_sent() -> None:
    script = Script(PID, DONE)
    script.agent().exec(["sfdisk", "-N", "1"], input=b", +\n")
    (name, arguments), status = script.asked
    assert name == "guest-exec"
    assert (arguments["path"], arguments["arg"]) == ("sfdisk", ["-N", "1"])
    assert (arguments["input-data"], arguments["capture-output"]) == ("LCArCg==", True)
    assert status == ("guest-exec-status", {"pid": 7})


def test_time_that_is_up_ends_the_command() -> None:
    script = Script(PID)
    with pytest.raises(GuestError) as caught:
        script.agent().exec(["resize2fs", "/a b"], timeout=5)
    assert str(caught.value) == "resize2fs in the guest did not end within 5 s\n  why: command: resize2fs '/a b'"
    assert script.now == 5
    assert script.asked[-1][1]["arg"] == ["7"]
    assert script.asked[-1][1]["path"] == "kill"


def test_what_a_poll_raises_ends_the_waiting() -> None:
    def cancelled() -> None:
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        Script(PID, RUNS).agent().exec(["x"], on_poll=cancelled)


@pytest.mark.parametrize("stream", ["out", "err"])
def test_output_that_was_cut_is_an_error(stream: str) -> None:
    cut = returns({"exited": True, "exitcode": 0, f"{stream}-truncated": True})
    with pytest.raises(GuestError, match="lsblk in the guest printed more than the agent carries"):
        Script(PID, cut).agent().exec(["lsblk"])


def test_output_that_is_not_text_is_shown_as_well_as_it_can() -> None:
    odd = returns({"exited": True, "exitcode": 0, "out-data": b64encode(b"\xff!").decode()})
    assert Script(PID, odd).agent().exec(["x"]).stdout == "\ufffd!"


@pytest.mark.parametrize("words", [
    "The command guest-exec has been disabled for this instance",  # qemu-ga 2.12 to 8.1
    "Command guest-exec has been disabled: the command is not allowed",  # from 8.2 on
    "The command guest-exec has not been found"])
@pytest.mark.parametrize("raised", [True, False], ids=["libvirt-raises-it", "it-is-in-the-reply"])
def test_a_refusal_names_the_remedy(words: str, raised: bool) -> None:
    answer: Any = GuestError(f"internal error: unable to execute QEMU agent command 'guest-exec': {words}")
    script = Script(answer if raised else {"error": {"class": "GenericError", "desc": words}})
    with pytest.raises(AgentRefused) as caught:
        script.agent().exec(["true"])
    assert str(caught.value).startswith("the guest agent refuses guest-exec\n  why: ")
    assert words in str(caught.value)
    assert "in /etc/sysconfig/qemu-ga empty BLACKLIST_RPC, BLOCK_RPCS and" in str(caught.value)


def test_silence_stays_silence() -> None:
    with pytest.raises(AgentSilent, match="not connected"):
        Script(AgentSilent("QEMU guest agent is not connected")).agent().ping()


@pytest.mark.parametrize(("answer", "text"), [
    ("<html>", "answer to guest-ping is not JSON\n  why: <html>"), ("[]", "answer to guest-ping makes no sense"),
    ("{}", "answer to guest-ping makes no sense"),
    ({"error": {"class": "GenericError", "desc": "no memory"}}, "not do guest-ping\n  why: GenericError no memory")])
def test_odd_answers(answer: Any, text: str) -> None:
    with pytest.raises(GuestError, match=text):
        Script(answer).agent().ping()


def cpus(*online: bool) -> dict[str, Any]:
    listed = [{"logical-id": n, "online": on, "can-offline": n > 0} for n, on in enumerate(online)]
    return returns(listed[::-1])


def test_cpus_are_brought_online_in_as_many_goes_as_it_takes() -> None:
    script = Script(cpus(True, False, False, False), returns(1), returns(2), cpus(True, True, True, True))
    assert script.agent().set_vcpus(4) == 4
    goes = [[cpu["logical-id"] for cpu in arguments["vcpus"]] for name, arguments in script.asked if "set" in name]
    assert goes == [[1, 2, 3], [2, 3]]


def test_a_cpu_that_cannot_go_offline_is_not_asked_to() -> None:
    script = Script(cpus(True, True), returns(1), cpus(True, False))
    assert script.agent().set_vcpus(0) == 1
    assert script.asked[1] == ("guest-set-vcpus", {"vcpus": [{"logical-id": 1, "online": False}]})


def test_nothing_to_set_asks_nothing() -> None:
    script = Script(cpus(True, True), cpus(True, True))
    assert script.agent().set_vcpus(2) == 2
    assert [name for name, _ in script.asked] == ["guest-get-vcpus"] * 2


def test_a_guest_that_refuses_more_cpus_is_not_asked_for_ever() -> None:
    script = Script(cpus(True, False), returns(0), cpus(True, False))
    assert script.agent().set_vcpus(2) == 1


def test_interfaces_without_addresses_and_old_agents() -> None:
    address = {"ip-address": "192.168.6.253", "prefix": 24, "ip-address-type": "ipv4"}
    net0 = {"name": "net0", "hardware-address": "52:00:00:00:00:01", "ip-addresses": [address]}
    links = Script(returns([net0, {"name": "sit0"}])).agent().interfaces()
    assert [link.addresses for link in links] == [("192.168.6.253/24",), ()]
    old = Script(returns([{"name": "vda1", "mountpoint": "/", "type": "ext4", "disk": []}])).agent().filesystems()
    assert (old[0].total, old[0].used) == (None, None)


class TestMust:
    def test_output_of_what_succeeds(self) -> None:
        assert must(Script(PID, DONE).agent(), ["x"]) == "x"

    def test_the_words_of_what_fails(self) -> None:
        bad = returns({"exited": True, "exitcode": 2, "err-data": b64encode(b"no such\ndisk\n").decode()})
        with pytest.raises(GuestError) as caught:
            must(Script(PID, bad).agent(), ["growpart", "/dev/vda", "1"])
        assert str(caught.value) == ("growpart in the guest failed with code 2\n"
                                     "  why: command: growpart /dev/vda 1\n       no such\n       disk")

    def test_a_script_is_not_printed(self) -> None:
        assert str(failed(["sh", "-c", "x\n" * 99], Ran(1, "said on stdout", ""))) == (
            "a script in the guest failed with code 1\n  why: said on stdout")
