"""A rack as a QEMU command line. Pure: what runs it is process.py.

Host bridges of their own (pxb-pcie) carry what is on a NUMA node, as a server's sockets do: sysfs then gives each drive
its `numa_node`. A drive behind a root port of its own is alone in its IOMMU group; functions of one card share theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vmwright.rack.contents import SEED_NAME
from vmwright.rack.firmware import Firmware
from vmwright.rack.shape import Cable, Nic, Shape
from vmwright.units import MIB, derive_mac

QEMU = "qemu-system-x86_64"
# Files in the rack's folder, which QEMU is started in.
SYSTEM, VARIABLES, SEED, QMP, CONSOLE = "system.qcow2", "firmware-vars.fd", "seed.tar", "qmp.sock", "console.log"

# Without "enhanced rep movsb" the kernel clears and copies memory by 8 bytes at a time. Emulation takes each store on
# its own, and where the page held translated code until then, as many do after a reboot, it costs 0.2 ms (measured).
_EMULATED = "Haswell-noTSX,-erms"
TCG_CACHE = 1024 * MIB  # of translated code, all CPUs together
PRIVATE, SWITCH = ".net", "switch.sock"  # beside the racks' folders: the sockets of the network that they share
_BUSES = 24  # bus numbers of a node's host bridge: its own, and one for each root port


@dataclass(frozen=True)
class Machine:
    """All that the command line says. `port` is where ssh listens on loopback."""

    name: str
    uuid: str
    shape: Shape
    firmware: Firmware
    kvm: bool
    port: int


def mac(nic: Nic, position: int, rack: str, function: int = 0) -> str:
    """The MAC address of a NIC of that rack; of a card, that of one of its functions."""
    if nic.mac is None:
        return derive_mac("rack", rack, 16 * position + function)
    return nic.mac[:-2] + f"{(int(nic.mac[-2:], 16) + function) % 256:02x}"


def drive_file(serial: str) -> str:
    """The file of an NVMe drive."""
    return f"nvme-{serial}.img"


def disk_file(position: int) -> str:
    """The file of a SATA disk."""
    return SYSTEM if position == 0 else f"sata-{position}.img"


def argv(machine: Machine) -> list[str]:
    """The command, to be run in the rack's folder."""
    parts = (_base(machine), _cpus(machine), _memory(machine.shape), _firmware(machine.firmware), _disks(machine.shape),
             _nodes(machine), _nics(machine))
    return [QEMU, *(word for part in parts for word in part)]


def _base(machine: Machine) -> Iterator[str]:
    yield from ("-name", f"rack-{machine.name}", "-uuid", machine.uuid, "-nodefaults", "-no-user-config")
    yield from ("-machine", "q35", "-rtc", "base=utc", "-global", "ICH9-LPC.disable_s3=1", "-boot", "strict=on")
    yield from ("-vga", "none", "-display", "none", "-chardev", f"file,id=console,path={CONSOLE},append=on")
    yield from ("-serial", "chardev:console", "-qmp", f"unix:{QMP},server=on,wait=off")
    yield from ("-fw_cfg", f"name={SEED_NAME},file={SEED}")
    if machine.shape.iommu:
        yield from ("-device", "intel-iommu,intremap=on")  # before all devices whose memory accesses it translates


def _cpus(machine: Machine) -> Iterator[str]:
    if machine.kvm:
        yield from ("-accel", "kvm,kernel-irqchip=split", "-cpu", "host")  # the IOMMU remaps interrupts: not the kernel
    else:
        yield from ("-accel", f"tcg,thread=multi,tb-size={TCG_CACHE // MIB}", "-cpu", _EMULATED)
    shape = machine.shape
    yield from ("-smp", f"{shape.cpus},sockets={shape.sockets},cores={shape.cores},threads={shape.threads}")


def _memory(shape: Shape) -> Iterator[str]:
    yield from ("-m", f"{sum(shape.memory) // MIB}M")
    each = shape.cores * shape.threads
    for node, size in enumerate(shape.memory):
        yield from ("-object", f"memory-backend-ram,id=memory{node},size={size // MIB}M")
        yield from ("-numa", f"node,nodeid={node},memdev=memory{node},cpus={node * each}-{(node + 1) * each - 1}")
    for node in range(shape.sockets):
        for other in range(node + 1, shape.sockets):
            yield from ("-numa", f"dist,src={node},dst={other},val=21")


