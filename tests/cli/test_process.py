import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import gevent
import pytest

from greenchat.cli import process
from greenchat.errors import Code, SecurityError
from greenchat.protocol.limits import MAX_UNTOLD
from greenchat.protocol.text import safe_line


@pytest.fixture
def pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    outlet, inlet = os.pipe()
    with os.fdopen(outlet, "rb", 0) as reading, os.fdopen(inlet, "wb", 0) as writing:
        yield reading, writing


def read_until(reading: IO[bytes], end: str) -> bytes:
    """Read on a thread, so that nothing here can hang for longer than a test may, until *end* matches the end."""
    data = b""
    while not re.search(rf"{end}\Z".encode(), data[-100:]):
        data += gevent.get_hub().threadpool.apply(os.read, (reading.fileno(), 65536))
    return data


@pytest.mark.attack(42)
def test_lines_that_find_a_full_pipe_are_dropped_and_counted(pipe: tuple[IO[bytes], IO[bytes]]) -> None:
    reading, writing = pipe
    lines, line = process.Lines(writing.fileno()), "x" * 999
    for _ in range(1000):
        lines.put(line)
    found, dropped = 0, 0
    while found + dropped < 1000:  # the first lines may be written, and make room, before the last come
        for one in read_until(reading, r"\n").decode().splitlines():
            notice = one.removeprefix("lines dropped because standard error was full: ")
            found, dropped = (found + 1, dropped) if one == line else (found, dropped + int(notice))
    assert dropped > 0
    lines.put("later")
    assert read_until(reading, r"\n") == b"later\n"


@pytest.mark.attack(42)
def test_the_end_waits_for_a_full_pipe_only_so_long(
    pipe: tuple[IO[bytes], IO[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "FULL_SECONDS", 0.01)
    reading, writing = pipe
    lines = process.Lines(writing.fileno())
    lines.put("x" * (MAX_UNTOLD // 2))
    lines.flush()
    read_until(reading, r"\n")


def test_the_end_waits_until_all_is_written(pipe: tuple[IO[bytes], IO[bytes]]) -> None:
    reading, writing = pipe
    lines = process.Lines(writing.fileno())
    for number in range(100):
        lines.put(str(number))
    lines.flush()
    assert os.read(reading.fileno(), 65536).split() == [b"%d" % number for number in range(100)]


def test_standard_error_that_nobody_reads_is_no_error(pipe: tuple[IO[bytes], IO[bytes]]) -> None:
    reading, writing = pipe
    reading.close()
    lines = process.Lines(writing.fileno())
    lines.put("lost")
    lines.flush()
    lines.put("lost, too")
    lines.flush()


def test_line_to_the_user_may_hold_what_no_encoding_has(pipe: tuple[IO[bytes], IO[bytes]]) -> None:
    reading, writing = pipe
    process.Lines(writing.fileno()).put("no \udcff")
    assert read_until(reading, r"\n") == b"no \\udcff\n"


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
