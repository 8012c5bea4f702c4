"""What things are called on a host: volumes, directories, marks of ownership. Pure; used by facts, plan and apply.

A volume's name says whose it is: CLOUD.OBJECT.ROLE.EXT. Names of clouds, VMs, templates and disks are host-name labels
and hold no dot, so the parts are unambiguous; the characters are legal for LVM logical volumes, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

METADATA_URI = "https://vmwright.dev/xmlns/vm/1"
METADATA_PREFIX = "vmwright"
HOST_STATE = "/var/lib/vmwright"  # on the host: intents, images, manifests of templates
DEVICE_NOTES = f"{HOST_STATE}/devices"
HOST_RUN = "/run/vmwright"  # on the host, gone at reboot: the lock, the result of the KVM probe

NETWORK_STATE = f"{HOST_STATE}/network"  # a change of the host's network that is under way, and what was before

GRUB_DROP_IN = "/etc/default/grub.d/60-vmwright.cfg"
KERNEL_NOTE = f"{HOST_STATE}/kernel-arguments"  # those that grubby has set for us
FILTER_SETTINGS = "/etc/sysctl.d/60-vmwright-bridges.conf"
FILTER_RULE = "/etc/udev/rules.d/60-vmwright-bridges.rules"

ASIDE_LIST = "/etc/vmwright/devices"  # devices of the host that are set aside for VMs when it boots
ASIDE_RECORD = f"{HOST_RUN}/aside"  # which of them were, at this boot
INITRAMFS_HOOK = "/etc/initramfs-tools/hooks/vmwright"
INITRAMFS_SCRIPT = "/etc/initramfs-tools/scripts/init-top/00-vmwright"  # the name puts it before udev
INITRAMFS_BLOCK = "/etc/initramfs-tools/scripts/local-block/vmwright"
DRACUT_MODULE = "/usr/lib/dracut/modules.d/80vmwright"
DRACUT_FILES = tuple(f"{DRACUT_MODULE}/{name}" for name in ("module-setup.sh", "aside.sh", "hook.sh", "back.sh"))
ASIDE_FILES = (ASIDE_LIST, INITRAMFS_HOOK, INITRAMFS_SCRIPT, INITRAMFS_BLOCK, *DRACUT_FILES)

HUGE_PAGES = "/etc/tmpfiles.d/60-vmwright-hugepages.conf"

# A host's own services for guests.
DNS_SERVICE = "vmwright-dns.service"
DNS_CONFIG, DNS_NAMES = "/etc/vmwright/dns.conf", "/etc/vmwright/dns.hosts"
DNS_UNIT = f"/etc/systemd/system/{DNS_SERVICE}"
NTP_CONFIG, NTP_CONFIG_FEDORA = "/etc/chrony/conf.d/60-vmwright.conf", "/etc/chrony.d/60-vmwright.conf"
SQUID_CONFIG = "/etc/squid/conf.d/60-vmwright.conf"
CACHER_CONFIG = "/etc/apt-cacher-ng/zz_vmwright.conf"  # the last of them counts
CACHER_DROP_IN = "/etc/systemd/system/apt-cacher-ng.service.d/60-vmwright.conf"
NAT_SERVICE, NAT_TABLE = "vmwright-masquerade.service", "vmwright"
NAT_RULES = "/etc/vmwright/masquerade.nft"
NAT_UNIT = f"/etc/systemd/system/{NAT_SERVICE}"
FORWARDING = "/etc/sysctl.d/60-vmwright-forwarding.conf"
SERVICE_FILES = (DNS_CONFIG, DNS_NAMES, DNS_UNIT, NTP_CONFIG, NTP_CONFIG_FEDORA, SQUID_CONFIG, CACHER_CONFIG,
                 CACHER_DROP_IN, NAT_RULES, NAT_UNIT, FORWARDING)

# That we may write outside of our own directories.
OUR_FILES = (GRUB_DROP_IN, KERNEL_NOTE, FILTER_SETTINGS, FILTER_RULE, *ASIDE_FILES, HUGE_PAGES, *SERVICE_FILES)

_DM_NAME = 127  # DM_NAME_LEN of linux/dm-ioctl.h is 128, with the NUL at its end

# lvm(8), VALID NAMES. It says that an LV cannot be called snapshot or pvmove; in fact nothing may begin so.
_BEGINNINGS = ("-", "snapshot", "pvmove")
_WITHIN = ("_cdata", "_cmeta", "_corig", "_iorig", "_mimage", "_mlog", "_pmspare", "_rimage", "_rmeta", "_tdata",
           "_tmeta", "_vdata", "_vorigin", "_wcorig")  # fmt: skip


def root_volume(cloud: str, vm: str, *, block: bool = False) -> str:
    """The volume of a VM's root disk. `block`: as an LVM logical volume, which has no extension; also below."""
    return f"{cloud}.{vm}.root" + ("" if block else ".qcow2")


def data_volume(cloud: str, vm: str, disk: str, *, block: bool = False) -> str:
    """The volume of a VM's data disk."""
    return f"{cloud}.{vm}.disk-{disk}" + ("" if block else ".qcow2")


def seed_volume(cloud: str, vm: str, *, block: bool = False) -> str:
    """The volume with a VM's cloud-init data."""
    return f"{cloud}.{vm}.seed" + ("" if block else ".iso")


def template_volume(cloud: str, template: str, version: str, *, block: bool = False) -> str:
    """The volume of one version of a template."""
    return f"{cloud}.{template}.template-{version}" + ("" if block else ".qcow2")


