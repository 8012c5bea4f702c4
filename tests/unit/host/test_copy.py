"""Putting images in their place, for real: no name that is taken is touched."""

from __future__ import annotations

import os
from pathlib import Path

from vmwright.host.copy import claim, copy, publish
from vmwright.host.run import run


def test_a_claimed_name_is_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "root.qcow2"
    assert run(claim(str(path))).code == 0
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"", 0o600)
    path.write_bytes(b"somebody's")
    assert run(claim(str(path)), check=False).code != 0
    assert path.read_bytes() == b"somebody's"


def test_a_copy_has_all_bytes_and_keeps_the_claim(tmp_path: Path) -> None:
    source, target = tmp_path / "base", tmp_path / "root"
    source.write_bytes(os.urandom(5 << 20) + bytes(64 << 20) + os.urandom(4097))
    run(claim(str(target)))
    run(copy(str(source), str(target)))
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o600
    assert target.stat().st_blocks * 512 < 32 << 20, "holes were filled"


def test_a_copy_that_fails_says_why(tmp_path: Path) -> None:
    run(claim(str(tmp_path / "root")))
    done = run(copy(str(tmp_path / "nothing"), str(tmp_path / "root")), check=False)
    assert done.code != 0 and b"No such file" in done.stderr


def test_a_name_is_given_once(tmp_path: Path) -> None:
    first, second, target = tmp_path / "a", tmp_path / "b", tmp_path / "template"
    first.write_text("first")
    second.write_text("second")
    assert run(publish(str(first), str(target))).code == 0
    assert run(publish(str(second), str(target)), check=False).code != 0
    assert (target.read_text(), second.read_text(), first.exists()) == ("first", "second", False)
