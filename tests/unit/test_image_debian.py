"""Building Debian: command lines, files, what apt says and what failed builds say; everything that needs no host."""

from __future__ import annotations

import io
import shlex
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmwright.errors import ApplyError, HostError
from vmwright.host.local import LocalHost
from vmwright.host.run import Completed
from vmwright.image import debian, mirror
from vmwright.image import debian_guest as guest
from vmwright.spec.cloud import BuildSource, Filesystem
from vmwright.units import GIB, MIB, TIB

EXT4, XFS, BTRFS = Filesystem.EXT4, Filesystem.XFS, Filesystem.BTRFS
SOURCE = BuildSource("debian", "bookworm", EXT4, ("vim", "git"))
IDENTITY = guest.Identity("74350a7d-9fdf-493d-920d-5a622ffe34e0", "ff650b7b-59e6-496f-9539-284cdb862207")
KERNEL = "6.1.0-56-cloud-amd64"

# Printed by `apt-get indextargets` (mirror.targets_argv) on Debian 12, with two archives of others; hosts renamed.
TARGETS = """\
http://mirror.example/debian/|bookworm|bookworm|main|Debian|/etc/apt/sources.list.d/debian.sources:1
http://mirror.example/debian/|bookworm|bookworm|non-free-firmware|Debian|/etc/apt/sources.list.d/debian.sources:1
http://mirror.example/debian/|bookworm-updates|bookworm-updates|main|Debian|/etc/apt/sources.list.d/debian.sources:1
http://mirror.example/debian/|bookworm-backports|bookworm-backports|main|Debian Backports|/etc/apt/sources.list:4
http://security.example/debian-security/|bookworm-security|bookworm-security|main|Debian|/etc/apt/sources.list.d/debian.sources:2
https://other.example/apt/|bookworm|bookworm|main|Other|/etc/apt/sources.list.d/other.list:1
https://third.example/apt/|nodistro|nodistro|main|. third|/etc/apt/sources.list.d/third.sources:1
"""
UBUNTU = "http://ubuntu.example/ubuntu/|noble|noble|main|Ubuntu|/etc/apt/sources.list.d/ubuntu.sources:1\n"


def archives(text: str, release: str = "bookworm") -> list[tuple[str, str, tuple[str, ...]]]:
    return [(a.uri, a.suite, a.components) for a in mirror.choose(mirror.parse_targets(text), release)]


