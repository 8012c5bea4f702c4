"""What an action needs from the host: programs and the packages that have them. Debian's names."""

from __future__ import annotations

from vmwright.spec.cloud import BuildSource, Filesystem, ImageSource

_BUILD = (
    ("mmdebstrap", "mmdebstrap"), ("apt-get", "apt"), ("sgdisk", "gdisk"), ("mcopy", "mtools"),
    ("mkfs.vfat", "dosfstools"), ("qemu-img", "qemu-utils"),
)
_MKFS = {
    Filesystem.EXT4: ("mke2fs", "e2fsprogs"),
    Filesystem.XFS: ("mkfs.xfs", "xfsprogs"),
    Filesystem.BTRFS: ("mkfs.btrfs", "btrfs-progs"),
}
_FETCH = (("qemu-img", "qemu-utils"),)
_DOWNLOAD = (("curl", "curl"),)
_UNPACK = {".xz": ("xz", "xz-utils"), ".gz": ("gzip", "gzip"), ".zst": ("zstd", "zstd")}


def tools_of(source: BuildSource | ImageSource) -> tuple[tuple[str, str], ...]:
    """(program, package) pairs that making a template of this source takes."""
    if isinstance(source, BuildSource):
        return (*_BUILD, _MKFS[source.filesystem])
    remote = _DOWNLOAD if "://" in source.location else ()
    unpack = tuple(tool for suffix, tool in _UNPACK.items() if source.location.endswith(suffix))
    return (*_FETCH, *remote, *unpack)
