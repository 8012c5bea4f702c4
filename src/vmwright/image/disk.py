"""Disk images from outside: what a file is, whether it may be used, and how it becomes a template's qcow2.

A qcow2 file can name other files of the host as its backing file or data file: whoever converts it without looking
copies /etc/shadow into a guest. And qemu-img, asked to guess a format, follows such names of other formats, too. So the
first bytes are judged here, and qemu-img is only called after that, with the format and with limits. What it says is
checked again.
"""

from __future__ import annotations

import json
import re
import struct
import uuid
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from vmwright.errors import ApplyError, HostError
from vmwright.image.download import Job, no_room
from vmwright.units import GIB, format_size

LAYERS = 3
HEAD = 64 * 1024  # bytes of a file that are enough to know it: the smallest qcow2 header cluster that is in use
_INFO_SECONDS, _CHECK_SECONDS, _COPY_SECONDS = 60, 1800, 4 * 3600
_INFO_MEMORY, _COPY_MEMORY = 1 * GIB, 2 * GIB  # of address space; 0.25 GiB is too little for a copy's coroutines
_QCOW2_MAGIC = b"QFI\xfb"
_DIRTY, _CORRUPT, _DATA_FILE = 1, 2, 4  # bits of qcow2's incompatible features
# Partitions that firmware looks at: the EFI system partition, and others that are FAT by their type, which some
# firmware takes as well.
_GPT_FAT = tuple(uuid.UUID(kind).bytes_le for kind in (
    "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"))
_MBR_FAT = b"\xef\x01\x04\x06\x0b\x0c\x0e"
_TABLE = 34 * 512  # bytes at the start of a disk that hold its partition table
_AGAIN = "get the image again, or another one"
_PERCENT = re.compile(r"\((\d+(?:\.\d+)?)/100%\)")

# First bytes of what people give by mistake, and what to do about it.
_OTHERS = (
    (b"KDMV", "a VMDK image", "convert it: qemu-img convert -f vmdk -O qcow2 FILE FILE.qcow2"),
    (b"# Disk DescriptorFile", "a VMDK image", "convert it: qemu-img convert -f vmdk -O qcow2 FILE FILE.qcow2"),
    (b"conectix", "a VHD image", "convert it: qemu-img convert -f vpc -O qcow2 FILE FILE.qcow2"),
    (b"vhdxfile", "a VHDX image", "convert it: qemu-img convert -f vhdx -O qcow2 FILE FILE.qcow2"),
    (b"<<< ", "a VirtualBox image", "convert it: qemu-img convert -f vdi -O qcow2 FILE FILE.qcow2"),
    (b"QED\0", "a QED image", "convert it: qemu-img convert -f qed -O qcow2 FILE FILE.qcow2"),
    (b"LUKS", "an encrypted disk", "give an image that is not encrypted"),
    (b"PK\x03\x04", "a zip archive", "unpack it, and give the disk image in it"),
    (b"BZh", "compressed with bzip2", "compress it with xz, gzip or zstd, or not at all"),
    (b"\x7fELF", "a program", "give the disk image of a cloud image"),
)
_PAGE = re.compile(rb"\s*<(!doctype html|html|\?xml)", re.IGNORECASE)


class Packing(Enum):
    """How a file is compressed; the value is the suffix that its tool expects."""

    XZ = ".xz"
    GZIP = ".gz"
    ZSTD = ".zst"

    @property
    def magic(self) -> bytes:
        """The first bytes of such a file."""
        return {Packing.XZ: b"\xfd7zXZ\0", Packing.GZIP: b"\x1f\x8b", Packing.ZSTD: b"\x28\xb5\x2f\xfd"}[self]

    def argv(self, packed: str) -> list[str]:
        """The command that writes the contents of `packed` to the same name without its suffix; it leaves holes."""
        tool = {Packing.XZ: ["xz", "--memlimit-decompress=2GiB"], Packing.GZIP: ["gzip"],
                Packing.ZSTD: ["zstd", "--quiet", "--long=31"]}[self]
        return [*tool, "--decompress", "--keep", "--force", "--", packed]


SUFFIXES = tuple(kind.value for kind in Packing)


def packing(head: bytes) -> Packing | None:
    """How a file that starts so is compressed; None when it is not, or in a way that is not known."""
    return next((kind for kind in Packing if head.startswith(kind.magic)), None)


@dataclass(frozen=True)
class Qcow2Header:
    """What matters in a qcow2 header (QEMU: docs/interop/qcow2.txt). `backing` is the backing file's name, if any."""

    version: int
    virtual_size: int
    backing: str | None
    encrypted: bool
    incompatible: int


