"""The micro guest's reader of seeds: what it makes of vmwright's own, by each awk that is here; and what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from vmwright.guest.seed import ImageTraits, seed
from vmwright.image import micro
from vmwright.spec.load import load

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINUjsxl9gdeR+LeDKuk6uFMbE7il1zPJQ6cWFNaQK/m/ me"
READER = Path(micro.__file__).parent / "micro_guest" / "seed.awk"
NASTY = "a 'quoted' \"text\" \\ \\n \\\\' $HOME `id`\n\tüñ€😀\u2028 &amp; \\& [x] {y}: ,\n"

# The words of a script, each said with its arguments, by a plain shell.
SAY = """
say() { printf '%s\\0' "$#" "$@"; }
nic() { say nic "$@"; }; address() { say address "$@"; }; route() { say route "$@"; }; lease() { say lease "$@"; }
resolver() { say resolver "$@"; }; user() { say user "$@"; }; file() { say file "$@"; }
data_disk() { say data_disk "$@"; }
"""


def awks() -> list[list[str]]:
    """busybox's is the guest's own; any other must say the same."""
    found = [[path] for name in ("mawk", "gawk", "original-awk") if (path := shutil.which(name))]
    return [*found, *([[path, "awk"]] if (path := shutil.which("busybox")) else [])]


@pytest.fixture(params=awks(), ids=lambda argv: Path(argv[0]).name)
def awk(request: pytest.FixtureRequest) -> list[str]:
    """An awk."""
    return list(request.param)


def read(awk: list[str], folder: Path, **documents: str) -> subprocess.CompletedProcess[bytes]:
    """Run the reader on these documents."""
    names = [name.replace("_", "-") for name in documents]
    for name, text in zip(names, documents.values(), strict=True):
        (folder / name).write_text(text)
    return subprocess.run([*awk, "-f", str(READER), *names], cwd=folder, capture_output=True, check=False,
                          env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"})


def said(script: bytes, what: str) -> list[list[str]]:
    """What the shell says when it runs `what` after the script: words with their arguments."""
    done = subprocess.run(["sh", "-eu", "-c", f"{SAY}\n{script.decode()}\n{what}"], capture_output=True, check=True)
    parts = done.stdout.decode().split("\0")[:-1]
    found = []
    while parts:
        count = int(parts.pop(0))
        found.append(parts[:count])
        del parts[:count]
    return found


def plain(user: dict[str, Any], net: dict[str, Any] | None = None) -> dict[str, str]:
    """Three documents."""
    return {"user_data": "#cloud-config\n" + json.dumps(user, ensure_ascii=False, indent=1),
            "meta_data": json.dumps({"instance-id": "i-1", "local-hostname": "z-1"}),
            "network_config": json.dumps(net or {"version": 2, "ethernets": {}})}


def test_a_seed_of_vmwrights_own(awk: list[str], tmp_path: Path) -> None:
    (tmp_path / "micro.qcow2").touch()
    (tmp_path / "cloud.yaml").write_text(f"""\
