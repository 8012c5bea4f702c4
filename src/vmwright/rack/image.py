"""The rack's host image: a disk with UEFI's GRUB, root file system, swap and a free LVM partition, made once and kept.

Made of Debian packages on this machine as `build: debian` templates are, in a directory of the cache; the file that is
there under its hash is whole. Nothing is mounted but in the namespace of mmdebstrap, so a build that was cut off leaves
files, which the next one removes.
"""

from __future__ import annotations

import fcntl
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vmwright.errors import Cancelled, HostError, VmwrightError
from vmwright.host.local import LocalHost
from vmwright.host.run import Completed
from vmwright.image import debian, mirror
from vmwright.image.debian_guest import tar
from vmwright.rack import contents, record, shelf
from vmwright.rack.contents import Identity, Image
from vmwright.units import GIB, MIB, content_hash, format_size

Progress = Callable[[str, float | None], None]

TOOLS = {  # program -> Debian package
    "mmdebstrap": "mmdebstrap", "apt-get": "apt", "unshare": "util-linux", "mkswap": "util-linux", "sgdisk": "gdisk",
    "mkfs.vfat": "dosfstools", "mcopy": "mtools", "mke2fs": "e2fsprogs", "qemu-img": "qemu-utils",
}
_ROOM = 6 * GIB  # the tree, the raw disk and the qcow2 at once
_BUILD_SECONDS, _COPY_SECONDS, _SHORT_SECONDS = 3600, 1800, 300
_PREFIX = "build-"
_LOADER = "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
_PRESENT = 'for tool; do command -v "$tool" > /dev/null && echo "$tool"; done; true'


def cache_folder() -> Path:
    """Where images are kept: $XDG_CACHE_HOME/vmwright/rack, by default ~/.cache/vmwright/rack."""
    wanted = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(wanted) if wanted.startswith("/") else Path.home() / ".cache") / "vmwright" / "rack"


def place(image: Image, cache: Path | None = None) -> Path:
    """Where this version's image is, or will be."""
    return (cache or cache_folder()) / f"{image}-{content_hash(*contents.inputs(image))}.qcow2"


def ready(image: Image, rack: Path, *, mirror_url: str | None = None, progress: Progress,
          cancel: threading.Event | None = None) -> Path:
    """The path of the image, for the rack with that folder; built now when it is not there. It stays while the rack is.

    `progress` gets a sentence and a share, or None. Raises HostError (it cannot be built here), Cancelled.
    """
    path = place(image)
    while not shelf.take(path, rack):
        with _alone(path.parent, progress, cancel or threading.Event()):
            if not path.exists():
                _build(image, path, mirror_url, progress, cancel or threading.Event())
                shelf.take(path, rack)
                _prune(path.parent, progress)
    return path


def _prune(cache: Path, progress: Progress) -> None:
    """Remove what the new image has made old."""
    try:
        used = [rack.disks.base for rack in record.everyone() if rack.disks]
    except HostError:  # one that cannot be read may stand on any of them
        return
    if removed := shelf.prune(cache, used):
        names, size = ", ".join(name for name, _ in removed), format_size(sum(taken for _, taken in removed))
        progress(f"removed old images that no rack stands on: {names} ({size})", None)


@contextmanager
def _alone(cache: Path, progress: Progress, cancel: threading.Event) -> Iterator[None]:
    """One build at a time in a cache; who comes second finds the image made."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        told = False
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if not told:
                progress("another vmwright is building an image: waiting", None)
            told = True
            if cancel.wait(1.0):
                raise Cancelled("stopped")
        yield


@dataclass(frozen=True)
class _Job:
    """What every step of a build is given."""

    host: LocalHost
    image: Image
    work: str
    identity: Identity
    mirror_url: str | None
    progress: Progress
    cancel: threading.Event

    def run(self, argv: Sequence[str], *, check: bool = True, timeout: float = _SHORT_SECONDS,
            env: dict[str, str] | None = None, on_line: Callable[[str], None] | None = None) -> Completed:
        """Run a command until it ends, its time is up or the build is cancelled."""
        return self.host.run(argv, check=check, timeout=timeout, env=env, on_line=on_line, cancel=self.cancel)

    def path(self, name: str) -> str:
        """A path in the build's directory."""
        return f"{self.work}/{name}"


