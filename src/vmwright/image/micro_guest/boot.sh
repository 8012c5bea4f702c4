#!/bin/sh
# shellcheck disable=SC2015,SC2154
# The micro guest's boot, up to where its agent may answer: devices, the seed, the network, disks.
# shellcheck source=src/vmwright/image/micro_guest/common.sh
. /usr/lib/micro/common.sh

prepare() {
    mkdir -p /dev/pts
    mount -t devpts devpts /dev/pts
    mount -t tmpfs -o mode=0755 run /run
    mkdir -p "$work" "$cloud" /run/lock
    : > "$log"
    : > "$output"
    echo '' > "$work/source"
    # shellcheck disable=SC2046
    modprobe -a $(cat /usr/lib/micro/drivers) 2> /dev/null
    links
    ip link set lo up
    [ -s /etc/machine-id ] || tr -d - < /proc/sys/kernel/random/uuid > /etc/machine-id
}

# The three documents of the seed, made into a script.
read_seed() {
    device=$(findfs LABEL=CIDATA 2> /dev/null || findfs LABEL=cidata) || return 1
    mkdir -p /run/seed
    mount -t iso9660 -o ro "$device" /run/seed || return 1
    echo "DataSourceNoCloud [seed=$device]" > "$work/source"
    (
        cd /run/seed || exit 1
        umask 077
        jq -rn --rawfile user user-data --slurpfile meta meta-data --slurpfile net network-config \
            -f /usr/lib/micro/seed.jq > "$work/seed"
    ) 2> "$work/reason" || {
        fault "the seed cannot be read, it must be JSON: $(head -n 1 "$work/reason")"
        return 1
    }
    umount /run/seed
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
    [ "$old" = "$2" ] || ip link set dev "$old" name "$2"
    ip link set dev "$2" up
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
    mkdir -p "$(dirname "$1")"
    printf '%s' "$4" | base64 -d > "$1" && chmod "$2" "$1" && chown "$3" "$1" || fault "$1 could not be written"
}

data_disk() {
    echo "$1 $2 $3 $4 $5 $6" >> /etc/fstab
    mkdir -p "$2"
}

# user NAME SUDO KEYS: one who may use sudo gets root's number, for there is no sudo here.
user() {
    home=/home/$1
    [ "$1" != root ] || home=/root
    if ! grep -q "^$1:" /etc/passwd; then
        id=0
        [ -n "$2" ] || id=$((1000 + $(grep -c . /etc/passwd)))
        echo "$1:x:$id:$id::$home:/bin/sh" >> /etc/passwd
        echo "$1:x:$id:" >> /etc/group
        echo "$1:*:::::::" >> /etc/shadow
    fi
    mkdir -p "$home/.ssh"
    touch "$home/.ssh/authorized_keys"
    printf '%s\n' "$3" | while IFS= read -r key; do
        grep -qxF -e "$key" "$home/.ssh/authorized_keys" || echo "$key" >> "$home/.ssh/authorized_keys"
    done
    chmod -R go= "$home/.ssh"
    [ "$1" = root ] || chown -R "$1:$1" "$home"
}

# ---- the stages ----

host_key() {
    mkdir -p /etc/dropbear /etc/ssh
    dropbearkey -t ed25519 -f /etc/dropbear/key | grep '^ssh-' > /etc/ssh/ssh_host_ed25519_key.pub
}

# The root file system's partition takes what is behind it.
grow_root() {
    device=$(awk '$2 == "/" && $1 ~ "^/dev/" { print $1 }' /proc/mounts)
    part=/sys/class/block/${device##*/}
    whole=$(dirname "$(readlink -f "$part")")
    value "$part/partition"
    number=$found
    room=$(($(cat "$whole/size") - $(cat "$part/start") - $(cat "$part/size")))
    [ "$room" -gt 4096 ] || return 0
    echo ', +' | sfdisk -q --no-reread -N "$number" "/dev/${whole##*/}" &&
        partx -u -n "$number" "/dev/${whole##*/}" && resize2fs "$device"
}

run_script() {
    printf '%s\n' "$2" > "$work/$1"
    sh "$work/$1"
    code=$?
    [ "$code" = 0 ] || fault "$1 ended with code $code"
}

new_instance() {
    : > "$work/new"
    : > /etc/fstab
    users
    files
    mounts
    mkdir -p "$state/data" "$state/instance"
    rm -f "$state/instance/boot-finished"
}

setup() {
    hostname "$name"
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

prepare
if read_seed; then
    begin init-local
    # shellcheck disable=SC1091
    . "$work/seed"
    network >> "$output" 2>&1
    end init-local
    begin init
    setup >> "$output" 2>&1
    end init
else
    [ -s "$work/source" ] || echo DataSourceNone > "$work/source"
    begin init
    hostname micro
    end init
fi
links
