import os
import pty
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import gevent
import pytest
from gevent import socket
from gevent.event import Event

from greenchat.client.console import Output, is_terminal, read_lines
from greenchat.protocol.limits import MAX_LINE, MAX_UNWRITTEN


def from_pipe(data: bytes, _tmp: Path) -> int:
    reading, writing = os.pipe()
    gevent.spawn(_feed, writing, data)
    return reading


def _feed(fd: int, data: bytes) -> None:
    os.set_blocking(fd, False)
    rest = memoryview(data)
    while rest:
        rest = rest[gevent.os.nb_write(fd, rest) :]
    os.close(fd)


def from_file(data: bytes, tmp: Path) -> int:
    (tmp / "typed").write_bytes(data)
    return os.open(tmp / "typed", os.O_RDONLY)


def from_socket(data: bytes, _tmp: Path) -> int:
    ours, theirs = socket.socketpair()
    fd = theirs.detach()
    os.set_blocking(fd, True)

    def feed() -> None:
        with ours:
            ours.sendall(data)

    gevent.spawn(feed)
    return fd


SOURCES = pytest.mark.parametrize("source", [from_pipe, from_file, from_socket])
Source = Callable[[bytes, Path], int]


def read(source: Source, data: bytes, tmp: Path) -> list[str]:
    fd = source(data, tmp)
    try:
        return list(read_lines(fd))
    finally:
        os.close(fd)


@SOURCES
@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\r\ntwo", ["one", "two"]),
        (b"a\rb\n", ["a\rb"]),
        ("Ame\u00e7a\n".encode(), ["Ame\u00e7a"]),
        (b"\xff\n", ["\ufffd"]),
    ],
)
def test_row_34_lines_are_read(source: Source, data: bytes, lines: list[str], tmp_path: Path) -> None:
    assert read(source, data, tmp_path) == lines


@SOURCES
def test_row_34_a_line_of_megabytes_is_bounded_and_still_too_long(source: Source, tmp_path: Path) -> None:
    first, second = read(source, b"x" * 3_000_000 + b"\nshort\n", tmp_path)
    assert MAX_LINE < len(first) < 10 * MAX_LINE
    assert second == "short"


def test_row_34_a_closed_descriptor_is_at_its_end() -> None:
    fd = os.open(os.devnull, os.O_RDONLY)
    os.close(fd)
    assert list(read_lines(fd)) == []
    assert not is_terminal(fd)


def test_row_34_the_null_device_is_at_its_end() -> None:
    with closing(os.fdopen(os.open(os.devnull, os.O_RDONLY))) as null:
        assert list(read_lines(null.fileno())) == []


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    controller, end = pty.openpty()
    yield controller, end
    os.close(end)
    os.close(controller)


def test_row_34_a_terminal_is_read_and_left_as_it_is(terminal: tuple[int, int]) -> None:
    controller, end = terminal
    assert is_terminal(end)
    os.write(controller, b"one\ntwo\n\x04")
    assert list(read_lines(end)) == ["one", "two"]
    assert os.get_blocking(end)


def test_waiting_for_a_line_leaves_others_running() -> None:
    reading, writing = os.pipe()
    lines = read_lines(reading)
    first = gevent.spawn(next, lines)
    gevent.idle()
    assert not first.ready()
    os.write(writing, b"late\n")
    assert first.get(timeout=5) == "late"
    os.close(writing)
    assert list(lines) == []
    os.close(reading)


