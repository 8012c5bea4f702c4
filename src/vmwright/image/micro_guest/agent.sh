#!/bin/sh
# The guest agent, once its port is there; init starts it again should it end.
# shellcheck source=src/vmwright/image/micro_guest/common.sh
. /usr/lib/micro/common.sh
port=/dev/virtio-ports/org.qemu.guest_agent.0
while [ ! -e "$port" ]; do
    links
    [ -e "$port" ] || usleep 200000
done
exec qemu-ga -m virtio-serial -p "$port"
