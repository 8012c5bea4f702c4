"""Where a host gets its Debian packages from: read from its apt configuration, or given by the user.

apt itself says which archives its configuration names (`apt-get indextargets`), whatever the form of the files. What
it says of an archive comes from the archive's own Release file, so other publishers' archives are told apart by Origin.
"""

from __future__ import annotations

import re
import shlex
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from vmwright.errors import HostError
from vmwright.host.run import Host

DEBIAN_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_FORMAT = "$(REPO_URI)|$(RELEASE)|$(CODENAME)|$(COMPONENT)|$(ORIGIN)|$(SOURCESENTRY)"
_FIELDS = 6
_KINDS = ("", "-updates", "-security")  # of suites that a guest needs; not -backports, not -proposed-updates
_ROLLING = ("sid", "unstable")  # have neither updates nor security
_SECONDS = 300
_GIVE = "name one in the file: mirror: http://HOST/debian, with the template or under defaults"


@dataclass(frozen=True)
class Target:
    """One index that apt knows: the repository's address, the suite as configured, its codename, component, origin."""

    uri: str
    suite: str
    codename: str
    component: str
    origin: str
    entry: str  # where it stands: FILE:NUMBER


@dataclass(frozen=True)
class Archive:
    """A suite of a repository. `key` is the path of the keyring, on the host, that its signature is checked with."""

    uri: str
    suite: str
    components: tuple[str, ...] = ("main",)
    key: str = DEBIAN_KEYRING

    @property
    def stanza(self) -> str:
        """It as apt reads it (sources.list(5), deb822)."""
        return (f"Types: deb\nURIs: {self.uri}\nSuites: {self.suite}\nComponents: {' '.join(self.components)}\n"
                f"Signed-By: {self.key}\n")


def sources_text(archives: Iterable[Archive]) -> str:
    """The text of a .sources file."""
    return "\n".join(archive.stanza for archive in archives)


def targets_argv(lists: str | None = None) -> list[str]:
    """The command that prints what apt is configured with; `lists` is another directory of package lists."""
    return ["apt-get", "indextargets", *_lists(lists), "--format", _FORMAT, "Created-By: Packages"]


def update_argv(lists: str) -> list[str]:
    """The command that fetches package lists into a directory of ours; the host's own stay as they are."""
    return ["apt-get", "update", *_lists(lists), "-o", "Acquire::Languages=none", "-o", "APT::Sandbox::User=root",
            "-o", "Acquire::http::Timeout=30", "-o", "Acquire::Retries=2"]


def _lists(lists: str | None) -> list[str]:
    return ["-o", f"Dir::State::lists={lists}"] if lists else []


def parse_targets(text: str) -> tuple[Target, ...]:
    """What `targets_argv` printed."""
    lines = (line.split("|") for line in text.splitlines())
    return tuple(Target(*fields) for fields in lines if len(fields) == _FIELDS)


def choose(targets: Sequence[Target], release: str) -> tuple[Archive, ...]:
    """The archives for a guest of `release`: the repositories that the host itself uses, that release's suites in them.

    Updates and security come from where the host has its own. Empty when the host has no Debian repository. The host's
    components are taken over where the guest has the host's release, else it gets main.
    """
    archives: list[Archive] = []
    for kind in _KINDS if release not in _ROLLING else _KINDS[:1]:
        mine = [target for target in targets if target.origin == "Debian" and _kind(target) == kind]
        for uri in dict.fromkeys(target.uri for target in mine):
            same = [t.component for t in mine if t.uri == uri and release in (_base(t.suite), _base(t.codename))]
            archives.append(Archive(uri, release + kind, tuple(dict.fromkeys(["main", *same]))))
    return tuple(archives) if any(archive.suite == release for archive in archives) else ()


def _kind(target: Target) -> str | None:
    suffix = target.suite.removeprefix(_base(target.suite))
    return suffix if suffix in _KINDS else None


def _base(suite: str) -> str:
    return suite.partition("-")[0].partition("/")[0]


def given(mirror: str, release: str, security: bool) -> tuple[Archive, ...]:
    """The archives of a mirror that the user names. `security`: there is a security archive beside it."""
    uri = mirror.rstrip("/") + "/"
    archives = [Archive(uri, release)]
    if release not in _ROLLING:
        archives.append(Archive(uri, f"{release}-updates"))
    if security and release not in _ROLLING:
        archives.append(Archive(security_beside(mirror), f"{release}-security"))
    return tuple(archives)


def security_beside(mirror: str) -> str:
    """Where mirrors keep Debian's security archive: beside the main one, under its name with -security."""
    return mirror.rstrip("/") + "-security/"


def listed(text: str) -> str | None:
    """The first address in a list of mirrors (apt-transport-mirror(1)); None when there is none."""
    lines = (line.split("#")[0].split() for line in text.splitlines())
    return next((words[0] for words in lines if words), None)


