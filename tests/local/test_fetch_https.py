"""Fetching an image and its list of sums over https, from a server whose authority only these tests trust."""

from __future__ import annotations

import hashlib
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from tests.local.test_fetch import Server, Watched, qemu_img, same_disk

from vmwright.errors import HostError
from vmwright.host.run import Completed, OnLine
from vmwright.image.fetch import Fetched, fetch
from vmwright.spec.cloud import ImageSource
from vmwright.units import MIB


class Trusting(Watched):
    """This machine with one more authority: curl reads CURL_CA_BUNDLE, which vmwright itself never sets or passes."""

    authority = ""

    def run(self, argv: Sequence[str], *, input: bytes | None = None, check: bool = True, timeout: float | None = None,
            env: Mapping[str, str] | None = None, on_line: OnLine | None = None,
            cancel: threading.Event | None = None) -> Completed:
        env = {**(env or {}), "CURL_CA_BUNDLE": self.authority}
        return super().run(argv, input=input, check=check, timeout=timeout, env=env, on_line=on_line, cancel=cancel)


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority, and a certificate for 127.0.0.1 that it signed."""
    folder = tmp_path_factory.mktemp("certificates")
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    openssl(folder, "req", "-x509", *new, "-subj", "/CN=an authority of a test", "-keyout", "ca.key", "-out", "ca.pem",
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
    openssl(folder, "req", "-x509", *new, "-subj", "/CN=server", "-keyout", "key.pem", "-out", "cert.pem",
            "-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1",
            "-addext", "basicConstraints=CA:FALSE")
    return folder


@pytest.fixture
def server(certificates: Path) -> Iterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    server = Server(context)
    yield server
    server.close()


@pytest.fixture
def host(certificates: Path) -> Trusting:
    host = Trusting()
    host.authority = str(certificates / "ca.pem")
    return host


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw disk with a little on it."""
    path = tmp_path_factory.mktemp("image") / "disk.raw"
    path.write_bytes(bytes(510) + b"\x55\xaa" + b"content" * 100_000)
    with path.open("r+b") as file:
        file.truncate(8 * MIB)
    return path


def get(host: Watched, source: ImageSource, root: Path) -> Fetched:
    return fetch(host, source, None, str(root / "work"), progress=lambda text, share: None, cache=str(root / "cache"))


def test_an_image_whose_sum_comes_from_the_publishers_list(
    host: Trusting, server: Server, image: Path, tmp_path: Path
) -> None:
    qcow2 = tmp_path / "disk.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", image, qcow2)
    content = qcow2.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    url = server.put("/disk.qcow2", content)
    listed = server.put("/SHA256SUMS", f"{'0' * 64} *other.qcow2\n{digest} *disk.qcow2\n".encode())
    assert url.startswith("https://") and listed.startswith("https://")
    got = get(host, ImageSource(url, sums=listed), tmp_path)
    assert (got.sha256, got.origin) == (digest, url)
    assert same_disk(got.path, image)
    assert [seen.path for seen in server.seen] == ["/SHA256SUMS", "/disk.qcow2"]


def test_the_same_server_without_that_authority(host: Trusting, server: Server, tmp_path: Path) -> None:
    """So it was the certificate that let the other test through, and not a check that is missing."""
    source = ImageSource(server.put("/disk.qcow2"), sums=server.put("/SHA256SUMS"))
    with pytest.raises(HostError) as caught:
        get(Watched(), source, tmp_path)
    assert "curl: (60) SSL certificate problem: unable to get local issuer certificate" in str(caught.value)
    assert server.seen == []


def test_a_list_of_sums_that_leaves_https_on_its_way(host: Trusting, server: Server, tmp_path: Path) -> None:
    plain = Server()
    try:
        listed = server.put("/SHA256SUMS", status=302, to=plain.put("/SHA256SUMS", b"whatever"))
        with pytest.raises(HostError) as caught:
            get(host, ImageSource(server.put("/disk.qcow2"), sums=listed), tmp_path)
    finally:
        plain.close()
    assert 'Protocol "http" not supported or disabled' in str(caught.value)
    assert plain.seen == []
