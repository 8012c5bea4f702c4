"""The probes of CPUs and PCI devices on this machine, whatever it has."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from vmwright.facts import cpu, pci, probes
from vmwright.facts.probes import Output


def ask(*before: str, **environment: str) -> dict[str, Output]:
    """What the probes say, as a host is asked; `before` is a command that runs the shell."""
    script = probes.script({"topology": cpu.command(), **pci.commands(True)})
    chosen = {key: value for key, value in os.environ.items() if not key.startswith("SSH_")} | environment
    done = subprocess.run([*before, "sh", "-s"], input=script.encode(), capture_output=True, check=True, env=chosen)
    return probes.split(done.stdout.decode())


def test_all_cpus_and_nodes_are_told() -> None:
    cpus, nodes = cpu.parse(ask()["topology"].text)
    assert [one.number for one in cpus if one.online] == [
        int(line.split(":")[1]) for line in Path("/proc/cpuinfo").read_text().splitlines() if line[:9] == "processor"]
    assert {number for node in nodes for number in node.cpus} <= {one.number for one in cpus}
    assert all(one.number in cpus[other].siblings for one in cpus for other in one.siblings)


def test_all_pci_devices_are_told_with_what_is_on_them() -> None:
    outputs = ask()
    seen = pci.parse(outputs["pci"].text, pci.parse_serials(outputs["pci-config"].text), outputs["pci-names"].text)
    folder = Path("/sys/bus/pci/devices")
    assert [device.address for device in seen.devices] == sorted(path.name for path in folder.iterdir())
    for device in seen.devices:
        driver = folder / device.address / "driver"
        assert device.driver == (driver.resolve().name if driver.exists() else None)
    assert set(seen.lower) == {path.name for path in Path("/sys/class/net").iterdir() if path.is_dir()}
    assert all(name in seen.lower for device in seen.devices for name in device.links)


def test_the_session_is_known_though_its_word_was_taken_out() -> None:
    """As by sudo, and by the environment that vmwright chooses for what it runs: a process above still has it."""
    said = "10.0.0.9 50000 10.0.0.1 22"
    assert pci.parse(ask(SSH_CONNECTION=said)["pci"].text, {}).session == "10.0.0.1"
    below = ("sh", "-c", 'env -u SSH_CONNECTION "$@"; exit', "sh")
    assert pci.parse(ask(*below, SSH_CONNECTION=said)["pci"].text, {}).session == "10.0.0.1"