class TestMirror:
    def test_the_hosts_own_archives_are_the_guests(self) -> None:
        assert archives(TARGETS) == [
            ("http://mirror.example/debian/", "bookworm", ("main", "non-free-firmware")),
            ("http://mirror.example/debian/", "bookworm-updates", ("main",)),
            ("http://security.example/debian-security/", "bookworm-security", ("main",)),
        ]

    def test_another_release_comes_from_the_same_repositories_with_main_alone(self) -> None:
        assert archives(TARGETS, "trixie") == [
            ("http://mirror.example/debian/", "trixie", ("main",)),
            ("http://mirror.example/debian/", "trixie-updates", ("main",)),
            ("http://security.example/debian-security/", "trixie-security", ("main",)),
        ]

    def test_sid_has_neither_updates_nor_security(self) -> None:
        assert archives(TARGETS, "sid") == [("http://mirror.example/debian/", "sid", ("main",))]

    def test_a_host_that_follows_stable_is_known_by_the_codename(self) -> None:
        text = TARGETS.replace("|bookworm|bookworm|", "|stable|bookworm|")
        assert archives(text)[0] == ("http://mirror.example/debian/", "bookworm", ("main", "non-free-firmware"))

    def test_a_second_mirror_is_taken_along_once(self) -> None:
        text = TARGETS + "http://two.example/debian/|sid|sid|main|Debian|/etc/apt/sources.list:1\n"
        uris = [uri for uri, suite, _ in archives(text) if suite == "bookworm"]
        assert uris == ["http://mirror.example/debian/", "http://two.example/debian/"]

    @pytest.mark.parametrize("text", ["", UBUNTU, "\n".join(TARGETS.splitlines()[4:]), "rubbish\n|||\n"])
    def test_a_host_without_a_debian_mirror_has_none(self, text: str) -> None:
        assert archives(text) == []

    def test_a_given_mirror_has_security_beside_it(self) -> None:
        found = mirror.given("http://m.example/debian", "bookworm", security=True)
        assert [(a.uri, a.suite) for a in found] == [
            ("http://m.example/debian/", "bookworm"), ("http://m.example/debian/", "bookworm-updates"),
            ("http://m.example/debian-security/", "bookworm-security")]
        assert [a.suite for a in mirror.given("http://m/d/", "bookworm", security=False)] == [
            "bookworm", "bookworm-updates"]
        assert [a.suite for a in mirror.given("http://m/d", "sid", security=True)] == ["sid"]

    def test_sources_are_what_apt_reads(self) -> None:
        text = mirror.sources_text(mirror.choose(mirror.parse_targets(TARGETS), "bookworm"))
        assert text.split("\n\n")[0] == (
            "Types: deb\nURIs: http://mirror.example/debian/\nSuites: bookworm\nComponents: main non-free-firmware\n"
            "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg")
        assert text.count("Types: deb\n") == 3

    @pytest.mark.parametrize(("text", "key"), [
        ("Types: deb\nURIs: http://m/debian\nSigned-By: /etc/apt/keyrings/own.gpg\n", "/etc/apt/keyrings/own.gpg"),
        ("deb [arch=amd64 signed-by=/etc/apt/keyrings/own.asc] http://m/debian x main\n", "/etc/apt/keyrings/own.asc"),
        ("deb [signed-by=/a.gpg trusted=yes] http://m x main\ndeb [signed-by=/a.gpg] http://m y main\n", "/a.gpg"),
        ("Signed-By: /a.gpg\n\nSigned-By: /b.gpg\n", None),
        ("Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n", None), ("deb http://m/debian x main\n", None),
    ])  # fmt: skip
    def test_the_key_of_an_archive_is_read(self, text: str, key: str | None) -> None:
        assert mirror.signed_by(text) == key

    def test_a_list_of_mirrors_gives_its_first(self) -> None:
        assert mirror.listed("# fast ones\n\nhttp://a.example/debian\tpriority:1\nhttp://b.example\n") == (
            "http://a.example/debian")
        assert mirror.listed("# none\n") is None

    def test_proxies_of_apt_become_variables(self) -> None:
        dump = ('Acquire::http::Proxy "http://user:pw@p.example:3128";\nAcquire::https::Proxy "DIRECT";\n'
                'Acquire::http::Proxy::m.example "http://q.example:1";\nAcquire::http::Timeout "10";\n')
        assert mirror.parse_proxies(dump) == {"http_proxy": "http://user:pw@p.example:3128"}
        assert mirror.parse_proxies("") == {}

    def test_a_login_is_not_shown(self) -> None:
        assert mirror.shown("https://me:secret@m.example/debian/") == "https://m.example/debian/"

    def test_our_lists_leave_the_hosts_alone(self) -> None:
        assert "Dir::State::lists=/w/lists" in mirror.update_argv("/w/lists")
        assert "Dir::State::lists=/w/lists" in mirror.targets_argv("/w/lists")
        assert not any("Dir::State" in word for word in mirror.targets_argv())

    def test_a_missing_keyring_is_named(self, tmp_path: Path) -> None:
        there = tmp_path / "it's.gpg"
        there.write_bytes(b"")
        one, two = (mirror.Archive("http://m", "x", key=str(path)) for path in (there, tmp_path / "gone.gpg"))
        assert mirror.missing_key(LocalHost("here"), [one]) is None
        assert mirror.missing_key(LocalHost("here"), [one, two]) == str(tmp_path / "gone.gpg")

    def test_the_mirror_of_a_host_behind_a_file_is_followed(self, tmp_path: Path) -> None:
        (tmp_path / "debian.list").write_text("https://cdn.example/debian\n")
        archive = mirror.Archive(f"mirror+file:{tmp_path}/debian.list/", "bookworm")
        assert mirror.reachable(LocalHost("here"), archive, None).uri == "https://cdn.example/debian"

    @pytest.mark.parametrize("uri", ["file:///srv/debian/", "cdrom://disc/", "mirror+file:/no/such/list/"])
    def test_a_mirror_that_only_the_host_can_read_is_refused(self, uri: str) -> None:
        with pytest.raises(HostError) as caught:
            mirror.reachable(LocalHost("here"), mirror.Archive(uri, "bookworm"), None)
        assert str(caught.value) == (
            f"the Debian mirror of here is {uri}: a guest cannot reach it\n"
            "  do:  name one in the file: mirror: http://HOST/debian, with the template or under defaults")


