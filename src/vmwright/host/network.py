"""A change of a host's own network that takes itself back: a script on the host, and the words to start it with. Pure.

The script lies in names.NETWORK_STATE with all that it needs, and works without us: who made the change may be dead, or
cut off by it. Its state is in the names of empty files, of which one becomes another by rename(2): whether a change is
confirmed or taken back is decided once, whoever comes first.

    unconfirmed   the change is being made, or made; the clock ticks
    undoing       it is taken back
    neither       nothing is under way
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vmwright.names import HOST_STATE, NETWORK_STATE

SCRIPT = f"{NETWORK_STATE}/guard"
NEW = f"{NETWORK_STATE}/new"  # + path: the files as they are to be
LIST = f"{NETWORK_STATE}/files"  # the paths of those files
LINKS = f"{NETWORK_STATE}/links"  # interfaces that the change may make
PORTS = f"{NETWORK_STATE}/ports"  # interfaces whose addresses may be lost
FORTH, BACK = f"{NETWORK_STATE}/forth", f"{NETWORK_STATE}/back"  # functions of a shell: leave, apply
UNDO, DO = "vmwright-network-undo", "vmwright-network"  # units of systemd
BOOT = "vmwright-network-boot.service"
CONFLICT = 75

_UNIT = f"""\
# Written by vmwright for as long as a change of the network is not confirmed; after that it is removed.
[Unit]
Description=Take back a change of the network that was not confirmed
DefaultDependencies=no
RequiresMountsFor={NETWORK_STATE}
After=local-fs.target systemd-remount-fs.service
Before=network-pre.target ifupdown-pre.service networking.service NetworkManager.service systemd-networkd.service
Before=shutdown.target
Wants=network-pre.target
Conflicts=shutdown.target

[Service]
Type=oneshot
ExecStart=/bin/sh {SCRIPT} boot
"""

GUARD = rf"""#!/bin/sh
# Written by vmwright: changes the host's network, and takes the change back unless it is confirmed in time.
set -u
PATH=/usr/sbin:/usr/bin:/sbin:/bin
cd {NETWORK_STATE} || exit 1
unit=/etc/systemd/system/{BOOT}
wanted=/etc/systemd/system/sysinit.target.wants/{BOOT}

# Make the listed files what they are below $1, each in one step; those that are not there are removed.
put() {{
    while IFS= read -r path; do
        if [ -e "$1$path" ]; then
            mkdir -p "${{path%/*}}"
            new=${{path%/*}}/.${{path##*/}}.vmwright
            cp -p "$1$path" "$new" && sync "$new" && mv -f "$new" "$path"
            ! command -v restorecon >/dev/null || restorecon "$path"
        else
            rm -f "$path"
        fi
    done <files
}}

# Nothing is under way any more. The mark goes last.
finish() {{
    rm -f "$wanted" "$unit"
    sync
    rm -f unconfirmed undoing
}}

remove_made() {{
    while read -r link; do ! ip link show dev "$link" >/dev/null 2>&1 || ip link delete dev "$link"; done <made
}}

# What had addresses has them again, by hand if need be.
mend() {{
    for n in 1 2 3 4 5 6 7 8 9 10; do
        lost=
        while read -r link address; do
            ip -o -4 address show dev "$link" | grep -qF " $address " || lost=1
        done <had
        [ -n "$lost" ] || return 0
        sleep 1
    done
    echo "addresses are not back: setting them by hand"
    while read -r link address; do
        ip link set dev "$link" up
        ip -o -4 address show dev "$link" | grep -qF " $address " || ip address add "$address" dev "$link"
    done <had
    while read -r route; do ip route replace $route; done <routes
}}

