"""Every key takes what it means and refuses the rest, with a sentence and a remedy."""
# ruff: noqa: E501 (a row of a table is one line, with the whole message)

from __future__ import annotations

import pytest

from vmwright.spec.cloud import BuildSource, Copy, Filesystem, Firmware, ImageSource, StartOrder, WriteFile
from vmwright.units import GIB, MIB

from .conftest import Desk, missing


def one(desk: Desk, text: str) -> str:
    """The one problem of this text behind the base, without its remedy."""
    problems = desk.wrong(text)
    assert len(problems) == 1, problems
    return problems[0].removeprefix("cloud.yaml:")


@pytest.mark.parametrize(
    ("vm", "message"),
    [
        ("memory: 16", "6:37: vms.web.memory: '16' has no unit\n    write K, M, G or T (powers of 1024), like 16G or 16M"),
        ("memory: 16GB", "6:37: vms.web.memory: 16GB has two meanings\n    write 16G for 16GiB (2^30); decimal units"),
        ("memory: lots", "6:37: vms.web.memory: 'lots' is not a size\n    write a number with K, M, G or T"),
        ("memory: true", "6:37: vms.web.memory: one value is needed, not true (a yes-or-no value)"),
        ("memory: {a: 1}", "6:37: vms.web.memory: one value is needed, not a mapping"),
        ("memory: 1G 5M", "6:37: vms.web.memory: '1G 5M' is not a size"),
        ("memory: 32M", "6:37: vms.web.memory: 32M of memory is too little for a guest to start\n    write 64M or more"),
        ("memory: 100K", "6:37: vms.web.memory: '100K' is not a whole number of MiB"),
        ("disk: 3G", "6:35: vms.web.disk: 3G is smaller than the disk of template base, 4G (at cloud.yaml:5:13)\n    write 4G or more"),
        ('vcpus: "2"', "6:36: vms.web.vcpus: a whole number is needed, not the text '2'\n    write 2 without quotes"),
        ("vcpus: two", "6:36: vms.web.vcpus: a whole number is needed, not the text 'two'"),
        ("vcpus: 1.5", "6:36: vms.web.vcpus: a whole number is needed, not the text '1.5'"),
        ("vcpus: 0", "6:36: vms.web.vcpus: 0 is out of range: it must be at least 1"),
        ("vcpus: true", "6:36: vms.web.vcpus: a whole number is needed, not true (a yes-or-no value)"),
        ("protect: yes", "6:38: vms.web.protect: true or false is needed, not the text 'yes'\n    write true"),
        ("running: off", "6:38: vms.web.running: true or false is needed, not the text 'off'\n    write false"),
        ("running: 1", "6:38: vms.web.running: true or false is needed, not the number 1"),
        ("firmware: efi", "6:39: vms.web.firmware: 'efi' is not one of uefi, bios\n    did you mean uefi?"),
        ("copy: [full]", "6:35: vms.web.copy: a list, but web is one VM\n    write one value, or make it a group with count:"),
        ("cpu: host passthrough", "6:34: vms.web.cpu: 'host passthrough' has characters that are not allowed here"),
        ("address: 10.0.0", "6:38: vms.web.address: '10.0.0' is not an IPv4 address\n    write four numbers from 0 to 255"),
        ("address: 10.0.0.256", "6:38: vms.web.address: '10.0.0.256' is not an IPv4 address"),
        ("address: fe80::1", "6:38: vms.web.address: 'fe80::1': only IPv4 addresses are understood yet"),
        ("address: 10.0.0.9/33", "6:38: vms.web.address: '10.0.0.9/33': '33' is not a prefix\n    write a number from 0 to 32"),
        ("mac: 52:54:00:12:34", "6:34: vms.web.mac: '52:54:00:12:34' is not a MAC address\n    write six pairs"),
        ("mac: 53:54:00:12:34:56", "6:34: vms.web.mac: 53:54:00:12:34:56 is a multicast address: the first byte must be even"),
        ("mac: 525400123456", "6:34: vms.web.mac: '525400123456' is not a MAC address"),
        ("timezone: Mars!", "6:39: vms.web.timezone: 'Mars!' is not a timezone\n    write AREA/CITY, like Asia/Shanghai, or UTC"),
        ("locale: english", "6:37: vms.web.locale: 'english' is not a locale\n    write one like en_US.UTF-8"),
        ("proxy: proxy:3128", "6:36: vms.web.proxy: 'proxy:3128' is not a URL\n    write http://HOST"),
        ("proxy: http://h:99999", "6:36: vms.web.proxy: 'http://h:99999' is not a URL: its host or port is wrong"),
        ("ntp: [a_b]", "6:35: vms.web.ntp.0: 'a_b' is neither a host name nor an IP address"),
        ("ntp: 10.0.0.300", "6:34: vms.web.ntp: '10.0.0.300' is neither a host name nor an IP address"),
        ("dns: [one.one]", "6:35: vms.web.dns.0: 'one.one' is not an IP address"),
        ("search: [a..b]", "6:38: vms.web.search.0: 'a..b' is not a DNS domain"),
        ("pin: 3-1", "6:34: vms.web.pin: '3-1' is not a CPU list\n    write numbers and ranges, like 0-3,8"),
        ("pin: [0-3, 8]", '6:34: vms.web.pin: a list, but web is one VM\n    write one value, a CPU list like "0-3,8", or make it'),
        ("pin: true", "6:34: vms.web.pin: one value is needed, not true (a yes-or-no value)"),
        ("pin: {emulator: 1}", "6:29: vms.web.pin: cpus is missing\n    add cpus: to it"),
        ("pin: {cpus: [0-3, 8]}", '6:41: vms.web.pin.cpus: a list, but web is one VM\n    write one value, a CPU list like "0-3,8", or make it'),
        ("pin: {cpus: 1, emulator: 9000}", "6:54: vms.web.pin.emulator: '9000': there is no CPU 9000"),
        ("pin: {cpus: 1, memory: local}", "6:52: vms.web.pin.memory: 'local' is not one of strict, preferred"),
        ("pin: {cpus: 1, hugepages: 4K}", "6:55: vms.web.pin.hugepages: true, false, 2M or 1G is needed, not the text '4K'"),
        ("memory: 1537M, pin: {cpus: 1, hugepages: 2M}", "6:70: vms.web.pin.hugepages: 1537M of memory are not whole pages of 2M\n    say `memory: 1.5G or 1538M`"),
        ("memory: 512M, pin: {cpus: 1, hugepages: 1G}", "6:69: vms.web.pin.hugepages: 512M of memory are not whole pages of 1G\n    say `memory: 1G`"),
        ("autostart: maybe", "6:40: vms.web.autostart: keys and values are needed, not the text 'maybe'"),
        ("autostart: {order: -1}", "6:48: vms.web.autostart.order: -1 is out of range: it must be at least 0"),
        ("autostart: {healthy: ping}", "6:50: vms.web.autostart.healthy: 'ping' is not one of agent"),
        ("autostart: {healthy: agent, timeout: 0}", "6:66: vms.web.autostart.timeout: 0 is out of range: it must be at least 1"),
        ("autostart: {order: 1, timeout: 60}", "6:60: vms.web.autostart.timeout: nothing is waited for\n    add healthy: agent, or leave the timeout out"),
        ("ready_timeout: 0", "6:44: vms.web.ready_timeout: 0 is out of range: it must be at least 1"),
        ("count: 1001", "6:36: vms.web.count: 1001 is out of range: it must be at most 1000"),
        ("runcmd: [echo a: b]", "6:38: vms.web.runcmd.0: a command is text or a list of words, not a mapping\n    write a line that holds ': ' in quotes"),
        ("packages: {vim: 1}", "6:39: vms.web.packages: one value is needed, not a mapping"),
        ("disks: [10G]", "6:36: vms.web.disks: keys and values are needed, not a list\n    write {KEY: VALUE}"),
        ("disks: {data: {filesystem: ext4}}", "6:37: vms.web.disks.data: size is missing\n    add size: to it"),
        ("disks: {data: {size: 1G, filesystem: ext3}}", "6:66: vms.web.disks.data.filesystem: 'ext3' is not one of ext4, xfs, btrfs\n    did you mean ext4?"),
        ("disks: {data: {size: 1G, mount: srv}}", "6:61: vms.web.disks.data.mount: 'srv' is not an absolute path"),
        ("disks: {data: {size: 1G, mount: /srv/../etc}}", "6:61: vms.web.disks.data.mount: '/srv/../etc' is not an absolute path"),
        ("disks: {data: {size: 1G, mount: /}}", "6:61: vms.web.disks.data.mount: / is the root disk's\n    choose another directory"),
        ("disks: {a: {size: 1G, mount: /d}, b: {size: 1G, mount: /d/}}", "6:84: vms.web.disks.b.mount: /d is used twice: also by disk a"),
        ("disks: {root: 1G}", "6:37: vms.web.disks.root: 'root' is the name of the root disk"),
        ("disks: {a.b: 1G}", "6:37: vms.web.disks.a.b: 'a.b' is not a valid disk name: lower-case letters, digits and -"),
        ("disks: {abcdefghijklmnopqrstu: 1G}", "6:37: vms.web.disks.abcdefghijklmnopqrstu: 'abcdefghijklmnopqrstu' is not a valid disk name: 21 characters, 20 are allowed"),
        ("write_files: [{path: a, content: x}]", "6:50: vms.web.write_files.0.path: 'a' is not an absolute path"),
        ("write_files: [{path: /a}]", "6:43: vms.web.write_files.0: neither content nor source is given\n    give exactly one of them"),
        ("write_files: [{path: /a, content: x, mode: 888}]", "6:72: vms.web.write_files.0.mode: '888' is not a file mode\n    write octal digits"),
        ("write_files: [{path: /a, content: x, owner: me too}]", "6:73: vms.web.write_files.0.owner: 'me too' has characters"),
        ("nics: [{address: 10.0.0.3, ip: 1}]", "6:56: vms.web.nics.0.ip: unknown key\n    did you mean address?"),
        ("nics: lan", "6:35: vms.web.nics: a list is needed, not the text 'lan'\n    write [ITEM, ITEM]"),
        ("nics: [lan]", "6:36: vms.web.nics.0: keys and values are needed, not the text 'lan'"),
        ("nics: [{}], address: 10.0.0.3", "6:41: vms.web.address: is for a VM with one NIC, and this one has nics\n    move it into the list"),
        ("ram: 3G", "6:29: vms.web.ram: unknown key\n    did you mean memory?"),
        ("vcpu: 3", "6:29: vms.web.vcpu: unknown key\n    did you mean vcpus?"),
        ("mirror: http://x", "6:29: vms.web.mirror: unknown key"),
    ],
)  # fmt: skip
def test_wrong_vm_key(desk: Desk, vm: str, message: str) -> None:
    assert one(desk, f"vms: {{web: {{template: base, {vm}}}}}\n").startswith(message)


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("{connect: root@h}", "2:27: hosts.h.connect: 'root@h' does not say how to reach the host\n    write local or ssh://USER@HOST[:PORT]"),
        ("{connect: ssh://h}", "2:27: hosts.h.connect: 'ssh://h' does not say how to reach the host"),
        ("{connect: 'ssh://a@-oProxy=x'}", "2:27: hosts.h.connect: 'ssh://a@-oProxy=x' does not say how"),
        ("{connect: ssh://a@h:99999}", "2:27: hosts.h.connect: 'ssh://a@h:99999' does not say how"),
        ("{accelerator: kvmm}", "2:31: hosts.h.accelerator: 'kvmm' is not one of auto, kvm, qemu\n    did you mean kvm?"),
        ("{conect: local}", "2:18: hosts.h.conect: unknown key\n    did you mean connect?"),
        ("{pools: {p: /srv}}", "2:29: hosts.h.pools.p: keys and values are needed, not the text '/srv'"),
        ("{pools: {p: {}}}", "2:26: hosts.h.pools.p: neither dir nor lvm is given\n    give exactly one: {dir: /PATH} or {lvm: VOLUME-GROUP}"),
        ("{pools: {p: {dir: /a, lvm: vg}}}", "2:26: hosts.h.pools.p: both dir and lvm are given"),
        ("{pools: {p: {dir: srv}}}", "2:35: hosts.h.pools.p.dir: 'srv' is not an absolute path"),
        ("{pools: {p: {dir: /}}}", "2:35: hosts.h.pools.p.dir: the root directory cannot be a pool"),
        ("{pools: {p: {dir: /a, on_remove: zero}}}", "2:39: hosts.h.pools.p.on_remove: goes with lvm, not with dir"),
        ("{pools: {p: {lvm: vg, on_remove: zeros}}}", "2:50: hosts.h.pools.p.on_remove: 'zeros' is not one of leave, discard, zero"),
        ("{pools: {p: {lvm: vg, thin: true, on_remove: zero}}}", "2:62: hosts.h.pools.p.on_remove: in a thin pool, zeros would take room for all that a volume promises, and leave what it shares with snapshots\n    say discard: the pool zeroes all room before it gives it out again"),
        ("{pools: {p: {dir: /a, thin: true}}}", "2:39: hosts.h.pools.p.thin: goes with lvm, not with dir"),
        ("{pools: {p: {lvm: a/b}}}", "2:35: hosts.h.pools.p.lvm: 'a/b' "),
        ("{pools: {p: {lvm: a}, q: {lvm: a}}}", "2:48: hosts.h.pools.q.lvm: a is given twice: also at cloud.yaml:2:35\n    these are the same volume group"),
        ("{pools: {p: {lvm: a, disks: [/dev/sda4]}, q: {lvm: b, disks: [/dev/sda4]}}}", "2:79: hosts.h.pools.q.disks.0: /dev/sda4 is given twice: also at cloud.yaml:2:46\n    these are the same disk"),
        ("{pools: {p: {lvm: a, disks: [sda4]}}}", "2:46: hosts.h.pools.p.disks.0: 'sda4' is not an absolute path"),
        ("{pools: {p: {lvm: a, thin: {overcommit: 0.5}}}}", "2:57: hosts.h.pools.p.thin"),
        ("{pools: {p: {lvm: a, thin: {sise: 5G}}}}", "2:"),
        ("{pools: {p.q: {dir: /a}}}", "2:26: hosts.h.pools.p.q: 'p.q' is not a valid pool name: letters, digits, _ and -"),
        ("{pools: {p: {dir: /a}, q: {dir: /a/}}}", "2:49: hosts.h.pools.q.dir: /a is given twice: also at cloud.yaml:2:35\n    these are the same directory"),
        ("{devices: {d: {}}}", "2:28: hosts.h.devices.d: neither serial nor address is given"),
        ('{devices: {d: {address: "5:0"}}}', "2:41: hosts.h.devices.d.address: '5:0' is not a PCI address\n    write bus:slot.function"),
        ('{devices: {d: {address: "5:0.0"}, e: {address: "0000:05:00.0"}}}', "2:64: hosts.h.devices.e.address: 0000:05:00.0 is given twice"),
        ("{bridges: {br0: {}}}", "2:28: hosts.h.bridges.br0: nic is missing\n    add nic: to it"),
        ("{bridges: {br0: {nic: eno1, addresses: [10.0.0.1]}}}", "2:57: hosts.h.bridges.br0.addresses.0: '10.0.0.1' lacks the prefix of its subnet\n    write 10.0.0.1/24"),
        ("{bridges: {br0: {nic: eno1, stp: true}}}", "2:50: hosts.h.bridges.br0.stp: with stp the forward_delay is at least 2"),
        ("{bridges: {br0: {nic: a/b}}}", "2:39: hosts.h.bridges.br0.nic: 'a/b' is not a network interface's name"),
        ("{bridges: {br0: {nic: eno1}, br1: {nic: eno1}}}", "2:57: hosts.h.bridges.br1.nic: eno1 is given twice: also at cloud.yaml:2:39"),
        ("{bridges: {br0: {nic: eno1, vlan: 7}, br1: {nic: eno1, vlan: 7}}}", "2:66: hosts.h.bridges.br1.nic: eno1 is given twice"),
        ("{bridges: {br0: {nic: eno1, vlan: 4095}}}", "2:51: hosts.h.bridges.br0.vlan: 4095 is out of range: it must be at most 4094"),
        ("{bridges: {br0: {nic: br1}, br1: {nic: eno1}}}", "2:39: hosts.h.bridges.br0.nic: br1 is a bridge itself"),
        ("{bridges: {br0: {nic: eno1, addresses: [10.0.0.0/24]}}}", "2:57: hosts.h.bridges.br0.addresses.0: 10.0.0.0 is the address of the subnet 10.0.0.0/24 itself"),
        ("{bridges: {br0: {nic: eno1, addresses: [10.0.0.5/24], gateway: 10.0.1.1}}}", "2:80: hosts.h.bridges.br0.gateway: 10.0.1.1 is in no subnet of the bridge's addresses: 10.0.0.0/24"),
        ("{bridges: {br0: {nic: eno1, addresses: [10.0.0.5/24], gateway: 10.0.0.5}}}", "2:80: hosts.h.bridges.br0.gateway: 10.0.0.5 is the host itself"),
        ("{bridges: {br0: {nic: eno1, addresses: [], gateway: 10.0.0.1}}}", "2:69: hosts.h.bridges.br0.gateway: 10.0.0.1 is in no subnet of the bridge's addresses: there are none"),
        ("{bridges: {br0: {nic: eno1, vlan: 5, gateway: 10.0.0.1}}}", "2:63: hosts.h.bridges.br0.gateway: a gateway needs an address of the host in its subnet"),
        ("{bridges: {br0: {nic: eno1, gateway: 10.0.0.1}, br1: {nic: eno2, gateway: 10.0.1.1}}}", "2:91: hosts.h.bridges.br1.gateway: bridge br0 has a default gateway already"),
        ("{bridges: {br0: {nic: eno1, addresses: [10.0.0.5/24]}, br1: {nic: eno2, addresses: [10.0.0.5/16]}}}", "2:101: hosts.h.bridges.br1.addresses.0: 10.0.0.5 is given twice: also at cloud.yaml:2:57"),
        ("{bridges: {br0: {nic: eno1, timeout: 5}}}", "2:54: hosts.h.bridges.br0.timeout: 5 is out of range: it must be at least 20"),
        ("{bridges: {abcdefghijklmnop: {nic: eno1}}}", "2:28: hosts.h.bridges.abcdefghijklmnop: 'abcdefghijklmnop' is not a valid bridge name"),
        ("{hugepages: {3M: 3}}", "2:30: hosts.h.hugepages.3M: '3M' is not one of 2M, 1G"),
        ("{hugepages: {2M: many}}", "2:34: hosts.h.hugepages.2M: a whole number is needed, not the text 'many'"),
        ("{iommu: on}", "2:25: hosts.h.iommu: true or false is needed, not the text 'on'\n    write true"),
    ],
)  # fmt: skip
def test_wrong_host_key(desk: Desk, host: str, message: str) -> None:
    (problem,) = desk.problems(f"cloud: test\nhosts: {{     h: {host}}}\n")
    assert problem.startswith(f"cloud.yaml:{message}")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("{}", "2:12: networks.n: neither bridge nor nat is given\n    give exactly one: bridge: br0, or nat: 192.168.122.0/24"),
        ("{bridge: br0, nat: 10.0.0.0/24}", "2:12: networks.n: both bridge and nat are given"),
        ("{nat: 10.0.0.1/24}", "2:21: networks.n.nat: '10.0.0.1/24' is an address in a subnet: the subnet itself is 10.0.0.0/24"),
        ("{nat: 10.0.0.0}", "2:21: networks.n.nat: '10.0.0.0' lacks the prefix of its subnet\n    write 10.0.0.0/24 or the like"),
        ("{nat: 10.0.0.0/30}", "2:21: networks.n.nat: 10.0.0.0/30 is too small for VMs"),
        ("{nat: true}", "2:21: networks.n.nat: one value is needed, not true"),
        ("{nat: 10.0.0.0/24, subnet: 10.1.0.0/24}", "2:42: networks.n.subnet: 10.1.0.0/24 is not the nat subnet 10.0.0.0/24"),
        ("{bridge: br0, gateway: 10.0.0.1}", "2:38: networks.n.gateway: a gateway needs the subnet it is in"),
        ("{nat: 10.0.0.0/24, gateway: 10.1.0.1}", "2:43: networks.n.gateway: 10.1.0.1 is outside the subnet 10.0.0.0/24"),
        ("{nat: 10.0.0.0/24, gateway: 10.0.0.0}", "2:43: networks.n.gateway: 10.0.0.0 is the address of the subnet 10.0.0.0/24 itself"),
        ("{nat: 10.0.0.0/24, gateway: 10.0.0.255}", "2:43: networks.n.gateway: 10.0.0.255 is the broadcast address of 10.0.0.0/24"),
        ("{bridge: a-very-long-bridge}", "2:24: networks.n.bridge: 'a-very-long-bridge' is not a network interface's name"),
        ("{bridge: br0, proxy: http://me:secret@p:1}", "2:36: networks.n.proxy: the URL holds a user name or password"),
        ("{nat: 10.0.0.0/24}, m: {nat: 10.0.0.0/16}", "2:44: networks.m.nat: 10.0.0.0/16 overlaps with 10.0.0.0/24 of network n at cloud.yaml:2:12"),
        ("{bridge: b, subnet: 10.0.0.0/24}, m: {nat: 10.0.0.0/16}", "2:58: networks.m.nat: 10.0.0.0/16 overlaps with 10.0.0.0/24 of network n"),
        ("{bridge: b}, x y: {bridge: c}", "2:28: networks.x y: 'x y' is not a valid network name"),
    ],
)  # fmt: skip
def test_wrong_network_key(desk: Desk, network: str, message: str) -> None:
    (problem,) = desk.problems(f"cloud: test\nnetworks: {{n: {network}}}\n")
    assert problem.startswith(f"cloud.yaml:{message}")
    assert "secret" not in problem


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{}", "2:13: templates.t: says neither os, nor image, nor build\n    give exactly one: os: debian12"),
        ("{os: debian12, build: debian}", "2:13: templates.t: os and build are given together"),
        ("{os: debain12}", "2:21: templates.t.os: no image is known by the name 'debain12'\n    did you mean debian12"),
        ("{os: 12}", "2:21: templates.t.os: no image is known by the name '12'\n    known: "),
        ("{os: debian12, disk: 1G}", "2:37: templates.t.disk: 1G is smaller than the image of debian12, 2G\n    write 2G or more"),
        ("{os: debian12, release: trixie}", "2:31: templates.t.release: goes with build, not with os"),
        ("{build: debian, sha256: " + "0" * 64 + "}", "2:32: templates.t.sha256: goes with image, not with build"),
        ("{build: debain}", "2:24: templates.t.build: 'debain' is not one of debian\n    did you mean debian?"),
        ("{build: debian, filesystem: btrfs}", "2:44: templates.t.filesystem: 'btrfs' is not one of ext4, xfs"),
        ("{build: debian, release: Big Release}", "2:41: templates.t.release: 'Big Release' has characters that are not allowed"),
        ("{image: disk.qcow2}", "2:24: templates.t.image: 'disk.qcow2' is neither a URL nor a path\n    write ./disk.qcow2 for a file beside this one"),
        ("{image: https://h/x.qcow2}", "2:24: templates.t.image: an image from the network needs its sum\n    add sha256, or sums:"),
        ("{image: ftp://h/x.qcow2}", "2:24: templates.t.image: 'ftp://h/x.qcow2' is not a URL"),
        ("{image: https://h/x, sha256: abc}", "2:45: templates.t.sha256: 'abc' is not a SHA-256 sum: 64 hexadecimal digits are needed, this has 3"),
        ("{image: https://h/x, sums: https://h/s, sha256: " + "a" * 64 + "}", "2:37: templates.t.sums: sha256 and sums are given together"),
        ("{build: debian, host: hre}", "2:38: templates.t.host: there is no host 'hre'\n    there is: local"),
        ("{build: debian, pool: fast}", "2:38: templates.t.pool: there is no pool 'fast'\n    there is: default"),
        ("{build: debian}, T_1: {build: debian}", "2:33: templates.T_1: 'T_1' is not a valid template name: lower-case letters, digits and -, with a letter or digit at both ends\n    write t-1"),
    ],
)  # fmt: skip
def test_wrong_template_key(desk: Desk, template: str, message: str) -> None:
    (problem,) = desk.problems(f"cloud: test\ntemplates: {{t: {template}}}\n")
    assert problem.startswith(f"cloud.yaml:{message}")


