"""Where the volumes of a pool are and how they are made: images in a directory, or logical volumes of a group.

A store's methods are steps of an action: each says how it is taken back, where something was made.
"""

from __future__ import annotations

from typing import Protocol

from vmwright.apply.context import Context, Undo
from vmwright.apply.group import Group
from vmwright.errors import ApplyError
from vmwright.host.copy import claim, copy, publish
from vmwright.names import VolumeNames, partial_volume
from vmwright.spec.cloud import Copy, DataDisk, LvmSpec, TemplateSpec, VmSpec
from vmwright.virt import design
from vmwright.virt.design import DiskChoice


class Store(Protocol):
    """The volumes of one pool. Names are of volumes; paths are on the host."""

    def root(self, vm: str) -> str:
        """The name of a VM's root disk."""

    def data(self, vm: str, disk: str) -> str:
        """The name of a data disk."""

    def seed(self, vm: str) -> str:
        """The name of the volume with a VM's cloud-init data."""

    def template(self, name: str, version: str) -> str:
        """The name of a version of a template."""

    def path(self, name: str) -> str:
        """The path of a volume."""

    def choice(self, name: str, serial: str, target: str) -> DiskChoice:
        """How a volume is attached to a VM as a disk."""

    def clone(self, vm: VmSpec, template: TemplateSpec, base: str, undo: Undo) -> None:
        """Make a VM's root disk from its template, which is at `base`."""

    def blank(self, name: str, size: int, undo: Undo | None = None) -> None:
        """Make an empty volume of `size` bytes."""

    def put(self, name: str, data: bytes, undo: Undo | None = None) -> None:
        """Make or replace a small volume with that content, which only QEMU may read."""

    def publish(self, image: str, template: TemplateSpec) -> None:
        """Turn a qcow2 image of the host's into a version of a template. Its name appears when it is whole."""

    def enlarge(self, name: str, size: int, *, running: bool) -> None:
        """Make a volume larger; `running`: libvirt does what is left when it makes the VM's disk larger."""

    def wake(self, name: str) -> None:
        """Make sure that a volume which is there can be opened."""

    def drop(self, path: str) -> None:
        """Remove a volume, if it is there."""


def store_of(context: Context, pool: str) -> Store:
    """The store of a pool of the file or, where the file does not have it any more, of libvirt."""
    spec = next((p for p in context.cloud.pools if (p.name, p.host) == (pool, context.facts.name)), None)
    facts = next((p for p in context.facts.pools if p.name == pool), None)
    if spec and spec.lvm:
        return Group(context, pool, spec.lvm)
    if spec is None and facts and facts.type == "logical":
        return Group(context, pool, LvmSpec(facts.target.removeprefix("/dev/")))
    return Directory(context, pool, pool_target(context, pool))


def template_path(context: Context, template: TemplateSpec) -> str:
    """Where a version of a template is."""
    store = store_of(context, template.pool)
    return store.path(store.template(template.name, template.version))


def pool_target(context: Context, pool: str) -> str:
    """The directory of a pool, from the facts, or as the file says when this run has made it."""
    for facts in context.facts.pools:
        if facts.name == pool:
            return facts.target
    return next(p.path for p in context.cloud.pools if p.name == pool and p.host == context.facts.name)


