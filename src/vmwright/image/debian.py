"""Templates from `build: debian`: a UEFI-bootable disk made of Debian packages, on the host, without a mount it keeps.

    mmdebstrap fills a directory, from the mirror that the host itself uses
    -> GPT, an ESP with systemd-boot and the kernels, and the root file system as the last partition
    -> a qcow2, not compressed: unpacking would cost every clone at its boot

Everything is a command on the host. What needs a mount gets one in a mount namespace of its own, which goes away with
the process, also when it is killed; so a run that was cut off leaves files, which the next one removes, and no mounts.
"""

from __future__ import annotations

import re
import shlex
import threading
import uuid
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

from vmwright.errors import ApplyError, HostError, VmwrightError
from vmwright.host.run import Completed, Host, failed
from vmwright.image import debian_guest as guest
from vmwright.image import mirror
from vmwright.spec.cloud import BuildSource, Filesystem
from vmwright.units import GIB, MIB, format_size

Progress = Callable[[str, float | None], None]

BUILDER_REVISION = 1
MINIMUM_SIZE = 2 * GIB
ESP_SIZE = 256 * MIB  # three kernels of the largest kind
REQUIRED_TOOLS = {  # program -> Debian package
    "mmdebstrap": "mmdebstrap", "apt-get": "apt", "unshare": "util-linux", "sgdisk": "gdisk",
    "mkfs.vfat": "dosfstools", "mcopy": "mtools", "qemu-img": "qemu-utils",
}
MKFS_TOOLS = {
    Filesystem.EXT4: ("mke2fs", "e2fsprogs"), Filesystem.XFS: ("mkfs.xfs", "xfsprogs"),
    Filesystem.BTRFS: ("mkfs.btrfs", "btrfs-progs"),
}
_TOO_OLD = ("stretch", "buster", "bullseye")  # no package systemd-boot
_ROOM = 2 * GIB  # the tree, the raw disk and the qcow2 at once, with packages of the user's
_ALIGN = MIB
_SECTOR = 512
_ROOT_TYPE = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"  # root, x86-64 (Discoverable Partitions Specification)
_BUILD_SECONDS, _COPY_SECONDS, _SHORT_SECONDS = 3600, 1800, 300
_PREFIX = "build-"  # of the directory that a build has in the work directory
_STEPS = {  # what mmdebstrap says it does -> how far the build is then, and how a person would say it
    "running apt-get update": (0.02, "reading the mirror's lists"),
    "downloading packages": (0.05, "fetching the base system"),
    "extracting archives": (0.1, "unpacking the base system"),
    "installing essential": (0.15, "installing the base system"),
    "installing remaining": (0.3, "installing packages"),
    "cleaning package lists": (0.8, "tidying"),
}
_INSTALL_FROM, _INSTALL_SHARE = 0.3, 0.5
_PERCENT = re.compile(r"\((\d+(?:\.\d+)?)/100%\)")

# Fills an XFS through a loop device. It runs in a mount namespace of its own; -o loop frees the device with the mount.
_FILL = 'set -eu; mkdir -p "$3"; mount -t xfs -o loop "$1" "$3"; cp -a "$2/." "$3/"; umount "$3"; rmdir "$3"'
_PRESENT = 'for tool; do command -v "$tool" > /dev/null && echo "$tool"; done; true'


@dataclass(frozen=True)
class Built:
    """A template's image: a whole qcow2 at `path` on the host, and the packages in it with their versions."""

    path: str
    format: str
    manifest: dict[str, str]
    firmware: tuple[str, ...] = ("uefi",)


@dataclass(frozen=True)
class Layout:
    """Where things are on the disk, in bytes. The root partition is the last, so that it can grow."""

    size: int
    esp_start: int
    esp_size: int
    root_start: int
    root_size: int


