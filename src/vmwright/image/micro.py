"""The micro guest: a very small Linux for trials and tests, where a full guest is too slow. Boots by UEFI and by BIOS.

    mmdebstrap unpacks a few Debian packages, and installs none of them
    -> the programs that a guest of ours needs, with their libraries: Debian's kernel for VMs, busybox, the guest agent,
       util-linux and e2fsprogs as far as disks are looked at and grown, dropbear for ssh
    -> the scripts in micro_guest/, which stand in for cloud-init: the NoCloud seed in, cloud-init's files out
    -> GPT, an ESP with systemd-boot and syslinux, and the root file system as the last partition; a qcow2 of 35 MiB

To the rest of vmwright it is an image like any other (`templates: {micro: {image: ./micro.qcow2}}`). Of a seed it
takes what is listed in seed.awk, and warns of what it leaves out. Whoever has its console is root: no guest for others.
It needs 160 MiB of memory: with 136, UEFI firmware crashes while it loads the kernel.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import resources
from urllib.parse import unquote

from vmwright.errors import ApplyError, HostError, VmwrightError
from vmwright.host.run import Completed, Host
from vmwright.image import debian, mirror
from vmwright.image import debian_guest as guest
from vmwright.image.debian import Built, Layout, Progress
from vmwright.names import HOST_STATE
from vmwright.spec.cloud import Filesystem
from vmwright.units import MIB, content_hash

CACHE = f"{HOST_STATE}/images"
RELEASE = "bookworm"
SIZE = 256 * MIB
ESP_SIZE = 32 * MIB
PACKAGES = ("linux-image-cloud-amd64", "systemd-boot-efi", "busybox-static", "qemu-guest-agent", "util-linux", "fdisk",
            "e2fsprogs", "libc-bin", "dropbear-bin", "binutils", "syslinux", "syslinux-common")
# What vmwright calls inside a guest and busybox has not, or has not well enough; the rest are links to busybox.
PROGRAMS = ("qemu-ga", "lsblk", "blkid", "partx", "mountpoint", "sfdisk", "resize2fs", "mke2fs", "e2fsck",
            "getent", "dropbear", "dropbearkey")
ALIASES = {"mkfs.ext4": "mke2fs", "fsck.ext4": "e2fsck", "shutdown": "../lib/micro/shutdown.sh",
           "systemctl": "../lib/micro/systemctl.sh", "sudo": "../lib/micro/sudo.sh"}
NOT_APPLETS = ("dpkg", "dpkg-deb", "rpm", "busybox")
ROOT_DRIVERS = ("virtio_pci", "virtio_blk")  # of the root disk, loaded in the initramfs; ext4 and NVMe are built in
DRIVERS = ("virtio_net", "virtio_console", "virtio_balloon", "virtio_scsi", "sd_mod", "isofs", "vfat", "nls_cp437",
           "nls_ascii", "button", "evdev")  # loaded when there is something for them
INITRAMFS_APPLETS = ("sh", "mount", "modprobe", "usleep", "switch_root")
_KERNEL = ("panic=10 mitigations=off random.trust_cpu=on 8250.nr_uarts=1 cryptomgr.notests nokaslr init_on_alloc=0 "
           "lsm= audit=0 tsc=reliable lpj=20000000 no_timer_check nowatchdog "
           "initcall_blacklist=load_system_certificate_list,crypto_kdf108_init,init_encrypted,init_kprobe_trace")
_ROOM = 1024 * MIB
_ALIGN, _SECTOR = MIB, 512
_LONG, _SHORT = 1800, 300  # seconds
_PREFIX = "micro-"
_HERE = "micro_guest"

# Both run in the unpacked tree, by its own busybox. The first names each program's path and libraries.
_LIST = """\
for name; do
    for path in "/usr/sbin/$name" "/usr/bin/$name" "/sbin/$name" "/bin/$name"; do [ ! -x "$path" ] || break; done
    echo "program $path"
    /lib64/ld-linux-x86-64.so.2 --list "$path" || exit 1
