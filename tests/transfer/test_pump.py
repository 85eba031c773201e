import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TypeAlias

import gevent
import pytest
from gevent import socket
from hypothesis import given, settings
from hypothesis import strategies as st
from transfer.ends import LARGE, Pair, Streams, read_all
from transfer.files import refusing

from greenchat.protocol.limits import CHUNK, PIPE_SIZE
from greenchat.transfer import pump
from greenchat.transfer.pump import Copier, Mover, Splicer, Stream, new_mover

MakeMover: TypeAlias = Callable[[], Mover]

MOVERS = pytest.mark.parametrize("make", [Splicer, Copier])
MOST = PIPE_SIZE


@pytest.fixture
def other_pair(streams: Streams) -> Iterator[Pair]:
    with streams() as both:
        yield both


def _write_all(sock: socket.socket, pieces: list[bytes]) -> None:
    for piece in pieces:
        sock.sendall(piece)
    sock.shutdown(socket.SHUT_WR)


def _move(mover: Mover, source: Stream, sink: Stream, most: int = MOST) -> int:
    """One step, as soon as there is something to take, and until all of it is given."""
    filled: int | None = None
    while filled is None:
        source.wait_readable()
        with suppress(BlockingIOError):
            filled = mover.fill(source.sock.fileno(), most)
    while mover.empty(sink.sock.fileno()):
        sink.wait_writable()
    return filled


def _pump(make: MakeMover, source: Stream, sink: Stream, most: int = MOST) -> int:
    """Everything from *source* to *sink*, and the end too; how much that was."""
    with closing(make()) as mover:
        moved = sum(iter(lambda: _move(mover, source, sink, most), 0))
    sink.sock.shutdown(socket.SHUT_WR)
    return moved


# --- movers -----------------------------------------------------------------------------------


@MOVERS
@settings(deadline=None, max_examples=20)
@given(
    there=st.lists(st.integers(min_value=0, max_value=300_000), max_size=5),
    back=st.lists(st.integers(min_value=0, max_value=300_000), max_size=5),
)
def test_bytes_are_exact_both_ways(make: MakeMover, streams: Streams, there: list[int], back: list[int]) -> None:
    with streams() as (one, one_end), streams() as (other_end, other):
        pumps = [gevent.spawn(_pump, make, one_end, other_end), gevent.spawn(_pump, make, other_end, one_end)]
        writers = [
            gevent.spawn(_write_all, one.sock, [LARGE[:size] for size in there]),
            gevent.spawn(_write_all, other.sock, [LARGE[:size] for size in back]),
        ]
        readers = [gevent.spawn(read_all, other.sock), gevent.spawn(read_all, one.sock)]
        for greenlets in (pumps, writers, readers):
            gevent.joinall(greenlets, raise_error=True)
    assert [reader.get() for reader in readers] == [b"".join(LARGE[:size] for size in sizes) for sizes in (there, back)]
    assert [pump.get() for pump in pumps] == [sum(there), sum(back)]


@MOVERS
def test_end_of_the_source_moves_nothing(make: MakeMover, pair: Pair, other_pair: Pair) -> None:
    pair[0].sock.shutdown(socket.SHUT_WR)
    with closing(make()) as mover:
        assert [_move(mover, pair[1], other_pair[0]) for _ in range(2)] == [0, 0]


@MOVERS
def test_what_came_before_the_end_is_moved_first(make: MakeMover, pair: Pair, other_pair: Pair) -> None:
    pair[0].sock.sendall(b"last words")
    pair[0].close()
    with closing(make()) as mover:
        assert [_move(mover, pair[1], other_pair[0]) for _ in range(2)] == [10, 0]
    assert other_pair[1].sock.recv(100) == b"last words"


@MOVERS
def test_move_waits_for_the_first_byte(make: MakeMover, pair: Pair, other_pair: Pair) -> None:
    with closing(make()) as mover:
        moving = gevent.spawn(_move, mover, pair[1], other_pair[0])
        gevent.idle()
        assert not moving.dead
        pair[0].sock.sendall(b"x")
        assert moving.get() == 1


