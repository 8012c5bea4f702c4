"""Record a host for the tests: PYTHONPATH=src:. python -m tests.machines.record CLOUD.YAML NAME

Reads the facts of the file's one host, disks and devices included, and keeps what the host said on the way: NAME.txt
and libvirt-NAME.json beside this file. Look through both before they are committed: they have the host's names,
addresses and serials.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vmwright.cli.common import load_cloud, with_images
from vmwright.facts.gather import gather_host
from vmwright.host.run import Completed
from vmwright.session import Session
from vmwright.virt.connect import Inventory

FOLDER = Path(__file__).parent


def record(file: str, name: str) -> None:
    """Write the two files. What is read is what the reader of facts asks for."""
    cloud, _ = with_images(load_cloud(file))
    session = Session(cloud.hosts[0])
    run, look = session.host.run, session.virt.inventory

    def keep_output(argv: Sequence[str], **options: Any) -> Completed:
        done = run(argv, **options)
        if list(argv) == ["sh", "-s"]:
            (FOLDER / f"{name}.txt").write_text(f"Recorded on {cloud.hosts[0].name}.\n{done.stdout.decode()}")
        return done

    def keep_inventory(refresh: Collection[str] = ()) -> Inventory:
        found = look(refresh)
        (FOLDER / f"libvirt-{name}.json").write_text(json.dumps(asdict(found), indent=1) + "\n")
        return found

    session.host.run = keep_output  # type: ignore[method-assign]
    session.virt.inventory = keep_inventory  # type: ignore[method-assign]
    try:
        gather_host(cloud, session, disks=True, devices=True)
    finally:
        session.close()


if __name__ == "__main__":
    record(*sys.argv[1:])
