"""What refers to what: hosts, pools, networks, users, templates, devices; and what two hosts have to say."""
# ruff: noqa: E501 (a row of a table is one line, with the whole message)

from __future__ import annotations

import pytest

from vmwright.spec.cloud import Content

from .conftest import Desk

TWO = """\
cloud: test
hosts:
  h1: {connect: ssh://root@10.9.0.1, pools: {fast: {dir: /a}, big: {dir: /b}}, devices: {gpu: {address: "82:00.0"}, n1: {serial: S1}}}
  h2: {pools: {fast: {dir: /a}}}
networks: {lan: {bridge: br0, subnet: 10.0.0.0/24}, dmz: {nat: 10.1.0.0/24}}
users: {amy: {password_hash_file: ./hash}, bob: {password_hash_file: ./hash}}
templates: {base: {build: debian, disk: 4G}, tied: {build: debian, host: h1, disk: 4G}, kept: {build: debian, pool: fast, disk: 4G}}
"""


@pytest.mark.parametrize(
    ("vm", "message"),
    [
        ("host: h1, pool: fast", "vms.a: says no template\n    write template: here or in defaults; there is: base, tied, kept"),
        ("template: bas, host: h1, pool: fast", "vms.a.template: there is no template 'bas'\n    did you mean base?"),
        ("template: base, pool: fast", "vms.a: which host?\n    write host: h1 or h2, here or in defaults"),
        ("template: base, host: h3, pool: fast", "vms.a.host: there is no host 'h3'\n    there is: h1, h2"),
        ("template: base, host: h1", "vms.a: which pool?\n    write pool: fast or big, here or in defaults"),
        ("template: base, host: h2, pool: big", "vms.a.pool: there is no pool on host h2 named 'big'\n    there is: fast"),
        ("template: base, host: h2, disks: {d: {size: 1G, pool: big}}", "vms.a.disks.d.pool: there is no pool on host h2 named 'big'"),
        ("template: tied, host: h2", "vms.a.template: template tied is kept on host h1 (at cloud.yaml:7:46) only, and this VM is on h2\n    leave host: out of the template, or move the VM"),
        ("template: base, host: h2, users: [amy, bobb]", "vms.a.users.1: there is no user 'bobb'\n    did you mean bob?"),
        ("template: base, host: h2, network: lann", "vms.a.network: there is no network 'lann'\n    did you mean lan?"),
        ("template: base, host: h2, nics: [{network: lann}]", "vms.a.nics.0.network: there is no network 'lann'"),
        ("template: base, host: h1, pool: big, devices: [gpuu]", "vms.a.devices.0: there is no device on host h1 named 'gpuu'\n    did you mean gpu?"),
        ("template: base, host: h2, devices: [gpu]", "vms.a.devices.0: there is no device on host h2 named 'gpu'"),
        ("template: base, host: h1, pool: big, devices: [{gpu: burn}]", "vms.a.devices.0: a device is a name, or a name with what a rebuild does to its data\n    write NAME, or {NAME: keep}"),
    ],
)  # fmt: skip
def test_wrong_reference(desk: Desk, vm: str, message: str) -> None:
    desk.write("$6$salt$hash\n", "hash")
    network = "" if "network" in vm else ", network: lan"
    (problem,) = desk.problems(f"{TWO}vms: {{a: {{{vm}{network}}}}}\n")
    assert problem.partition(": ")[2].startswith(message)


def test_which_network(desk: Desk) -> None:
    desk.write("$6$salt$hash\n", "hash")
    assert desk.problems(f"{TWO}vms: {{a: {{template: base, host: h2}}}}\n") == [
        "cloud.yaml:8:7: vms.a: which network?\n    write network: lan or dmz, here or in defaults"
    ]


def test_devices_set_aside(desk: Desk) -> None:
    cloud = desk.load("""cloud: lab
        hosts: {h: {iommu: true, devices: {gpu: {address: "82:00.0"}, n1: {serial: S1}, n2: {serial: 7, address: "0000:0B:00.0"}}}}
        """.replace("        ", ""))
    assert [(d.name, d.serial, d.address, d.where and (d.where.line, d.where.column)) for d in cloud.hosts[0].devices] == [
        ("gpu", None, "0000:82:00.0", (2, 36)), ("n1", "S1", None, (2, 63)), ("n2", "7", "0000:0b:00.0", (2, 81))]
    assert cloud.not_yet == ()
    assert cloud.hosts[0].iommu and str(cloud.hosts[0].keys["iommu"]).endswith("cloud.yaml:2:13")


