"""Doctor: what is judged by what the file asks for: placement, devices, storage, networks, order."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

import pytest
from tests.machines import machines
from tests.unit.doctor.cases import FAIL, NOTE, OK, WARN, WEB, WELL, applied, fine, said, verdicts, wrong
from tests.unit.facts.test_health import recorded
from tests.unit.plan.build import cloud
from tests.unit.plan.places import offline, small
from tests.unit.plan.simulate import Machine

from vmwright.doctor.check import Area, Check
from vmwright.doctor.visit import Visit, reports
from vmwright.facts.denials import Denial
from vmwright.facts.model import (
    DeviceFacts,
    Facts,
    GroupFacts,
    HostFacts,
    IommuFacts,
    Kvm,
    LinkFacts,
    NetworkFacts,
    PlatformFacts,
    PoolFacts,
    ThinFacts,
    WiringFacts,
)
from vmwright.facts.service_model import ServicesFacts
from vmwright.plan.diff import make_plan
from vmwright.spec.cloud import Cloud, HugePages, MasqueradeSpec, ServicesSpec
from vmwright.units import GIB, MIB

ONE = "template: base, memory: 1G, address: 10.0.0.10"


def vm(more: str, *, host: str = "pools: {images: {dir: /srv/images}}", rest: str = "") -> Cloud:
    """A file with one VM, web."""
    return cloud(f"hosts: {{here: {{{host}}}}}\n{rest}vms: {{web: {{{ONE}, {more}}}}}\n")


# -- placement --------------------------------------------------------------------------------------------------------

PINNED = vm("vcpus: 2, pin: {cpus: 0-1, hugepages: false}")


def on(wanted: Cloud, machine: Machine, **changed: Any) -> HostFacts:
    """A host with nodes that is as the file says."""
    return applied(wanted, machine, **changed)


def test_each_node_with_what_is_bound_to_it() -> None:
    host = on(PINNED, small(nodes=2, memory=8 * GIB, pages=512))
    assert fine(Area.PLACEMENT, PINNED, host)[:2] == [
        "node 0: 6G of 8G free, 512 of 512 huge pages of 2M free, 1G bound to it",
        "node 1: 7G of 8G free, 512 of 512 huge pages of 2M free"]


def test_more_than_a_node_has_is_refused_by_the_plan_and_told_once() -> None:
    wanted = cloud("vms: {web: {template: base, memory: 9G, address: 10.0.0.10, vcpus: 2, "
                   "pin: {cpus: 0-1, hugepages: false}}}\n")
    host = replace(small(nodes=2, memory=8 * GIB).facts(wanted), kvm_device_mode="root:kvm 660")
    found = wrong(wanted, host)
    assert [(check.verdict, check.area) for check in found] == [(FAIL, Area.PLACEMENT)], verdicts(found)
    assert found[0].what.startswith("node 0 of host here has 8G of memory, 8064M of it for VMs, and 9G are to be there")
    assert found[0].why == "pinned VMs run there and nowhere else"


def test_a_node_that_has_become_too_small_for_what_runs_on_it() -> None:
    host = on(PINNED, small(nodes=2, memory=8 * GIB))
    less = replace(host, nodes=(replace(host.nodes[0], memory=512 * MIB), host.nodes[1]))
    assert wrong(PINNED, less) == [
        Check(WARN, Area.PLACEMENT, "node 0: 1G of memory are bound to it, and it has 384M for VMs", "they cannot all "
              "run at once: web", "give less `memory:`, say `memory: preferred` in a pin, or pin some to another node")]


def test_a_cpu_that_is_offline() -> None:
    wanted = PINNED
    host = replace(offline(small(nodes=2), 1).facts(wanted), kvm_device_mode="root:kvm 660")
    assert (FAIL, "vm web: pinned to CPU 1, which is offline on host here") in verdicts(wrong(wanted, host))


def test_advice_for_pinned_vms() -> None:
    wanted = vm("vcpus: 2, pin: 0-1")
    host = on(wanted, small(nodes=2, memory=8 * GIB))
    assert wrong(wanted, host, irqbalance=True, quiet=(1, 7), ksm=True) == [
        Check(NOTE, Area.PLACEMENT, "no huge pages for web",
              "pinned VMs with much memory are faster with them (fewer misses of the TLB); the file leaves it open",
              "for 512 of them in all, say `hugepages: {2M: ...}` of the host; or decline in the pin: `hugepages: "
              "false`"),
        Check(NOTE, Area.PLACEMENT, "irqbalance may have CPUs 0 serve the host's interrupts",
              "they are pinned VMs' own: a vCPU waits while its CPU serves an interrupt",
              'IRQBALANCE_BANNED_CPULIST="0-1,7" in /etc/default/irqbalance (Fedora: /etc/sysconfig/irqbalance), then: '
              "systemctl restart irqbalance"),
        Check(NOTE, Area.PLACEMENT, "the kernel merges equal pages of VMs on different NUMA nodes (KSM)",
              "memory that is bound to a node may be read from another one, which is slower",
              "while there is free memory for all that is merged now (pages_sharing there, of 4K): echo 2 > "
              "/sys/kernel/mm/ksm/run; echo 0 > /sys/kernel/mm/ksm/merge_across_nodes; echo 1 > "
              "/sys/kernel/mm/ksm/run (ksmtuned, where it runs, sets the first anew)")]


def test_huge_pages_that_the_file_wants_on_the_host() -> None:
    """They count as if they were there for what is to be made of them."""
    wanted = vm("vcpus: 2, pin: {cpus: 0-1, hugepages: 2M}",
                host="hugepages: {2M: 2048}, pools: {images: {dir: /srv/images}}")
    host = replace(small(nodes=2).facts(wanted), kvm_device_mode="root:kvm 660")
    assert wrong(wanted, host) == [
        Check(WARN, Area.PLACEMENT, "huge pages are not as the file says: node 0, 2M: 0, not 1024; node 1, 2M: 0, not "
              "1024", "the file wants them there: `hugepages:`", "vmwright apply")]
    few = replace(wanted, hosts=(replace(wanted.hosts[0], hugepages=(HugePages(2 * MIB, (1, 2, 3)),)),))
    assert [(check.verdict, check.area) for check in wrong(few, host) if "numbers" in check.what] == [
        (FAIL, Area.PLACEMENT)]


def test_no_advice_where_nothing_is_pinned_or_it_is_followed() -> None:
    assert not wrong(WEB, on(WEB, small(nodes=2)), irqbalance=True, ksm=True)
    host = on(PINNED, small(nodes=2))
    assert "irqbalance keeps interrupts off the CPUs of pinned VMs" in fine(
        Area.PLACEMENT, PINNED, host, irqbalance=True, quiet=(0, 1))


def test_memory_of_all_vms_together() -> None:
    wanted = cloud("vms:\n  a: {template: base, memory: 40G, address: 10.0.0.10}\n"
                   "  b: {template: base, memory: 30G, address: 10.0.0.11, running: true}\n")
    found = wrong(wanted, replace(Machine().facts(wanted), kvm_device_mode="root:kvm 660"))
    assert [(check.verdict, check.area) for check in found] == [(FAIL, Area.MEMORY), (WARN, Area.MEMORY)]
    assert found[1].what == "the VMs that are to run have 70G together, and the host has 64G"
    assert found[1].why == "not all of a, b can run at once"


# -- devices ----------------------------------------------------------------------------------------------------------

DRIVE = DeviceFacts("0000:05:00.0", "144d:a80a", "010802", "Samsung", "nvme", 0, 39, serial="S1")
WITHOUT = "without it no device can be given to web"


def given(more: str = "iommu: true, ") -> Cloud:
    """A file that gives web a drive, and keeps another for nobody."""
    return vm("devices: [nvme-1]", host=f"{more}pools: {{images: {{dir: /srv/images}}}}, devices: {{nvme-1: {{serial: "
              "S1}, spare: {address: '06:00.0'}}")


def server(iommu: IommuFacts | None, *devices: DeviceFacts) -> HostFacts:
    """A host with these devices, on which nothing was made yet."""
    return replace(Machine().facts(WEB), iommu=iommu, devices=devices or (DRIVE,), kvm_device_mode="root:kvm 660")


def of_devices(wanted: Cloud, host: HostFacts, **health: Any) -> list[Check]:
    """What is wrong with them; nothing of the file as a whole may be left to tell."""
    found = wrong(wanted, host, **health)
    assert not [check for check in found if check.area is Area.FILE], "each refusal is told at its host, and once"
    return [check for check in found if check.area is Area.DEVICES and "spare" not in check.what]


ON = IommuFacts(True, "DMAR", ("intel_iommu=on", "iommu=pt"))


def test_devices_that_can_be_given() -> None:
    other = replace(DRIVE, address="0000:06:00.0", group=40, serial="S2", driver=None, numa_node=None)
    assert of_devices(given(), server(ON, DRIVE, other)) == []
    assert fine(Area.DEVICES, given(), server(ON, DRIVE, other)) == [
        "the IOMMU is in use (DMAR; command line: intel_iommu=on iommu=pt)",
        "vfio-pci is there (a module, loaded when it is needed)",
        "device nvme-1 (05:00.0) for web: IOMMU group 39, alone, driver nvme, node 0",
        "device spare (06:00.0), for no VM yet: driver none"]


def test_a_file_without_devices_asks_for_no_iommu() -> None:
    found = said(WEB, server(IommuFacts(False)), vfio="")
    assert not [check for check in found if check.area is Area.DEVICES]


@pytest.mark.parametrize(("more", "iommu", "health", "verdict", "what", "todo"), [
    ("iommu: true, ", IommuFacts(False), {}, FAIL, "the firmware tells of no IOMMU: it has no DMAR and no IVRS table",
     "switch on VT-d (Intel) or AMD-Vi / IOMMU (AMD) in the firmware's set-up, often below Processor or Chipset"),
    ("", IommuFacts(False), {"guest": True}, FAIL, "the firmware tells of no IOMMU: it has no DMAR and no IVRS table",
     "give it a virtual IOMMU where it is defined (libvirt: <iommu model='intel'/>)"),
    ("iommu: true, ", IommuFacts(False, "DMAR"), {}, WARN,
     "the firmware has an IOMMU (DMAR), and the kernel does not use it", "vmwright apply --reboot switches it on"),
    ("", IommuFacts(False, "IVRS", ("iommu=off",)), {}, FAIL,
     "the firmware has an IOMMU (IVRS), and the kernel does not use it; command line: iommu=off",
     "say `iommu: true` for the host: then vmwright apply switches it on, which takes a reboot"),
])
def test_an_iommu_that_is_off(more: str, iommu: IommuFacts, health: dict[str, Any], verdict: Any, what: str,
                              todo: str) -> None:
    found = [check for check in wrong(given(more), server(iommu), **health) if check.area is Area.DEVICES]
    assert found[0] == Check(verdict, Area.DEVICES, what, WITHOUT, todo)


@pytest.mark.parametrize(("health", "what", "todo"), [
    ({"vfio": ""}, "kernel 6.1.0 has no vfio-pci",
     "boot the distribution's kernel for servers: those that are made for virtual machines may lack it"),
    ({"barred": ("blacklist vfio-pci",)}, "vfio-pci may not be loaded: blacklist vfio-pci",
     "take that line out: grep -r vfio /etc/modprobe.d"),
])
def test_a_driver_that_is_not_there(health: dict[str, Any], what: str, todo: str) -> None:
    assert of_devices(given(), server(ON), **health) == [
        Check(FAIL, Area.DEVICES, what, "VMs get devices by that driver", todo)]
    assert not of_devices(given(), server(ON), **{**health, "vfio": "loaded"})


def test_a_device_that_shares_its_group() -> None:
    port = replace(DRIVE, address="0000:05:00.1", serial=None, driver="tg3", kind="020000", peers=(DRIVE.address,))
    found = of_devices(given(), server(ON, replace(DRIVE, peers=(port.address,)), port))
    assert [(check.verdict, check.why) for check in found] == [
        (FAIL, "vmwright apply gives it to nobody as long as that is so")]
    assert found[0].what == ("vm web: device nvme-1 (05:00.0) shares IOMMU group 39 with 05:00.1 (tg3), which would "
                             "stay with the host")
    assert not [words for words in fine(Area.DEVICES, given(), server(ON, replace(DRIVE, peers=(port.address,)), port))
                if "nvme-1" in words]


def test_a_device_that_is_set_aside_and_is_not_there() -> None:
    assert (WARN, "device spare (06:00.0) is not there, as far as can be seen") in verdicts(
        wrong(given(), server(ON)))


# -- storage ----------------------------------------------------------------------------------------------------------

def test_pools_that_are_off_or_full() -> None:
    host = applied(WEB)
    pool = host.pools[0]
    assert wrong(WEB, replace(host, pools=(replace(pool, active=False),)))[0] == Check(
        WARN, Area.STORAGE, "pool images is not active", "its volumes are not seen, nor made",
        "virsh pool-start images, or vmwright apply")
    assert wrong(WEB, replace(host, pools=(replace(pool, available=GIB),))) == [
        Check(WARN, Area.STORAGE, "pool images at /srv/images: only 1G free",
              "VMs whose disks cannot be written stop with an I/O error", "make room there")]


def test_pools_that_the_file_does_not_use_are_not_judged() -> None:
    host = applied(WEB)
    other = PoolFacts("other", "dir", "/other", False, False, 0, 0)
    assert not wrong(WEB, replace(host, pools=(*host.pools, other)))
    assert (WARN, "pool other is not active") in verdicts(wrong(WEB, replace(host, pools=(other,)), file=False))


def in_group(lvm: str) -> Cloud:
    """A file with a pool in a volume group, and no VM."""
    return cloud(f"hosts: {{here: {{pools: {{fast: {{{lvm}}}}}}}}}\nvms: {{}}\ntemplates: {{}}\nnetworks: {{lan: "
                 "{bridge: br0}}\n")


THIN = ThinFacts("thin", 100 * GIB, GIB, 30.0, 5.0, monitored=True)
GROUP = GroupFacts("data", 200 * GIB, 50 * GIB, 4 * MIB, ("/dev/sdb", "/dev/sdc"))


def of_group(lvm: str, group: GroupFacts | None) -> list[Check]:
    wanted = in_group(lvm)
    host = replace(Machine().facts(wanted), kvm_device_mode="root:kvm 660", groups=(group,) if group else ())
    return [check for check in said(wanted, host) if check.area is Area.STORAGE and "templates" not in check.what]


@pytest.mark.parametrize(("lvm", "group", "found"), [
    ("lvm: data", GROUP, [(OK, "volume group data: 50G of 200G free")]),
    ("lvm: data", replace(GROUP, free=GIB), [(WARN, "volume group data: only 1G of 200G free")]),
    ("lvm: data", replace(GROUP, missing=1), [(FAIL, "volume group data: 1 of its 2 disks are missing")]),
    ("lvm: data, disks: [/dev/sdb]", None, [(WARN, "volume group data is not there")]),
    ("lvm: data", None, [(FAIL, "volume group data is not there")]),
    ("lvm: data, thin: true", replace(GROUP, free=0, thin=(THIN,)), [
        (OK, "volume group data: 0B of 200G free"),
        (OK, "thin pool data/thin: 30% of 100G used, 5% of its metadata")]),
    ("lvm: data, thin: true", GROUP, [
        (OK, "volume group data: 50G of 200G free"), (WARN, "volume group data has no thin pool thin")]),
    ("lvm: data, thin: true", replace(GROUP, thin=(replace(THIN, data_percent=80.0),)), [
        (OK, "volume group data: 50G of 200G free"),
        (WARN, "thin pool data/thin: 80% of 100G used, 5% of its metadata")]),
    ("lvm: data, thin: true", replace(GROUP, thin=(replace(THIN, metadata_percent=97.0, zero=False,
                                                           monitored=False),)), [
        (OK, "volume group data: 50G of 200G free"),
        (FAIL, "thin pool data/thin: 30% of 100G used, 97% of its metadata"),
        (FAIL, "thin pool data/thin does not zero new blocks"),
        (WARN, "nothing watches how full thin pool data/thin is")]),
])
def test_volume_groups(lvm: str, group: GroupFacts | None, found: list[tuple[Any, str]]) -> None:
    assert verdicts(of_group(lvm, group)) == found


def test_what_to_do_about_a_full_thin_pool() -> None:
    full = replace(GROUP, thin=(replace(THIN, data_percent=96.0),))
    assert [check.todo for check in of_group("lvm: data, thin: true", full) if check.verdict is FAIL] == [
        "lvextend -L +10G data/thin; or remove VMs, and fstrim in guests"]
    most = replace(GROUP, thin=(replace(THIN, metadata_percent=96.0),))
    assert [check.todo for check in of_group("lvm: data, thin: true", most) if check.verdict is FAIL] == [
        "lvextend --poolmetadatasize +64M data/thin; or remove VMs, and fstrim in guests"]


# -- networks ---------------------------------------------------------------------------------------------------------

BRIDGED = cloud("networks: {lan: {bridge: br0, subnet: 10.9.0.0/24, gateway: 10.9.0.1}}\n"
                "vms: {web: {template: base, vcpus: 1, memory: 1G, address: 10.9.0.10}}\n")
FILTER = (("bridge-nf-call-iptables", 1), ("bridge-nf-call-arptables", 0))


def links(*rows: LinkFacts) -> HostFacts:
    """A host with these interfaces, as the file says but for them."""
    return replace(applied(BRIDGED), links=rows)


BRIDGE, PORT = LinkFacts("br0", "bridge", ("10.9.0.1/24",), True), LinkFacts("eno1", "ethernet", (), True, master="br0")


def test_a_bridge_and_the_gateway_that_the_host_is() -> None:
    assert fine(Area.NETWORK, BRIDGED, links(BRIDGE, PORT)) == [
        "bridge br0 is up, over eno1", "the host forwards, as the gateway of network lan has to",
        "the host's firewall does not filter what goes over bridges"]
    assert verdicts(wrong(BRIDGED, links(BRIDGE, PORT), forwarding=False)) == [
        (WARN, "the host does not forward, and is the gateway of network lan (10.9.0.1)")]
    masked = ServicesSpec(masquerade=MasqueradeSpec("eno2", (IPv4Network("10.9.0.0/24"),)))
    there = replace(links(BRIDGE, PORT, LinkFacts("eno2", "ethernet")), services=ServicesFacts())
    (check,) = wrong(replace(BRIDGED, hosts=(replace(BRIDGED.hosts[0], services=masked),)), there, forwarding=False)
    assert check.todo == "vmwright apply sees to it: `masquerade:`"
    elsewhere = replace(BRIDGE, addresses=("10.9.0.2/24",))
    assert not wrong(BRIDGED, links(elsewhere, PORT), forwarding=False)


def test_bridges_that_are_down_or_none() -> None:
    assert "bridge br0 is up, over no interface: for VMs and the host alone" in fine(
        Area.NETWORK, BRIDGED, links(BRIDGE))
    assert (FAIL, "bridge br0 is down") in verdicts(wrong(BRIDGED, links(replace(BRIDGE, up=False))))
    assert (FAIL, "bridge br0 is not there") in verdicts(wrong(BRIDGED, links(PORT)))
    assert (FAIL, "bridge br0 is a team interface, not a bridge") in verdicts(
        wrong(BRIDGED, links(replace(BRIDGE, kind="team"))))


def test_a_firewall_between_vms() -> None:
    host = links(BRIDGE, PORT)
    assert wrong(BRIDGED, host, filter=FILTER) == [
        Check(WARN, Area.NETWORK, "the host's firewall filters what goes over bridges (bridge-nf-call-iptables)",
              "rules for the host, like Docker's, may keep VMs of lan from each other",
              "vmwright apply sets it off where the host has `bridges:`; by hand: sysctl -w "
              "net.bridge.bridge-nf-call-iptables=0; or say `filter_bridged: true`, if it is meant")]
    assert not wrong(WEB, applied(WEB), filter=FILTER), "it has no bridge"
    meant = replace(BRIDGED, hosts=(replace(BRIDGED.hosts[0], filter_bridged=True),))
    assert not wrong(meant, host, filter=FILTER)


def test_nat_networks() -> None:
    host = applied(WEB)
    assert verdicts(wrong(WEB, host, forwarding=False)) == [
        (FAIL, "the host does not forward, though libvirt switches that on for NAT networks")]
    off = replace(host, networks=(replace(host.networks[0], active=False),))
    assert (WARN, "network lan is not active") in verdicts(wrong(WEB, off, forwarding=False))
    assert fine(Area.NETWORK, WEB, replace(host, networks=())) == ["network lan (NAT 10.0.0.0/24) will be made"]
    named = (NetworkFacts("default", True, True, None, "virbr0", None),)
    assert "network default is active (isolated virbr0)" in [
        check.what for check in said(WEB, replace(host, networks=named), file=False)]


def test_bridges_that_nobody_has_confirmed() -> None:
    host = replace(links(BRIDGE, PORT), wiring=WiringFacts(pending="br0"))
    assert (WARN, "bridges that were made are not confirmed yet: br0") in verdicts(wrong(BRIDGED, host))


# -- security ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("health", "verdict", "what"), [
    ({"apparmor": False}, NOTE, "neither AppArmor nor SELinux confines VMs"),
    ({"apparmor": False, "selinux": "permissive"}, NOTE, "SELinux is permissive: it denies nothing"),
    ({"security_driver": '"none"'}, NOTE, "libvirt is told to confine no VM"),
    ({"apparmor": False, "selinux": "enforcing"}, OK, "SELinux is enforcing"),
    ({}, OK, "AppArmor is on"),
])
def test_what_confines_vms(health: dict[str, Any], verdict: Any, what: str) -> None:
    found = [check for check in said(WEB, applied(WEB), **health) if check.area is Area.SECURITY]
    assert verdicts(found[:1]) == [(verdict, what)]


def test_denials_name_the_vm_and_are_a_few() -> None:
    uuid = "0f6d6a5e-1c2b-4a77-9f3e-0d6f6f1f2a01"
    host = applied(WEB)
    host = replace(host, domains=tuple(replace(domain, uuid=uuid) for domain in host.domains))
    one = Denial("AppArmor", "qemu-system-x86", f"libvirt-{uuid}", "open r", "/data/a.img", 3, 50)
    more = [replace(one, on=f"/data/{name}.img", times=1) for name in "bcde"]
    found = wrong(WEB, host, denials=(one, *more))
    assert verdicts(found) == [
        (WARN, "AppArmor denied qemu-system-x86 (VM web): open r /data/a.img, 3 times"),
        (WARN, "AppArmor denied qemu-system-x86 (VM web): open r /data/b.img"),
        (WARN, "AppArmor denied qemu-system-x86 (VM web): open r /data/c.img"),
        (WARN, "2 more things were denied in the last day")]
    assert found[0].why == "it may be why VM web does not start"
    assert '"/data/a.img" rwk, in /etc/apparmor.d/local/abstractions/libvirt-qemu' in found[0].todo


def test_denials_of_recorded_servers() -> None:
    for name, found in (("fedora", [
            (NOTE, "SELinux would have denied rpc worker (virtqemud_t): getattr open file /srv/other/data.img (var_t)"),
            (WARN, "SELinux denied qemu-kvm (svirt_t): read file web.qcow2 (user_home_t)")]), ("ubuntu2404", [
            (NOTE, "AppArmor would have denied virt-aa-helper: open r /data/vm/"),
            (WARN, "AppArmor denied rpc-libvirtd (libvirtd): capable bpf"),
            (WARN, "AppArmor denied qemu-system-x86 (libvirt-0f6d6a5e-1c2b-4a77-9f3e-0d6f6f1f2a01): open r "
                   "/data/vm/disk 1.qcow2, 2 times")])):
        (report,) = reports(WEB, [Visit("here", "here", applied(WEB), recorded(name))])
        denied = [check for check in report.checks if "denied" in check.what and check.verdict is not OK]
        assert verdicts(denied) == found


# -- the order of VMs -------------------------------------------------------------------------------------------------

NOT_YET = (WARN, "nothing starts VMs in the file's order yet when the host boots")
ORDERED = vm("autostart: {order: 1}")


@pytest.mark.parametrize(("boot", "found"), [
    ({}, [(OK, "VMs start in the file's order when the host boots")]),
    ({"enabled": False}, [NOT_YET]),
    ({"order": None}, [NOT_YET]),
    ({"systemd": False}, [(WARN, "the host does not run systemd: when it boots, VMs start in no order")]),
    ({"guests": "start"}, [
        (OK, "VMs start in the file's order when the host boots"),
        (WARN, "libvirt-guests starts VMs when the host boots, in no order, before vmwright's unit")]),
])
def test_whether_the_order_is_kept(boot: dict[str, Any], found: list[Any]) -> None:
    host = applied(ORDERED)
    host = replace(host, boot=replace(host.boot, **boot))
    assert verdicts([check for check in said(ORDERED, host) if check.area is Area.BOOT]) == found


# -- the file as a whole ----------------------------------------------------------------------------------------------

def test_what_else_a_plan_would_refuse_is_told_of_the_file() -> None:
    host = applied(WEB)
    strange = replace(host, domains=tuple(replace(
        domain, persistent=replace(domain.persistent, owner=None)) for domain in host.domains))
    of_host, of_file = reports(WEB, [Visit("here", "local", strange, WELL)])
    assert of_file.host is None and of_file.address is None
    (check,) = of_file.checks
    assert (check.verdict, check.area, check.why) == (FAIL, Area.FILE, "vmwright apply would refuse it")
    assert check.what.startswith("vm web: host here has a VM of that name already")
    assert str(check.where).startswith("cloud.yaml:")
    assert not [check for check in of_host.checks if check.verdict is FAIL]


def test_recorded_machines_are_judged() -> None:
    """The reference server is too old for the reference cloud, and says so."""
    pool = machines.pool("images_lvm", "vg-libvirt")
    host = replace(machines.facts("zcloud", pool), name="here")
    found = wrong(WEB, host)
    assert "libvirt 6.0.0 is too old for all that may be asked of it: 8.1 is needed" in {
        what for _, what in verdicts(found)}


def broken_group() -> tuple[Cloud, HostFacts]:
    wanted = in_group("lvm: data")
    return wanted, replace(Machine().facts(wanted), groups=(replace(GROUP, missing=1),))


@pytest.mark.parametrize(("wanted", "host"), [
    (given(), server(IommuFacts(False))),
    (given(""), server(IommuFacts(False, "DMAR"))),
    (in_group("lvm: data"), Machine().facts(in_group("lvm: data"))),
    broken_group(),
    (BRIDGED, links(PORT)),
    (WEB, applied(WEB, uefi=False)),
    (WEB, applied(WEB, emulator=None)),
    (WEB, replace(Machine().facts(WEB), libvirt=None, emulator=None, tools=("flock", "setsid", "setpriv"),
                  platform=PlatformFacts("void"))),
    (replace(WEB, hosts=(replace(WEB.hosts[0], accelerator="kvm"),)), applied(WEB, kvm=Kvm.BROKEN, kvm_reason="no")),
])
def test_what_a_check_says_is_not_told_again_of_the_file(wanted: Cloud, host: HostFacts) -> None:
    """A plan refuses each of these, in other words."""
    assert make_plan(wanted, Facts((host,))).refused
    (report,) = reports(wanted, [Visit("here", "local", replace(host, kvm_device_mode="root:kvm 660"), WELL)])
    assert FAIL in {check.verdict for check in report.checks}
