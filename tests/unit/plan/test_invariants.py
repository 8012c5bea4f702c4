"""What holds for every plan: carried out, nothing is left to do; cut off anywhere, it converges and loses nothing."""

from __future__ import annotations

import copy
import posixpath
from collections.abc import Iterator
from functools import cache

from hypothesis import event, given
from hypothesis import strategies as st
from tests.unit.plan.build import told
from tests.unit.plan.clouds import NAMES, files
from tests.unit.plan.places import small
from tests.unit.plan.simulate import Defined, Image, Killed, Listed, Machine, all_facts, carry_out, clone, use

from vmwright.boot.files import LINK_PATH, SCRIPT_PATH, UNIT_PATH, parse_list
from vmwright.facts.model import Facts
from vmwright.names import HOST_STATE, parse_volume, start_list
from vmwright.plan.actions import Plan
from vmwright.plan.diff import make_destroy_plan, make_plan, make_rebuild_plan
from vmwright.plan.order import order
from vmwright.plan.view import Request
from vmwright.spec.cloud import Cloud
from vmwright.spec.load import load_with
from vmwright.units import GIB

STRANGE = """\
<domain type="kvm"><name>{name}</name><uuid>6f0a6a24-7a5b-4b6c-9d2a-1f5b0c7d8e9f</uuid><memory>1048576</memory>
<vcpu>1</vcpu><os><type>hvm</type></os><devices><disk type="file"><source file="/srv/images/{name}.qcow2"/>
<target dev="vda"/></disk></devices></domain>"""


@cache
def read(text: str) -> Cloud:
    """The cloud of a file."""
    return load_with("cloud.yaml", lambda path: text.encode())


def strangers(machine: Machine) -> Machine:
    """The same machine, with things on it that are none of our business."""
    machine.domains["nextcloud"] = Defined(STRANGE.format(name="nextcloud"), autostart=True)
    machine.files["/srv/images/nextcloud.qcow2"] = Image(1 << 30, used=True)
    machine.files["/srv/images/other.alpha.root.qcow2"] = Image(1 << 30, used=True)
    machine.files["/srv/images/lab.alpha.root.qcow2.old"] = Image(1 << 30, used=True)
    machine.networks["default"] = Listed(
        "<network><name>default</name><forward mode='nat'/><ip address='192.168.122.1' prefix='24'/></network>")
    return machine


def of_strangers(machine: Machine) -> tuple[object, ...]:
    """What is not ours, to be compared."""
    files = {path: file for path, file in machine.files.items()
             if not path.startswith((HOST_STATE, UNIT_PATH, LINK_PATH, SCRIPT_PATH))
             and not posixpath.basename(path).startswith(("lab.", ".lab."))}
    files["old"] = machine.files["/srv/images/lab.alpha.root.qcow2.old"]
    return copy.deepcopy((machine.domains["nextcloud"], machine.networks["default"], files))


def settled(text: str, off: frozenset[str] = frozenset()) -> Machine:
    """A machine with strangers on which that file has been applied some time ago; some VMs have been stopped since."""
    machine, cloud = strangers(small(2, 2, nodes=2, memory=32 * GIB, pages=4096, large=4)), read(text)
    assert not carry_out(make_plan(cloud, all_facts(cloud, machine)), cloud, machine)
    use(machine)
    for name in off & machine.domains.keys():
        machine.domains[name].live = None
    return machine


def well_formed(plan: Plan) -> None:
    """Ids are unique; each action comes after all it needs; every action and everything left alone says why."""
    seen: set[str] = set()
    ids = [action.id for action in plan.actions]
    assert len(set(ids)) == len(ids)
    for action in plan.actions:
        assert not (set(action.needs) & set(ids)) - seen, f"{action.id} comes before what it needs"
        seen.add(action.id)
        assert action.why and action.object and action.verb
        assert "nextcloud" not in f"{action}" and "other.alpha" not in f"{action}", action
    assert all(kept.why and kept.object for kept in (*plan.kept, *plan.unlisted))
    assert all(problem.what and problem.todo for problem in plan.refused)
    assert order(plan.actions) == plan.actions


