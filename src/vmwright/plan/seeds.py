"""The mark of a VM's cloud-init data: one hash that decides, and hashes of its parts that say what is different.

A mark is text, "3f2a91c0d4e5 network=1a2b users=9f3e": the hash of it all, then four digits for each part that is not
empty. Whether something differs is decided by the first word alone; the parts only explain, so that a later version may
divide otherwise without any VM drifting. What was there before cannot be read from it: it may be a password's hash.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

from vmwright.guest.seed import seed_hash
from vmwright.spec.cloud import GuestSpec, VmSpec

_DIGITS = 4
_WORDS = {"disks": "disks to mount", "ntp": "NTP servers", "write_files": "files", "runcmd": "commands"}


def seed_mark(cloud: str, vm: VmSpec) -> str:
    """The mark of the cloud-init data that the spec asks for."""
    bare = replace(vm, nics=(), data_disks=(), guest=GuestSpec())
    empty = seed_hash(cloud, bare)
    parts = ((name, seed_hash(cloud, part)) for name, part in _parts(vm, bare))
    return " ".join([seed_hash(cloud, vm), *(f"{name}={found[:_DIGITS]}" for name, found in parts if found != empty)])


def _parts(vm: VmSpec, bare: VmSpec) -> Iterator[tuple[str, VmSpec]]:
    """The VM with one part of its cloud-init data at a time."""
    yield "network", replace(bare, nics=vm.nics)
    yield "disks", replace(bare, data_disks=vm.data_disks)
    for part in fields(GuestSpec):
        value = getattr(vm.guest, part.name)
        if value:
            yield part.name, replace(bare, guest=replace(bare.guest, **{part.name: value}))


def is_current(mark: str, cloud: str, vm: VmSpec) -> bool:
    """Whether the guest of that mark was told what the spec asks for."""
    return mark.partition(" ")[0] == seed_hash(cloud, vm)


def what_differs(old: str, new: str) -> str:
    """The parts in which two marks differ, in words; empty when they do not tell."""
    before, after = _split(old), _split(new)
    if not before:
        return ""
    return ", ".join(_WORDS.get(name, name) for name in {**after, **before} if before.get(name) != after.get(name))


def _split(mark: str) -> dict[str, str]:
    return dict(word.partition("=")[::2] for word in mark.split(" ")[1:] if "=" in word)
