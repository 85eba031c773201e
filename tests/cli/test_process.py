import logging
import os
from pathlib import Path

import pytest

from greenchat.cli import process
from greenchat.errors import Code, SecurityError
from greenchat.protocol.text import safe_line


def test_line_of_the_log_that_would_have_to_wait_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    outlet, inlet = os.pipe()
    with os.fdopen(outlet, "rb", 0) as read, os.fdopen(inlet, "w"):
        monkeypatch.setattr(process, "_STDERR", inlet)
        log, line = process._Log(), logging.makeLogRecord({"msg": "x" * 999})
        for _ in range(200):
            log.emit(line)
        written = len(read.read(1_000_000))
    assert 0 < written < 200_000
    assert written % 1000 == 0


def test_standard_error_that_nobody_reads_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    outlet, inlet = os.pipe()
    os.close(outlet)
    monkeypatch.setattr(process, "_STDERR", inlet)
    process._Log().emit(logging.makeLogRecord({"msg": "dropped ann"}))
    process.tell("listening")
    os.close(inlet)
    process._Log().emit(logging.makeLogRecord({"msg": "dropped ann"}))
    process.tell("listening")


def test_line_to_the_user_may_hold_what_no_encoding_has(monkeypatch: pytest.MonkeyPatch) -> None:
    outlet, inlet = os.pipe()
    monkeypatch.setattr(process, "_STDERR", inlet)
    process.tell("no \udcff")
    assert os.read(outlet, 100) == b"no \\udcff\n"
    for fd in (outlet, inlet):
        os.close(fd)


def test_what_the_user_asked_for_may_hold_what_no_encoding_has(capfd: pytest.CaptureFixture[str]) -> None:
    process.show("no \udcff")
    assert capfd.readouterr().out == "no \\udcff\n"


def show() -> int:
    process.show("x")
    return 0


def test_standard_output_that_is_full_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(process, "_STDOUT", full.fileno())
        assert process.report(show) == 1
    assert capfd.readouterr().err == "standard output cannot be written to: no space left on device\n"


def test_standard_output_that_nobody_reads_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    outlet, inlet = os.pipe()
    os.close(outlet)
    monkeypatch.setattr(process, "_STDOUT", inlet)
    assert process.report(show) == 1
    os.close(inlet)
    assert capfd.readouterr().err == "standard output cannot be written to: broken pipe\n"


def test_words_to_the_user_stay_one_line_that_is_safe_to_show(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise SecurityError(Code.BAD_KEY, "a\nb \x1b[31m\u202e")

    assert process.report(fail) == 1
    assert capfd.readouterr().err == safe_line("a\nb \x1b[31m\u202e") + "\n"
