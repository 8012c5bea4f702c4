#!/bin/sh
# /init of the micro guest's initramfs: the drivers of its disk, the root file system, and on to the system there.
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
while read -r driver; do
    insmod "/modules/$driver"
done < /modules/order
# shellcheck disable=SC2013
for word in $(cat /proc/cmdline); do
    case $word in root=*) root=${word#root=} ;; esac
done
tries=0
until device=$(findfs "$root" 2> /dev/null); do
    tries=$((tries + 1))
    if [ "$tries" -gt 600 ]; then
        echo "micro: no disk has the root file system $root"
        exec sh
    fi
    usleep 50000
done
mount -t ext4 "$device" /root || exec sh
for place in dev proc sys; do
    mount -o move "/$place" "/root/$place"
done
exec switch_root /root /sbin/init
