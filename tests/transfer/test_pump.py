import os
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from itertools import accumulate
from pathlib import Path
from typing import TypeAlias

import gevent
import pytest
from gevent import socket
from gevent.event import Event
from hypothesis import given, settings
from hypothesis import strategies as st

from greenchat.errors import Code, TransferError
from greenchat.protocol.limits import CHUNK, PIPE_SIZE
from greenchat.transfer import pump as pump_module
from greenchat.transfer.pump import Copier, Mover, Splicer, Stream, new_mover, receive_bytes, send_range

Fails: TypeAlias = Callable[..., AbstractContextManager[None]]
Streams: TypeAlias = Callable[[], AbstractContextManager[tuple[Stream, Stream]]]
MakeMover: TypeAlias = Callable[[], Mover]

MOVERS = pytest.mark.parametrize("make", [Splicer, Copier])
EXACT_SIZES = pytest.mark.parametrize(
    "size",
    [
        pytest.param(0, id="empty"),
        pytest.param(1, id="one byte"),
        pytest.param(CHUNK - 1, id="a byte less than a chunk"),
        pytest.param(CHUNK, id="a chunk"),
        pytest.param(CHUNK + 1, id="a byte more than a chunk"),
        pytest.param(3 * 1024 * 1024, id="3 MiB"),
    ],
)
MORE_THAN_BUFFERS_HOLD = 4 * 1024 * 1024
CONTENT = random.Random(0).randbytes(MORE_THAN_BUFFERS_HOLD)


@pytest.fixture
def pair(streams: Streams) -> Iterator[tuple[Stream, Stream]]:
    with streams() as both:
        yield both


@pytest.fixture
def other_pair(streams: Streams) -> Iterator[tuple[Stream, Stream]]:
    with streams() as both:
        yield both


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump_module, "STALL_SECONDS", 0.01)


def _bytes(size: int) -> bytes:
    """So many bytes, no two stretches of which are alike."""
    return CONTENT[:size]


def _read_all(sock: socket.socket) -> bytes:
    received = bytearray()
    while data := sock.recv(1 << 20):
        received += data
    return bytes(received)


def _write_all(sock: socket.socket, pieces: list[bytes]) -> None:
    for piece in pieces:
        sock.sendall(piece)
    sock.shutdown(socket.SHUT_WR)


def _pump(make: MakeMover, source: Stream, sink: Stream) -> int:
    """Everything from *source* to *sink*, and the end too; how much that was."""
    with closing(make()) as mover:
        moved = sum(iter(lambda: mover.move(source, sink), 0))
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
            gevent.spawn(_write_all, one.sock, [_bytes(size) for size in there]),
            gevent.spawn(_write_all, other.sock, [_bytes(size) for size in back]),
        ]
        readers = [gevent.spawn(_read_all, other.sock), gevent.spawn(_read_all, one.sock)]
        for greenlets in (pumps, writers, readers):
            gevent.joinall(greenlets, raise_error=True)
    assert [reader.get() for reader in readers] == [b"".join(map(_bytes, sizes)) for sizes in (there, back)]
    assert [pump.get() for pump in pumps] == [sum(there), sum(back)]


@MOVERS
def test_end_of_the_source_moves_nothing(
    make: MakeMover, pair: tuple[Stream, Stream], other_pair: tuple[Stream, Stream]
) -> None:
    pair[0].sock.shutdown(socket.SHUT_WR)
    with closing(make()) as mover:
        assert [mover.move(pair[1], other_pair[0]) for _ in range(2)] == [0, 0]


@MOVERS
def test_what_came_before_the_end_is_moved_first(
    make: MakeMover, pair: tuple[Stream, Stream], other_pair: tuple[Stream, Stream]
) -> None:
    pair[0].sock.sendall(b"last words")
    pair[0].close()
    with closing(make()) as mover:
        assert [mover.move(pair[1], other_pair[0]) for _ in range(2)] == [10, 0]
    assert other_pair[1].sock.recv(100) == b"last words"


