"""A host over plain OpenSSH, for real: an sshd of the tests' own on loopback, and this machine's libvirt behind it."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.local.kit import BUSY, Kit
from tests.local.sshd import Sshd, make_key, sshd

from vmwright.errors import Cancelled, HostError
from vmwright.host.ssh import SshHost
from vmwright.virt.connect import Connection


@pytest.fixture
def server() -> Iterator[Sshd]:
    # Not in pytest's folder: sshd reads the keys of a user as that user, who could not get there.
    with tempfile.TemporaryDirectory(prefix="vmwright-sshd-") as folder:
        os.chmod(folder, 0o755)
        with sshd(Path(folder) / "sshd") as made:
            yield made


@pytest.fixture
def host(server: Sshd) -> Iterator[SshHost]:
    made = SshHost("far", server.url(), config=str(server.config))
    yield made
    made.close()


def write(cloud: Kit, server: Sshd, *, url: str = "", vms: str | None = None) -> None:
    """A cloud with one VM that is never started, on the host behind the tests' sshd."""
    vm = (f"  {cloud.name}-a: {{template: blank, firmware: bios, memory: 64M, running: false, disks: {{data: 1G}},"
          f" pool: {cloud.name}-pool, network: {cloud.name}-net, address: {cloud.subnet}.10}}\n")
    cloud.write(vm if vms is None else vms, host=f"{url or server.url()}\n    ssh_config: {server.config}")


def until(true: Callable[[], object]) -> None:
    """Wait until something becomes so."""
    for _ in range(600):
        if true():
            return
        time.sleep(0.05)
    pytest.fail("waited half a minute in vain")


