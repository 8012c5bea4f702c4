"""Groups: counted out, lists dealt out one each, and the way back to the file."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vmwright.spec.groups import expand
from vmwright.spec.model import DEALT, VmIn
from vmwright.units import GIB

from .conftest import Desk


def test_lists_are_dealt_out_one_each(desk: Desk) -> None:
    cloud = desk.vms("""\
        vms:
          g:
            count: 3
            template: base
            memory: [1G, 2G, 3G]
            vcpus: [1, 2, 3]
            disk: [5G, 6G, 7G]
            mac: ["52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:03"]
            address: [10.0.0.30, 10.0.0.10, 10.0.0.20]
            protect: [true, false, true]
            running: [true, true, false]
            autostart: [true, false, true]
            timezone: [UTC, Asia/Shanghai, UTC]
            ready_timeout: 7
        """)
    assert [vm.name for vm in cloud.vms] == ["g-1", "g-2", "g-3"]
    assert [vm.memory // GIB for vm in cloud.vms] == [1, 2, 3]
    assert [vm.vcpus for vm in cloud.vms] == [1, 2, 3]
    assert [(vm.disk or 0) // GIB for vm in cloud.vms] == [5, 6, 7]
    assert [vm.nics[0].mac[-2:] for vm in cloud.vms] == ["01", "02", "03"]
    assert [str(vm.nics[0].address) for vm in cloud.vms] == ["10.0.0.30/24", "10.0.0.10/24", "10.0.0.20/24"]
    assert [(vm.protect, vm.running, vm.autostart) for vm in cloud.vms] == [
        (True, True, True), (False, True, False), (True, False, True)
    ]  # fmt: skip
    assert [vm.guest.timezone for vm in cloud.vms] == ["UTC", "Asia/Shanghai", "UTC"]
    assert {vm.ready_timeout for vm in cloud.vms} == {7}
    assert [str(vm.keys["memory"]).rpartition("/")[2] for vm in cloud.vms] == [
        f"cloud.yaml:10:{c}" for c in (14, 18, 22)
    ]


def test_lists_that_belong_to_one_vm_go_to_all(desk: Desk) -> None:
    cloud = desk.vms("""\
        vms:
          g:
            {count: 2, template: base, packages: [a, b], runcmd: [x, y], users: [admin], dns: [1.1.1.1, 9.9.9.9],
             disks: {data: 1G}}
        """)
    for vm in cloud.vms:
        assert (vm.guest.packages, vm.guest.runcmd, vm.nics[0].dns) == (("a", "b"), ("x", "y"), ("1.1.1.1", "9.9.9.9"))
        assert [disk.name for disk in vm.data_disks] == ["data"]


def test_nics_of_a_group(desk: Desk) -> None:
    cloud = desk.vms("""\
        vms:
          g:
            count: 2
            template: base
            nics:
              - {network: lan, address: 10.0.0.10, mac: ["52:54:00:00:00:01", "52:54:00:00:00:02"]}
              - {network: lan, address: [10.0.0.30, 10.0.0.20]}
        """)
    assert [[str(nic.address) for nic in vm.nics] for vm in cloud.vms] == [
        ["10.0.0.10/24", "10.0.0.30/24"], ["10.0.0.11/24", "10.0.0.20/24"]
    ]  # fmt: skip
    assert [vm.nics[0].mac[-1] for vm in cloud.vms] == ["1", "2"]
    assert [[nic.gateway is not None for nic in vm.nics] for vm in cloud.vms] == [[True, False], [True, False]]


def test_a_list_of_the_wrong_length(desk: Desk) -> None:
    assert desk.wrong("""\
        vms:
          g: {count: 3, template: base, memory: [1G, 2G], pin: [0-3], nics: [{mac: ["52:54:00:00:00:01"]}]}
        """) == [
        "cloud.yaml:7:41: vms.g.memory: the list has 2 items, but the group has 3 VMs\n"
        "    give 3, one for each VM, or one value for all",
        "cloud.yaml:7:56: vms.g.pin: the list has 1 item, but the group has 3 VMs\n"
        "    give 3, one for each VM, or one value for all",
        "cloud.yaml:7:76: vms.g.nics.0.mac: the list has 1 item, but the group has 3 VMs\n    give 3, one for each "
        "VM, or one value for all",
    ]


def test_a_wrong_value_of_a_group_is_told_once_and_a_dealt_one_where_it_stands(desk: Desk) -> None:
    assert desk.wrong("vms: {g: {count: 3, template: base, memory: 3GB, vcpus: [1, two, 3], disk: [5G, 1G, 2G]}}") == [
        "cloud.yaml:6:45: vms.g.memory: 3GB has two meanings\n    write 3G for 3GiB (2^30); decimal units (10^9) are "
        "not used here",
        "cloud.yaml:6:61: vms.g.vcpus.1: a whole number is needed, not the text 'two'",
        "cloud.yaml:6:81: vms.g.disk.1: 1G is smaller than the disk of template base, 4G (at cloud.yaml:5:13)\n"
        "    write 4G or more, or leave it out",
        "cloud.yaml:6:85: vms.g.disk.2: 2G is smaller than the disk of template base, 4G (at cloud.yaml:5:13)\n"
        "    write 4G or more, or leave it out",
    ]


def test_a_wrong_default_is_told_once(desk: Desk) -> None:
    assert desk.wrong("defaults: {memory: 3GB, vcpus: 0}\nvms: {a: {template: base}, b: {template: base}}\n") == [
        "cloud.yaml:6:20: defaults.memory: 3GB has two meanings\n    write 3G for 3GiB (2^30); decimal units (10^9) "
        "are not used here",
        "cloud.yaml:6:32: defaults.vcpus: 0 is out of range: it must be at least 1",
    ]


def test_a_name_used_twice_through_a_group(desk: Desk) -> None:
    defaults = "defaults: {template: base}\n"
    assert desk.wrong(f"{defaults}vms: {{x: {{count: 2}}, x-1: , x-2-1: , x-2: {{count: 1}}}}") == [
        "cloud.yaml:7:22: vms.x-1: the name x-1 is used twice: also by x at cloud.yaml:7:7\n"
        "    a group NAME with count: N has the VMs NAME-1 to NAME-N; rename one of the two",
        "cloud.yaml:7:38: vms.x-2: the name x-2-1 is used twice: also by x-2-1 at cloud.yaml:7:29\n"
        "    a group NAME with count: N has the VMs NAME-1 to NAME-N; rename one of the two",
    ]  # fmt: skip


def test_one_mac_for_a_group(desk: Desk) -> None:
    assert desk.wrong('vms: {g: {count: 2, template: base, mac: "52:54:00:00:00:01"}}') == [
        "cloud.yaml:6:42: vms.g.mac: one MAC address for 2 VMs\n    give a list of 2, or leave it out"
    ]


def test_defaults_are_for_all_and_what_a_vm_says_wins(desk: Desk) -> None:
    cloud = desk.vms("""\
        defaults: {template: base, memory: 2G, packages: [a], autostart: true, disks: {data: 1G}, running: false}
        vms:
          {a: , b: {memory: 3G, packages: [b], autostart: false, disks: {other: 2G}, running: true}, c: {packages: []}}
        """)
    assert [vm.memory // GIB for vm in cloud.vms] == [2, 3, 2]
    assert [vm.guest.packages for vm in cloud.vms] == [("a",), ("b",), ()]
    assert [vm.autostart for vm in cloud.vms] == [True, False, True]
    assert [vm.running for vm in cloud.vms] == [False, True, False]
    assert [[disk.name for disk in vm.data_disks] for vm in cloud.vms] == [["data"], ["other"], ["data"]]


def test_dealt_keys_are_keys_of_a_vm() -> None:
    assert {info.alias or name for name, info in VmIn.model_fields.items()} >= DEALT


@given(count=st.integers(1, 12), values=st.data())
def test_counting_out_keeps_order_and_leads_back(count: int, values: st.DataObject) -> None:
    dealt = values.draw(st.lists(st.integers(), min_size=count, max_size=count))
    shared = values.draw(st.integers())
    expansion = expand({"vms": {"g": {"count": count, "vcpus": dealt, "memory": shared, "packages": dealt}}}, {})
    assert expansion.problems == []
    members = [expansion.data["vms"][f"g-{n + 1}"] for n in range(count)]
    assert [member["vcpus"] for member in members] == dealt
    assert all((member["memory"], member["packages"]) == (shared, dealt) for member in members)
    for n in range(count):
        assert expansion.groups.source(("vms", f"g-{n + 1}", "vcpus")) == ("vms", "g", "vcpus", n)
        assert expansion.groups.source(("vms", f"g-{n + 1}", "packages", 0)) == ("vms", "g", "packages", 0)
        assert expansion.groups.source(("vms", f"g-{n + 1}", "cpu")) == ("defaults", "cpu")
