"""Devices set aside at boot: which of them, by what they are known, and files that are others' or no longer needed."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.facts.test_pci import GPU
from tests.unit.plan.build import cloud
from tests.unit.plan.simulate import DEBIAN
from tests.unit.plan.test_devices import FIRST, device, file, planned, server

from vmwright.boot import aside
from vmwright.boot.aside import Entry
from vmwright.facts.model import FileFacts, HostFacts, IommuFacts, PlatformFacts, Use, UseFacts
from vmwright.names import (
    ASIDE_LIST,
    DRACUT_FILES,
    INITRAMFS_BLOCK,
    INITRAMFS_HOOK,
    INITRAMFS_SCRIPT,
    written_note,
)
from vmwright.plan.actions import Plan
from vmwright.plan.host_actions import PrepareFiles, Reboot, WriteFiles
from vmwright.plan.own_files import mark

READY = replace(DEBIAN, tools=(*DEBIAN.tools, "update-initramfs"))
DRACUT = replace(DEBIAN, tools=("dnf", "grubby", "dracut"))
EVERY = (ASIDE_LIST, INITRAMFS_HOOK, INITRAMFS_SCRIPT, INITRAMFS_BLOCK)
ONE = f"{{nvme-1: {{serial: {FIRST}}}}}"
CLOUD = cloud().name
LIST = mark(CLOUD) + f"nvme-1 0000:05:00.0 144d:a80a nvme {FIRST}\n"


def plan(devices: str, host: HostFacts, platform: PlatformFacts = READY, more: str = "") -> Plan:
    return planned(file(devices, more=more), replace(host, platform=platform))


def writing(found: Plan) -> WriteFiles:
    """What is written so that devices are set aside."""
    assert not found.refused
    (action,) = (action for action in found.actions if isinstance(action, WriteFiles))
    return action


def nothing(found: Plan) -> bool:
    """Whether no file is written or removed."""
    return not any(isinstance(action, WriteFiles) for action in found.actions)


def after(action: WriteFiles, platform: PlatformFacts = READY) -> PlatformFacts:
    """The host when that has been done."""
    return replace(platform, files=tuple(FileFacts(file.path, file.text, file.text) for file in action.files))


def test_a_drive_is_known_by_its_own_serial() -> None:
    action = writing(plan(ONE, server()))
    texts = {file.path: file.text for file in action.files}
    assert texts[ASIDE_LIST] == LIST
    assert list(texts) == [ASIDE_LIST, INITRAMFS_HOOK, INITRAMFS_SCRIPT, INITRAMFS_BLOCK]
    assert [file.mode for file in action.files] == [None, 0o755, 0o755, 0o755]
    assert action.after == (("update-initramfs", "-u", "-k", "all"),)
    assert not isinstance(action, PrepareFiles), "nothing of the plan waits for it"


def test_then_there_is_nothing_to_do() -> None:
    done = after(writing(plan(ONE, server())))
    assert nothing(plan(ONE, server(), done))
    booted = device(server(), "0000:05:00.0", driver="vfio-pci", former="nvme", blocks=())
    assert nothing(plan(ONE, booted, done)), "as it is after a boot"


def test_the_other_family_has_dracut() -> None:
    action = writing(plan(ONE, server(), DRACUT))
    assert [file.path for file in action.files] == [ASIDE_LIST, *DRACUT_FILES]
    assert action.after == (("dracut", "--force", "--regenerate-all"),)


def test_where_neither_is_there_the_vms_take_them() -> None:
    found = plan(ONE, server(), DEBIAN)
    assert nothing(found)
    assert "devices at boot" in {kept.object for kept in found.kept}


def test_a_drive_that_is_out_of_its_slot_stays_in_the_list() -> None:
    done = after(writing(plan(ONE, server())))
    gone = replace(server(), devices=tuple(d for d in server().devices if d.address != "0000:05:00.0"))
    assert nothing(plan(ONE, gone, done))


def test_one_that_moved_is_listed_where_it_is() -> None:
    done = after(writing(plan(ONE, server())))
    moved = device(device(server(), "0000:05:00.0", serial="OTHER"), "0000:08:00.0", serial=FIRST)
    action = writing(plan(ONE, moved, done))
    assert [entry.address for entry in aside.parse_list(action.files[0].text)] == ["0000:08:00.0"]
    assert [file.path for file in action.files] == [ASIDE_LIST]


def test_what_the_host_needs_is_not_taken() -> None:
    """Whatever the file says: the drive that it runs from is never listed."""
    used = device(server(), "0000:05:00.0", uses=(UseFacts(Use.MOUNT, "/dev/nvme0n1p2", "/"),))
    found = plan(ONE, used)
    assert nothing(found)
    assert found.warnings == ("host here: device nvme-1 (05:00.0) is not set aside at boot, for it is in use by the "
                              "host: /dev/nvme0n1p2 is mounted at /",)


def test_what_has_no_serial_is_taken_only_when_it_can_do_no_harm() -> None:
    """A card for graphics is known by its place and what it is; a network card of the host's might be there next."""
    card = f"{{gpu: {{address: '{GPU}'}}}}"
    (entry,) = aside.parse_list(writing(plan(card, server())).files[0].text)
    assert (entry.address, entry.serial) == (GPU, None)
    network = device(server(), GPU, kind="020000")
    found = plan(card, network)
    assert nothing(found)
    assert any("it has no serial to be known by" in kept.why for kept in found.kept)


