"""What starts VMs in order when a host boots: a command and a pure parser."""

from __future__ import annotations

import base64
import binascii

from vmwright.boot.files import LISTS, SCRIPT_PATH, UNIT, UNIT_PATH
from vmwright.facts.model import BootFacts
from vmwright.names import start_list

# Nothing is said of a host where nobody asks for an order and none of our files is. Texts are in base64: they are whole
# then, with whatever lines. libvirt-guests reads its defaults first, then its settings (libvirt-guests.sh, both shell).
_SCRIPT = f"""
wanted=$1 own=$2 unit=$3 script=$4 name=$5
set -- {LISTS}
""" + r"""
there=
for file in "$unit" "$script" "$@"; do [ ! -e "$file" ] || there=1; done
[ -n "$wanted$there" ] || exit 0
[ ! -d /run/systemd/system ] || echo systemd yes
[ "$(systemctl is-enabled "$name")" != enabled ] || echo enabled yes
text() { [ ! -f "$2" ] || echo "$1 $(base64 <"$2" | tr -d '\n')"; }
text unit "$unit"
text script "$script"
text order "$own"
for file in "$@"; do
  [ "$file" = "$own" ] || [ ! -f "$file" ] || { file=${file%/*}; echo "other ${file##*/}"; }
done
[ "$(systemctl is-enabled libvirt-guests.service)" = enabled ] || exit 0
set -- /usr/lib/libvirt/libvirt-guests.sh /usr/libexec/libvirt-guests.sh
for folder in sysconfig conf.d default; do set -- "$@" "/etc/$folder/libvirt-guests"; done
on=$(cat "$@" | sed -n "s/^[[:space:]]*ON_BOOT=[\"']\{0,1\}\([a-z]*\).*/\1/p" | tail -n 1)
echo "guests ${on:-start}"
"""


def commands(cloud: str, wanted: bool) -> dict[str, list[str]]:
    """The probe. `wanted`: the cloud's file gives VMs on this host an order."""
    return {"boot": ["sh", "-c", _SCRIPT, "sh", "1" if wanted else "", start_list(cloud), UNIT_PATH, SCRIPT_PATH, UNIT]}


def parse(text: str) -> BootFacts:
    """What the probe said. Raises ValueError for a text that is not base64."""
    said = [line.split(" ", 1) for line in text.splitlines() if " " in line]
    one = dict(row for row in said if row[0] != "other")
    return BootFacts(
        systemd="systemd" in one, enabled="enabled" in one, unit=_text(one.get("unit")),
        script=_text(one.get("script")), order=_text(one.get("order")),
        others=tuple(value for key, value in said if key == "other"), guests=one.get("guests"))


def _text(encoded: str | None) -> str | None:
    if encoded is None:
        return None
    try:
        return base64.b64decode(encoded, validate=True).decode(errors="replace")
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from error