@MOVERS
def test_move_waits_for_the_first_byte(
    make: MakeMover, pair: tuple[Stream, Stream], other_pair: tuple[Stream, Stream]
) -> None:
    with closing(make()) as mover:
        moving = gevent.spawn(mover.move, pair[1], other_pair[0])
        gevent.idle()
        assert not moving.dead
        pair[0].sock.sendall(b"x")
        assert moving.get() == 1


@MOVERS
def test_bytes_are_exact_through_a_narrow_sink(
    make: MakeMover, pair: tuple[Stream, Stream], other_pair: tuple[Stream, Stream]
) -> None:
    other_pair[0].sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    writing = gevent.spawn(_write_all, pair[0].sock, [_bytes(100_000)])
    pumping = gevent.spawn(_pump, make, pair[1], other_pair[0])
    assert _read_all(other_pair[1].sock) == _bytes(100_000)
    gevent.joinall([writing], raise_error=True)
    assert pumping.get() == 100_000


@MOVERS
def test_broken_sink_is_an_error(
    make: MakeMover, pair: tuple[Stream, Stream], other_pair: tuple[Stream, Stream]
) -> None:
    pair[0].sock.sendall(b"x")
    other_pair[1].close()
    with closing(make()) as mover, pytest.raises(OSError, match="Broken pipe"):
        mover.move(pair[1], other_pair[0])


@MOVERS
def test_sink_that_breaks_while_it_is_waited_for_is_an_error(
    make: MakeMover, pair: tuple[Stream, Stream], other_pair: tuple[Stream, Stream]
) -> None:
    writing = gevent.spawn(pair[0].sock.sendall, bytes(MORE_THAN_BUFFERS_HOLD))
    pumping = gevent.spawn(_pump, make, pair[1], other_pair[0])
    gevent.idle()
    assert not pumping.dead
    other_pair[1].close()
    with pytest.raises(OSError, match=r"Broken pipe|Connection reset"):
        pumping.get()
    writing.kill()


@MOVERS
def test_sink_that_reads_nothing_blocks_only_its_own_greenlet(make: MakeMover, streams: Streams) -> None:
    sent = _bytes(MORE_THAN_BUFFERS_HOLD)
    with ExitStack() as stack:
        slow, slow_end, slow_sink, reader, quick, quick_end, sink, quick_reader = (
            stream for _ in range(4) for stream in stack.enter_context(streams())
        )
        writing = gevent.spawn(_write_all, slow.sock, [sent])
        stuck = gevent.spawn(_pump, make, slow_end, slow_sink)
        gevent.spawn(_write_all, quick.sock, [sent])
        pumping = gevent.spawn(_pump, make, quick_end, sink)
        assert _read_all(quick_reader.sock) == sent
        assert pumping.get() == len(sent)
        assert not stuck.dead
        assert not writing.dead
        assert _read_all(reader.sock) == sent
        assert stuck.get() == len(sent)


@pytest.mark.parametrize(("make", "budget"), [(Splicer, PIPE_SIZE), (Copier, CHUNK)])
def test_each_step_moves_at_most_a_budget_and_lets_others_run(
    make: MakeMover, budget: int, pair: tuple[Stream, Stream], other_pair: tuple[Stream, Stream]
) -> None:
    turns = 0

    def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            gevent.sleep(0)

    writing = gevent.spawn(_write_all, pair[0].sock, [bytes(MORE_THAN_BUFFERS_HOLD)])
    reading = gevent.spawn(_read_all, other_pair[1].sock)
    counting = gevent.spawn(count_turns)
    with closing(make()) as mover:
        before = -1
        while moved := mover.move(pair[1], other_pair[0]):
            assert moved <= budget
            assert turns > before
            before = turns
    other_pair[0].sock.shutdown(socket.SHUT_WR)
    assert len(reading.get()) == MORE_THAN_BUFFERS_HOLD
    gevent.killall([writing, counting])


