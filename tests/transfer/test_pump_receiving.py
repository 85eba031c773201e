"""From a connection to whoever writes what comes on it."""

import contextlib
import errno
import mmap
import os
import select
import threading
from collections.abc import Callable
from itertools import accumulate
from typing import Any, TypeAlias

import gevent
import pytest
from conftest import until
from gevent import socket
from gevent.threadpool import ThreadPool
from hypothesis import given, settings
from hypothesis import strategies as st
from transfer.ends import AROUND, LARGE, SECONDS, Clock, Pair, Steps, Streams, moving_of
from transfer.files import Fails, fill_descriptor

from greenchat.errors import Code, TransferError
from greenchat.protocol.limits import BLOCK, CHUNK, SLOWEST_STEP, STALL_SECONDS
from greenchat.threads import call
from greenchat.transfer import pump as pump_module
from greenchat.transfer.pump import receive_bytes, send_range

Receive: TypeAlias = "Callable[..., gevent.Greenlet[..., None]]"


@pytest.fixture
def receive(pair: Pair, pool: ThreadPool) -> Receive:
    """A thread receives what comes on the second stream."""
    fd = pair[1].sock.fileno()
    return lambda size, write, moving=None: gevent.spawn(
        call, pool, receive_bytes, fd, size, write, moving or moving_of(size)
    )


def _nothing(_piece: memoryview) -> None:
    pass


# --- without a limit --------------------------------------------------------------------------