done
"""
# $1: the tree, $2: the guest's root, $3: the program that is every other one. Then paths to copy.
_STAGE = """\
set -eu
tree=$1 root=$2; shift 2
mkdir -p "$root/usr/bin" "$root/usr/lib64" "$root/usr/lib/modules" "$root/etc" "$root/root" "$root/proc" "$root/sys"
mkdir -p "$root/dev" "$root/run" "$root/tmp" "$root/var/log" "$root/var/lib" "$root/var/tmp" "$root/mnt" "$root/srv"
chmod 1777 "$root/tmp" "$root/var/tmp"; chmod 0700 "$root/root"
ln -s bin "$root/usr/sbin"
for name in bin sbin lib lib64; do ln -s "usr/$name" "$root/$name"; done
ln -s ../run "$root/var/run"; ln -s ../run/resolv.conf "$root/etc/resolv.conf"
for path; do
    case $path in
    */bin/*|*/sbin/*) cp -L -- "$tree$path" "$root/usr/bin/" ;;
    *) mkdir -p "$root$(dirname "$path")"; cp -L -- "$tree$path" "$root$path" ;;
    esac
done
"""
_SLIM = ("objcopy", "--strip-debug", "--remove-section=.BTF")
_COPY = 'set -eu; cd "$1"; to=$2; shift 2; cp --parents -- "$@" "$to/"'
_LINKS = 'set -eu; cd "$1"; shift; for name; do [ -e "$name" ] || ln -s busybox "$name"; done'
# $1: busybox, $2: a directory, $3: the archive. Owner and times of files are those of the directory.
_PACK = 'set -eu; cd "$2"; find . | "$1" cpio -o -H newc > "$3" 2> /dev/null'


@dataclass(frozen=True)
class _Job:
    """What every step is given."""

    host: Host
    work: str
    progress: Progress
    cancel: threading.Event
    identity: guest.Identity

    def run(self, argv: Sequence[str], *, check: bool = True, timeout: float = _SHORT,
            env: dict[str, str] | None = None, on_line: Callable[[str], None] | None = None) -> Completed:
        """Run a command on the host until it ends, its time is up or the build is cancelled."""
        return self.host.run(argv, check=check, timeout=timeout, env=env, on_line=on_line, cancel=self.cancel)

    def path(self, name: str) -> str:
        """A path in the work directory."""
        return f"{self.work}/{name}"


def version() -> str:
    """A short hash of what makes the image; packages by their names, for a mirror's newer ones are as good."""
    contents = (f"{path}\n{mode}\n{text}" for path, (mode, text) in sorted(files().items()))
    return content_hash("micro", RELEASE, *PACKAGES, *PROGRAMS, *DRIVERS, *ROOT_DRIVERS, str(ALIASES), str(layout()),
                        _STAGE, *_SLIM, str([*esp_argvs("", "", layout(), ""), *bios_argvs("", "", layout())]),
                        initramfs_init(), command_line(guest.Identity("", "")), *contents)


def build(host: Host, target: str, work: str, *, progress: Progress, cancel: threading.Event | None = None,
          kept: str = CACHE, anew: bool = False) -> Built:
    """Put the micro guest's image at `target` on the host: from `kept`, where an earlier one is, or made now.

    `work` is a directory that is ours alone; after the end, nothing of ours is left in it. `anew` makes it in any case,
    with the packages that the mirror has now. The host must be able to build Debian templates, as root. Raises
    HostError, ApplyError and Cancelled.
    """
    image = f"{kept}/micro-{version()}.qcow2"
    there = host.run(["test", "-e", image], check=False).code == 0
    if anew or not there:
        _make(host, image, work, progress, cancel or threading.Event())
    packages = json.loads(host.run(["cat", "--", f"{image}.json"]).text)
    host.run(["mkdir", "-p", "--", target.rpartition("/")[0] or "."])
    host.run(["cp", "--reflink=auto", "--sparse=always", "--", image, f"{target}.partial"], cancel=cancel)
    host.run(["mv", "-f", "--", f"{target}.partial", target])
    return Built(target, "qcow2", packages)


def layout() -> Layout:
    """Where the partitions are on the image's disk."""
    start = _ALIGN + ESP_SIZE
    return Layout(SIZE, _ALIGN, ESP_SIZE, start, SIZE - _ALIGN - start)


def command_line(identity: guest.Identity) -> str:
    """The kernel's command line. Nothing is said on the console but what matters: a serial line is slow.

    What the kernel does at boot for machines that matter more is left out: tests of its ciphers (half of all the
    instructions of its boot), keys for signed modules, security modules, a look at whether clocks are right.
    """
    return f"disk=UUID={identity.root} console=ttyS0,115200 quiet loglevel=4 {_KERNEL}"


@cache
def files() -> dict[str, tuple[int, str]]:
    """Mode and text of each file of the guest that is ours, by its path."""
    scripts = ("boot.sh", "common.sh", "hotplug.sh", "dhcp.sh", "shutdown.sh", "systemctl.sh", "sudo.sh", "seed.awk")
    return {
        **{f"usr/lib/micro/{name}": (0o755, _read(name)) for name in scripts},
        "usr/lib/micro/fstab": (0o644, "proc /proc proc defaults 0 0\nsys /sys sysfs defaults 0 0\n"
                                       "devpts /dev/pts devpts defaults 0 0\nrun /run tmpfs mode=0755 0 0\n"),
        "etc/inittab": (0o644, _read("inittab")),
        "etc/acpi/PWRF/00000080": (0o755, "#!/bin/sh\nexec /sbin/shutdown\n"),
        "etc/passwd": (0o644, "root:x:0:0:root:/root:/bin/sh\n"),
        "etc/shadow": (0o600, "root:*:::::::\n"),
        "etc/group": (0o644, "root:x:0:\n"),
        "etc/hosts": (0o644, "127.0.0.1\tlocalhost\n::1\tlocalhost\n"),
        "etc/nsswitch.conf": (0o644, "passwd: files\ngroup: files\nhosts: files dns\n"),
        "etc/cloud/cloud.cfg": (0o644, "# /usr/lib/micro stands in for cloud-init here.\n"),
        "etc/fstab": (0o644, ""),
        "etc/machine-id": (0o444, ""),
        "etc/profile": (0o644, "export PATH=/usr/sbin:/usr/bin:/sbin:/bin PS1='\\h:\\w\\$ '\n"),
    }


def initramfs_init() -> str:
    """The text of the initramfs's /init."""
    return _read("init.sh")


def _read(name: str) -> str:
    return (resources.files("vmwright.image") / _HERE / name).read_text()


# Making it

def _make(host: Host, image: str, work: str, progress: Progress, cancel: threading.Event) -> None:
    """Build the image, and put it under its name when it is whole."""
    identity = guest.Identity(str(uuid.uuid4()), str(uuid.uuid4()))
    job = _Job(host, f"{work}/{_PREFIX}{uuid.uuid4().hex[:8]}", progress, cancel, identity)
    _check(job)
    try:
        job.run(["mkdir", "-p", "-m", "0700", "--", work, job.work])
        _check_room(job)
        manifest = _unpack(job)
        kernel = _kernel(job)
        progress("choosing what the guest needs", 0.7)
        _stage(job, kernel)
        _initramfs(job, kernel)
        progress("making the disk", 0.8)
        _fill_disk(job, kernel)
        job.run(["mkdir", "-p", "--", image.rpartition("/")[0]])
        host.write(f"{image}.json", json.dumps(manifest, indent=1).encode())
        job.run(["mv", "-f", "--", job.path("disk.qcow2"), image])
    finally:  # an error or a cancel is on its way, perhaps: a failure to tidy must not hide it
        with suppress(VmwrightError):
            host.run(["rm", "-rf", "--one-file-system", "--", job.work], check=False)
            host.run(["rmdir", "--", work], check=False)


def _check(job: _Job) -> None:
    wanted = debian.required_tools(Filesystem.EXT4)
    present = job.run(["sh", "-c", 'for tool; do command -v "$tool" > /dev/null && echo "$tool"; done; true', "sh",
                       *wanted]).text.split()
    if missing := debian.missing_tools(present):
        raise HostError(f"{job.host.name} cannot build the micro guest: {', '.join(missing)} missing",
                        todo=f"on {job.host.name}: apt-get install {' '.join(dict.fromkeys(missing.values()))}")
    if job.run(["uname", "-m"]).text != "x86_64":
        raise HostError(f"{job.host.name} is not an x86-64 machine: the micro guest is made on those only")
    if job.run(["id", "-u"]).text != "0":
        raise HostError("only root can build the micro guest", why="packages are unpacked as they will be owned",
                        todo="run the same with sudo")


def _check_room(job: _Job) -> None:
    free = int(job.run(["df", "--output=avail", "--block-size=1", "--", job.work]).text.split()[-1])
    if free < _ROOM:
        raise HostError(f"{job.host.name} has too little room to build the micro guest: {free // MIB} MiB free at "
                        f"{job.work}, {_ROOM // MIB} needed", todo="make room there")


def mmdebstrap_argv(work: str) -> list[str]:
    """The command that unpacks the packages and all that they depend on into WORK/tree."""
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
            "mmdebstrap", "--verbose", "--mode=root", "--format=directory", "--variant=extract",
            "--architectures=amd64", '--aptopt=APT::Install-Recommends "false"', '--aptopt=Acquire::Languages "none"',
            '--aptopt=Acquire::Retries "2"', '--aptopt=Acquire::http::Timeout "30"', f"--include={','.join(PACKAGES)}",
            RELEASE, f"{work}/tree", f"{work}/debian.sources"]


def _unpack(job: _Job) -> dict[str, str]:
    """Fill WORK/tree; the packages in it with their versions."""
    job.progress("looking for the host's Debian mirror", 0.0)
    archives = mirror.archives(job.host, RELEASE, None, job.path("lists"), job.cancel)
    if key := mirror.missing_key(job.host, archives, job.cancel):
        raise HostError(f"{job.host.name} cannot check Debian's signatures: it has no {key}",
                        todo=f"on {job.host.name}: apt-get install debian-archive-keyring")
    job.host.write(job.path("debian.sources"), mirror.sources_text(archives).encode(), mode=0o600)
    done = job.run(mmdebstrap_argv(job.work), check=False, timeout=_LONG, env=mirror.proxies(job.host, job.cancel),
                   on_line=debian.narrator(job.progress))
    if done.code != 0:
        raise debian.explain(done, job.host.name, RELEASE, mirror.shown(archives[0].uri))
    return parse_packages((done.stdout + done.stderr).decode(errors="replace"))


def parse_packages(text: str) -> dict[str, str]:
    """Package -> version, from the names of the files that mmdebstrap says it unpacks."""
    found = re.findall(r"/archives/([^/_\s]+)_([^/_\s]+)_(?:amd64|all)\.deb", text)
    return {name: unquote(version) for name, version in sorted(found)}


def _kernel(job: _Job) -> str:
    """The version of the tree's kernel; its modules' dependencies are worked out."""
    names = job.run(["ls", "--", job.path("tree/boot")]).text.split()
    versions = [name.removeprefix("vmlinuz-") for name in names if name.startswith("vmlinuz-")]
    if len(versions) != 1:
        raise ApplyError(f"Debian's packages brought {len(versions)} kernels, and one is wanted")
    job.run(["chroot", job.path("tree"), "/sbin/depmod", versions[0]])
    return versions[0]


def parse_dependencies(text: str) -> dict[str, list[str]]:
    """modules.dep: path of a module -> paths of those it needs, the ones to load first being the last."""
    rows = (line.partition(":") for line in text.splitlines())
    return {path: needs.split() for path, _, needs in rows if path}


def load_order(dependencies: dict[str, list[str]], names: Iterable[str]) -> list[str]:
    """The paths of these modules and of what they need, in an order in which they can be loaded.

    Names that are no module are left out: what one kernel has as a module, another has built in.
    """
    paths = {path.rpartition("/")[2].split(".ko")[0].replace("-", "_"): path for path in dependencies}
    order: dict[str, None] = {}
    for name in names:
        if path := paths.get(name.replace("-", "_")):
            order.update(dict.fromkeys([*reversed(dependencies[path]), path]))
    return list(order)


def parse_libraries(text: str) -> list[str]:
    """The paths of the programs and of their libraries, from the output of _LIST: ld.so(8), --list."""
    programs = re.findall(r"^program (/\S+)$", text, re.MULTILINE)
    libraries = re.findall(r"^\t(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$", text, re.MULTILINE)
    return list(dict.fromkeys([*programs, *libraries]))


def _stage(job: _Job, version: str) -> None:
    """Fill WORK/root with what the guest's root file system is to hold."""
    tree, root = job.path("tree"), job.path("root")
    listed = job.run(["chroot", tree, "/bin/busybox", "sh", "-c", _LIST, "sh", *PROGRAMS]).text
    folder = f"/lib/modules/{version}"
    dependencies = parse_dependencies(job.run(["cat", "--", f"{tree}{folder}/modules.dep"]).text)
    modules = [f"{folder}/{path}" for path in load_order(dependencies, [*ROOT_DRIVERS, *DRIVERS])]
    index = [f"{folder}/modules.{name}" for name in ("order", "builtin", "builtin.modinfo")]
    paths = [*parse_libraries(listed), "/bin/busybox", *modules, *index]
    job.run(["sh", "-c", _STAGE, "sh", tree, root, *paths])
    _slim(job, [f"{root}{path}" for path in modules])
    job.run(["chroot", root, "/bin/busybox", "depmod", version])
    job.host.write(job.path("files.tar"), guest.tar(files()))
    job.run(["tar", "-C", root, "--extract", "--file", job.path("files.tar")])
    for name, aim in ALIASES.items():
        job.run(["ln", "-s", "--", aim, f"{root}/usr/bin/{name}"])
    applets = job.run([f"{root}/usr/bin/busybox", "--list"]).text.split()
    job.run(["sh", "-c", _LINKS, "sh", f"{root}/usr/bin", *(name for name in applets if name not in NOT_APPLETS)])


def _slim(job: _Job, modules: Sequence[str]) -> None:
    """Take out of modules what makes the kernel do much when it loads them, and what is of no use here.

    For the first one with types for BPF (.BTF) it would read those of the whole kernel; signatures it would check.
    """
    tree = job.path("tree")
    for path in modules:
        job.run(["mv", "--", path, f"{tree}/module.ko"])
        job.run(["chroot", tree, *_SLIM, "/module.ko", "/slim.ko"])
        job.run(["mv", "--", f"{tree}/slim.ko", path])


def _initramfs(job: _Job, version: str) -> None:
    """WORK/initrd: busybox, the root disk's drivers, and our init. Not packed, as reading it costs less."""
    root, place = job.path("root"), job.path("initramfs")
    folder = f"lib/modules/{version}"
    order = load_order(parse_dependencies(job.run(["cat", "--", f"{root}/{folder}/modules.dep"]).text), ROOT_DRIVERS)
    job.run(["mkdir", "-p", "--", *(f"{place}/{name}" for name in ("bin", "dev", "root", folder))])
    job.run(["cp", "--", f"{root}/usr/bin/busybox", f"{place}/bin/"])
    job.run(["sh", "-c", _LINKS, "sh", f"{place}/bin", *INITRAMFS_APPLETS])
    if order:
        job.run(["sh", "-c", _COPY, "sh", f"{root}/{folder}", f"{place}/{folder}", *order])
    job.run(["chroot", place, "/bin/busybox", "depmod", version])
    job.host.write(f"{place}/init", initramfs_init().encode(), mode=0o755)
    job.run(["sh", "-c", _PACK, "sh", f"{root}/usr/bin/busybox", place, job.path("initrd")])


def esp_argvs(tree: str, work: str, plan: Layout, version: str) -> list[list[str]]:
    """The commands that make the ESP in its place on WORK/disk.raw and fill it. FAT16, with few and large clusters."""
    disk, loader = f"{work}/disk.raw", f"{tree}/usr/lib/systemd/boot/efi/systemd-bootx64.efi"
    at = f"{disk}@@{plan.esp_start}"
    copies = ((loader, guest.LOADER), (f"{work}/loader.conf", "loader/loader.conf"),
              (f"{work}/micro.conf", "loader/entries/micro.conf"), (f"{work}/syslinux.cfg", "syslinux.cfg"),
              (f"{tree}/boot/vmlinuz-{version}", "linux"), (f"{work}/initrd", "initrd"))
    return [["mkfs.vfat", "-F", "16", "-s", "8", "-n", "ESP", f"--offset={plan.esp_start // _SECTOR}", disk,
             str(plan.esp_size // 1024)],
            ["mmd", "-i", at, *(f"::/{folder}" for folder in ("EFI", "EFI/BOOT", "loader", "loader/entries"))],
            *(["mcopy", "-i", at, source, f"::/{target}"] for source, target in copies)]


def bios_argvs(tree: str, work: str, plan: Layout) -> list[list[str]]:
    """The commands that make WORK/disk.raw boot by BIOS, too.

    The code in its first sector starts the partition with the attribute for that (UEFI, table 5.8): the ESP, where
    syslinux is put, by mtools. That program runs with the tree's libraries, not with the host's.
    """
    disk, libraries = f"{work}/disk.raw", f"{tree}/lib/x86_64-linux-gnu"
    return [["sgdisk", "--attributes=1:set:2", disk],
            [f"{libraries}/ld-linux-x86-64.so.2", "--library-path", libraries, f"{tree}/usr/bin/syslinux", "--install",
             "--offset", str(plan.esp_start), disk],
            ["dd", f"if={tree}/usr/lib/syslinux/mbr/gptmbr.bin", f"of={disk}", "bs=440", "count=1", "conv=notrunc",
             "status=none"]]


def root_argv(work: str, plan: Layout, identifier: str) -> list[str]:
    """The command that makes the root file system in its place on WORK/disk.raw, with what is in WORK/root.

    With the blocks and inodes of a large file system: it grows, and mke2fs would take those of a very small one.
    """
    return ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-i", "16384", "-m", "0", "-L", "root", "-U", identifier,
            "-d", f"{work}/root", "-E", f"offset={plan.root_start}", f"{work}/disk.raw", f"{plan.root_size // 1024}k"]


def _fill_disk(job: _Job, version: str) -> None:
    """WORK/disk.qcow2, from the tree, the root and the initramfs."""
    disk, plan = job.path("disk.raw"), layout()
    command = command_line(job.identity)
    entry = f"title micro\noptions {command}\nlinux /linux\ninitrd /initrd\n"
    bios = f"default micro\nlabel micro\n linux /linux\n initrd /initrd\n append {command}\n"
    job.host.write(job.path("loader.conf"), b"timeout 0\n")
    job.host.write(job.path("micro.conf"), entry.encode())
    job.host.write(job.path("syslinux.cfg"), bios.encode())
    job.run(["truncate", f"--size={plan.size}", "--", disk])
    job.run(debian.partition_argv(disk, plan, job.identity))
    tree = job.path("tree")
    for argv in (*esp_argvs(tree, job.work, plan, version), *bios_argvs(tree, job.work, plan)):
        job.run(argv, env={"MTOOLS_SKIP_CHECK": "1"})
    job.run(root_argv(job.work, plan, job.identity.root))
    job.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, job.path("disk.qcow2")], timeout=_LONG)
    job.run(["sync", "--", job.path("disk.qcow2")], timeout=_LONG)
