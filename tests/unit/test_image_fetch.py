"""Lists of sums, headers of images, command lines, policy: everything about fetching that needs no host."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
import uuid
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmwright.errors import ApplyError, HostError
from vmwright.image import disk, download, sums
from vmwright.image.fetch import REQUIRED_TOOLS, Fetched, check_firmware, inputs, local_sha256, refusal
from vmwright.spec.cloud import ImageSource
from vmwright.units import GIB

A, B, C = "a" * 64, "b" * 64, "c" * 64
LONG = "d" * 128
IMAGE = "https://images.example.org/12/disk.qcow2"
LIST = "https://images.example.org/12/SHA256SUMS"

DEBIAN = f"{LONG}  disk.qcow2\n{'e' * 128}  disk.raw\n"
UBUNTU = f"{A} *disk.qcow2\n{B} *disk.tar.gz\n"
ROCKY = f"# disk.qcow2: 645988352 bytes\nSHA256 (disk.qcow2) = {A}\n# other: 5 bytes\nSHA256 (other) = {B}\n"
SUSE = f"{A} disk.qcow2\n"
SIGNED = f"""-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

# disk.qcow2: 583335936 bytes
SHA256 (disk.qcow2) = {A}
- SHA256 (-odd.qcow2) = {B}
-----BEGIN PGP SIGNATURE-----