class Sink:
    """A pipe that is read only when asked for."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()

    def close_reading(self) -> None:
        os.close(self.reading)
        self.reading = -1

    def close(self) -> None:
        for fd in (self.reading, self.writing):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def sink() -> Iterator[Sink]:
    with closing(Sink()) as opened:
        yield opened


def _unbroken(fd: int) -> None:
    pytest.fail(f"descriptor {fd} broke")


@pytest.fixture
def output() -> Iterator[Output]:
    out = Output(_unbroken)
    yield out
    out.close()


def test_lines_are_written_in_order(output: Output, sink: Sink) -> None:
    for n in range(100):
        output.write(sink.writing, f"line {n}")
    output.flush(5)
    assert os.read(sink.reading, 10_000).decode().splitlines() == [f"line {n}" for n in range(100)]


def test_the_order_between_descriptors_is_kept(output: Output, tmp_path: Path) -> None:
    """Two descriptors of one terminal: what was written first is seen first."""
    path = tmp_path / "screen"
    first, second = (os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for _ in range(2))
    for n in range(50):
        output.write((first, second)[n % 2], str(n))
    output.flush(5)
    os.close(first)
    os.close(second)
    assert path.read_text().split() == [str(n) for n in range(50)]


def test_text_is_written_as_it_is_and_when_it_was_is_known(output: Output, sink: Sink) -> None:
    output.write(sink.writing, "line")
    mark = output.put(sink.writing, "no end")
    assert output.written < mark
    output.flush(5)
    assert os.read(sink.reading, 100) == b"line\nno end"
    assert output.written == mark


def test_row_35_putting_text_never_waits(output: Output, sink: Sink) -> None:
    with gevent.Timeout(5):
        mark = output.put(sink.writing, "x" * 2 * MAX_UNWRITTEN)
    assert output.written < mark
    read_exactly(sink.reading, 2 * MAX_UNWRITTEN)
    output.flush(5)
    assert output.written == mark


def test_what_is_no_text_is_still_written(output: Output, sink: Sink) -> None:
    output.write(sink.writing, "\udcff!")
    output.flush(5)
    assert os.read(sink.reading, 100) == b"?!\n"


def read_exactly(fd: int, size: int) -> bytes:
    """Blocking reads, on a thread, until there are *size* bytes."""
    data = b""
    while len(data) < size:
        data += gevent.get_hub().threadpool.apply(os.read, (fd, size - len(data)))
    return data


def test_row_35_a_slow_reader_stops_only_who_writes(output: Output, sink: Sink) -> None:
    lines = 2 * MAX_UNWRITTEN // 1000
    all_written = Event()

    def write_much() -> None:
        for _ in range(lines):
            output.write(sink.writing, "x" * 999)
        all_written.set()

    writing = gevent.spawn(write_much)
    assert not all_written.wait(0.05)
    output.flush(0.01)  # does not wait for ever
    assert read_exactly(sink.reading, lines * 1000) == (b"x" * 999 + b"\n") * lines
    writing.get(timeout=5)


def test_row_35_a_closed_reader_is_told_and_never_raised(sink: Sink) -> None:
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN
    broken: list[int] = []
    sink.close_reading()
    out = Output(broken.append)
    out.write(sink.writing, "lost")
    out.flush(5)
    assert broken == [sink.writing]
    out.close()


def test_row_35_a_full_disk_is_told() -> None:
    broken: list[int] = []
    out = Output(broken.append)
    with Path("/dev/full").open("wb") as full:
        out.write(full.fileno(), "lost")
        out.flush(5)
        assert broken == [full.fileno()]
    out.close()


def test_a_descriptor_that_another_process_made_non_blocking_is_written_to(output: Output, sink: Sink) -> None:
    os.set_blocking(sink.writing, False)
    lines = 200
    for _ in range(lines):
        output.write(sink.writing, "x" * 999)
    assert len(read_exactly(sink.reading, lines * 1000)) == lines * 1000
    output.flush(5)


@pytest.mark.attack(42)
def test_a_line_that_finds_a_full_pipe_is_refused_until_there_is_room(sink: Sink) -> None:
    room = Event()
    with closing(Output(_unbroken, room.set)) as out:
        while out.offer(sink.writing, "x" * 999):
            pass
        assert out.written < 2 * MAX_UNWRITTEN
        assert not room.is_set()
        while not room.is_set():
            read_exactly(sink.reading, 1000)
        assert out.offer(sink.writing, "again")
        out.flush(5)
