#!/bin/sh
# shellcheck disable=SC2015,SC2031,SC2154,SC3028
# The micro guest's boot. It stands in for cloud-init: the seed in, its files and logs out. Busybox's shell has
# EPOCHREALTIME, the time in seconds.
# shellcheck source=src/vmwright/image/micro_guest/common.sh
. /usr/lib/micro/common.sh
work=/run/micro
cloud=/run/cloud-init
state=/var/lib/cloud
log=/var/log/cloud-init.log
output=/var/log/cloud-init-output.log
errors='' warnings='' source=''

# ---- what is told ----

# note LEVEL TEXT: a line of the log.
note() {
    echo "$EPOCHREALTIME - micro[$1]: $2" >> "$log"
}

# Errors make vmwright refuse the guest; a warning is told and got over.
fault() {
    note ERROR "$1"
    plain "$1"
    errors="$errors${errors:+, }\"$found\""
}

warn() {
    note WARNING "$1"
    plain "$1"
    warnings="$warnings${warnings:+, }\"$found\""
}

# plain TEXT: in $found, without what JSON could not hold as it is.
plain() {
    found=$1
    # shellcheck disable=SC1003
    case $1 in
    *[!\ -\!#-\[\]-~]*) found=$(printf '%s' "$1" | tr -d '\000-\037\177"\\') ;;
    esac
}

# begin STAGE, end STAGE: as cloud-init tells of its stages. Nobody can look before the agent runs.
begin() {
    stages="$stages, \"$1\": {\"start\": $EPOCHREALTIME, \"errors\": []"
    note INFO "running '$1'"
}

end() {
    stages="$stages, \"finished\": $EPOCHREALTIME, \"recoverable_errors\": {${2:+\"WARNING\": [$2]}}}"
}

# tell_status STAGE [REST]: REST ends a stage that is under way.
tell_status() {
    echo "{\"v1\": {\"datasource\": \"$source\", \"stage\": $1$stages$2}}" > "$cloud/status.json"
}

# ---- before the seed ----

prepare() {
    mkdir -p /dev/pts
    mount -a -T /usr/lib/micro/fstab
    mkdir -p "$work" "$cloud" /run/lock /run/seed
    : > "$log"
    : > "$output"
    drivers=
    for device in /sys/bus/virtio/devices/*; do
        value "$device/modalias"
        case $found in
        '' | virtio:d00000004v* | virtio:d00000005v*) ;; # entropy, for which there are better sources; the balloon
        *) drivers="$drivers $found" ;;
        esac
    done
    # shellcheck disable=SC2086
    modprobe -a isofs $drivers 2> /dev/null
    links
    [ -s /etc/machine-id ] || {
        value /proc/sys/kernel/random/uuid
        words "$found" - ''
        echo "$found" > /etc/machine-id
    }
    ip link set lo up
}

# The seed's disk: by its serial, as vmwright sets it; else by its label, which takes a look into every disk.
seed_disk() {
    for block in /sys/block/vd*; do
        value "$block/serial"
        device=/dev/${block##*/}
        [ "$found" != seed ] || return 0
    done
    device=$(findfs LABEL=CIDATA 2> /dev/null || findfs LABEL=cidata)
}

# The three documents of the seed, made into a script.
read_seed() {
    seed_disk && mount -t iso9660 -o ro "$device" /run/seed || return 1
    source="DataSourceNoCloud [seed=$device]"
    umask 077
    cd /run/seed || return 1
    awk -f /usr/lib/micro/seed.awk meta-data network-config user-data > "$work/seed" 2> "$work/reason"
    code=$?
    cd /
    umask 022
    umount /run/seed
    [ "$code" = 0 ] || {
        value "$work/reason"
        fault "the seed cannot be read: $found"
        return 1
    }
}

# ---- words of the seed's script ----

nic() {
    old=
    for place in /sys/class/net/*; do
        value "$place/address"
        [ "$found" != "$1" ] || old=${place##*/}
    done
    if [ -z "$old" ]; then
        warn "no NIC has the MAC $1"
        return
    fi
    ip link set dev "$old" name "$2" up
}