def alive(pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_whole_way(cloud: Kit, server: Sshd) -> None:
    """Facts, plan, apply, nothing left to do, destroy: as on this machine, over one connection a run."""
    write(cloud, server)
    facts = cloud.ok("facts")
    assert "here" in facts.out
    assert server.logins() == 1
    assert [action["verb"] for action in cloud.plan()["actions"]] == ["create", "create", "make", "create"]
    before = server.logins()
    assert "read again, and everything is as the file says" in cloud.ok("apply", "-y").out
    assert server.logins() == before + 1, "one control connection serves a whole run"
    assert cloud.domains() == {f"{cloud.name}-a"}
    assert "Nothing to do" in cloud.ok("apply", "-y").out
    assert cloud.status()[f"{cloud.name}-a"]["state"] == "shut off"
    cloud.ok("destroy", f"{cloud.name}-a", "-y")
    assert cloud.domains() == set()
    assert [name for name in cloud.volumes() if ".template-" not in name] == []
    until(lambda: not server.sessions())


def refused(cloud: Kit, *, code: int = 5) -> str:
    """What `plan` says when the host cannot be reached, without the file's own warnings."""
    said = cloud.run("plan")
    assert said.code == code, said.all
    assert "Traceback" not in said.all
    return said.err


def test_another_host_key(cloud: Kit, server: Sshd) -> None:
    """The host shows another key than the one this machine knows: a stop, whatever may be behind it."""
    write(cloud, server)
    server.know(make_key(cloud.folder / "other_key"))
    said = refused(cloud)
    assert said.startswith(f"error: cannot connect to host here (root@127.0.0.1:{server.port})\n")
    assert "WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!" in said
    assert said.endswith(
        "  do:  its host key is not the one you have known: find out why; if the host was installed anew, remove the "
        f"old key with ssh-keygen -R '[127.0.0.1]:{server.port}' and connect once by hand\n")
    assert server.logins() == 0


def test_unknown_host_key(cloud: Kit, server: Sshd) -> None:
    """A host that this machine has never seen is not trusted at first sight."""
    write(cloud, server)
    server.know(None)
    said = refused(cloud)
    assert "Host key verification failed." in said
    assert said.endswith(
        f"  do:  this machine does not know the host's key yet: run `ssh -p {server.port} root@127.0.0.1` once by "
        "hand, compare the fingerprint, and accept it\n")
    assert server.known_hosts.read_text() == "", "nothing was accepted on the user's behalf"


def test_no_key_accepted(cloud: Kit, server: Sshd) -> None:
    write(cloud, server)
    server.authorized.write_text("")
    said = refused(cloud)
    assert "Permission denied (publickey)" in said
    assert said.endswith(f"  do:  no key is accepted there: run `ssh-copy-id -p {server.port} root@127.0.0.1`, or "
                         "start ssh-agent with the right key\n")


def test_closed_port(cloud: Kit, server: Sshd) -> None:
    write(cloud, server, url="ssh://root@127.0.0.1:9")
    said = refused(cloud)
    assert said.startswith("error: cannot connect to host here (root@127.0.0.1:9)\n")
    assert "Connection refused" in said
    assert said.endswith("  do:  nothing answers at that port: is sshd running there, and is the port right?\n")


@pytest.mark.parametrize("url", ["ssh://-oProxyCommand=touch@127.0.0.1", "ssh://-oProxyCommand=x", "ssh://root@-x:22"])
def test_a_name_that_looks_like_an_option(cloud: Kit, server: Sshd, url: str) -> None:
    """It never gets as far as a command line."""
    write(cloud, server, url=f'"{url}"')
    said = cloud.run("plan")
    assert said.code == 3, said.all
    assert "cloud.yaml:4:" in said.err
    assert "ssh://" in said.err
    with pytest.raises(ValueError, match="is not a host"):
        SshHost("far", url)


def test_odd_words_arrive_as_they_are(host: SshHost) -> None:
    """Two shells are between us and the command; neither sees anything to expand."""
    words = ["a b", "$HOME", "'", '"', "", "*", "; exit 3", "-n", "\\", "a\nb", "ö"]
    said = host.run(["printf", "%s\\0", *words]).stdout.decode().split("\0")[:-1]
    assert said == words


def test_a_failure_is_told_with_the_command_and_its_words(host: SshHost) -> None:
    with pytest.raises(HostError) as caught:
        host.run(["ls", "/nowhere at all"])
    assert caught.value.what == "ls on far failed with code 2"
    assert caught.value.why.splitlines() == [
        "command: ls '/nowhere at all'", "ls: cannot access '/nowhere at all': No such file or directory"]


def test_files_arrive_whole(host: SshHost, tmp_path: Path) -> None:
    """Written and uploaded: content, mode, the directory made, nothing beside them, progress told to the last byte."""
    target, data = tmp_path / "new dir" / "-file", os.urandom(3_000_001)
    host.write(str(target), data, mode=0o640)
    assert target.read_bytes() == data
    assert target.stat().st_mode & 0o777 == 0o640
    copy, sent = tmp_path / "new dir" / "copy", list[int]()
    host.upload(str(target), str(copy), on_bytes=sent.append)
    assert copy.read_bytes() == data
    assert sent[-1] == len(data)
    assert {path.name for path in target.parent.iterdir()} == {"-file", "copy"}


def test_a_file_cut_off_on_its_way_never_appears(server: Sshd, host: SshHost, tmp_path: Path) -> None:
    """The connection breaks in the middle of an upload: neither the name nor a temporary file is left."""
    source, target = tmp_path / "source", tmp_path / "there" / "target"
    source.write_bytes(bytes(64 << 20))

    def cut(sent: int) -> None:
        if sent == 8 << 20:
            for pid in server.sessions():
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(HostError, match=f"upload of {source} to host far failed"):
        host.upload(str(source), str(target), on_bytes=cut)
    until(lambda: not list(target.parent.iterdir()))


def test_an_upload_can_be_stopped(host: SshHost, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "there" / "target"
    source.write_bytes(bytes(64 << 20))

    def stop(sent: int) -> None:
        if sent >= 8 << 20:
            raise Cancelled("stopped at your wish")

    with pytest.raises(Cancelled):
        host.upload(str(source), str(target), on_bytes=stop)
    until(lambda: not list(target.parent.iterdir()))
    assert host.run(["echo", "still here"]).text == "still here"


def test_a_lost_connection_is_not_made_anew(server: Sshd, host: SshHost) -> None:
    """The host's lock was held through it: what comes after would work without one."""
    assert host.run(["echo", "here"]).text == "here"
    for pid in server.sessions():
        os.kill(pid, signal.SIGKILL)
    until(lambda: not server.sessions())
    for call in (lambda: host.run(["echo", "again"]), lambda: host.write("/nowhere/at/all", b"")):
        with pytest.raises(HostError, match=r"^the connection to host far \(root@127.0.0.1:[0-9]+\) was lost\n"):
            call()
    assert server.logins() == 1


def test_more_at_once_than_sshd_has_sessions(server: Sshd, host: SshHost) -> None:
    """sshd allows ten over one connection; the eleventh would open a connection of its own, or fail."""
    failed = list[BaseException]()

    def work(number: int) -> None:
        try:
            assert host.run(["sh", "-c", f"sleep 0.3; echo {number}"]).text == str(number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert server.logins() == 1


def test_cancel_ends_what_runs_there(host: SshHost, tmp_path: Path) -> None:
    """The command and its children end on the host, too, not only our ssh."""
    cancel, pids = threading.Event(), tmp_path / "pids"
    script = f"sleep 600 & echo $! $$ > {pids}; wait"
    watcher = threading.Thread(target=lambda: (until(lambda: pids.exists() and pids.read_text()), cancel.set()))
    watcher.start()
    with pytest.raises(Cancelled, match="stopped: sh -c 'sleep 600"):
        host.run(["sh", "-c", script], cancel=cancel)
    watcher.join()
    until(lambda: not any(alive(int(pid)) for pid in pids.read_text().split()))


def test_a_time_limit_ends_what_runs_there(host: SshHost, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(HostError, match=r"sh on far did not end within 1 s"):
        host.run(["sh", "-c", f"echo $$ > {pids}; exec sleep 600"], timeout=1)
    until(lambda: not alive(int(pids.read_text())))


def test_the_lock_works_from_afar(cloud: Kit, server: Sshd, host: SshHost) -> None:
    """Who holds it is named; a kill -9 of the holder frees it, and leaves no connection behind."""
    write(cloud, server)
    holder = _hold(server, cloud)
    try:
        said = cloud.run("apply", "-y", patience=0)
        assert said.code == BUSY, said.all
        assert "error: another vmwright is at work on host here" in said.err
        assert f", process {holder.pid}, since " in said.err
        assert "no lock has to be removed by hand" in said.err
        assert cloud.volumes() == set()
    finally:
        holder.kill()
        holder.communicate()
    cloud.ok("apply", "-y")
    host.close()
    until(lambda: not server.sessions())


_HOLD = """
import sys, time
from vmwright.apply.lock import host_lock
from vmwright.host.ssh import SshHost
with host_lock(SshHost("far", sys.argv[1], config=sys.argv[2])):
    print("held", flush=True)
    time.sleep(600)
"""


def _hold(server: Sshd, cloud: Kit) -> subprocess.Popen[str]:
    """A process that holds the lock of the host; waits for whoever has it now."""

    environment = {**cloud.environment, "TMPDIR": str(server.folder.parent)}  # a kill -9 leaves an empty folder there
    for _ in range(150):
        holder = subprocess.Popen([sys.executable, "-c", _HOLD, server.url(), str(server.config)],
                                  env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if holder.stdout and holder.stdout.readline() == "held\n":
            return holder
        _, said = holder.communicate()
        assert "is at work on host" in said, said
        time.sleep(2)
    pytest.fail("the lock never became free")


@pytest.fixture
def user() -> Iterator[str]:
    """A user who is not root; sudo lets it do everything or nothing, as a test says."""
    if not Path("/etc/sudoers.d").is_dir():
        pytest.skip("no sudo here")
    name = f"vmw{os.getpid()}"
    done = subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/sh", "--password", "*", name], check=False)
    if done.returncode:
        pytest.skip("no user can be made here")
    try:
        yield name
    finally:
        subprocess.run(["userdel", name], check=True)
        Path(f"/etc/sudoers.d/{name}").unlink(missing_ok=True)


def test_a_user_with_sudo(server: Sshd, user: str, tmp_path: Path) -> None:
    """Every command is root's, files and cancelling included."""
    rule = Path(f"/etc/sudoers.d/{user}")
    rule.write_text(f"{user} ALL=(ALL) NOPASSWD: ALL\n")
    rule.chmod(0o440)
    made = SshHost("far", server.url(user), config=str(server.config))
    try:
        assert made.run(["id", "-u"]).text == "0"
        assert made.run(["sh", "-c", "echo $SUDO_USER $LC_ALL"]).text == f"{user} C.UTF-8"
        made.write(str(tmp_path / "file"), b"text", mode=0o600)
        assert (tmp_path / "file").stat().st_uid == 0
        with pytest.raises(HostError, match="did not end within 1 s"):
            made.run(["sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 600"], timeout=1)
        until(lambda: not alive(int((tmp_path / "pid").read_text())))
    finally:
        made.close()


def test_libvirt_is_reached_by_a_user_with_sudo(server: Sshd, user: str) -> None:
    """Who is in no group of libvirt's, on a host without polkit: as root, and for as long as it is open."""
    rule = Path(f"/etc/sudoers.d/{user}")
    rule.write_text(f"{user} ALL=(ALL) NOPASSWD: ALL\n")
    rule.chmod(0o440)
    made = SshHost("far", server.url(user), config=str(server.config))
    try:
        with Connection(made.libvirt_uri(), "far") as virt:
            assert virt.inventory().libvirt
            relay = subprocess.run(["pgrep", "-f", "virt-ssh-helper qemu:///system"], capture_output=True, check=True)
    finally:
        made.close()
    until(lambda: not any(alive(int(pid)) for pid in relay.stdout.split()))


def test_a_user_without_sudo(server: Sshd, user: str) -> None:
    assert pwd.getpwnam(user).pw_uid != 0
    made = SshHost("far", server.url(user), config=str(server.config))
    try:
        with pytest.raises(HostError) as caught:
            made.run(["true"])
    finally:
        made.close()
    assert caught.value.what == (
        f"on host far ({user}@127.0.0.1:{server.port}) you are not root, and sudo does not make you root")
    assert "sudo: a password is required" in caught.value.why
    assert caught.value.todo == ("connect as root, or let this user do everything without a password: `NOPASSWD: ALL` "
                                 "in a file of /etc/sudoers.d")
