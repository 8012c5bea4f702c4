"""Templates from `image:`: a cloud image, fetched, verified, and made into a qcow2 that depends on nothing.

What was fetched from a URL is kept on the host, in HOST_STATE/images:
    URLHASH.partial            an image on its way; the next run goes on where it ends
    URLHASH-DIGEST-FILE        a whole image; it has this name only after its sum was found right
An image is trusted for its sum alone: one in the user's file, or one of the publisher's list, fetched over https.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from posixpath import basename
from urllib.parse import unquote, urlsplit

from vmwright.errors import ApplyError, Problem, SpecError, VmwrightError
from vmwright.host.run import Host
from vmwright.image import catalogue, disk, download, local, sums
from vmwright.image.download import Job, NotThere, Progress
from vmwright.image.local import local_sha256 as local_sha256  # where callers look for it
from vmwright.names import HOST_STATE
from vmwright.spec.cloud import ImageSource
from vmwright.units import content_hash, format_size

CACHE = f"{HOST_STATE}/images"
REQUIRED_TOOLS = {  # program -> Debian package
    "qemu-img": "qemu-utils", "curl": "curl", "xz": "xz-utils", "gzip": "gzip", "zstd": "zstd",
    "sha256sum": "coreutils", "sha512sum": "coreutils", "find": "findutils", "prlimit": "util-linux",
}
_SUM_SECONDS = 3600
_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|::1")


@dataclass(frozen=True)
class Fetched:
    """A template's image: a whole qcow2 at `path` on the host. `sha256` and `origin` are of what it was made from.

    `uefi`: firmware may find an EFI system partition on it. If not, only a VM with `firmware: bios` can boot from it.
    """

    path: str
    format: str
    sha256: str
    virtual_size: int
    origin: str
    uefi: bool = True


def inputs(source: ImageSource, size: int | None) -> tuple[str, ...]:
    """What makes a template's content, for its hash. With a sha256 the address does not matter: the bytes are the same.

    A local file must have its sha256 by then: its name says nothing about what is in it. Raises ValueError else.
    """
    disk_size = str(size) if size is not None else ""
    if source.sha256:
        return "image", f"sha256:{source.sha256.lower()}", disk_size
    if not is_url(source.location):
        raise ValueError(f"the sha256 of {source.location} is not known yet")
    return "image", source.location, source.sums_algorithm, source.sums or "", disk_size


def is_url(location: str) -> bool:
    """Whether a location is a URL, of any kind, and not a path."""
    return "://" in location


def refusal(source: ImageSource) -> Problem | None:
    """Why an image must not be used as it is described, and what to do; None when it may. Pure: `check` can ask.

    The rule: what says which bytes are right must not come over a line on which both could be exchanged together.
    """
    try:
        if source.sha256:
            sums.given(source.sha256)
    except ValueError as error:
        return Problem(str(error), "copy it from the publisher's page, or run sha256sum on the file")
    if not is_url(source.location):
        whole = os.path.isabs(source.location)
        return None if whole else Problem(f"{source.location!r} is neither a URL nor a whole path")
    shown = download.address(source.location).url
    if problem := _bad_url(source.location) or (source.sums and _bad_url(source.sums)):
        return Problem(f"{shown}: {problem}", "write an https:// URL")
    if source.sums_algorithm not in sums.DIGITS:
        return Problem(f"{source.sums_algorithm!r} is no algorithm of check sums", f"use {' or '.join(sums.DIGITS)}")
    if source.sha256:
        return None
    if source.sums is None:
        return Problem(f"nothing says which bytes of {shown} are right",
                       "give its sha256:, or the https URL of the publisher's list (SHA256SUMS, CHECKSUM) as sums:")
    if not _secure(source.sums):
        return Problem(f"the list of sums at {download.address(source.sums).url} comes over plain http: whoever can "
                       "exchange the image on its way can exchange the list, too",
                       "give the image's sha256:, or an https URL as sums:")
    return None


def fetch(host: Host, source: ImageSource, size: int | None, work: str, *, proxy: str | None = None, progress: Progress,
          cancel: threading.Event | None = None, cache: str = CACHE) -> Fetched:
    """Make a template's qcow2 of `size` bytes (None: the image's own size) in the directory `work` on the host.

    `proxy` is used for downloads, by the host. `progress` gets a sentence and a share from 0 to 1, or None. The caller
    owns the file that comes back; after an error or a cancel, nothing of ours is left in `work`. What was downloaded
    stays in `cache`. Raises SpecError (see refusal), ApplyError (the image is not what it should be), HostError and
    Cancelled.
    """
    if problem := refusal(source):
        raise SpecError([problem])
    job = Job(host, work, progress, cancel or threading.Event(), proxy)
    with _workplace(job):
        image = _from_url(job, source, cache) if is_url(source.location) else _from_file(job, source, cache)
        return _make(job, image, size, download.address(source.location).url)


def check_firmware(fetched: Fetched, uefi: Collection[str]) -> None:
    """Refuse an image from which the VMs named in `uefi`, which have that firmware, cannot boot. Raises ApplyError."""
    if uefi and not fetched.uefi:
        raise ApplyError(f"{fetched.origin} cannot be booted by UEFI: it has no EFI system partition",
                         why=f"these VMs have firmware: uefi, and would stop in it: {', '.join(sorted(uefi))}",
                         todo="write firmware: bios for the template, or give an image that is made for UEFI")


@dataclass(frozen=True)
class _Image:
    """A verified image on the host, as published: perhaps compressed."""

    path: str
    sha256: str
    name: str


def _make(job: Job, image: _Image, size: int | None, origin: str) -> Fetched:
    plain = disk.unpack(job, image.path, image.name)
    info = disk.inspect(job, plain, image.name)
    made = disk.convert(job, plain, info, size, image.name)
    if plain != image.path:
        job.remove(plain)
    uefi = disk.boots_uefi(job, made)
    job.going()
    return Fetched(made, "qcow2", image.sha256, max(size or 0, info.virtual_size), origin, uefi)


def _from_url(job: Job, source: ImageSource, cache: str) -> _Image:
    """The image in the host's cache, downloaded when it is not there. A sum that does not fit a file put together of
    pieces may mean that the image was replaced meanwhile: then, once, all of it is downloaded again.
    """
    shown = download.address(source.location).url
    key, name = content_hash(shown, length=16), unquote(basename(urlsplit(shown).path)) or "image"
    partial = f"{cache}/{key}.partial"
    with _alone(f"{job.host.name}:{cache}/{key}", job):
        job.run(["mkdir", "-p", "-m", "0700", "--", cache])
        for again in (True, False):
            wanted = _wanted(job, source)
            path = f"{cache}/{key}-{wanted.digest[:32]}-{re.sub(r'[^A-Za-z0-9._-]', '_', name)[-80:]}"
            if _kept(job, path, wanted, name):
                return _Image(path, _sha256(job, path, wanted), name)
            pieces = _download(job, source, partial)
            actual = _digest(job, partial, wanted.algorithm, name)
            if actual == wanted.digest:
                _keep(job, partial, path, cache, key)
                return _Image(path, _sha256(job, path, wanted), name)
            job.remove(partial)
            if not (pieces and again):
                break
            job.progress(f"{name}: what was there from before does not fit: starting from zero", None)
    raise _mismatch(shown, wanted, actual, "the file was removed from the host", _replaced(source))


def _keep(job: Job, partial: str, path: str, cache: str, key: str) -> None:
    """Give a verified image its name, and drop what the same address gave days ago; what is younger may be in use."""
    job.run(["mv", "-f", "--", partial, path])
    others = ["-name", f"{key}-*", "!", "-name", basename(path), "-mtime", "+0"]
    job.run(["find", cache, "-maxdepth", "1", "-type", "f", *others, "-delete"])


def _replaced(source: ImageSource) -> str:
    if source.sha256:
        return ("it was replaced, or changed on its way: compare with the publisher's page, and give the sha256: that "
                "stands there")
    return "the publisher may be at work on it: try again later, or give the image's sha256:"


def _from_file(job: Job, source: ImageSource, cache: str) -> _Image:
    """A file of this machine, as it is or copied to the host."""
    name = basename(source.location)
    wanted = sums.given(source.sha256) if source.sha256 else None
    try:
        length = os.stat(source.location).st_size
    except OSError as error:
        raise local.unreadable(source.location, error) from error
    if job.host.address != "local":
        if wanted is None:
            job.progress(f"computing the sum of {name}", None)
            wanted = sums.Sum("sha256", local.digest_of(source.location))
        return _Image(_upload(job, source.location, wanted, length, name, cache), wanted.digest, name)
    actual = _digest(job, source.location, "sha256", name)
    if wanted and actual != wanted.digest:
        raise _mismatch(source.location, wanted, actual, "the file is left as it is",
                        "the file was changed: give its new sha256:, or the file that was meant")
    return _Image(source.location, actual, name)


def _upload(job: Job, location: str, wanted: sums.Sum, length: int, name: str, cache: str) -> str:
    """The file in the host's cache. An upload that is cut off may leave a short file: first its sum, then its name."""
    path = f"{cache}/file-{wanted.digest[:32]}"
    with _alone(f"{job.host.name}:{path}", job):
        job.run(["mkdir", "-p", "-m", "0700", "--", cache])
        if _kept(job, path, wanted, name):
            return path
        if length > job.room(cache):
            raise download.no_room(job, f"{name} ({format_size(length)})", cache, "")
        partial = f"{path}.partial"

        def sent(count: int) -> None:
            job.going()
            job.progress(f"sending {name}  {format_size(count)} of {format_size(length)}",
                         count / length if length else None)

        job.host.upload(location, partial, on_bytes=sent)
        job.going()
        actual = _digest(job, partial, "sha256", name)
        if actual != wanted.digest:
            job.remove(partial)
            raise _mismatch(location, wanted, actual, "the copy was removed from the host",
                            "the file was changed, or not sent as a whole: run the same again, or give its new sha256:")
        job.run(["mv", "-f", "--", partial, path])
    return path