address() {
    ip address add "$2" dev "$1"
}

route() {
    ip route add "$2" via "$3" dev "$1"
}

lease() {
    with_routes=$2 udhcpc -i "$1" -b -t 4 -T 3 -s /usr/lib/micro/dhcp.sh -x "hostname:$name" > /dev/null 2>&1
}

resolver() {
    echo "$1 $2" >> /run/resolv.conf
}

file() {
    [ -d "${1%/*}" ] || mkdir -p "${1%/*}"
    printf '%s' "$4" > "$1" && chmod "$2" "$1" || fault "$1 could not be written"
    [ "$3" = root:root ] || chown "$3" "$1" || fault "$1 could not be given to $3"
}

data_disk() {
    echo "$1 $2 $3 $4 $5 $6" >> /etc/fstab
    mkdir -p "$2"
}

# user NAME SUDO KEYS: one who may use sudo gets root's number, for there is no sudo here.
user() {
    home=/home/$1
    [ "$1" != root ] || home=/root
    number='' count=0
    while IFS=: read -r known _ id _; do
        count=$((count + 1))
        [ "$known" != "$1" ] || number=$id
    done < /etc/passwd
    if [ -z "$number" ]; then
        number=0
        [ -n "$2" ] || number=$((1000 + count))
        echo "$1:x:$number:$number::$home:/bin/sh" >> /etc/passwd
        echo "$1:x:$number:" >> /etc/group
        echo "$1:*:::::::" >> /etc/shadow
    fi
    [ -n "$3" ] || return 0
    umask 077
    [ -d "$home/.ssh" ] || mkdir -p "$home/.ssh"
    keys=$home/.ssh/authorized_keys
    if [ -s "$keys" ]; then
        more=$(printf '%s\n' "$3" | grep -vxFf "$keys") && printf '%s\n' "$more" >> "$keys"
    else
        printf '%s\n' "$3" > "$keys"
    fi
    umask 022
    [ "$number" = 0 ] || chown -R "$1:$1" "$home"
}

# ---- the seed's commands ----

# What commands of a seed call most often, without starting another program.
sh() {
    [ "$1" = -c ] || {
        command sh "$@"
        return
    }
    (
        text=$2
        shift 2
        [ $# = 0 ] || shift
        eval "$text"
    )
}

systemctl() {
    # shellcheck source=src/vmwright/image/micro_guest/systemctl.sh
    (. /usr/lib/micro/systemctl.sh)
}

run_script() {
    printf '%s\n' "$2" > "$work/$1"
    # shellcheck disable=SC1090
    (. "$work/$1")
    code=$?
    [ "$code" = 0 ] || fault "$1 ended with code $code"
}

# ---- the stages ----

host_key() {
    mkdir -p /etc/dropbear /etc/ssh
    dropbearkey -t ed25519 -f /etc/dropbear/key > "$work/key"
    while read -r kind key _; do
        case $kind in ssh-*) echo "$kind $key" > /etc/ssh/ssh_host_ed25519_key.pub ;; esac
    done < "$work/key"
}

# The root file system's partition takes what is behind it.
grow_root() {
    while read -r device place _; do
        [ "$place" != / ] || break
    done < /proc/mounts
    part=${device##*/}
    for whole in /sys/block/*/"$part"; do
        whole=${whole%/*}
    done
    value "$whole/$part/partition"
    number=$found
    value "$whole/$part/start"
    room=-$found
    value "$whole/$part/size"
    room=$((room - found))
    value "$whole/size"
    [ $((room + found)) -gt 4096 ] || return 0
    echo ', +' | sfdisk -q --no-reread -N "$number" "/dev/${whole##*/}" &&
        partx -u -n "$number" "/dev/${whole##*/}" && resize2fs "$device"
}

