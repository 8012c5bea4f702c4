"""What is in the rack's host image besides its packages: small files, and the script that finishes the tree. Pure.

It is to be a plain Debian server that boots by UEFI and GRUB, and boots quickly under emulation, where a second of a
real CPU is half a minute: what a server does not need at boot is masked, and its initramfs has few drivers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vmwright.units import GIB, MIB

RELEASE = "bookworm"
SEED_NAME = "opt/vmwright/rack"  # of the firmware configuration entry that holds a rack's own files (a tar archive)
SEED_DONE = "/var/lib/rack/seeded"
GROW = "/var/lib/rack/grow"  # in the seed: the system disk is larger than the image

ALIGN = MIB
ESP_SIZE, ROOT_SIZE, SWAP_SIZE = 128 * MIB, 8 * GIB, 256 * MIB
DISK_SIZE = 20 * GIB  # what is left is partition 4, for LVM
ESP, ROOT, SWAP, LVM = 1, 2, 3, 4  # numbers of the partitions


class Image(StrEnum):
    """The host images: a plain server installation, or one with the virtualisation packages."""

    BARE = "bare"
    READY = "ready"


@dataclass(frozen=True)
class Identity:
    """What the parts of the disk are found by: UUIDs of root file system and swap, partition UUID of the ESP."""

    root: str
    swap: str
    esp: str


_BARE = (
    "systemd-sysv", "udev", "dbus", "libnss-myhostname", "kmod", "initramfs-tools", "zstd",
    "linux-image-amd64", "grub-efi-amd64", "grub-efi-amd64-signed", "efibootmgr", "dosfstools", "e2fsprogs", "fdisk",
    "gdisk", "netplan.io", "openssh-server", "iproute2", "iputils-ping", "netbase", "ca-certificates", "pciutils",
    "python3", "sudo", "procps", "psmisc", "cron", "logrotate", "less", "nano", "curl",
)  # fmt: skip
_VIRTUALISATION = (
    "libvirt-daemon-system", "libvirt-clients", "qemu-system-x86", "qemu-utils", "ovmf", "lvm2", "dmeventd",
    "thin-provisioning-tools", "dnsmasq-base", "numactl", "nvme-cli", "parted", "xfsprogs", "btrfs-progs",
    "mtools", "xz-utils", "nftables", "iptables",
)  # fmt: skip

# Units that only cost time on a server that lives for hours and has no screen.
_MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "fstrim.timer", "man-db.timer", "logrotate.timer", "cron.service", "getty@tty1.service", "nvmf-autoconnect.service",
    "systemd-networkd-wait-online.service", "systemd-pstore.service", "systemd-repart.service",
    "systemd-network-generator.service", "systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount",
    "systemd-rfkill.socket", "sys-fs-fuse-connections.mount", "sys-kernel-config.mount", "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount", "modprobe@drm.service",
)  # fmt: skip

# Drivers that the hardware asks for, and nobody in a rack needs: each costs up to seconds of the CPUs at boot.
_UNLOADED = (
    "aesni_intel", "cfg80211", "crc32_pclmul", "crct10dif_pclmul", "ghash_clmulni_intel", "i2c_i801", "iTCO_wdt",
    "intel_rapl_msr", "lpc_ich", "pcspkr", "polyval_clmulni", "psmouse", "rapl", "serio_raw", "sg", "sha1_ssse3",
    "sha256_ssse3", "sha512_ssse3",
)  # fmt: skip

# The clock of emulated CPUs is the machine's own, and no_timer_check keeps the kernel from judging it when the machine
# is busy. Mitigations, and clearing memory at each turn, cost time and keep nobody apart here: all is its owner's.
_KERNEL = ("console=tty0 console=ttyS0,115200 loglevel=4 mitigations=off init_on_alloc=0 no_timer_check tsc=reliable "
           "nowatchdog cryptomgr.notests")
_GRUB = f"""\
# The rack's console is the serial port. vmwright keeps what is written there.
GRUB_TIMEOUT=0
GRUB_TERMINAL=console
GRUB_DISABLE_OS_PROBER=true
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="{_KERNEL}"
"""
_GRUB_IOMMU = 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX intel_iommu=on"\n'

_INITRAMFS_HOOK = """\
#!/bin/sh
[ "$1" = prereqs ] && exit 0
. /usr/share/initramfs-tools/hook-functions
manual_add_modules ahci sd_mod nvme ext4
exit 0
"""

_SEED_UNIT = f"""\
[Unit]
Description=Files of this rack
DefaultDependencies=no
ConditionPathExists=!{SEED_DONE}
After=systemd-remount-fs.service systemd-udevd.service
Before=systemd-udev-trigger.service systemd-networkd.service sysinit.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/lib/rack/seed
"""

# At the first boot, before udev looks for devices and names the NICs; netplan asks udev to read its rules again, and
# waits for that. systemd's generators have run by then, so netplan's is run again.
_SEED = f"""\
#!/bin/sh
set -eu
modprobe qemu_fw_cfg
cat /sys/firmware/qemu_fw_cfg/by_name/{SEED_NAME}/raw | tar -C / --no-same-owner -xf -
cat /etc/hostname > /proc/sys/kernel/hostname
/usr/libexec/netplan/generate
if [ -e {GROW} ]; then
    disk=$(findmnt --noheadings --output SOURCE /)
    disk=${{disk%{ROOT}}}
    sgdisk --move-second-header --delete={LVM} --new={LVM}:0:0 --typecode={LVM}:8e00 --change-name={LVM}:lvm "$disk"
    partx --update "$disk" || partprobe "$disk"
