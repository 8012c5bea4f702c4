#!/bin/sh
# Written by vmwright: binds the devices that are set aside for VMs to vfio-pci, in the initramfs, before udev starts:
# nothing of the host's looks at what is on them. A drive is known by its serial, wherever it is; the one that the host
# starts from is not taken. If the root does not appear all the same, everything is given back (aside.sh back).
# To boot without this: add vmwright.aside=off to the kernel's arguments.
[ "${1-}" != prereqs ] || exit 0
set -u

list=/etc/vmwright/devices
record=/run/vmwright/aside
pci=/sys/bus/pci/devices
steps=100    # of 0.1 s: so long drivers may take to find their drives
line=

say() { echo "vmwright: $*" >/dev/kmsg; }

not() { # NAME REASON
    say "$1 is not set aside: $2"
    echo "not $1 $2" >>"$record"
}

pause() { sleep 0.1 2>/dev/null || sleep 1; }

word() { # the first word of a file; empty where there is none
    word=
    [ ! -r "$1" ] || read -r word _ <"$1" || :
}

is_nvme() {
    word "$pci/$1/class"
    case $word in 0x0108*) return 0 ;; *) return 1 ;; esac
}

# ---- drives ----

# A controller's serial is to be read once it is live, and what is on the drive once its namespaces are there.
settled() {
    for dir in "$pci"/*; do
        is_nvme "${dir##*/}" || continue
        driver_of "${dir##*/}"
        case $driver in '' | nvme) ;; *) continue ;; esac
        for controller in "$dir"/nvme/nvme*; do
            word "$controller/state"
            case $word in '' | new | resetting | connecting) return 1 ;; esac
            set -- "$controller"/nvme*n*
            [ "$word" != live ] || [ -e "$1" ] || return 1
        done
    done
}

await_drives() {
    modprobe -q nvme
    while [ "$steps" -gt 0 ] && ! found_all && ! settled; do
        steps=$((steps - 1))
        pause
    done
}

# A match at the place in the list is it; elsewhere there must be one and no more. Sets address.
choose() { # ADDRESS; the matches are in $matches
    address=
    for match in $matches; do
        [ "$match" != "$1" ] || address=$match
    done
    # shellcheck disable=SC2086
    [ -n "$address" ] || { set -- $matches && [ $# != 1 ] || address=$1; }
}

drive_at() { # ADDRESS SERIAL: sets address
    matches=
    for dir in "$pci"/*/nvme/nvme*; do
        word "$dir/state"
        [ "$word" = live ] || continue
        read -r found <"$dir/serial" || :
        [ "$found" != "$2" ] || { match=${dir%/nvme/*} && matches="$matches ${match##*/}"; }
    done
    choose "$1"
}

# Whether all drives of the list have been found.
found_all() {
    while read -r name address ids driver serial; do
        case $name in '' | '#'*) continue ;; esac
        [ "$driver" = nvme ] || continue
        drive_at "$address" "$serial"
        [ -n "$address" ] || return 1
    done <"$list"
}

# Whether the kernel's command line has something of this drive as the root, or as what to resume from.
is_root() { # ADDRESS
    for block in /sys/class/block/nvme*; do
        at=$(cd -P "$block" 2>/dev/null && pwd) || continue
        case $at in
        */nvme-subsys*/*) # a drive that could have several paths is below none
            at=${at#*/nvme-subsystem/nvme-subsys} && at=/sys/class/nvme-subsystem/nvme-subsys${at%%/*}
            on= && for controller in "$at"/nvme*; do
                controller=$(cd -P "$controller" 2>/dev/null && pwd) || continue
                case $controller/ in */"$1"/*) on=1 ;; esac
            done
            [ -n "$on" ] || continue
            ;;
        */"$1"/*) ;;
        *) continue ;;
        esac
        names="/dev/${block##*/} $(blkid -o export "/dev/${block##*/}" 2>/dev/null)"
        for name in $names; do
            case " $line " in *" root=$name "* | *" resume=$name "*) return 0 ;; esac
            case $name in
            UUID=* | PARTUUID=* | LABEL=* | PARTLABEL=*)
                by=/dev/disk/by-$(echo "${name%%=*}" | tr '[:upper:]' '[:lower:]')/${name#*=}
                case " $line " in *" root=$by "* | *" resume=$by "*) return 0 ;; esac
                ;;
            esac
        done
    done
    return 1
}

# ---- other devices ----