def inputs(source: BuildSource, size: int) -> tuple[str, ...]:
    """What makes a template's content, for its hash. Not the mirror: all of them have the same packages."""
    return ("debian", str(BUILDER_REVISION), source.release, str(source.filesystem), *sorted(set(source.packages)),
            str(size))


def required_tools(filesystem: Filesystem) -> dict[str, str]:
    """The programs a build takes, with the Debian package of each."""
    program, package = MKFS_TOOLS[filesystem]
    return {**REQUIRED_TOOLS, program: package}


def missing_tools(present: Collection[str], filesystem: Filesystem = Filesystem.EXT4) -> dict[str, str]:
    """Of the programs a build takes, those that are not `present`, with the Debian package of each."""
    return {tool: package for tool, package in required_tools(filesystem).items() if tool not in present}


def layout(size: int) -> Layout:
    """Where the partitions go on a disk of `size` bytes. Raises ApplyError when it is too small."""
    if size < MINIMUM_SIZE:
        raise ApplyError(f"a disk of {format_size(size)} is too small for Debian",
                         todo=f"give the template disk: {format_size(MINIMUM_SIZE)} or more")
    start = _ALIGN + ESP_SIZE
    return Layout(size, _ALIGN, ESP_SIZE, start, (size - _ALIGN) // _ALIGN * _ALIGN - start)


def build(host: Host, source: BuildSource, size: int, work: str, *, progress: Progress,
          cancel: threading.Event | None = None) -> Built:
    """Make a template's qcow2 of `size` bytes (virtual) in the directory `work` on the host, which is ours alone.

    The caller owns the file that comes back; after an error or a cancel, nothing of ours is left in `work`. `progress`
    gets a sentence and a share from 0 to 1, or None. Raises ApplyError (it cannot be built as wished), HostError and
    Cancelled.
    """
    plan, place = layout(size), f"{work}/{_PREFIX}{uuid.uuid4().hex[:8]}"
    job = _Job(host, source, plan, place, progress, cancel or threading.Event(), guest.Identity(_uuid(), _uuid()))
    _check(job)
    try:
        _remove_builds(host, work)
        manifest = _build(job)
        job.run(["mv", "--", job.path("disk.qcow2"), f"{work}/disk.qcow2"])
        return Built(f"{work}/disk.qcow2", "qcow2", manifest)
    finally:  # an error or a cancel is on its way, perhaps: a failure to tidy must not hide it
        with suppress(VmwrightError):
            _remove_builds(host, work)
            host.run(["rmdir", "--", work], check=False)


def _remove_builds(host: Host, work: str) -> None:
    """Remove what builds left in the work directory, also after a cancel.

    Each build has a name of its own: what a run that was killed seconds ago still writes is not in the way of the next.
    """
    remove = ["-exec", "rm", "-rf", "--one-file-system", "--", "{}", "+"]
    argv = ["find", work, "-mindepth", "1", "-maxdepth", "1", "-name", f"{_PREFIX}*", *remove]
    host.run(argv, check=False, timeout=_COPY_SECONDS)


@dataclass(frozen=True)
class _Job:
    """What every step is given."""

    host: Host
    source: BuildSource
    layout: Layout
    work: str
    progress: Progress
    cancel: threading.Event
    identity: guest.Identity

    def run(self, argv: Sequence[str], *, check: bool = True, timeout: float = _SHORT_SECONDS,
            env: dict[str, str] | None = None, on_line: Callable[[str], None] | None = None) -> Completed:
        """Run a command on the host until it ends, its time is up or the build is cancelled."""
        return self.host.run(argv, check=check, timeout=timeout, env=env, on_line=on_line, cancel=self.cancel)

    def path(self, name: str) -> str:
        """A path in the work directory."""
        return f"{self.work}/{name}"


def _uuid() -> str:
    return str(uuid.uuid4())


def _check(job: _Job) -> None:
    if job.source.release in _TOO_OLD:
        raise ApplyError(f"Debian {job.source.release} cannot be built: it has no systemd-boot",
                         todo="write release: bookworm or later, or use its cloud image: os: debian11")
    wanted = required_tools(job.source.filesystem)
    missing = missing_tools(job.run(["sh", "-c", _PRESENT, "sh", *wanted]).text.split(), job.source.filesystem)
    if missing:
        raise HostError(f"{job.host.name} cannot build templates: {', '.join(missing)} missing",
                        todo=f"on {job.host.name}: apt-get install {' '.join(dict.fromkeys(missing.values()))}")
    if job.run(["uname", "-m"]).text != "x86_64":
        raise HostError(f"{job.host.name} is not an x86-64 machine: Debian is built for those only",
                        todo="use a cloud image: os: or image:")


def _build(job: _Job) -> dict[str, str]:
    job.run(["mkdir", "-p", "-m", "0700", "--", job.work.rpartition("/")[0], job.work])
    _check_room(job)
    _install(job)
    manifest = parse_manifest(job.run(manifest_argv(job.path("root"))).text)
    used = job.run(["du", "--summarize", "--block-size=1", "--", job.path("root")]).text.split()[0]
    check_fits(int(used), job.layout)
    job.progress("making the disk", 0.82)
    _partition(job)
    _fill_esp(job)
    _fill_root(job)
    job.run(["rm", "-rf", "--one-file-system", "--", job.path("root")], timeout=_COPY_SECONDS)
    _convert(job)
    return manifest


def _check_room(job: _Job) -> None:
    free = int(job.run(["df", "--output=avail", "--block-size=1", "--", job.work]).text.split()[-1])
    if free < _ROOM:
        raise HostError(f"{job.host.name} has too little room to build a template: {format_size(free)} free at "
                        f"{job.work}, {format_size(_ROOM)} needed", todo="make room there")


# The tree

def _install(job: _Job) -> None:
    job.progress("looking for the host's Debian mirror", 0.0)
    archives = mirror.archives(job.host, job.source.release, job.source.mirror, job.path("lists"), job.cancel)
    if not any(archive.suite.endswith("-security") for archive in archives):
        job.progress("no security archive at this mirror: the guest gets no security updates", None)
    if key := mirror.missing_key(job.host, archives, job.cancel):
        raise HostError(f"{job.host.name} cannot check Debian's signatures: it has no {key}",
                        todo=f"on {job.host.name}: apt-get install debian-archive-keyring")
    job.host.write(job.path("debian.sources"), mirror.sources_text(archives).encode(), mode=0o600)
    job.host.write(job.path("files.tar"), guest.tar(guest.files(job.identity, job.source.filesystem)))
    job.host.write(job.path("finish.sh"), guest.FINISH.encode())
    keys = [archive.key for archive in archives if archive.key != mirror.DEBIAN_KEYRING]
    names = guest.packages(job.source.filesystem, job.source.packages)
    argv = mmdebstrap_argv(job.source.release, names, job.work, tuple(dict.fromkeys(keys)))
    done = job.run(argv, check=False, timeout=_BUILD_SECONDS, env=mirror.proxies(job.host, job.cancel),
                   on_line=narrator(job.progress))
    if done.code != 0:
        raise explain(done, job.host.name, job.source.release, mirror.shown(archives[0].uri))


def mmdebstrap_argv(release: str, packages: Sequence[str], work: str, keys: Sequence[str] = ()) -> list[str]:
    """The command that fills WORK/root. `keys` are keyrings of the host that the guest's apt needs, too.

    Files laid down by the essential hook are there before the kernel is configured, so its initramfs is made once.
    """
    at = {name: shlex.quote(f"{work}/{name}") for name in ("files.tar", "finish.sh", "debian.sources")}
    hooks = [f'--essential-hook=tar-in {at["files.tar"]} /',
             f'--customize-hook=chroot "$1" /bin/sh -eu < {at["finish.sh"]}',
             f'--customize-hook=upload {at["debian.sources"]} /etc/apt/sources.list.d/debian.sources',
             '--customize-hook=chmod 0644 "$1"/etc/apt/sources.list.d/debian.sources']
    for key in keys:
        hooks += [f'--customize-hook=mkdir -p "$1"{shlex.quote(key.rpartition("/")[0])}',
                  f"--customize-hook=upload {shlex.quote(key)} {shlex.quote(key)}"]
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
            "mmdebstrap", "--verbose", "--mode=root", "--format=directory", "--variant=apt", "--architectures=amd64",
            '--aptopt=APT::Install-Recommends "false"', '--aptopt=Acquire::Languages "none"',
            '--aptopt=Acquire::Retries "2"', '--aptopt=Acquire::http::Timeout "30"', "--dpkgopt=force-unsafe-io",
            f"--include={','.join(packages)}", *hooks, release, f"{work}/root", f"{work}/debian.sources"]


