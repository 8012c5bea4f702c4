"""What is in a Debian template besides its packages: small files, and the script that finishes the tree. Pure.

The guest is to be plain Debian that boots quickly, also under emulation, where a second of a real CPU is half a minute.
Measured there, in CPU seconds of a first boot of about 50: the four starts of cloud-init take 20, its module grub-dpkg
2, the scan of e2scrub_reap 2, an initramfs with every driver 1, kernel messages on the serial console 1.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vmwright.spec.cloud import Filesystem

ESP_MOUNT = "/boot/efi"
ENTRY_TOKEN = "debian"  # the name of the directory and of the boot entries on the ESP; independent of the machine-id
LOADER = "EFI/BOOT/BOOTX64.EFI"  # where firmware without a boot entry looks (UEFI, section 3.5.1.1)
LOADER_SELF = "EFI/systemd/systemd-bootx64.efi"  # where bootctl looks, and updates it
KERNEL = "linux-image-cloud-amd64"

PACKAGES = (
    # the system
    "systemd-sysv", "udev", "dbus", "libpam-systemd", "libnss-myhostname", "kmod", "initramfs-tools", "zstd",
    "systemd-boot", "dosfstools", "e2fsprogs", "fdisk", "cron", "logrotate", "locales", "tzdata",
    # the network
    "systemd-resolved", "systemd-timesyncd", "iproute2", "iputils-ping", "netbase", "ca-certificates", "openssh-server",
    # what vmwright needs
    "cloud-init", "cloud-guest-utils", "qemu-guest-agent", "sudo",
    # what a person expects
    "bash-completion", "curl", "less", "nano", "procps", "psmisc",
)  # fmt: skip
_FILESYSTEM_PACKAGES = {Filesystem.EXT4: (), Filesystem.XFS: ("xfsprogs",), Filesystem.BTRFS: ("btrfs-progs",)}

# Modules of cloud-init that only cost time in this image. What a user may configure stays.
IDLE_MODULES = (
    "migrator", "seed_random", "snap", "grub-dpkg", "grub_dpkg", "disable-ec2-metadata", "disable_ec2_metadata",
    "byobu", "fan", "landscape", "lxd", "mcollective", "reset_rmc", "reset-rmc", "refresh_rmc_and_interface",
    "rightscale_userdata", "spacewalk", "ubuntu-drivers", "ubuntu_drivers", "ubuntu-advantage", "ubuntu_advantage",
    "ubuntu_pro",
)  # fmt: skip

_CLOUD_CFG = """\
# The seed is a disk with the label CIDATA; nothing else is waited for.
datasource_list: [NoCloud, None]
# Host keys are made at first boot. No RSA: making one takes long, and nothing since OpenSSH 6.5 needs it.
ssh_genkeytypes: [ed25519, ecdsa]
ssh: {emit_keys_to_console: false}
no_ssh_fingerprints: true
locale: C.UTF-8
"""

# Builds the list of modules to run from the one that this version of cloud-init brings, without those that idle.
_PRUNE = f"""\
import yaml
idle = {set(IDLE_MODULES)!r}
keys = ("cloud_init_modules", "cloud_config_modules", "cloud_final_modules")
config = yaml.safe_load(open("/etc/cloud/cloud.cfg"))
name = lambda module: module if isinstance(module, str) else module[0]
kept = {{key: [m for m in config[key] if name(m) not in idle] for key in keys if key in config}}
with open("/etc/cloud/cloud.cfg.d/91-modules.cfg", "w") as file:
    file.write("# The modules of /etc/cloud/cloud.cfg, without those that have nothing to do here.\\n")
    yaml.safe_dump(kept, file)
