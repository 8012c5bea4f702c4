"""Facts, status and journals as text."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console
from tests.unit.plan.build import cloud, facts, made, plan
from tests.unit.plan.places import small
from tests.unit.plan.simulate import Machine, all_facts

from vmwright.facts.model import BlockFacts, DomainState, Facts, GroupFacts, IntentFacts, Kvm, ThinFacts
from vmwright.plan.action import Action
from vmwright.plan.actions import GrowDisk
from vmwright.plan.diff import make_plan
from vmwright.report.facts import facts_lines
from vmwright.report.log import log_lines, run_line
from vmwright.report.progress import LiveReporter, PlainReporter, reporter, words
from vmwright.report.status import status_data, status_lines, status_table
from vmwright.report.text import host_line, table

TWO = "vms: {web: {template: base, address: 10.0.0.10}, db: {template: base, address: 10.0.0.20, running: false}}\n"


def test_facts_of_a_host() -> None:
    machine = made(cloud(TWO))
    host = replace(machine.facts(cloud(TWO)), intents=(IntentFacts("lab", "db", "boot"),))
    text = "\n".join(str(line) for line in facts_lines(Facts((host,))))
    version = cloud(TWO).templates[0].version
    assert text.splitlines() == [
        "host here: Debian GNU/Linux 12 (bookworm), 8 CPUs, 63G of 64G memory free, guests run KVM",
        "  libvirt 9.0.0, QEMU 7.2.0, kernel 6.1.0, UEFI firmware there",
        "",
        "POOL    TYPE  STATE   WHERE        SIZE  FREE",
        "images  dir   active  /srv/images  500G  500G",
        "",
        "NETWORK  STATE   KIND  BRIDGE  ADDRESS",
        "lan      active  nat           10.0.0.1/24",
        "",
        "VM   STATE     VCPUS  MEMORY  CLOUD  TEMPLATE",
        f"web  running   1      1G      lab    base@{version}",
        f"db   shut off  1      1G      lab    base@{version}",
        "  unfinished: boot of db"]


def test_an_empty_line_between_two_hosts() -> None:
    host = Machine().facts(cloud(TWO))
    one, two = facts_lines(Facts((host,))), facts_lines(Facts((host, host)))
    single = [str(line) for line in one]
    assert [str(line) for line in two] == [*single, "", *single]


def test_volume_groups_and_disks_where_they_were_read() -> None:
    """Not the volumes: those are many, and `LVM2_member` stands for them."""
    thin = ThinFacts("thin", 100 << 30, 1 << 30, 12.6, 3.0)
    host = replace(Machine().facts(cloud(TWO)), groups=(
        GroupFacts("vg-libvirt", 258 << 30, 58 << 30, 4 << 20, ("/dev/sda4",), thin=(thin,)),), blocks=(
        BlockFacts("/dev/sda", 512 << 30, "disk", serial="S1", table="gpt", numa_node=0),
        BlockFacts("/dev/sda3", 1 << 30, "part", ("/dev/sda",), signatures=("swap",), mounts=("[SWAP]",)),
        BlockFacts("/dev/sda4", 258 << 30, "part", ("/dev/sda",), signatures=("LVM2_member",), vg="vg-libvirt"),
        BlockFacts("/dev/mapper/vg--libvirt-a", 6 << 30, "lvm", ("/dev/sda4",))))
    lines = "\n".join(str(line) for line in facts_lines(Facts((host,)))).splitlines()
    assert lines[lines.index("VOLUME GROUP  SIZE  FREE  DISKS      THIN POOLS") - 1:][:8] == [
        "",
        "VOLUME GROUP  SIZE  FREE  DISKS      THIN POOLS",
        "vg-libvirt    258G  58G   /dev/sda4  thin 100G, 13% used",
        "",
        "DISK       KIND  SIZE  NODE  SERIAL  ON IT",
        "/dev/sda   disk  512G  0     S1      gpt",
        "/dev/sda3  part  1G                  swap, [SWAP]",
        "/dev/sda4  part  258G                LVM2_member, in vg-libvirt"]


def test_facts_of_a_bare_host() -> None:
    bare = replace(Machine().facts(cloud(TWO)), emulator=None, uefi=False, kvm=Kvm.BROKEN, kvm_reason="it broke")
    lines = [str(line) for line in facts_lines(Facts((bare,)))]
    assert lines[1:3] == ["  libvirt 9.0.0, QEMU not installed, kernel 6.1.0, UEFI firmware not found",
                          "  KVM: it broke"]


@pytest.mark.parametrize(("kvm", "how"), [(Kvm.WORKS, "KVM"), (Kvm.BROKEN, "emulated: KVM does not work"),
                                          (Kvm.ABSENT, "emulated: no KVM")])
def test_a_host_in_a_line_says_how_guests_run(kvm: Kvm, how: str) -> None:
    assert host_line(Machine(kvm=kvm).facts(cloud(TWO))).endswith(f"guests run {how}")


def rows(text: str, machine: Machine, answers: dict[str, bool]) -> dict[str, dict[str, str]]:
    """The status, by VM."""
    wanted = cloud(text)
    data = status_data(wanted, all_facts(wanted, machine), plan(wanted, machine), answers)
    return {row["vm"]: row for row in data}


def test_status_of_vms_as_the_file_says() -> None:
    found = rows(TWO, made(cloud(TWO)), {"web": True})
    version = cloud(TWO).templates[0].version
    assert found["web"] == {"vm": "web", "host": "here", "state": "running", "health": "ok", "address": "10.0.0.10",
                            "vcpus": "1", "memory": "1G", "placement": "-", "autostart": "-",
                            "template": f"base@{version}", "drift": "-"}
    assert (found["db"]["state"], found["db"]["health"], found["db"]["drift"]) == ("shut off", "-", "-")


def test_status_of_a_vm_that_is_missing_or_silent() -> None:
    assert rows(TWO, made(cloud(TWO)), {})["web"]["health"] == "no agent"
    assert rows(TWO, Machine(), {})["web"] == {
        "vm": "web", "host": "here", "state": "missing", "health": "-", "address": "10.0.0.10", "vcpus": "-",
        "memory": "-", "placement": "-", "autostart": "-", "template": "-", "drift": "create"}


def test_status_says_what_differs() -> None:
    after = ("templates: {base: {build: debian, disk: 4G, packages: [vim]}}\n"
             "vms: {web: {template: base, vcpus: 2, disk: 6G, address: 10.0.0.10}, "
             "db: {template: base, address: 10.0.0.20}}\n")
    found = rows(after, made(cloud(TWO)), {"web": True})
    assert found["web"]["drift"] == "change: vcpus; grow root; older template"
    assert found["db"]["drift"] == "start: state; older template"


def test_status_says_what_waits_for_the_next_start() -> None:
    wanted, machine = cloud(TWO), made(cloud(TWO))
    domain = machine.facts(wanted).domains[0]
    assert domain.live
    lagging = replace(domain, live=replace(domain.live, memory=1 << 29))
    found = facts(wanted, machine, domains=(lagging,))
    row = status_data(wanted, found, make_plan(wanted, found), {"web": True})[0]
    assert (row["drift"], row["memory"]) == ("at next start: memory", "512M")


def test_status_does_not_show_anothers_vm_as_ours() -> None:
    wanted, machine = cloud(TWO), made(cloud(TWO))
    domain = machine.facts(wanted).domains[0]
    theirs = replace(domain, persistent=replace(domain.persistent, owner=None), state=DomainState.RUNNING)
    found = facts(wanted, machine, domains=(theirs,))
    assert status_data(wanted, found, make_plan(wanted, found), {})[0]["state"] == "missing"


def test_status_as_a_table() -> None:
    wanted, machine = cloud(TWO), made(cloud(TWO))
    found = all_facts(wanted, machine)
    lines = str(status_table(wanted, found, make_plan(wanted, found), {"web": True})).splitlines()
    assert lines[0].split() == ["VM", "HOST", "STATE", "HEALTH", "ADDRESS", "VCPUS", "MEMORY", "TEMPLATE", "DRIFT"]
    assert [line.split()[0] for line in lines[1:]] == ["web", "db"]


def test_status_says_what_is_besides_the_file_and_what_stands_in_the_way() -> None:
    """Each apart from the table; nothing is there for what there is not."""
    wanted = cloud(TWO.replace("10.0.0.10", "10.0.0.10, disk: 8G"))
    found = all_facts(wanted, made(wanted))
    head = str(status_table(wanted, found, make_plan(wanted, found), {}))
    assert [str(line) for line in status_lines(wanted, found, make_plan(wanted, found), {})] == [head]
    less = cloud("vms: {web: {template: base, address: 10.0.0.10, disk: 5G}}\n")
    made_plan = make_plan(less, found)
    assert made_plan.unlisted and made_plan.refused
    table_, empty, unlisted, apart, refused = [str(line) for line in status_lines(less, found, made_plan, {})]
    assert (table_.splitlines()[1].split()[0], empty, apart) == ("web", "", "")
    assert unlisted == "vm db: is no longer in the file; `vmwright apply --prune` removes it, with its disks"
    assert refused.startswith("! cloud.yaml:")


def test_a_table_is_as_wide_as_it_needs_to_be() -> None:
    assert str(table(("A", "LONG"), [("1", "x" * 300), ("22", "")])).splitlines() == [
        "A   LONG", f"1   {'x' * 300}", "22"]
    assert str(table(("A", "B"), [])) == "A  B"
    assert str(table(("A",), [("[red]not markup[/red]",)])).splitlines()[1] == "[red]not markup[/red]"


RUN = [
    {"time": "2026-03-01T10:00:00.000+00:00", "event": "begin", "command": "apply", "pid": 1},
    {"time": "2026-03-01T10:00:01.000+00:00", "event": "started", "action": "here/vm-web/change",
     "why": "the file says otherwise", "changes": [["vcpus", "1", "2"], ["disk data", "", "1G"]]},
    {"time": "2026-03-01T10:00:02.000+00:00", "event": "done", "action": "here/vm-web/change", "seconds": 1.0,
     "notes": ["the guest has 2 CPUs online"]},
    {"time": "2026-03-01T10:00:03.000+00:00", "event": "failed", "action": "here/vm-db/create", "error": "no\nroom"},
    {"time": "2026-03-01T10:00:04.000+00:00", "event": "end", "outcome": "ApplyError: 1 failed"}]


def test_a_run_in_a_line() -> None:
    assert run_line(3, RUN).plain == "   3  2026-03-01 10:00:00  apply    1 done, 1 failed"
    assert run_line(3, RUN[:1]).plain == "   3  2026-03-01 10:00:00  apply    nothing done  (cut off: it has no end)"
    assert run_line(3, []).plain == "   3  ?  ?        nothing done  (cut off: it has no end)"


def test_a_run_in_full() -> None:
    assert [line.plain for line in log_lines(RUN)] == [
        "10:00:00  begin       apply",
        "10:00:01  started     here/vm-web/change",
        "             vcpus: 1 -> 2",
        "             disk data: 1G",
        "             the file says otherwise",
        "10:00:02  done        here/vm-web/change",
        "             the guest has 2 CPUs online",
        "10:00:03  failed      here/vm-db/create",
        "             no",
        "             room",
        "10:00:04  end",
        "             ApplyError: 1 failed"]


def test_a_run_that_was_cut_off_says_so() -> None:
    assert [line.plain for line in log_lines([*RUN[:2], {}])][-2:] == [
        "          ?", "This run was cut off: it has no end. Apply again picks up from there."]


def actions() -> tuple[Action, ...]:
    """A change and a growth."""
    after = ("vms: {web: {template: base, vcpus: 2, disk: 6G, address: 10.0.0.10}, "
             "db: {template: base, running: false}}\n")
    return plan(cloud(after), made(cloud(TWO))).actions


def test_progress_for_a_pipe_is_lines() -> None:
    out = io.StringIO()
    change, grow = actions()[:2]
    assert isinstance(grow, GrowDisk)
    with PlainReporter(Console(file=out, markup=False, highlight=False, width=200)) as told:
        told.started(change)
        told.progress(change, "copying  1 MiB", 0.25)
        told.progress(change, "copying  2 MiB", 0.5)  # the same stage: told now and then only
        told.progress(change, "starting", None)
        told.done(change, 1.25, ["a note"])
        told.failed(grow, ValueError("no [room]"))
        told.skipped(grow, "it needs another")
    assert out.getvalue().splitlines() == [
        "  ...  vm web: change", "       vm web: change: copying  1 MiB (25%)", "       vm web: change: starting",
        "  ok   vm web: change (1.2 s)", "       a note", "  FAIL vm web disk root: grow: no [room]",
        "  skip vm web disk root: grow: it needs another"]


def test_progress_on_a_terminal_leaves_what_has_ended() -> None:
    out = io.StringIO()
    change, grow = actions()[:2]
    console = Console(file=out, markup=False, highlight=False, width=100, force_terminal=True)
    with LiveReporter(console) as told:
        told.started(change)
        told.started(grow)
        told.progress(grow, "growing [it]", 0.5)
        told.done(change, 2.0, [])
        told.failed(grow, ValueError("no"))
    assert "ok   vm web: change (2.0 s)" in out.getvalue()
    assert "FAIL vm web disk root: grow: no" in out.getvalue()


def test_the_reporter_fits_the_output() -> None:
    assert type(reporter(Console(file=io.StringIO()))) is PlainReporter
    assert type(reporter(Console(file=io.StringIO(), force_terminal=True))) is LiveReporter
    assert words(actions()[0]) == "vm web: change"


def test_status_says_when_vms_start_with_their_host() -> None:
    wanted = cloud("vms: {web: {template: base}, db: {template: base, autostart: {order: 1, healthy: agent}}, "
                   "log: {template: base, autostart: {order: 2}}, ci: {template: base, autostart: true}}\n")
    found = all_facts(wanted, made(wanted))
    data = status_data(wanted, found, make_plan(wanted, found), {})
    assert [row["autostart"] for row in data] == ["-", "order 1, agent", "order 2", "yes"]
    lines = str(status_table(wanted, found, make_plan(wanted, found), {})).splitlines()
    assert "  AUTOSTART       TEMPLATE" in lines[0] and "  order 1, agent  base@" in lines[2]


def test_status_says_where_vms_run() -> None:
    """The running VM as it is; what differs from the file is drift."""
    wanted = cloud("vms: {web: {template: base, pin: 1}, db: {template: base}}\n")
    machine = made(wanted, small(nodes=2))
    moved = cloud("vms: {web: {template: base, pin: 4}, db: {template: base}}\n")
    found = all_facts(wanted, machine)
    data = status_data(moved, found, make_plan(moved, found), {})
    assert [(row["placement"], row["drift"]) for row in data] == [
        ("CPU 1, node 0", "change: CPUs, emulator on, memory on"), ("-", "-")]
    lines = str(status_table(moved, found, make_plan(moved, found), {})).splitlines()
    assert "PLACEMENT" in lines[0] and "CPU 1, node 0" in lines[1]