def _wanted(job: Job, source: ImageSource) -> sums.Sum:
    """The sum that the image must have: the one given, else the publisher's of this moment."""
    if source.sha256:
        return sums.given(source.sha256)
    listed = source.sums or ""
    shown = download.address(listed).url
    job.progress(f"asking {urlsplit(shown).hostname} for the sum", None)
    text = download.text(job, listed, secure=urlsplit(listed).scheme == "https")
    try:
        return sums.choose(text, source.location, listed, source.sums_algorithm)
    except ValueError as error:
        raise ApplyError(f"the list of sums at {shown} is of no use: {error}",
                         todo="check sums: and sums_algorithm:, or give the image's sha256:") from error


def _kept(job: Job, path: str, wanted: sums.Sum, name: str) -> bool:
    """Whether the cache has the image, and has it right still. A file that went bad is removed."""
    if job.size(path) == 0:
        return False
    if _digest(job, path, wanted.algorithm, name) == wanted.digest:
        job.progress(f"{name} is on the host already", None)
        return True
    job.progress(f"{name} went bad on the host's disk: removed", None)
    job.remove(path)
    return False


def _download(job: Job, source: ImageSource, partial: str) -> bool:
    """Download from the image's address, or from where its publisher keeps it now. True: in more than one piece."""
    others = catalogue.elsewhere(source)
    for url, following in zip((source.location, *others), (*others, None), strict=True):
        try:
            return download.download(job, url, partial)
        except NotThere:
            if following is None:
                raise
            job.progress(f"it is not there any more: trying {urlsplit(following).hostname}", None)
    raise AssertionError("unreachable: the last address has no following one")


