"""Files: the example, includes, what is missing; every problem at once, in file order."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmwright.errors import SpecError, UsageError
from vmwright.rack.shape import REFERENCE
from vmwright.spec.cloud import StartOrder
from vmwright.spec.load import load
from vmwright.spec.model import json_schema
from vmwright.units import GIB

from .conftest import Desk, public_key

EXAMPLE = Path(__file__).parents[3] / "examples" / "zcloud.yaml"
RACK = EXAMPLE.with_name("rack.yaml")


def test_the_racks_example_is_right(desk: Desk) -> None:
    """Its VMs fit the reference shape: CPUs, nodes and drives; the files it names stand beside it in the demo."""
    for name in ("micro.qcow2", "ssh_config"):
        desk.write("", name)
    desk.write(public_key(), "id_ed25519.pub")
    cloud = desk.load(RACK.read_text())
    assert [vm.name for vm in cloud.vms] == ["z-b-data-1", "z-b-data-2", "z-b-data-3", "z-dev"]
    assert [vm.pin.cpus if vm.pin else () for vm in cloud.vms] == [(0, 1), (2, 3), (4, 5), (6, 7)]
    nodes = {drive.serial: drive.node for drive in REFERENCE.nvme}
    each = REFERENCE.cores * REFERENCE.threads
    for vm in cloud.vms[:3]:
        assert vm.pin and {cpu // each for cpu in vm.pin.cpus} == {nodes[str(vm.devices[0].device.serial)]}
    assert [vm.start_order for vm in cloud.vms] == [StartOrder(1, healthy=True, timeout=1800)] * 3 + [
        StartOrder(timeout=1800)]


def test_the_example_is_right() -> None:
    cloud = load(EXAMPLE)
    assert [vm.name for vm in cloud.vms] == ["z-b-data-1", "z-b-data-2", "z-b-data-3", "z-dev"]
    assert [str(vm.nics[0].address) for vm in cloud.vms] == [f"192.168.6.{n}/24" for n in (204, 205, 206, 253)]
    assert {str(vm.nics[0].gateway) for vm in cloud.vms} == {"192.168.6.200"}
    assert {vm.nics[0].dns for vm in cloud.vms} == {("192.168.6.200", "192.168.6.11")}
    assert [(vm.memory, vm.disk, vm.autostart) for vm in cloud.vms[2:]] == [
        (16 * GIB, None, True),
        (4 * GIB, 32 * GIB, False),
    ]
    assert [vm.start_order for vm in cloud.vms[2:]] == [StartOrder(1, healthy=True), StartOrder()]
    assert [(t.name, t.host, t.pool, t.size) for t in cloud.templates] == [
        ("z-ubuntu20", "zcloud", "images_lvm", 6 * GIB), ("z-fedora35", "zcloud", "images_lvm", 6 * GIB)
    ]  # fmt: skip


def test_all_of_the_example_is_applied() -> None:
    assert load(EXAMPLE).not_yet == ()


def test_a_file_of_one_line_per_thing(desk: Desk) -> None:
    cloud = desk.load("cloud: small\ntemplates: {base: {build: debian}}\nvms: {web: {template: base}}\n")
    (host,), (pool,), (network,), (vm,) = cloud.hosts, cloud.pools, cloud.networks, cloud.vms
    assert (host.name, host.connect, host.accelerator) == ("local", "local", "auto")
    assert (pool.name, pool.host, pool.path) == ("default", "local", "/var/lib/libvirt/images")
    assert (network.name, network.nat, str(network.subnet), str(network.gateway)) == (
        "default",
        True,
        "192.168.122.0/24",
        "192.168.122.1",
    )
    assert (vm.host, vm.pool, vm.vcpus, vm.memory, vm.disk, vm.running) == ("local", "default", 1, GIB, None, True)
    assert (vm.nics[0].network, vm.nics[0].address, vm.nics[0].gateway) == ("default", None, None)
    assert cloud.templates[0].size == 10 * GIB
    assert cloud.warnings == (
        f"{desk.root}/cloud.yaml:3:6: vms: the file names no users: nobody can log in to these VMs",
    )
    assert cloud.not_yet == cloud.missing == ()


def test_what_nobody_named_is_not_made_when_nobody_uses_it(desk: Desk) -> None:
    cloud = desk.load("cloud: empty\nhosts: {a: {}}\ntemplates: {base: {build: debian}}\n")
    assert (cloud.pools, cloud.networks, cloud.templates, cloud.vms) == ((), (), (), ())


def test_problems_come_all_at_once_in_file_order(desk: Desk) -> None:
    problems = desk.problems("""\
        cloud: test
        networks: {lan: {bridge: br0, subnet: 10.0.0.0/24}}
        vms:
          web: {template: base, memory: 16GB, address: 10.0.0.7, vcpu: 2}
          db: {template: bas, memory: 16, address: 10.0.0.7}
          db: {template: base}
        templates: {base: {build: debian, disk: 3}}
        """)
    assert problems == [
        "cloud.yaml:4:33: vms.web.memory: 16GB has two meanings\n"
        "    write 16G for 16GiB (2^30); decimal units (10^9) are not used here",
        "cloud.yaml:4:58: vms.web.vcpu: unknown key\n    did you mean vcpus?",
        "cloud.yaml:5:18: vms.db.template: there is no template 'bas'\n    did you mean base?",
        "cloud.yaml:5:31: vms.db.memory: '16' has no unit\n    write K, M, G or T (powers of 1024), like 16G or 16M",
        "cloud.yaml:5:44: vms.db.address: 10.0.0.7 (for db) is used twice: it is web's, at cloud.yaml:4:48",
        "cloud.yaml:6:3: 'db' is given twice; first at cloud.yaml:5:3\n    keep one of them",
        "cloud.yaml:7:41: templates.base.disk: '3' has no unit\n    write K, M, G or T (powers of 1024), like 3G or 3M",
    ]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path / "nothing.yaml")
    assert str(caught.value).startswith(
        f"cannot read {tmp_path}/nothing.yaml: No such file or directory\n  do:  name the file"
    )


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*: Is a directory"):
        load(tmp_path)


def test_includes_are_joined_by_name(desk: Desk) -> None:
    desk.write(
        "networks: {lan: {bridge: br0, subnet: 10.0.0.0/24}}\nvms: {db: {template: base, address: 10.0.0.9}}\n",
        "sub/net.yaml",
    )
    desk.write("include: net.yaml\nusers: {me: {ssh_keys: [./my.pub]}}\ndefaults: {memory: 2G}\n", "sub/more.yaml")
    desk.write(public_key(fill=9), "sub/my.pub")
    cloud = desk.load("""\
        cloud: test
        include: [sub/more.yaml, sub/net.yaml]
        defaults: {vcpus: 2}
        templates: {base: {build: debian}}
        vms: {web: {template: base}}
        """)
    assert [(vm.name, vm.memory, vm.vcpus) for vm in cloud.vms] == [("web", 2 * GIB, 2), ("db", 2 * GIB, 2)]
    assert cloud.vms[0].guest.users[0].ssh_keys == (public_key(fill=9),)  # ./ is beside the file that says it
    assert str(cloud.vms[1].where) == f"{desk.root}/sub/net.yaml:2:7"


def test_a_name_in_two_files(desk: Desk) -> None:
    desk.write("vms: {web: {}}\ncloud: other\ndefaults: {memory: 2G}\n", "more.yaml")
    problems = desk.problems("""\
        cloud: test
        include: [more.yaml]
        defaults: {memory: 1G}
        templates: {base: {build: debian}}
        vms: {web: {template: base}}
        """)
    assert [problem.split("\n")[0] for problem in problems] == [
        "more.yaml:1:7: vms.web is given twice: also at cloud.yaml:5:7",
        "more.yaml:2:1: cloud is given twice: also at cloud.yaml:1:1",
        "more.yaml:3:12: defaults.memory is given twice: also at cloud.yaml:3:12",
    ]


def test_problems_of_all_files_at_once(desk: Desk) -> None:
    desk.write("templates: {base: {build: debian, disks: 4G}}\n", "a.yaml")
    desk.write("vms: {web: {template: base, vcpus: none}}\n", "b.yaml")
    assert [problem.split("\n")[0] for problem in desk.problems("include: [b.yaml, a.yaml]\nclaud: x\n")] == [
        "cloud.yaml:1:1: cloud is missing",
        "cloud.yaml:2:1: claud: unknown key",
        "b.yaml:1:36: vms.web.vcpus: a whole number is needed, not the text 'none'",
        "a.yaml:1:35: templates.base.disks: unknown key",
    ]


def test_include_of_nothing(desk: Desk) -> None:
    assert desk.problems("cloud: x\ninclude: [no/such.yaml]\n") == [
        "cloud.yaml:2:11: include: cannot read no/such.yaml: No such file or directory\n"
        "    a relative path starts at the directory of the file with the include"
    ]


def test_include_of_a_broken_file(desk: Desk) -> None:
    desk.write("vms: [\n", "broken.yaml")
    assert desk.problems("cloud: x\ninclude: [broken.yaml]\n")[0].startswith("broken.yaml:2:1: not valid YAML")


def test_includes_in_a_circle(desk: Desk) -> None:
    desk.write("include: [b.yaml]\n", "a.yaml")
    desk.write("include: [a.yaml]\n", "b.yaml")
    (problem,) = desk.problems("cloud: x\ninclude: [a.yaml]\n")
    assert (
        problem
        == "b.yaml:1:11: include: a.yaml includes itself: a.yaml -> b.yaml -> a.yaml\n    remove one of these includes"
    )


@pytest.mark.parametrize("include", ["{a: b}", "[[a]]", "[3, [4]]"])
def test_include_of_something_else(desk: Desk, include: str) -> None:
    (problem,) = desk.problems(f"cloud: x\ninclude: {include}\n")
    assert "include" in problem and "one value is needed, not" in problem


def test_the_environment_changes_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAME", "secret")
    assert desk.problems("cloud: ${NAME}\n")[0].startswith("cloud.yaml:1:8: cloud: '${NAME}' is not a valid cloud name")


def test_keys_without_a_value(desk: Desk) -> None:
    assert desk.problems("""\
        cloud:
        hosts:
        defaults: {memory: }
        templates: {base: {build: debian}}
        vms:
          web: {template: base, users: [a, ~], disks: {data: }}
          db:
        """) == [
        "cloud.yaml:1:1: cloud: has no value\n    give it one, or leave the key out",
        "cloud.yaml:3:12: defaults.memory: has no value\n    give it one, or leave the key out",
        "cloud.yaml:6:36: vms.web.users.1: has no value\n    give it one, or leave the key out",
        "cloud.yaml:6:48: vms.web.disks.data: has no value\n    give it one, or leave the key out",
        "cloud.yaml:7:3: vms.db: says no template\n    write template: here or in defaults; there is: base",
    ]


def test_every_problem_has_a_place(desk: Desk) -> None:
    with pytest.raises(SpecError) as caught:
        desk.load("vms: {a: {b: 1}, c: 3, d: [], e: {template: 1, count: x}}\nhosts: []\n")
    assert all(problem.where for problem in caught.value.problems)
    assert str(caught.value).endswith("problems in the file")


KEYS = sorted({key for inner in json_schema()["$defs"].values() for key in inner.get("properties", {})})
ODD: list[object] = [
    None, True, 0, 3, -1, "", "x", "10.0.0.4", "10.0.0.0/24", "1G", "52:54:00:00:00:01", "/a", "~/x", "a b", "local",
    "default", "$6$a$b",
    [], {}, [None], [[]], ["a", "b"], {"a": None}, {"size": "1G"}, {"order": 1}, {"dir": "/a"}, {"x": {}},
    [{"network": "a"}],
]  # fmt: skip
THINGS = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(ODD), max_size=5) | st.sampled_from(ODD)
SECTION = st.dictionaries(
    st.sampled_from(["a", "b", "a-1", "default", "B_", "local"]), THINGS, max_size=3
) | st.sampled_from(ODD)
SECTIONS = dict.fromkeys(("hosts", "networks", "users", "templates", "vms"), SECTION)
SPECS = st.fixed_dictionaries({}, optional={**SECTIONS, "cloud": st.sampled_from(ODD), "defaults": THINGS})


@settings(max_examples=400)
@given(SPECS)
def test_whatever_is_written_gives_a_cloud_or_problems_with_places(spec: dict[str, object]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "f.yaml"
        path.write_text(json.dumps(spec) if spec else "{}")
        try:
            cloud = load(path)
        except SpecError as error:
            assert error.problems
            assert all(problem.where and problem.what for problem in error.problems)
            assert len(set(error.problems)) == len(error.problems)
            assert "Input should" not in str(error)  # the model's own words are never shown
        else:
            assert cloud.name
            assert len({vm.name for vm in cloud.vms}) == len(cloud.vms)
