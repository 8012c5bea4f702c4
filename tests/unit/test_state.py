"""What is kept on this machine: where it is, and the host keys of guests."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from vmwright.state import State

KEY, OTHER = "ssh-ed25519 AAAA", "ssh-rsa BBBB"


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "vmwright" / "lab")


def lines(state: State) -> list[str]:
    return state.known_hosts.read_text().splitlines()


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert State.of("lab").known_hosts == Path("/state/vmwright/lab/known_hosts")
    assert State.of("lab").journals == Path("/state/vmwright/lab/journal")
    assert State.of("lab").cache == Path("/state/vmwright/lab/cache")
    monkeypatch.setenv("HOME", "/home/me")
    for unset in ("", "relative"):  # the XDG specification: relative paths are ignored
        monkeypatch.setenv("XDG_STATE_HOME", unset)
        assert State.of("lab").folder == Path("/home/me/.local/state/vmwright/lab")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert State.of("lab").folder == Path("/home/me/.local/state/vmwright/lab")


def test_a_guest_is_known_by_its_name_and_addresses(state: State) -> None:
    state.remember_guest("web", ["10.0.0.10", "10.1.0.10"], [f"{KEY} root@web", OTHER])
    assert lines(state) == [f"web,10.0.0.10,10.1.0.10 {KEY}", f"web,10.0.0.10,10.1.0.10 {OTHER}"]


def test_new_keys_take_the_place_of_old_ones(state: State) -> None:
    state.remember_guest("web", ["10.0.0.10"], [KEY, OTHER])
    state.remember_guest("db", ["10.0.0.11"], [KEY])
    state.remember_guest("web", ["10.0.0.12"], ["ssh-ed25519 CCCC"])
    assert lines(state) == [f"db,10.0.0.11 {KEY}", "web,10.0.0.12 ssh-ed25519 CCCC"]


def test_a_name_is_not_part_of_another(state: State) -> None:
    for name in ("web", "web-1", "we"):
        state.remember_guest(name, [], [KEY])
    state.forget_guest("web")
    assert lines(state) == [f"web-1 {KEY}", f"we {KEY}"]


def test_an_address_belongs_to_who_has_it_now(state: State) -> None:
    """Else the old guest's key would be good for the new one's address."""
    state.remember_guest("old", ["10.0.0.10", "10.0.0.11"], [KEY])
    state.remember_guest("new", ["10.0.0.10"], [OTHER])
    assert lines(state) == [f"old,10.0.0.11 {KEY}", f"new,10.0.0.10 {OTHER}"]


def test_what_is_no_key_is_left_out(state: State) -> None:
    state.remember_guest("web", ["10.0.0.10", "10.0.0.10"], ["", "nonsense", KEY])
    assert lines(state) == [f"web,10.0.0.10 {KEY}"]


def test_forgetting_what_is_not_known_writes_nothing(state: State) -> None:
    state.forget_guest("web")
    assert not state.folder.exists()
    state.remember_guest("web", [], [KEY])
    before = state.known_hosts.stat().st_ino
    state.remember_guest("web", [], [KEY])
    state.forget_guest("db")
    assert state.known_hosts.stat().st_ino == before


def test_nothing_else_is_left_beside_it(state: State) -> None:
    state.remember_guest("web", [], [KEY])
    assert [path.name for path in state.folder.iterdir()] == ["known_hosts"]


def test_many_guests_at_once_lose_nothing(state: State) -> None:
    threads = [threading.Thread(target=state.remember_guest, args=(f"vm-{n}", [f"10.0.0.{n}"], [KEY]))
               for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(lines(state)) == sorted(f"vm-{n},10.0.0.{n} {KEY}" for n in range(20))


def test_what_a_user_added_stays(state: State) -> None:
    state.folder.mkdir(parents=True)
    state.known_hosts.write_text(f"# mine\n|1|hash|ed= {KEY}\n\nbastion,10.0.0.10 {OTHER}\n")
    state.remember_guest("web", ["10.0.0.10"], [KEY])
    assert lines(state) == ["# mine", f"|1|hash|ed= {KEY}", "", f"bastion {OTHER}", f"web,10.0.0.10 {KEY}"]