def narrator(progress: Progress) -> Callable[[str], None]:
    """Turns mmdebstrap's lines into progress: its steps, and how many packages are installed of how many."""
    at, total, count = 0.0, 0, 0

    def tell(line: str) -> None:
        nonlocal at, total, count
        for words, (share, sentence) in _STEPS.items():
            if line.startswith("I: ") and words in line:
                at, total, count = share, 0, 0
                progress(sentence, share)
        if match := re.search(r"\b(\d+) newly installed", line):
            total = int(match[1])
        if at == _INSTALL_FROM and total and re.match(r"(Unpacking|Setting up) ", line):
            count += 1
            progress("installing packages", _INSTALL_FROM + _INSTALL_SHARE * min(count / (2 * total), 1))

    return tell


# Lines of apt, dpkg and mmdebstrap -> what happened, what to do. {0} host, {1} release, {2} mirror; groups after these.
_TELLING = (
    (r"No space left on device",
     "{0} ran out of room while the template was built", "make room there, then apply again"),
    (r"Unable to locate package (\S+)|Package '?([^\s']+)'? has no installation candidate",
     "Debian {1} has no package {3}", "correct packages: of the template"),
    (r"does not have a Release file|404 +Not Found.*InRelease|InRelease.*404 +Not Found",
     "the mirror {2} has no Debian release {1}", "correct release: or mirror: of the template"),
    (r"NO_PUBKEY|not signed|signatures couldn't be verified|EXPKEYSIG|[Ss]ub-process \S*(?:gpgv|sqv) returned",
     "the signature of the mirror {2} could not be checked on {0}",
     "on {0}: apt-get install debian-archive-keyring, and check the clock"),
    (r"Release file .*(?:is not valid yet|is expired)", "the mirror {2} is out of date, or the clock of {0} is wrong",
     "check the clock of {0}, or name another mirror: of the template"),
    (r"[Cc]ould not (?:connect|resolve)|Temporary failure resolving|Unable to connect|Failed to fetch|"
     r"Connection (?:timed out|refused|failed)|Network is unreachable|Could not handshake",
     "the mirror {2} cannot be reached from {0}",
     "see that `apt-get update` works on {0}, name another mirror: of the template, then apply again"),
)  # fmt: skip


