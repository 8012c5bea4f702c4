"""The scripts that see to the guest agent, run here by sh with package managers of the test's own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from vmwright.guest.seed import AGENT_NEEDED, AGENT_UP

PROXY = "http://192.168.6.200:3128"
NEEDED = ("sh", "cat", "cut", "grep", "tail", "mkdir", "rm")  # of the machine; no package manager of its own


class Guest:
    """A directory that stands for a guest: only the programs in `bin` are there. `asked` is what they were called with.

    `console` is its serial port.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.bin = root, root / "bin"
        (root / "run").mkdir()
        self.bin.mkdir()
        for tool in NEEDED:
            (self.bin / tool).symlink_to(next(p for p in (Path("/usr/bin", tool), Path("/bin", tool)) if p.exists()))
        self.console = root / "ttyS0"
        self.console.write_text("")

    def program(self, name: str, script: str = "") -> None:
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho "{name} $@ proxy=$http_proxy,$https_proxy" >> {self.root}/asked\n{script}\n')
        path.chmod(0o755)

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        for old, new in (("/run/", f"{self.root}/run/"), ("/dev/ttyS0", str(self.console)), (":/usr/sbin:/sbin", "")):
            script = script.replace(old, new)
        done = subprocess.run([os.path.realpath("/bin/sh"), "-c", script, "vmwright", *arguments], text=True,
                              capture_output=True, env={"PATH": str(self.bin), "LC_ALL": "C"}, check=False)
        assert "not found" not in done.stderr, done.stderr
        return done

    def install(self, proxy: str = "") -> str:
        """What the first script says; it never fails: the second one judges."""
        done = self.run(AGENT_NEEDED, proxy)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def asked(self) -> list[str]:
        """Every call of a program, each once used up."""
        path = self.root / "asked"
        said = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return said


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path)


class TestNeeded:
    MANAGERS = ("apt-get", "dnf", "yum", "zypper", "pacman")

    def test_nothing_is_asked_of_anybody_where_it_is_there(self, guest: Guest) -> None:
        for name in (*self.MANAGERS, "qemu-ga"):
            guest.program(name, "exit 9")
        assert guest.install(PROXY) == ""
        assert guest.asked == []

    @pytest.mark.parametrize(("name", "call"), [
        ("apt-get", "-q -y -o DPkg::Lock::Timeout=120 install qemu-guest-agent"),
        ("dnf", "-y install qemu-guest-agent"), ("yum", "-y install qemu-guest-agent"),
        ("zypper", "-n install qemu-guest-agent"), ("pacman", "-Sy --noconfirm qemu-guest-agent"),
    ])  # fmt: skip
    @pytest.mark.parametrize("proxy", [PROXY, ""])
    def test_each_package_manager_through_the_proxy(self, guest: Guest, name: str, call: str, proxy: str) -> None:
        guest.program(name, "echo installed")
        assert guest.install(proxy) == "installed\n"
        assert guest.asked == [f"{name} {call} proxy={proxy},{proxy}"]

    def test_dnf_before_the_yum_that_stands_for_it(self, guest: Guest) -> None:
        guest.program("dnf")
        guest.program("yum", "exit 9")
        guest.install()
        assert [call.split()[0] for call in guest.asked] == ["dnf"]

    def test_apt_fetches_its_lists_only_when_it_must_and_shows_what_counts(self, guest: Guest) -> None:
        guest.program("apt-get", f"""
[ "$5" = update ] && {{ : > {guest.root}/lists; exit; }}
[ -e {guest.root}/lists ] || {{ echo 'E: Unable to locate package'; exit 100; }}
echo installed""")
        assert guest.install() == "installed\n"
        assert [call.split()[5] for call in guest.asked] == ["install", "update", "install"]

    def test_a_guest_without_a_package_manager(self, guest: Guest) -> None:
        assert guest.install() == "Error: no package manager that is known here\n"


class TestUp:
    DOWN = 'case "$*" in *is-active*) exit 3 ;; start*) echo "Failed to start it: Unit not found." >&2; exit 5 ;; esac'

    def test_one_that_runs_is_left_alone(self, guest: Guest) -> None:
        guest.program("systemctl")
        assert guest.run(AGENT_UP).returncode == 0
        assert [call.split()[2] for call in guest.asked] == ["is-active"]

    def test_enabled_and_started(self, guest: Guest) -> None:
        guest.program("systemctl", 'case "$*" in *is-active*) exit 3 ;; esac')
        assert guest.run(AGENT_UP).returncode == 0
        assert [call.split()[1] for call in guest.asked] == ["--quiet", "enable", "start"]
        assert guest.console.read_text() == ""

    @pytest.mark.parametrize(("name", "said", "why"), [
        ("apt-get", "Ign:1 http://deb.example.org x\nErr:1 http://deb.example.org x\nReading package lists...\n"
                    "E: Unable to locate package qemu-guest-agent\n",
         ["Err:1 http://deb.example.org x", "E: Unable to locate package qemu-guest-agent"]),
        ("dnf", "Fedora 42   0.0 B/s\nErrors during downloading metadata for repository 'fedora':\n"
                "  - Curl error (6): Couldn't resolve host name for https://mirrors.example.org\n"
                "Error: Failed to download metadata for repo 'fedora'\n",
         ["Errors during downloading metadata for repository 'fedora':",
          "  - Curl error (6): Couldn't resolve host name for https://mirrors.example.org",
          "Error: Failed to download metadata for repo 'fedora'"]),
        ("zypper", "Loading repository data...\nWarning: Repository 'oss' is not cached.\n"
                   "No provider of 'qemu-guest-agent' found.\n",
         ["No provider of 'qemu-guest-agent' found."]),
        ("true", "", ["Error: no package manager that is known here"]),
    ])  # fmt: skip
    def test_why_it_is_not_there_ends_on_the_console(
        self, guest: Guest, name: str, said: str, why: list[str]
    ) -> None:
        guest.program("systemctl", self.DOWN)
        guest.program(name, f"cat <<'END'\n{said}END\nexit 1")
        guest.install()
        assert guest.run(AGENT_UP).returncode == 1
        assert guest.console.read_text().splitlines() == [
            "vmwright: the guest agent, qemu-guest-agent, could not be installed and started:", *why,
            "Failed to start it: Unit not found."]

    def test_words_that_nobody_foresaw_and_no_more_than_a_few(self, guest: Guest) -> None:
        guest.program("systemctl", 'case "$*" in *is-active*) exit 3 ;; start*) exit 5 ;; esac')
        guest.program("dnf", "for n in 1 2 3 4 5 6; do echo \"etwas ging schief $n\"; done; exit 1")
        guest.install()
        guest.run(AGENT_UP)
        assert guest.console.read_text().splitlines()[1:] == [f"etwas ging schief {n}" for n in (3, 4, 5, 6)]
