"""The files a spec refers to on this machine: SSH keys, password hashes, texts. Nothing in them is ever shown."""

from __future__ import annotations

import base64
import binascii
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

KEY_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
_CRYPT = re.compile(r"\$(y|gy|7|6|5|2[abxy]|sha1)\$[./A-Za-z0-9$=,]+")
_DEFAULT_KEY = re.compile(r"id_(ed25519|ecdsa|rsa)\.pub")
_LARGEST = 1 << 20
_SHOWN = 4


class Wrong(Exception):
    """The file (or text) is there, but not what it should be."""

    def __init__(self, what: str, todo: str = "") -> None:
        super().__init__(what)
        self.what, self.todo = what, todo


@dataclass(frozen=True)
class Absent(Exception):
    """The file is not on this machine, or cannot be read."""

    what: str
    todo: str

    def __str__(self) -> str:
        return self.what


def is_path(text: str) -> bool:
    """Whether this names a file: starts with ~, / or ./ (or ../)."""
    return text.startswith(("~", "/", "./", "../"))


def local_path(text: str, base: Path) -> Path:
    """The file that is meant: ~ is the home directory, a relative path starts at `base`, where the spec file is."""
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise Absent(f"{text}: there is no such home directory on this machine", "name the whole path") from None
    return path if path.is_absolute() else (base / path).absolute()


def absent(text: str, path: Path) -> Absent:
    """The error of a file that is not there, with the name that may have been meant."""
    return Absent(f"{text} is not on this machine", _similar(text, path))


def _similar(text: str, path: Path) -> str:
    try:
        there = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    except OSError:
        there = []
    close = get_close_matches(path.name, there, n=1)
    return f"did you mean {_beside(text, close[0])}?" if close else "put the file there, or name one that is there"


def _beside(text: str, name: str) -> str:
    """The name of another file in the same directory, as the user would write it."""
    return f"{text.rpartition('/')[0]}/{name}"


def _make_keys(text: str, path: Path) -> str:
    """What to do about a key file that is not there. A private half that is there is not to be written over."""
    private, public = shlex.quote(str(path.with_suffix(""))), shlex.quote(str(path))
    if path.suffix == ".pub" and path.with_suffix("").is_file():
        return f"write it from its private half: ssh-keygen -y -f {private} > {public}"
    others = [_beside(text, other.name) for other in sorted(path.parent.glob("*.pub")) if other.is_file()]
    todo = [f"make it: ssh-keygen -t {known[1]} -f {private}"] if (known := _DEFAULT_KEY.fullmatch(path.name)) else []
    todo += [f"name the one that is there: {others[0]}"] if len(others) == 1 else []
    todo += [f"name one that is there: {', '.join(others[:_SHOWN])}"] if len(others) > 1 else []
    return "\nor ".join(todo) or "name a file of public keys that is there"


def read_text(text: str, base: Path, instead: Callable[[str, Path], str] = _similar) -> str:
    """The text in a file of this machine; `instead` says what to do when it is not there. Raises Absent or Wrong."""
    path = local_path(text, base)
    try:
        if path.is_file() and path.stat().st_size > _LARGEST:
            raise Wrong(f"{text} is larger than 1 MiB")
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise Wrong(f"{text} is not UTF-8 text") from None
    except FileNotFoundError:
        raise Absent(f"{text} is not on this machine", instead(text, path)) from None
    except OSError as error:
        raise Absent(f"{text} cannot be read: {error.strerror}", "name a file that you can read") from None


def ssh_keys(text: str, base: Path) -> tuple[str, ...]:
    """The public keys that an item of ssh_keys stands for. Raises Absent or Wrong."""
    if not is_path(text):
        return (_public_key(text.strip(), "this"),)
    content = read_text(text, base, _make_keys)
    if _is_private(content):
        public = f"{text}.pub"
        todo = f"name the public half: {public}" if not text.endswith(".pub") else "name the file of the public half"
        raise Wrong(f"{text} holds a PRIVATE key", todo)
    lines = [line.strip() for line in content.splitlines()]
    keys = tuple(_public_key(line, f"a line of {text}") for line in lines if line and not line.startswith("#"))
    if not keys:
        raise Wrong(f"{text} holds no key")
    return keys


def password_hash(text: str, base: Path) -> str:
    """The crypt(3) hash in a file. Raises Absent or Wrong."""
    todo = "write the hash into a file that only you can read: openssl passwd -6 > FILE"
    if text.startswith("$"):
        raise Wrong("this is a hash, where the name of a file is needed", todo)
    content = read_text(text, base, lambda _, path: todo.replace("FILE", shlex.quote(str(path)))).strip()
    if not _CRYPT.fullmatch(content):
        raise Wrong(f"{text} holds no password hash ($6$... or $y$...); plain text is never taken", todo)
    return content


def _is_private(content: str) -> bool:
    return "PRIVATE KEY-----" in content or content.startswith("PuTTY-User-Key-File")


def _public_key(line: str, what: str) -> str:
    """The line, when it is a public key (options before it are allowed, a comment after it, too)."""
    if _is_private(line):
        raise Wrong(f"{what} is a PRIVATE key", "name the public half, and take this one out of the file")
    words = line.split()
    kind = next((word for word in words if word in KEY_TYPES), None)
    blob = words[words.index(kind) + 1] if kind and words.index(kind) + 1 < len(words) else ""
    if kind is None or not _holds(blob, kind) or "\n" in line:
        todo = "write TYPE KEY [COMMENT], like ssh-ed25519 AAAA... me; or a file (~, / or ./): ~/.ssh/id_ed25519.pub"
        raise Wrong(f"{what} is not a public SSH key", todo)
    return line


def _holds(blob: str, kind: str) -> bool:
    """Whether the key's own data names the same type (RFC 4253, section 6.6: its first field)."""
    try:
        data = base64.b64decode(blob, validate=True)
    except (binascii.Error, ValueError):
        return False
    name = kind.encode()
    return (
        data[:4] == len(name).to_bytes(4, "big") and data[4 : 4 + len(name)] == name and len(data) > 4 + len(name) + 16
    )
