"""Downloads on the host with curl: resumed when cut off, tried again within bounds, room on the disk watched.

curl's own --retry cannot be used together with --continue-at: at every retry it cuts the file back to the length it had
when curl was started. So each attempt here is a curl of its own, which goes on at the end of the partial file.
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from posixpath import basename, dirname
from urllib.parse import unquote, urlsplit, urlunsplit

from vmwright.errors import Cancelled, HostError, VmwrightError
from vmwright.host.run import Completed, Host, failed
from vmwright.units import format_size

Progress = Callable[[str, float | None], None]

# A connection that moves less than this for so many seconds is given up, and taken up again.
_SLOWEST, _SLOW_SECONDS, _CONNECT_SECONDS = 1024, 60, 30
_FRUITLESS = 5  # attempts in a row that bring no new byte
_ATTEMPTS = 50  # in all: a line may break again and again, as long as it brings something
_LIST_BYTES = 4 << 20  # no publisher's list of sums is longer
_PASSING = {5, 6, 7, 16, 18, 28, 35, 52, 55, 56, 92}  # exit codes of curl that may be gone at the next attempt
_PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}
_NO_RANGES, _TOO_LARGE, _WRITE_ERROR, _REFUSED_BY_SERVER = 33, 63, 23, 22
_TOO_LARGE_SIGNAL = 128 + signal.SIGXFSZ  # as a shell says it
_AGAIN = "run the same again: it goes on where it stopped"
_REMEDIES = (
    ({5}, "the proxy's name is unknown to the host: check `proxy:`"),
    ({6}, "the host does not know that name: check the URL and the host's DNS"),
    ({7}, "nothing answers there: check the URL, the host's way to the Internet, and whether it needs a `proxy:`"),
    ({1, 47}, "the server sends us elsewhere, over and over or away from https: give the address where it ends"),
    ({35, 51, 58, 60, 77}, "the server's certificate is not accepted: check the host's clock and its ca-certificates"),
    ({28}, f"the connection stalls: check the host's network, then {_AGAIN}"),
)
_METER = re.compile(r"\s*\d+\s+([\d.]+)([kMGTP]?)\s+\d+\s+([\d.]+)([kMGTP]?)\s+\d+\s+")
_SCALE = {"": 0, "k": 10, "M": 20, "G": 30, "T": 40, "P": 50}


@dataclass(frozen=True)
class Job:
    """What every step of fetching an image is given. `work` is a directory on the host that is ours alone."""

    host: Host
    work: str
    progress: Progress
    cancel: threading.Event
    proxy: str | None = None

    def run(self, argv: list[str], *, check: bool = True, timeout: float | None = None,
            on_line: Callable[[str], None] | None = None) -> Completed:
        """Run a command on the host until it ends or the job is cancelled."""
        return self.host.run(argv, check=check, timeout=timeout, on_line=on_line, cancel=self.cancel)

    def going(self) -> None:
        """Raises Cancelled when the job was cancelled."""
        if self.cancel.is_set():
            raise Cancelled("stopped: the image was not fetched")

    def size(self, path: str) -> int:
        """Bytes of a file on the host; 0 when it is not there."""
        done = self.run(["stat", "--format=%s", "--", path], check=False)
        return int(done.text) if done.code == 0 else 0

    def room(self, directory: str) -> int:
        """Bytes free on the file system of a directory of the host."""
        return int(self.run(["df", "--output=avail", "--block-size=1", "--", directory]).text.split()[-1])

    def remove(self, *paths: str) -> None:
        """Remove files on the host, also after a cancel. A failure is left to the error that is on its way."""
        with suppress(VmwrightError):
            self.host.run(["rm", "-f", "--", *paths])


class NotThere(HostError):
    """The server says that there is no such file."""


@dataclass(frozen=True)
class Address:
    """A URL as it may be shown, and the user and password that were in it."""

    url: str
    login: str | None = None


def address(url: str) -> Address:
    """Take the login out of a URL, so that it reaches neither a command line nor a message."""
    parts = urlsplit(url)
    login, at, place = parts.netloc.rpartition("@")
    return Address(urlunsplit(parts._replace(netloc=place)), unquote(login) if at else None)


def curl_argv(url: str, output: str, *, room: int, secure: bool, proxy: str | None = None,
              config: str | None = None) -> list[str]:
    """One attempt at one file, of at most `room` bytes. It goes on at the end of `output`; `secure` allows https only.

    `config` is a file with what must not be seen in a list of processes. The user's ~/.curlrc is not read.
    """
    return [
        "curl", "--disable", *(["--config", config] if config else []),
        "--fail", "--location", "--max-redirs", "10", "--globoff",
        "--proto", "=https" if secure else "=https,http",
        "--connect-timeout", str(_CONNECT_SECONDS), "--speed-limit", str(_SLOWEST), "--speed-time", str(_SLOW_SECONDS),
        "--max-filesize", str(max(room, 1)),  # 0 would mean: no limit
        *(["--proxy", proxy] if proxy else []), "--noproxy", "localhost,127.0.0.1,::1",
        "--continue-at", "-", "--output", output, "--write-out", "%{http_code}", "--url", url,
    ]


def curl_config(login: str | None, proxy: str | None) -> str:
    """The text of a curl configuration file with a login and a proxy that has one; "" when there is no secret."""
    secrets = {"user": login, "proxy": proxy if proxy and "@" in proxy else None}
    return "".join(f'{key} = "{_escape(value)}"\n' for key, value in secrets.items() if value)


def parse_meter(line: str) -> tuple[int, int] | None:
    """(bytes received, bytes in all) of this attempt, from a line of curl's progress meter; None for any other line."""
    match = _METER.match(line)
    if not match:
        return None
    total, received = (int(float(match[n]) * (1 << _SCALE[match[n + 1]])) for n in (1, 3))
    return received, total