def planned(cloud: Cloud, machine: Machine, request: Request | None = None) -> Plan:
    """The plan, twice: it is the same both times, and what it was made from is not changed by it."""
    facts = all_facts(cloud, machine)
    before = (copy.deepcopy(cloud), copy.deepcopy(facts))
    plan = make_plan(cloud, facts, request)
    assert make_plan(*before, request) == plan
    assert (cloud, facts) == before
    well_formed(plan)
    return plan


def orphans(cloud: Cloud, machine: Machine) -> Iterator[str]:
    """Notes, work directories, and volumes of ours that belong to nothing."""
    listed = {vm.name for vm in cloud.vms} | machine.domains.keys()
    wanted = {(template.name, template.version) for template in cloud.templates}
    bases = {image.backing for image in machine.images().values()}
    for path in machine.files:
        name = posixpath.basename(path)
        if path == start_list("lab"):
            if not any(vm.start_order.said for vm in cloud.vms):
                yield path
        elif path.startswith(HOST_STATE):
            if "/templates/" not in path:
                yield path
        elif name.startswith(".lab."):
            yield path
        elif (ours := parse_volume(name)) and ours.cloud == "lab":
            if ours.role == "template":
                if (ours.object, ours.detail) not in wanted and path not in bases:
                    yield path
            elif ours.object not in listed:
                yield path


def is_as_the_file_says(cloud: Cloud, machine: Machine) -> None:
    """Every VM of the file is there, on if it should be, and starts with the host by one thing if it should."""
    text = machine.files.get(start_list(cloud.name), b"")
    assert isinstance(text, bytes)
    listed = [row.name for row in parse_list(text.decode())]
    assert listed or UNIT_PATH not in machine.files
    for vm in cloud.vms:
        assert vm.name in machine.domains
        assert not vm.running or machine.domains[vm.name].live
        assert machine.domains[vm.name].autostart + listed.count(vm.name) == vm.autostart


requests = st.builds(Request, restart=st.booleans(), prune=st.booleans())
subsets = st.frozensets(st.sampled_from(NAMES))


@given(files(), files(later=True), requests, subsets)
def test_a_plan_carried_out_leaves_nothing_to_do(first: str, second: str, request: Request,
                                                 off: frozenset[str]) -> None:
    machine, cloud = settled(first, off), read(second)
    others = of_strangers(machine)
    plan = planned(cloud, machine, request)
    if plan.refused:
        event(f"refused: {plan.refused[0].what.split(':')[0].split(' ')[0]}")
        return
    assert not carry_out(plan, cloud, machine)
    again = planned(cloud, machine, request)
    assert not again.actions and not again.refused, told(again)
    is_as_the_file_says(cloud, machine)
    assert of_strangers(machine) == others
    if request.prune:
        assert not again.unlisted or all("disk" in kept.object for kept in again.unlisted), again.unlisted
        assert not list(orphans(cloud, machine))
    if request.restart:
        assert not any("next start" in kept.why for kept in again.kept)
    event(f"{min(len(plan.actions), 9)} actions")


@given(files(), files(later=True), requests, subsets, subsets, st.data())
def test_cut_off_anywhere_it_converges(first: str, second: str, request: Request, off: frozenset[str],
                                       asked: frozenset[str], data: st.DataObject) -> None:
    """Killed after any step of an apply, a rebuild or a destroy, then again, then left alone: as the file says."""
    machine, cloud = settled(first, off), read(second)
    others = of_strangers(machine)
    facts = all_facts(cloud, machine)
    command = data.draw(st.sampled_from(("apply", "rebuild", "destroy")))
    names = sorted(asked & {vm.name for vm in cloud.vms})
    plan = {"apply": lambda: make_plan(cloud, facts, request),
            "rebuild": lambda: make_rebuild_plan(cloud, facts, names),
            "destroy": lambda: make_destroy_plan(cloud, facts, names)}[command]()
    well_formed(plan)
    if plan.refused:
        event("refused")
        return
    for _ in range(data.draw(st.integers(1, 2))):
        interrupt(plan, cloud, machine, data)
        plan = planned(cloud, machine, request)
        assert not plan.refused, (told(plan), [problem.what for problem in plan.refused])
    assert not carry_out(plan, cloud, machine)
    again = planned(cloud, machine, request)
    assert not again.actions and not again.refused, told(again)
    is_as_the_file_says(cloud, machine)
    assert of_strangers(machine) == others
    gone = {kept.object.removeprefix("vm ") for kept in again.unlisted}
    left = [path for path in orphans(cloud, machine) if not any(name in path for name in gone)]
    assert not [path for path in left if ".template-" not in path], left
    event(f"{command} cut off")