iQIzBAEBCAAdFiEExufwgc+A4TFGZ26IgptgZjFkVTEFAmj9DpIACgkQgptgZjFk
-----END PGP SIGNATURE-----
"""


class TestSums:
    @pytest.mark.parametrize(("text", "algorithm", "digest"), [
        (DEBIAN, "sha512", LONG), (UBUNTU, "sha256", A), (ROCKY, "sha256", A), (SUSE, "sha256", A),
        (SIGNED, "sha256", A),
        (f"{A}  ./disk.qcow2\n", "sha256", A), (f"{A}  ./x86_64/disk.qcow2\n", "sha256", A),
        (f"\ufeff{A.upper()}  disk.qcow2\r\n", "sha256", A), (f"SHA256(disk.qcow2)= {A}\n", "sha256", A),
        (f"{A}\tdisk.qcow2", "sha256", A), (f"{A}  disk.qcow2\n{A}  disk.qcow2\n", "sha256", A),
        (f"{'1' * 32}  disk.qcow2\n{'2' * 40}  disk.qcow2\n{A}  disk.qcow2\n", "sha256", A),
    ])  # fmt: skip
    def test_every_publishers_shape_is_read(self, text: str, algorithm: str, digest: str) -> None:
        assert sums.choose(text, IMAGE, LIST, algorithm) == sums.Sum(algorithm, digest, "disk.qcow2")

    def test_the_exact_name_goes_before_the_same_name_in_a_directory(self) -> None:
        text = f"{A}  arm64/disk.qcow2\n{B}  disk.qcow2\n"
        assert sums.choose(text, IMAGE, LIST, "sha256").digest == B

    def test_the_name_in_a_url_is_unquoted(self) -> None:
        assert sums.choose(f"{A}  a b.img\n", "https://h/x/a%20b.img?token=1", LIST, "sha256").digest == A

    @pytest.mark.parametrize("text", [f"{A}\n", f"{A}  disk-Build19.146.qcow2\n", f"SHA256 (disk-9.8.qcow2) = {A}\n"])
    def test_a_list_named_after_the_image_is_about_the_image(self, text: str) -> None:
        assert sums.choose(text, IMAGE, f"{IMAGE}.sha256", "sha256").digest == A

    def test_a_list_of_another_name_is_not(self) -> None:
        with pytest.raises(ValueError, match=r"^it does not name disk\.qcow2$"):
            sums.choose(f"{A}\n", IMAGE, LIST, "sha256")

    def test_nearest_names_are_offered(self) -> None:
        with pytest.raises(ValueError, match=r"it does not name disk\.qcow2; the nearest names in it: disk2\.qcow2"):
            sums.choose(f"{A}  disk2.qcow2\n{B}  README\n", IMAGE, LIST, "sha256")

    def test_two_different_sums_are_refused(self) -> None:
        with pytest.raises(ValueError, match=rf"it gives disk\.qcow2 2 different sums: {A}, {B}"):
            sums.choose(f"{A}  disk.qcow2\n{B} *disk.qcow2\n", IMAGE, LIST, "sha256")

    def test_the_same_name_in_two_directories_is_ambiguous(self) -> None:
        with pytest.raises(ValueError, match="2 different sums"):
            sums.choose(f"{A}  arm64/disk.qcow2\n{B}  amd64/disk.qcow2\n", IMAGE, LIST, "sha256")

    def test_the_wrong_algorithm_is_named(self) -> None:
        with pytest.raises(ValueError, match=r"it holds no sha256 sum, but sha512: set sums_algorithm"):
            sums.choose(DEBIAN, IMAGE, LIST, "sha256")

    def test_a_web_page_holds_no_sum(self) -> None:
        with pytest.raises(ValueError, match=r"^it holds no sha256 sum$"):
            sums.choose("<html><body>not found</body></html>", IMAGE, LIST, "sha256")

    def test_what_the_signature_does_not_cover_is_not_believed(self) -> None:
        around = f"SHA256 (disk.qcow2) = {C}\n{SIGNED}SHA256 (disk.qcow2) = {C}\n"
        assert sums.choose(around, IMAGE, LIST, "sha256").digest == A
        header = SIGNED.replace("Hash: SHA256", f"SHA256 (disk.qcow2) = {C}")
        assert [entry.digest for entry in sums.parse(header)] == [A, B]

    def test_dash_escapes_are_undone(self) -> None:
        assert sums.parse(SIGNED)[1] == sums.Sum("sha256", B, "-odd.qcow2")

    def test_a_digest_must_have_the_length_of_its_tag(self) -> None:
        assert sums.parse(f"SHA512 (disk.qcow2) = {A}\nSHA1 (disk.qcow2) = {A}\n") == ()

    @given(st.dictionaries(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True), st.binary(), min_size=1),
           st.sampled_from(["{0}  {1}\n", "{0} *{1}\n", "{0}  ./{1}\n", "SHA256 ({1}) = {0}\n", "# x\r\n{0} {1}\r\n"]))
    def test_every_file_of_a_list_is_found(self, files: dict[str, bytes], line: str) -> None:
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        text = "".join(line.format(digest, name) for name, digest in digests.items())
        for name, digest in digests.items():
            assert sums.choose(text, f"https://h/{name}", LIST, "sha256").digest == digest

    @given(st.text())
    def test_no_text_breaks_it(self, text: str) -> None:
        for entry in sums.parse(text):
            assert len(entry.digest) == sums.DIGITS[entry.algorithm]
            assert entry.digest.strip("0123456789abcdef") == ""

    @pytest.mark.parametrize("sha256", ["", "abc", A + "0", "g" * 64, f"sha256:{A}"])
    def test_a_given_sum_must_be_one(self, sha256: str) -> None:
        with pytest.raises(ValueError, match="is not a sha256: it has 64 digits, 0 to 9 and a to f"):
            sums.given(sha256)

    def test_a_given_sum_is_folded(self) -> None:
        assert sums.given(f" {A.upper()} ") == sums.Sum("sha256", A)


def qcow2(*, version: int = 3, backing: bytes = b"", crypt: int = 0, incompatible: int = 0, size: int = GIB) -> bytes:
    """The first bytes of a qcow2 file. The backing file's name, if any, stands at 1024."""
    fields = struct.pack(">IQIIQI", version, 1024 if backing else 0, len(backing), 16, size, crypt)
    head = b"QFI\xfb" + fields + bytes(36) + struct.pack(">Q", incompatible) + bytes(24)
    return (head.ljust(1024, b"\0") + backing).ljust(disk.HEAD, b"\0")


