"""Well-known cloud images by name: where their publishers keep them, and what one must know of them. x86_64.

Two kinds of entry. Releases that never change (Fedora, the last Ubuntu 20.04) carry their sha256. The others are links
to the publisher's latest build: their sum is looked up in the publisher's list, over https, whenever a template is
made. Debian's "generic" images are used, not "genericcloud": their kernel has the drivers for passed-through devices
and for the CD that carries the cloud-init data.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from vmwright.errors import Problem, SpecError
from vmwright.spec.cloud import ImageSource
from vmwright.units import GIB, MIB


@dataclass(frozen=True)
class CatalogueEntry:
    """A published image.

    `min_disk` is the size of its disk in bytes, as last seen: a template cannot be smaller. `agent_installed`: the
    image has qemu-guest-agent. `agent_exec_blocked`: that agent, or the one its package manager installs, refuses
    guest-exec until /etc/sysconfig/qemu-ga allows it (FILTER_RPC_ARGS; BLACKLIST_RPC up to EL 8). `archived`: the
    publisher makes no updates any more. `cpu_level`: the x86-64 level that its programs need, and so the guest's CPU
    (psABI: 2 is Nehalem, 3 is Haswell). `elsewhere` are addresses to try when `location` is gone: Fedora moves releases
    to its archive.
    """

    os: str
    title: str
    family: str  # debian, rhel or suse
    location: str
    min_disk: int
    sha256: str | None = None
    sums: str | None = None
    sums_algorithm: str = "sha256"
    agent_installed: bool = False
    agent_exec_blocked: bool = False
    archived: bool = False
    cpu_level: int = 1
    elsewhere: tuple[str, ...] = ()

    def source(self) -> ImageSource:
        """The entry as a template's source."""
        return ImageSource(self.location, self.sha256, self.sums, self.sums_algorithm, self.os)


def names() -> tuple[str, ...]:
    """Every name that `os:` may have, in the order of the catalogue."""
    return tuple(_ENTRIES)


