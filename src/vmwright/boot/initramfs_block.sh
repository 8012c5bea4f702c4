#!/bin/sh
# Written by vmwright: run while the root has not appeared (initramfs-tools(7), local-block).
[ "${1-}" != prereqs ] || exit 0
exec /scripts/init-top/00-vmwright back