@MOVERS
def test_bytes_are_exact_through_a_narrow_sink(make: MakeMover, pair: Pair, other_pair: Pair) -> None:
    other_pair[0].sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    writing = gevent.spawn(_write_all, pair[0].sock, [LARGE[:100_000]])
    pumping = gevent.spawn(_pump, make, pair[1], other_pair[0])
    assert read_all(other_pair[1].sock) == LARGE[:100_000]
    gevent.joinall([writing], raise_error=True)
    assert pumping.get() == 100_000


@MOVERS
def test_broken_sink_is_an_error(make: MakeMover, pair: Pair, other_pair: Pair) -> None:
    pair[0].sock.sendall(b"x")
    other_pair[1].close()
    with closing(make()) as mover, pytest.raises(OSError, match="Broken pipe"):
        _move(mover, pair[1], other_pair[0])


@MOVERS
def test_sink_that_breaks_while_it_is_waited_for_is_an_error(make: MakeMover, pair: Pair, other_pair: Pair) -> None:
    writing = gevent.spawn(pair[0].sock.sendall, bytes(len(LARGE)))
    pumping = gevent.spawn(_pump, make, pair[1], other_pair[0])
    gevent.idle()
    assert not pumping.dead
    other_pair[1].close()
    with pytest.raises(OSError, match=r"Broken pipe|Connection reset"):
        pumping.get()
    writing.kill()


@MOVERS
def test_sink_that_reads_nothing_blocks_only_its_own_greenlet(make: MakeMover, streams: Streams) -> None:
    sent = LARGE
    with ExitStack() as stack:
        slow, slow_end, slow_sink, reader, quick, quick_end, sink, quick_reader = (
            stream for _ in range(4) for stream in stack.enter_context(streams())
        )
        writing = gevent.spawn(_write_all, slow.sock, [sent])
        stuck = gevent.spawn(_pump, make, slow_end, slow_sink)
        gevent.spawn(_write_all, quick.sock, [sent])
        pumping = gevent.spawn(_pump, make, quick_end, sink)
        assert read_all(quick_reader.sock) == sent
        assert pumping.get() == len(sent)
        assert not stuck.dead
        assert not writing.dead
        assert read_all(reader.sock) == sent
        assert stuck.get() == len(sent)


@pytest.mark.parametrize(("make", "budget"), [(Splicer, PIPE_SIZE), (Copier, CHUNK)])
def test_each_step_moves_at_most_a_budget_and_others_run_in_between(
    make: MakeMover, budget: int, pair: Pair, other_pair: Pair
) -> None:
    turns = 0

    def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            gevent.sleep(0)

    writing = gevent.spawn(_write_all, pair[0].sock, [bytes(len(LARGE))])
    reading = gevent.spawn(read_all, other_pair[1].sock)
    counting = gevent.spawn(count_turns)
    with closing(make()) as mover:
        before = -1
        while moved := _move(mover, pair[1], other_pair[0]):
            assert moved <= budget
            assert turns > before
            before = turns
    other_pair[0].sock.shutdown(socket.SHUT_WR)
    assert len(reading.get()) == len(LARGE)
    gevent.killall([writing, counting])


@MOVERS
@pytest.mark.parametrize("most", [1, 1000, CHUNK - 1])
def test_no_step_moves_more_than_it_may(make: MakeMover, most: int, pair: Pair, other_pair: Pair) -> None:
    size = min(3 * most, 200_000) + 1
    writing = gevent.spawn(_write_all, pair[0].sock, [LARGE[:size]])
    reading = gevent.spawn(read_all, other_pair[1].sock)
    with closing(make()) as mover:
        steps = list(iter(lambda: _move(mover, pair[1], other_pair[0], most), 0))
    other_pair[0].sock.shutdown(socket.SHUT_WR)
    assert sum(steps) == size
    assert 1 <= min(steps) <= max(steps) <= most
    assert reading.get() == LARGE[:size]
    writing.get()


@MOVERS
def test_how_much_a_step_may_move_can_change(make: MakeMover, pair: Pair, other_pair: Pair) -> None:
    pair[0].sock.sendall(LARGE[:10_000])
    with closing(make()) as mover:
        assert [_move(mover, pair[1], other_pair[0], most) for most in (10, 4000, 1, MOST)] == [10, 4000, 1, 5989]
    assert other_pair[1].sock.recv(20_000) == LARGE[:10_000]


