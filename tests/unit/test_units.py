"""Sizes, CPU sets, PCI and MAC addresses: one meaning each, printed one way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmwright.units import (
    GIB,
    KIB,
    MIB,
    TIB,
    content_hash,
    derive_mac,
    format_cpuset,
    format_size,
    parse_cpuset,
    parse_mac,
    parse_pci,
    parse_size,
)

TEXT = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"))


@pytest.mark.parametrize(("text", "size"), [
    ("16G", 16 * GIB), ("16GiB", 16 * GIB), ("16 GiB", 16 * GIB), (" 16g ", 16 * GIB), ("1.5G", 3 * GIB // 2),
    ("512M", 512 * MIB), ("4096K", 4 * MIB), ("2T", 2 * TIB), ("0.5K", 512), ("0.25T", 256 * GIB),
    ("1048576T", 1 << 60)])
def test_a_size_means_one_thing(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(("text", "said"), [
    ("16GB", "16GB has two meanings: write 16G for 16GiB (2^30); decimal units (10^9) are not used here"),
    ("512mb", "512mb has two meanings: write 512M for 512MiB (2^20); decimal units (10^6) are not used here"),
    ("1.5 TB", "1.5 TB has two meanings: write 1.5T for 1.5TiB (2^40); decimal units (10^12) are not used here"),
    ("4096", "'4096' has no unit: write K, M, G or T (powers of 1024), like 4096G or 4096M"),
    ("16iB", "'16iB' is not a size: write a number with K, M, G or T (powers of 1024), like 16G"),
    ("", "'' is not a size: write a number with K, M, G or T (powers of 1024), like 16G"),
    ("-1G", "'-1G' is not a size: write a number with K, M, G or T (powers of 1024), like 16G"),
    ("1e3G", "'1e3G' is not a size: write a number with K, M, G or T (powers of 1024), like 16G"),
    ("\u0661\u0666G", "'\u0661\u0666G' is not a size: write a number with K, M, G or T (powers of 1024), like 16G"),
    ("16P", "'16P' is not a size: write a number with K, M, G or T (powers of 1024), like 16G"),
    ("0G", "'0G' is not a whole, positive number of bytes"),
    ("0.3K", "'0.3K' is not a whole, positive number of bytes"),
    ("1048576.5T", "'1048576.5T' is more than any host has: at most 1048576T"),
    ("9" * 20 + "T", f"'{'9' * 20}T' is more than any host has: at most 1048576T"),
    ("9" * 5000 + "G", f"'{'9' * 5000}G' is not a size: write a number with K, M, G or T (powers of 1024), like 16G"),
])
def test_what_is_no_size_is_refused_with_what_to_write(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_size(text)
    assert str(caught.value) == said


@pytest.mark.parametrize(("size", "text"), [
    (16 * GIB, "16G"), (3 * GIB // 2, "1.5G"), (1537 * MIB, "1537M"), (0, "0B"), (512, "512B"), (KIB, "1K"),
    (1536, "1.5K"), (1025, "1.0K"), (TIB, "1T"), (258 * GIB + 100 * MIB, "258.1G"), (GIB - 1, "1024.0M"),
    (-512 * MIB, "-512M"), (1 << 60, "1048576T"), (1500 * GIB, "1500G")])
def test_a_size_is_printed_as_a_person_writes_it(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(1, 1 << 50))
def test_what_is_printed_means_nearly_the_same(size: int) -> None:
    """Exactly, where it is a whole number of some unit in four digits; else within a twentieth of its largest unit."""
    text = format_size(size)
    if text.endswith("B"):
        assert text == f"{size}B"
        return
    number, unit = float(text[:-1]), {"K": KIB, "M": MIB, "G": GIB, "T": TIB}[text[-1]]
    assert abs(number * unit - size) <= unit * 0.0500001  # half a tenth, as floats know it
    for whole in (KIB, MIB, GIB, TIB):
        if size % whole == 0 and size // whole < 1024:
            assert parse_size(text) == size


@given(st.integers(1, 1023), st.sampled_from("KMGT"))
def test_what_is_written_is_printed_again(number: int, unit: str) -> None:
    assert format_size(parse_size(f"{number}{unit}")) == f"{number}{unit}"


@pytest.mark.parametrize(("text", "cpus"), [
    ("0", (0,)), ("0-3", (0, 1, 2, 3)), ("8,0-2", (0, 1, 2, 8)), (" 1 , 3 ", (1, 3)), ("2-2", (2,)), ("1,1-2", (1, 2)),
    ("8190-8191", (8190, 8191))])
def test_cpu_lists(text: str, cpus: tuple[int, ...]) -> None:
    assert parse_cpuset(text) == cpus


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "3-1", "1,,2", "1;2", "0x1", "1-2-3"])
def test_what_is_no_cpu_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_cpuset(text)
    assert str(caught.value) == f"{text!r} is not a CPU list: write numbers and ranges, like 0-3,8"


def test_a_cpu_that_no_linux_has_is_refused() -> None:
    """Before a range of that length is counted out."""
    with pytest.raises(ValueError) as caught:
        parse_cpuset("0-999999999")
    assert str(caught.value) == (
        "'0-999999999': there is no CPU 999999999; Linux numbers them from 0 to 8191 at most")


@given(st.sets(st.integers(0, 300), min_size=1))
def test_cpu_lists_in_any_order(cpus: set[int]) -> None:
    assert parse_cpuset(",".join(map(str, cpus))) == tuple(sorted(cpus))
    assert parse_cpuset(format_cpuset(cpus)) == tuple(sorted(cpus))


@pytest.mark.parametrize(("cpus", "text"), [
    ((), ""), ((5,), "5"), ((1, 0), "0-1"), ((0, 2, 3, 4, 8), "0,2-4,8"), ((24, 25, 0, 1, 1), "0-1,24-25")])
def test_cpu_lists_are_written_short(cpus: tuple[int, ...], text: str) -> None:
    assert format_cpuset(cpus) == text


@pytest.mark.parametrize(("text", "address"), [
    ("05:00.0", "0000:05:00.0"), ("5:0.7", "0000:05:00.7"), ("0000:0B:1f.0", "0000:0b:1f.0"),
    (" 1:82:00.0 ", "0001:82:00.0")])
def test_pci_addresses(text: str, address: str) -> None:
    assert parse_pci(text) == address


@pytest.mark.parametrize(("text", "said"), [
    ("05.00.0", "'05.00.0' is not a PCI address: write bus:slot.function, like 05:00.0"),
    ("05:00.8", "'05:00.8' is not a PCI address: write bus:slot.function, like 05:00.0"),
    ("05:00", "'05:00' is not a PCI address: write bus:slot.function, like 05:00.0"),
    ("05:20.0", "'05:20.0' is not a PCI address: slots go from 00 to 1f")])
def test_what_is_no_pci_address_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_pci(text)
    assert str(caught.value) == said


def test_mac_addresses() -> None:
    assert parse_mac("52:54:00:AB:cd:01") == "52:54:00:ab:cd:01"


@pytest.mark.parametrize(("text", "said"), [
    ("52-54-00-12-34-56", "'52-54-00-12-34-56' is not a MAC address: write six pairs, like 52:54:00:12:34:56"),
    ("52:54:00:12:34", "'52:54:00:12:34' is not a MAC address: write six pairs, like 52:54:00:12:34:56"),
    ("01:00:5e:00:00:01", "01:00:5e:00:00:01 is a multicast address: the first byte must be even"),
    ("ff:ff:ff:ff:ff:ff", "ff:ff:ff:ff:ff:ff is a multicast address: the first byte must be even")])
def test_what_is_no_mac_address_of_a_nic_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_mac(text)
    assert str(caught.value) == said


@given(st.text(max_size=20), st.text(max_size=20), st.integers(0, 64))
def test_a_derived_mac_is_one_of_ours_and_always_the_same(cloud: str, vm: str, nic: int) -> None:
    mac = derive_mac(cloud, vm, nic)
    assert parse_mac(mac) == mac == derive_mac(cloud, vm, nic)
    assert int(mac[:2], 16) & 0b11 == 0b10  # locally administered, unicast
    assert mac != derive_mac(cloud, vm, nic + 1)


def test_a_derived_mac_never_changes() -> None:
    """VMs that exist have it: another way to derive it would take their network away."""
    assert derive_mac("lab", "web", 0) == "52:15:09:fe:da:d9"


@given(st.lists(TEXT, max_size=4), st.lists(TEXT, max_size=4))
def test_different_contents_have_different_hashes(one: list[str], other: list[str]) -> None:
    assert (content_hash(*one) == content_hash(*other)) == ("\0".join(one) == "\0".join(other))
    assert len(content_hash(*one, length=7)) == 7
