"""The scripts that run inside guests, run here by sh with their paths turned to a directory of the test."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from vmwright.guest import scripts

PROXY = "http://192.168.6.200:3128"


class Guest:
    """A directory that stands for a guest's root; programs put into `bin` come before the machine's own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("run", "etc/dnf", "etc/sysconfig", "etc/sudoers.d", "usr/etc/sysconfig", "var/lib", "bin"):
            (root / name).mkdir(parents=True)

    def run(self, script: str, *arguments: str) -> None:
        for path in ("/etc/", "/run/", "/var/lib/"):
            script = script.replace(path, f"{self.root}{path}").replace(f"/usr{self.root}", f"{self.root}/usr")
        path = f"{self.root}/bin:{os.environ['PATH']}"
        done = subprocess.run(["sh", "-c", script, "vmwright", *arguments], capture_output=True, text=True,
                              env={"PATH": path, "LC_ALL": "C"}, check=False)
        assert (done.returncode, done.stderr) == (0, ""), script

    def twice(self, script: str, *arguments: str) -> None:
        """Run it twice: the second run must leave every file as it was."""
        self.run(script, *arguments)
        before = self.files()
        self.run(script, *arguments)
        assert self.files() == before

    def files(self) -> dict[str, tuple[str, int]]:
        return {str(path): (path.read_text(), path.stat().st_mtime_ns) for path in self.root.rglob("*")
                if path.is_file() and path.parent.name != "bin"}

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def program(self, name: str, script: str) -> None:
        self.write(f"bin/{name}", f"#!/bin/sh\n{script}\n").chmod(0o755)


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path)


class TestHosts:
    OWN = "127.0.0.1 localhost\n# mine: 192.168.6.1 gate # vmwright or not\n"

    def test_one_line_that_follows_the_address_and_never_accumulates(self, guest: Guest) -> None:
        hosts = guest.write("etc/hosts", self.OWN)
        guest.twice(scripts.HOSTS, "192.168.6.253", "z-dev.example.com z-dev")
        assert hosts.read_text() == self.OWN + "192.168.6.253\tz-dev.example.com z-dev # vmwright\n"
        guest.twice(scripts.HOSTS, "192.168.6.254", "z-dev")
        assert hosts.read_text() == self.OWN + "192.168.6.254\tz-dev # vmwright\n"

    def test_a_file_without_a_last_line_end(self, guest: Guest) -> None:
        hosts = guest.write("etc/hosts", "127.0.0.1 localhost")
        guest.twice(scripts.HOSTS, "10.0.0.1", "a")
        assert hosts.read_text() == "127.0.0.1 localhost\n10.0.0.1\ta # vmwright\n"


class TestDnfProxy:
    OWN = "[main]\ngpgcheck=1\nbest=True\n[other]\nx=1\n"

    def test_set_changed_and_taken_away(self, guest: Guest) -> None:
        conf = guest.write("etc/dnf/dnf.conf", self.OWN)
        guest.twice(scripts.DNF_PROXY, PROXY)
        ours = f"# by vmwright: the proxy of the cloud\nproxy={PROXY}\n"
        assert conf.read_text() == self.OWN.replace("[main]\n", f"[main]\n{ours}")
        guest.twice(scripts.DNF_PROXY, "http://other:1")
        assert conf.read_text().count("proxy=") == 1
        guest.twice(scripts.DNF_PROXY, "")
        assert conf.read_text() == self.OWN

    def test_the_images_own_proxy_gives_way(self, guest: Guest) -> None:
        conf = guest.write("etc/dnf/dnf.conf", "[main]\nproxy = http://old\n")
        guest.run(scripts.DNF_PROXY, PROXY)
        assert "http://old" not in conf.read_text()

    def test_a_guest_without_dnf(self, guest: Guest) -> None:
        guest.twice(scripts.DNF_PROXY, PROXY)
        assert guest.files() == {}


class TestZypperProxy:
    OWN = 'PROXY_ENABLED="no"\nHTTP_PROXY=""\nNO_PROXY="localhost"\n'

    def test_set_and_taken_away(self, guest: Guest) -> None:
        conf = guest.write("etc/sysconfig/proxy", self.OWN)
        guest.twice(scripts.ZYPPER_PROXY, PROXY)
        lines = conf.read_text().splitlines()
        assert lines == ['NO_PROXY="localhost"', "# by vmwright: the proxy of the cloud", 'PROXY_ENABLED="yes"',
                         f'HTTP_PROXY="{PROXY}"', f'HTTPS_PROXY="{PROXY}"']
        guest.twice(scripts.ZYPPER_PROXY, "")
        assert conf.read_text() == 'NO_PROXY="localhost"\nPROXY_ENABLED="no"\nHTTP_PROXY=""\nHTTPS_PROXY=""\n'

    def test_settings_of_the_user_are_left_alone_without_a_proxy(self, guest: Guest) -> None:
        conf = guest.write("etc/sysconfig/proxy", self.OWN.replace('"no"', '"yes"'))
        guest.run(scripts.ZYPPER_PROXY, "")
        assert conf.read_text() == self.OWN.replace('"no"', '"yes"')


