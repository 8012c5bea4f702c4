"""What cloud-init is told."""

from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO
from ipaddress import IPv4Interface
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycdlib import PyCdlib
from ruamel.yaml import YAML
from tests.unit.guest.vms import LAN, NAT, vm

from vmwright.errors import Where
from vmwright.guest import scripts
from vmwright.guest.seed import (
    AGENT_NEEDED,
    AGENT_UP,
    ImageTraits,
    Seed,
    fqdn,
    iso,
    network_config,
    seed,
    seed_hash,
    user_data,
)
from vmwright.spec.cloud import DataDisk, Filesystem, GuestSpec, Sudo, UserSpec, VmSpec, WriteFile

DEBIAN, RHEL, SUSE = (ImageTraits(family=family) for family in ("debian", "rhel", "suse"))
KEY = "ssh-ed25519 AAAAC3Nza admin@home"
ADMIN = UserSpec("admin", (KEY,))


def made(of: VmSpec, *, instance: str = "i-1", regenerate: bool = True, image: ImageTraits = DEBIAN) -> Seed:
    return seed("zcloud", of, instance=instance, regenerate=regenerate, image=image)


def told(of: VmSpec, *, instance: str = "i-1", regenerate: bool = True, image: ImageTraits = DEBIAN) -> dict[str, Any]:
    return user_data(of, instance=instance, regenerate=regenerate, image=image)


def yaml11(text: str) -> Any:
    """As PyYAML reads it, which cloud-init uses: YAML 1.1."""
    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 1)  # type: ignore[assignment]
    return yaml.load(text)


def runs(commands: Any, script: str) -> list[list[str]]:
    """The arguments of every run of one of our scripts among commands."""
    return [one[4:] for one in commands if isinstance(one, list) and one[:4] == ["sh", "-c", script, "vmwright"]]


class TestDocuments:
    @given(text=st.text(), name=st.text())
    def test_any_text_arrives_as_it_was_written(self, text: str, name: str) -> None:
        guest = GuestSpec(users=(UserSpec(name, (), password_hash=text),), write_files=(WriteFile("/x", text),),
                          runcmd=(("echo", text),), packages=(name,))
        document = made(vm(guest=guest)).files["user-data"].decode()
        head, _, body = document.partition("\n")
        assert head == "#cloud-config"
        read = yaml11(body)
        assert read == json.loads(body)
        assert read["write_files"][0]["content"] == text
        assert read["users"][-1]["hashed_passwd"] == text
        assert read["runcmd"][-1] == ["echo", text]

    @pytest.mark.parametrize("text", ["yes", "0644", "1e3", "null", "~", "12:30:45", "2024-01-01", "- a", "{{ x }}",
                                      "#cloud-config", "it's \"quoted\"", "a: b # c", "\u2028\x7f\x85\ufeff",
                                      "名字 😀"])
    def test_text_that_yaml_would_take_for_something_else(self, text: str) -> None:
        read = yaml11(made(vm(guest=GuestSpec(write_files=(WriteFile("/x", text),)))).files["user-data"].decode())
        assert read["write_files"][0]["content"] == text

    def test_modes_stay_text(self) -> None:
        files = (WriteFile("/x", "", "0600"),)
        assert b'"permissions": "0600"' in made(vm(guest=GuestSpec(write_files=files))).files["user-data"]

    def test_meta_data(self) -> None:
        assert json.loads(made(vm()).files["meta-data"]) == {
            "instance-id": "i-1", "local-hostname": "z-dev", "vmwright": {"cloud": "zcloud"}}

    def test_secrets_are_not_in_what_is_printed(self) -> None:
        shown = repr(made(vm(guest=GuestSpec(users=(UserSpec("eve", (), password_hash="$6$salt$hash"),)))))
        assert "$6$" not in shown