def test_names(desk: Desk) -> None:
    long = "a" * 64
    assert [problem.split("\n")[0] for problem in desk.wrong(f"""\
        vms:
          Web: {{template: base}}
          a.b: {{template: base}}
          -x: {{template: base}}
          {long}: {{template: base}}
          {long[:60]}: {{template: base, count: 100}}
          12: {{template: base}}
          localhost: {{template: base}}
        """)] == [
        "cloud.yaml:7:3: vms.Web: 'Web' is not a valid VM name (it is the host name): lower-case letters, digits and "
        "-, with a letter or digit at both ends",
        "cloud.yaml:8:3: vms.a.b: 'a.b' is not a valid VM name (it is the host name): lower-case letters, digits and "
        "-, with a letter or digit at both ends",
        "cloud.yaml:9:3: vms.-x: '-x' is not a valid VM name (it is the host name): lower-case letters, digits and "
        "-, with a letter or digit at both ends",
        f"cloud.yaml:10:3: vms.{long}: '{long}' is not a valid VM name (it is the host name): 64 characters, 63 are "
        "allowed",
        f"cloud.yaml:11:3: vms.{long[:60]}: '{long[:60]}-100' is not a valid VM name: 64 characters, 63 are allowed",
        "cloud.yaml:12:3: vms.12: '12' is not a valid VM name: a number alone would be taken for an address or an id",
        "cloud.yaml:13:3: vms.localhost: 'localhost' is not a valid VM name: every machine calls itself so",
    ]  # fmt: skip


