import logging
import os
import sys

import pytest

from greenchat.cli import process


def test_line_of_the_log_that_would_have_to_wait_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    outlet, inlet = os.pipe()
    with os.fdopen(outlet, "rb", 0) as read, os.fdopen(inlet, "w") as stuck:
        monkeypatch.setattr(sys, "stderr", stuck)
        log, line = process._Log(), logging.makeLogRecord({"msg": "x" * 999})
        for _ in range(200):
            log.emit(line)
        written = len(read.read(1_000_000))
    assert 0 < written < 200_000
    assert written % 1000 == 0
