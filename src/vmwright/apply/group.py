"""The volumes of a pool that is a volume group: logical volumes, thick or in its thin pool.

A thick volume has the bytes of whoever had that room before. All of it is written before a guest can read it: what is
copied, with zeros for holes, and zeros behind it. A thin one reads as zeros where nothing has been written.
"""

from __future__ import annotations

from vmwright.apply.context import Context, Undo
from vmwright.errors import ApplyError, HostError
from vmwright.host import lvm
from vmwright.names import VolumeNames, is_block, partial_volume
from vmwright.spec.cloud import Copy, LvmSpec, TemplateSpec, VmSpec
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
                self.enlarge(name, size, running=False)
            return
        self._make(self._creation(name, size), name, undo)
        self._copy(base, name, template.size, size)

    def _creation(self, name: str, size: int) -> list[str]:
        thin = self._spec.thin
        return lvm.create_thin(self._group, thin.name, name, size) if thin else lvm.create(self._group, name, size)

    def _make(self, argv: list[str], name: str, undo: Undo | None) -> None:
        """Run the command that makes a volume. LVM refuses a name that is taken: what has it may be somebody else's."""
        self._context.host.run(argv)
        if undo:
            undo.push(f"remove volume {name}", lambda: self.drop(self.path(name)))

    def _copy(self, source: str, name: str, content: int, size: int) -> None:
        """The template's bytes, and on a thick volume zeros for holes and behind them."""
        thin, total = bool(self._spec.thin), format_size(content)

        def progress(line: str) -> None:
            share = lvm.progress(line)
            if share is not None:
                self._context.say(f"copying  {format_size(int(share * content) >> 20 << 20)} of {total}", share)

        argv = lvm.copy(source, "raw" if is_block(source) else "qcow2", self.path(name), thin=thin)
        self._context.host.run(argv, on_line=progress, cancel=self._context.cancel)
        if not thin and size > content:
            self._context.host.run(lvm.zero(self.path(name), content), cancel=self._context.cancel)

    def blank(self, name: str, size: int, undo: Undo | None = None) -> None:
        """See Store."""
        self._make(self._creation(name, size), name, undo)
        if not self._spec.thin:
            self._context.say(f"writing zeros over {format_size(size)}", None)
            self._context.host.run(lvm.zero(self.path(name), 0), cancel=self._context.cancel)

    def put(self, name: str, data: bytes, undo: Undo | None = None) -> None:
        """See Store. The volume is as small as it can be; one that is too small for new content is made larger."""
        if not self._there(name):
            self._make(self._creation(name, len(data)), name, undo)
        else:
            self.enlarge(name, len(data), running=False)
        self._context.host.run(lvm.fill(self.path(name)), input=data)

    def publish(self, image: str, template: TemplateSpec) -> None:
        """See Store."""
        name = self.template(template.name, template.version)
        partial = partial_volume(name)
        self.drop(self.path(partial))  # of a run that was cut off
        try:
            self._make(self._creation(partial, template.size), partial, None)
            self._copy(image, partial, template.size, template.size)
            self._context.host.run(lvm.rename(self._group, partial, name))
        finally:
            self.drop(self.path(partial))

    def enlarge(self, name: str, size: int, *, running: bool) -> None:
        """See Store. Nothing is done to a volume that is as large already: a group deals in whole extents."""
        done = self._context.host.run(lvm.extend(self._group, name, size), check=False)
        if done.code and b"matches existing size" not in done.stderr and b"not larger" not in done.stderr:
            raise ApplyError(f"volume {name} of pool {self._pool} could not be made larger",
                             why=done.stderr.decode(errors="replace").strip(),
                             todo="make room in the volume group, then apply again")

    def drop(self, path: str) -> None:
        """See Store. Raises HostError when it is in use."""
        name = path.rpartition("/")[2]
        if self._there(name):
            self._context.host.run(lvm.remove(self._group, name))

    def _there(self, name: str) -> bool:
        """Whether there is such a volume. Raises HostError when LVM cannot tell: nothing is taken for gone then."""
        done = self._context.host.run(lvm.exists(self._group, name), check=False)
        if done.code > 1:
            raise HostError(f"LVM cannot tell whether there is a volume {name} in group {self._group}",
                            why=done.stderr.decode(errors="replace").strip(),
                            todo=f"see what it says on the host: vgs {self._group}")
        return done.code == 0
