"""Which function carries out which kind of action."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vmwright.apply.boot import remove_start_order, write_start_order
from vmwright.apply.bridges import make_bridges, take_bridges_back
from vmwright.apply.change import update_vm
from vmwright.apply.context import Context
from vmwright.apply.create import create_vm, rebuild_vm
from vmwright.apply.devices import give_devices_back
from vmwright.apply.files import write_files
from vmwright.apply.grow import grow_disk
from vmwright.apply.power import restart_vm, start_vm, stop_vm, wait_vm
from vmwright.apply.prepare import install_packages, reboot, set_kernel_arguments
from vmwright.apply.remove import destroy_vm, remove_template, tidy
from vmwright.apply.services import set_service
from vmwright.apply.storage import create_group, create_network, create_pool, make_template
from vmwright.plan import action, actions, host_actions

HANDLERS: dict[type[action.Action], Callable[[Any, Context], None]] = {
    host_actions.InstallPackages: install_packages,
    host_actions.SetKernelArguments: set_kernel_arguments,
    host_actions.Reboot: reboot,
    host_actions.WriteFiles: write_files,
    host_actions.PrepareFiles: write_files,
    host_actions.GiveBack: give_devices_back,
    host_actions.SetService: set_service,
    host_actions.MakeBridges: make_bridges,
    host_actions.TakeBridgesBack: take_bridges_back,
    actions.CreatePool: create_pool,
    actions.CreateGroup: create_group,
    actions.CreateNetwork: create_network,
    actions.MakeTemplate: make_template,
    actions.RemoveTemplate: remove_template,
    actions.CreateVm: create_vm,
    actions.RebuildVm: rebuild_vm,
    actions.UpdateVm: update_vm,
    actions.GrowDisk: grow_disk,
    actions.StartVm: start_vm,
    actions.StopVm: stop_vm,
    actions.RestartVm: restart_vm,
    actions.WaitReady: wait_vm,
    actions.DestroyVm: destroy_vm,
    host_actions.WriteStartOrder: write_start_order,
    host_actions.RemoveStartOrder: remove_start_order,
    actions.Tidy: tidy,
}