class TestNetwork:
    def test_static_addresses_by_mac_and_dhcp_without_a_second_default_route(self) -> None:
        assert network_config((LAN, NAT)) == {"version": 2, "ethernets": {
            "net0": {
                "match": {"macaddress": "52:00:00:00:00:01"}, "set-name": "net0",
                "addresses": ["192.168.6.253/24"], "routes": [{"to": "0.0.0.0/0", "via": "192.168.6.200"}],
                "nameservers": {"addresses": ["192.168.6.200", "192.168.6.11"], "search": ["example.com"]}},
            "net1": {
                "match": {"macaddress": "52:00:00:00:00:02"}, "set-name": "net1",
                "dhcp4": True, "dhcp4-overrides": {"use-routes": False, "route-metric": 1024}},
        }}

    def test_dhcp_alone_keeps_its_routes(self) -> None:
        assert network_config((NAT,))["ethernets"] == {
            "net0": {"match": {"macaddress": NAT.mac}, "set-name": "net0", "dhcp4": True}}

    def test_dhcp_gives_the_default_route_where_no_address_has_a_gateway(self) -> None:
        ethernets: Any = network_config((replace(LAN, gateway=None), NAT))["ethernets"]
        assert "dhcp4-overrides" not in ethernets["net1"]
        assert "routes" not in ethernets["net0"]

    def test_only_one_of_two_gateways_is_the_default_route(self) -> None:
        other = replace(LAN, mac="52:00:00:00:00:09", address=IPv4Interface("10.0.0.5/8"))
        ethernets: Any = network_config((LAN, other))["ethernets"]
        assert ["routes" in nic for nic in ethernets.values()] == [True, False]

    def test_no_nic(self) -> None:
        assert network_config(()) == {"version": 2, "ethernets": {}}


class TestNames:
    def test_host_name_and_own_line_of_etc_hosts(self) -> None:
        config = told(vm())
        assert (config["hostname"], config["fqdn"]) == ("z-dev", "z-dev.example.com")
        assert (config["manage_etc_hosts"], config["preserve_hostname"]) == (False, False)
        assert runs(config["bootcmd"], scripts.HOSTS) == [["192.168.6.253", "z-dev.example.com z-dev"]]

    def test_without_a_domain_the_name_stands_once(self) -> None:
        one = vm(nics=(NAT,))
        assert fqdn(one) == "z-dev"
        assert runs(told(one)["bootcmd"], scripts.HOSTS) == [["127.0.1.1", "z-dev"]]


class TestUsers:
    def users(self, *users: UserSpec) -> dict[str, Any]:
        return {user["name"]: user for user in told(vm(guest=GuestSpec(users=users)))["users"]}

    def test_keys_and_sudo_without_password(self) -> None:
        assert self.users(ADMIN) == {
            "root": {"name": "root", "lock_passwd": True},
            "admin": {"name": "admin", "lock_passwd": True, "primary_group": "admin", "groups": ["admin"],
                      "shell": "/bin/bash", "sudo": "ALL=(ALL) NOPASSWD:ALL", "ssh_authorized_keys": [KEY]}}

    def test_sudo_with_password(self) -> None:
        user = self.users(UserSpec("bob", (), Sudo.PASSWORD, "$6$x", groups=("video", "bob")))["bob"]
        assert user == {"name": "bob", "lock_passwd": False, "hashed_passwd": "$6$x", "primary_group": "bob",
                        "groups": ["video", "bob"], "shell": "/bin/bash", "sudo": "ALL=(ALL:ALL) ALL"}

    def test_no_sudo(self) -> None:
        assert "sudo" not in self.users(UserSpec("eve", (KEY,), Sudo.NONE))["eve"]

    def test_root_may_log_in_only_when_it_is_listed(self) -> None:
        assert told(vm())["disable_root"] is True
        config = told(vm(guest=GuestSpec(users=(UserSpec("root", (KEY,)),))))
        assert config["disable_root"] is False
        assert config["users"] == [{"name": "root", "lock_passwd": True, "ssh_authorized_keys": [KEY]}]

    def test_passwords_are_not_for_ssh(self) -> None:
        assert told(vm())["ssh_pwauth"] is False

    def test_access_is_recorded_so_that_it_can_be_taken_away(self) -> None:
        config = told(vm(guest=GuestSpec(users=(ADMIN, UserSpec("bob", ())))), instance="i-7")
        assert runs(config["bootcmd"], scripts.ACCESS) == [["i-7", f"admin {KEY}\nbob "]]