def _build(image: Image, path: Path, mirror_url: str | None, progress: Progress, cancel: threading.Event) -> None:
    host = LocalHost("this machine")
    identity = Identity(*(str(uuid.uuid4()) for _ in range(3)))
    work = path.parent / f"{_PREFIX}{uuid.uuid4().hex[:8]}"
    job = _Job(host, image, str(work), identity, mirror_url, progress, cancel)
    _check(job, path.parent)
    try:
        _remove_builds(host, path.parent)
        work.mkdir(mode=0o700)
        _install(job)
        _make_disk(job)
        os.replace(work / "debian.sources", path.with_suffix(".sources"))
        os.replace(work / "disk.qcow2", path)
    finally:
        with suppress(VmwrightError):
            _remove_builds(host, path.parent)


def _remove_builds(host: LocalHost, cache: Path) -> None:
    """Remove what builds left, cut off ones included."""
    left = [str(found) for found in cache.glob(f"{_PREFIX}*")]
    if left:
        host.run(["rm", "-rf", "--one-file-system", "--", *left], check=False, timeout=_COPY_SECONDS)


def _check(job: _Job, cache: Path) -> None:
    if job.run(["uname", "-m"]).text != "x86_64":
        raise HostError("this machine is not an x86-64 machine: the rack's image is made on those only",
                        todo="run vmwright rack on an x86-64 machine")
    if os.geteuid() != 0:
        raise HostError(f"the rack's image {job.image} is not there, and only root can build it",
                        why=f"it belongs at {place(job.image, cache)}", todo="sudo vmwright rack up")
    present = job.run(["sh", "-c", _PRESENT, "sh", *TOOLS]).text.split()
    if missing := {tool: package for tool, package in TOOLS.items() if tool not in present}:
        raise HostError(f"the rack's image cannot be built here: {', '.join(missing)} missing",
                        todo=f"apt-get install {' '.join(dict.fromkeys(missing.values()))}")
    room = os.statvfs(cache)
    if (free := room.f_bavail * room.f_frsize) < _ROOM:
        raise HostError(f"there is too little room to build the rack's image: {format_size(free)} free at {cache}, "
                        f"{format_size(_ROOM)} needed", todo="make room there, or set XDG_CACHE_HOME")


# The tree

def _install(job: _Job) -> None:
    job.progress("looking for this machine's Debian mirror", 0.0)
    archives = _archives(job)
    job.host.write(job.path("debian.sources"), mirror.sources_text(archives).encode())
    files = contents.files(job.image, job.identity)
    job.host.write(job.path("files.tar"), tar(files))
    job.host.write(job.path("finish.sh"), contents.finish().encode())
    keys = [archive.key for archive in archives if archive.key != mirror.DEBIAN_KEYRING]
    argv = debian.mmdebstrap_argv(contents.RELEASE, contents.packages(job.image), job.work, tuple(dict.fromkeys(keys)))
    done = job.run(argv, check=False, timeout=_BUILD_SECONDS, env=mirror.proxies(job.host, job.cancel),
                   on_line=debian.narrator(job.progress))
    if done.code != 0:
        raise _own_words(debian.explain(done, job.host.name, contents.RELEASE, mirror.shown(archives[0].uri)))


def _archives(job: _Job) -> tuple[mirror.Archive, ...]:
    try:
        found = mirror.archives(job.host, contents.RELEASE, job.mirror_url, job.path("lists"), job.cancel)
    except HostError as error:
        raise HostError(error.what, why=error.why,
                        todo="name a mirror: vmwright rack up --mirror http://HOST/debian") from error
    if key := mirror.missing_key(job.host, found, job.cancel):
        raise HostError(f"Debian's signatures cannot be checked here: there is no {key}",
                        todo="apt-get install debian-archive-keyring")
    return found