def raw(at: int = 510, mark: bytes = b"\x55\xaa", also: bytes = b"\x55\xaa") -> bytes:
    head = bytearray(disk.HEAD)
    head[510:512] = also
    head[at:at + len(mark)] = mark
    return bytes(head)


class TestJudge:
    @pytest.mark.parametrize(("head", "kind"), [
        (qcow2(), "qcow2"), (qcow2(version=2), "qcow2"), (qcow2(incompatible=1 | 8 | 16), "qcow2"), (raw(), "raw"),
    ])  # fmt: skip
    def test_good_images(self, head: bytes, kind: str) -> None:
        assert disk.judge(head, "x.img") == kind

    def test_the_header_is_read(self) -> None:
        head = disk.parse_qcow2(qcow2(backing=b"/etc/shadow", crypt=2, incompatible=4, size=5 * GIB))
        assert head == disk.Qcow2Header(3, 5 * GIB, "/etc/shadow", True, 4)

    @pytest.mark.parametrize(("head", "words"), [
        (qcow2(backing=b"/etc/shadow"), r"x\.img is refused: it names a backing file \('/etc/shadow'\)"),
        (qcow2(version=2, backing=b"json:{}"), r"x\.img is refused: it names a backing file \('json:\{\}'\)"),
        (qcow2(incompatible=4), r"x\.img is refused: it names an external data file"),
        (qcow2(crypt=2), r"x\.img is encrypted"),
        (qcow2(incompatible=2), r"x\.img says of itself that it is damaged"),
        (qcow2(version=4), r"x\.img is not a usable qcow2 image: its version is 4; 2 and 3 are known"),
        (qcow2()[:60], r"x\.img is not a usable qcow2 image: its header is cut short"),
        (qcow2()[:80], r"x\.img is not a usable qcow2 image: its header is cut short"),
        (raw(0, b"KDMV"), r"x\.img is a VMDK image, not a qcow2 or raw disk image"),
        (raw(0, b"# Disk DescriptorFile\nRW 1 FLAT \"/etc/shadow\" 0"), r"x\.img is a VMDK image"),
        (raw(0, b"vhdxfile"), r"x\.img is a VHDX image"),
        (raw(0, b"PK\x03\x04"), r"x\.img is a zip archive"),
        (raw(257, b"ustar"), r"x\.img is a tar archive, not a disk image"),
        (raw(32769, b"CD001"), r"x\.img is a CD image \(ISO\), not a disk image"),
        (b"\n<!DOCTYPE html><html>404", r"x\.img is a web page, not a disk image"),
        (raw(also=b"\0\0", mark=b""), r"x\.img is neither a qcow2 image nor a disk with a partition table"),
        (b"", r"x\.img is neither a qcow2 image nor a disk with a partition table"),
    ])  # fmt: skip
    def test_what_is_refused(self, head: bytes, words: str) -> None:
        with pytest.raises(ApplyError, match=f"^{words}") as caught:
            disk.judge(head, "x.img")
        assert caught.value.todo

    @given(st.binary(max_size=2000))
    def test_no_header_breaks_it(self, tail: bytes) -> None:
        try:
            assert disk.judge(b"QFI\xfb" + tail, "x") == "qcow2"
        except ApplyError as error:
            assert str(error).startswith("x ")

    @pytest.mark.parametrize(("head", "kind"), [
        (b"\xfd7zXZ\0\0", disk.Packing.XZ), (b"\x1f\x8b\x08", disk.Packing.GZIP),
        (b"\x28\xb5\x2f\xfd\x04", disk.Packing.ZSTD), (qcow2(), None), (b"", None),
    ])  # fmt: skip
    def test_packing_is_told_by_content(self, head: bytes, kind: disk.Packing | None) -> None:
        assert disk.packing(head) == kind


def gpt(kind: str) -> bytes:
    """The start of a disk with one partition of that type, in a GPT; the MBR only protects it."""
    header = b"EFI PART".ljust(72, b"\0") + struct.pack("<QII", 2, 128, 128)
    return mbr(0xee) + header.ljust(512, b"\0") + uuid.UUID(kind).bytes_le.ljust(128 * 128, b"\0")