def explain(done: Completed, host: str, release: str, uri: str) -> VmwrightError:
    """The error of an mmdebstrap that failed, from what it and its children said."""
    lines = (done.stdout + b"\n" + done.stderr).decode(errors="replace").splitlines()
    for pattern, what, todo in _TELLING:
        for line in lines:
            if match := re.search(pattern, line):
                group = next((text for text in match.groups() if text), "")
                said = [text.strip() for text in lines if re.search(pattern, text)]
                return HostError(what.format(host, release, uri, group), why="\n".join(dict.fromkeys(said[:4])),
                                 todo=todo.format(host))
    return failed(done, f" on {host}")


def manifest_argv(root: str) -> list[str]:
    """The command that lists the packages of a tree."""
    return ["chroot", root, "dpkg-query", "--show", "--showformat", "${Package}\\t${Version}\\n"]


def parse_manifest(text: str) -> dict[str, str]:
    """Package -> version."""
    return dict(sorted((name, version) for name, _, version in (line.partition("\t") for line in text.splitlines())))


def check_fits(used: int, plan: Layout) -> None:
    """Raises ApplyError when a tree of `used` bytes is too large: mkfs would fail, with words that do not say so."""
    needed = used + used // 8 + 128 * MIB  # what the file system takes for itself, and some air
    if needed > plan.root_size:
        whole = -(-(needed + plan.root_start + _ALIGN) // GIB) * GIB
        raise ApplyError(f"the packages take {format_size(used)}: too much for a disk of {format_size(plan.size)}",
                         todo=f"give the template disk: {format_size(whole)} or more, or fewer packages")


# The disk

def partition_argv(disk: str, plan: Layout, identity: guest.Identity) -> list[str]:
    """The command that writes the partition table."""
    parts = ((1, plan.esp_start, plan.esp_size, "ef00", "ESP", identity.esp),
             (2, plan.root_start, plan.root_size, _ROOT_TYPE, "root", None))
    argv = ["sgdisk", "--clear"]
    for number, start, size, kind, label, guid in parts:
        argv += [f"--new={number}:{start // _SECTOR}:{(start + size) // _SECTOR - 1}", f"--typecode={number}:{kind}",
                 f"--change-name={number}:{label}", *([f"--partition-guid={number}:{guid}"] if guid else [])]
    return [*argv, disk]


def _partition(job: _Job) -> None:
    disk = job.path("disk.raw")
    job.run(["truncate", f"--size={job.layout.size}", "--", disk])
    job.run(partition_argv(disk, job.layout, job.identity))


def esp_argvs(root: str, staged: str, disk: str, plan: Layout, versions: Sequence[str]) -> list[list[str]]:
    """The commands that make the ESP in its place on the disk and fill it, without mounting it.

    `staged` is a directory with loader/; the loader program and the kernels come from the tree `root`.
    """
    at = f"{disk}@@{plan.esp_start}"
    folders = ["EFI", "EFI/BOOT", "EFI/systemd", guest.ENTRY_TOKEN, *(f"{guest.ENTRY_TOKEN}/{v}" for v in versions)]
    copies = [(f"{staged}/systemd-bootx64.efi", target) for target in (guest.LOADER, guest.LOADER_SELF)]
    for version in versions:
        copies += [(f"{root}/boot/vmlinuz-{version}", f"{guest.ENTRY_TOKEN}/{version}/linux"),
                   (f"{root}/boot/initrd.img-{version}", f"{guest.ENTRY_TOKEN}/{version}/initrd.img-{version}")]
    # FAT32 with clusters of 2 KiB: smaller ones make chains that firmware follows slowly, larger ones are too few.
    return [["mkfs.vfat", "-F", "32", "-s", "4", "-n", "ESP", f"--offset={plan.esp_start // _SECTOR}", disk,
             str(plan.esp_size // 1024)],
            ["mmd", "-i", at, *(f"::/{folder}" for folder in folders)],
            ["mcopy", "-s", "-i", at, f"{staged}/loader", "::/"],
            *(["mcopy", "-i", at, source, f"::/{target}"] for source, target in copies)]


def _fill_esp(job: _Job) -> None:
    root, staged = job.path("root"), job.path("esp")
    versions = guest.kernels(job.run(["ls", "--", f"{root}/boot"]).text.split())
    if not versions:
        raise ApplyError("the packages brought no kernel with an initramfs", todo="correct packages: of the template")
    title = job.run(["sh", "-c", '. "$1"; echo "$PRETTY_NAME"', "sh", f"{root}/usr/lib/os-release"]).text
    entries = {guest.entry_path(v): guest.boot_entry(v, guest.command_line(job.identity), title) for v in versions}
    settings = {"loader/loader.conf": "timeout 0\n", "loader/entries.srel": "type1\n"}
    for path, text in {**settings, **entries}.items():
        job.host.write(f"{staged}/{path}", text.encode())
    # Where only the signed one is installed (Debian 13), that is taken: it runs without Secure Boot as well.
    loader = f"{root}/usr/lib/systemd/boot/efi/systemd-bootx64.efi"
    pick = 'test -e "$1" || set -- "$1.signed" "$2"; cp -- "$1" "$2"'
    job.run(["sh", "-c", pick, "sh", loader, f"{staged}/systemd-bootx64.efi"])
    for argv in esp_argvs(root, staged, job.path("disk.raw"), job.layout, versions):
        job.run(argv, env={"MTOOLS_SKIP_CHECK": "1"})


def root_argvs(filesystem: Filesystem, work: str, plan: Layout, identifier: str) -> list[list[str]]:
    """The commands that make the root file system in its place on WORK/disk.raw, with what is in WORK/root.

    mke2fs fills it while making it, at an offset in the disk; inode tables count as zeroed, so that no clone writes
    them at its first boot. mkfs.btrfs fills a file of its own. mkfs.xfs cannot (a proto file knows neither spaces in
    names nor capabilities), so an XFS is mounted, in a mount namespace of its own.
    """
    disk, tree, image, mount = (f"{work}/{name}" for name in ("disk.raw", "root", "root.img", "mnt"))
    named = ["-L", "root"]
    if filesystem is Filesystem.EXT4:
        return [["mke2fs", "-q", "-F", "-t", "ext4", *named, "-U", identifier, "-d", tree,
                 "-E", f"offset={plan.root_start}", disk, f"{plan.root_size // 1024}k"]]
    empty = ["truncate", f"--size={plan.root_size}", "--", image]
    if filesystem is Filesystem.BTRFS:
        make = [["mkfs.btrfs", "-q", *named, "-U", identifier, "--rootdir", tree, image]]
    else:
        make = [["mkfs.xfs", "-q", *named, "-m", f"uuid={identifier}", image],
                ["unshare", "--mount", "--propagation=private", "sh", "-c", _FILL, "sh", image, tree, mount]]
    place = f"driver=raw,offset={plan.root_start},size={plan.root_size},file.driver=file,file.filename={disk}"
    return [empty, *make, ["qemu-img", "convert", "-n", "--target-is-zero", "-f", "raw", image,
                           "--target-image-opts", place], ["rm", "-f", "--", image]]


def _fill_root(job: _Job) -> None:
    for argv in root_argvs(job.source.filesystem, job.work, job.layout, job.identity.root):
        done = job.run(argv, check=False, timeout=_COPY_SECONDS)
        if done.code != 0:
            raise fill_error(done, job.host.name)


def fill_error(done: Completed, host: str) -> VmwrightError:
    """The error of a file system that could not be made or filled."""
    said = done.stderr.decode(errors="replace")
    if "loop device" in said or "unknown filesystem type" in said:
        return HostError(f"{host} cannot mount an XFS file system, which filling one takes", why=said.strip(),
                         todo=f"on {host}: modprobe loop; modprobe xfs. Or write filesystem: ext4")
    if "No space left" in said:
        return HostError(f"{host} ran out of room while the template was built", why=said.strip(),
                         todo="make room there, then apply again")
    return failed(done, f" on {host}")


def _convert(job: _Job) -> None:
    def tell(line: str) -> None:
        for share in _PERCENT.findall(line):
            job.progress("writing the qcow2", 0.9 + 0.1 * float(share) / 100)

    target = job.path("disk.qcow2")
    job.run(["qemu-img", "convert", "-p", "-f", "raw", "-O", "qcow2", job.path("disk.raw"), target],
            timeout=_COPY_SECONDS, on_line=tell)
    job.run(["sync", "--", target], timeout=_COPY_SECONDS)
