#!/bin/sh
# /init of the micro guest's initramfs: the drivers of its disk, the root file system, and on to the system there.
# The kernel hands the words of its command line over as variables; $disk is ours.
mount -t devtmpfs dev /dev
modprobe -a virtio_pci virtio_blk
tries=0
# shellcheck disable=SC2154
until mount -t ext4 "$disk" /root 2> /dev/null; do
    tries=$((tries + 1))
    if [ "$tries" -gt 600 ]; then
        echo "micro: no disk has the root file system $disk"
        exec sh
    fi
    usleep 50000
done
mount -o move /dev /root/dev
exec switch_root /root /sbin/init
