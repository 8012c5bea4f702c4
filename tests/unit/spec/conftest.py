"""A desk to write spec files on: what they mean, or what is wrong with them."""

from __future__ import annotations

import base64
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from vmwright.errors import SpecError
from vmwright.spec.cloud import Cloud
from vmwright.spec.load import load

BASE = """\
cloud: test
hosts: {here: {pools: {images: {dir: /srv/images}}}}
networks: {lan: {bridge: br0, subnet: 10.0.0.0/24, gateway: 10.0.0.1}}
users: {admin: {ssh_keys: [KEY]}}
templates: {base: {build: debian, disk: 4G}}
"""


def public_key(kind: str = "ssh-ed25519", fill: int = 7) -> str:
    """The text of a public key, well formed, of nobody."""
    name = kind.encode()
    blob = len(name).to_bytes(4, "big") + name + (32).to_bytes(4, "big") + bytes([fill] * 32)
    return f"{kind} {base64.b64encode(blob).decode()} someone"


@dataclass(frozen=True)
class Desk:
    """A directory of spec files."""

    root: Path

    def write(self, text: str | bytes, name: str = "cloud.yaml") -> Path:
        """Write a file; in text, common indentation is taken off."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
        return path

    def load(self, text: str, name: str = "cloud.yaml") -> Cloud:
        """The cloud of this text."""
        return load(self.write(text, name))

    def vms(self, text: str) -> Cloud:
        """The cloud of some VMs (or other sections) behind a base of everything they need."""
        return self.load(self.based(text))

    def based(self, text: str) -> str:
        """Some text behind the base."""
        return BASE.replace("KEY", public_key()) + textwrap.dedent(text)

    def problems(self, text: str | bytes, name: str = "cloud.yaml") -> list[str]:
        """What is wrong with this text; the directory's name is taken off."""
        path = self.write(text, name)
        with pytest.raises(SpecError) as caught:
            load(path)
        return [str(problem).replace(f"{self.root}/", "") for problem in caught.value.problems]

    def wrong(self, text: str) -> list[str]:
        """What is wrong with some VMs behind the base; places count from the base's first line."""
        return self.problems(self.based(text))


def missing(cloud: Cloud) -> list[str]:
    """What is not on this machine, as a user reads it."""
    return [str(problem) for problem in cloud.missing]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """An empty desk."""
    return Desk(tmp_path)
