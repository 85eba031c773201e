import contextlib
import os
import select
from collections.abc import Callable, Iterator

import gevent
import pytest
from conftest import Wire, _open_descriptors, reset, tcp_pair, until
from gevent import socket

from greenchat.errors import Code, TransferError
from greenchat.server import relay
from greenchat.server.relay import RelayRoom
from greenchat.transfer import pump

NOISE = os.urandom(3_000_000)


class Pumps:
    """A relay room, and the outer ends of what it joins."""

    def __init__(self) -> None:
        self.room = RelayRoom()
        self.room.start()
        self.ends: list[Wire] = []

    def joined(self) -> tuple[Wire, Wire]:
        (one, inner), (other, outer) = tcp_pair(), tcp_pair()
        self.room.join(inner.detach(), outer.detach())
        ends = Wire.over(one), Wire.over(other)
        self.ends += ends
        return ends

    def close(self) -> None:
        self.room.stop()
        for end in self.ends:
            end.close()


@pytest.fixture
def pumps() -> Iterator[Pumps]:
    one = Pumps()
    yield one
    one.close()


def ended(end: Wire) -> bool:
    """Whether the connection ends, one way or the other, without another byte."""
    try:
        return end.rest() == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("mover", ["best", "copier"])
def test_bytes_are_exact_both_ways_at_once(pumps: Pumps, monkeypatch: pytest.MonkeyPatch, mover: str) -> None:
    if mover == "copier":
        monkeypatch.setattr(relay, "new_mover", pump.Copier)
    one, other = pumps.joined()
    sending = [gevent.spawn(_say_all, end, data) for end, data in ((one, NOISE), (other, NOISE[::-1]))]
    reading = [gevent.spawn(end.rest) for end in (one, other)]
    gevent.joinall(sending, raise_error=True)
    assert reading[0].get() == NOISE[::-1]
    assert reading[1].get() == NOISE


def _say_all(end: Wire, data: bytes) -> None:
    end.send(data)
    end.sock.shutdown(socket.SHUT_WR)


def test_half_that_has_ended_leaves_the_other_open(pumps: Pumps) -> None:
    one, other = pumps.joined()
    _say_all(one, b"question")
    assert other.rest() == b"question"
    other.send(b"answer\n")
    assert one.line() == b"answer"
    assert pumps.room.running == 1


def test_pair_is_over_when_both_halves_have_ended(pumps: Pumps) -> None:
    before = set(_open_descriptors())
    one, other = pumps.joined()
    inner = set(_open_descriptors()) - before
    _say_all(one, b"")
    _say_all(other, b"")
    assert ended(one)
    assert ended(other)
    until(lambda: pumps.room.running == 0)
    assert {one.sock.fileno(), other.sock.fileno()} <= inner  # nobody's sockets but the relay's own are closed
    assert len(set(_open_descriptors()) & inner) <= len(inner) - 2


@pytest.mark.parametrize("vanish", [lambda sock: sock.close(), reset], ids=["closed", "reset"])
def test_row_20_side_that_vanishes_ends_the_other(pumps: Pumps, vanish: Callable[[socket.socket], None]) -> None:
    one, other = pumps.joined()
    one.send(b"half a file")
    assert other.sock.recv(100) == b"half a file"
    vanish(one.sock)
    assert ended(other)
    other.close()
    until(lambda: pumps.room.running == 0)


def test_row_20_side_that_vanishes_while_it_is_behind_ends_the_other(pumps: Pumps) -> None:
    one, other = pumps.joined()
    sending = gevent.spawn(_say_until_it_breaks, one)
    assert other.sock.recv(100)
    reset(other.sock)
    sending.get()
    until(lambda: pumps.room.running == 0)


def _say_until_it_breaks(end: Wire) -> None:
    with contextlib.suppress(OSError):
        while True:
            end.send(NOISE)


def test_row_20_side_that_vanishes_leaves_no_traceback(pumps: Pumps, capfd: pytest.CaptureFixture[str]) -> None:
    one, other = pumps.joined()
    one.send(b"half a file")
    assert other.sock.recv(100) == b"half a file"
    reset(one.sock)
    assert ended(other)
    until(lambda: pumps.room.running == 0)
    assert capfd.readouterr().err == ""


def test_stopping_ends_every_pair(pumps: Pumps) -> None:
    before = set(_open_descriptors())
    pairs = [pumps.joined() for _ in range(10)]
    for one, other in pairs:
        one.send(b"x\n")
        assert other.line() == b"x"
    pumps.room.stop()
    assert all(ended(end) for pair in pairs for end in pair)
    ours = {end.sock.fileno() for pair in pairs for end in pair}
    assert set(_open_descriptors()) - before - ours == set()
    assert pumps.room.running == 0


def test_stopping_right_after_joining_ends_the_pair(pumps: Pumps) -> None:
    one, other = pumps.joined()
    pumps.room.stop()
    assert ended(one)
    assert ended(other)


def test_stopping_ends_a_pair_that_is_stuck_in_writing(pumps: Pumps) -> None:
    one, _ = pumps.joined()
    sending = gevent.spawn(_say_until_it_breaks, one)
    until(lambda: _is_stuck(one.sock))
    pumps.room.stop()
    sending.get()


def _is_stuck(sock: socket.socket) -> bool:
    """Whether nothing has moved for a while: what can be buffered is full."""
    poller = select.poll()
    poller.register(sock.fileno(), select.POLLOUT)
    for _ in range(5):
        if poller.poll(0):
            return False
        gevent.sleep(0.001)
    return True


def test_stopping_what_never_ran_does_nothing(pumps: Pumps) -> None:
    pumps.room.stop()
    pumps.room.stop()


def test_stopped_room_takes_nobody(pumps: Pumps) -> None:
    pumps.room.check_room()
    pumps.room.stop()
    with pytest.raises(TransferError) as refused:
        pumps.room.check_room()
    assert refused.value.code is Code.RELAY_BUSY


def test_row_23_stalled_pair_is_ended_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "RELAY_IDLE_SECONDS", 0.3)
    with contextlib.closing(Pumps()) as pumps:
        stalled, moving = pumps.joined(), pumps.joined()
        ending = gevent.spawn(ended, stalled[0])
        while not ending.ready():
            moving[0].send(b"x\n")
            assert moving[1].line() == b"x"
            gevent.sleep(0.001)
        assert ending.get()
        assert ended(stalled[1])
        moving[1].send(b"still here\n")
        assert moving[0].line() == b"still here"
        assert pumps.room.running == 1


def test_number_of_pairs_is_bounded(pumps: Pumps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "MAX_RELAYS", 1)
    pumps.room.check_room()
    one, other = pumps.joined()
    with pytest.raises(TransferError) as refusal:
        pumps.room.check_room()
    assert refusal.value.code == Code.RELAY_BUSY
    one.close()
    other.close()
    until(lambda: pumps.room.running == 0)
    pumps.room.check_room()