new_instance() {
    new=1
    : > /etc/fstab
    users
    files
    mounts
    mkdir -p "$state/data" "$state/instance"
    [ ! -e "$state/instance/boot-finished" ] || rm -f "$state/instance/boot-finished"
}

setup() {
    echo "$name" > /proc/sys/kernel/hostname
    echo "$name" > /etc/hostname
    run_script bootcmd "$bootcmd"
    grow_root || warn "the root file system was not grown"
    value "$state/data/instance-id"
    [ "$found" = "$instance" ] || new_instance
    echo "$instance" > "$state/data/instance-id"
    [ -s /etc/dropbear/key ] || host_key
    [ ! -s /etc/fstab ] || mount -a
    for key in $left_out; do
        warn "the micro guest does nothing for $key"
    done
}

# ---- the report ----

# cpus: how many are on, in $found.
cpus() {
    value /sys/devices/system/cpu/online
    words "$found" , ' '
    count=0
    for range in $found; do
        count=$((count + ${range#*-} - ${range%-*} + 1))
    done
    found=$count
}

nics() {
    ip -o address show scope global > "$work/addresses"
    comma=
    for place in /sys/class/net/*; do
        device=${place##*/}
        [ "$device" != lo ] || continue
        list=
        while read -r _ owner _ own _; do
            [ "$owner" != "$device" ] || list="$list${list:+, }\"$own\""
        done < "$work/addresses"
        value "$place/address"
        printf '%s{"name": "%s", "mac": "%s", "addresses": [%s]}' "$comma" "$device" "$found" "$list"
        comma=', '
    done
}

disks() {
    comma=
    for block in /sys/block/vd* /sys/block/sd* /sys/block/nvme*n*; do
        [ -e "$block/size" ] || continue
        value "$block/serial"
        [ -n "$found" ] || value "$block/device/serial"
        plain "$found"
        serial=$found
        value "$block/size"
        printf '%s{"name": "%s", "serial": "%s", "size": %s}' "$comma" "${block##*/}" "$serial" "$((found * 512))"
        comma=', '
    done
}

# One line of JSON between two lines that nothing else prints.
report() {
    value /proc/sys/kernel/hostname
    host=$found
    value "$state/data/instance-id"
    printf '{"host": "%s", "instance": "%s", ' "$host" "$found"
    cpus
    read -r _ memory _ < /proc/meminfo
    printf '"cpus": %s, "memory": %s, "nics": [' "$found" "$((memory * 1024))"
    nics
    printf '], "disks": ['
    disks
    printf ']}\n'
}

# ---- all of it ----

# The end of the boot, while the agent answers already: the seed's commands, the report, the result, and what can wait.
final() {
    [ -z "$new" ] || [ -z "$runcmd" ] || run_script runcmd "$runcmd" >> "$output" 2>&1
    end modules-final "$warnings"
    tell_status null
    report > "$work/report.json"
    read -r line < "$work/report.json"
    printf '\n%s\n%s\n%s\n' '=== micro guest report ===' "$line" '=== end of report ===' > /dev/console
    [ -d "$state/instance" ] || mkdir -p "$state/instance"
    read -r uptime _ < /proc/uptime
    echo "$uptime" > "$state/instance/boot-finished"
    echo "{\"v1\": {\"datasource\": \"$source\", \"errors\": [$errors]}}" > "$cloud/result.json"
    modprobe -a virtio_balloon button evdev 2> /dev/null
    acpid -l /dev/null
    uevent /usr/lib/micro/hotplug.sh &
    sync
    links # for what came before anybody listened
}

prepare
new='' stages=''
begin init-local
if read_seed; then
    # shellcheck disable=SC1091
    . "$work/seed"
    network >> "$output" 2>&1
    end init-local
    begin init
    setup >> "$output" 2>&1
else
    end init-local
    begin init
    [ -n "$source" ] || source=DataSourceNone
    echo micro > /proc/sys/kernel/hostname
fi
end init
begin modules-config
end modules-config
begin modules-final
tell_status '"modules-final"' ', "finished": null}'
final &