def _firmware(firmware: Firmware) -> Iterator[str]:
    yield from ("-drive", f"if=pflash,unit=0,readonly=on,format={firmware.code_format},file={_escaped(firmware.code)}")
    yield from ("-drive", f"if=pflash,unit=1,format={firmware.variables_format},file={VARIABLES}")


def _disks(shape: Shape) -> Iterator[str]:
    """SATA. What was flushed is on the disk, so a rack whose QEMU is killed comes up again."""
    for n, disk in enumerate(shape.disks):
        kind = "qcow2" if n == 0 else "raw"
        yield from ("-drive", f"if=none,id=sata{n},format={kind},cache=writeback,discard=unmap,file={disk_file(n)}")
        boot = ",bootindex=0" if n == 0 else ""
        yield from ("-device", f"ide-hd,bus=ide.{n},drive=sata{n},serial={disk.serial},rotation_rate=1{boot}")


def _nodes(machine: Machine) -> Iterator[str]:
    """The host bridge of each node, its root ports, and what is in them."""
    shape, chassis = machine.shape, 0
    for node in range(shape.sockets):
        yield from ("-device", f"pxb-pcie,id=node{node},bus=pcie.0,addr={0x10 + node:#x},bus_nr={16 + node * _BUSES},"
                               f"numa_node={node}")
        for words in _slots(machine, node):
            chassis += 1
            yield from ("-device", f"pcie-root-port,id=port{chassis},bus=node{node},chassis={chassis},slot={chassis}")
            for word in words:
                yield word.replace("@BUS@", f"port{chassis}")


def _slots(machine: Machine, node: int) -> Iterator[list[str]]:
    """What is in each slot of a node."""
    for drive in machine.shape.nvme:
        if drive.node == node:
            name = f"nvme-{drive.serial}"
            file = drive_file(drive.serial)
            yield ["-drive", f"if=none,id={name},format=raw,cache=writeback,discard=unmap,file={file}",
                   "-device", f"nvme,bus=@BUS@,drive={name},serial={drive.serial}"]
    for n, nic in enumerate(machine.shape.nics):
        if nic.functions > 1 and nic.node == node:
            yield [word for function in range(nic.functions) for word in _function(machine, nic, n, function)]


def _function(machine: Machine, nic: Nic, position: int, function: int) -> tuple[str, str]:
    first = ",multifunction=on" if function == 0 else ""
    return ("-device", f"e1000e,bus=@BUS@,addr=0x0.{function:#x}{first},romfile=,"
                       f"mac={mac(nic, position, machine.name, function)}")


def _nics(machine: Machine) -> Iterator[str]:
    for n, nic in enumerate(machine.shape.nics):
        if nic.functions > 1:
            continue
        backend = ""
        if nic.network is not Cable.NONE:
            yield from ("-netdev", _netdev(machine, nic, f"net{n}"))
            backend = f",netdev=net{n}"
        yield from ("-device", f"virtio-net-pci,bus=pcie.0,addr={0x2 + n:#x},romfile=,"
                               f"mac={mac(nic, n, machine.name)}{backend}")


def _netdev(machine: Machine, nic: Nic, name: str) -> str:
    if nic.network is Cable.OUTSIDE:
        return f"user,id={name},hostfwd=tcp:127.0.0.1:{machine.port}-{OUTSIDE_ADDRESS}:22"
    own = f"../{PRIVATE}/{machine.name}-{name}.sock"
    return (f"dgram,id={name},local.type=unix,local.path={own},"
            f"remote.type=unix,remote.path=../{PRIVATE}/{SWITCH}")


OUTSIDE_ADDRESS, OUTSIDE_GATEWAY, OUTSIDE_DNS = "10.0.2.15", "10.0.2.2", "10.0.2.3"  # of QEMU's user network


def _escaped(path: str) -> str:
    """A path as a value of a QEMU option: a comma is doubled."""
    return path.replace(",", ",,")
