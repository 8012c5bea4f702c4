"""Command lines for LVM, and its rules about names. What they do is tried on real volume groups elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmwright import names
from vmwright.host import lvm
from vmwright.names import partial_volume, template_volume


@pytest.mark.parametrize(("argv", "line"), [
    (lvm.wipe("/dev/sda4"), "wipefs --all -- /dev/sda4"),
    (lvm.pvcreate("/dev/sda4"), "lvm pvcreate -- /dev/sda4"),
    (lvm.pvcreate("/dev/sda4", wipe=True), "lvm pvcreate --yes -- /dev/sda4"),
    (lvm.vgcreate("vg", ["/dev/sda4", "/dev/sdb"]), "lvm vgcreate -- vg /dev/sda4 /dev/sdb"),
    (lvm.vgextend("vg", ["/dev/sdc"]), "lvm vgextend -- vg /dev/sdc"),
    (lvm.create_thin_pool("vg", "thin"),
     "lvm lvcreate --yes --type thin-pool --zero y --monitor y --config activation/error_when_full=1 "
     "--extents 100%FREE --name thin -- vg"),
    (lvm.create_thin_pool("vg", "thin", 1 << 30, 64 << 20, chunk=128 << 10),
     "lvm lvcreate --yes --type thin-pool --zero y --monitor y --poolmetadatasize 67108864b --chunksize 131072b "
     "--config activation/error_when_full=1 --size 1073741824b --name thin -- vg"),
    (lvm.create("vg", "lab.web.root", 6 << 30),
     "lvm lvcreate --yes --type linear --wipesignatures y --zero y --size 6442450944b --name lab.web.root -- vg"),
    (lvm.create_thin("vg", "thin", "lab.web.root", 6 << 30),
     "lvm lvcreate --yes --type thin --thinpool thin --virtualsize 6442450944b --name lab.web.root -- vg"),
    (lvm.snapshot("vg", "lab.base.template-1", "lab.web.root"),
     "lvm lvcreate --yes --snapshot --setactivationskip n --activate y --name lab.web.root -- vg/lab.base.template-1"),
    (lvm.activate("vg", "a"), "lvm lvchange --activate y --ignoreactivationskip -- vg/a"),
    (lvm.extend("vg", "a", 8 << 30), "lvm lvextend --size 8589934592b -- vg/a"),
    (lvm.rename("vg", ".a.partial", "a"), "lvm lvrename -- vg .a.partial a"),
    (lvm.remove("vg", "a"), "lvm lvremove --yes -- vg/a"),
    (lvm.copy("/dev/vg/a", "raw", "/dev/vg/b", zero=False),
     "qemu-img convert -n -p -W -t none -T none -f raw -O raw /dev/vg/a /dev/vg/b"),
    (lvm.copy("/srv/a.qcow2", "qcow2", "/dev/vg/b", zero=True),
     "qemu-img convert -n -p -W -t none --target-is-zero -f qcow2 -O raw /srv/a.qcow2 /dev/vg/b"),
])
def test_command_lines(argv: list[str], line: str) -> None:
    assert " ".join(argv) == line


def test_only_a_thin_volume_is_taken_for_zero() -> None:
    """On a thick one it would leave the bytes of its last owner where the source has holes."""
    assert "--target-is-zero" not in lvm.copy("/a", "qcow2", "/dev/vg/b", zero=False)


@pytest.mark.parametrize("make", [lvm.exists, lvm.opened, lambda group, name: lvm.hand_over(group, name, "a"),
                                  lambda group, name: [*lvm.fill(name), group], lambda group, name: lvm.zero(name),
                                  lambda group, name: lvm.discard(name)])
def test_names_are_words_and_not_shell(make: Callable[[str, str], list[str]]) -> None:
    argv = make("vg", "$(touch x)")
    assert argv[:2] == ["sh", "-c"] and "$(touch x)" in argv[3:] and "touch" not in argv[2]


@given(st.integers(1, 1 << 50))
def test_sizes_are_rounded_up_to_whole_sectors(size: int) -> None:
    """LVM refuses others: "Size is not a multiple of 512"."""
    given = int(lvm.extend("vg", "a", size)[3].removesuffix("b"))
    assert given % 512 == 0 and size <= given < size + 512


@pytest.mark.parametrize(("line", "share"), [
    ("    (0.00/100%)", 0.0), ("    (40.05/100%)", 0.4005), ("(100.00/100%)", 1.0), ("(1.00/100%) (2.50/100%)", 0.025),
    ("", None), ("qemu-img: error while writing at byte 0: No space left on device", None), ("(x/100%)", None)])
def test_progress(line: str, share: float | None) -> None:
    assert lvm.progress(line) == (None if share is None else pytest.approx(share))


@pytest.mark.parametrize(("line", "done"), [
    ("done 67108864 of 134217728", (67108864, 134217728)), ("done 1 of 1\n", (1, 1)), ("", None),
    ("blkdiscard: /dev/vg/a: BLKZEROOUT ioctl failed: Input/output error", None), ("done of 3", None)])
def test_how_much_is_cleared(line: str, done: tuple[int, int] | None) -> None:
    assert lvm.cleared(line) == done


def test_hyphens_are_doubled_in_the_names_of_device_mapper() -> None:
    assert names.dm_name("vg-libvirt", "lab.web.disk-a") == "vg--libvirt-lab.web.disk--a"


@pytest.mark.parametrize(("path", "mapped"), [
    ("/dev/vg-libvirt/lab.web.disk-a", "/dev/mapper/vg--libvirt-lab.web.disk--a"), ("/dev/a/b", "/dev/mapper/a-b"),
    ("/dev/a/.b--c.partial", "/dev/mapper/a-.b----c.partial")])
def test_the_two_paths_of_a_volume(path: str, mapped: str) -> None:
    assert (names.mapped_path(path), names.volume_path(mapped), names.volume_path(path)) == (mapped, path, path)
    for other in ("/dev/mapper/crypt", "/srv/images/a-b.qcow2", "/dev/sda"):
        assert names.volume_path(other) == other


@pytest.mark.parametrize(("volume", "long"), [
    ("x" * (127 - len("a--b--c-") - len("..partial")), False),
    ("x" * (128 - len("a--b--c-") - len("..partial")), True),
    ("x" * 60 + "-" * 25, False), ("x" * 60 + "-" * 26, True)])
def test_how_long_a_name_may_be(volume: str, long: bool) -> None:
    """127 characters, tried: with 128 LVM says that this "is not supported", or cannot activate the volume."""
    assert names.too_long("a-b-c", volume) is long
    assert (len(names.dm_name("a-b-c", partial_volume(volume))) > 127) is long


@pytest.mark.parametrize("name", ["snapshot1.web.root", "pvmove.a.root", "-a", "lab.web_tdata.root", "a_pmspare"])
def test_names_that_lvm_keeps_for_itself(name: str) -> None:
    assert names.reserved(name)


def test_our_names_are_not_reserved() -> None:
    name = template_volume("lab", "snapshot", "0123456789ab", block=True)
    assert not names.reserved(name) and not names.reserved(partial_volume(name))
