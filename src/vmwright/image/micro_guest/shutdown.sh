#!/bin/sh
# shutdown as the guest agent calls it: -P power off, -H halt, -r reboot. The power button calls it without arguments.
for word; do
    case $word in
    -r) exec reboot ;;
    -H) exec halt ;;
    esac
done
exec poweroff