@MOVERS
def test_step_for_which_there_is_nothing_yet_is_refused_and_can_be_repeated(
    make: MakeMover, pair: Pair, other_pair: Pair
) -> None:
    with closing(make()) as mover:
        for _ in range(2):
            with pytest.raises(BlockingIOError):
                mover.fill(pair[1].sock.fileno(), MOST)
            assert mover.empty(other_pair[0].sock.fileno()) == 0
        pair[0].sock.sendall(b"x")
        assert mover.fill(pair[1].sock.fileno(), MOST) == 1
        assert mover.empty(other_pair[0].sock.fileno()) == 0
    assert other_pair[1].sock.recv(10) == b"x"


@MOVERS
def test_what_the_sink_does_not_take_is_held_until_it_does(make: MakeMover, pair: Pair, other_pair: Pair) -> None:
    other_pair[0].sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    writing = gevent.spawn(_write_all, pair[0].sock, [LARGE[:60_000]])
    received = bytearray()
    with closing(make()) as mover:
        filled = 0
        while not filled or not (left := mover.empty(other_pair[0].sock.fileno())):
            pair[1].wait_readable()
            filled += mover.fill(pair[1].sock.fileno(), 30_000)
        assert 0 < left <= 30_000
        assert mover.empty(other_pair[0].sock.fileno()) == left  # it is full
        while left:
            received += other_pair[1].sock.recv(1000)
            before, left = left, mover.empty(other_pair[0].sock.fileno())
            assert left <= before
    other_pair[0].sock.shutdown(socket.SHUT_WR)
    assert received + read_all(other_pair[1].sock) == LARGE[:filled]
    writing.get()


@MOVERS
def test_row_20_mover_may_be_closed_with_something_in_it(make: MakeMover, pair: Pair, other_pair: Pair) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    pair[0].sock.sendall(b"never given")
    mover = make()
    assert mover.fill(pair[1].sock.fileno(), MOST) == 11
    other_pair[1].close()
    with pytest.raises(BrokenPipeError):
        mover.empty(other_pair[0].sock.fileno())
    mover.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before - 1


@MOVERS
def test_row_20_source_that_is_reset_is_an_error(make: MakeMover, pair: Pair) -> None:
    pair[1].sock.sendall(b"never read")
    pair[0].close()
    with closing(make()) as mover, pytest.raises(ConnectionResetError):
        mover.fill(pair[1].sock.fileno(), MOST)