def mbr(kind: int) -> bytes:
    """The first sector of a disk whose last entry in the MBR is a partition of that type."""
    return bytes(494 + 4) + bytes([kind]) + bytes(11) + b"\x55\xaa"


class TestPartitions:
    @pytest.mark.parametrize(("start", "may"), [
        (gpt("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"), True), (gpt("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"), True),
        (gpt("0fc63daf-8483-4772-8e79-3d69d8477de4"), False), (mbr(0xef), True), (mbr(0x0c), True),
        (mbr(0x83), False), (mbr(0), False),
    ])  # fmt: skip
    def test_firmware_looks_at_what_can_be_fat(self, start: bytes, may: bool) -> None:
        assert disk.may_boot_uefi(start) is may

    def test_an_image_that_firmware_cannot_boot_is_refused_for_those_who_would(self) -> None:
        image = Fetched("/w/image.qcow2", "qcow2", "0" * 64, GIB, "/srv/old.qcow2", uefi=False)
        with pytest.raises(ApplyError) as caught:
            check_firmware(image, ["web-2", "web-1"])
        assert str(caught.value).splitlines() == [
            "/srv/old.qcow2 cannot be booted by UEFI: it has no EFI system partition",
            "  why: these VMs have firmware: uefi, and would stop in it: web-1, web-2",
            "  do:  write firmware: bios for the template, or give an image that is made for UEFI"]
        check_firmware(image, [])
        check_firmware(replace(image, uefi=True), ["web-1"])

    @given(st.binary(max_size=700), st.binary(max_size=16), st.binary(max_size=600))
    def test_no_table_breaks_it(self, before: bytes, fields: bytes, after: bytes) -> None:
        start = before[:512].ljust(512, b"\0") + b"EFI PART".ljust(72, b"\0") + fields.ljust(16, b"\xff") + after
        assert disk.may_boot_uefi(start) in (True, False)

    def test_a_cut_table_has_none(self) -> None:
        assert not disk.may_boot_uefi(b"")
        assert not disk.may_boot_uefi(bytes(512) + b"EFI PART")


class TestInfo:
    def said(self, **more: object) -> str:
        return json.dumps({"virtual-size": GIB, "format": "qcow2", **more})

    def test_plain(self) -> None:
        assert disk.parse_info(self.said()) == disk.Info("qcow2", GIB)

    def test_files_it_depends_on_are_found(self) -> None:
        backing = self.said(**{"backing-filename": "a", "full-backing-filename": "/x/a"})
        assert disk.parse_info(backing).others == ("a", "/x/a")
        data = self.said(**{"format-specific": {"type": "qcow2", "data": {"data-file": "/etc/shadow"}}})
        assert disk.parse_info(data).others == ("/etc/shadow",)
        assert disk.parse_info(self.said(encrypted=True)).encrypted


METER = "  3 1024M    3 39.2M    0     0  22.6M      0  0:00:45  0:00:01  0:00:44 22.6M"