@pytest.mark.parametrize(("said", "starts", "order"), [
    ("autostart: false", False, StartOrder()),
    ("autostart: true, ready_timeout: 60", True, StartOrder(timeout=60)),
    ("autostart: {order: 0}", True, StartOrder(0)),
    ("autostart: {healthy: agent}, ready_timeout: 60", True, StartOrder(None, healthy=True, timeout=60)),
    ("autostart: {healthy: agent}, ready_timeout: 100000", True, StartOrder(None, healthy=True, timeout=86400)),
    ("autostart: {order: 7, healthy: agent, timeout: 5}", True, StartOrder(7, healthy=True, timeout=5)),
])
def test_when_a_vm_starts_with_its_host(desk: Desk, said: str, starts: bool, order: StartOrder) -> None:
    (vm,) = desk.vms(f"vms: {{web: {{template: base, {said}}}}}").vms
    assert (vm.autostart, vm.start_order) == (starts, order)
    assert order.said == (order.order is not None or order.healthy)


def test_everything_a_vm_can_say(desk: Desk) -> None:
    desk.write("token\n", "token")
    cloud = desk.vms("""\
        vms:
          web:
            template: base
            vcpus: 2
            memory: 1.5G
            disk: 20G
            disks: {data: 10GiB, logs: {size: 512M, filesystem: xfs, mount: /var/log/}, db: {size: 1T, mount: /db}}
            address: 10.0.0.7/24
            mac: 52:54:00:AB:CD:EF
            firmware: uefi
            cpu: EPYC
            copy: full
            autostart: true
            protect: true
            running: false
            timezone: Asia/Shanghai
            locale: en_US.UTF-8
            packages: [vim, 7zip]
            write_files:
              - {path: /etc/motd, content: "hello\\n", mode: 0600, owner: "a:b"}
              - {path: /etc/token, source: ./token, append: true}
            runcmd: [echo hi, [sleep, 0.50, 7]]
            ntp: ntp.example.org
            proxy: http://p:3128
            dns: [1.1.1.1, "2606:4700:4700::1111"]
            search: example.org
            ready_timeout: 60
        """)
    (vm,) = cloud.vms
    assert (vm.vcpus, vm.memory, vm.disk) == (2, 1536 * MIB, 20 * GIB)
    assert [(d.name, d.size, d.serial, d.filesystem, d.mount, d.pool) for d in vm.data_disks] == [
        ("data", 10 * GIB, "data", None, None, "images"),
        ("logs", 512 * MIB, "logs", Filesystem.XFS, "/var/log", "images"),
        ("db", 1024 * GIB, "db", Filesystem.EXT4, "/db", "images"),
    ]
    (nic,) = vm.nics
    assert (str(nic.address), nic.mac, str(nic.gateway)) == ("10.0.0.7/24", "52:54:00:ab:cd:ef", "10.0.0.1")
    assert (nic.dns, nic.search) == (("1.1.1.1", "2606:4700:4700::1111"), ("example.org",))
    assert (vm.firmware, vm.cpu, vm.copy) == (Firmware.UEFI, "EPYC", Copy.FULL)
    assert (vm.autostart, vm.protect, vm.running, vm.ready_timeout) == (True, True, False, 60)
    guest = vm.guest
    assert (guest.timezone, guest.locale, guest.packages) == ("Asia/Shanghai", "en_US.UTF-8", ("vim", "7zip"))
    assert guest.write_files == (
        WriteFile("/etc/motd", "hello\n", "0600", "a:b"), WriteFile("/etc/token", "token\n", append=True)
    )  # fmt: skip
    assert guest.runcmd == ("echo hi", ("sleep", "0.50", "7"))
    assert (guest.ntp, guest.proxy, [user.name for user in guest.users]) == (
        ("ntp.example.org",),
        "http://p:3128",
        ["admin"],
    )
    assert str(vm.keys["memory"]).endswith("cloud.yaml:10:13")
    assert str(vm.keys["disks.logs"]).endswith("cloud.yaml:12:32")


