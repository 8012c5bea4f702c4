# shellcheck shell=sh disable=SC2034
# What the scripts of the micro guest share. They stand in for cloud-init: the seed in, its files and logs out.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
work=/run/micro
cloud=/run/cloud-init
state=/var/lib/cloud
log=/var/log/cloud-init.log
output=/var/log/cloud-init-output.log

# note LEVEL TEXT: a line of the log, in cloud-init's form.
note() {
    echo "$(date '+%Y-%m-%d %H:%M:%S,000') - micro[$1]: $2" >> "$log"
}

# plain TEXT: without what JSON, or a line of a list, could not hold as it is.
plain() {
    # shellcheck disable=SC1003
    printf '%s' "$1" | tr -d '\000-\037\177"\\'
}

# Errors make vmwright refuse the guest; a warning is told and got over.
fault() {
    note ERROR "$1"
    plain "$1" >> "$work/errors"
    echo >> "$work/errors"
}

warn() {
    note WARNING "$1"
    plain "$1" >> "$work/warnings"
    echo >> "$work/warnings"
}

# json_list FILE: its lines as a JSON list of texts.
json_list() {
    comma=
    printf '['
    [ ! -e "$1" ] || while IFS= read -r line; do
        printf '%s"%s"' "$comma" "$line"
        comma=', '
    done < "$1"
    printf ']'
}

# value FILE: its first line, in $found; empty when it is not there. Without a process: those are what a boot spends.
value() {
    found=
    [ ! -r "$1" ] || read -r found < "$1"
}

# begin STAGE, end STAGE: as cloud-init tells of its stages.
begin() {
    date +%s.0 > "$work/$1.start"
    note INFO "running '$1'"
    tell_status "\"$1\""
}

end() {
    date +%s.0 > "$work/$1.end"
}

tell_status() {
    {
        value "$work/source"
        printf '{"v1": {"datasource": "%s", "stage": %s' "$found" "$1"
        for stage in init-local init modules-config modules-final; do
            value "$work/$stage.start"
            printf ', "%s": {"start": %s' "$stage" "${found:-null}"
            value "$work/$stage.end"
            printf ', "finished": %s, "errors": [], "recoverable_errors": {' "${found:-null}"
            [ "$stage" != modules-final ] || [ ! -s "$work/warnings" ] ||
                printf '"WARNING": %s' "$(json_list "$work/warnings")"
            printf '}}'
        done
        printf '}}\n'
    } > "$cloud/status.new"
    mv "$cloud/status.new" "$cloud/status.json"
}

# links: /dev/disk/by-id and /dev/virtio-ports as udev would make them, for what is there now.
links() {
    mkdir -p /dev/disk/by-id /dev/virtio-ports
    rm -f /dev/disk/by-id/*
    for block in /sys/block/vd*; do
        value "$block/serial"
        [ -z "$found" ] || name_disk "$block" "virtio-$found"
    done
    for block in /sys/block/nvme*n*; do
        [ -e "$block/device/serial" ] || continue
        id=$(sed 's/ *$//; s/ /_/g' "$block/device/model" "$block/device/serial" | tr '\n' _)
        name_disk "$block" "nvme-${id%_}"
    done
    for port in /sys/class/virtio-ports/*; do
        value "$port/name"
        [ -z "$found" ] || ln -snf "../${port##*/}" "/dev/virtio-ports/$found"
    done
} 2> /dev/null

name_disk() {
    ln -snf "../../${1##*/}" "/dev/disk/by-id/$2"
    for part in "$1/${1##*/}"*; do
        value "$part/partition"
        [ -z "$found" ] || ln -snf "../../${part##*/}" "/dev/disk/by-id/$2-part$found"
    done
}