def test_a_device_for_two(desk: Desk) -> None:
    desk.write("$6$salt$hash\n", "hash")
    problems = desk.problems(f"""{TWO}
defaults: {{template: base, network: lan, host: h1, pool: big}}
vms:
  a: {{devices: [gpu, {{n1: keep}}]}}
  b: {{devices: gpu}}
  c: {{count: 2, devices: [n1, [n1, gpu]]}}
""")
    assert problems == [
        "cloud.yaml:12:16: vms.b.devices: device gpu is given to b and to a, at cloud.yaml:11:17\n    a device can "
        "belong to one VM only, and once",
        "cloud.yaml:13:27: vms.c.devices.0: device n1 is given to c-1 and to a, at cloud.yaml:11:22\n    a device "
        "can belong to one VM only, and once",
        "cloud.yaml:13:32: vms.c.devices.1.0: device n1 is given to c-2 and to a, at cloud.yaml:11:22\n    a device "
        "can belong to one VM only, and once",
        "cloud.yaml:13:36: vms.c.devices.1.1: device gpu is given to c-2 and to a, at cloud.yaml:11:17\n    a device "
        "can belong to one VM only, and once",
    ]  # fmt: skip
    assert desk.problems(f"""{TWO}
defaults: {{template: base, network: lan, host: h1, pool: big}}
vms: {{a: {{devices: [gpu, gpu]}}}}
""") == ["cloud.yaml:10:26: vms.a.devices.1: device gpu is given to a and to a, at cloud.yaml:10:21\n    a device can "
         "belong to one VM only, and once"]


def test_what_becomes_of_the_data_on_a_device(desk: Desk) -> None:
    desk.write("$6$salt$hash\n", "hash")
    cloud = desk.load(f"""{TWO}
defaults: {{template: base, network: lan, host: h1, pool: big}}
vms:
  a: {{count: 2, devices: [gpu, {{n1: wipe}}]}}
""")
    assert [[(use.device.name, use.content, str(use.where).rpartition("/")[2]) for use in vm.devices]
            for vm in cloud.vms] == [[("gpu", None, "cloud.yaml:11:27")], [("n1", Content.WIPE, "cloud.yaml:11:32")]]


def test_templates_are_made_where_they_are_needed(desk: Desk) -> None:
    desk.write("$6$salt$hash\n", "hash")
    cloud = desk.load(f"""{TWO}
defaults: {{network: lan}}
vms:
  a: {{template: base, host: h1, pool: big}}
  b: {{template: base, host: h1, pool: big}}
  c: {{template: base, host: h1, pool: fast}}
  d: {{template: base, host: h2}}
  e: {{template: tied, pool: big}}
  f: {{template: kept, host: h1, pool: big}}
""")
    assert [(t.name, t.host, t.pool) for t in cloud.templates] == [
        ("base", "h1", "big"), ("base", "h1", "fast"), ("base", "h2", "fast"), ("tied", "h1", "big"), ("kept", "h1", "fast")
    ]  # fmt: skip
    assert len({t.version for t in cloud.templates if t.name == "base"}) == 1
    assert [(vm.host, vm.pool) for vm in cloud.vms][3:] == [("h2", "fast"), ("h1", "big"), ("h1", "big")]
    assert [user.name for user in cloud.vms[0].guest.users] == ["amy", "bob"]


def test_the_same_machine_twice(desk: Desk) -> None:
    assert desk.problems("cloud: t\nhosts: {a: {connect: ssh://r@h}, b: {connect: ssh://r@h}}\n") == [
        "cloud.yaml:2:47: hosts.b.connect: ssh://r@h is given twice: also at cloud.yaml:2:22\n    these are the same "
        "machine: keep one"
    ]


def test_what_is_wrong_itself_is_no_wrong_reference(desk: Desk) -> None:
    """A network or template that is refused is told of once, where it stands, not again at every VM that uses it."""
    assert desk.problems("""\
        cloud: test
        hosts: {h: {pools: {p: {dir: nowhere}}, accelerator: 5}}
        networks: {lan: {bridge: br0, subnet: 10.0.0.0/40}}
        templates: {base: {build: 3, disk: 4G}}
        users: {amy: {sudo: 7}}
        vms:
          a: {template: base, network: lan, address: 10.0.0.4, users: [amy], host: h, pool: p, disk: 1G}
          b: {template: , host: , network: , pool: }
        """) == [
        "cloud.yaml:2:30: hosts.h.pools.p.dir: 'nowhere' is not an absolute path (from /, without . and ..)",
        "cloud.yaml:2:54: hosts.h.accelerator: auto or kvm or qemu is needed, not the number 5",
        "cloud.yaml:3:39: networks.lan.subnet: '10.0.0.0/40': '40' is not a prefix\n    write a number from 0 to 32",
        "cloud.yaml:4:27: templates.base.build: debian is needed, not the number 3",
        "cloud.yaml:5:21: users.amy.sudo: nopasswd or password or none is needed, not the number 7",
        *(f"cloud.yaml:8:{column}: vms.b.{key}: has no value\n    give it one, or leave the key out"
          for column, key in ((7, "template"), (19, "host"), (27, "network"), (38, "pool"))),
    ]  # fmt: skip


def test_not_yet(desk: Desk) -> None:
    cloud = desk.load("""\
        cloud: test
        hosts: {h: {iommu: false, pools: {vg: {lvm: vg0, thin: true}, d: {dir: /d}}, devices: {n: {serial: S}}}}
        templates: {base: {build: debian}}
        vms:
          a: {template: base, pool: d, pin: auto, autostart: {order: 1, healthy: agent}, devices: [{n: wipe}]}
          b: {template: base, pool: vg, autostart: true}
        """)
    assert [(note.key, str(note.where).rpartition("/")[2]) for note in cloud.not_yet] == [
        ("vms.a.pin: auto", "cloud.yaml:5:32"),
    ]  # fmt: skip
    assert [(pool.name, pool.path) for pool in cloud.pools] == [("vg", "/dev/vg0"), ("d", "/d")]
