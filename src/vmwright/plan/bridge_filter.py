"""What goes over a bridge is not the host's firewall's: settings that belong to the kernel module br_netfilter.

The module comes when some program wants it (Docker does), each time with its own settings: what sysctl set before is
gone, and at boot there is nothing yet to set.
"""

from __future__ import annotations

from vmwright.names import FILTER_RULE, FILTER_SETTINGS
from vmwright.netconfig.common import NewFile
from vmwright.plan.action import Change
from vmwright.plan.host_actions import PrepareFiles
from vmwright.plan.own_files import to_write
from vmwright.plan.view import Draft, View

_SETTINGS = ("iptables", "ip6tables", "arptables")
# Where the module is there already, the settings hold at once.
_READ = (("udevadm", "control", "--reload"), ("/lib/systemd/systemd-sysctl", "--prefix=/net/bridge"))


def filter_settings() -> str:
    """The text of our file for sysctl. The hyphen: that a setting is not there is no error (sysctl.d(5))."""
    return ("# Written by vmwright: what goes over a bridge is not the host's firewall's. These settings are those of\n"
            f"# the module br_netfilter, and are set again whenever it is loaded: see {FILTER_RULE}\n"
            + "".join(f"-net.bridge.bridge-nf-call-{name} = 0\n" for name in _SETTINGS))


def filter_rule() -> str:
    """The text of our rule for udev, which is told when a module has been loaded."""
    return ("# Written by vmwright: br_netfilter begins with its own settings, whenever some program has it loaded.\n"
            'ACTION=="add", SUBSYSTEM=="module", KERNEL=="br_netfilter", '
            'RUN+="/lib/systemd/systemd-sysctl --prefix=/net/bridge"\n')


def plan_bridge_filter(view: View, draft: Draft) -> None:
    """Settings of br_netfilter that hold whenever it is loaded, on a host with bridges."""
    wiring = view.facts.wiring
    if view.host.filter_bridged or not view.host.bridges or wiring is None:
        return
    files = to_write(view, (NewFile(FILTER_SETTINGS, filter_settings()), NewFile(FILTER_RULE, filter_rule())), draft)
    on = [name for name, value in wiring.filter if value and name.removeprefix("bridge-nf-call-") in _SETTINGS]
    if files:
        draft.actions.append(PrepareFiles(
            host=view.host.name, what="bridge filter", files=files, after=_READ,
            why="else the host's firewall may come between VMs once some program loads br_netfilter",
            changes=(Change("files", "", ", ".join(file.path for file in files)),)))
    elif files is not None and on:
        draft.warnings.append(f"host {view.host.name}: {', '.join(on)} {'is' if len(on) == 1 else 'are'} on though "
                              f"{FILTER_SETTINGS} says off: some program (Docker, Kubernetes) has switched it on, "
                              "and its firewall may keep VMs from each other; if that is meant, say "
                              "`filter_bridged: true`")
