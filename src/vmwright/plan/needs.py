"""What the cloud needs from a host: programs, and the packages that have them, by family of distributions."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from vmwright.facts.model import HostFacts, PlatformFacts
from vmwright.spec.cloud import BuildSource, Filesystem, ImageSource, LvmSpec, ServicesSpec


class Family(StrEnum):
    """Distributions that call packages the same. The value is the tool that installs them."""

    DEBIAN = "apt-get"
    FEDORA = "dnf"


# Programs by the package that has them. What a distribution calls otherwise is below.
_PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86", "libvirtd": "libvirt-daemon-system", "virsh": "libvirt-clients",
    "qemu-img": "qemu-utils", "lvm": "lvm2", "wipefs": "util-linux", "blkdiscard": "util-linux",
    "thin_check": "thin-provisioning-tools", "mmdebstrap": "mmdebstrap", "apt-get": "apt", "sgdisk": "gdisk",
    "mcopy": "mtools", "mkfs.vfat": "dosfstools", "mke2fs": "e2fsprogs", "mkfs.xfs": "xfsprogs",
    "mkfs.btrfs": "btrfs-progs", "curl": "curl", "xz": "xz-utils", "gzip": "gzip", "zstd": "zstd",
    "dnsmasq": "dnsmasq-base", "chronyd": "chrony", "squid": "squid", "apt-cacher-ng": "apt-cacher-ng",
    "nft": "nftables",
}  # fmt: skip
_FEDORA = {
    "qemu-system-x86_64": "qemu-kvm", "libvirtd": "libvirt-daemon-kvm", "virsh": "libvirt-client",
    "qemu-img": "qemu-img", "thin_check": "device-mapper-persistent-data", "xz": "xz",
    "dnsmasq": "dnsmasq",
}  # fmt: skip
# What belongs to libvirt and QEMU without being a program of theirs: firmware, DHCP for NAT networks, logs of consoles.
_BESIDES = {
    Family.DEBIAN: ("ovmf", "dnsmasq-base"),
    Family.FEDORA: ("edk2-ovmf", "dnsmasq"),
}
_SERVICES = {
    Family.DEBIAN: ("libvirtd.socket", "virtlogd.socket"),
    # Fedora has one daemon per driver; the proxy serves who asks for the one daemon of before.
    Family.FEDORA: tuple(f"virt{name}d.socket" for name in
                         ("qemu", "log", "lock", "storage", "network", "nodedev", "secret", "nwfilter", "proxy")),
}
VIRTUALISATION = ("qemu-system-x86_64", "libvirtd", "virsh", "qemu-img")
_EITHER = {"qemu-system-x86_64": "qemu-kvm", "libvirtd": "virtqemud"}  # either of two programs will do

_BUILD = ("mmdebstrap", "apt-get", "sgdisk", "mcopy", "mkfs.vfat", "qemu-img")
_MKFS = {Filesystem.EXT4: "mke2fs", Filesystem.XFS: "mkfs.xfs", Filesystem.BTRFS: "mkfs.btrfs"}
_UNPACK = {".xz": "xz", ".gz": "gzip", ".zst": "zstd"}


def family(platform: PlatformFacts) -> Family | None:
    """The family of a host's distribution; None where we do not know how to install anything."""
    words = (platform.id, *platform.like)
    if "debian" in words and "apt-get" in platform.tools:
        return Family.DEBIAN
    if ("fedora" in words or "rhel" in words) and "dnf" in platform.tools:
        return Family.FEDORA
    return None


def package(tool: str, kind: Family | None = None) -> str:
    """The package that has a program, by its name in that family; in Debian when None."""
    debian = _PACKAGES[tool]
    return _FEDORA.get(tool, debian) if kind is Family.FEDORA else debian


def remedy(tools: tuple[str, ...], platform: PlatformFacts) -> str:
    """What a person types to get these programs."""
    kind = family(platform)
    names = dict.fromkeys(package(tool, kind) for tool in tools)
    return f"{kind or Family.DEBIAN} install {' '.join(names)}"


def firmware_remedy(platform: PlatformFacts) -> str:
    """What a person types to get UEFI firmware for guests."""
    kind = family(platform) or Family.DEBIAN
    return f"{kind} install {_BESIDES[kind][0]}"


def there(tool: str, facts: HostFacts) -> bool:
    """Whether a host has a program, or one that does the same."""
    return tool in facts.tools or _EITHER.get(tool) in facts.tools


def besides(kind: Family) -> tuple[str, ...]:
    """Packages that come with libvirt and QEMU."""
    return _BESIDES[kind]


def services(kind: Family) -> tuple[str, ...]:
    """Units that make libvirt answer."""
    return _SERVICES[kind]


def tools_of(source: BuildSource | ImageSource) -> tuple[str, ...]:
    """Programs that making a template of this source takes."""
    if isinstance(source, BuildSource):
        return (*_BUILD, _MKFS[source.filesystem])
    remote = ("curl",) if "://" in source.location else ()
    unpack = tuple(tool for suffix, tool in _UNPACK.items() if source.location.endswith(suffix))
    return ("qemu-img", *remote, *unpack)


def tools_of_group(lvm: LvmSpec) -> Iterator[str]:
    """Programs that a pool in a volume group takes."""
    yield from ("lvm", "wipefs", "blkdiscard")
    if lvm.thin:
        yield "thin_check"


def tools_of_services(services: ServicesSpec) -> Iterator[str]:
    """Programs that a host's own services for guests take."""
    if services.dns:
        yield "dnsmasq"
    if services.ntp:
        yield "chronyd"
    if services.proxy:
        yield services.proxy.kind
    if services.masquerade:
        yield "nft"