class TestIncarnation:
    def test_a_new_disk_gets_new_host_keys_and_a_change_in_place_keeps_them(self) -> None:
        assert told(vm(), regenerate=True)["ssh_deletekeys"] is True
        assert told(vm(), regenerate=False) == {**told(vm(), regenerate=True), "ssh_deletekeys": False}
        assert told(vm())["ssh_genkeytypes"] == ["ed25519", "ecdsa"]

    def test_disk_and_network_follow_at_every_boot(self) -> None:
        config = told(vm())
        assert config["growpart"]["devices"] == ["/"]
        assert config["resize_rootfs"] is True
        assert config["updates"] == {"network": {"when": ["boot-new-instance", "boot"]}}


class TestSettings:
    def test_what_is_not_asked_for_is_not_there(self) -> None:
        assert not {"timezone", "ntp", "packages", "write_files", "mounts", "runcmd"} & told(vm()).keys()
        assert told(vm())["locale"] == "false"

    def test_timezone_locale_and_ntp(self) -> None:
        config = told(vm(guest=GuestSpec(timezone="Asia/Shanghai", locale="zh_CN.UTF-8", ntp=("192.168.6.200",))))
        assert (config["timezone"], config["locale"]) == ("Asia/Shanghai", "zh_CN.UTF-8")
        assert config["ntp"] == {"enabled": True, "servers": ["192.168.6.200"]}

    def test_proxy_for_each_family(self) -> None:
        proxy = "http://192.168.6.200:3128"
        guest = GuestSpec(proxy=proxy)
        images = (DEBIAN, RHEL, SUSE, ImageTraits())
        debian, rhel, suse, unknown = (told(vm(guest=guest), image=image) for image in images)
        assert debian["apt"] == {"preserve_sources_list": True, "http_proxy": proxy, "https_proxy": proxy}
        assert ("apt" in rhel, runs(rhel["bootcmd"], scripts.DNF_PROXY)) == (False, [[proxy]])
        assert ("apt" in suse, runs(suse["bootcmd"], scripts.ZYPPER_PROXY)) == (False, [[proxy]])
        assert unknown["apt"] == debian["apt"]
        for script in (scripts.DNF_PROXY, scripts.ZYPPER_PROXY):
            assert runs(unknown["bootcmd"], script) == [[proxy]]

    def test_a_proxy_that_is_gone_is_taken_away(self) -> None:
        assert told(vm())["apt"] == {"preserve_sources_list": True}
        assert runs(told(vm(), image=RHEL)["bootcmd"], scripts.DNF_PROXY) == [[""]]

    def test_a_file_of_a_user_waits_for_the_user(self) -> None:
        files = (WriteFile("/etc/motd", "a"), WriteFile("/home/admin/x", "b", "0600", "admin:admin"))
        assert told(vm(guest=GuestSpec(write_files=files)))["write_files"] == [
            {"path": "/etc/motd", "content": "a", "permissions": "0644", "owner": "root:root"},
            {"path": "/home/admin/x", "content": "b", "permissions": "0600", "owner": "admin:admin", "defer": True}]

    def test_an_appended_text_is_laid_down_and_appended_by_our_script(self) -> None:
        config = told(vm(guest=GuestSpec(write_files=(WriteFile("/etc/hosts", "10.0.0.1 x\n", append=True),))))
        (laid,), ((name, *rest),) = config["write_files"], runs(config["runcmd"], scripts.APPEND)
        assert laid == {"path": f"/var/lib/vmwright/append/{name}", "content": "10.0.0.1 x\n", "permissions": "0600"}
        assert rest == ["/etc/hosts", "0644", "root:root"]

    def test_runcmd_keeps_its_forms_and_runs_once(self) -> None:
        config = told(vm(guest=GuestSpec(runcmd=("echo a; echo b", ("touch", "/a b")))))
        guard, *own = config["runcmd"]
        assert own == ["echo a; echo b", ["touch", "/a b"]]
        assert guard.startswith("[ -e /var/lib/vmwright/runcmd-")
        other = told(vm(guest=GuestSpec(runcmd=("echo a",))))["runcmd"][0]
        assert guard != other


