# shellcheck shell=sh disable=SC2034
# What the scripts of the micro guest share. They are written to start few processes: where a guest is emulated inside an
# emulated server, each costs it a third of a second, and what the shell does by itself costs next to nothing.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C

# value FILE: its first line, in $found; empty when it is not there.
value() {
    found=
    [ ! -r "$1" ] || read -r found < "$1"
}

# words TEXT SIGNS GLUE: in $found, what any of the signs part in a text, with the glue between.
words() {
    set -f
    IFS=$2
    # shellcheck disable=SC2086
    set -- "$3" $1
    IFS=$1
    shift
    found="$*"
    unset IFS
    set +f
}

# links: /dev/disk/by-id and /dev/virtio-ports as udev would make them; those that are there already stay.
links() {
    [ -d /dev/disk/by-id ] || mkdir -p /dev/disk/by-id /dev/virtio-ports
    for block in /sys/block/vd*; do
        value "$block/serial"
        [ -z "$found" ] || name_disk "$block" "virtio-$found"
    done
    for block in /sys/block/nvme*n*; do
        [ -e "$block/device/serial" ] || continue
        value "$block/device/model"
        words "$found" ' ' _
        model=$found
        value "$block/device/serial"
        words "$found" ' ' _
        name_disk "$block" "nvme-${model}_$found"
    done
    for port in /sys/class/virtio-ports/*; do
        value "$port/name"
        [ -z "$found" ] || link "../${port##*/}" "/dev/virtio-ports/$found"
    done
}

name_disk() {
    link "../../${1##*/}" "/dev/disk/by-id/$2"
    for part in "$1/${1##*/}"*; do
        value "$part/partition"
        [ -z "$found" ] || link "../../${part##*/}" "/dev/disk/by-id/$2-part$found"
    done
}

link() {
    [ -e "$2" ] || ln -snf "$1" "$2"
}