case $1 in
check)  # whether netplan understands what its files are to be
    root=$(mktemp -d) || exit 1
    mkdir -p "$root/etc/netplan" "$root/lib/netplan"
    cp /lib/netplan/*.yaml "$root/lib/netplan" 2>/dev/null
    cp /etc/netplan/*.yaml "$root/etc/netplan" 2>/dev/null
    cp new/etc/netplan/*.yaml "$root/etc/netplan" 2>/dev/null
    chmod 600 "$root"/*/netplan/*.yaml
    netplan generate --root-dir "$root"
    code=$?
    rm -rf "$root"
    exit $code
    ;;
start)  # start SECONDS WHAT: all is in place in new/; save what is there, set the clock, begin
    [ ! -e unconfirmed ] && [ ! -e undoing ] || exit {CONFLICT}
    set -e
    rm -rf old begun applied failed confirmed
    mkdir old
    while IFS= read -r path; do
        [ -e "$path" ] || continue
        mkdir -p "old${{path%/*}}"
        cp -p "$path" "old$path"
        [ ! -e "new$path.as-before" ] ||
            {{ chmod --reference="$path" "new$path"; chown --reference="$path" "new$path"; }}
    done <files
    : >made
    while read -r link; do [ -e "/sys/class/net/$link" ] || echo "$link" >>made; done <links
    while read -r link; do
        ip -o -4 address show dev "$link" scope global | while read -r _ _ _ address _; do echo "$link $address"; done
    done <ports >had
    ip -4 route show default >routes
    cp boot.service "$unit"
    mkdir -p "${{wanted%/*}}"
    ln -sf "$unit" "$wanted"
    echo "$3" >unconfirmed
    sync
    systemctl reset-failed {UNDO}.timer {UNDO}.service {DO}.service 2>/dev/null || :
    # A DHCP client that is started by what we start is to live on: KillMode.
    systemd-run --quiet --collect --unit={UNDO} --on-active="$2" --timer-property=AccuracySec=100ms \
        --property=KillMode=process /bin/sh "$PWD/guard" back || {{ finish; exit 1; }}
    systemd-run --quiet --collect --unit={DO} --property=KillMode=process /bin/sh "$PWD/guard" go ||
        {{ systemctl stop {UNDO}.timer; finish; exit 1; }}
    ;;
go)
    [ -e unconfirmed ] || exit 0
    exec >log 2>&1
    . ./forth
    : >begun
    set -x
    leave
    put new
    if apply; then : >applied; else : >failed; fi
    ;;
back)
    mv unconfirmed undoing 2>/dev/null || [ -e undoing ] || exit 0
    exec >>log 2>&1
    systemctl stop {UNDO}.timer
    systemctl kill --signal=KILL {DO}.service 2>/dev/null && systemctl stop {DO}.service
    . ./back
    set -x
    if [ -e begun ]; then
        leave
        put old
        remove_made
        apply
        mend
    fi
    finish
    ;;
boot)  # before the network is set up: only files
    [ -e unconfirmed ] || [ -e undoing ] || {{ finish; exit 0; }}
    mv unconfirmed undoing 2>/dev/null || :
    put old
    ! command -v netplan >/dev/null || netplan generate
    finish
    ;;
confirm)
    [ -e applied ] || exit 1
    while IFS= read -r path; do
        mkdir -p "{HOST_STATE}/before${{path%/*}}" "{HOST_STATE}/files${{path%/*}}"
        before={HOST_STATE}/before$path ours={HOST_STATE}/files$path
        [ ! -e "old$path" ] || [ -e "$before" ] || [ -e "$ours" ] || cp -p "old$path" "$before"
        ! [ -e "new$path" ] || {{ cp "new$path" "$ours.part" && chmod 600 "$ours.part" && mv -f "$ours.part" "$ours"; }}
    done <files
    mv unconfirmed confirmed || exit 1
    systemctl stop {UNDO}.timer
    rm -f confirmed
    finish
    ;;
esac
"""


@dataclass(frozen=True)
class Steps:
    """What is done on one way, there or back: before the files change, and after."""

    leave: tuple[tuple[str, ...], ...]
    apply: tuple[tuple[str, ...], ...]

    def script(self) -> str:
        """As functions of a shell. That something could not be left is no reason not to go on."""
        return (f"leave() {{\n    :\n{_lines(self.leave)}\n}}\napply() {{\n    done=0\n"
                + "".join(f"    {shlex.join(argv)} || done=1\n" for argv in self.apply) + "    return $done\n}\n")


def _lines(argvs: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"    {shlex.join(argv)} || :" for argv in argvs)


def unit() -> str:
    """The unit that takes back at boot what was not confirmed before."""
    return _UNIT


@dataclass(frozen=True)
class Managed:
    """What one manager has to do with: bridges, and NICs that become their ports, by name."""

    manager: str  # netplan, ifupdown or NetworkManager
    bridges: tuple[str, ...]
    nics: tuple[str, ...]


def steps(parts: Sequence[Managed], profiles: Sequence[str]) -> tuple[Steps, Steps]:
    """What each of the managers takes, forth and back. `profiles` are NetworkManager's connections of the NICs now."""
    forth, back = list[Steps](), list[Steps]()
    for part in parts:
        there, again = _STEPS[part.manager](part.bridges, part.nics, profiles)
        forth.append(there)
        back.append(again)
    return _joined(forth), _joined(back)


def _joined(parts: Sequence[Steps]) -> Steps:
    return Steps(tuple(argv for part in parts for argv in part.leave),
                 tuple(argv for part in parts for argv in part.apply))


def _netplan(bridges: Sequence[str], nics: Sequence[str], profiles: Sequence[str]) -> tuple[Steps, Steps]:
    """netplan apply also removes what it has made and is no longer wanted."""
    apply = (("netplan", "apply"),)
    return Steps((), apply), Steps((), apply)


def _ifupdown(bridges: Sequence[str], nics: Sequence[str], profiles: Sequence[str]) -> tuple[Steps, Steps]:
    down = tuple(("ifdown", "--force", name) for name in (*bridges, *nics))
    up = tuple(("ifup", name) for name in (*nics, *bridges))
    return Steps(down, up), Steps(down, up)


def _network_manager(bridges: Sequence[str], nics: Sequence[str], profiles: Sequence[str]) -> tuple[Steps, Steps]:
    ours = [f"vmwright-{name}" for name in bridges]
    ports = [f"vmwright-{name}-port" for name in bridges]
    reload = ("nmcli", "connection", "reload")
    return (Steps((), (reload, *(("nmcli", "--wait", "30", "connection", "up", "id", name)
                                 for name in (*ours, *ports)))),
            Steps(tuple(("nmcli", "--wait", "10", "connection", "down", "id", name) for name in (*ports, *ours)),
                  (reload, *(("nmcli", "--wait", "30", "connection", "up", "uuid", uuid) for uuid in profiles))))


_STEPS = {"netplan": _netplan, "ifupdown": _ifupdown, "NetworkManager": _network_manager}


def clear() -> list[str]:
    """Remove what an earlier change has left."""
    return ["sh", "-c", 'rm -rf -- "$1"/new "$1"/old', "sh", NETWORK_STATE]


def check() -> list[str]:
    """See whether netplan understands its files as they are to be; nothing is changed."""
    return ["sh", SCRIPT, "check"]


def start(seconds: int, what: str) -> list[str]:
    """Begin; the host goes back after so many seconds. Ends with CONFLICT when a change is under way."""
    return ["sh", SCRIPT, "start", str(seconds), what]


def confirm() -> list[str]:
    """Keep the change. Fails when it is not made yet, or is being taken back."""
    return ["sh", SCRIPT, "confirm"]


def go_back() -> list[str]:
    """Take it back now, without waiting for that: the connection that asks for it may be cut by it."""
    return ["systemctl", "start", "--no-block", f"{UNDO}.service"]


def go_back_detached() -> list[str]:
    """The same where the clock is not ticking any more: after a boot, or when its timer was removed."""
    return ["systemd-run", "--quiet", "--collect", f"--unit={UNDO}-again", "/bin/sh", SCRIPT, "back"]


def state() -> list[str]:
    """What the change has come to: the marks that are there, one a line."""
    return ["sh", "-c", f"cd {NETWORK_STATE} && ls | grep -xE 'unconfirmed|undoing|begun|applied|failed'; :"]


def answers(gateway: str) -> list[str]:
    """Whether the gateway is there: by ARP, for it may not let itself be pinged. Code 0: it is."""
    return ["sh", "-c", 'ping -n -q -c 1 -W 2 "$1" >/dev/null 2>&1; ip neigh show to "$1" | grep -q lladdr', "sh",
            gateway]


def log() -> list[str]:
    """What was said while it was made."""
    return ["tail", "-n", "12", f"{NETWORK_STATE}/log"]