def lookup(os: str, *, base_url: str | None = None) -> CatalogueEntry:
    """The image of that name. With `base_url`, its addresses are on that server instead, under the same paths.

    Raises SpecError with one problem, without a place: the caller knows where the name stands.
    """
    entry = _ENTRIES.get(os)
    if entry is None:
        near = difflib.get_close_matches(os.lower().replace("_", "-"), _ENTRIES, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise SpecError([Problem(f"no image is known by the name {os!r}", f"{hint}known: {', '.join(_ENTRIES)}; "
                                 "for any other, write image: with a URL or a file, and its sha256")])
    return entry if base_url is None else _moved(entry, base_url)


def elsewhere(source: ImageSource) -> tuple[str, ...]:
    """Other addresses of the same bytes as a source's location; only for entries whose sum is fixed."""
    entry = _ENTRIES.get(source.os or "")
    if entry is None or entry.sha256 is None or entry.sha256 != source.sha256:
        return ()
    base, path, rest = source.location.partition(urlsplit(entry.location).path)
    if not path or rest:
        return ()
    return entry.elsewhere if source.location == entry.location else _moved(entry, base).elsewhere


def _moved(entry: CatalogueEntry, base_url: str) -> CatalogueEntry:
    def move(url: str) -> str:
        return base_url.rstrip("/") + urlsplit(url).path

    return replace(entry, location=move(entry.location), sums=entry.sums and move(entry.sums),
                   elsewhere=tuple(move(url) for url in entry.elsewhere))


def _debian(version: int, codename: str, disk: int, archived: bool = False) -> CatalogueEntry:
    base = f"https://cloud.debian.org/images/cloud/{codename}/latest"
    image = f"{base}/debian-{version}-generic-amd64.qcow2"
    return CatalogueEntry(f"debian{version}", f"Debian {version} ({codename})", "debian", image, disk,
                          sums=f"{base}/SHA512SUMS", sums_algorithm="sha512", archived=archived)


def _ubuntu(version: str, codename: str, disk: int) -> CatalogueEntry:
    base = f"https://cloud-images.ubuntu.com/releases/{codename}/release"
    return CatalogueEntry(f"ubuntu{version}", f"Ubuntu {version} LTS ({codename})", "debian",
                          f"{base}/ubuntu-{version}-server-cloudimg-amd64.img", disk, sums=f"{base}/SHA256SUMS")


def _fedora(version: int, file: str, sha256: str, archived: bool = False) -> CatalogueEntry:
    path = f"fedora/linux/releases/{version}/Cloud/x86_64/images/{file}"
    current = f"https://download.fedoraproject.org/pub/{path}"
    archive = f"https://archives.fedoraproject.org/pub/archive/{path}"
    first, *others = (archive,) if archived else (current, archive)
    return CatalogueEntry(f"fedora{version}", f"Fedora Cloud {version}", "rhel", first, 5 * GIB, sha256=sha256,
                          agent_installed=True, agent_exec_blocked=True, archived=archived, elsewhere=tuple(others))


def _rhel(name: str, version: int, title: str, image: str, sums: str) -> CatalogueEntry:
    return CatalogueEntry(f"{name}{version}", f"{title} {version}", "rhel", image, 10 * GIB, sums=sums,
                          agent_installed=True, agent_exec_blocked=True, cpu_level=version - 7)


def _almalinux(version: int) -> CatalogueEntry:
    base = f"https://repo.almalinux.org/almalinux/{version}/cloud/x86_64/images"
    image = f"{base}/AlmaLinux-{version}-GenericCloud-latest.x86_64.qcow2"
    return _rhel("almalinux", version, "AlmaLinux", image, f"{base}/CHECKSUM")


def _centos(version: int) -> CatalogueEntry:
    base = f"https://cloud.centos.org/centos/{version}-stream/x86_64/images"
    image = f"{base}/CentOS-Stream-GenericCloud-{version}-latest.x86_64.qcow2"
    return _rhel("centos-stream", version, "CentOS Stream", image, f"{image}.SHA256SUM")


def _rocky(version: int) -> CatalogueEntry:
    base = f"https://dl.rockylinux.org/pub/rocky/{version}/images/x86_64"
    image = f"{base}/Rocky-{version}-GenericCloud-Base.latest.x86_64.qcow2"
    return _rhel("rocky", version, "Rocky Linux", image, f"{image}.CHECKSUM")


def _suse(os: str, title: str, image: str, archived: bool = False, cpu_level: int = 1) -> CatalogueEntry:
    url = f"https://download.opensuse.org/{image}"
    return CatalogueEntry(os, title, "suse", url, 10 * GIB, sums=f"{url}.sha256", archived=archived,
                          cpu_level=cpu_level)


_UBUNTU_2004 = CatalogueEntry(
    "ubuntu20.04", "Ubuntu 20.04 LTS (focal)", "debian",
    "https://cloud-images.ubuntu.com/releases/focal/release-20250624/ubuntu-20.04-server-cloudimg-amd64.img",
    2252 * MIB, sha256="18f2977d77dfea1b74aee14533bd21c34f789139e949c57023b7364894b7e5e9", archived=True,
    elsewhere=("https://cloud-images.ubuntu.com/releases/focal/release/ubuntu-20.04-server-cloudimg-amd64.img",))

_ENTRIES = {entry.os: entry for entry in (
    _debian(11, "bullseye", 2 * GIB, archived=True),
    _debian(12, "bookworm", 2 * GIB),
    _debian(13, "trixie", 3 * GIB),
    _UBUNTU_2004,
    _ubuntu("22.04", "jammy", 2252 * MIB),
    _ubuntu("24.04", "noble", 3584 * MIB),
    _ubuntu("26.04", "resolute", 3584 * MIB),
    _fedora(35, "Fedora-Cloud-Base-35-1.2.x86_64.qcow2",
            "fe84502779b3477284a8d4c86731f642ca10dd3984d2b5eccdf82630a9ca2de6", archived=True),
    _fedora(40, "Fedora-Cloud-Base-Generic.x86_64-40-1.14.qcow2",
            "ac58f3c35b73272d5986fa6d3bc44fd246b45df4c334e99a07b3bbd00684adee", archived=True),
    _fedora(41, "Fedora-Cloud-Base-Generic-41-1.4.x86_64.qcow2",
            "6205ae0c524b4d1816dbd3573ce29b5c44ed26c9fbc874fbe48c41c89dd0bac2", archived=True),
    _fedora(42, "Fedora-Cloud-Base-Generic-42-1.1.x86_64.qcow2",
            "e401a4db2e5e04d1967b6729774faa96da629bcf3ba90b67d8d9cce9906bec0f", archived=True),
    _fedora(43, "Fedora-Cloud-Base-Generic-43-1.6.x86_64.qcow2",
            "846574c8a97cd2d8dc1f231062d73107cc85cbbbda56335e264a46e3a6c8ab2f"),
    _fedora(44, "Fedora-Cloud-Base-Generic-44-1.7.x86_64.qcow2",
            "28680fe5b371a5a82ebf43a31926e086a168e59949d03969c5093e7071f90b7f"),
    *(_almalinux(version) for version in (8, 9, 10)),
    *(_centos(version) for version in (9, 10)),
    *(_rocky(version) for version in (8, 9, 10)),
    _suse("opensuse-leap15.6", "openSUSE Leap 15.6",
          "distribution/leap/15.6/appliances/openSUSE-Leap-15.6-Minimal-VM.x86_64-Cloud.qcow2", archived=True),
    _suse("opensuse-leap16.0", "openSUSE Leap 16.0",
          "distribution/leap/16.0/appliances/Leap-16.0-Minimal-VM.x86_64-Cloud.qcow2", cpu_level=2),
    _suse("opensuse-tumbleweed", "openSUSE Tumbleweed",
          "tumbleweed/appliances/openSUSE-Tumbleweed-Minimal-VM.x86_64-Cloud.qcow2"),
)}
