"""Fetching images for real: curl and qemu-img against a server of our own on the loopback interface."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vmwright.errors import ApplyError, Cancelled, HostError, SpecError
from vmwright.host.local import LocalHost
from vmwright.host.run import Completed, OnLine
from vmwright.image import catalogue
from vmwright.image.fetch import Fetched, fetch
from vmwright.spec.cloud import ImageSource
from vmwright.units import MIB, content_hash

VIRTUAL = 64 * MIB


@dataclass
class File:
    """What the server has at a path, and how it misbehaves. `cuts`: each request in turn is cut after so many bytes.

    `gate`: the server stops in the middle of the file, sets `halfway`, and goes on only when the gate opens.
    """

    content: bytes = b""
    status: int = 200
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    ranges: bool = True
    chunked: bool = False
    login: str | None = None
    to: str | None = None
    gate: threading.Event | None = None
    halfway: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Seen:
    """A request that the server got, and the bytes of body it sent back."""

    path: str
    range: str | None
    headers: Mapping[str, str]
    sent: list[int]


class Server:
    """An HTTP server of this process. It is a proxy, too: a request for a whole URL gets the file at its path."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.files: dict[str, File] = {}
        self.seen: list[Seen] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls:
            self.http.socket = tls.wrap_socket(self.http.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        for file in self.files.values():
            if file.gate:
                file.gate.set()
        self.http.shutdown()
        self.http.server_close()  # a second time does no harm

    def put(self, path: str, content: bytes = b"", **more: Any) -> str:
        """Serve a file; its URL."""
        self.files[path] = File(content, **more)
        return self.url + path

    def requests(self, path: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.path == path]

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        path = "/" + request.path.split("://", 1)[-1].split("/", 1)[1]
        seen = Seen(path, request.headers.get("Range"), dict(request.headers), [0])
        self.seen.append(seen)
        file = self.files.get(path, File(b"nothing here", status=404))
        basic = f"Basic {base64.b64encode((file.login or '').encode()).decode()}"
        status = file.statuses.pop(0) if file.statuses else file.status
        if file.login and request.headers.get("Authorization") != basic:
            status = 401
        start = int(seen.range.removeprefix("bytes=").rstrip("-")) if seen.range and file.ranges else 0
        if start and start >= len(file.content):
            status = 416
        body = file.content[start:] if status == 200 else b"the server's words about it\n"
        request.send_response(206 if status == 200 and start else status)
        if file.to:
            request.send_header("Location", file.to)
        if status == 416:
            request.send_header("Content-Range", f"bytes */{len(file.content)}")
        if status == 200 and start:
            request.send_header("Content-Range", f"bytes {start}-{len(file.content) - 1}/{len(file.content)}")
        request.send_header("Transfer-Encoding", "chunked") if file.chunked else request.send_header(
            "Content-Length", str(len(body)))
        request.end_headers()
        with suppress(ConnectionError):
            self.send(request, file, body, seen.sent)

    def send(self, request: http.server.BaseHTTPRequestHandler, file: File, body: bytes, sent: list[int]) -> None:
        cut = file.cuts.pop(0) if file.cuts else None
        half = len(body) // 2
        for at in range(0, len(body), 65536):
            piece = body[at:at + 65536]
            if cut is not None and at >= cut:
                request.close_connection = True
                return
            if file.gate and at <= half < at + 65536:
                request.wfile.flush()
                file.halfway.set()
                file.gate.wait(60)
            request.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if file.chunked else piece)
            sent[0] += len(piece)
        if file.chunked:
            request.wfile.write(b"0\r\n\r\n")


class Watched(LocalHost):
    """This machine, with every command line kept."""

    def __init__(self) -> None:
        super().__init__("here")
        self.ran: list[list[str]] = []

    def run(self, argv: Sequence[str], *, input: bytes | None = None, check: bool = True, timeout: float | None = None,
            env: Mapping[str, str] | None = None, on_line: OnLine | None = None,
            cancel: threading.Event | None = None) -> Completed:
        self.ran.append([*argv, *(f"{key}={value}" for key, value in (env or {}).items())])
        return super().run(argv, input=input, check=check, timeout=timeout, env=env, on_line=on_line, cancel=cancel)

    def with_tool(self, tool: str) -> list[list[str]]:
        return [argv for argv in self.ran if tool in argv]


class Distant(Watched):
    """This machine as one that is not this machine: files must be uploaded. `loses`: bytes that an upload drops."""

    loses = 0

    def __init__(self) -> None:
        super().__init__()
        self.address = "root@distant"
        self.uploads = 0

    def upload(self, source: str, path: str, *, on_bytes: Callable[[int], None] | None = None) -> None:
        self.uploads += 1
        super().upload(source, path, on_bytes=on_bytes)
        os.truncate(path, os.path.getsize(path) - self.loses)