def interrupt(plan: Plan, cloud: Cloud, machine: Machine, data: st.DataObject) -> None:
    """Carry a plan out until some step, where the run is killed, or a step fails.

    A step that fails is undone by the handlers.
    """
    whole = clone(machine)
    whole.steps = 0
    carry_out(plan, cloud, whole)
    machine.fuse = data.draw(st.integers(0, whole.steps), label="steps")
    machine.fails = data.draw(st.booleans(), label="fails")
    try:
        carry_out(plan, cloud, machine)
    except Killed:
        event("killed")
    machine.fuse, machine.dead = None, False


@given(files(), files(later=True), requests)
def test_what_is_ours_on_paper_only_is_left_alone(first: str, second: str, request: Request) -> None:
    """VMs of another cloud, and copies of ours (virt-clone copies our mark): never in an action, never pruned."""
    machine = settled(first)
    for name in list(machine.domains):
        domain = machine.domains[name]
        if name != "nextcloud":
            machine.domains[f"{name}-clone"] = copy.deepcopy(domain)
            persistent = domain.persistent.replace(f"<name>{name}</name>", f"<name>{name}-clone</name>")
            machine.domains[f"{name}-clone"].persistent = persistent
            machine.domains[f"{name}-theirs"] = copy.deepcopy(domain)
            machine.domains[f"{name}-theirs"].persistent = persistent.replace('cloud="lab"', 'cloud="theirs"').replace(
                f"<name>{name}-clone</name>", f"<name>{name}-theirs</name>")
    plan = planned(read(second), machine, request)
    assert not any("-clone" in f"{action}" or "-theirs" in f"{action}" for action in plan.actions)
    assert not any("-clone" in kept.object or "-theirs" in kept.object for kept in plan.unlisted)


@given(files(), subsets)
def test_a_destroy_plan_has_nothing_but_what_was_asked(text: str, names: frozenset[str]) -> None:
    machine, cloud = settled(text), read(text)
    plan = make_destroy_plan(cloud, all_facts(cloud, machine), sorted(names))
    assert {action.object for action in plan.actions} == {f"vm {vm.name}" for vm in cloud.vms if vm.name in names}
    assert not carry_out(plan, cloud, machine)
    remaining = {vm.name for vm in cloud.vms} - names
    assert machine.domains.keys() == remaining | {"nextcloud"}
    roots = {posixpath.basename(path) for path in machine.images() if path.endswith(".root.qcow2")}
    assert roots == {f"lab.{name}.root.qcow2" for name in remaining} | {"other.alpha.root.qcow2"}


@given(files(), files(later=True))
def test_the_order_in_which_libvirt_lists_things_does_not_matter(first: str, second: str) -> None:
    machine, cloud = settled(first), read(second)
    facts = all_facts(cloud, machine)
    host = facts.hosts[0]
    turned = Facts((type(host)(**{**{name: getattr(host, name) for name in host.__dataclass_fields__},
                                  "volumes": host.volumes[::-1], "domains": host.domains[::-1],
                                  "pools": host.pools[::-1], "networks": host.networks[::-1]}),))
    one, other = make_plan(cloud, facts), make_plan(cloud, turned)
    assert {action.id for action in one.actions} == {action.id for action in other.actions}
    assert set(one.refused) == set(other.refused)