def _digest(job: Job, path: str, algorithm: str, name: str) -> str:
    job.progress(f"verifying {name}", None)
    said = job.run([f"{algorithm}sum", "--", path], timeout=_SUM_SECONDS).text
    return said.removeprefix("\\").split()[0]  # a backslash comes first when the name has special characters


def _sha256(job: Job, path: str, wanted: sums.Sum) -> str:
    return wanted.digest if wanted.algorithm == "sha256" else _digest(job, path, "sha256", basename(path))


def _mismatch(origin: str, wanted: sums.Sum, actual: str, done: str, todo: str) -> ApplyError:
    return ApplyError(f"{origin} is refused: its {wanted.algorithm} is not the expected one; {done}",
                      why=f"expected {wanted.digest}\nfound    {actual}", todo=todo)


def _bad_url(url: str) -> str:
    """What is wrong with a URL, or ""."""
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        return "it has a blank or a control character"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme not in ("http", "https"):
        return f"{parts.scheme} is not supported"
    return "" if parts.hostname else "it names no server"


def _secure(url: str) -> bool:
    """Whether nobody on the way can change what comes from there: https, or the host itself (W3C: Secure Contexts)."""
    parts = urlsplit(url)
    return parts.scheme == "https" or bool(_LOOPBACK.fullmatch(parts.hostname or ""))


# Two templates of one image are made side by side: one downloads, the other waits and finds it. Between processes there
# is the host's lock.
_busy: set[str] = set()
_changed = threading.Condition()


@contextmanager
def _alone(key: str, job: Job) -> Iterator[None]:
    with _changed:
        while key in _busy:
            _changed.wait(0.5)
            job.going()
        _busy.add(key)
    try:
        yield
    finally:
        with _changed:
            _busy.discard(key)
            _changed.notify_all()


@contextmanager
def _workplace(job: Job) -> Iterator[None]:
    """The work directory: there, and without leftovers of ours before, and after a failure."""
    mine = ["image.qcow2", "image.qcow2.partial", "sums", "curl.conf", "table",
            *(f"unpacked-{layer}{suffix}" for layer in range(disk.LAYERS) for suffix in ("", *disk.SUFFIXES))]
    paths = [f"{job.work}/{name}" for name in mine]
    had = job.run(["test", "-d", job.work], check=False).code == 0
    job.run(["mkdir", "-p", "--", job.work])
    job.run(["rm", "-f", "--", *paths])
    try:
        yield
    except BaseException:
        job.remove(*paths)
        if not had:
            with suppress(VmwrightError):
                job.host.run(["rmdir", "--ignore-fail-on-non-empty", "--", job.work])
        raise
