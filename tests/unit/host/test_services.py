"""Questions to services, and what counts as an answer."""

from __future__ import annotations

import pytest

from vmwright.host import services

# What dnsmasq 2.90 answered to the question for db, and chrony 4.3 to a client.
DNS = bytes.fromhex("767785800001000100000000026462000001 0001c00c00010001000000000004 0a4d0009")
NTP = bytes.fromhex("240a00e600000000000000007f7f0101eeae235e377ffdbc" + "00" * 24)


def test_the_question_for_a_name() -> None:
    assert services.dns_question("db.lab") == bytes.fromhex("767701000001000000000000 026462 036c6162 00 0001 0001")


@pytest.mark.parametrize(("answer", "address", "right"), [
    (DNS, "10.77.0.9", True), (DNS, "10.77.0.8", False), (DNS, "", True), (b"", "", False),
    (DNS[:2] + b"\1" + DNS[3:], "10.77.0.9", False),  # a question
    (b"\0\1" + DNS[2:], "10.77.0.9", False),  # to somebody else
])
def test_an_answer_of_dns(answer: bytes, address: str, right: bool) -> None:
    assert services.dns_answered(answer, address) is right


def test_an_answer_of_ntp() -> None:
    assert services.ntp_question()[0] == 0x23 and len(services.ntp_question()) == 48
    assert services.ntp_answered(NTP)
    assert not services.ntp_answered(b"\xe4" + NTP[1:]), "it does not have the time itself"
    assert not services.ntp_answered(services.ntp_question()) and not services.ntp_answered(b"")


def test_an_answer_of_http() -> None:
    assert services.http_answered(b"HTTP/1.1 400 Bad Request\r\n") and not services.http_answered(b"")


def test_bytes_go_through_printf() -> None:
    assert services.ask("udp", "10.0.0.1", 53, b"\0a\xff")[-1] == r"\x00\x61\xff"
