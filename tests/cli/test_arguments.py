import argparse

import pytest

from greenchat.cli import arguments
from greenchat.protocol.limits import MAX_DOWNLOADS


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("163840", 163_840),
        ("160k", 163_840),
        ("160K", 163_840),
        ("1000K", 1_024_000),
        ("2M", 2 * 1024**2),
        ("2m", 2 * 1024**2),
        ("1G", 1024**3),
        ("1g", 1024**3),
        ("0000163840", 163_840),
        ("999999999999G", 999_999_999_999 * 1024**3),
    ],
)
def test_rate_is_as_curl_and_rsync_have_it(text: str, rate: int) -> None:
    assert arguments.rate(text) == rate


BAD_RATES = [
    "", "0", "1", "163839", "159K", "0M", "-1M", "+1M", "1.5M", "1e9", "1 M", " 1M", "1M ", "1MB", "1KK", "M", "1T",
             "1B", "0x10000", "\u0661M", "1\u212a", "1M\n", "1_000_000", "9" * 13, "9" * 5000, "inf", "nan",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_RATES)
def test_rate_that_is_none_is_wrong_usage(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"no rate of at least 160K: give one, such as 2M") as wrong:
        arguments.rate(text)
    assert len(str(wrong.value)) < 100


@pytest.mark.parametrize("number", [1, 8, MAX_DOWNLOADS])
def test_files_at_once_are_a_number(number: int) -> None:
    assert arguments.parallel(str(number)) == number


@pytest.mark.parametrize("text", ["", "0", "00", "-1", "17", "100", "1.0", "x", "\u0665", " 8", "8 ", "9" * 5000])
def test_files_at_once_that_are_too_many_or_none_are_wrong_usage(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not from 1 to 16") as wrong:
        arguments.parallel(text)
    assert len(str(wrong.value)) < 100


@pytest.mark.parametrize(("text", "size"), [("256K", 262144), ("1m", 1048576), ("300000", 300000)])
def test_backlog_is_a_size(text: str, size: int) -> None:
    assert arguments.backlog(text) == size


def test_backlog_that_holds_no_long_lines_is_wrong_usage() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"no size of at least 256K"):
        arguments.backlog("63K")


@pytest.mark.parametrize(("text", "rate"), [("0", 0), ("1K", 1024), ("2M", 2097152)])
def test_member_rate_may_be_none(text: str, rate: int) -> None:
    assert arguments.member_rate(text) == rate


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (f"SHA256:{'a' * 43}", f"SHA256:{'a' * 43}"),
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("127.0.0.1", "127.0.0.1"),
    ],
)
def test_banned_is_a_key_or_a_network(text: str, what: str) -> None:
    assert arguments.banned(text) == what


@pytest.mark.parametrize("text", ["", "ann", "SHA256:short", "example.org"])
def test_banned_is_nothing_else(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        arguments.banned(text)


@pytest.mark.parametrize("text", ["0", "-1", "8767", "1.5", "x", ""])
def test_hours_are_at_most_a_year(text: str) -> None:
    assert arguments.hours("8766") == 8766
    with pytest.raises(argparse.ArgumentTypeError):
        arguments.hours(text)


def test_user_is_a_name() -> None:
    assert arguments.user("ann of here") == "ann of here"


@pytest.mark.parametrize("text", ["", " ", "a\nb", "a:b", "\udcff", "x" * 1000, "\u202eann"])
def test_user_is_nothing_else(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        arguments.user(text)


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("20", 20), ("10000", 10_000)])
def test_history_is_a_number(text: str, number: int) -> None:
    assert arguments.history(text) == number


@pytest.mark.parametrize("text", ["", "-1", "x", "10001", "9999999", "\u0663"])
def test_history_is_nothing_else(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        arguments.history(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("example.org:6001", ("example.org", 6001)),
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("[::1]:6001", ("::1", 6001)),
    ],
)
def test_server(text: str, address: tuple[str, int]) -> None:
    assert arguments.server(text) == address


@pytest.mark.parametrize(
    "text", ["host:0", "", "host", ":1", "host:", "::1:6001", "[]:1", "host:x", "host:70000", "[::1]"]
)
def test_no_server(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        arguments.server(text)


@pytest.mark.attack(49)
@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("example.org", "example.org"),
        ("192.0.2.1", "192.0.2.1"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("[fe80::1%Eth0]", "fe80::1%Eth0"),
        ("fe80::1%Eth0", "fe80::1%Eth0"),
    ],
)
def test_host_is_a_name_or_an_address_with_brackets_or_without(text: str, host: str) -> None:
    assert arguments.host(text, "") == host


@pytest.mark.attack(49)
@pytest.mark.parametrize(
    ("text", "alone"),
    [
        ("example.org:6001", "example.org"),
        ("192.0.2.1:6001", "192.0.2.1"),
        ("[::1]:6001", "[::1]"),
        ("[fe80::1%Eth0]:6001", "[fe80::1%Eth0]"),
    ],
)
def test_port_behind_a_host_is_sent_where_it_belongs(text: str, alone: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as wrong:
        arguments.host(text, "and the port with -p")
    assert str(wrong.value) == f"{text!r} is a host and a port: give {alone} here, and the port with -p"


@pytest.mark.parametrize(
    "text", ["", "[]", "[", "[host]", "host:", ":", ":6001", "a:b", "http://x", "x/y", "a b", "::1::", "a\nb:1"]
)
def test_no_host(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as wrong:
        arguments.host(text, "")
    assert "\n" not in str(wrong.value)


@pytest.mark.parametrize("text", ["1", "1000000"])
def test_count(text: str) -> None:
    assert arguments.count(text) == int(text)


@pytest.mark.parametrize("text", ["", "0", "-1", "x", "1.5", "²", "9" * 13])
def test_no_count(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        arguments.count(text)


def test_size_of_what_is_kept_is_at_least_a_mebibyte() -> None:
    assert arguments.kept_size("2M") == 2 * 1024 * 1024
    with pytest.raises(argparse.ArgumentTypeError):
        arguments.kept_size("1023K")
