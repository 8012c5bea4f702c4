"""What the tests on this machine's libvirt share: a cloud of their own in a temporary folder, and its removal."""

from __future__ import annotations

import atexit
import functools
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt

URI = "qemu:///system"
SOURCES = Path(__file__).resolve().parents[2] / "src"
BUSY = 7  # the exit code
_PATIENCE = 300.0  # seconds to wait for another vmwright's lock
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
    """One test's cloud: `name` is unique, `folder` has its file and its state, `pool` is for its volumes."""

    name: str
    folder: Path
    pool: Path
    subnet: str  # the first three parts of a /24

    @property
    def file(self) -> Path:
        return self.folder / "cloud.yaml"

    @property
    def environment(self) -> dict[str, str]:
        state = str(self.folder / "state")
        return {**os.environ, "PYTHONPATH": str(SOURCES), "XDG_STATE_HOME": state, "COLUMNS": "200"}

    def write(
        self, vms: str, *, template: str = "", more: str = "", pool_dir: Path | None = None, host: str = "local"
    ) -> None:
        """Write the cloud's file: `vms` and `template` are YAML, indented by two."""
        template = template or f"  blank: {{image: {self.blank}, disk: 64M, firmware: bios}}\n"
        self.file.write_text(f"""\
cloud: {self.name}
hosts:
  here:
    connect: {host}
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

    def run(
        self, *words: str, timeout: float = 900, driver: str = "", patience: float = _PATIENCE, **environment: str
    ) -> Said:
        """Run vmwright on the cloud's file; waits so long while another vmwright works on this machine."""
        argv = [words[0], "-f", str(self.file), *words[1:]]
        until = time.monotonic() + patience
        while True:
            said = forks().run(argv, self.folder, {**self.environment, **environment}, driver, timeout)
            if said.code != BUSY or time.monotonic() >= until:
                return said
            time.sleep(2)

    def ok(self, *words: str, timeout: float = 900) -> Said:
        """Run vmwright; anything but success fails the test with what it said."""
        said = self.run(*words, timeout=timeout)
        assert said.code == 0, said.all
        return said

    @contextmanager
    def started(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """vmwright at work, in an interpreter of its own, ended with the block if it has not ended before.

        Ctrl-C reaches it as from a terminal, even where these tests run in a shell's background, which ignores it.
        """
        argv = [sys.executable, "-m", "vmwright.cli.main", words[0], "-f", str(self.file), *words[1:]]
        with subprocess.Popen(argv, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
                              preexec_fn=_heed_ctrl_c) as process:
            try:
                yield process
            finally:
                process.kill()

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


def _heed_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Forks:
    """The process that runs vmwright in forks of itself: see forks.py."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="vmwright-forks-")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.local.forks"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCES), str(SOURCES.parent)])})

    def run(self, argv: list[str], folder: Path, environment: dict[str, str], driver: str, seconds: float) -> Said:
        """One run of the command line; its exit code is negative when a signal ended it."""
        out, err = (Path(self._folder.name) / name for name in ("out", "err"))
        for file in (out, err):
            file.write_bytes(b"")
        request = {"argv": argv, "cwd": str(folder), "env": environment, "in": os.devnull, "out": str(out),
                   "err": str(err), "driver": driver, "seconds": seconds}
        if self._process.stdin is None or self._process.stdout is None:
            raise ValueError("the pipes are there")
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        return Said(code, out.read_text(), err.read_text())

    def close(self) -> None:
        """End it."""
        self._process.communicate()
        self._folder.cleanup()


@functools.cache
def forks() -> Forks:
    """One for the whole test run."""
    made = Forks()
    atexit.register(made.close)
    return made


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
    found = (f"10.{secrets.randbelow(200) + 20}.{secrets.randbelow(250)}" for _ in range(100))
    return next(subnet for subnet in found if f" {subnet}." not in taken)


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