class Place(SimpleNamespace):
    """A directory for one test: `work` and `cache` below it, and a host. `heard` are the sentences of progress."""

    host: Watched
    root: Path
    heard: list[tuple[str, float | None]]

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def work(self) -> Path:
        return self.root / "work"

    def fetch(self, source: ImageSource, size: int | None = None, **more: Any) -> Fetched:
        more = {"progress": lambda text, share: self.heard.append((text, share)), "cache": str(self.cache), **more}
        return fetch(self.host, source, size, str(self.work), **more)

    def refused(self, source: ImageSource, kind: type[Exception] = ApplyError, **more: Any) -> str:
        """The text of the error that fetching gives. Nothing may be left in the work directory."""
        with pytest.raises(kind) as caught:
            self.fetch(source, **more)
        assert not self.work.exists()
        return str(caught.value)

    def cached(self) -> list[str]:
        return sorted(path.name for path in self.cache.iterdir()) if self.cache.exists() else []

    def partial(self, url: str) -> Path:
        return self.cache / f"{content_hash(url, length=16)}.partial"


@pytest.fixture
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="vmwright-fetch-") as root:
        yield Place(host=Watched(), root=Path(root), heard=[])


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@dataclass(frozen=True)
class Images:
    """The same disk twice: as it is, and as a compressed qcow2."""

    raw: Path
    qcow2: Path