def parse_qcow2(head: bytes) -> Qcow2Header:
    """The header at the start of a qcow2 file. Raises ValueError with the reason when it is none."""
    if len(head) < 72 or not head.startswith(_QCOW2_MAGIC):
        raise ValueError("its header is cut short")
    version, backing_at, backing_length, _cluster_bits, size, crypt = struct.unpack_from(">IQIIQI", head, 4)
    if version not in (2, 3):
        raise ValueError(f"its version is {version}; 2 and 3 are known")
    if version == 3 and len(head) < 104:
        raise ValueError("its header is cut short")
    incompatible = struct.unpack_from(">Q", head, 72)[0] if version == 3 else 0
    name = head[backing_at:backing_at + min(backing_length, 1023)].decode(errors="replace")
    return Qcow2Header(version, size, (name or "(unreadable)") if backing_at else None, crypt != 0, incompatible)


def judge(head: bytes, name: str) -> str:
    """The format of an uncompressed image that starts with `head`: "qcow2" or "raw".

    Raises ApplyError when it is something else, or asks for files besides itself. `name` is what the error calls it.
    """
    if head.startswith(_QCOW2_MAGIC):
        return _judge_qcow2(head, name)
    for magic, what, todo in _OTHERS:
        if head.startswith(magic):
            raise ApplyError(f"{name} is {what}, not a qcow2 or raw disk image", todo=todo)
    if _PAGE.match(head):
        raise ApplyError(f"{name} is a web page, not a disk image",
                         todo="check the URL: it must lead to the file itself")
    if head[257:262] == b"ustar":
        raise ApplyError(f"{name} is a tar archive, not a disk image", todo="unpack it, and give the disk image in it")
    if head[32769:32774] == b"CD001":
        raise ApplyError(f"{name} is a CD image (ISO), not a disk image",
                         todo="give a cloud image: a disk that has the system on it already")
    if head[510:512] != b"\x55\xaa":
        raise ApplyError(f"{name} is neither a qcow2 image nor a disk with a partition table",
                         why="a raw disk image has 55 aa at the end of its first 512 bytes",
                         todo="give a cloud image in qcow2 or raw format, as it is or compressed with xz, gzip or zstd")
    return "raw"


def _judge_qcow2(head: bytes, name: str) -> str:
    try:
        header = parse_qcow2(head)
    except ValueError as error:
        raise ApplyError(f"{name} is not a usable qcow2 image: {error}", todo=_AGAIN) from error
    if header.backing is not None:
        raise _depends(name, "backing file", header.backing)
    if header.incompatible & _DATA_FILE:
        raise _depends(name, "external data file", None)
    if header.encrypted:
        raise ApplyError(f"{name} is encrypted", todo="give an image that is not encrypted")
    if header.incompatible & _CORRUPT:
        raise ApplyError(f"{name} says of itself that it is damaged", todo=_AGAIN)
    return "qcow2"


def _depends(name: str, kind: str, other: str | None) -> ApplyError:
    shown = f" ({other!r})" if other else ""
    return ApplyError(f"{name} is refused: it names a{'n' if kind[0] in 'aeiou' else ''} {kind}{shown}",
                      why="an image from outside could read any file of the host that way",
                      todo="where it was made, run qemu-img convert -O qcow2 IMAGE WHOLE.qcow2, and give WHOLE.qcow2")


def may_boot_uefi(start: bytes) -> bool:
    """Whether UEFI firmware may find a loader on a disk that starts so. No is certain: it reads FAT and nothing else.

    UEFI specification, sections 5 (partition tables) and 13.3 (file systems).
    """
    mbr = any(start[at] in _MBR_FAT for at in range(450, 514, 16) if at < len(start))
    if start[512:520] != b"EFI PART" or len(start) < 604:
        return mbr
    first, count, length = struct.unpack_from("<QII", start, 512 + 72)
    places = range(first * 512, first * 512 + min(count, 128) * length, max(length, 128))
    return any(start[at:at + 16] in _GPT_FAT for at in places)


@dataclass(frozen=True)
class Info:
    """What qemu-img says of an image. `others` are the names of files it depends on."""

    format: str
    virtual_size: int
    encrypted: bool = False
    others: tuple[str, ...] = field(default=())


def parse_info(text: str) -> Info:
    """The output of `qemu-img info --output=json`. Raises ValueError."""
    said: dict[str, Any] = json.loads(text)
    specific: dict[str, Any] = said.get("format-specific", {}).get("data", {})
    others = (said.get("backing-filename"), said.get("full-backing-filename"), specific.get("data-file"))
    return Info(str(said["format"]), int(said["virtual-size"]), bool(said.get("encrypted")),
                tuple(dict.fromkeys(str(other) for other in others if other)))


def limited(argv: list[str], memory: int) -> list[str]:
    """A qemu-img command that may use so many bytes of address space, and dumps no core."""
    return ["prlimit", f"--as={memory}", "--core=0", *argv]