@MOVERS
def test_mover_holds_nothing_after_it_was_closed(make: MakeMover) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        make().close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def _pipe_size(splicer: Splicer) -> int:
    return fcntl.fcntl(splicer._inlet, fcntl.F_GETPIPE_SZ)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of pipes that the system was asked for."""
    sizes: list[int] = []
    real = fcntl.fcntl

    def spy(fd: int, command: int, size: int = 0) -> int:
        if command == fcntl.F_SETPIPE_SZ:
            sizes.append(size)
        return real(fd, command, size)

    monkeypatch.setattr(fcntl, "fcntl", spy)
    return sizes


def test_pipe_grows_when_much_comes_and_not_before(pair: Pair, other_pair: Pair, asked: list[int]) -> None:
    with closing(Splicer()) as splicer:
        small = _pipe_size(splicer)
        pair[0].sock.sendall(LARGE[:1000])
        _move(splicer, pair[1], other_pair[0], 4 * small)
        assert not asked
        reading = gevent.spawn(read_all, other_pair[1].sock)
        for _ in range(3):
            pair[0].sock.sendall(LARGE[:small])
            _move(splicer, pair[1], other_pair[0], 4 * small)
        assert asked == [4 * small]
        assert _pipe_size(splicer) in {small, 4 * small}  # the system may refuse
    other_pair[0].close()
    reading.get()


def test_pipe_shrinks_when_it_may_hold_less_and_loses_nothing(pair: Pair, other_pair: Pair) -> None:
    writing = gevent.spawn(_write_all, pair[0].sock, [LARGE])
    reading = gevent.spawn(read_all, other_pair[1].sock)
    with closing(Splicer()) as splicer:
        small = _pipe_size(splicer)
        moved = sum(_move(splicer, pair[1], other_pair[0], PIPE_SIZE) for _ in range(5))
        for most in (2 * small, small, 4096, PIPE_SIZE, small):
            for _ in range(3):
                step = _move(splicer, pair[1], other_pair[0], most)
                assert step <= most
                moved += step
        assert _pipe_size(splicer) == small
        moved += sum(iter(lambda: _move(splicer, pair[1], other_pair[0]), 0))
    other_pair[0].close()
    assert reading.get() == LARGE
    assert moved == len(LARGE)
    writing.get()


def test_pipe_that_is_too_full_to_shrink_does_so_later(pair: Pair, other_pair: Pair) -> None:
    with closing(Splicer()) as splicer:
        small, size = _pipe_size(splicer), 4 * _pipe_size(splicer)
        for _ in range(2):
            pair[0].sock.sendall(LARGE[:small])
            _move(splicer, pair[1], other_pair[0], size)
        if _pipe_size(splicer) == small:
            pytest.skip("no larger pipes are to be had here")
        for _ in range(40):  # each of these takes as much room as a page
            pair[0].sock.sendall(b"x")
        _move(splicer, pair[1], other_pair[0], small)
        for _ in range(3):
            pair[0].sock.sendall(b"x")
            _move(splicer, pair[1], other_pair[0], small)
        assert _pipe_size(splicer) == small


REFUSED = 2**32 - 1
"""The size of a pipe that the system refuses, whoever asks."""


def test_splicer_makes_do_with_a_small_pipe(pair: Pair, other_pair: Pair, asked: list[int]) -> None:
    sent = LARGE
    gevent.spawn(_write_all, pair[0].sock, [sent])
    pumping = gevent.spawn(_pump, Splicer, pair[1], other_pair[0], REFUSED)
    assert read_all(other_pair[1].sock) == sent
    assert pumping.get() == len(sent)
    assert asked == [REFUSED]  # once


def test_best_mover_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(new_mover()) as mover:
        assert isinstance(mover, Splicer if hasattr(os, "splice") else Copier)
    monkeypatch.delattr(os, "splice", raising=False)
    pump._has_splice.cache_clear()
    with closing(new_mover()) as mover:
        assert isinstance(mover, Copier)
    pump._has_splice.cache_clear()


# --- streams ----------------------------------------------------------------------------------


def test_stream_may_be_waited_on_for_both_ways_at_once(pair: Pair) -> None:
    reading = gevent.spawn(pair[0].wait_readable)
    gevent.idle()
    pair[0].wait_writable()
    assert not reading.dead
    pair[1].sock.sendall(b"x")
    reading.get()


def test_wait_ends_when_the_peer_is_gone(pair: Pair) -> None:
    waiting = gevent.spawn(pair[0].wait_readable)
    gevent.idle()
    pair[1].close()
    waiting.get()


def test_what_the_peer_has_not_read_is_unsent(pair: Pair) -> None:
    fd = pair[0].sock.fileno()
    assert pump._unsent(fd) == 0
    pair[0].sock.sendall(b"x" * 1000)
    assert pump._unsent(fd) >= 1000
    assert pair[1].sock.recv(1000)
    assert pump._unsent(fd) == 0


def test_closed_stream_closes_its_socket(pair: Pair) -> None:
    pair[0].close()
    pair[0].close()
    assert pair[1].sock.recv(1) == b""


def test_splice_that_a_sandbox_refuses_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "splice", refusing(errno.ENOSYS))
    pump._has_splice.cache_clear()
    with closing(new_mover()) as mover:
        assert isinstance(mover, Copier)
    pump._has_splice.cache_clear()


@pytest.mark.parametrize("make", [Splicer, Copier])
def test_mover_is_filled_further_while_it_holds_something(make: Callable[[], Mover]) -> None:
    (near, source), (sink, far) = socket.socketpair(), socket.socketpair()
    with near, source, sink, far, closing(make()) as mover:
        near.sendall(b"abcdefgh")
        assert mover.fill(source.fileno(), 3) == 3
        assert mover.fill(source.fileno(), 5) == 2
        assert mover.fill(source.fileno(), 5) == 0
        assert mover.held == 5
        assert mover.empty(sink.fileno()) == 0
        assert far.recv(100) == b"abcde"
        assert mover.fill(source.fileno(), 5) == 3
