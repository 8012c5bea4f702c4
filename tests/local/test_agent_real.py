"""The agent's client against QEMU's own agent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.local.local_agent import find_qemu_ga, qemu_ga

from vmwright.errors import AgentSilent, GuestError
from vmwright.guest.agent import Agent, AgentRefused


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    return find_qemu_ga(tmp_path_factory.mktemp("qga"))


@pytest.fixture(scope="module")
def agent(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    with qemu_ga(program, tmp_path_factory.mktemp("agent")) as channel:
        yield Agent(channel)


def test_it_says_what_it_can_do(agent: Agent) -> None:
    agent.ping()
    version, commands = agent.info()
    assert version[0].isdigit()
    assert {"guest-exec", "guest-file-open"} <= commands


def test_exec_gives_code_and_both_outputs(agent: Agent) -> None:
    ran = agent.exec(["sh", "-c", "echo \"$1\"; echo err >&2; exit 3", "sh", "a b 'c' \"d\" é"])
    assert ran == (3, "a b 'c' \"d\" é\n", "err\n")


def test_exec_passes_input_and_a_c_locale(agent: Agent) -> None:
    assert agent.exec(["cat"], input=b"x\0y\n").stdout == "x\0y\n"
    assert "LC_ALL=C" in agent.exec(["env"]).stdout.splitlines()


def test_a_program_that_is_not_there_is_127_as_in_a_shell(agent: Agent) -> None:
    ran = agent.exec(["no-such-program"])
    assert ran.code == 127
    assert "no-such-program" in ran.stderr


def test_a_signal_is_128_and_more(agent: Agent) -> None:
    assert agent.exec(["sh", "-c", "kill -9 $$"]).code == 137


def test_a_command_that_does_not_end_is_told_to(agent: Agent, tmp_path: Path) -> None:
    alive = tmp_path / "pid"
    with pytest.raises(GuestError, match="a script in the guest did not end within 0 s"):
        agent.exec(["sh", "-c", f"echo $$ > {alive}; exec sleep 600"], timeout=0.3)
    assert agent.exec(["sh", "-c", f"while kill -0 $(cat {alive}); do sleep 0.05; done"], timeout=10).code == 0


def test_output_over_the_agents_limit_is_an_error(agent: Agent) -> None:
    with pytest.raises(GuestError, match="head in the guest printed more than the agent carries"):
        agent.exec(["head", "-c", str(17 << 20), "/dev/zero"])


def test_large_output_comes_whole(agent: Agent) -> None:
    assert len(agent.exec(["head", "-c", str(3 << 20), "/dev/zero"]).stdout) == 3 << 20


def test_files_are_read_in_parts_and_whole(agent: Agent, tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    (tmp_path / "file").write_bytes(data)
    assert agent.read_file(str(tmp_path / "file")) == data
    (tmp_path / "file").write_bytes(b"")
    assert agent.read_file(str(tmp_path / "file")) == b""
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(GuestError, match="larger than 1000 bytes"):
        agent.read_file(str(tmp_path / "file"), limit=1000)


def test_a_file_that_is_not_there(agent: Agent) -> None:
    with pytest.raises(GuestError, match=r"could not do guest-file-open[\s\S]*No such file"):
        agent.read_file("/no/such/file")


def test_cpus_addresses_and_file_systems(agent: Agent) -> None:
    cpus = agent.vcpus()
    assert [cpu.id for cpu in cpus] == list(range(len(cpus)))
    assert agent.set_vcpus(sum(cpu.online for cpu in cpus)) == sum(cpu.online for cpu in cpus)
    assert "127.0.0.1/8" in next(link for link in agent.interfaces() if link.name == "lo").addresses
    assert all(one.mount.startswith("/") for one in agent.filesystems())


def test_a_blocked_agent_says_so_and_what_to_do(program: str, tmp_path: Path) -> None:
    with qemu_ga(program, tmp_path, "-b", "guest-exec,guest-file-open") as channel:
        agent = Agent(channel)
        with pytest.raises(AgentRefused) as caught:
            agent.exec(["true"])
        assert "the guest agent refuses guest-exec" in str(caught.value)
        assert "empty BLACKLIST_RPC, BLOCK_RPCS and" in str(caught.value)
        with pytest.raises(AgentRefused, match="refuses guest-file-open"):
            agent.read_file("/etc/hostname")
        assert "guest-exec" not in agent.info()[1]


def test_an_agent_that_is_gone_is_silent(program: str, tmp_path: Path) -> None:
    with qemu_ga(program, tmp_path) as channel:
        agent = Agent(channel)
        agent.ping()
    with pytest.raises(AgentSilent):
        agent.ping()