class TestAccess:
    @pytest.fixture
    def keys(self, guest: Guest) -> Path:
        guest.program("getent", f'[ "$2" = nobody ] || echo "$2:x:1:1::{guest.root}/home/$2:/bin/sh"')
        return guest.write("home/admin/.ssh/authorized_keys", "")

    def test_a_key_that_is_taken_away_is_gone_and_others_stay(self, guest: Guest, keys: Path) -> None:
        guest.twice(scripts.ACCESS, "i-1", "admin ssh-rsa AAA a b\nadmin ssh-rsa BBB\nbob ")
        keys.write_text("ssh-rsa AAA a b\nssh-rsa BBB\nssh-rsa OWN put here inside\n")
        sudo = guest.write("etc/sudoers.d/90-cloud-init-users", "admin ALL\n")
        guest.run(scripts.ACCESS, "i-1", "admin ssh-rsa AAA a b\nadmin ssh-rsa BBB\nbob ")
        assert sudo.exists()  # the same instance: an ordinary boot, in which cloud-init would not write it again
        guest.twice(scripts.ACCESS, "i-2", "admin ssh-rsa BBB")
        assert keys.read_text() == "ssh-rsa BBB\nssh-rsa OWN put here inside\n"
        assert not sudo.exists()

    def test_all_keys_of_a_user_who_is_gone(self, guest: Guest, keys: Path) -> None:
        guest.run(scripts.ACCESS, "i-1", "admin ssh-rsa AAA\nnobody ssh-rsa CCC")
        keys.write_text("ssh-rsa AAA\n")
        guest.twice(scripts.ACCESS, "i-2", "")
        assert keys.read_text() == ""

    def test_what_is_remembered_is_for_root_alone(self, guest: Guest, keys: Path) -> None:
        guest.run(scripts.ACCESS, "i-1", "admin ssh-rsa AAA")
        assert (guest.root / "var/lib/vmwright/access").stat().st_mode & 0o777 == 0o600


class TestFreeAgent:
    @pytest.fixture(autouse=True)
    def systemctl(self, guest: Guest) -> Path:
        log = guest.root / "bin/log"
        guest.program("systemctl", f'echo "$@" >> {log}')
        guest.program("selinuxenabled", "exit 1")
        return log

    @pytest.mark.parametrize("line", [
        "BLACKLIST_RPC=guest-file-open,guest-exec,guest-exec-status",
        "BLOCK_RPCS=guest-file-open,guest-exec",
        'FILTER_RPC_ARGS="--allow-rpcs=guest-sync-delimited,guest-ping"'])
    def test_every_generation_of_the_setting_is_emptied_once(self, guest: Guest, systemctl: Path, line: str) -> None:
        conf = guest.write("etc/sysconfig/qemu-ga", f"# {line}\n{line}\nFSFREEZE_HOOK_ENABLE=0\n")
        guest.twice(scripts.FREE_AGENT)
        assert conf.read_text() == f"# {line}\n{line.split('=')[0]}=\nFSFREEZE_HOOK_ENABLE=0\n"
        assert systemctl.read_text() == "--no-block try-restart qemu-guest-agent.service\n"

    def test_defaults_under_usr_are_overridden(self, guest: Guest, systemctl: Path) -> None:
        guest.write("usr/etc/sysconfig/qemu-ga", 'FILTER_RPC_ARGS="--block-rpcs=guest-exec"\n')
        guest.twice(scripts.FREE_AGENT)
        assert (guest.root / "etc/sysconfig/qemu-ga").read_text() == "FILTER_RPC_ARGS=\n"
        assert systemctl.read_text().count("restart") == 1

    def test_a_free_agent_is_not_restarted(self, guest: Guest, systemctl: Path) -> None:
        guest.write("etc/sysconfig/qemu-ga", 'FILTER_RPC_ARGS=""\n')
        guest.twice(scripts.FREE_AGENT)
        assert not systemctl.exists()

    def test_selinux_lets_it_once(self, guest: Guest) -> None:
        guest.program("selinuxenabled", "exit 0")
        seen = guest.root / "bin/seen"
        guest.program("semodule", f'echo "$1" >> {seen}; cat "$2" >> {seen}')
        guest.twice(scripts.FREE_AGENT)
        assert seen.read_text() == "-i\n(typepermissive virt_qemu_ga_t)\n"


class TestAppend:
    def test_once_whatever_happens_to_the_file(self, guest: Guest) -> None:
        target = guest.write("etc/motd", "first\n")
        guest.write("var/lib/vmwright/append/abc", "second\n")
        guest.twice(scripts.APPEND, "abc", str(target), "0644", "root:root")
        assert target.read_text() == "first\nsecond\n"

    def test_a_file_that_is_not_there_is_made(self, guest: Guest) -> None:
        guest.program("chown", "exit 0")  # not root here
        guest.write("var/lib/vmwright/append/abc", "text")
        guest.twice(scripts.APPEND, "abc", f"{guest.root}/new dir/file", "0600", "root:root")
        made = guest.root / "new dir/file"
        assert (made.read_text(), made.stat().st_mode & 0o777) == ("text", 0o600)


class TestOnce:
    def test_the_rest_of_the_script_runs_once(self, guest: Guest) -> None:
        mark, state, out = (f"{guest.root}/{name}" for name in ("var/lib/vmwright/mark", "var/lib/vmwright", "out"))
        script = "\n".join([scripts.ONCE.format(mark=mark, state=state), f"echo ran >> {out}"])
        for _ in range(2):
            assert subprocess.run(["sh", "-c", script], check=False).returncode == 0
        assert Path(out).read_text() == "ran\n"


class TestNeed:
    def test_nothing_is_installed_that_is_there(self, guest: Guest) -> None:
        guest.program("apt-get", "exit 9")
        guest.run(scripts.NEED, "sh", "dash")

    def test_apt_updates_its_lists_only_when_it_must(self, guest: Guest) -> None:
        log, updated = guest.root / "bin/log", guest.root / "bin/updated"
        guest.program("apt-get", f'echo "$@" >> {log}; [ "$3" != install ] || [ -e {updated} ] || exit 100; '
                                 f'[ "$2" != update ] || : > {updated}')
        guest.run(scripts.NEED, "no-such-program", "xfsprogs")
        assert log.read_text() == "-q -y install xfsprogs\n-q update\n-q -y install xfsprogs\n"