class TestLayout:
    @given(st.integers(debian.MINIMUM_SIZE, 64 * TIB))
    def test_partitions_are_aligned_apart_and_leave_room_for_the_second_table(self, size: int) -> None:
        plan = debian.layout(size)
        assert plan.esp_start % MIB == plan.root_start % MIB == plan.root_size % MIB == 0
        assert plan.esp_start >= 34 * 512 and plan.esp_start + plan.esp_size == plan.root_start
        assert MIB <= size - (plan.root_start + plan.root_size) < 2 * MIB

    def test_a_small_disk_is_refused(self) -> None:
        with pytest.raises(ApplyError) as caught:
            debian.layout(1536 * MIB)
        assert str(caught.value) == (
            "a disk of 1.5G is too small for Debian\n  do:  give the template disk: 2G or more")

    def test_the_root_partition_is_the_last(self) -> None:
        argv = debian.partition_argv("/w/disk.raw", debian.layout(3 * GIB), IDENTITY)
        assert argv == [
            "sgdisk", "--clear", "--new=1:2048:526335", "--typecode=1:ef00", "--change-name=1:ESP",
            f"--partition-guid=1:{IDENTITY.esp}", "--new=2:526336:6289407",
            "--typecode=2:4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "--change-name=2:root", "/w/disk.raw"]


class TestDisk:
    def test_the_esp_is_made_in_its_place_without_a_mount(self) -> None:
        argvs = debian.esp_argvs("/w/root", "/w/esp", "/w/disk.raw", debian.layout(3 * GIB), [KERNEL])
        assert argvs[0] == ["mkfs.vfat", "-F", "32", "-s", "4", "-n", "ESP", "--offset=2048", "/w/disk.raw", "262144"]
        assert all(argv[0] in ("mkfs.vfat", "mmd", "mcopy") for argv in argvs)
        assert all("/w/disk.raw@@1048576" in argv for argv in argvs[1:])
        targets = [argv[-1] for argv in argvs[3:]]
        assert targets == ["::/EFI/BOOT/BOOTX64.EFI", "::/EFI/systemd/systemd-bootx64.efi", f"::/debian/{KERNEL}/linux",
                           f"::/debian/{KERNEL}/initrd.img-{KERNEL}"]
        made = {word.removeprefix("::/") for word in argvs[1] if word.startswith("::/")}
        assert {target.removeprefix("::/").rpartition("/")[0] for target in targets} <= made

    def test_clusters_of_the_esp_are_of_the_number_that_fat32_needs(self) -> None:
        clusters = debian.ESP_SIZE // (4 * 512)
        tables = 2 * clusters * 4 // 2048
        assert clusters - tables - 32 > 65525

    def test_ext4_is_filled_while_it_is_made(self) -> None:
        assert debian.root_argvs(EXT4, "/w", debian.layout(3 * GIB), IDENTITY.root) == [
            ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-U", IDENTITY.root, "-d", "/w/root",
             "-E", "offset=269484032", "/w/disk.raw", "2881536k"]]

    def test_xfs_is_filled_in_a_mount_namespace_of_its_own(self) -> None:
        empty, make, fill, place, remove = debian.root_argvs(XFS, "/w", debian.layout(3 * GIB), IDENTITY.root)
        assert empty == ["truncate", "--size=2950692864", "--", "/w/root.img"]
        assert make == ["mkfs.xfs", "-q", "-L", "root", "-m", f"uuid={IDENTITY.root}", "/w/root.img"]
        assert fill[:4] == ["unshare", "--mount", "--propagation=private", "sh"]
        assert fill[-3:] == ["/w/root.img", "/w/root", "/w/mnt"]
        assert place[-1] == "driver=raw,offset=269484032,size=2950692864,file.driver=file,file.filename=/w/disk.raw"
        assert remove == ["rm", "-f", "--", "/w/root.img"]

    def test_btrfs_is_filled_without_a_mount(self) -> None:
        argvs = debian.root_argvs(BTRFS, "/w", debian.layout(3 * GIB), IDENTITY.root)
        assert argvs[1] == ["mkfs.btrfs", "-q", "-L", "root", "-U", IDENTITY.root, "--rootdir", "/w/root",
                            "/w/root.img"]
        assert not any("mount" in word for argv in argvs for word in argv)