def unpack(job: Job, path: str, name: str) -> str:
    """The uncompressed image: `path` itself, or a file in the work directory. A packing in a packing is undone, too."""
    for layer in range(LAYERS):
        kind = packing(read_head(job, path))
        if kind is None:
            return path
        job.progress(f"unpacking {name}", None)
        link = f"{job.work}/unpacked-{layer}{kind.value}"
        # The tools choose the name of what they write by that of what they read; a link gives it the name we want.
        job.run(["ln", "-sfn", "--", path, link])
        _run(job, kind.argv(link), f"unpacking {name}", _COPY_SECONDS)
        job.remove(link, *([path] if layer else []))
        path = link.removesuffix(kind.value)
    raise ApplyError(f"{name} is compressed {LAYERS} times or more", todo="give the disk image itself, compressed once")


def read_head(job: Job, path: str) -> bytes:
    """The first bytes of a file on the host."""
    return job.run(["head", "--bytes", str(HEAD), "--", path]).stdout


def inspect(job: Job, path: str, name: str) -> Info:
    """What an uncompressed image is, after it was found whole and depending on nothing. Raises ApplyError."""
    kind = judge(read_head(job, path), name)
    said = _tool(job, ["qemu-img", "info", "-f", kind, "--output=json", path], name, _INFO_SECONDS)
    info = parse_info(said)
    if info.others:
        raise _depends(name, "file besides itself", info.others[0])
    if info.encrypted or info.format != kind:
        raise ApplyError(f"{name} is not the plain {kind} image that it looks like", todo=_AGAIN)
    if kind == "qcow2":
        _check(job, path, name)
    return info


def convert(job: Job, path: str, info: Info, size: int | None, name: str) -> str:
    """An uncompressed, sparse qcow2 of `size` bytes (None: as it is) in the work directory.

    Raises ApplyError when the image is larger, HostError, Cancelled.
    """
    if size is not None and size < info.virtual_size:
        has, wants = _exact(info.virtual_size), _exact(size)
        raise ApplyError(f"{name} is a disk of {has}, and the template's disk is to be {wants}",
                         why="an image cannot be made smaller: the end of its file system would be lost",
                         todo=f"set the template's disk to {_round_up(info.virtual_size)} or more")
    made = f"{job.work}/image.qcow2"

    def on_line(line: str) -> None:
        if percent := _PERCENT.search(line):
            job.progress(f"copying {name}", float(percent[1]) / 100)

    # Without -t, qemu-img leaves the last writes to the kernel: the image could be incomplete after a power cut.
    copy = ["qemu-img", "convert", "-p", "-t", "writeback", "-f", info.format, "-O", "qcow2", path, f"{made}.partial"]
    _run(job, limited(copy, _COPY_MEMORY), f"copying {name}", _COPY_SECONDS, on_line=on_line)
    if size is not None and size > info.virtual_size:
        job.run(["qemu-img", "resize", "-q", "-f", "qcow2", f"{made}.partial", str(size)])
    job.run(["mv", "-f", "--", f"{made}.partial", made])
    return made


def boots_uefi(job: Job, made: str) -> bool:
    """Whether UEFI firmware may find a loader on the disk in a qcow2 of ours."""
    start = f"{job.work}/table"
    job.run(["qemu-img", "dd", "-f", "qcow2", "-O", "raw", f"bs={_TABLE}", "count=1", f"if={made}", f"of={start}"])
    found = may_boot_uefi(job.run(["cat", "--", start]).stdout)
    job.remove(start)
    return found


def _check(job: Job, path: str, name: str) -> None:
    """Refuse a qcow2 that is cut short or damaged: to qemu-img convert, missing clusters are zeros and no error."""
    job.progress(f"checking {name}", None)
    argv = limited(["qemu-img", "check", "-q", "-f", "qcow2", path], _COPY_MEMORY)
    done = job.run(argv, check=False, timeout=_CHECK_SECONDS)
    if done.code not in (0, 3):  # 3: clusters that belong to nothing; harmless
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise ApplyError(f"{name} is damaged: qemu-img finds errors in it", why="\n".join(said[:3]),
                         todo="get the image again; a copy that was cut off looks like this")


def _tool(job: Job, argv: list[str], name: str, seconds: float) -> str:
    """The output of a qemu-img command on an image from outside; its failure is the image's fault."""
    done = job.run(limited(argv, _INFO_MEMORY), check=False, timeout=seconds)
    if done.code:
        raise ApplyError(f"qemu-img cannot read {name}", why=done.stderr.decode(errors="replace").strip()[-2000:],
                         todo=_AGAIN)
    return done.text


def _run(job: Job, argv: list[str], what: str, seconds: float, on_line: Any = None) -> None:
    """Run a command that writes much, and tell a full file system from other failures."""
    try:
        job.run(argv, timeout=seconds, on_line=on_line)
    except HostError as error:
        if "No space left on device" in error.why:
            raise no_room(job, what, job.work, error.why) from error
        raise


def _exact(size: int) -> str:
    short = format_size(size)
    return f"{short} ({size} bytes)" if "." in short else short


def _round_up(size: int) -> str:
    return f"{-(-size // GIB)}G"