def qemu_img(*argv: object) -> str:
    done = subprocess.run(["qemu-img", *map(str, argv)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def images() -> Iterator[Images]:
    """A disk of 64M with 3M of noise at its start."""
    with tempfile.TemporaryDirectory(prefix="vmwright-images-") as root:
        raw, qcow2 = Path(root, "disk.raw"), Path(root, "disk.qcow2")
        noise = bytearray(os.urandom(3 * MIB))
        noise[510:512] = b"\x55\xaa"
        raw.write_bytes(noise)
        os.truncate(raw, VIRTUAL)
        qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", raw, qcow2)
        yield Images(raw, qcow2)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def same_disk(made: str, raw: Path) -> bool:
    return "Images are identical." in qemu_img("compare", "-f", "qcow2", "-F", "raw", made, raw)


def packed(path: Path, tool: str) -> bytes:
    return subprocess.run([tool, "-c", "-1", "--", str(path)], capture_output=True, check=True).stdout


class TestMaking:
    @pytest.mark.parametrize("kind", ["raw", "qcow2"])
    @pytest.mark.parametrize("tool", ["", "xz", "gzip", "zstd"])
    def test_each_format_and_packing(
        self, place: Place, server: Server, images: Images, kind: str, tool: str
    ) -> None:
        path: Path = getattr(images, kind)
        content = packed(path, tool) if tool else path.read_bytes()
        url = server.put("/image.img", content)  # the name says nothing, as with Ubuntu's .img
        got = place.fetch(ImageSource(url, sha256=sha256(content)), 100 * MIB)
        assert got == Fetched(f"{place.work}/image.qcow2", "qcow2", sha256(content), 100 * MIB, url, uefi=False)
        info = json.loads(qemu_img("info", "--output=json", got.path))
        assert (info["format"], info["virtual-size"], "backing-filename" in info) == ("qcow2", 100 * MIB, False)
        assert info["actual-size"] < 10 * MIB  # sparse
        assert "compressed-clusters" not in json.loads(qemu_img("check", "--output=json", got.path))
        assert same_disk(got.path, images.raw)
        assert os.listdir(place.work) == ["image.qcow2"]

    def test_a_packing_in_a_packing(self, place: Place, images: Images) -> None:
        outer = place.root / "disk.xz.gz"
        outer.write_bytes(packed(images.qcow2, "xz"))
        outer.write_bytes(packed(outer, "gzip"))
        assert same_disk(place.fetch(ImageSource(str(outer))).path, images.raw)
        assert os.listdir(place.work) == ["image.qcow2"]

    def test_its_own_size_when_none_is_asked_for(self, place: Place, images: Images) -> None:
        got = place.fetch(ImageSource(str(images.qcow2), sha256=sha256(images.qcow2.read_bytes())))
        assert got.virtual_size == VIRTUAL
        assert json.loads(qemu_img("info", "--output=json", got.path))["virtual-size"] == VIRTUAL

    @pytest.mark.parametrize(("table", "uefi"), [
        ("label: gpt\nsize=1M, type=uefi\ntype=linux\n", True), ("label: gpt\ntype=linux\n", False),
        ("label: dos\nsize=1M, type=ef\ntype=83\n", True), ("label: dos\ntype=83\n", False),
    ])  # fmt: skip
    def test_whether_uefi_can_boot_it(self, place: Place, table: str, uefi: bool) -> None:
        disk = place.root / "disk"
        disk.write_bytes(b"")
        os.truncate(disk, 8 * MIB)
        subprocess.run(["sfdisk", "--quiet", disk], input=table.encode(), check=True)
        assert place.fetch(ImageSource(str(disk))).uefi is uefi

    def test_smaller_is_refused_with_both_figures(self, place: Place, images: Images) -> None:
        text = place.refused(ImageSource(str(images.raw), sha256=sha256(images.raw.read_bytes())), size=48 * MIB)
        assert text.splitlines() == [
            "disk.raw is a disk of 64M, and the template's disk is to be 48M",
            "  why: an image cannot be made smaller: the end of its file system would be lost",
            "  do:  set the template's disk to 1G or more"]

    def test_progress_comes_with_shares(self, place: Place, server: Server, images: Images) -> None:
        content = images.qcow2.read_bytes()
        place.fetch(ImageSource(server.put("/a", content), sha256=sha256(content)))
        shares = [share for _, share in place.heard if share is not None]
        assert all(0 <= share <= 1 for share in shares)
        assert 1.0 in [share for text, share in place.heard if text == "copying a"]
        said = [text.split(":")[0] for text, _ in place.heard]
        assert said.index("verifying a") < said.index("checking a") < said.index("copying a")

    def test_leftovers_of_a_killed_run_are_replaced(self, place: Place, images: Images) -> None:
        place.work.mkdir()
        for name in ("image.qcow2.partial", "unpacked-0", "unpacked-0.xz", "curl.conf", "sums"):
            (place.work / name).write_text("old")
        (place.work / "of-the-caller").write_text("kept")
        place.fetch(ImageSource(str(images.qcow2), sha256=sha256(images.qcow2.read_bytes())))
        assert sorted(os.listdir(place.work)) == ["image.qcow2", "of-the-caller"]


class TestRefused:
    def test_backing_file(self, place: Place, server: Server) -> None:
        bad = place.root / "bad.qcow2"
        qemu_img("create", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", bad)
        url = server.put("/bad.qcow2", bad.read_bytes())
        text = place.refused(ImageSource(url, sha256=sha256(bad.read_bytes())))
        assert text.splitlines() == [
            "bad.qcow2 is refused: it names a backing file ('/etc/passwd')",
            "  why: an image from outside could read any file of the host that way",
            "  do:  where it was made, run qemu-img convert -O qcow2 IMAGE WHOLE.qcow2, and give WHOLE.qcow2"]
        assert place.host.with_tool("qemu-img") == []  # judged before qemu-img could follow the name

    def test_external_data_file(self, place: Place) -> None:
        bad = place.root / "bad.qcow2"
        qemu_img("create", "-f", "qcow2", "-o", f"data_file={place.root}/data,data_file_raw=on", bad, "1M")
        assert "bad.qcow2 is refused: it names an external data file" in place.refused(ImageSource(str(bad)))
        assert place.host.with_tool("qemu-img") == []

    def test_another_format_that_names_a_file(self, place: Place) -> None:
        bad = place.root / "bad.raw"
        bad.write_text('# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 8 FLAT "/etc/passwd" 0\n')
        assert "bad.raw is a VMDK image, not a qcow2 or raw disk image" in place.refused(ImageSource(str(bad)))
        assert place.host.with_tool("qemu-img") == []

    def test_encrypted(self, place: Place, images: Images) -> None:
        bad = place.root / "bad.qcow2"
        content = bytearray(images.qcow2.read_bytes())
        content[32:36] = (2).to_bytes(4, "big")  # LUKS; making a real one fails on a busy machine
        bad.write_bytes(content)
        assert "bad.qcow2 is encrypted" in place.refused(ImageSource(str(bad)))

    def test_cut_short(self, place: Place, images: Images) -> None:
        bad = place.root / "bad.qcow2"
        content = images.qcow2.read_bytes()
        bad.write_bytes(content[:len(content) // 2])
        text = place.refused(ImageSource(str(bad)))
        assert text.startswith("bad.qcow2 is damaged: qemu-img finds errors in it\n  why: ERROR")
        assert "a copy that was cut off looks like this" in text

    def test_rubbish_behind_a_good_header(self, place: Place, images: Images) -> None:
        bad = place.root / "bad.qcow2"
        content = bytearray(images.qcow2.read_bytes())
        content[36:48] = b"\xff" * 12  # size and place of the first-level table
        bad.write_bytes(content)
        assert place.refused(ImageSource(str(bad))).startswith("qemu-img cannot read bad.qcow2\n  why: qemu-img: ")

    def test_not_a_disk(self, place: Place, server: Server) -> None:
        page = b"<html><body>Please log in</body></html>"
        url = server.put("/login", page)
        assert "login is a web page, not a disk image" in place.refused(ImageSource(url, sha256=sha256(page)))

    def test_a_packing_that_is_broken(self, place: Place, images: Images) -> None:
        bad = place.root / "bad.xz"
        bad.write_bytes(packed(images.qcow2, "xz")[:-1000])
        text = place.refused(ImageSource(str(bad)), HostError)
        assert text.startswith("xz failed with code 1\n  why: command: xz ")
        assert "Unexpected end of input" in text

    def test_packed_over_and_over(self, place: Place, images: Images) -> None:
        bad = place.root / "bad.gz"
        bad.write_bytes(images.qcow2.read_bytes())
        for _ in range(3):
            bad.write_bytes(packed(bad, "gzip"))
        assert "bad.gz is compressed 3 times or more" in place.refused(ImageSource(str(bad)))

    def test_nothing_to_trust_it_for(self, place: Place, server: Server) -> None:
        text = place.refused(ImageSource(server.put("/a", b"x")), SpecError)
        assert "nothing says which bytes of" in text
        assert server.seen == []


class TestSums:
    def test_wrong_sum_is_refused_and_the_file_removed(self, place: Place, server: Server, images: Images) -> None:
        content = images.qcow2.read_bytes()
        url = server.put("/disk.qcow2", content)
        text = place.refused(ImageSource(url, sha256="0" * 64))
        assert text.splitlines() == [
            f"{url} is refused: its sha256 is not the expected one; the file was removed from the host",
            f"  why: expected {'0' * 64}", f"       found    {sha256(content)}",
            "  do:  it was replaced, or changed on its way: compare with the publisher's page, and give the sha256: "
            "that stands there"]
        assert place.cached() == []
        assert len(server.seen) == 1  # it came whole: asking again would bring the same

    @pytest.mark.parametrize(("algorithm", "line"), [
        ("sha256", "{0} *disk.qcow2\n{1} *other.qcow2\n"), ("sha512", "{1}  other.qcow2\n{0}  disk.qcow2\n"),
        ("sha256", "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nSHA256 (disk.qcow2) = {0}\n"
                   "-----BEGIN PGP SIGNATURE-----\n\nabc\n-----END PGP SIGNATURE-----\n"),
    ])  # fmt: skip
    def test_from_the_publishers_list(
        self, place: Place, server: Server, images: Images, algorithm: str, line: str
    ) -> None:
        content = images.qcow2.read_bytes()
        digest = hashlib.new(algorithm, content).hexdigest()
        listed = server.put("/LIST", line.format(digest, hashlib.new(algorithm, b"").hexdigest()).encode())
        got = place.fetch(ImageSource(server.put("/disk.qcow2", content), sums=listed, sums_algorithm=algorithm))
        assert got.sha256 == sha256(content)

    def test_a_list_without_the_image(self, place: Place, server: Server) -> None:
        listed = server.put("/LIST", f"{'0' * 64}  disk-12.qcow2\n".encode())
        text = place.refused(ImageSource(server.put("/disk.qcow2", b"x"), sums=listed))
        assert text.splitlines() == [
            f"the list of sums at {listed} is of no use: it does not name disk.qcow2; the nearest names in it: "
            "disk-12.qcow2",
            "  do:  check sums: and sums_algorithm:, or give the image's sha256:"]
        assert server.requests("/disk.qcow2") == []

    @pytest.mark.parametrize("chunked", [False, True])
    def test_an_endless_list(self, place: Place, server: Server, chunked: bool) -> None:
        listed = server.put("/LIST", bytes(6 * MIB), chunked=chunked)
        text = place.refused(ImageSource(server.put("/disk.qcow2", b"x"), sums=listed), HostError)
        assert f"{listed} is no list of check sums: it is longer than 4M" in text

    def test_an_image_in_the_cache_is_not_asked_for(self, place: Place, server: Server, images: Images) -> None:
        content = images.qcow2.read_bytes()
        listed = server.put("/LIST", f"{sha256(content)}  disk.qcow2\n".encode())
        source = ImageSource(server.put("/disk.qcow2", content), sums=listed)
        first = place.fetch(source, 100 * MIB)
        second = place.fetch(source, 200 * MIB)
        assert len(server.requests("/disk.qcow2")) == 1
        assert len(server.requests("/LIST")) == 2
        assert (first.virtual_size, second.virtual_size) == (100 * MIB, 200 * MIB)
        assert ("disk.qcow2 is on the host already", None) in place.heard

    def test_an_image_that_went_bad_in_the_cache_is_fetched_again(
        self, place: Place, server: Server, images: Images
    ) -> None:
        content = images.qcow2.read_bytes()
        source = ImageSource(server.put("/disk.qcow2", content), sha256=sha256(content))
        place.fetch(source)
        [kept] = place.cache.iterdir()
        kept.write_bytes(content[:-1] + b"?")
        assert same_disk(place.fetch(source).path, images.raw)
        assert ("disk.qcow2 went bad on the host's disk: removed", None) in place.heard
        assert len(server.seen) == 2

    def test_what_the_address_gave_days_ago_is_dropped(self, place: Place, server: Server, images: Images) -> None:
        key = content_hash(f"{server.url}/disk", length=16)
        place.cache.mkdir()
        for name, days in ((f"{key}-old-disk", 3), (f"{key}-young-disk", 0), ("another-old-disk", 3)):
            (place.cache / name).write_text("")
            os.utime(place.cache / name, (time.time() - days * 86400,) * 2)
        content = images.qcow2.read_bytes()
        place.fetch(ImageSource(server.put("/disk", content), sha256=sha256(content)))
        new = f"{key}-{sha256(content)[:32]}-disk"
        assert set(place.cached()) == {new, f"{key}-young-disk", "another-old-disk"}

    def test_a_catalogue_image_that_its_publisher_moved(self, place: Place, server: Server) -> None:
        entry = catalogue.lookup("fedora43", base_url=server.url)
        [archived] = (url.removeprefix(server.url) for url in entry.elsewhere)
        server.put(archived, b"not the real one")
        text = place.refused(entry.source())
        assert [seen.path for seen in server.seen] == [entry.location.removeprefix(server.url), archived]
        assert f"found    {sha256(b'not the real one')}" in text
        assert ("it is not there any more: trying 127.0.0.1", None) in place.heard


class TestInterrupted:
    def test_a_cut_connection_is_taken_up_again(self, place: Place, server: Server, images: Images) -> None:
        content = images.qcow2.read_bytes()
        url = server.put("/disk.qcow2", content, cuts=[len(content) // 2, len(content) // 4])
        got = place.fetch(ImageSource(url, sha256=sha256(content)))
        assert same_disk(got.path, images.raw)
        first, second, third = server.seen
        assert first.range is None
        assert second.range == f"bytes={first.sent[0]}-"
        assert third.range == f"bytes={first.sent[0] + second.sent[0]}-"
        assert sum(seen.sent[0] for seen in server.seen) == len(content)
        assert ("the connection broke: going on in 1 s", None) in place.heard

    def test_an_image_replaced_meanwhile_is_fetched_from_zero(
        self, place: Place, server: Server, images: Images
    ) -> None:
        content = images.qcow2.read_bytes()
        url = server.put("/disk.qcow2", content)
        place.cache.mkdir()
        place.partial(url).write_bytes(os.urandom(len(content) // 2))  # of the image that was there before
        listed = server.put("/LIST", f"{sha256(content)}  disk.qcow2\n".encode())
        assert same_disk(place.fetch(ImageSource(url, sums=listed)).path, images.raw)
        assert [seen.range for seen in server.requests("/disk.qcow2")] == [f"bytes={len(content) // 2}-", None]
        assert len(server.requests("/LIST")) == 2  # its sum may have changed, too
        assert ("disk.qcow2: what was there from before does not fit: starting from zero", None) in place.heard

    def test_one_clean_try_and_no_more(self, place: Place, server: Server, images: Images) -> None:
        url = server.put("/disk.qcow2", images.qcow2.read_bytes())
        place.cache.mkdir()
        place.partial(url).write_bytes(b"rubbish")
        assert "its sha256 is not the expected one" in place.refused(ImageSource(url, sha256="0" * 64))
        assert [seen.range for seen in server.seen] == ["bytes=7-", None]
        assert place.cached() == []

    @pytest.mark.parametrize("more", [b"", b"and a tail from an older, longer one"])
    def test_a_partial_file_that_is_whole_or_longer(
        self, place: Place, server: Server, images: Images, more: bytes
    ) -> None:
        content = images.qcow2.read_bytes()
        url = server.put("/disk.qcow2", content)
        place.cache.mkdir()
        place.partial(url).write_bytes(content + more)
        assert same_disk(place.fetch(ImageSource(url, sha256=sha256(content))).path, images.raw)
        assert len(server.seen) == (2 if more else 1)
        assert sum(seen.sent[0] for seen in server.seen) < len(content) + 1000

    def test_a_server_that_cannot_go_on_in_the_middle(self, place: Place, server: Server, images: Images) -> None:
        content = images.qcow2.read_bytes()
        url = server.put("/disk.qcow2", content, ranges=False, cuts=[len(content) // 2])
        assert same_disk(place.fetch(ImageSource(url, sha256=sha256(content))).path, images.raw)
        assert ("the server cannot go on in the middle: starting from zero", None) in place.heard
        assert [seen.range is None for seen in server.seen] == [True, False, True]

    def test_a_start_from_zero_is_a_clean_try(self, place: Place, server: Server, images: Images) -> None:
        url = server.put("/disk.qcow2", images.qcow2.read_bytes(), ranges=False)
        place.cache.mkdir()
        place.partial(url).write_bytes(b"rubbish")
        assert "its sha256 is not the expected one" in place.refused(ImageSource(url, sha256="0" * 64))
        assert [seen.range for seen in server.seen] == ["bytes=7-", None]

    def test_a_busy_server_is_asked_again(self, place: Place, server: Server, images: Images) -> None:
        content = images.qcow2.read_bytes()
        url = server.put("/disk.qcow2", content, statuses=[503, 429])
        place.fetch(ImageSource(url, sha256=sha256(content)))
        assert len(server.seen) == 3

    @pytest.mark.parametrize(("status", "words", "todo"), [
        (404, "there is no {url}", "check the URL: publishers move and remove old images"),
        (403, "host here may not download {url}", "check the URL, its login, the proxy"),
    ])  # fmt: skip
    def test_a_final_answer_is_not_asked_for_again(
        self, place: Place, server: Server, status: int, words: str, todo: str
    ) -> None:
        url = server.put("/disk.qcow2", status=status)
        text = place.refused(ImageSource(url, sha256="0" * 64), HostError).splitlines()
        assert text[0] == words.format(url=url)
        assert text[1] == f"  why: curl: (22) The requested URL returned error: {status}"
        assert text[2].startswith("       command: curl ")
        assert text[3] == f"  do:  {todo}"
        assert len(server.seen) == 1
        assert place.cached() == []

    def test_a_server_that_is_not_there(self, place: Place, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vmwright.image.download._FRUITLESS", 2)
        server.close()
        text = place.refused(ImageSource(f"{server.url}/disk.qcow2", sha256="0" * 64), HostError).splitlines()
        assert text[0] == f"host here cannot download {server.url}/disk.qcow2"
        assert text[1].startswith("  why: curl: (7) Failed to connect to 127.0.0.1 port ")
        assert text[3].startswith("  do:  nothing answers there: check the URL, the host's way to the Internet")
        assert place.heard == [("the connection broke: going on in 1 s", None)]

    def test_cancel_while_downloading_leaves_what_can_be_resumed(
        self, place: Place, server: Server, images: Images
    ) -> None:
        content, cancel, gate = images.qcow2.read_bytes(), threading.Event(), threading.Event()
        url = server.put("/disk.qcow2", content, gate=gate)
        source = ImageSource(url, sha256=sha256(content))
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(place.fetch, source, cancel=cancel)
            assert server.files["/disk.qcow2"].halfway.wait(60)
            self.until(lambda: place.partial(url).exists() and place.partial(url).stat().st_size > 0)
            cancel.set()
            with pytest.raises(Cancelled):
                running.result(60)
        assert not place.work.exists()
        assert place.cached() == [place.partial(url).name]
        had = place.partial(url).stat().st_size
        gate.set()
        assert same_disk(place.fetch(source).path, images.raw)
        assert server.seen[-1].range == f"bytes={had}-"

    @pytest.mark.parametrize("phase", ["verifying", "unpacking", "checking", "copying"])
    def test_cancel_later_leaves_no_work_files(self, place: Place, server: Server, images: Images, phase: str) -> None:
        content, cancel = packed(images.qcow2, "xz"), threading.Event()

        def progress(text: str, share: float | None) -> None:
            if text.startswith(phase):
                cancel.set()

        with pytest.raises(Cancelled):
            url = server.put("/a.xz", content)
            place.fetch(ImageSource(url, sha256=sha256(content)), cancel=cancel, progress=progress)
        assert not place.work.exists()
        assert len(place.cached()) == 1

    def test_kill_leaves_only_what_can_be_resumed(self, place: Place, server: Server, images: Images) -> None:
        content, gate = images.qcow2.read_bytes(), threading.Event()
        url = server.put("/disk.qcow2", content, gate=gate)
        source = ImageSource(url, sha256=sha256(content))
        script = ("import sys\nfrom vmwright.host.local import LocalHost\nfrom vmwright.image.fetch import fetch\n"
                  "from vmwright.spec.cloud import ImageSource\n"
                  "url, digest, work, cache = sys.argv[1:]\n"
                  "source = ImageSource(url, digest)\n"
                  "fetch(LocalHost('here'), source, None, work, cache=cache, progress=lambda *_: None)\n")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        argv = [sys.executable, "-c", script, url, sha256(content), str(place.work), str(place.cache)]
        child = subprocess.Popen(argv, env=environment)
        try:
            assert server.files["/disk.qcow2"].halfway.wait(60)
            self.until(lambda: place.partial(url).exists() and place.partial(url).stat().st_size > 0)
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
        self.until(lambda: not self.alive(str(place.cache)))  # curl, too
        assert place.cached() == [place.partial(url).name]
        had = place.partial(url).stat().st_size
        gate.set()
        assert same_disk(place.fetch(source).path, images.raw)
        assert server.seen[-1].range == f"bytes={had}-"

    @staticmethod
    def until(holds: Callable[[], bool]) -> None:
        """Wait for something that another process does; the limit is only there so that a broken test ends."""
        pause = threading.Event()
        for _ in range(1200):
            if holds():
                return
            pause.wait(0.05)
        raise AssertionError("it did not come to pass within a minute")

    @staticmethod
    def alive(mark: str) -> bool:
        """Whether any curl has the mark in its command line."""
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                words = entry.read_bytes().split(b"\0")
                if words[0].endswith(b"curl") and any(mark.encode() in word for word in words):
                    return True
        return False


class TestSecrets:
    def test_a_login_in_the_url(self, place: Place, server: Server, images: Images) -> None:
        content = images.qcow2.read_bytes()
        url = server.put("/disk.qcow2", content, login="me:very secret")
        got = place.fetch(ImageSource(url.replace("://", "://me:very%20secret@"), sha256=sha256(content)))
        assert got.origin == url
        assert "secret" not in repr([place.host.ran, place.heard, got])
        assert not (place.work / "curl.conf").exists()
        os.remove(got.path)
        place.work.rmdir()
        assert "error: 401" in place.refused(ImageSource(url, sha256="0" * 64), HostError)

    def test_only_root_can_read_it_meanwhile(self, place: Place, server: Server, images: Images) -> None:
        content, gate = images.qcow2.read_bytes(), threading.Event()
        url = server.put("/disk.qcow2", content, login="me:secret", gate=gate).replace("://", "://me:secret@")
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(place.fetch, ImageSource(url, sha256=sha256(content)))
            assert server.files["/disk.qcow2"].halfway.wait(60)
            config = place.work / "curl.conf"
            mode, text = config.stat().st_mode & 0o777, config.read_text()
            gate.set()
            running.result(60)
        assert (mode, text) == (0o600, 'user = "me:secret"\n')
        assert not config.exists()

    def test_a_proxy_with_a_password(self, place: Place, server: Server, images: Images) -> None:
        content = images.qcow2.read_bytes()
        server.put("/disk.qcow2", content)
        proxy = server.url.replace("://", "://proxy-user:very-secret@")
        got = place.fetch(ImageSource("http://images.example.test/disk.qcow2", sha256=sha256(content)), proxy=proxy)
        assert same_disk(got.path, images.raw)
        assert "secret" not in repr([place.host.ran, place.heard, got])
        [seen] = server.seen
        assert seen.headers["Proxy-Authorization"] == f"Basic {base64.b64encode(b'proxy-user:very-secret').decode()}"

    def test_a_plain_proxy_and_never_for_this_machine(self, place: Place, server: Server, images: Images) -> None:
        content = images.qcow2.read_bytes()
        url = server.put("/disk.qcow2", content)
        nobody = "http://127.0.0.1:1"
        place.fetch(ImageSource(url, sha256=sha256(content)), proxy=nobody)
        [curl] = place.host.with_tool("curl")
        assert curl[curl.index("--proxy") + 1] == nobody

    def test_a_certificate_that_nobody_vouches_for(self, place: Place) -> None:
        key, certificate = place.root / "key.pem", place.root / "cert.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1",
                        "-days", "2", "-keyout", key, "-out", certificate], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server = Server(context)
        try:
            source = ImageSource(server.put("/disk.qcow2", b"x"), sums=server.put("/LIST", b"x"))
            text = place.refused(source, HostError)
        finally:
            server.close()
        assert text.startswith(f"host here cannot download {server.url}/LIST\n  why: curl: (60) SSL certificate")
        assert "do:  the server's certificate is not accepted: check the host's clock and its ca-certificates" in text

    def test_a_redirect_to_another_protocol(self, place: Place, server: Server) -> None:
        url = server.put("/disk.qcow2", status=302, to="file:///etc/passwd")
        text = place.refused(ImageSource(url, sha256="0" * 64), HostError)
        assert 'Protocol "file" not supported or disabled' in text
        assert "the server sends us elsewhere" in text


class TestLocalFiles:
    def test_a_file_of_the_host_itself_is_used_where_it_is(self, place: Place, images: Images) -> None:
        content = images.qcow2.read_bytes()
        got = place.fetch(ImageSource(str(images.qcow2), sha256=sha256(content)))
        assert same_disk(got.path, images.raw)
        assert got.origin == str(images.qcow2)
        assert not place.cache.exists()
        assert images.qcow2.read_bytes() == content

    def test_a_file_that_is_not_the_one_meant(self, place: Place, images: Images) -> None:
        text = place.refused(ImageSource(str(images.qcow2), sha256="0" * 64))
        words = "is refused: its sha256 is not the expected one; the file is left as it is"
        assert text.startswith(f"{images.qcow2} {words}\n")
        assert images.qcow2.exists()

    def test_a_missing_file(self, place: Place) -> None:
        text = place.refused(ImageSource(f"{place.root}/nothing.img", sha256="0" * 64), HostError)
        assert text.startswith(f"cannot read the image {place.root}/nothing.img\n  why: No such file or directory")

    def test_a_distant_host_gets_it_once(self, place: Place, images: Images) -> None:
        place.host = Distant()
        source = ImageSource(str(images.qcow2), sha256=sha256(images.qcow2.read_bytes()))
        for size in (100 * MIB, 200 * MIB):
            assert same_disk(place.fetch(source, size).path, images.raw)
        assert place.host.uploads == 1
        assert place.cached() == [f"file-{source.sha256[:32] if source.sha256 else ''}"]

    def test_an_upload_that_was_cut_off(self, place: Place, images: Images) -> None:
        place.host = Distant()
        place.host.loses = 1000
        text = place.refused(ImageSource(str(images.qcow2), sha256=sha256(images.qcow2.read_bytes())))
        assert "its sha256 is not the expected one; the copy was removed from the host" in text
        assert place.cached() == []


class TestSideBySide:
    def test_two_templates_of_one_image_download_it_once(self, place: Place, server: Server, images: Images) -> None:
        content, gate = images.qcow2.read_bytes(), threading.Event()
        source = ImageSource(server.put("/disk.qcow2", content, gate=gate), sha256=sha256(content))

        def make(name: str, size: int) -> Fetched:
            work = str(place.root / name)
            return fetch(place.host, source, size, work, cache=str(place.cache), progress=lambda *_: None)

        with ThreadPoolExecutor(2) as pool:
            running = [pool.submit(make, name, size) for name, size in (("one", 100 * MIB), ("two", 200 * MIB))]
            assert server.files["/disk.qcow2"].halfway.wait(60)
            gate.set()
            got = [each.result(120) for each in running]
        assert [each.virtual_size for each in got] == [100 * MIB, 200 * MIB]
        assert all(same_disk(each.path, images.raw) for each in got)
        assert len(server.seen) == 1

    def test_one_that_waits_can_be_cancelled(self, place: Place, server: Server, images: Images) -> None:
        content, gate, cancel = images.qcow2.read_bytes(), threading.Event(), threading.Event()
        source = ImageSource(server.put("/disk.qcow2", content, gate=gate), sha256=sha256(content))
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(place.fetch, source)
            assert server.files["/disk.qcow2"].halfway.wait(60)
            second = pool.submit(fetch, place.host, source, None, str(place.root / "two"), cache=str(place.cache),
                                 progress=lambda *_: None, cancel=cancel)
            cancel.set()
            with pytest.raises(Cancelled):
                second.result(60)
            assert not first.done()
            gate.set()
            assert same_disk(first.result(60).path, images.raw)
        assert not (place.root / "two").exists()


@contextmanager
def small(path: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes at `path`."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "vmwright-test", str(path)]
    done = subprocess.run(mount, capture_output=True, check=False)
    if done.returncode:
        path.rmdir()
        pytest.skip("mounting is not permitted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


class TestNoRoom:
    def test_known_before_a_byte_is_written(self, place: Place, server: Server, images: Images) -> None:
        content = images.qcow2.read_bytes()
        url = server.put("/disk.qcow2", content)
        with small(place.cache, 2 * MIB):
            text = place.refused(ImageSource(url, sha256=sha256(content)), HostError)
            assert place.cached() == []
        assert text.startswith(f"no room on host here for {url}: 2M free in {place.cache}\n  why: curl: (63) ")
        assert f"do:  make room on the file system of {place.cache}, then run the same again" in text

    def test_found_while_downloading(self, place: Place, server: Server, images: Images) -> None:
        content = images.qcow2.read_bytes()
        url = server.put("/disk.qcow2", content, chunked=True)  # its length is not known beforehand
        with small(place.cache, 2 * MIB):
            text = place.refused(ImageSource(url, sha256=sha256(content)), HostError)
            assert place.cached() == []
        assert text.startswith(f"no room on host here for {url}: 2M free in {place.cache}")

    @pytest.mark.parametrize("tool", ["", "xz", "zstd", "gzip"])
    def test_found_while_making_the_template(self, place: Place, images: Images, tool: str) -> None:
        source = images.raw
        if tool:
            source = place.root / "disk.packed"
            source.write_bytes(packed(images.raw, tool))
        with small(place.root / "small", 2 * MIB):
            with pytest.raises(HostError) as caught:
                fetch(place.host, ImageSource(str(source)), None, f"{place.root}/small/work", cache=str(place.cache),
                      progress=lambda *_: None)
            assert os.listdir(place.root / "small") == []
        words = "unpacking" if tool else "copying"
        assert str(caught.value).startswith(f"no room on host here for {words} {source.name}: ")
        assert "No space left on device" in str(caught.value)