fi
touch {SEED_DONE}
"""

_SSHD = """\
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
"""

# Answers of grub-probe about a disk that is not made yet, so that GRUB's own scripts write its menu: afterwards
# `update-grub` in the rack writes the same.
_GRUB_PROBE = """\
#!/bin/sh
for word; do
    case $word in
        --target=*) target=${word#--target=} ;;
        -t) target=next ;;
        *) [ "${target-}" != next ] || target=$word ;;
    esac
done
case ${target-} in
    device) echo UUID=@ROOT@ ;;
    fs_uuid) echo @ROOT@ ;;
    fs) echo ext2 ;;
    partmap) echo gpt ;;
esac
"""

_FINISH = f"""\
# Runs in the finished tree, once, with the shell's -eu.
rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
rm -f /etc/apt/apt.conf.d/99mmdebstrap /etc/dpkg/dpkg.cfg.d/99mmdebstrap
systemctl --quiet enable systemd-networkd.service ssh.service rack-seed.service
systemctl --quiet mask {' '.join(_MASKED)}
mkdir -p /boot/efi /boot/grub /var/lib/rack
install -d -m 700 /root/.ssh
mv /usr/sbin/grub-probe /usr/sbin/grub-probe.real
mv /usr/lib/rack/grub-probe /usr/sbin/grub-probe
grub-mkconfig -o /boot/grub/grub.cfg
mv /usr/sbin/grub-probe.real /usr/sbin/grub-probe
# What makes a machine itself comes with each rack. An empty machine-id, not a missing one: that would be "first boot"
# to systemd, which then sets every unit to its preset anew.
: > /etc/machine-id
rm -f /var/lib/dbus/machine-id /etc/hostname /etc/ssh/ssh_host_* /var/lib/systemd/random-seed
find /var/log -type f -delete
find /var/cache/apt -type f -delete
passwd --quiet --lock root
"""


def packages(image: Image) -> tuple[str, ...]:
    """All packages to install."""
    return _BARE if image is Image.BARE else _BARE + _VIRTUALISATION


def fstab(identity: Identity) -> str:
    """The ESP is mounted when somebody looks. The journal is enough for the root: no check at each boot."""
    automount = "umask=0077,noauto,nofail,x-systemd.automount,x-systemd.idle-timeout=60"
    return (f"UUID={identity.root} / ext4 errors=remount-ro 0 0\n"
            f"PARTUUID={identity.esp} /boot/efi vfat {automount} 0 0\n"
            f"UUID={identity.swap} none swap sw 0 0\n")


def files(image: Image, identity: Identity) -> dict[str, tuple[int, str]]:
    """Mode and text of each file, by its path, that is laid down before packages are configured."""
    made = {
        "etc/fstab": (0o644, fstab(identity)),
        "etc/default/grub.d/50-rack.cfg": (0o644, _GRUB),
        "etc/initramfs-tools/conf.d/rack": (0o644, "MODULES=list\nCOMPRESS=zstd\nRESUME=none\n"),
        "etc/initramfs-tools/hooks/rack": (0o755, _INITRAMFS_HOOK),
        "etc/ssh/sshd_config.d/rack.conf": (0o644, _SSHD),
        "etc/systemd/system/rack-seed.service": (0o644, f"{_SEED_UNIT}\n[Install]\nWantedBy=sysinit.target\n"),
        "etc/modprobe.d/rack.conf": (0o644, "".join(f"blacklist {name}\n" for name in _UNLOADED)),
        "usr/lib/rack/seed": (0o755, _SEED),
        "usr/lib/rack/grub-probe": (0o755, _GRUB_PROBE.replace("@ROOT@", identity.root)),
    }
    if image is Image.READY:
        made["etc/default/grub.d/60-iommu.cfg"] = (0o644, _GRUB_IOMMU)
        # At its start libvirtd asks QEMU what it can do, which takes the emulated CPUs for itself: log in first.
        made["etc/systemd/system/libvirtd.service.d/rack.conf"] = (0o644, "[Unit]\nAfter=ssh.service\n")
    return made


def finish() -> str:
    """The script that finishes the tree."""
    return _FINISH


def grub_stub(identity: Identity) -> str:
    """What GRUB reads first, from the ESP: where the rest of it is. `grub-install` writes the same."""
    return f"search.fs_uuid {identity.root} root\nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n"


def inputs(image: Image) -> tuple[str, ...]:
    """All that makes an image's content, for its hash; not the mirror: all of them have the same packages."""
    nobody = Identity("root", "swap", "esp")
    texts = (f"{path} {mode:o} {text}" for path, (mode, text) in sorted(files(image, nobody).items()))
    sizes = (str(size) for size in (ESP_SIZE, ROOT_SIZE, SWAP_SIZE, DISK_SIZE))
    return ("rack", RELEASE, *sorted(packages(image)), *texts, finish(), grub_stub(nobody), *sizes)
