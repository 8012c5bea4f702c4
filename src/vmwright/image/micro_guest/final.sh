#!/bin/sh
# shellcheck disable=SC2154
# The end of the micro guest's boot, while its agent answers already: the seed's commands, the report, the result.
# shellcheck source=src/vmwright/image/micro_guest/common.sh
. /usr/lib/micro/common.sh

run_commands() {
    # shellcheck disable=SC1091
    . "$work/seed"
    [ -n "$runcmd" ] || return 0
    printf '%s\n' "$runcmd" > "$work/runcmd"
    sh "$work/runcmd" >> "$output" 2>&1
    code=$?
    [ "$code" = 0 ] || fault "runcmd ended with code $code"
}

addresses() {
    comma=
    for nic in /sys/class/net/*; do
        [ "${nic##*/}" != lo ] || continue
        value "$nic/address"
        list=$(ip -o address show dev "${nic##*/}" scope global | awk '{ printf "%s\"%s\"", sep, $4; sep = ", " }')
        printf '%s{"name": "%s", "mac": "%s", "addresses": [%s]}' "$comma" "${nic##*/}" "$found" "$list"
        comma=', '
    done
}

disks() {
    comma=
    for block in /sys/block/vd* /sys/block/sd* /sys/block/nvme*n*; do
        [ -e "$block/size" ] || continue
        value "$block/serial"
        [ -n "$found" ] || value "$block/device/serial"
        serial=$(plain "$found")
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
    printf '{"host": "%s", "instance": "%s", "cpus": %s, "memory": %s, "nics": [%s], "disks": [%s]}\n' \
        "$host" "$found" "$(nproc)" \
        "$(($(awk '$1 == "MemTotal:" { print $2 }' /proc/meminfo) * 1024))" "$(addresses)" "$(disks)"
}

date +%s.0 | tee "$work/modules-config.start" > "$work/modules-config.end"  # nothing is done in it
begin modules-final
[ ! -e "$work/new" ] || run_commands
end modules-final
tell_status null
report > "$work/report.json"
{
    echo
    echo '=== micro guest report ==='
    cat "$work/report.json"
    echo '=== end of report ==='
} > /dev/console
mkdir -p "$state/instance"
cut -d' ' -f1 /proc/uptime > "$state/instance/boot-finished"
sync
value "$work/source"
printf '{"v1": {"datasource": "%s", "errors": %s}}\n' "$found" "$(json_list "$work/errors")" > "$cloud/result.new"
mv "$cloud/result.new" "$cloud/result.json"
