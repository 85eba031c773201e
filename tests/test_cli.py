import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence

import pytest

from greenchat import cli
from greenchat.protocol.limits import MAX_DOWNLOADS


@pytest.mark.parametrize(
    ("run", "arguments", "shown"),
    [
        (cli.main, ["--help"], "greenchat"),
        (cli.server, ["--help"], "--host ADDR"),
        (cli.client, ["--help"], "--transfer"),
        (cli.client, ["--help"], "--parallel N"),
        (cli.client, ["--help"], "--limit-rate RATE"),
        (cli.main, ["server", "--help"], "usage: greenchat server"),
        (cli.main, ["client", "--help"], "usage: greenchat client"),
    ],
    ids=["greenchat", "server", "client", "parallel", "limit-rate", "greenchat-server", "greenchat-client"],
)
def test_help_is_on_standard_output(
    run: Callable[[Sequence[str]], int], arguments: list[str], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(arguments)
    assert ended.value.code == 0
    assert shown in capsys.readouterr().out


@pytest.mark.parametrize(
    ("run", "arguments"),
    [
        (cli.main, []),
        (cli.main, ["dance"]),
        (cli.main, ["server"]),
        (cli.server, ["0", "more"]),
        (cli.server, ["0", "--colour"]),
        (cli.client, ["-l", "5000"]),
        (cli.client, ["-l", "5000", "-p", "1.5"]),
        (cli.client, ["-l", "1023", "-p", "6001"]),
        (cli.client, ["-l", "\u0665", "-p", "6001"]),
        (cli.client, ["-l", "0", "-p", "6001", "--parallel", "0"]),
        (cli.client, ["-l", "0", "-p", "6001", "--parallel"]),
        (cli.client, ["-l", "0", "-p", "6001", "--limit-rate", "fast"]),
        (cli.client, ["-l", "0", "-p", "6001", "--limit-rate", "1\n2"]),
        (cli.client, ["-l", "0", "-p", "6001", "--share", ""]),
        (cli.client, ["-l", "0", "-p", "6001", "--fingerprint", "SHA256:short"]),
        (cli.client, ["-l", "0", "-p", "6001", "--tls", "--insecure"]),
        (cli.server, ["0", "--tls", "--insecure"]),
        (cli.server, ["0", "--tls-cert", "file", "--insecure"]),
        (cli.server, ["0", "--tls", "--tls-key", "file"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value.__name__,
)
def test_row_36_wrong_usage_is_one_line_and_status_2(
    run: Callable[[Sequence[str]], int], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(arguments)
    out, err = capsys.readouterr()
    assert ended.value.code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.rstrip().endswith("--help")


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
    assert cli._rate(text) == rate


BAD_RATES = [
    "", "0", "1", "163839", "159K", "0M", "-1M", "+1M", "1.5M", "1e9", "1 M", " 1M", "1M ", "1MB", "1KK", "M", "1T",
             "1B", "0x10000", "\u0661M", "1\u212a", "1M\n", "1_000_000", "9" * 13, "9" * 5000, "inf", "nan",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_RATES)
def test_rate_that_is_none_is_wrong_usage(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"no rate of at least 160K: give 500K, or 2M") as wrong:
        cli._rate(text)
    assert len(str(wrong.value)) < 100


@pytest.mark.parametrize("number", [1, 8, MAX_DOWNLOADS])
def test_files_at_once_are_a_number(number: int) -> None:
    assert cli._parallel(str(number)) == number


@pytest.mark.parametrize("text", ["", "0", "00", "-1", "17", "100", "1.0", "x", "\u0665", " 8", "8 ", "9" * 5000])
def test_files_at_once_that_are_too_many_or_none_are_wrong_usage(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not from 1 to 16") as wrong:
        cli._parallel(text)
    assert len(str(wrong.value)) < 100


@pytest.mark.parametrize(("text", "size"), [("256K", 262144), ("1m", 1048576), ("300000", 300000)])
def test_backlog_is_a_size(text: str, size: int) -> None:
    assert cli._backlog(text) == size


def test_backlog_that_holds_no_long_lines_is_wrong_usage() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"no size of at least 256K"):
        cli._backlog("63K")


@pytest.mark.parametrize(("text", "rate"), [("0", 0), ("1K", 1024), ("2M", 2097152)])
def test_member_rate_may_be_none(text: str, rate: int) -> None:
    assert cli._member_rate(text) == rate


def test_line_of_the_log_that_would_have_to_wait_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    outlet, inlet = os.pipe()
    with os.fdopen(outlet, "rb", 0) as read, os.fdopen(inlet, "w") as stuck:
        monkeypatch.setattr(sys, "stderr", stuck)
        log, line = cli._Log(), logging.makeLogRecord({"msg": "x" * 999})
        for _ in range(200):
            log.emit(line)
        written = len(read.read(1_000_000))
    assert 0 < written < 200_000
    assert written % 1000 == 0
