#!/bin/sh
# Written by vmwright: what its script takes that sets devices aside for VMs when the host boots (initramfs-tools(7)).
[ "${1-}" != prereqs ] || exit 0
# shellcheck source=/dev/null
. /usr/share/initramfs-tools/hook-functions

mkdir -p "$DESTDIR/etc/vmwright"
cp /etc/vmwright/devices "$DESTDIR/etc/vmwright/devices"
manual_add_modules vfio-pci
! grep -q ' nvme ' /etc/vmwright/devices || manual_add_modules nvme
for program in od tr sed grep blkid sleep; do
    copy_exec "$(command -v "$program")" /bin
done