@AROUND
def test_row_16_received_bytes_are_exact(pair: Pair, receive: Receive, size: int) -> None:
    writing = gevent.spawn(pair[0].sock.sendall, LARGE[:size] + b"next")
    received, moving = bytearray(), moving_of(size)
    receive(size, received.extend, moving).get()
    assert received == LARGE[:size]
    assert pair[1].sock.recv(100) == b"next"
    assert moving.moved == size
    writing.get()


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(min_value=1, max_value=2000), min_size=1, max_size=10))
def test_stretches_are_received_apart(streams: Streams, sizes: list[int]) -> None:
    sent = LARGE[: sum(sizes)]
    with streams() as (one, other):
        one.sock.sendall(sent)
        received: list[bytes] = []
        for size in sizes:
            pieces: list[bytes] = []
            receive_bytes(
                other.sock.fileno(),
                size,
                lambda piece, pieces=pieces: pieces.append(bytes(piece)),  # type: ignore[misc]
                moving_of(),
            )
            received.append(b"".join(pieces))
    ends = list(accumulate(sizes))
    assert received == [sent[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def test_all_that_is_done_with_a_piece_is_done_on_the_thread(pair: Pair, receive: Receive) -> None:
    threads: list[int] = []
    receiving = receive(2, lambda _piece: threads.append(threading.get_ident()))
    for _ in range(2):
        pair[0].sock.sendall(b"x")
    receiving.get()
    assert threading.get_ident() not in threads


def test_others_run_while_nothing_comes(pair: Pair, receive: Receive) -> None:
    receiving = receive(1, _nothing)
    gevent.idle()
    assert not receiving.dead
    pair[0].sock.sendall(b"x")
    receiving.get()


@pytest.mark.parametrize("sent", [b"", b"x", bytes(CHUNK + 1)], ids=["at once", "after a byte", "after a chunk"])
def test_row_20_peer_that_closes_early_is_an_error(pair: Pair, receive: Receive, fails: Fails, sent: bytes) -> None:
    received = bytearray()
    receiving = receive(len(sent) + 1, received.extend)
    pair[0].sock.sendall(sent)
    pair[0].sock.shutdown(socket.SHUT_WR)
    with fails(Code.INTERRUPTED):
        receiving.get()
    assert received == sent


def test_row_20_peer_that_resets_the_connection_is_an_error(pair: Pair, receive: Receive) -> None:
    pair[1].sock.sendall(b"never read")  # which turns closing into a reset
    receiving = receive(1, _nothing)
    pair[0].close()
    with pytest.raises(ConnectionResetError):
        receiving.get()


@pytest.mark.usefixtures("no_patience")
@pytest.mark.parametrize("sent", [b"", b"half"], ids=["from the start", "in the middle"])
def test_row_19_peer_that_sends_nothing_is_given_up(pair: Pair, receive: Receive, fails: Fails, sent: bytes) -> None:
    pair[0].sock.sendall(sent)
    received = bytearray()
    with fails(Code.STALLED):
        receive(8, received.extend).get()
    assert received == sent


def test_row_19_peer_that_trickles_is_given_up(
    pair: Pair, receive: Receive, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump_module, "STALL_SECONDS", 0.3)
    came = 0

    def trickle() -> None:
        with contextlib.suppress(OSError):
            while True:
                pair[0].sock.sendall(b"x")
                gevent.sleep(0.005)

    def write(piece: memoryview) -> None:
        nonlocal came
        came += len(piece)

    trickling = gevent.spawn(trickle)
    with fails(Code.STALLED):
        receive(SLOWEST_STEP, write).get()
    assert came
    trickling.kill()


def test_row_19_peer_that_closes_nothing_and_sends_all_is_not_waited_for(pair: Pair, receive: Receive) -> None:
    pair[0].sock.sendall(b"all")
    receive(3, _nothing).get()


class Script:
    """A connection on which there is nothing for so many seconds, and then so many bytes, again and again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *events: float) -> None:
        self.patience: list[float] = []
        self._events = list(events)
        monkeypatch.setattr(pump_module, "_wait_for", self._wait_for)
        monkeypatch.setattr(os, "readv", self._readv)

    def _readv(self, _fd: int, buffers: list[memoryview]) -> int:
        if isinstance(self._events[0], float):
            raise BlockingIOError
        size = int(self._events.pop(0))
        assert size <= len(buffers[0])
        return size

    def _wait_for(self, _ready: select.poll, patience: float) -> float:
        seconds = self._events.pop(0)
        self.patience.append(patience)
        if seconds > patience:
            raise TransferError(Code.STALLED)
        return seconds


def _receive_scripted(pair: Pair, size: int) -> None:
    receive_bytes(pair[1].sock.fileno(), size, _nothing, moving_of())


def test_row_19_patience_is_for_a_whole_step(pair: Pair, monkeypatch: pytest.MonkeyPatch, fails: Fails) -> None:
    monkeypatch.setattr(pump_module, "STALL_SECONDS", 30.0)
    script = Script(monkeypatch, 20.0, 1000, 9.0, SLOWEST_STEP - 1001, 2.0)
    with fails(Code.STALLED):
        _receive_scripted(pair, 2 * SLOWEST_STEP)
    assert script.patience == [30.0, 10.0, 1.0]


def test_patience_begins_anew_with_each_step(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump_module, "STALL_SECONDS", 30.0)
    script = Script(monkeypatch, 20.0, SLOWEST_STEP - 1, 9.0, 1, 29.0, SLOWEST_STEP, 30.0, SLOWEST_STEP)
    _receive_scripted(pair, 3 * SLOWEST_STEP)
    assert script.patience == [30.0, 10.0, 30.0, 30.0]


def test_slow_writer_does_not_count_as_a_stall(pair: Pair, receive: Receive, clock: Clock) -> None:
    def write(_piece: memoryview) -> None:
        clock.now += 3600

    receiving = receive(5, write)
    for _ in range(5):
        pair[0].sock.sendall(b"x")
        gevent.idle()
    receiving.get()


def test_wait_takes_off_what_it_took_and_never_waits_without_patience(pair: Pair, fails: Fails) -> None:
    ready = select.poll()
    ready.register(pair[1].sock.fileno(), select.POLLIN)
    with fails(Code.STALLED):
        pump_module._wait_for(ready, -1.0)
    pair[0].sock.sendall(b"x")
    assert 0 <= pump_module._wait_for(ready, 10.0) < 10
    assert pump_module._wait_for(ready, -1.0) >= 0  # what is there is taken


def test_writer_of_received_bytes_may_refuse_them(pair: Pair, fails: Fails) -> None:
    def refuse(_piece: memoryview) -> None:
        raise TransferError(Code.DISK)

    pair[0].sock.sendall(b"x")
    with fails(Code.DISK):
        receive_bytes(pair[1].sock.fileno(), 1, refuse, moving_of())


@pytest.mark.parametrize("size", [2**63 - 1, BLOCK + 1])
def test_row_19_announced_size_is_not_allocated(pair: Pair, receive: Receive, fails: Fails, size: int) -> None:
    sizes: list[int] = []

    def write(piece: memoryview) -> None:
        assert isinstance(piece.obj, mmap.mmap)
        sizes.append(len(piece.obj))

    receiving = receive(size, write)
    pair[0].sock.sendall(b"x")
    pair[0].close()
    with fails(Code.INTERRUPTED):
        receiving.get()
    assert sizes == [BLOCK]


def test_small_size_allocates_no_block(pair: Pair, receive: Receive) -> None:
    sizes: list[int] = []

    def write(piece: memoryview) -> None:
        assert isinstance(piece.obj, mmap.mmap)
        sizes.append(len(piece.obj))

    pair[0].sock.sendall(b"1234567")
    receive(7, write).get()
    assert sizes == [7]


def test_row_20_descriptor_that_is_closed_is_an_error_and_no_endless_loop(fails: Fails) -> None:
    one, other = socket.socketpair()
    fd = os.dup(one.fileno())
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        receive_bytes(fd, 1, _nothing, moving_of())
    assert caught.value.errno == errno.EBADF
    one.close()
    other.close()


# --- with a limit -----------------------------------------------------------------------------


def test_steps_of_what_is_received_are_those_of_its_limit(pair: Pair) -> None:
    pair[0].sock.sendall(LARGE[:10_000])
    received, limit = bytearray(), Steps(3000)
    receive_bytes(pair[1].sock.fileno(), 10_000, received.extend, moving_of(limit=limit))
    assert limit.sizes == [3000, 3000, 3000, 1000]
    assert received == LARGE[:10_000]


def test_what_is_received_pauses_for_as_long_as_its_limit_says(pair: Pair, clock: Clock) -> None:
    pair[0].sock.sendall(LARGE[:10_000])
    receive_bytes(pair[1].sock.fileno(), 10_000, _nothing, moving_of(limit=Steps(4000, pause=7.5)))
    assert sum(clock.pauses) == pytest.approx(3 * 7.5)


def test_pause_does_not_count_as_a_stall(pair: Pair, receive: Receive, clock: Clock) -> None:
    receiving = receive(10, _nothing, moving_of(limit=Steps(1, pause=2 * STALL_SECONDS)))
    for _ in range(10):
        pair[0].sock.sendall(b"x")
        gevent.idle()
    receiving.get()
    assert sum(clock.pauses) == pytest.approx(10 * 2 * STALL_SECONDS)


def test_limit_that_is_lifted_keeps_a_thread_no_longer(pair: Pair, receive: Receive) -> None:
    limit = Steps(1, pause=3600)
    pair[0].sock.sendall(b"xx")
    receiving = receive(2, _nothing, moving_of(limit=limit))
    until(lambda: limit.sizes)
    limit.lifted = True
    receiving.get(timeout=SECONDS)
    assert limit.sizes == [1, 1]


def test_who_receives_slowly_keeps_whoever_sends_waiting_and_loses_nothing(
    pair: Pair, receive: Receive, file: int
) -> None:
    fill_descriptor(file, LARGE)
    received = bytearray()
    receiving = receive(len(LARGE), received.extend, moving_of(limit=Steps(BLOCK // 4, pause=0.002)))
    send_range(pair[0], file, 0, len(LARGE), moving_of())
    receiving.get()
    assert received == LARGE


def _unused(*_arguments: Any) -> None:
    raise AssertionError


def test_nothing_is_to_be_received_without_a_wait(pair: Pair) -> None:
    receive_bytes(pair[1].sock.fileno(), 0, _unused, moving_of())