class VolumeNames:
    """What the volumes of a cloud are called in one pool. `block`: they are logical volumes."""

    def __init__(self, cloud: str, *, block: bool) -> None:
        self._cloud, self._block = cloud, block

    def root(self, vm: str) -> str:
        """The name of a VM's root disk."""
        return root_volume(self._cloud, vm, block=self._block)

    def data(self, vm: str, disk: str) -> str:
        """The name of a data disk."""
        return data_volume(self._cloud, vm, disk, block=self._block)

    def seed(self, vm: str) -> str:
        """The name of the volume with a VM's cloud-init data."""
        return seed_volume(self._cloud, vm, block=self._block)

    def template(self, name: str, version: str) -> str:
        """The name of a version of a template."""
        return template_volume(self._cloud, name, version, block=self._block)


@dataclass(frozen=True)
class OurVolume:
    """A volume name taken apart. `role` is root, disk, seed or template; `detail` the disk's name or the version."""

    cloud: str
    object: str
    role: str
    detail: str


_DETAILED = {"root": False, "seed": False, "disk": True, "template": True}


def parse_volume(name: str, *, block: bool = False) -> OurVolume | None:
    """The parts of a volume name of ours; None for any other name."""
    parts = name.split(".")
    if block:
        parts.append("")
    if len(parts) != 4 or not all(parts[:3]):
        return None
    cloud, owner, role, extension = parts
    kind, dash, detail = role.partition("-")
    expected = "" if block else "iso" if kind == "seed" else "qcow2"
    fits = _DETAILED.get(kind) == bool(detail) and bool(detail) == bool(dash) and extension == expected
    return OurVolume(cloud, owner, kind, detail) if fits else None


def is_block(path: str) -> bool:
    """Whether a volume's path is that of a block device, and not of a file."""
    return path.startswith("/dev/")


def parse_path(path: str) -> OurVolume | None:
    """The parts of the name of a volume of ours, by its path; None for any other."""
    return parse_volume(path.rpartition("/")[2], block=is_block(path))


def partial_volume(name: str) -> str:
    """What a volume is called while it is moved into its pool; nothing else ends so."""
    return f".{name}.partial"


def parse_partial(path: str) -> OurVolume | None:
    """The parts of the name of a volume that is being moved into its pool, by its path; None for any other."""
    folder, _, name = path.rpartition("/")
    if not (name.startswith(".") and name.endswith(".partial")):
        return None
    return parse_path(f"{folder}/{name.removeprefix('.').removesuffix('.partial')}")


def written_note(path: str) -> str:
    """A copy of what we wrote to a file of the host last: what differs from it, somebody else has changed."""
    return f"{HOST_STATE}/files{path}"


def before_note(path: str) -> str:
    """What a file of the host's was before we wrote to it for the first time."""
    return f"{HOST_STATE}/before{path}"


def device_note(address: str) -> str:
    """The note about the device at a PCI address: which VM it was given to last."""
    return f"{DEVICE_NOTES}/{address}.json"


def lost_device_note(serial: str) -> str:
    """The note about a device that is not where it was: another one has been given to a VM there since."""
    return f"{DEVICE_NOTES}/{quote(serial, safe=' ')}.json"


def intent_path(cloud: str, object: str) -> str:
    """Where the host keeps the note of something being made or removed, from before it starts until it is whole."""
    return f"{HOST_STATE}/{cloud}/intents/{object}.json"


def start_list(cloud: str) -> str:
    """Where the host keeps the list of a cloud's VMs that start with it, in their order."""
    return f"{HOST_STATE}/{cloud}/autostart"


def manifest_path(cloud: str, template: str, version: str) -> str:
    """Where the host keeps what is known of a template's version: its sources, sums and packages."""
    return f"{HOST_STATE}/{cloud}/templates/{template}-{version}.json"


def service_mark(name: str) -> str:
    """What is there while a service of the host's own is being set up: one that was cut off is set up anew."""
    return f"{HOST_RUN}/service-{name}"


def lock_path() -> str:
    """The lock of a host: one apply at a time."""
    return f"{HOST_RUN}/lock"


def dm_name(group: str, volume: str) -> str:
    """What device-mapper calls a volume: hyphens are doubled, a single one parts the names (dmsetup(8), splitname)."""
    return f"{group.replace('-', '--')}-{volume.replace('-', '--')}"


_MAPPED = "/dev/mapper/"


def mapped_path(path: str) -> str:
    """The other path of a logical volume, which lsblk tells, by its own (/dev/GROUP/NAME)."""
    group, _, name = path.removeprefix("/dev/").partition("/")
    return f"{_MAPPED}{dm_name(group, name)}"


def volume_path(path: str) -> str:
    """The path of a logical volume by its other one; any other path as it is."""
    group, dash, name = path.removeprefix(_MAPPED).replace("--", "\0").partition("-")
    if not path.startswith(_MAPPED) or not dash:
        return path
    return f"/dev/{group}/{name}".replace("\0", "-")


def too_long(group: str, volume: str) -> bool:
    """Whether device-mapper has no room for a volume's name, or for what it is called while it is being made."""
    return len(dm_name(group, partial_volume(volume))) > _DM_NAME


def reserved(volume: str) -> bool:
    """Whether LVM keeps such names for itself."""
    return volume.startswith(_BEGINNINGS) or any(word in volume for word in _WITHIN)