class Directory(VolumeNames):
    """A directory pool: images that libvirt makes, or that are written under a name that nothing has."""

    def __init__(self, context: Context, pool: str, folder: str) -> None:
        super().__init__(context.cloud.name, block=False)
        self._context, self._pool, self._folder = context, pool, folder

    def path(self, name: str) -> str:
        """See Store."""
        return f"{self._folder}/{name}"

    def choice(self, name: str, serial: str, target: str) -> DiskChoice:
        """See Store. The cache mode is one that suits the file system."""
        filesystem = next((p.filesystem for p in self._context.facts.paths if p.path == self._folder), "")
        return DiskChoice(self.path(name), "qcow2", serial, target, design.cache_for(filesystem))

    def clone(self, vm: VmSpec, template: TemplateSpec, base: str, undo: Undo) -> None:
        """See Store. An overlay, or a copy: shared blocks where the file system can (reflink), else holes are kept.

        libvirt sees a copy in its pool when it next looks; nothing here waits for that, and to make it look now would
        fail while other volumes are being made there.
        """
        name = self.root(vm.name)
        remove = (f"remove volume {name}", lambda: self.drop(self.path(name)))
        if vm.copy is Copy.OVERLAY:
            overlay = design.overlay_xml(name, vm.disk or template.size, base, "qcow2")
            self._context.virt.create_volume(self._pool, overlay)
            undo.push(*remove)  # one that libvirt refuses to make may be somebody else's
            return
        self._claim(self.path(name))
        undo.push(*remove)  # a copy that fails leaves a part
        self._context.host.run(copy(base, self.path(name)), cancel=self._context.cancel)
        if vm.disk and vm.disk > template.size:
            self._context.host.run(["qemu-img", "resize", "-q", "-f", "qcow2", self.path(name), str(vm.disk)])

    def _claim(self, path: str) -> None:
        """Make the file that is to be written, unless there is one: that may be somebody else's."""
        if self._context.host.run(claim(path), check=False).code:
            raise taken(path, "; or its directory cannot be written to")

    def blank(self, name: str, size: int, undo: Undo | None = None) -> None:
        """See Store."""
        self._context.virt.create_volume(self._pool, design.volume_xml(name, size, "qcow2"))
        if undo:
            undo.push(f"remove volume {name}", lambda: self._context.virt.delete_volume(self._pool, name))

    def put(self, name: str, data: bytes, undo: Undo | None = None) -> None:
        """See Store. Readable by its owner only, for it may hold password hashes; libvirt gives it to QEMU's user."""
        if undo:
            undo.push(f"remove {name}", lambda: self._context.host.remove(self.path(name)))
        self._context.host.write(self.path(name), data, mode=0o600)

    def publish(self, image: str, template: TemplateSpec) -> None:
        """See Store. The final name appears in one step, so a template that is there is a template that is right."""
        host, name = self._context.host, self.template(template.name, template.version)
        partial = self.path(partial_volume(name))
        try:
            host.run(["mv", "-f", "--", image, partial], cancel=self._context.cancel)
            host.run(["chmod", "0644", "--", partial])
            host.run(["sync", "--", partial])  # a power cut must not leave holes under the final name
            if host.run(publish(partial, self.path(name)), check=False).code:
                raise taken(self.path(name))
        finally:
            host.remove(partial)
        self._context.virt.refresh_pool(self._pool)

    def enlarge(self, name: str, size: int, *, running: bool) -> None:
        """See Store."""
        if not running:
            self._context.virt.resize_volume(self._pool, name, size)

    def wake(self, name: str) -> None:
        """See Store. A file always can."""

    def drop(self, path: str) -> None:
        """See Store. Whether libvirt has seen its file yet or not."""
        if not self._context.virt.delete_volume(self._pool, path.rpartition("/")[2]):
            self._context.host.remove(path)


def wake_disks(context: Context, vm: str) -> None:
    """Make sure that all disks of a VM can be opened: a logical volume may be inactive, for whatever reason."""
    domain = next((domain for domain in context.facts.domains if domain.name == vm), None)
    paths = {disk.path for disk in domain.persistent.disks} if domain else set()
    for volume in context.facts.volumes:
        if volume.path in paths and not volume.active:
            store_of(context, volume.pool).wake(volume.name)


def taken(path: str, more: str = "") -> ApplyError:
    """Somebody has been quicker."""
    return ApplyError(f"{path} has not been made", todo="see what it is, then plan again",
                      why=f"something of that name is there now, and was not when the plan was made{more}")


def data_disk_choice(vm: VmSpec, disk: DataDisk, context: Context) -> DiskChoice:
    """How a data disk of a VM is attached: vdb and on, in the order of the file."""
    store = store_of(context, disk.pool)
    return store.choice(store.data(vm.name, disk.name), disk.serial, disk_target(vm.data_disks.index(disk) + 1))


def disk_target(index: int) -> str:
    """vda, vdb, ...: the name in libvirt's XML; what the guest calls it may differ, its serial does not."""
    return "vd" + "abcdefghijklmnopqrstuvwxy"[index]