def test_templates(desk: Desk) -> None:
    desk.write("image", "disk.qcow2")
    sums, image, digest = "https://h/SHA512SUMS", "https://h/x.qcow2", "a" * 64
    cloud = desk.load(f"""\
        cloud: test
        defaults: {{mirror: http://mirror.example/debian, firmware: bios, disk: 7G}}
        templates:
          built: {{build: debian, release: trixie, filesystem: xfs, packages: [vim]}}
          cloudy: {{os: debian12}}
          local: {{image: ./disk.qcow2, disk: 5G, firmware: uefi}}
          summed: {{image: {image}, sha256: {digest.upper()}}}
          listed: {{image: {image}, sums: {sums}}}
        vms: {{a: {{template: built}}, b: {{template: cloudy}}, c: {{template: local}}, d: {{template: summed}}, e: {{template: listed}}}}
        """)
    sources = {template.name: template.source for template in cloud.templates}
    assert sources["built"] == BuildSource("debian", "trixie", Filesystem.XFS, ("vim",), "http://mirror.example/debian")
    assert isinstance(sources["cloudy"], ImageSource) and sources["cloudy"].os == "debian12"
    assert sources["local"] == ImageSource(f"{desk.root}/disk.qcow2")
    assert sources["summed"] == ImageSource(image, digest)
    assert sources["listed"] == ImageSource(image, None, sums, "sha512")
    assert [(t.size // GIB, t.firmware) for t in cloud.templates] == [
        (7, Firmware.BIOS), (7, Firmware.BIOS), (5, Firmware.UEFI), (7, Firmware.BIOS), (7, Firmware.BIOS)
    ]  # fmt: skip
    assert [vm.firmware for vm in cloud.vms[:3]] == [Firmware.BIOS, Firmware.BIOS, Firmware.UEFI]


def test_an_image_that_is_not_here_is_tolerated(desk: Desk) -> None:
    cloud = desk.load("cloud: test\ntemplates: {t: {image: ./none.qcow2}}\n")
    what = f"{desk.root}/cloud.yaml:2:24: templates.t.image: the image ./none.qcow2 is not on this machine"
    assert missing(cloud) == [f"{what}\n    put the file there, or name one that is there"]
    desk.write("", "nine.qcow2")
    cloud = desk.load("cloud: test\ntemplates: {t: {image: ./none.qcow2}}\n")
    assert missing(cloud) == [f"{what}\n    did you mean ./nine.qcow2?"]


def test_an_old_system_is_warned_of(desk: Desk) -> None:
    cloud = desk.load("cloud: test\ntemplates: {t: {os: fedora35}}\n")
    assert cloud.warnings == (
        f"{desk.root}/cloud.yaml:2:21: templates.t.os: Fedora Cloud 35 gets no updates from its publisher any more",
    )


def test_firmware_must_be_that_of_the_template(desk: Desk) -> None:
    assert desk.wrong("vms: {a: {template: base, firmware: bios}}") == [
        "cloud.yaml:6:37: vms.a.firmware: bios does not start a disk made for uefi, as template base's is (at "
        "cloud.yaml:5:13)\n"
        "    say firmware: in the template instead"
    ]


def test_bare_numbers_are_text_where_text_is_meant(desk: Desk) -> None:
    cloud = desk.vms("vms: {a: {template: base, packages: [7], disks: {1: 1G}}}")
    assert (cloud.vms[0].guest.packages, cloud.vms[0].data_disks[0].name) == (("7",), "1")
