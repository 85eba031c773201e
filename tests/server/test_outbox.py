import errno
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from conftest import Wire, reset, tcp_pair, until
from gevent import socket

from greenchat.net import Reader
from greenchat.server import outbox
from greenchat.server.outbox import Outbox

LINE = b"0123456789 %07d\n"
OVERFLOW = b"too slow\n"
MOST = 1024 * 1024
LITTLE = 64 * 1024


class Ends:
    """An outbox, and the peer that it writes to."""

    def __init__(self) -> None:
        self.sock, far = tcp_pair()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        self.peer = Wire.over(far)
        self.box = Outbox(self.sock, MOST, lambda: OVERFLOW)
        self.sent = b""

    def seal(self) -> None:
        """From now on each piece has its size before it, which stands for encryption: only whole ones can be opened."""
        self.box.seal = lambda data: len(data).to_bytes(4) + data

    @property
    def waiting(self) -> int:
        """Bytes in the queue."""
        return self.box._backlog.size if self.box._backlog else 0

    def write(self, data: bytes) -> None:
        self.sent += data
        self.box.write(data)

    def fill(self) -> None:
        """Write until the peer is behind."""
        while not self.box._backlog:
            self.write(LINE % len(self.sent) * 1000)

    def close(self) -> None:
        self.box.close()
        self.sock.close()
        self.peer.close()


@pytest.fixture
def running() -> Iterator[Callable[[], int]]:
    """How many greenlets the test started and nobody ended yet."""
    spawned: list[gevent.Greenlet[..., Any]] = []
    gevent.Greenlet.add_spawn_callback(spawned.append)
    yield lambda: sum(1 for greenlet in spawned if greenlet and not greenlet.dead)
    gevent.Greenlet.remove_spawn_callback(spawned.append)


@pytest.fixture
def ends() -> Iterator[Ends]:
    both = Ends()
    yield both
    both.close()


def told_of_the_end(sock: socket.socket) -> bool:
    """Whether whoever reads from *sock* is told that there is nothing more to come."""
    reader = Reader(sock)
    try:
        return reader.read(1) == b""
    finally:
        reader.close()


def test_peer_that_keeps_up_costs_no_greenlet(ends: Ends, running: Callable[[], int]) -> None:
    ends.write(b"hi\n")
    assert running() == 0
    assert ends.peer.line() == b"hi"


def test_backlog_is_sent_in_order(ends: Ends) -> None:
    ends.fill()
    for number in range(1000):
        ends.write(LINE % number)
    ends.box.finish(b"bye\n")
    assert ends.peer.rest() == ends.sent + b"bye\n"


def test_block_that_is_sent_in_parts_stays_in_its_place(ends: Ends) -> None:
    ends.fill()
    for number in range(4):
        ends.write(LINE % number * 10_000)
    ends.box.finish(b"bye\n")
    assert ends.peer.rest() == ends.sent + b"bye\n"


def test_what_is_written_while_the_backlog_drains_comes_after_it(ends: Ends) -> None:
    ends.fill()
    read = b""
    while len(read) < 200_000:
        ends.write(LINE % len(read))
        read += ends.peer.line() + b"\n"
    ends.box.finish(b"bye\n")
    assert read + ends.peer.rest() == ends.sent + b"bye\n"


def test_peer_that_caught_up_gets_no_queue_again(ends: Ends) -> None:
    ends.fill()
    while ends.box._backlog:
        ends.peer.line()
        gevent.sleep(0)
    ends.write(b"last\n")
    assert not ends.box._backlog


def test_row_28_last_words_after_overflow_start_a_line_and_end_the_connection(ends: Ends) -> None:
    ends.box._most = LITTLE
    ends.fill()
    while not ends.box.finished:
        ends.write(LINE % len(ends.sent))
    got = ends.peer.rest()
    assert got.endswith(b"\n" + OVERFLOW)
    assert ends.sent.startswith(got.removesuffix(OVERFLOW))


def test_row_28_one_large_block_makes_nobody_slow(ends: Ends) -> None:
    ends.box._most = LITTLE
    large = LINE % 0 * 1_000_000
    ends.write(large)
    assert ends.peer.exactly(len(large)) == large
    assert not ends.box.finished


def test_row_28_backlog_is_bounded(ends: Ends) -> None:
    ends.box._most = LITTLE
    ends.fill()
    for number in range(20_000):
        ends.write(LINE % number)
        assert ends.waiting <= LITTLE + len(LINE % number)


def test_last_words_end_the_connection(ends: Ends) -> None:
    ends.write(b"hi\n")
    ends.box.finish(b"bye\n")
    assert ends.box.finished
    assert ends.peer.rest() == b"hi\nbye\n"


def test_nothing_follows_the_last_words(ends: Ends) -> None:
    ends.box.finish(b"bye\n")
    ends.box.write(b"more\n")
    ends.box.finish(b"bye again\n")
    assert ends.peer.rest() == b"bye\n"


def test_peer_that_reads_is_not_cut_off_before_its_backlog_is_sent(ends: Ends) -> None:
    ends.fill()
    ends.box.finish(b"bye\n")
    until(lambda: ends.waiting)
    assert ends.peer.rest() == ends.sent + b"bye\n"


def test_peer_that_does_not_read_is_cut_off_at_the_deadline(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "FLUSH_SECONDS", 0.01)
    ends.fill()
    ends.box.finish(b"bye\n")
    assert told_of_the_end(ends.sock)  # the connection is shut on this side, so whoever reads from it is told
    until(lambda: not ends.box._backlog)
    assert ends.sent.startswith(ends.peer.rest())