def test_with_the_iommu_to_come_it_is_done_before_the_reboot() -> None:
    host = replace(server(), iommu=IommuFacts(False, "DMAR"))
    found = plan(ONE, host, more="iommu: true, connect: 'ssh://root@h'")
    action = writing(found)
    assert isinstance(action, PrepareFiles)
    (boot,) = (action for action in found.actions if isinstance(action, Reboot))
    assert action.id in boot.needs


def test_another_clouds_list_is_left_alone() -> None:
    theirs = LIST.replace(f"cloud {CLOUD};", "cloud other;")
    found = plan(ONE, server(), replace(READY, files=(FileFacts(ASIDE_LIST, theirs, theirs),)))
    assert [problem.what for problem in found.refused] == [
        f"host here: its devices at boot are set by cloud other, in {ASIDE_LIST}"]


def test_changed_by_hand_it_is_shown() -> None:
    there = FileFacts(ASIDE_LIST, LIST + "more 0000:09:00.0 144d:a80a nvme X\n", LIST)
    found = plan(ONE, server(), replace(READY, files=(there,)))
    assert nothing(found)
    (problem,) = found.refused
    assert problem.what.startswith(f"host here: {ASIDE_LIST} was changed by hand:\n    @@ -2,0 +3 @@\n    +more 0000:")


def test_it_goes_when_the_file_sets_nothing_aside() -> None:
    done = after(writing(plan(ONE, server())))
    action = writing(plan("{}", server(), done))
    assert action.remove == EVERY
    assert action.after == (("update-initramfs", "-u", "-k", "all"),)


def test_the_file_can_leave_it_to_the_start_of_the_vms() -> None:
    off = "devices_at_boot: false"
    assert nothing(plan(ONE, server(), more=off))
    done = after(writing(plan(ONE, server())))
    assert writing(plan(ONE, server(), done, more=off)).remove == EVERY


def test_what_was_not_set_aside_is_told() -> None:
    host = replace(server(), not_aside=(("nvme-1", f"no drive has the serial {FIRST}"), ("others", "x")))
    done = after(writing(plan(ONE, server())))
    assert plan(ONE, host, done).warnings == (
        f"host here: device nvme-1 was not set aside when it booted: no drive has the serial {FIRST}",)


def test_a_list_is_read_as_it_is_written() -> None:
    entries = (Entry("a", "0000:01:00.0", "8086:1", "ice", "90-e2-ba-ff-ff-01-02-03"),
               Entry("b", "0000:02:00.0", "1:2"),
               Entry("c", "0000:03:00.0", "144d:a80a", "nvme", "SERIAL OF 3 WORDS"))
    assert aside.parse_list(aside.list_text(mark("lab"), entries)) == entries
    assert written_note(ASIDE_LIST).endswith(ASIDE_LIST)


def test_what_the_boot_waits_for_is_not_taken() -> None:
    """It was unmounted for now; without its line in fstab gone, the next boot would wait for it in vain."""
    host = server()
    path = next(block.path for block in host.blocks if block.path in next(
        device for device in host.devices if device.address == "0000:05:00.0").blocks)
    found = plan(ONE, replace(host, fstab=((path, "/srv"),)))
    assert nothing(found)
    assert found.warnings == (f"host here: device nvme-1 (05:00.0) is not set aside at boot, for it is in use by the "
                              f"host: {path} is to be mounted at /srv (/etc/fstab)",)