cloud: lab
hosts: {{h: {{connect: local, pools: {{p: {{dir: /p}}}}}}}}
networks: {{lan: {{bridge: br0, subnet: 10.1.2.0/24, gateway: 10.1.2.1, dns: [10.1.2.2, 10.1.2.3]}}}}
users: {{admin: {{ssh_keys: ["{KEY}"], sudo: nopasswd}}}}
templates: {{micro: {{image: ./micro.qcow2, disk: 256M}}}}
vms:
  z-1:
    template: micro
    address: 10.1.2.7
    timezone: Europe/Berlin
    disks: {{data: {{size: 64M, filesystem: ext4, mount: /srv}}}}
    write_files: [{{path: /etc/nasty, content: {json.dumps(NASTY)}, mode: "0640", owner: "admin:admin"}}]
    runcmd: [echo it's done, [printf, "%s", "two words"]]
""")
    vm = load(tmp_path / "cloud.yaml").vms[0]
    made = seed("lab", vm, instance="i-7", regenerate=True, image=ImageTraits(family="debian")).files
    done = read(awk, tmp_path, **{name.replace("-", "_"): data.decode() for name, data in made.items()})
    assert (done.returncode, done.stderr) == (0, b"")
    script = done.stdout
    mac = vm.nics[0].mac
    assert said(script, "network") == [
        ["nic", mac, "net0"], ["address", "net0", "10.1.2.7/24"], ["route", "net0", "0.0.0.0/0", "10.1.2.1"],
        ["resolver", "nameserver", "10.1.2.2"], ["resolver", "nameserver", "10.1.2.3"]]
    assert said(script, "users") == [["user", "root", "", ""],
                                     ["user", "admin", "ALL=(ALL) NOPASSWD:ALL", KEY]]
    assert said(script, "files") == [["file", "/etc/nasty", "0640", "admin:admin", NASTY]]
    assert said(script, "mounts") == [
        ["data_disk", "/dev/disk/by-id/virtio-data", "/srv", "ext4", "defaults,nofail", "0", "2"]]
    assert said(script, 'say "$instance" "$name" "$left_out"') == [["i-7", "z-1", " timezone"]]
    wanted = [["sh", *command[1:]] for command in json.loads(made["user-data"].split(b"\n", 1)[1])["bootcmd"]]
    assert said(script, 'sh() { say sh "$@"; }; eval "$bootcmd"') == wanted


def test_commands_are_one_a_line(awk: list[str], tmp_path: Path) -> None:
    commands = ["echo it's", ["printf", "%s", NASTY], [1, True], "exit 3"]
    done = read(awk, tmp_path, **plain({"runcmd": commands}))
    runcmd = said(done.stdout, 'say "$runcmd"')[0][0]
    assert runcmd.startswith("echo it's\n'printf' '%s' 'a '\\''quoted'") and runcmd.endswith("\n'1' 'true'\nexit 3")


def test_every_escape_of_json(awk: list[str], tmp_path: Path) -> None:
    text = "\\u0041\\u00e9\\u20AC\\ud83d\\ude00\\n\\t\\r\\b\\f\\/\\\\n\\\"\\u0000\\\\\\\\"
    user = f'{{"hostname": "h", "write_files": [{{"path": "/f", "content": "{text}"}}, {{"path": "/\\"g\\"\\\\"}}]}}'
    done = read(awk, tmp_path, **{**plain({}), "user_data": user})
    assert said(done.stdout, "files") == [
        ["file", "/f", "0644", "root:root", "Aé€😀\n\t\r\b\f/\\n\"\\\\"], ["file", '/"g"\\', "0644", "root:root", ""]]


def test_dhcp_and_names_of_nics(awk: list[str], tmp_path: Path) -> None:
    net = {"version": 2, "ethernets": {
        "net0": {"match": {"macaddress": "52:54:00:AA:bb:cc"}, "set-name": "lan", "dhcp4": True},
        "net1": {"match": {"macaddress": "52:54:00:00:00:02"}, "dhcp4": True, "dhcp4-overrides": {"use-routes": False},
                 "nameservers": {"search": ["a.example", "b.example"]}}}}
    done = read(awk, tmp_path, **plain({}, net))
    assert said(done.stdout, "network") == [
        ["nic", "52:54:00:aa:bb:cc", "lan"], ["lease", "lan", "true"], ["nic", "52:54:00:00:00:02", "net1"],
        ["lease", "net1", "false"], ["resolver", "search", "a.example b.example"]]


def test_what_the_guest_cannot_do_is_named(awk: list[str], tmp_path: Path) -> None:
    user = {"hostname": "h", "ntp": {"enabled": True}, "locale": "de_DE.UTF-8", "packages": ["vim"],
            "users": [{"name": "a", "hashed_passwd": "$6$x"}]}
    done = read(awk, tmp_path, **plain(user))
    assert said(done.stdout, "say $left_out") == [["ntp", "packages", "locale", "passwords"]]


@pytest.mark.parametrize(("text", "why"), [
    ("hostname: z-1\n", "user-data: not JSON at hostname:"), ('{"a": "b', "user-data: a string has no end"),
    ('{"a": "b\\"', "user-data: a string has no end"), ('{"a": "b\\"}', "user-data: a string has no end"),
    ('{"a": }', "user-data: not JSON: a value is missing"), ('{"a" 1}', "user-data: not JSON: an object's key is"),
    ('{"a": 1', "user-data: not JSON: an object has no end"), ("[1 2]", "user-data: not JSON: a list has no end"),
    ("{} {}", "user-data: not JSON: more than one value"),
    ('{"a": "\\x"}', "user-data: an escape that JSON does not"), ("", "user-data: not JSON: a value is missing"),
    ("{]", "user-data: not JSON: an object's key is missing"),
])  # fmt: skip
def test_what_is_not_json_is_refused(awk: list[str], tmp_path: Path, text: str, why: str) -> None:
    done = read(awk, tmp_path, **{**plain({}), "user_data": text + "\n"})
    assert done.returncode == 1
    assert done.stderr.decode().startswith(why), done.stderr
    assert done.stdout == b""


def test_a_missing_document_is_refused(awk: list[str], tmp_path: Path) -> None:
    documents = plain({"hostname": "h"})
    del documents["network_config"]
    done = read(awk, tmp_path, **documents)
    assert (done.returncode, done.stdout) == (1, b"")