def signed_by(text: str) -> str | None:
    """The keyring that a file of apt's sources names, when it names exactly one; None else."""
    found = set(re.findall(r"(?im)(?:^\s*signed-by:\s*|\[[^\]]*\bsigned-by=)(/[^\s\],]+)", text))
    return found.pop() if len(found) == 1 else None


def parse_proxies(text: str) -> dict[str, str]:
    """The variables that make apt use the proxies of another apt's configuration, from `apt-config dump`."""
    found = re.findall(r'^Acquire::(https?)::Proxy "([^"]+)";$', text, re.IGNORECASE | re.MULTILINE)
    return {f"{scheme.lower()}_proxy": value for scheme, value in found if value.upper() != "DIRECT"}


def proxies(host: Host, cancel: threading.Event | None = None) -> dict[str, str]:
    """Environment variables for commands that fetch packages the way the host's apt does."""
    done = host.run(["apt-config", "dump", "Acquire::http::Proxy", "Acquire::https::Proxy"], check=False, cancel=cancel)
    return parse_proxies(done.text)


def archives(host: Host, release: str, mirror: str | None, lists: str,
             cancel: threading.Event | None = None) -> tuple[Archive, ...]:
    """The archives for a guest of `release` made on this host. `lists` is a directory of ours, for package lists.

    Raises HostError when the host has no Debian mirror, or one that only the host itself can read.
    """
    if mirror is not None:
        return given(mirror, release, _exists(host, f"{security_beside(mirror)}dists/{release}-security/InRelease",
                                              f"{lists}/security", cancel))
    targets = parse_targets(host.run(targets_argv(), cancel=cancel, check=False).text)
    found = choose(targets, release)
    if not found:
        targets = _fresh(host, lists, cancel)
        found = choose(targets, release)
    if not found:
        raise HostError(f"{host.name} has no Debian mirror in its apt configuration", why=_others(targets), todo=_GIVE)
    keys = {target.uri: _key(host, target, cancel) for target in targets if target.origin == "Debian"}
    return tuple(reachable(host, archive, keys.get(archive.uri), cancel) for archive in found)


def _fresh(host: Host, lists: str, cancel: threading.Event | None) -> tuple[Target, ...]:
    """What apt is configured with, on a host that has no package lists: they are fetched, into a place of ours."""
    host.run(["mkdir", "-p", "--", f"{lists}/partial"], cancel=cancel)
    done = host.run(update_argv(lists), check=False, timeout=_SECONDS, cancel=cancel)
    targets = parse_targets(host.run(targets_argv(lists), check=False, cancel=cancel).text)
    if not targets and (done.code != 0 or b"Failed to fetch" in done.stderr):
        raise HostError(f"the apt mirrors of {host.name} cannot be read", why=tail(done.stderr or done.stdout),
                        todo=f"see that `apt-get update` works on {host.name}, or {_GIVE}")
    return targets


def tail(output: bytes, lines: int = 8) -> str:
    """The last lines of a command's output."""
    return "\n".join(output.decode(errors="replace").strip().splitlines()[-lines:])


def _others(targets: Sequence[Target]) -> str:
    names = sorted({target.origin for target in targets} - {"", "Debian"})
    return f"it names archives of {', '.join(names)}" if names else "it names no archive that says it is Debian's"


def _exists(host: Host, url: str, path: str, cancel: threading.Event | None) -> bool:
    host.run(["mkdir", "-p", "--", path.rpartition("/")[0]], cancel=cancel)
    argv = ["/usr/lib/apt/apt-helper", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=30",
            "-o", "APT::Sandbox::User=root", "download-file", url, path]
    return host.run(argv, check=False, timeout=_SECONDS, cancel=cancel).code == 0


def _key(host: Host, target: Target, cancel: threading.Event | None) -> str | None:
    done = host.run(["cat", "--", target.entry.rpartition(":")[0]], check=False, cancel=cancel)
    return signed_by(done.text)


def reachable(host: Host, archive: Archive, key: str | None, cancel: threading.Event | None = None) -> Archive:
    """The archive as a guest can use it: lists of mirrors that are files of the host are followed.

    Raises HostError for one that only the host can read.
    """
    uri = archive.uri
    if match := re.match(r"mirror\+file:(?://)?(/.+?)/?$", uri):
        uri = listed(host.run(["cat", "--", match[1]], check=False, cancel=cancel).text) or uri
    if urlsplit(uri).scheme.split("+")[-1] not in ("http", "https", "ftp"):
        raise HostError(f"the Debian mirror of {host.name} is {shown(uri)}: a guest cannot reach it", todo=_GIVE)
    return Archive(uri, archive.suite, archive.components, key or archive.key)


def shown(uri: str) -> str:
    """An address without the login that may be in it."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def missing_key(host: Host, archives: Iterable[Archive], cancel: threading.Event | None = None) -> str | None:
    """The first keyring of these archives that the host does not have."""
    keys = list(dict.fromkeys(archive.key for archive in archives))
    script = "; ".join(f"test -r {shlex.quote(key)} || echo {shlex.quote(key)}" for key in keys)
    return host.run(["sh", "-c", script], check=False, cancel=cancel).text.partition("\n")[0] or None