class TestCurl:
    @pytest.mark.parametrize(("line", "bytes_"), [
        (METER, (int(39.2 * (1 << 20)), 1 << 30)),
        ("100  512k  100  512k    0     0  1000k      0 --:--:-- --:--:-- --:--:-- 1000k", (512 << 10, 512 << 10)),
        ("  0     0    0     0    0     0      0      0 --:--:--  0:00:01 --:--:--     0", (0, 0)),
        (" 45 1.5G   45 1.0G    0     0  22.6M      0  0:00:45  0:00:01  0:00:44 22.6M", (1 << 30, 3 << 29)),
        ("  % Total    % Received % Xferd  Average Speed   Time    Time     Time  Current", None),
        ("curl: (18) transfer closed with 3145728 bytes remaining to read", None),
        ("", None),
    ])  # fmt: skip
    def test_the_meter(self, line: str, bytes_: tuple[int, int] | None) -> None:
        assert download.parse_meter(line) == bytes_

    def test_a_login_is_taken_out_of_a_url(self) -> None:
        assert download.address("https://me:p%40ss@h:8443/a?b#c") == download.Address("https://h:8443/a?b#c", "me:p@ss")
        assert download.address("https://h/a@b") == download.Address("https://h/a@b")

    def test_secrets_are_in_the_config_and_not_in_the_command(self) -> None:
        assert download.curl_config("me:p\"a\\s", "http://u:secret@proxy:3128") == (
            'user = "me:p\\"a\\\\s"\nproxy = "http://u:secret@proxy:3128"\n')
        assert download.curl_config(None, "http://proxy:3128") == ""

    def test_the_command(self) -> None:
        argv = download.curl_argv("https://h/a", "/c/x.partial", room=0, secure=True, proxy="http://p:1",
                                  config="/w/curl.conf")
        pairs = dict(pairwise(argv))
        assert argv[:4] == ["curl", "--disable", "--config", "/w/curl.conf"]
        assert pairs["--proto"] == "=https"
        assert pairs["--continue-at"] == "-"
        assert pairs["--max-filesize"] == "1"  # 0 would mean: no limit
        assert pairs["--proxy"] == "http://p:1"
        assert argv[-2:] == ["--url", "https://h/a"]
        assert "=https,http" in download.curl_argv("http://h/a", "x", room=9, secure=False)


class TestPolicy:
    @pytest.mark.parametrize("source", [
        ImageSource("http://h/a.img", sha256=A), ImageSource("https://h/a.img", sums="https://h/SHA256SUMS"),
        ImageSource("http://h/a.img", sums="https://h/SHA512SUMS", sums_algorithm="sha512"),
        ImageSource("http://127.0.0.1:8000/a.img", sums="http://127.0.0.1:8000/SHA256SUMS"),
        ImageSource("http://[::1]/a.img", sums="http://localhost/SHA256SUMS"),
        ImageSource("/srv/a.img"), ImageSource("/srv/a.img", sha256=A),
    ])  # fmt: skip
    def test_allowed(self, source: ImageSource) -> None:
        assert refusal(source) is None

    @pytest.mark.parametrize(("source", "what", "todo"), [
        (ImageSource("https://h/a.img"), "nothing says which bytes of https://h/a.img are right", "give its sha256:"),
        (ImageSource("http://h/a.img"), "nothing says which bytes of http://h/a.img are right", "give its sha256:, or"),
        (ImageSource("https://h/a.img", sums="http://h/SHA256SUMS"), "comes over plain http", "an https URL as sums:"),
        (ImageSource("https://h/a.img", sums="http://127.0.0.1.evil.org/S"), "comes over plain http", "sha256:"),
        (ImageSource("https://h/a.img", sha256="12"), "'12' is not a sha256", "run sha256sum on the file"),
        (ImageSource("ftp://h/a.img", sha256=A), "ftp://h/a.img: ftp is not supported", "write an https:// URL"),
        (ImageSource("file:///etc/shadow", sha256=A), "file is not supported", "write an https:// URL"),
        (ImageSource("https:///a.img", sha256=A), "it names no server", "write an https:// URL"),
        (ImageSource("https://h/a\n.img", sha256=A), "it has a blank or a control character", "write an https:// URL"),
        (ImageSource("https://h:x/a", sha256=A), "Port could not be cast", "write an https:// URL"),
        (ImageSource("https://h/a", sums="https://h/M", sums_algorithm="md5"), "'md5' is no algorithm", "or sha512"),
        (ImageSource("a.img"), "'a.img' is neither a URL nor a whole path", ""),
    ])  # fmt: skip
    def test_refused(self, source: ImageSource, what: str, todo: str) -> None:
        problem = refusal(source)
        assert problem is not None
        assert what in problem.what
        assert todo in problem.todo

    def test_a_login_is_not_shown(self) -> None:
        problem = refusal(ImageSource("https://me:secret@h/a.img", sums="http://me:secret@h/S"))
        assert problem is not None
        assert "secret" not in str(problem)

    def test_what_makes_a_template(self) -> None:
        by_sum = ImageSource("https://h/a.img", sha256=A)
        assert inputs(by_sum, GIB) == inputs(replace(by_sum, location="https://mirror/b.img", sha256=A.upper()), GIB)
        assert inputs(by_sum, GIB) != inputs(by_sum, 2 * GIB)
        assert inputs(by_sum, GIB) != inputs(replace(by_sum, sha256=B), GIB)
        listed = ImageSource("https://h/a.img", sums="https://h/S")
        assert inputs(listed, None) != inputs(replace(listed, location="https://h/b.img"), None)
        assert inputs(ImageSource("/srv/a.img", sha256=A), None) == inputs(ImageSource("/srv/b.img", sha256=A), None)
        with pytest.raises(ValueError, match=r"the sha256 of /srv/a\.img is not known yet"):
            inputs(ImageSource("/srv/a.img"), None)

    def test_every_tool_has_a_package(self) -> None:
        started = {"qemu-img", "curl", "xz", "gzip", "zstd", "sha256sum", "sha512sum", "prlimit"}
        assert started <= set(REQUIRED_TOOLS)
        assert all(REQUIRED_TOOLS.values())


