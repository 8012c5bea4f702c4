"""Users: model -> resolved; reads the files of keys and password hashes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from vmwright.spec import keyfiles
from vmwright.spec.cloud import Sudo, UserSpec
from vmwright.spec.findings import Findings
from vmwright.spec.hosts import valid_user
from vmwright.spec.model import Spec, UserIn
from vmwright.spec.yaml import KeyPath


def base_of(findings: Findings, path: KeyPath) -> Path:
    """The directory that a relative path written there starts from: that of the file it stands in."""
    return Path(findings.where(path).file).parent


def resolve_users(spec: Spec, findings: Findings) -> dict[str, UserSpec]:
    """The users by name."""
    return {name: _user(("users", name), name, user, findings) for name, user in spec.users.items()}


def _user(path: KeyPath, name: str, user: UserIn, findings: Findings) -> UserSpec:
    valid_user(findings, path, name, "user name")
    for position, group in enumerate(user.groups):
        valid_user(findings, (*path, "groups", position), group, "group name")
    keys = [
        key
        for position, text in enumerate(user.ssh_keys)
        for key in _keys((*path, "ssh_keys", position), text, findings)
    ]
    password = _hash((*path, "password_hash_file"), user.password_hash_file, findings)
    _check_login(path, user, findings)
    return UserSpec(
        name=name,
        ssh_keys=tuple(dict.fromkeys(keys)),
        sudo=user.sudo,
        password_hash=password,
        shell=user.shell,
        groups=tuple(user.groups),
        key_files=_key_files(path, user, findings),
        where=findings.where(path, key=True),
    )


def _keys(path: KeyPath, text: str, findings: Findings) -> tuple[str, ...]:
    try:
        return keyfiles.ssh_keys(text, base_of(findings, path))
    except keyfiles.Wrong as wrong:
        findings.error(path, wrong.what, wrong.todo)
    except keyfiles.Absent as absent:
        findings.absent(path, f"the key file {absent}", absent.todo)
    return ()


def _key_files(path: KeyPath, user: UserIn, findings: Findings) -> tuple[str, ...]:
    """The files among the keys; one that cannot even be named has been told of with its key."""
    found = []
    for text in filter(keyfiles.is_path, user.ssh_keys):
        with suppress(keyfiles.Absent):
            found.append(str(keyfiles.local_path(text, base_of(findings, path))))
    return tuple(found)


def _hash(path: KeyPath, text: str | None, findings: Findings) -> str | None:
    if text is None:
        return None
    try:
        return keyfiles.password_hash(text, base_of(findings, path))
    except keyfiles.Wrong as wrong:
        findings.error(path, wrong.what, wrong.todo)
    except keyfiles.Absent as absent:
        findings.absent(path, f"the file of the password hash {absent}", absent.todo)
    return None


def _check_login(path: KeyPath, user: UserIn, findings: Findings) -> None:
    if findings.broken(*map(str, path)):
        return
    if user.sudo is Sudo.PASSWORD and user.password_hash_file is None:
        todo = "add password_hash_file, or write sudo: nopasswd"
        findings.error((*path, "sudo"), "sudo asks for a password, but the user has none", todo)
    if not user.ssh_keys and user.password_hash_file is None:
        findings.warn(path, "has neither ssh_keys nor password_hash_file: nobody can log in as this user")