def test_splicer_makes_do_with_a_small_pipe(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[Stream, Stream], other_pair: tuple[Stream, Stream]
) -> None:
    monkeypatch.setattr(pump_module, "PIPE_SIZE", 2**40)  # refused, whoever asks
    sent = _bytes(MORE_THAN_BUFFERS_HOLD)
    gevent.spawn(_write_all, pair[0].sock, [sent])
    pumping = gevent.spawn(_pump, Splicer, pair[1], other_pair[0])
    assert _read_all(other_pair[1].sock) == sent
    assert pumping.get() == len(sent)


def test_best_mover_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(new_mover()) as mover:
        assert isinstance(mover, Splicer if hasattr(os, "splice") else Copier)
    monkeypatch.delattr(os, "splice", raising=False)
    with closing(new_mover()) as mover:
        assert isinstance(mover, Copier)


# --- streams ----------------------------------------------------------------------------------


def test_stream_may_be_waited_on_for_both_ways_at_once(pair: tuple[Stream, Stream]) -> None:
    reading = gevent.spawn(pair[0].wait_readable)
    gevent.idle()
    pair[0].wait_writable()
    assert not reading.dead
    pair[1].sock.sendall(b"x")
    reading.get()


def test_wait_ends_when_the_peer_is_gone(pair: tuple[Stream, Stream]) -> None:
    waiting = gevent.spawn(pair[0].wait_readable)
    gevent.idle()
    pair[1].close()
    waiting.get()


# --- files ------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def _fill(fd: int, content: bytes) -> None:
    assert os.write(fd, content) == len(content)


@EXACT_SIZES
def test_row_16_sent_file_is_exact(pair: tuple[Stream, Stream], file: int, size: int) -> None:
    _fill(file, _bytes(size))
    reading = gevent.spawn(_read_all, pair[1].sock)
    send_range(pair[0], file, 0, size)
    pair[0].close()
    assert reading.get() == _bytes(size)


