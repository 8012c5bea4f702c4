"""The volumes of a pool that is a volume group: logical volumes, thick or in its thin pool.

A thick volume has the bytes of whoever had that room before. All of it is written before a guest can read it: what is
copied, with zeros for holes, and zeros behind it. A thin one reads as zeros where nothing has been written.
"""

from __future__ import annotations

from vmwright.apply.context import Context, Undo
from vmwright.errors import ApplyError, HostError
from vmwright.host import lvm
from vmwright.names import VolumeNames, is_block, partial_volume
from vmwright.plan.groups import copies_holes
from vmwright.spec.cloud import Copy, LvmSpec, OnRemove, TemplateSpec, VmSpec
from vmwright.units import format_size
from vmwright.virt.design import DiskChoice


class Group(VolumeNames):
    """See stores.Store."""

    def __init__(self, context: Context, pool: str, spec: LvmSpec) -> None:
        super().__init__(context.cloud.name, block=True)
        self._context, self._pool, self._spec, self._group = context, pool, spec, spec.group

    def path(self, name: str) -> str:
        """See Store."""
        return f"/dev/{self._group}/{name}"

    def choice(self, name: str, serial: str, target: str) -> DiskChoice:
        """See Store."""
        return DiskChoice(self.path(name), "raw", serial, target, cache="none", block=True)

    def clone(self, vm: VmSpec, template: TemplateSpec, base: str, undo: Undo) -> None:
        """See Store. A thin snapshot where the template is in the same thin pool, unless a copy is asked for."""
        name, size = self.root(vm.name), vm.disk or template.size
        if self._spec.thin and template.pool == self._pool and vm.copy is Copy.OVERLAY:
            self._make(lvm.snapshot(self._group, base.rpartition("/")[2], name), name, undo)
            if size > template.size:
                self._extend(name, size)
            return
        self._make(self._creation(name, size), name, undo)
        self._copy(base, name, template.size, size)

    def _creation(self, name: str, size: int) -> list[str]:
        thin = self._spec.thin
        return lvm.create_thin(self._group, thin.name, name, size) if thin else lvm.create(self._group, name, size)

    def _make(self, argv: list[str], name: str, undo: Undo | None) -> None:
        """Run the command that makes a volume. LVM refuses a name that is taken: what has it may be somebody else's."""
        self._change(argv)
        if undo:
            undo.push(f"remove volume {name}", lambda: self.drop(self.path(name)))

    def _change(self, argv: list[str]) -> None:
        """Run a command after which libvirt's list of the group's volumes is not right any more."""
        self._changed()
        self._context.host.run(argv)

    def _changed(self) -> None:
        """Thin volumes libvirt never lists: those on no disk of their own it takes for no volumes (logical backend)."""
        if not self._spec.thin:
            self._context.changed.add((self._context.facts.name, self._pool))

    def _copy(self, source: str, name: str, content: int, size: int) -> None:
        """The template's bytes, and on a thick volume zeros for holes and behind them."""
        thin, total = bool(self._spec.thin), format_size(content)

        def progress(line: str) -> None:
            share = lvm.progress(line)
            if share is not None:
                self._context.say(f"copying  {format_size(int(share * content) >> 20 << 20)} of {total}", share)

        if is_block(source) and not self._active(source):
            self._context.host.run(lvm.activate(*source.removeprefix("/dev/").split("/")))
        argv = lvm.copy(source, "raw" if is_block(source) else "qcow2", self.path(name),
                        zero=thin and copies_holes(self._context.facts.emulator))
        self._context.host.run(argv, on_line=progress, cancel=self._context.cancel)
        if not thin and size > content:
            self._clear(lvm.zero(self.path(name), content), "writing zeros behind it")

    def _clear(self, argv: list[str], doing: str) -> None:
        """Run what overwrites or discards a volume, with its progress."""
        def progress(line: str) -> None:
            if cleared := lvm.cleared(line):
                done, end = cleared
                self._context.say(f"{doing}  {format_size(done)} of {format_size(end)}", done / end)

        self._context.host.run(argv, on_line=progress, cancel=self._context.cancel)

    def blank(self, name: str, size: int, undo: Undo | None = None) -> None:
        """See Store."""
        self._make(self._creation(name, size), name, undo)
        if not self._spec.thin:
            self._clear(lvm.zero(self.path(name)), "writing zeros")

    def put(self, name: str, data: bytes, undo: Undo | None = None) -> None:
        """See Store. The volume is as small as it can be; one that is too small for new content is made larger."""
        if self._there(name):
            self.wake(name)
            self._extend(name, len(data))
        else:
            self._make(self._creation(name, len(data)), name, undo)
        self._context.host.run(lvm.fill(self.path(name)), input=data)

    def publish(self, image: str, template: TemplateSpec) -> None:
        """See Store."""
        name = self.template(template.name, template.version)
        partial = partial_volume(name)
        self.drop(self.path(partial))  # of a run that was cut off
        try:
            self._make(self._creation(partial, template.size), partial, None)
            self._copy(image, partial, template.size, template.size)
            self._change(lvm.rename(self._group, partial, name))
        finally:
            self.drop(self.path(partial))

    def enlarge(self, name: str, size: int, *, running: bool) -> None:
        """See Store. What a thick volume gets is zeroed before it is the volume's: until then it is a volume apart.

        So there is no moment at which a guest could read what was there, nor one at which zeros could be written over
        what a guest has put there.
        """
        if self._spec.thin:
            self._extend(name, size)
            return
        path, partial = self.path(name), partial_volume(name)
        more = size - next(volume.capacity for volume in self._context.facts.volumes if volume.path == path)
        self._remove(partial)  # of a run that was cut off
        if more > 0:
            with self._context.undoing() as undo:
                self._change(lvm.create(self._group, partial, more))
                undo.push(f"remove volume {partial}", lambda: self._remove(partial))
                self._clear(lvm.zero(self.path(partial)), "writing zeros")
                self._change(lvm.hand_over(self._group, partial, name))

    def _extend(self, name: str, size: int) -> None:
        """Nothing is done to a volume that is as large already: a group deals in whole extents."""
        self._changed()
        done = self._context.host.run(lvm.extend(self._group, name, size), check=False)
        if done.code and b"matches existing size" not in done.stderr and b"not larger" not in done.stderr:
            raise ApplyError(f"volume {name} of pool {self._pool} could not be made larger",
                             why=done.stderr.decode(errors="replace").strip(),
                             todo="make room in the volume group, then apply again")

    def wake(self, name: str) -> None:
        """See Store."""
        if not self._active(self.path(name)):
            self._context.host.run(lvm.activate(self._group, name))

    def _active(self, path: str) -> bool:
        """Whether a volume's device is there, as far as is known: what was made since the facts were read is."""
        return next((volume.active for volume in self._context.facts.volumes if volume.path == path), True)

    def drop(self, path: str) -> None:
        """See Store. Its bytes go before it does, if the file says so. Raises HostError when it is in use."""
        name = path.rpartition("/")[2]
        if self._there(name):
            self._erase(name, path)
            self._change(lvm.remove(self._group, name))

    def _erase(self, name: str, path: str) -> None:
        """LVM does not remove what is in use; it would be too late then for a guest that has it."""
        host, how = self._context.host, self._spec.on_remove
        if how is OnRemove.LEAVE:
            return
        if host.run(lvm.opened(self._group, name)).text.strip():
            raise HostError(f"volume {name} of pool {self._pool} is in use, and was not removed",
                            why="a process has its device open",
                            todo=f"see which, on the host: lsof {path}; end it, then run the same again")
        host.run(lvm.activate(self._group, name))
        if how is OnRemove.ZERO:
            self._clear(lvm.zero(path), f"writing zeros over {name}")
            return
        try:
            self._clear(lvm.discard(path), f"discarding {name}")
        except HostError as error:
            if lvm.UNSUPPORTED not in error.why:
                raise
            self._context.note(f"{name} was not discarded: no disk below it knows that")

    def _remove(self, name: str) -> None:
        if self._there(name):
            self._change(lvm.remove(self._group, name))

    def _there(self, name: str) -> bool:
        """Whether there is such a volume. Raises HostError when LVM cannot tell: nothing is taken for gone then."""
        done = self._context.host.run(lvm.exists(self._group, name), check=False)
        if done.code > 1:
            raise HostError(f"LVM cannot tell whether there is a volume {name} in group {self._group}",
                            why=done.stderr.decode(errors="replace").strip(),
                            todo=f"see what it says on the host: vgs {self._group}")
        return done.code == 0
