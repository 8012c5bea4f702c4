"""Old host images are removed, and never one that a rack stands on, whoever is quicker."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import vmwright
from vmwright.errors import HostError
from vmwright.rack import image, record, shelf
from vmwright.rack.contents import Image
from vmwright.rack.record import Disks
from vmwright.rack.shape import REFERENCE


def made(cache: Path, name: str, age: int) -> Path:
    """An image that was made so many hours ago."""
    path = cache / f"{name}.qcow2"
    path.write_bytes(b"x" * 4096)
    path.with_suffix(".sources").write_text("deb")
    os.utime(path, (time.time() - 3600 * age,) * 2)
    return path


def rack(folder: Path) -> Path:
    folder.mkdir()
    return folder


def names(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir() if path.is_file()}


def test_what_no_rack_stands_on_goes_but_the_newest_of_each_kind(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    old, used, listed, _ = (made(cache, f"ready-{n}{n}", 9 - n) for n in range(4))
    made(cache, "bare-0a", 99)
    (cache / "ready-mine.qcow2.bak").write_text("somebody's own")
    assert shelf.take(used, rack(tmp_path / "lab"))
    assert shelf.take(old, rack(tmp_path / "gone"))
    (tmp_path / "gone").rmdir()
    assert shelf.prune(cache, [str(listed)]) == [("ready-00.qcow2", 4096)]
    assert names(cache) == {"ready-mine.qcow2.bak", "bare-0a.qcow2", "bare-0a.sources"} | {
        f"ready-{n}{n}.{end}" for n in (1, 2, 3) for end in ("qcow2", "sources")}
    assert shelf.prune(cache) == [("ready-22.qcow2", 4096)]
    assert shelf.prune(cache) == []


def test_a_rack_that_takes_another_lets_go_of_the_first(tmp_path: Path) -> None:
    first, second, _ = (made(tmp_path, f"ready-{n}", 9 - n) for n in range(3))
    lab = rack(tmp_path / "lab")
    assert shelf.take(first, lab) and shelf.take(second, lab)
    assert [name for name, _ in shelf.prune(tmp_path)] == ["ready-0.qcow2"]
    assert not shelf.take(first, lab)
    assert not shelf.take(tmp_path / "none" / "ready-0.qcow2", lab)
    assert not (tmp_path / "none").exists()


def test_a_new_image_says_what_it_has_made_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With racks of before the notes, whose records tell; and one that cannot be read may stand on any."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    cache, told = image.cache_folder(), list[str]()
    cache.mkdir(parents=True)
    kept, _ = (made(cache, f"ready-{n}", 9 - n) for n in range(2))
    lab = record.enroll("lab", 22555)
    record.write(record.Record("lab", lab.slot, lab.port, Disks(Image.READY, str(kept), REFERENCE)))
    monkeypatch.setattr(image, "_build", lambda kind, path, *_: made(path.parent, path.stem, 0))

    def tell(text: str, _share: float | None) -> None:
        told.append(text)

    (lab.folder / "rack.json").rename(lab.folder / "kept.json")
    (lab.folder / "rack.json").write_text("{")
    assert image.ready(Image.READY, lab.folder, progress=tell) == image.place(Image.READY)
    assert told == []
    (lab.folder / "kept.json").rename(lab.folder / "rack.json")
    image.place(Image.READY).unlink()
    image.ready(Image.READY, lab.folder, progress=tell)
    assert told == ["removed old images that no rack stands on: ready-1.qcow2 (4K)"]
    assert kept.exists()


_TAKES = """
import sys
from pathlib import Path
from vmwright.rack import shelf
cache, racks = map(Path, sys.argv[1:])
for n in range(60):
    image, rack = cache / f"ready-{n:03}.qcow2", racks / str(n)
    rack.mkdir()
    image.write_text("")
    if shelf.take(image, rack) and n % 2:
        (rack / "disk").write_text(image.name)
    else:
        rack.rmdir()
"""
_PRUNES = """
import sys
from pathlib import Path
from vmwright.rack import shelf
cache = Path(sys.argv[1])
while sys.stdin.readline():
    shelf.prune(cache)
    print("pruned", flush=True)
"""


def test_who_takes_and_who_prunes_at_once(tmp_path: Path) -> None:
    """Two processes: what has been taken is there."""
    cache, racks = rack(tmp_path / "cache"), rack(tmp_path / "racks")
    environment = {**os.environ, "PYTHONPATH": str(Path(vmwright.__file__).parents[1])}
    made(cache, "ready-fff", -1)  # always the newest
    with subprocess.Popen([sys.executable, "-c", _PRUNES, str(cache)], env=environment, text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as pruner, \
            subprocess.Popen([sys.executable, "-c", _TAKES, str(cache), str(racks)], env=environment) as taker:
        assert pruner.stdin is not None and pruner.stdout is not None
        while True:
            over = taker.poll() is not None
            pruner.stdin.write("now\n")
            pruner.stdin.flush()
            assert pruner.stdout.readline() == "pruned\n"
            if over:
                break
        pruner.stdin.close()
        assert taker.returncode == 0
    taken = {disk.read_text() for disk in racks.glob("*/disk")}
    assert taken and names(cache) == taken | {"ready-fff.qcow2", "ready-fff.sources"}


def test_one_waits_for_the_other(tmp_path: Path) -> None:
    path = made(tmp_path, "ready-0", 9)
    made(tmp_path, "ready-1", 0)
    lab, done = rack(tmp_path / "lab"), list[str]()
    with shelf._alone(tmp_path):
        pruning = threading.Thread(target=lambda: done.extend(name for name, _ in shelf.prune(tmp_path)))
        pruning.start()
        pruning.join(0.2)
        assert pruning.is_alive() and path.exists()
        (tmp_path / "racks" / "by-hand").write_text(f"{path.name}\n{lab}\n")
    pruning.join()
    assert done == [] and path.exists()


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    path = made(tmp_path, "ready-0", 0)
    (tmp_path / "racks").write_text("in the way")
    with pytest.raises(HostError, match=f"cannot write {tmp_path}/racks"):
        shelf.take(path, tmp_path)