def download(job: Job, url: str, partial: str) -> bool:
    """Fetch `url` into the file `partial` on the host, going on where it ends. True: it came in more than one piece.

    What is there afterwards may still be wrong: only its check sum can tell. Raises NotThere, HostError, Cancelled.
    """
    had = most = job.size(partial)
    resumed, fruitless = had > 0, 0
    for attempt in range(1, _ATTEMPTS + 1):
        done = _attempt(job, url, partial, had)
        if done.code == 0 or _status(done) == 416:  # 416: the file was whole already, or is another one than it was
            break
        if done.code == _NO_RANGES:
            job.progress("the server cannot go on in the middle: starting from zero", None)
            job.remove(partial)
            had, resumed = 0, False
            continue
        had = job.size(partial)
        fruitless = 0 if had > most else fruitless + 1
        if not _passing(done) or fruitless >= _FRUITLESS or attempt == _ATTEMPTS:
            raise _error(job, url, partial, done)
        most, resumed = max(most, had), had > 0
        _pause(job, fruitless)
    return resumed


def text(job: Job, url: str, *, secure: bool) -> str:
    """The text at a URL: a publisher's list of sums. Raises NotThere, HostError, Cancelled."""
    path = f"{job.work}/sums"
    shown = address(url)
    for fruitless in range(1, _FRUITLESS + 1):
        job.remove(path)
        with _config(job, shown.login) as config:
            curl = curl_argv(shown.url, path, room=_LIST_BYTES, secure=secure, proxy=_plain_proxy(job.proxy),
                             config=config)
            done = job.run(["prlimit", f"--fsize={_LIST_BYTES}", *curl], check=False, timeout=300)
        if done.code == 0:
            break
        if done.code in (_TOO_LARGE, _TOO_LARGE_SIGNAL):
            raise HostError(f"{shown.url} is no list of check sums: it is longer than {format_size(_LIST_BYTES)}",
                            todo="give the URL of the publisher's list as `sums:`, or the sum itself as `sha256:`")
        if not _passing(done) or fruitless == _FRUITLESS:
            raise _error(job, shown.url, path, done)
        _pause(job, fruitless)
    found = job.run(["cat", "--", path]).stdout.decode(errors="replace")
    job.remove(path)
    return found


def _attempt(job: Job, url: str, partial: str, had: int) -> Completed:
    shown = address(url)
    name = unquote(basename(urlsplit(shown.url).path))

    def on_line(line: str) -> None:
        if (meter := parse_meter(line)) and any(meter):
            received, total = meter[0] + had, meter[1] + had
            whole, share = (f" of {format_size(total)}", min(received / total, 1.0)) if meter[1] else ("", None)
            job.progress(f"downloading {name}: {format_size(received)}{whole}", share)

    with _config(job, shown.login) as config:
        return job.run(curl_argv(shown.url, partial, room=job.room(dirname(partial)), secure=False,
                                 proxy=_plain_proxy(job.proxy), config=config), check=False, on_line=on_line)


@contextmanager
def _config(job: Job, login: str | None) -> Iterator[str | None]:
    """A file that only root can read, with the login and the proxy, while it is needed; None without secrets."""
    content = curl_config(login, job.proxy)
    if not content:
        yield None
        return
    path = f"{job.work}/curl.conf"
    try:
        job.host.write(path, content.encode(), mode=0o600)
        yield path
    finally:
        job.remove(path)


def _plain_proxy(proxy: str | None) -> str | None:
    return proxy if proxy and "@" not in proxy else None


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def _pause(job: Job, fruitless: int) -> None:
    """Wait longer after each attempt that brought nothing: 1, 1, 2, 4, 8 seconds."""
    seconds = 1 << max(0, fruitless - 1)
    job.progress(f"the connection broke: going on in {seconds} s", None)
    job.cancel.wait(seconds)
    job.going()


def _status(done: Completed) -> int:
    """The HTTP status that an attempt ended with; 0 when there was none."""
    return int(done.text) if done.text.isdigit() else 0


def _passing(done: Completed) -> bool:
    return done.code in _PASSING or (done.code == _REFUSED_BY_SERVER and _status(done) in _PASSING_STATUS)


def _error(job: Job, url: str, path: str, done: Completed) -> VmwrightError:
    """What the failure of an attempt means, and what to do."""
    where, shown, directory = job.host.name, address(url).url, dirname(path)
    lines = done.stderr.decode(errors="replace").replace("\r", "\n").splitlines()
    said = [line for line in lines if line.startswith("curl: ")]
    why = "\n".join([*said[-1:], *failed(done).why.splitlines()[:1]])
    if done.code in (_TOO_LARGE, _WRITE_ERROR):
        job.remove(path)  # a full file system is the worse trouble: guests live on it, too
        return no_room(job, shown, directory, why)
    if _status(done) in (404, 410):
        return NotThere(f"there is no {shown}", why=why, todo="check the URL: publishers move and remove old images")
    if _status(done) in (401, 403, 407):
        return HostError(f"host {where} may not download {shown}", why=why, todo="check the URL, its login, the proxy")
    todo = next((remedy for codes, remedy in _REMEDIES if done.code in codes), _AGAIN)
    return HostError(f"host {where} cannot download {shown}", why=why, todo=todo)


def no_room(job: Job, what: str, directory: str, why: str) -> HostError:
    """The error for a full file system, with the room that is left there."""
    free = format_size(job.room(directory))
    return HostError(f"no room on host {job.host.name} for {what}: {free} free in {directory}", why=why,
                     todo=f"make room on the file system of {directory}, then run the same again")