at() { od -A n -t x4 -j "$2" -N 4 "$pci/$1/config" 2>/dev/null | tr -d ' \n'; }

# The Device Serial Number (PCI Express Base Specification, 7.9.3), as lspci writes it.
dsn() {
    place=256 && left=48
    while [ "$place" -ge 256 ] && [ "$left" -gt 0 ]; do
        left=$((left - 1))
        head=$(at "$1" "$place")
        [ -n "$head" ] || return 0
        if [ "${head#????}" = 0003 ]; then
            echo "$(at "$1" $((place + 8)))$(at "$1" $((place + 4)))" | sed 's/../&-/g; s/-$//'
            return 0
        fi
        place=$((0x${head%?????} & 0xffc))
    done
}

ids() {
    word "$pci/$1/vendor" && ids=${word#0x}
    word "$pci/$1/device" && ids=$ids:${word#0x}
}

device_at() { # ADDRESS IDS SERIAL: sets address
    address=
    ids "$1"
    if [ "$3" = - ]; then
        [ "$ids" != "$2" ] || address=$1
        return
    fi
    matches=
    for dir in "$pci"/*; do
        [ "${dir##*.}" = "${1##*.}" ] || continue
        ids "${dir##*/}"
        [ "$ids" != "$2" ] || [ "$(dsn "${dir##*/}")" != "$3" ] || matches="$matches ${dir##*/}"
    done
    choose "$1"
}

# ---- both ----

driver_of() { driver=$(cd -P "$pci/$1/driver" 2>/dev/null && pwd) && driver=${driver##*/} || driver=; }

take() { # NAME ADDRESS DRIVER SERIAL
    driver_of "$2"
    if [ "$driver" != vfio-pci ]; then
        echo vfio-pci >"$pci/$2/driver_override"
        [ -z "$driver" ] || echo "$2" >"$pci/$2/driver/unbind"
        echo "$2" >/sys/bus/pci/drivers_probe
        driver_of "$2"
    fi
    if [ "$driver" != vfio-pci ]; then
        echo >"$pci/$2/driver_override"
        echo "$2" >/sys/bus/pci/drivers_probe
        not "$1" "vfio-pci does not take it: is the IOMMU on?"
        return
    fi
    say "$1 ($2) is set aside for VMs"
    echo "aside $2 $3 $4" >>"$record"
}

set_aside() { # NAME ADDRESS IDS DRIVER SERIAL, as in the list
    if [ "$4" = nvme ]; then
        drive_at "$2" "$5"
        [ -n "$address" ] || { not "$1" "no drive has the serial $5" && return; }
        ! is_root "$address" || { not "$1" "the host starts from it" && return; }
    else
        device_at "$2" "$3" "$5"
        [ -n "$address" ] || { not "$1" "what is at $2 is another device" && return; }
        ! is_nvme "$address" || { not "$1" "it is a drive, and its driver was another one" && return; }
    fi
    take "$1" "$address" "$4" "$5"
}

# The root has not appeared: after a while, it may be on what was taken.
give_back() {
    grep -q '^aside ' "$record" 2>/dev/null || return 0
    read -r now _ </proc/uptime
    [ -r "$record.since" ] || echo "${now%.*}" >"$record.since"
    read -r since <"$record.since"
    [ $((${now%.*} - since)) -ge "$1" ] || return 0
    while read -r what address _; do
        [ "$what" = aside ] || continue
        echo >"$pci/$address/driver_override"
        echo "$address" >"$pci/$address/driver/unbind"
        echo "$address" >/sys/bus/pci/drivers_probe
    done <"$record"
    : >"$record"
    not all "the host did not find its root, and all was given back"
}

if [ "${1-}" = back ]; then
    give_back "${2-15}"
    exit 0
fi
read -r line </proc/cmdline
[ -r "$list" ] || exit 0
mkdir -p "${record%/*}"
: >"$record"
case " $line " in *" vmwright.aside=off "*) not all "the kernel was started with vmwright.aside=off" && exit 0 ;; esac
modprobe -q vfio-pci
[ -d /sys/bus/pci/drivers/vfio-pci ] || { not all "there is no vfio-pci" && exit 0; }
! grep -q ' nvme ' "$list" || await_drives
while read -r name address ids driver serial; do
    case $name in '' | '#'*) ;; *) set_aside "$name" "$address" "$ids" "$driver" "$serial" ;; esac
done <"$list"
exit 0