class TestTree:
    def test_the_command_installs_what_is_asked_for_in_namespaces_of_its_own(self) -> None:
        argv = debian.mmdebstrap_argv("bookworm", ["a", "b"], "/w")
        assert argv[:7] == ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "mmdebstrap"]
        assert argv[-3:] == ["bookworm", "/w/root", "/w/debian.sources"]
        assert "--include=a,b" in argv and "--dpkgopt=force-unsafe-io" in argv

    def test_odd_paths_reach_the_hooks_whole(self) -> None:
        argv = debian.mmdebstrap_argv("bookworm", ["a"], "/w/it's here", ["/etc/apt/keyrings/own.gpg"])
        hooks = [word.partition("=")[2] for word in argv if "-hook=" in word]
        assert shlex.split(hooks[0]) == ["tar-in", "/w/it's here/files.tar", "/"]
        assert shlex.split(hooks[1])[-2:] == ["<", "/w/it's here/finish.sh"]
        assert shlex.split(hooks[-1]) == ["upload", "/etc/apt/keyrings/own.gpg", "/etc/apt/keyrings/own.gpg"]
        assert hooks[-2] == 'mkdir -p "$1"/etc/apt/keyrings'

    def test_the_kernel_for_vms_gives_way_to_one_that_is_asked_for(self) -> None:
        assert guest.KERNEL in guest.packages(EXT4, ("vim",))
        asked = guest.packages(EXT4, ("linux-image-amd64", "vim", "nano"))
        assert guest.KERNEL not in asked and "linux-image-amd64" in asked
        assert len(set(asked)) == len(asked)

    @pytest.mark.parametrize(("filesystem", "package"),
                             [(XFS, "xfsprogs"), (BTRFS, "btrfs-progs"), (EXT4, "e2fsprogs")])
    def test_the_guest_can_check_and_grow_its_own_file_system(self, filesystem: Filesystem, package: str) -> None:
        assert package in guest.packages(filesystem, ())

    def test_a_manifest_is_packages_and_versions(self) -> None:
        assert debian.parse_manifest("zlib1g\t1:1.2.13\nadduser\t3.134\n") == {"adduser": "3.134", "zlib1g": "1:1.2.13"}

    def test_progress_follows_the_steps_and_the_packages(self) -> None:
        said: list[tuple[str, float | None]] = []
        tell = debian.narrator(lambda sentence, share: said.append((sentence, share)))
        for line in ("I: running apt-get update...", "0 upgraded, 4 newly installed, 0 to remove and 0 not upgraded.",
                     "Setting up base-files (12.4) ...", "I: installing remaining packages inside the chroot...",
                     "Unpacking a (1) ...", "0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.",
                     "Unpacking a (1) ...", "Setting up a (1) ...", "Setting up b (1) ...", "Setting up c (1) ...",
                     "I: cleaning package lists and apt cache..."):
            tell(line)
        shares = [share for _, share in said if share is not None]
        assert said[0] == ("reading the mirror's lists", 0.02) and said[-1] == ("tidying", 0.8)
        assert shares == sorted(shares) and shares[-2] == 0.8