def _own_words(error: VmwrightError) -> HostError:
    """An error of building a template, with a remedy for a rack: there is no file to correct."""
    todo = error.todo.replace(", then apply again", ", then run the same again")
    if "mirror:" in todo or "packages:" in todo:
        todo = "see that `apt-get update` works here, or name a mirror: vmwright rack up --mirror http://HOST/debian"
    return HostError(error.what.replace("while the template was", "while the rack's image was"), why=error.why,
                     todo=todo)


# The disk

@dataclass(frozen=True)
class Part:
    """A partition: number, start and size in bytes (0: to the end), sgdisk's type, label."""

    number: int
    start: int
    size: int
    kind: str
    label: str


def layout() -> tuple[Part, ...]:
    """The partitions of the image; the last one is free, for LVM."""
    esp, root = contents.ALIGN, contents.ALIGN + contents.ESP_SIZE
    swap = root + contents.ROOT_SIZE
    return (Part(contents.ESP, esp, contents.ESP_SIZE, "ef00", "ESP"),
            Part(contents.ROOT, root, contents.ROOT_SIZE, "8300", "root"),
            Part(contents.SWAP, swap, contents.SWAP_SIZE, "8200", "swap"),
            Part(contents.LVM, swap + contents.SWAP_SIZE, 0, "8e00", "lvm"))


def partition_argv(disk: str, identity: Identity) -> list[str]:
    """The command that writes the partition table."""
    argv = ["sgdisk", "--clear"]
    for part in layout():
        last = (part.start + part.size) // 512 - 1 if part.size else 0
        argv += [f"--new={part.number}:{part.start // 512}:{last}", f"--typecode={part.number}:{part.kind}",
                 f"--change-name={part.number}:{part.label}"]
    return [*argv, f"--partition-guid={contents.ESP}:{identity.esp}", disk]


def disk_argvs(work: str, identity: Identity) -> list[list[str]]:
    """The commands that make WORK/disk.raw from the tree WORK/root and the files in WORK/esp; nothing is mounted."""
    esp, root, swap, _ = layout()
    disk, image = f"{work}/disk.raw", f"{work}/swap.raw"
    at = f"{disk}@@{esp.start}"
    loader = f"{work}/root/{_LOADER}"
    return [
        ["truncate", f"--size={contents.DISK_SIZE}", "--", disk],
        partition_argv(disk, identity),
        ["mkfs.vfat", "-F", "32", "-s", "1", "-n", "ESP", f"--offset={esp.start // 512}", disk, str(esp.size // 1024)],
        ["mmd", "-i", at, "::/EFI", "::/EFI/BOOT", "::/EFI/debian"],
        ["mcopy", "-i", at, loader, "::/EFI/BOOT/BOOTX64.EFI"],  # where firmware without a boot entry looks
        ["mcopy", "-i", at, loader, "::/EFI/debian/grubx64.efi"],
        ["mcopy", "-i", at, f"{work}/grub.cfg", "::/EFI/debian/grub.cfg"],
        ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-U", identity.root, "-d", f"{work}/root",
         "-E", f"offset={root.start}", disk, f"{root.size // 1024}k"],
        ["truncate", f"--size={swap.size}", "--", image],
        ["mkswap", "--quiet", "--uuid", identity.swap, image],
        ["dd", f"if={image}", f"of={disk}", "bs=1M", f"seek={swap.start // MIB}", "conv=notrunc,sparse", "status=none"],
    ]


def _make_disk(job: _Job) -> None:
    job.progress("making the disk", 0.82)
    job.host.write(job.path("grub.cfg"), contents.grub_stub(job.identity).encode())
    for argv in disk_argvs(job.work, job.identity):
        done = job.run(argv, check=False, timeout=_COPY_SECONDS, env={"MTOOLS_SKIP_CHECK": "1"})
        if done.code != 0:
            raise _own_words(debian.fill_error(done, job.host.name))
    job.run(["rm", "-rf", "--one-file-system", "--", job.path("root")], timeout=_COPY_SECONDS)
    job.progress("writing the image", 0.9)
    job.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", job.path("disk.raw"), job.path("disk.qcow2")],
            timeout=_COPY_SECONDS)
    job.run(["sync", "--", job.path("disk.qcow2")], timeout=_COPY_SECONDS)