"""

# Every driver of a disk that a VM can have, whatever the hardware of the machine that makes the initramfs. As a hook,
# because drivers named in /etc/initramfs-tools/modules are loaded at every boot, needed or not.
_INITRAMFS_HOOK = """\
#!/bin/sh
[ "$1" = prereqs ] && exit 0
. /usr/share/initramfs-tools/hook-functions
manual_add_modules virtio_pci virtio_mmio virtio_blk virtio_scsi sd_mod ahci nvme {filesystem}
exit 0
"""

FINISH = f"""\
# Runs in the finished tree, once, with the shell's -eu.
rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
rm -f /etc/apt/apt.conf.d/99mmdebstrap /etc/dpkg/dpkg.cfg.d/99mmdebstrap
systemctl --quiet enable systemd-networkd.service systemd-resolved.service systemd-timesyncd.service
systemctl --quiet disable e2scrub_reap.service || true
echo 'en_US.UTF-8 UTF-8' > /etc/locale.gen
locale-gen > /dev/null
echo 'LANG=C.UTF-8' > /etc/default/locale
python3 - <<'END'
{_PRUNE}END
# What makes a machine itself is made by each clone at its first boot. An empty machine-id, not a missing one: that
# would be "first boot" to systemd, which then sets every unit to its preset anew.
: > /etc/machine-id
rm -f /var/lib/dbus/machine-id /etc/hostname /etc/ssh/ssh_host_* /var/lib/systemd/random-seed
rm -rf /var/lib/cloud/* /var/lib/dhcp/*.leases
find /var/log -type f -delete
find /var/cache/apt -type f -delete
passwd --quiet --lock root
mkdir -p {ESP_MOUNT}
"""


@dataclass(frozen=True)
class Identity:
    """What a template's disk is found by: the UUID of its root file system, the partition UUID of its ESP."""

    root: str
    esp: str


def packages(filesystem: Filesystem, further: Sequence[str]) -> tuple[str, ...]:
    """All packages to install. The kernel is the one made for VMs, unless `further` names one."""
    kernel = () if any(name.startswith("linux-image-") for name in further) else (KERNEL,)
    return tuple(dict.fromkeys([*PACKAGES, *kernel, *_FILESYSTEM_PACKAGES[filesystem], *further]))


def command_line(identity: Identity) -> str:
    """The kernel's command line. The last console is the one that /dev/console and emergency shells use."""
    return (f"root=UUID={identity.root} ro console=tty0 console=ttyS0,115200 loglevel=4 systemd.gpt_auto=0")


def fstab(identity: Identity, filesystem: Filesystem) -> str:
    """The ESP is mounted when somebody looks: that keeps a driver and a file system check out of every boot."""
    check = 1 if filesystem is Filesystem.EXT4 else 0  # the others check themselves when they are mounted
    automount = "umask=0077,noauto,nofail,x-systemd.automount,x-systemd.idle-timeout=60"
    return (f"UUID={identity.root} / {filesystem} defaults 0 {check}\n"
            f"PARTUUID={identity.esp} {ESP_MOUNT} vfat {automount} 0 0\n")


def files(identity: Identity, filesystem: Filesystem) -> dict[str, tuple[int, str]]:
    """Mode and text of each file, by its path, that is laid down before packages are configured."""
    return {
        "etc/fstab": (0o644, fstab(identity, filesystem)),
        # for the kernel packages' own hook, which makes a boot entry for each new kernel
        "etc/kernel/cmdline": (0o644, command_line(identity) + "\n"),
        "etc/kernel/entry-token": (0o644, ENTRY_TOKEN + "\n"),
        "etc/kernel/install.conf": (0o644, "layout=bls\n"),
        "etc/initramfs-tools/conf.d/vm": (0o644, "MODULES=list\nCOMPRESS=zstd\n"),
        "etc/initramfs-tools/hooks/vm": (0o755, _INITRAMFS_HOOK.format(filesystem=filesystem)),
        "etc/cloud/cloud.cfg.d/90-vm.cfg": (0o644, _CLOUD_CFG),
        # The default of 120 s is for nobody's good: a NIC without an answer from DHCP would delay every boot by it.
        "etc/systemd/system/systemd-networkd-wait-online.service.d/timeout.conf":
            (0o644, "[Service]\nExecStart=\nExecStart=/lib/systemd/systemd-networkd-wait-online --timeout=30\n"),
    }


def tar(contents: Mapping[str, tuple[int, str]]) -> bytes:
    """Files, owned by root, as a tar archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, (mode, text) in sorted(contents.items()):
            data, entry = text.encode(), tarfile.TarInfo(path)
            entry.size, entry.mode, entry.uname, entry.gname = len(data), mode, "root", "root"
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def kernels(names: Sequence[str]) -> tuple[str, ...]:
    """The versions of the kernels in a directory listing of /boot that have an initramfs, too."""
    versions = (name.removeprefix("vmlinuz-") for name in names if name.startswith("vmlinuz-"))
    return tuple(version for version in versions if f"initrd.img-{version}" in names)


def boot_entry(version: str, command: str, title: str) -> str:
    """A boot entry (Boot Loader Specification, type 1), as the kernel packages' hook writes them."""
    place = f"/{ENTRY_TOKEN}/{version}"
    return (f"title      {title}\nversion    {version}\nsort-key   {ENTRY_TOKEN}\noptions    {command}\n"
            f"linux      {place}/linux\ninitrd     {place}/initrd.img-{version}\n")


def entry_path(version: str) -> str:
    """Where the ESP keeps that kernel's boot entry; the hook replaces and removes it under this name."""
    return f"loader/entries/{ENTRY_TOKEN}-{version}.conf"
