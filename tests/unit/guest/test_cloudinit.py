"""What cloud-init's files and logs mean."""

from __future__ import annotations

import pytest
from tests.unit.guest import boots
from tests.unit.guest.boots import probe, result, stage, status

from vmwright.guest.cloudinit import Boot, judge, sections, telling_lines


@pytest.mark.parametrize(("text", "words"), [
    (boots.NOT_BEGUN, "the agent answers, cloud-init has not begun"),
    (boots.LOCAL, "cloud-init is setting up the network"),
    (boots.BETWEEN, "cloud-init has finished init"),
    (boots.FINAL, "cloud-init is installing packages and running commands"),
    (probe(status=status("new-stage")), "cloud-init is new-stage"),
    (probe(status=status(None)), "cloud-init has begun")])
def test_how_far_it_is(text: str, words: str) -> None:
    boot = judge(text)
    assert (boot.stage, boot.finished, boot.problem) == (words, False, None)


@pytest.mark.parametrize("text", [boots.DONE_20, boots.DONE])
def test_done(text: str) -> None:
    assert judge(text) == Boot("cloud-init is done", finished=True, instance="i-1")


def test_done_with_warnings_each_once_and_without_deprecations() -> None:
    boot = judge(boots.DEGRADED)
    assert (boot.finished, boot.errors) == (True, ())
    assert boot.warnings == ("Unable to rename interfaces", "no time")


def test_failed() -> None:
    boot = judge(boots.FAILED)
    assert (boot.finished, boot.problem) == (True, None)
    assert boot.errors == (boots.PACKAGE_ERROR,)


def test_a_last_stage_that_died() -> None:
    boot = judge(probe(status=status("modules-final", modules_final=stage(7.0)), final="failed"))
    assert (boot.finished, boot.errors) == (True, ("cloud-init's last stage failed before it could say why",))


def test_a_file_that_is_half_written_is_not_there_yet() -> None:
    whole = probe(status=status("modules-final", modules_final=stage(7.0)))
    assert not judge(whole.replace("==result==\n", '==result==\n{"v1": {')).finished


@pytest.mark.parametrize("datasource", ["DataSourceNone", "DataSourceEc2Local", None])
def test_data_from_elsewhere_is_an_error(datasource: str | None) -> None:
    problem = judge(probe(result=result(datasource=datasource), status=status(None))).problem
    assert str(problem).startswith("cloud-init did not find its seed\n  why: it took its data from ")
    assert "datasource_list has NoCloud" in str(problem)


def test_no_cloud_init() -> None:
    problem = judge(probe(command="", instance="")).problem
    assert str(problem).startswith("the guest has no cloud-init\n  why: the agent answers, but there is no command")


def test_disabled_before_it_ever_ran() -> None:
    problem = judge(probe(disabled="/run/cloud-init/disabled", instance="")).problem
    assert str(problem).startswith("cloud-init is disabled in the guest\n  why: by /run/cloud-init/disabled\n")


def test_disabled_by_the_user_after_it_did_its_work() -> None:
    boot = judge(probe(disabled="/etc/cloud/cloud-init.disabled", before="/var/lib/cloud/instance/boot-finished"))
    assert (boot.finished, boot.problem, boot.errors) == (True, None, ())
    assert boot.warnings == ("cloud-init is disabled by /etc/cloud/cloud-init.disabled",)


def test_sections() -> None:
    assert sections("noise\n==a==\n1\n\n2\n==b-c==\n==d==\n x == y \n") == {"a": "1\n\n2", "b-c": "", "d": "x == y"}


class TestTellingLines:
    def test_the_lines_that_say_why_and_only_of_the_last_boot(self) -> None:
        assert telling_lines(boots.LOG, boots.OUTPUT) == (
            "2026-05-01 10:00:42,000 - util.py[WARNING]: Failed to install packages: ['no-such-package']",
            "cloudinit.subp.ProcessExecutionError: Unexpected error while running command.",
            "Command: ['eatmydata', 'apt-get', 'install', 'no-such-package']",
            "Exit code: 100",
            "2026-05-01 10:00:43,000 - util.py[WARNING]: Running module package-update-upgrade-install failed",
            "E: Unable to locate package no-such-package",
            "/var/lib/cloud/instance/scripts/runcmd: 3: frobnicate: not found",
        )

    @pytest.mark.parametrize("line", [
        "mkfs.xfs: error - cannot set blocksize 512 on block device /dev/vdb: Permission denied",
        "Err:1 http://deb.example.com/debian bookworm InRelease",
        "  Temporary failure resolving 'deb.example.com'",
        "Error: Unable to find a match: no-such-package",
        "No package 'x' found: No space left on device",
        "sh: line 1: frobnicate: command not found",
        "Failed to start nginx.service: Unit nginx.service not found.",
        "ValueError: bad"])
    def test_what_packages_and_commands_print(self, line: str) -> None:
        assert telling_lines("", f"fine\n{line}\nfine\n") == (line.strip(),)

    @pytest.mark.parametrize("line", [
        "Setting up libgpg-error0:amd64 (1.46-1) ...", "Selecting previously unselected package libcommon-error-perl.",
        "debconf: unable to initialize frontend: Dialog", "ok: 12 passed, 0 failed", "Get:5 errors-doc 1.2"])
    def test_what_only_looks_like_an_error(self, line: str) -> None:
        assert telling_lines("", line) == ()

    def test_no_more_than_asked_for_the_last_ones_and_none_too_long(self) -> None:
        lines = telling_lines("", "\n".join(f"E: {n} {'x' * 999}" for n in range(50)), limit=3)
        assert [line[:5] for line in lines] == ["E: 47", "E: 48", "E: 49"]
        assert {len(line) for line in lines} == {300}
