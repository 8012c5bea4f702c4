"""A cloud whose host is a rack: its file, and vmwright run on it as a user does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.rack.kit import SOURCES, sh

from vmwright.rack.record import Record

BLANK = "  blank: {image: ./blank.qcow2, disk: 64M, firmware: bios}\n"


@dataclass(frozen=True)
class RackCloud:
    """A cloud's file in a folder of its own; the image `blank` there is 64 MiB with nothing to boot."""

    rack: Record
    folder: Path
    name: str = "lab"

    def write(self, pools: str, vms: str = "", templates: str = BLANK) -> None:
        """`pools`, `vms` and `templates` are YAML, indented as they stand in the file."""
        blank = self.folder / "blank.qcow2"
        if not blank.exists():
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(blank), "64M"], check=True)
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "key")], check=True)
        (self.folder / "cloud.yaml").write_text(f"""\
cloud: {self.name}
hosts:
  rack:
    connect: ssh://root@127.0.0.1:{self.rack.port}
    ssh_config: {self.rack.folder / "ssh_config"}
    pools:
{pools}networks:
  lan: {{bridge: br0, subnet: 192.168.6.0/24}}
users:
  admin: {{ssh_keys: [./key.pub], sudo: nopasswd}}
templates:
{templates}{"vms:" if vms else ""}
{vms}""")

    @property
    def environment(self) -> dict[str, str]:
        """What vmwright is run with."""
        return {**os.environ, "PYTHONPATH": str(SOURCES), "COLUMNS": "200"}

    def argv(self, *words: str) -> list[str]:
        """The command that runs vmwright on the file."""
        return [sys.executable, "-m", "vmwright.cli.main", words[0], "-f", "cloud.yaml", *words[1:]]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run vmwright on the file."""
        return subprocess.run(self.argv(*words), cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=1800)

    def ok(self, *words: str) -> str:
        """Run it; anything but success fails the test with what it said."""
        done = self.run(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def plan(self) -> dict[str, Any]:
        """The plan as data."""
        return dict(json.loads(self.run("plan", "--json").stdout))

    def refused(self) -> list[str]:
        """What stands in the way of the plan."""
        return [row["what"] for row in self.plan()["refused"]]

    def sh(self, script: str) -> str:
        """What a shell script prints on the host."""
        return sh(self.rack, script)

    def drive(self, serial: str) -> str:
        """The device of an NVMe drive: the kernel numbers them in the order in which it finds them."""
        rows = (row.split() for row in self.sh("lsblk -dno PATH,SERIAL").splitlines())
        return next(row[0] for row in rows if row[1:] == [serial])

    def volumes(self, group: str) -> dict[str, int]:
        """The logical volumes of a group that one can see, with their sizes in bytes."""
        rows = self.sh(f"lvs --noheadings --units b --nosuffix -o lv_name,lv_size {group}").splitlines()
        return {row.split()[0]: int(row.split()[1]) for row in rows}


