#!/bin/bash
# Written by vmwright: has devices set aside for VMs when the host boots (dracut.modules(7)).

check() { [[ -r /etc/vmwright/devices ]]; }

depends() { :; }

installkernel() {
    # Also modules that are not in use while this is made.
    hostonly='' instmods vfio-pci
    ! grep -q ' nvme ' /etc/vmwright/devices || hostonly='' instmods nvme
}

install() {
    inst_simple /etc/vmwright/devices
    inst_multiple od tr sed grep blkid sleep mkdir modprobe
    # Hooks are read by dracut's own shell, which must not end with them.
    # shellcheck disable=SC2154  # dracut says where its module is
    inst_script "$moddir/aside.sh" /sbin/vmwright-aside
    inst_hook pre-udev 00 "$moddir/hook.sh"
    inst_hook initqueue/timeout 00 "$moddir/back.sh"
}
