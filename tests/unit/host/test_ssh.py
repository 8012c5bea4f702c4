"""The pure parts of hosts over ssh: what is read from the file, and what ssh's words mean."""

from __future__ import annotations

import pytest

from vmwright.host.ssh import SshTarget, connect_error, parse_url


@pytest.mark.parametrize(("url", "target", "argv"), [
    ("ssh://kvm1", SshTarget("kvm1"), ["--", "kvm1"]),
    ("ssh://root@192.168.6.200", SshTarget("192.168.6.200", "root"), ["-l", "root", "--", "192.168.6.200"]),
    ("ssh://root@kvm1:2222/", SshTarget("kvm1", "root", 2222), ["-l", "root", "-p", "2222", "--", "kvm1"]),
    ("ssh://admin@[fd00::1]:22", SshTarget("fd00::1", "admin", 22), ["-l", "admin", "-p", "22", "--", "fd00::1"]),
])
def test_urls(url: str, target: SshTarget, argv: list[str]) -> None:
    assert parse_url(url) == target
    assert parse_url(url).argv() == argv


@pytest.mark.parametrize("url", [
    "", "kvm1", "root@kvm1", "http://kvm1", "ssh://", "ssh://@kvm1", "ssh://a@b@c", "ssh://kvm1:port", "ssh://kvm1/dir",
    "ssh://-oProxyCommand=x", "ssh://-l@kvm1", "ssh://root@-p", "ssh://fd00::1"])
def test_what_is_no_host(url: str) -> None:
    with pytest.raises(ValueError, match=r"is not a host: write local or ssh://user@host\[:port\]"):
        parse_url(url)


@pytest.mark.parametrize(("said", "todo"), [
    ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
     "its host key is not the one you have known: find out why; if the host was installed anew, remove the old key "
     "with ssh-keygen -R '[kvm1]:2222' and connect once by hand"),
    ("No ED25519 host key is known for kvm1\nHost key verification failed.",
     "this machine does not know the host's key yet: run `ssh -p 2222 root@kvm1` once by hand, compare the "
     "fingerprint, and accept it"),
    ("root@kvm1: Permission denied (publickey,password).",
     "no key is accepted there: run `ssh-copy-id -p 2222 root@kvm1`, or start ssh-agent with the right key"),
    ("ssh: Could not resolve hostname kvm1: Name or service not known",
     "the name is unknown: check `connect:` in the file and your DNS"),
    ("ssh: connect to host kvm1 port 2222: Connection refused",
     "nothing answers at that port: is sshd running there, and is the port right?"),
    ("ssh: connect to host kvm1 port 2222: Connection timed out",
     "the host does not answer: is it up, and reachable from here?"),
    ("ssh: connect to host kvm1 port 2222: No route to host",
     "there is no way to that address from here: check the network"),
    ("kex_exchange_identification: read: Connection reset by peer", "try `ssh -p 2222 root@kvm1` by hand"),
])
def test_what_ssh_says_and_what_to_do(said: str, todo: str) -> None:
    error = connect_error("zcloud", parse_url("ssh://root@kvm1:2222"), f"{said}\n")
    assert error.what == "cannot connect to host zcloud (root@kvm1:2222)"
    assert error.why == said
    assert error.todo == todo
    assert error.exit_code == 5


def test_the_standard_port_is_not_part_of_a_known_name() -> None:
    said = "REMOTE HOST IDENTIFICATION HAS CHANGED"
    assert "ssh-keygen -R 'kvm1' and" in connect_error("a", parse_url("ssh://kvm1:22"), said).todo
    assert "ssh-keygen -R 'kvm1' and" in connect_error("a", parse_url("ssh://kvm1"), said).todo
