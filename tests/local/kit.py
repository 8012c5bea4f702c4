"""What the tests on this machine's libvirt share: a cloud of their own in a temporary folder, and its removal."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt

URI = "qemu:///system"
SOURCES = Path(__file__).resolve().parents[2] / "src"
POOLS = Path("/var/lib/libvirt")  # the user that QEMU runs as must reach the pool; pytest's folders are closed


@dataclass(frozen=True)
class Said:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def all(self) -> str:
        return self.out + self.err


@dataclass(frozen=True)
class Kit:
    """One test's cloud: `name` is unique, `folder` has its file and its state, `pool` is a directory for its volumes."""

    name: str
    folder: Path
    pool: Path
    subnet: str  # the first three parts of a /24

    @property
    def file(self) -> Path:
        return self.folder / "cloud.yaml"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(SOURCES), "XDG_STATE_HOME": str(self.folder / "state"), "COLUMNS": "200"}

    def write(self, vms: str, *, template: str = "", more: str = "", pool_dir: Path | None = None, host: str = "") -> None:
        """Write the cloud's file: `vms` and `template` are YAML, indented by two."""
        template = template or f"  blank: {{image: {self.blank}, disk: 64M, firmware: bios}}\n"
        self.file.write_text(f"""\
cloud: {self.name}
hosts:
  here:
    connect: {host or 'local'}
    pools:
      {self.name}-pool: {{dir: {pool_dir or self.pool}}}
networks:
  {self.name}-net: {{nat: {self.subnet}.0/24}}
users:
  admin: {{ssh_keys: [./key.pub], sudo: nopasswd}}
templates:
{template}{more}vms:
{vms}""")

    @property
    def blank(self) -> Path:
        """A small empty disk: enough for all that does not boot."""
        path = self.folder / "blank.qcow2"
        if not path.exists():
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "64M"], check=True)
        return path

    def run(self, *words: str, timeout: float = 900, input: str | None = None, program: list[str] | None = None,
            **environment: str) -> Said:
        """Run vmwright on the cloud's file."""
        argv = [sys.executable, *(program or ["-m", "vmwright.cli.main"]), words[0], "-f", str(self.file), *words[1:]]
        done = subprocess.run(argv, cwd=self.folder, env={**self.environment, **environment}, capture_output=True, text=True, timeout=timeout,
                              input=input, check=False)
        return Said(done.returncode, done.stdout, done.stderr)

    def ok(self, *words: str, timeout: float = 900) -> Said:
        """Run vmwright; anything but success fails the test with what it said."""
        said = self.run(*words, timeout=timeout)
        assert said.code == 0, said.all
        return said

    def plan(self, *words: str) -> dict[str, Any]:
        """The plan as data."""
        return dict(json.loads(self.run("plan", "--json", *words).out))

    def status(self) -> dict[str, dict[str, str]]:
        """The status rows by VM."""
        return {row["vm"]: row for row in json.loads(self.ok("status", "--json").out)}

    def volumes(self) -> set[str]:
        """The names of the files in the pool."""
        return {path.name for path in self.pool.iterdir()} if self.pool.exists() else set()

    def domain(self, vm: str) -> libvirt.virDomain:
        return connection().lookupByName(vm)

    def domains(self) -> set[str]:
        """The names of this cloud's domains."""
        return {d.name() for d in connection().listAllDomains() if d.name().startswith(self.name)}


_CONNECTION: list[libvirt.virConnect] = []


def connection() -> libvirt.virConnect:
    """One connection for all looks at the truth."""
    if not _CONNECTION:
        libvirt.registerErrorHandler(lambda *_: None, None)
        _CONNECTION.append(libvirt.open(URI))
    return _CONNECTION[0]


@contextmanager
def kit(folder: Path) -> Iterator[Kit]:
    """A cloud's kit, and afterwards nothing of it left, whatever happened."""
    name = f"t{secrets.token_hex(3)}"
    made = Kit(name, folder, POOLS / f"{name}-pool", _free_subnet())
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True)
    try:
        yield made
    finally:
        remove(made)


def _free_subnet() -> str:
    taken = subprocess.run(["ip", "-4", "-br", "address"], capture_output=True, text=True, check=True).stdout
    return next(s for s in (f"10.{secrets.randbelow(200) + 20}.{secrets.randbelow(250)}" for _ in range(100)) if s not in taken)


def remove(made: Kit) -> None:
    """Remove everything that carries the kit's name."""
    virt = connection()
    flags = libvirt.VIR_DOMAIN_UNDEFINE_NVRAM | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    for domain in virt.listAllDomains():
        if domain.name().startswith(made.name):
            if domain.isActive():
                domain.destroy()
            domain.undefineFlags(flags)
            Path(f"/var/log/libvirt/qemu/{domain.name()}.serial.log").unlink(missing_ok=True)
            Path(f"/var/log/libvirt/qemu/{domain.name()}.log").unlink(missing_ok=True)
    for network in virt.listAllNetworks():
        if network.name().startswith(made.name):
            if network.isActive():
                network.destroy()
            network.undefine()
    for pool in virt.listAllStoragePools():
        if pool.name().startswith(made.name):
            if pool.isActive():
                pool.destroy()
            pool.undefine()
    shutil.rmtree(made.pool, ignore_errors=True)
    shutil.rmtree(f"/var/lib/vmwright/{made.name}", ignore_errors=True)