class TestGuest:
    def test_consoles_are_the_screen_and_the_serial_port(self) -> None:
        line = guest.command_line(IDENTITY)
        assert line.startswith(f"root=UUID={IDENTITY.root} ro console=tty0 console=ttyS0,115200 ")

    def test_fstab_finds_the_root_by_uuid_and_mounts_the_esp_on_demand(self) -> None:
        root, esp = guest.fstab(IDENTITY, EXT4).splitlines()
        assert root == f"UUID={IDENTITY.root} / ext4 defaults 0 1"
        assert esp.split()[:3] == [f"PARTUUID={IDENTITY.esp}", "/boot/efi", "vfat"]
        assert {"noauto", "nofail", "x-systemd.automount"} <= set(esp.split()[3].split(","))
        assert guest.fstab(IDENTITY, XFS).splitlines()[0].endswith("/ xfs defaults 0 0")

    def test_new_kernels_get_the_same_command_line_and_place(self) -> None:
        files = guest.files(IDENTITY, EXT4)
        entry = dict(line.split(maxsplit=1) for line in guest.boot_entry(KERNEL, guest.command_line(IDENTITY), "Debian")
                     .splitlines())
        assert files["etc/kernel/cmdline"][1].strip() == entry["options"]
        assert entry["linux"].startswith(f"/{files['etc/kernel/entry-token'][1].strip()}/{KERNEL}/")
        assert entry == {"title": "Debian", "version": KERNEL, "sort-key": "debian",
                         "options": guest.command_line(IDENTITY), "linux": f"/debian/{KERNEL}/linux",
                         "initrd": f"/debian/{KERNEL}/initrd.img-{KERNEL}"}
        assert guest.entry_path(KERNEL) == f"loader/entries/debian-{KERNEL}.conf"

    def test_kernels_without_an_initramfs_are_passed_over(self) -> None:
        names = ["config-1", "vmlinuz-1", "initrd.img-1", "vmlinuz-2", "initrd.img-3", "efi"]
        assert guest.kernels(names) == ("1",)

    def test_the_initramfs_has_the_driver_of_the_root_file_system(self) -> None:
        mode, hook = guest.files(IDENTITY, BTRFS)["etc/initramfs-tools/hooks/vm"]
        modules = next(line for line in hook.splitlines() if line.startswith("manual_add_modules"))
        assert {"virtio_blk", "virtio_scsi", "nvme", "btrfs"} <= set(modules.split())
        assert mode == 0o755

    def test_files_are_packed_with_their_modes_and_belong_to_root(self) -> None:
        files = guest.files(IDENTITY, EXT4)
        with tarfile.open(fileobj=io.BytesIO(guest.tar(files))) as archive:
            entries = {entry.name: entry for entry in archive}
            assert set(entries) == set(files)
            for path, (mode, text) in files.items():
                assert (entries[path].mode, entries[path].uid, entries[path].gid) == (mode, 0, 0)
                content = archive.extractfile(path)
                assert content is not None and content.read().decode() == text

    def test_no_identity_stays_in_the_tree(self, tmp_path: Path) -> None:
        for line in (": > /etc/machine-id", "/etc/ssh/ssh_host_*", "/etc/hostname", "/var/lib/systemd/random-seed"):
            assert line in guest.FINISH
        script = tmp_path / "finish.sh"
        script.write_text(guest.FINISH)
        LocalHost("here").run(["sh", "-n", str(script)])

    def test_what_a_seed_uses_of_cloud_init_is_not_pruned(self) -> None:
        used = {"bootcmd", "write-files", "growpart", "resizefs", "mounts", "set_hostname", "update_etc_hosts",
                "users-groups", "ssh", "locale", "set-passwords", "apt-configure", "ntp", "timezone", "runcmd",
                "package-update-upgrade-install", "write-files-deferred", "scripts-user", "final-message"}
        assert used.isdisjoint(guest.IDLE_MODULES)


def failure(text: str) -> str:
    return str(debian.explain(Completed(("mmdebstrap",), 25, b"", text.encode()), "here", "bookworm", "http://m/debian"))