def test_peer_that_does_not_end_the_connection_is_cut_off_at_the_deadline(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "FLUSH_SECONDS", 0.01)
    ends.box.finish(b"bye\n")
    assert told_of_the_end(ends.sock)


def test_broken_peer_never_raises(ends: Ends) -> None:
    reset(ends.peer.sock)
    assert _fails(ends.sock)
    ends.box.write(b"hi\n")
    ends.box.write(b"hi\n" * 1_000_000)
    ends.box.finish(b"bye\n")
    assert not ends.box._backlog


def _fails(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("end", [socket.socket.close, socket.socket.detach])
def test_nothing_is_written_to_a_descriptor_that_is_no_longer_the_socket_s(
    ends: Ends, end: Callable[[socket.socket], object]
) -> None:
    descriptor = ends.sock.fileno()
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as successor:
        end(ends.sock)
        os.dup2(writer, descriptor)
        os.close(writer)
        ends.box.write(b"for the peer\n")
        os.close(descriptor)
        assert successor.read() == b""


def test_system_without_memory_for_it_loses_nothing(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.writev, itertools.count()

    def writev(fd: int, blocks: list[bytes]) -> int:
        if next(calls) % 2:
            raise BlockingIOError(errno.EAGAIN, "")
        return real(fd, blocks)

    monkeypatch.setattr(os, "writev", writev)
    ends.fill()
    for number in range(1000):
        ends.write(LINE % number)
    ends.box.finish(b"bye\n")
    assert ends.peer.rest() == ends.sent + b"bye\n"


def test_nothing_follows_what_was_lost(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    def writev(_fd: int, _blocks: list[bytes]) -> int:
        raise OSError(errno.EIO, "")

    monkeypatch.setattr(os, "writev", writev)
    ends.fill()
    heard = gevent.spawn(ends.peer.rest)
    until(lambda: not ends.box._backlog)
    ends.box.write(b"later\n")
    assert ends.sent.startswith(heard.get())


def test_what_the_peer_has_not_taken_is_given_up_at_the_deadline(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "FLUSH_SECONDS", 0.05)
    ends.fill()
    ends.box.finish(b"bye\n")
    until(lambda: told_of_the_end(ends.sock))
    ends.sock.close()
    with pytest.raises(ConnectionResetError):
        ends.peer.rest()


def test_peer_that_breaks_while_it_is_behind_ends_the_queue(ends: Ends) -> None:
    ends.fill()
    reset(ends.peer.sock)
    until(lambda: not ends.box._backlog)
    ends.box.finish(b"bye\n")


def test_closing_ends_what_runs(ends: Ends, running: Callable[[], int]) -> None:
    ends.fill()
    ends.box.finish(b"bye\n")
    assert running() == 2
    ends.box.close()
    assert running() == 0


def test_last_words_that_overflow_leave_nothing_behind(
    ends: Ends, running: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends.fill()
    ends.box._most = ends.waiting
    monkeypatch.setattr(outbox, "FLUSH_SECONDS", 0.2)
    ends.box.finish(b"bye\n")
    ends.box.close()
    assert running() == 0


def test_peer_is_behind_when_much_waits_for_it(ends: Ends) -> None:
    assert not ends.box.behind
    ends.fill()
    while ends.waiting <= MOST // 4:
        assert not ends.box.behind
        ends.write(LINE % 0)
    assert ends.box.behind
    ends.peer.exactly(len(ends.sent))
    until(lambda: not ends.box.behind)


def test_bytes_for_those_who_are_behind_are_not_copied(ends: Ends) -> None:
    ends.fill()
    block = LINE % 1 * 100
    ends.write(block)
    assert ends.box._backlog is not None
    assert ends.box._backlog._blocks[-1] is block


# --- encrypted --------------------------------------------------------------------------------


def opened(sealed: bytes) -> bytes:
    """What the pieces hold, all of which have to be whole."""
    content = b""
    while sealed:
        size = int.from_bytes(sealed[:4])
        assert len(sealed) >= 4 + size
        content, sealed = content + sealed[4 : 4 + size], sealed[4 + size :]
    return content


def test_sealed_lines_are_sent_in_order(ends: Ends) -> None:
    ends.seal()
    ends.write(b"first\n")
    ends.fill()
    for number in range(1000):
        ends.write(LINE % number)
    ends.box.finish(b"bye\n")
    assert opened(ends.peer.rest()) == ends.sent + b"bye\n"


def test_row_28_what_is_sealed_already_is_sent_whole_before_the_last_words(ends: Ends) -> None:
    ends.seal()
    ends.fill()
    while not ends.box.finished:
        ends.write(LINE % len(ends.sent) * 1000)
    told = opened(ends.peer.rest())
    assert told.endswith(OVERFLOW)
    assert ends.sent.startswith(told.removesuffix(OVERFLOW))


def test_row_28_sealed_backlog_is_bounded(ends: Ends) -> None:
    ends.seal()
    ends.fill()
    most = 0
    while not ends.box.finished:
        ends.write(LINE % len(ends.sent) * 1000)
        most = max(most, ends.waiting)
    assert MOST < most < MOST + 2 * len(LINE % 0 * 1000)


def test_sealed_backlog_that_was_sent_is_gone(ends: Ends) -> None:
    ends.seal()
    ends.fill()
    ends.write(b"last\n")
    reading = gevent.spawn(ends.peer.rest)
    until(lambda: not ends.box._backlog)
    ends.write(b"direct\n")
    ends.box.finish(b"bye\n")
    assert opened(reading.get()) == ends.sent + b"bye\n"
