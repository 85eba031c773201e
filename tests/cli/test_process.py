import logging
import os

import pytest

from greenchat.cli import process


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