class TestErrors:
    """The lines are apt's and mmdebstrap's own (Debian 12); hosts renamed."""

    def test_a_release_that_is_not_there(self) -> None:
        text = ("Err:1 http://m/debian bookworm Release\n  404  Not Found [IP: 192.0.2.1 80]\n"
                "E: The repository 'http://m/debian bookworm Release' does not have a Release file.\n"
                "E: apt-get update failed to run\n")
        assert failure(text) == (
            "the mirror http://m/debian has no Debian release bookworm\n"
            "  why: E: The repository 'http://m/debian bookworm Release' does not have a Release file.\n"
            "  do:  correct release: or mirror: of the template")

    @pytest.mark.parametrize("line", [
        "E: Failed to fetch http://m/debian/dists/bookworm/InRelease  Could not connect to 127.0.0.1:9 (127.0.0.1).",
        "  Temporary failure resolving 'm'", "  Could not resolve 'm'", "   Unable to connect to m:http:",
        "E: Failed to fetch http://m/debian/pool/a.deb  Connection timed out [IP: 192.0.2.1 80]",
    ])  # fmt: skip
    def test_a_mirror_that_does_not_answer(self, line: str) -> None:
        assert failure(f"I: running apt-get update...\n{line}\nE: apt-get failed\n") == (
            f"the mirror http://m/debian cannot be reached from here\n  why: {line.strip()}\n"
            "  do:  see that `apt-get update` works on here, name another mirror: of the template, then apply again")

    @pytest.mark.parametrize("line", [
        "E: Unable to locate package vmi", "E: Package 'vmi' has no installation candidate",
        "E: Package vmi has no installation candidate",
    ])  # fmt: skip
    def test_a_package_that_is_not_there(self, line: str) -> None:
        assert failure(f"Reading package lists...\n{line}\n") == (
            f"Debian bookworm has no package vmi\n  why: {line}\n  do:  correct packages: of the template")

    def test_a_signature_that_cannot_be_checked(self) -> None:
        line = "  The following signatures couldn't be verified because the public key is not available: NO_PUBKEY 0E98"
        assert failure(line).startswith("the signature of the mirror http://m/debian could not be checked on here\n")

    def test_a_full_disk_is_named_before_what_follows_from_it(self) -> None:
        text = ("E: Failed to fetch http://m/a.deb  Error writing to file - write (28: No space left on device)\n"
                "E: Unable to fetch some archives\n")
        assert failure(text).startswith("here ran out of room while the template was built\n")

    def test_anything_else_is_shown_with_its_command(self) -> None:
        text = failure("dpkg: error processing package x (--configure):\nE: Sub-process returned an error code\n")
        assert text == ("mmdebstrap on here failed with code 25\n  why: command: mmdebstrap\n"
                        "       dpkg: error processing package x (--configure):\n"
                        "       E: Sub-process returned an error code")

    def test_an_xfs_that_cannot_be_mounted(self) -> None:
        done = Completed(("unshare",), 32, b"", b"mount: /w/mnt: failed to setup loop device for /w/root.img.\n")
        assert str(debian.fill_error(done, "here")) == (
            "here cannot mount an XFS file system, which filling one takes\n"
            "  why: mount: /w/mnt: failed to setup loop device for /w/root.img.\n"
            "  do:  on here: modprobe loop; modprobe xfs. Or write filesystem: ext4")

    def test_packages_that_do_not_fit(self) -> None:
        plan = debian.layout(2 * GIB)
        debian.check_fits(1400 * MIB, plan)
        with pytest.raises(ApplyError) as caught:
            debian.check_fits(2200 * MIB, plan)
        assert str(caught.value) == (
            "the packages take 2200M: too much for a disk of 2G\n"
            "  do:  give the template disk: 3G or more, or fewer packages")

    def test_a_release_without_the_boot_loader_is_refused_before_anything_is_done(self, tmp_path: Path) -> None:
        source = BuildSource("debian", "bullseye", EXT4)
        with pytest.raises(ApplyError) as caught:
            debian.build(LocalHost("here"), source, 3 * GIB, str(tmp_path / "work"), progress=lambda *_: None)
        assert str(caught.value) == (
            "Debian bullseye cannot be built: it has no systemd-boot\n"
            "  do:  write release: bookworm or later, or use its cloud image: os: debian11")
        assert list(tmp_path.iterdir()) == []


class TestInputs:
    def test_what_changes_the_content_changes_the_inputs(self) -> None:
        mine = debian.inputs(SOURCE, 3 * GIB)
        others = [replace(SOURCE, release="trixie"), replace(SOURCE, filesystem=XFS),
                  replace(SOURCE, packages=("vim",))]
        assert len({mine, debian.inputs(SOURCE, 4 * GIB), *(debian.inputs(other, 3 * GIB) for other in others)}) == 5

    def test_the_order_of_packages_and_the_mirror_do_not(self) -> None:
        again = replace(SOURCE, packages=("git", "vim", "git"), mirror="http://m.example/debian")
        assert debian.inputs(again, 3 * GIB) == debian.inputs(SOURCE, 3 * GIB)

    @pytest.mark.parametrize(("filesystem", "tool"), [(EXT4, "mke2fs"), (XFS, "mkfs.xfs"), (BTRFS, "mkfs.btrfs")])
    def test_missing_tools_come_with_their_packages(self, filesystem: Filesystem, tool: str) -> None:
        wanted = debian.required_tools(filesystem)
        assert tool in wanted
        assert debian.missing_tools(wanted, filesystem) == {}
        assert debian.missing_tools(set(wanted) - {"mcopy"}, filesystem) == {"mcopy": "mtools"}
