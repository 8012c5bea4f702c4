#!/bin/sh
# A device came or went, says the kernel.
# shellcheck source=src/vmwright/image/micro_guest/common.sh
case $SUBSYSTEM in
block | virtio-ports)
    . /usr/lib/micro/common.sh
    [ "$ACTION" != remove ] || rm -f /dev/disk/by-id/* # one that is used again would keep its old name
    links
    ;;
esac