@EXACT_SIZES
def test_row_16_received_bytes_are_exact(pair: tuple[Stream, Stream], size: int) -> None:
    writing = gevent.spawn(pair[0].sock.sendall, _bytes(size) + b"next")
    received = bytearray()
    receive_bytes(pair[1], size, received.extend)
    assert received == _bytes(size)
    assert pair[1].sock.recv(100) == b"next"
    writing.get()


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(min_value=1, max_value=2000), min_size=1, max_size=10))
def test_stretches_are_received_apart(streams: Streams, sizes: list[int]) -> None:
    sent = _bytes(sum(sizes))
    with streams() as (one, other):
        one.sock.sendall(sent)
        received: list[bytes] = []
        for size in sizes:
            pieces: list[bytes] = []
            receive_bytes(other, size, lambda piece, pieces=pieces: pieces.append(bytes(piece)))  # type: ignore[misc]
            received.append(b"".join(pieces))
    ends = list(accumulate(sizes))
    assert received == [sent[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def test_row_16_stretches_of_a_file_are_sent_exact(pair: tuple[Stream, Stream], file: int) -> None:
    _fill(file, _bytes(3 * CHUNK))
    reading = gevent.spawn(_read_all, pair[1].sock)
    for offset in (2 * CHUNK, 0, CHUNK):
        send_range(pair[0], file, offset, CHUNK)
    pair[0].close()
    assert reading.get() == _bytes(3 * CHUNK)[2 * CHUNK :] + _bytes(2 * CHUNK)


def test_sending_does_not_move_the_place_in_the_file(pair: tuple[Stream, Stream], file: int) -> None:
    _fill(file, b"0123456789")
    os.lseek(file, 4, os.SEEK_SET)
    send_range(pair[0], file, 0, 10)
    assert os.lseek(file, 0, os.SEEK_CUR) == 4
    assert pair[1].sock.recv(100) == b"0123456789"


def test_row_15_only_the_announced_bytes_of_a_file_that_grew_are_sent(pair: tuple[Stream, Stream], file: int) -> None:
    _fill(file, b"announced, and more")
    send_range(pair[0], file, 0, 9)
    pair[0].close()
    assert _read_all(pair[1].sock) == b"announced"


@pytest.mark.parametrize("left", [0, 1, CHUNK + 1], ids=["to nothing", "to one byte", "in the middle"])
def test_row_15_file_that_shrank_is_an_error(pair: tuple[Stream, Stream], file: int, fails: Fails, left: int) -> None:
    _fill(file, _bytes(2 * CHUNK))
    os.truncate(file, left)
    reading = gevent.spawn(_read_all, pair[1].sock)
    with fails(Code.CHANGED):
        send_range(pair[0], file, 0, 2 * CHUNK)
    pair[0].close()
    assert reading.get() == _bytes(left)


def test_row_15_file_that_shrinks_while_it_is_sent_is_an_error(
    pair: tuple[Stream, Stream], file: int, fails: Fails
) -> None:
    _fill(file, _bytes(MORE_THAN_BUFFERS_HOLD))
    sending = gevent.spawn(send_range, pair[0], file, 0, MORE_THAN_BUFFERS_HOLD)
    pair[1].wait_readable()
    os.truncate(file, 1)
    reading = gevent.spawn(_read_all, pair[1].sock)
    with fails(Code.CHANGED):
        sending.get()
    pair[0].close()
    assert len(reading.get()) < MORE_THAN_BUFFERS_HOLD  # what waits in the socket may be zeros by now: it is the file's


@pytest.mark.parametrize("sent", [b"", b"x", bytes(CHUNK + 1)], ids=["at once", "after a byte", "after a chunk"])
def test_row_20_peer_that_closes_early_is_an_error(pair: tuple[Stream, Stream], fails: Fails, sent: bytes) -> None:
    writing = gevent.spawn(_write_all, pair[0].sock, [sent])
    received = bytearray()
    with fails(Code.INTERRUPTED):
        receive_bytes(pair[1], len(sent) + 1, received.extend)
    assert received == sent
    writing.get()


def test_row_20_peer_that_vanishes_while_a_file_is_sent_is_an_error(pair: tuple[Stream, Stream], file: int) -> None:
    _fill(file, bytes(MORE_THAN_BUFFERS_HOLD))
    sending = gevent.spawn(send_range, pair[0], file, 0, MORE_THAN_BUFFERS_HOLD)
    pair[1].wait_readable()
    pair[1].close()
    with pytest.raises(OSError, match=r"Broken pipe|Connection reset"):
        sending.get()


@pytest.mark.usefixtures("no_patience")
@pytest.mark.parametrize("sent", [b"", b"half"], ids=["from the start", "in the middle"])
def test_peer_that_sends_nothing_is_given_up(pair: tuple[Stream, Stream], fails: Fails, sent: bytes) -> None:
    pair[0].sock.sendall(sent)
    received = bytearray()
    with fails(Code.STALLED):
        receive_bytes(pair[1], 8, received.extend)
    assert received == sent


@pytest.mark.usefixtures("no_patience")
def test_peer_that_takes_nothing_is_given_up(pair: tuple[Stream, Stream], file: int, fails: Fails) -> None:
    _fill(file, bytes(MORE_THAN_BUFFERS_HOLD))
    with fails(Code.STALLED):
        send_range(pair[0], file, 0, MORE_THAN_BUFFERS_HOLD)


def test_writer_of_received_bytes_may_refuse_them(pair: tuple[Stream, Stream], fails: Fails) -> None:
    def refuse(_piece: memoryview) -> None:
        raise TransferError(Code.DISK)

    pair[0].sock.sendall(b"x")
    with fails(Code.DISK):
        receive_bytes(pair[1], 1, refuse)


def test_row_19_announced_size_is_not_allocated(pair: tuple[Stream, Stream]) -> None:
    came = Event()
    sizes: list[int] = []

    def write(piece: memoryview) -> None:
        assert isinstance(piece.obj, bytearray)
        sizes.append(len(piece.obj))
        came.set()

    receiving = gevent.spawn(receive_bytes, pair[1], 2**63 - 1, write)
    pair[0].sock.sendall(b"x")
    came.wait()
    receiving.kill()
    assert sizes == [CHUNK]
