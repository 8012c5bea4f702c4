#!/bin/sh
# shellcheck disable=SC2154
# What udhcpc was given, put to use.
case $1 in
bound | renew)
    ip address replace "$ip/$mask" dev "$interface"
    [ -z "$router" ] || [ "$with_routes" != true ] || ip route replace default via "${router%% *}" dev "$interface"
    for server in $dns; do
        grep -qxF "nameserver $server" /run/resolv.conf 2> /dev/null || echo "nameserver $server" >> /run/resolv.conf
    done
    ;;
deconfig) ip link set dev "$interface" up ;;
esac