class TestAgent:
    def test_nothing_to_do_where_it_is_there_and_free(self) -> None:
        config = told(vm(), image=DEBIAN)
        assert "packages" not in config and "runcmd" not in config
        assert runs(config["bootcmd"], scripts.FREE_AGENT) == []

    def test_installed_by_our_script_which_needs_no_package_lists_where_it_is_there(self) -> None:
        image = ImageTraits(agent_installed=False, family="debian")
        config = told(vm(guest=GuestSpec(packages=("htop",), proxy="http://proxy:3128")), image=image)
        assert config["packages"] == ["htop"]
        assert runs(config["runcmd"], AGENT_NEEDED) == [["http://proxy:3128"]]
        assert runs(config["runcmd"], AGENT_UP) == [[]]
        assert "packages" not in told(vm(), image=image)

    def test_what_an_image_nobody_knows_is_told_besides(self) -> None:
        known, unknown = told(vm()), told(vm(), image=ImageTraits(agent_installed=False))
        assert {key for key in unknown if unknown[key] != known.get(key)} == {
            "bootcmd", "runcmd", "no_ssh_fingerprints", "ssh"}
        assert known.keys() <= unknown.keys()
        assert [one[2] for one in unknown["bootcmd"] if one not in known["bootcmd"]] == [
            scripts.DNF_PROXY, scripts.ZYPPER_PROXY, scripts.FREE_AGENT]

    def test_before_what_the_user_runs(self) -> None:
        config = told(vm(guest=GuestSpec(runcmd=("exit 1",))), image=ImageTraits(agent_installed=False))
        assert [one[2] if isinstance(one, list) else one for one in config["runcmd"]][:3] == [
            AGENT_NEEDED, scripts.FREE_AGENT, AGENT_UP]

    def test_the_console_is_kept_for_why_there_is_no_agent(self) -> None:
        quiet = {"no_ssh_fingerprints": True, "ssh": {"emit_keys_to_console": False}}
        assert quiet.items() <= told(vm(), image=ImageTraits(agent_installed=False)).items()
        assert not quiet.keys() & told(vm()).keys()

    def test_freed_early_where_it_is_confined(self) -> None:
        config = told(vm(), image=ImageTraits(agent_exec_blocked=True, family="rhel"))
        assert runs(config["bootcmd"], scripts.FREE_AGENT) == [[]]
        assert "runcmd" not in config

    def test_freed_again_after_it_was_installed(self) -> None:
        config = told(vm(), image=ImageTraits(agent_installed=False, family="rhel"))
        assert [one[2] for one in config["runcmd"]] == [AGENT_NEEDED, scripts.FREE_AGENT, AGENT_UP]


class TestDataDisks:
    DISKS = (DataDisk("data", 1 << 30, "images", "z-dev-data", Filesystem.EXT4, "/srv/data"),
             DataDisk("logs", 1 << 30, "images", "z-dev-logs", Filesystem.XFS, "/var/log/x"),
             DataDisk("ceph", 1 << 30, "images", "z-dev-ceph"))

    def test_file_systems_are_made_by_the_script_that_never_reformats(self) -> None:
        config = told(vm(data_disks=self.DISKS))
        assert not {"disk_setup", "fs_setup"} & config.keys()
        assert runs(config["bootcmd"], scripts.FORMAT) == [
            ["/dev/disk/by-id/virtio-z-dev-data", "ext4"], ["/dev/disk/by-id/virtio-z-dev-logs", "xfs"]]

    def test_mounts_do_not_hold_up_a_boot(self) -> None:
        assert told(vm(data_disks=self.DISKS))["mounts"] == [
            ["/dev/disk/by-id/virtio-z-dev-data", "/srv/data", "ext4", "defaults,nofail", "0", "2"],
            ["/dev/disk/by-id/virtio-z-dev-logs", "/var/log/x", "xfs", "defaults,nofail", "0", "0"]]

    def test_a_file_system_whose_tools_were_missing_is_made_after_the_packages(self) -> None:
        commands = told(vm(data_disks=self.DISKS))["runcmd"]
        assert runs(commands, scripts.NEED) == [["mkfs.ext4", "e2fsprogs"], ["mkfs.xfs", "xfsprogs"]]
        assert runs(commands, scripts.MOUNT) == [["/srv/data"], ["/var/log/x"]]


