"""argv builders: packages of a host, by its own tool. Pure.

The host's own settings count: mirrors and proxies of apt and dnf, and the proxy of /etc/environment.
"""

from __future__ import annotations

from collections.abc import Sequence

_LOCK_SECONDS = 120  # another package manager may be at work for a while, like the nightly one

# What root's programs are told at a login. A proxy there is meant for all of them.
_WITH_ENVIRONMENT = """
set -a
[ ! -r /etc/environment ] || . /etc/environment
PATH=/usr/sbin:/usr/bin:/sbin:/bin
set +a
exec "$@"
"""

_APT = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "-o", f"DPkg::Lock::Timeout={_LOCK_SECONDS}",
        "-o", "Dpkg::Use-Pty=0", "-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold",
        "-o", "APT::Update::Error-Mode=any")


def _with_environment(*argv: str) -> list[str]:
    return ["sh", "-c", _WITH_ENVIRONMENT, "sh", *argv]


def mend(tool: str) -> list[str] | None:
    """Finish what an installation that was cut off has left half configured; None where nothing is left so."""
    return ["env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "--configure", "-a", "--force-confdef",
            "--force-confold"] if tool == "apt-get" else None


def refresh(tool: str) -> list[str]:
    """Fetch the lists of packages; fails when any of them cannot be fetched."""
    return _with_environment(*_APT, "update") if tool == "apt-get" else \
        _with_environment("dnf", "-q", "-y", "makecache")


def install(tool: str, packages: Sequence[str]) -> list[str]:
    """Install packages with what they depend on and nothing else; all of them are fetched before any is installed."""
    if tool == "apt-get":
        return _with_environment(*_APT, "install", "--no-install-recommends", *packages)
    return _with_environment("dnf", "-y", "--setopt=install_weak_deps=False", "install", *packages)


def start(services: Sequence[str]) -> list[str]:
    """Have units started now and at boot."""
    return ["systemctl", "enable", "--now", "--", *services]