class TestLocalSum:
    def aged(self, path: Path, content: bytes) -> str:
        """Write a file that was changed an hour ago; its sum."""
        path.write_bytes(content)
        os.utime(path, (time.time() - 3600,) * 2)
        return hashlib.sha256(content).hexdigest()

    def test_it_is_the_sum(self, tmp_path: Path) -> None:
        expected = self.aged(tmp_path / "a", b"one")
        assert [local_sha256(str(tmp_path / "a"), str(tmp_path / "cache")) for _ in "12"] == [expected, expected]

    def test_it_is_remembered(self, tmp_path: Path) -> None:
        self.aged(tmp_path / "a", b"one")
        local_sha256(str(tmp_path / "a"), str(tmp_path / "cache"))
        [note] = (tmp_path / "cache").iterdir()
        note.write_text(json.dumps({**json.loads(note.read_text()), "sha256": B}))
        assert local_sha256(str(tmp_path / "a"), str(tmp_path / "cache")) == B

    @pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"sha256": 1}', '{"sha256": "zz"}'])
    def test_a_damaged_note_is_not_believed(self, tmp_path: Path, damage: str) -> None:
        expected = self.aged(tmp_path / "a", b"one")
        local_sha256(str(tmp_path / "a"), str(tmp_path / "cache"))
        [note] = (tmp_path / "cache").iterdir()
        note.write_text(damage)
        assert local_sha256(str(tmp_path / "a"), str(tmp_path / "cache")) == expected

    def test_any_change_is_seen(self, tmp_path: Path) -> None:
        path, cache = tmp_path / "a", str(tmp_path / "cache")
        self.aged(path, b"one")
        local_sha256(str(path), cache)
        times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
        other = self.aged(tmp_path / "b", b"two")
        os.utime(tmp_path / "b", ns=times)
        os.replace(tmp_path / "b", path)  # same size, same time: the inode tells
        assert local_sha256(str(path), cache) == other
        longer = self.aged(path, b"three")
        assert local_sha256(str(path), cache) == longer

    def test_a_file_changed_just_now_is_not_remembered(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"one")
        local_sha256(str(tmp_path / "a"), str(tmp_path / "cache"))
        assert not (tmp_path / "cache").exists()

    def test_a_cache_that_cannot_be_written_costs_only_time(self, tmp_path: Path) -> None:
        expected = self.aged(tmp_path / "a", b"one")
        (tmp_path / "cache").write_text("a file is in the way")
        assert local_sha256(str(tmp_path / "a"), str(tmp_path / "cache")) == expected

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(HostError) as caught:
            local_sha256(str(tmp_path / "nothing.img"), str(tmp_path))
        assert str(caught.value).splitlines() == [
            f"cannot read the image {tmp_path}/nothing.img", "  why: No such file or directory",
            "  do:  check image: in the file; a path is one of the machine that vmwright runs on"]