class TestHash:
    GUEST = GuestSpec(users=(ADMIN,), timezone="Asia/Shanghai", ntp=("192.168.6.200",))

    def test_the_hash_of_one_vm_is_the_same_in_every_version(self) -> None:
        """A change here makes every VM of every user drift: then it must be wanted, and told in CHANGELOG.md."""
        one = vm(guest=self.GUEST, nics=(LAN, NAT), data_disks=TestDataDisks.DISKS)
        assert seed_hash("zcloud", one) == "855cfa5967b9"

    def test_it_is_the_seeds(self) -> None:
        one = vm(guest=self.GUEST)
        assert made(one, instance="i-1").hash == made(one, instance="i-2", regenerate=False, image=RHEL).hash
        assert made(one).hash == seed_hash("zcloud", one)

    @pytest.mark.parametrize("same", [
        {"memory": 1 << 30}, {"vcpus": 8}, {"template": "other"}, {"host": "other"}, {"disk": 1 << 40},
        {"nics": (replace(LAN, network="other"),)}, {"data_disks": (DataDisk("raw", 1 << 30, "images", "x-raw"),)},
        {"guest": replace(GUEST, users=(replace(ADMIN, where=Where("f", 1, 1)),))}])
    def test_what_is_not_inside_the_guest_does_not_count(self, same: dict[str, Any]) -> None:
        assert seed_hash("zcloud", vm(**{"guest": self.GUEST, **same})) == seed_hash("zcloud", vm(guest=self.GUEST))

    @pytest.mark.parametrize("other", [
        {"name": "z-other"}, {"nics": (replace(LAN, address=IPv4Interface("192.168.6.254/24")),)}, {"nics": (NAT, LAN)},
        {"nics": (replace(LAN, dns=()),)}, {"guest": replace(GUEST, timezone="UTC")},
        {"guest": replace(GUEST, users=(replace(ADMIN, sudo=Sudo.NONE),))},
        {"guest": replace(GUEST, users=(replace(ADMIN, password_hash="$6$x"),))},
        {"guest": replace(GUEST, users=())}, {"guest": replace(GUEST, packages=("htop",))},
        {"guest": replace(GUEST, write_files=(WriteFile("/x", ""),))},
        {"guest": replace(GUEST, runcmd=("a b",))}, {"guest": replace(GUEST, runcmd=(("a", "b"),))},
        {"data_disks": TestDataDisks.DISKS}])
    def test_what_is_inside_counts(self, other: dict[str, Any]) -> None:
        assert seed_hash("zcloud", vm(**{"guest": self.GUEST, **other})) != seed_hash("zcloud", vm(guest=self.GUEST))


class TestIso:
    def test_it_holds_the_files_under_the_names_cloud_init_wants(self) -> None:
        one = made(vm(guest=GuestSpec(users=(ADMIN,))))
        image = PyCdlib()
        image.open_fp(BytesIO(iso(one)))
        assert image.pvd.volume_identifier.rstrip() == b"CIDATA"
        for kind in ("rr_path", "joliet_path"):
            names = {child.file_identifier() for child in image.list_children(joliet_path="/") if child.is_file()}
            assert len(names) == 3
            for name, data in one.files.items():
                out = BytesIO()
                image.get_file_from_iso_fp(out, **{kind: f"/{name}"})
                assert out.getvalue() == data
        assert image.get_record(rr_path="/user-data").rock_ridge.get_file_mode() == 0o100400
        image.close()
