"""What the relay's process does, done in the test's own."""

import errno
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from conftest import Wire, _open_descriptors, reset, tcp_pair, until
from gevent import socket
from server.pairs import (
    NOISE,
    WAYS_TO_END,
    WorkerPairs,
    close_both,
    ended,
    exchange,
    hear,
    is_stuck,
    reset_both,
    say_all,
    say_until_it_breaks,
    worker_pairs,
)

from greenchat.protocol.limits import BULK
from greenchat.server import relay_worker
from greenchat.transfer import pump

ANN, BOB, CAT = range(3)


@pytest.fixture
def pumps() -> Iterator[WorkerPairs]:
    with worker_pairs() as pairs:
        yield pairs


@pytest.mark.parametrize("mover", ["best", "copier"])
def test_bytes_are_exact_both_ways_at_once(pumps: WorkerPairs, monkeypatch: pytest.MonkeyPatch, mover: str) -> None:
    if mover == "copier":
        monkeypatch.setattr(relay_worker, "new_mover", pump.Copier)
    one, other = pumps.joined()
    sending = [gevent.spawn(say_all, end, data) for end, data in ((one, NOISE), (other, NOISE[::-1]))]
    reading = [gevent.spawn(end.rest) for end in (one, other)]
    gevent.joinall(sending, raise_error=True)
    assert reading[0].get() == NOISE[::-1]
    assert reading[1].get() == NOISE


def test_half_that_has_ended_leaves_the_other_open(pumps: WorkerPairs) -> None:
    one, other = pumps.joined()
    say_all(one, b"question")
    assert other.rest() == b"question"
    hear(other, one, b"answer")
    assert list(pumps.worker._pairs) == [0]


def test_pair_is_over_when_both_halves_have_ended(pumps: WorkerPairs) -> None:
    before = set(_open_descriptors())
    one, other = pumps.greeted()
    say_all(one, b"")
    say_all(other, b"")
    assert ended(one)
    assert ended(other)
    assert pumps.told() == [0]
    left = set(_open_descriptors()) - before
    assert left == {one.sock.fileno(), other.sock.fileno()}  # nobody's sockets but the relay's own are closed


@pytest.mark.parametrize("vanish", [lambda sock: sock.close(), reset], ids=["closed", "reset"])
def test_row_20_side_that_vanishes_ends_the_other(pumps: WorkerPairs, vanish: Callable[[socket.socket], None]) -> None:
    one, other = pumps.joined()
    one.send(b"half a file")
    assert other.sock.recv(100) == b"half a file"
    vanish(one.sock)
    assert ended(other)
    other.close()
    assert pumps.told() == [0]


def test_row_20_side_that_vanishes_while_it_is_behind_ends_the_other(pumps: WorkerPairs) -> None:
    one, other = pumps.joined()
    sending = gevent.spawn(say_until_it_breaks, one)
    assert other.sock.recv(100)
    reset(other.sock)
    sending.get()
    assert pumps.told() == [0]


def test_row_20_side_that_is_behind_finds_out_at_once_though_most_of_its_bytes_were_read(pumps: WorkerPairs) -> None:
    one, other = pumps.joined(room=65536)  # less than is read at once
    sending = gevent.spawn(say_until_it_breaks, other)
    until(lambda: is_stuck(other.sock))
    reset(one.sock)
    with gevent.Timeout(5):
        sending.get()


def test_row_20_side_that_vanishes_leaves_no_traceback(pumps: WorkerPairs, capfd: pytest.CaptureFixture[str]) -> None:
    one, other = pumps.joined()
    one.send(b"half a file")
    assert other.sock.recv(100) == b"half a file"
    reset(one.sock)
    assert ended(other)
    assert pumps.told() == [0]
    assert capfd.readouterr().err == ""


# --- the boss ---------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", WAYS_TO_END)
@pytest.mark.parametrize("come", [WorkerPairs.greeted, WorkerPairs.joined], ids=["moving", "fresh"])
def test_row_20_boss_is_told_once_of_each_pair_whatever_ends_it(
    pumps: WorkerPairs,
    capfd: pytest.CaptureFixture[str],
    leave: Callable[[Wire, Wire], None],
    come: Callable[[WorkerPairs, int], tuple[Wire, Wire]],
) -> None:
    for group in (ANN, ANN, BOB):
        leave(*come(pumps, group))
    assert pumps.told(3) == [0, 1, 2]
    close_both(*pumps.joined())
    assert pumps.told() == [3]  # and no other a second time
    assert capfd.readouterr().err == ""


def test_row_20_pair_both_ways_of_which_break_in_one_turn_is_closed_once(
    pumps: WorkerPairs, capfd: pytest.CaptureFixture[str]
) -> None:
    one, other = pumps.greeted()
    for sock in pumps.inner():
        sock.shutdown(socket.SHUT_WR)  # so that neither way can write
    one.send(b"x")
    other.send(b"x")
    assert ended(one)
    assert ended(other)
    assert pumps.told() == [0]
    assert capfd.readouterr().err == ""


def test_pairs_that_have_ended_are_told_though_the_boss_reads_late(pumps: WorkerPairs) -> None:
    many = 400  # more than the system keeps for who does not read
    for _ in range(many):
        close_both(*pumps.joined())
    going = pumps.greeted()
    until(lambda: list(pumps.worker._pairs) == [many])
    assert pumps.told(many) == list(range(many))
    hear(*going)


def test_end_of_the_boss_ends_every_pair(pumps: WorkerPairs) -> None:
    before = set(_open_descriptors())
    pairs = [pumps.greeted() for _ in range(10)]
    pumps.stop()
    assert all(ended(end) for pair in pairs for end in pair)
    ours = {end.sock.fileno() for pair in pairs for end in pair}
    assert set(_open_descriptors()) - before - ours == set()


def test_end_of_the_boss_right_after_a_pair_ends_the_pair(pumps: WorkerPairs) -> None:
    one, other = pumps.joined()
    pumps.stop()
    assert ended(one)
    assert ended(other)


def test_end_of_the_boss_ends_a_pair_that_is_stuck_in_writing(pumps: WorkerPairs) -> None:
    one, _ = pumps.joined()
    sending = gevent.spawn(say_until_it_breaks, one)
    until(lambda: is_stuck(one.sock))
    pumps.stop()
    sending.get()


def test_end_of_a_boss_that_has_not_read_all_is_an_end_like_any_other(
    pumps: WorkerPairs, capfd: pytest.CaptureFixture[str]
) -> None:
    close_both(*pumps.joined())
    one, other = pumps.greeted()
    socket.wait_read(pumps.boss.fileno())
    pumps.boss.close()
    pumps.working.join()
    assert ended(one)
    assert ended(other)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("count", [0, 1], ids=["none", "one"])
def test_row_20_pair_that_came_without_its_descriptors_ends_and_no_other(pumps: WorkerPairs, count: int) -> None:
    """The system leaves out those for which the process has no room."""
    going = pumps.greeted()
    before, (end, near) = set(_open_descriptors()), tcp_pair()
    pumps.tell(7, ANN, *[near.detach() for _ in range(count)])
    assert pumps.told() == [7]
    near.close()
    assert set(_open_descriptors()) - before == {end.fileno()}
    end.close()
    hear(*going)


def test_row_20_out_of_descriptors_ends_the_pair_and_no_other(
    pumps: WorkerPairs, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    going = pumps.greeted(BOB)
    monkeypatch.setattr(relay_worker, "new_mover", _no_descriptors)
    requester, owner = pumps.joined(ANN)
    requester.send(b"x")
    assert ended(owner)
    assert ended(requester)
    assert pumps.told() == [1]
    hear(going[1], going[0])
    assert capfd.readouterr().err == ""


def _no_descriptors() -> pump.Mover:
    raise OSError(errno.EMFILE, "too many open files")


# --- the idle deadline ------------------------------------------------------------------------


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs may be so for a moment only; comes before `pumps`."""
    monkeypatch.setattr(relay_worker, "RELAY_IDLE_SECONDS", 0.3)


def test_row_23_stalled_pair_is_ended_and_the_others_go_on(
    idle: None, pumps: WorkerPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_worker, "RELAY_IDLE_SECONDS", 1.0)  # a busy machine may keep this process for a while
    stalled, moving = pumps.joined(ANN), pumps.joined(BOB)
    ending = gevent.spawn(ended, stalled[0])
    while not ending.ready():
        hear(*moving)
        gevent.sleep(0.001)
    assert ending.get()
    assert ended(stalled[1])
    hear(*moving, b"still here")
    assert pumps.told() == [0]
    assert list(pumps.worker._pairs) == [1]


def test_row_23_side_that_never_reads_is_a_stalled_pair(idle: None, pumps: WorkerPairs) -> None:
    _, owner = pumps.joined()
    gevent.spawn(say_until_it_breaks, owner).get()
    assert pumps.told() == [0]


def test_row_23_half_that_has_ended_does_not_keep_a_stalled_pair(idle: None, pumps: WorkerPairs) -> None:
    requester, owner = pumps.joined()
    say_all(requester, b"question")
    assert owner.rest() == b"question"
    assert ended(requester)
    assert pumps.told() == [0]


def test_row_23_pair_that_moves_a_byte_now_and_then_is_not_stalled(
    idle: None, pumps: WorkerPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_worker, "RELAY_IDLE_SECONDS", 1.0)
    requester, owner = pumps.joined()
    end = time.monotonic() + 2.2
    while time.monotonic() < end:
        hear(owner, requester)
        gevent.sleep(0.02)
    assert list(pumps.worker._pairs) == [0]


def test_end_of_the_boss_in_the_turn_in_which_a_pair_is_found_stalled_closes_it(
    idle: None, pumps: WorkerPairs, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def stalled(_pair: object) -> bool:
        pumps.boss.shutdown(socket.SHUT_WR)
        return True

    monkeypatch.setattr(relay_worker._Pair, "stalled", stalled)
    one, other = pumps.joined()
    pumps.working.get()
    assert ended(one)
    assert ended(other)
    assert capfd.readouterr().err == ""


# --- much at once -----------------------------------------------------------------------------


def _least(sock: socket.socket) -> int:
    """Bytes that have to come before the worker is woken."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)


def _carry(speaker: Wire, listener: Wire, size: int) -> None:
    """So many bytes go from one end to the other."""
    sending = gevent.spawn(speaker.send, NOISE[:size])
    assert listener.exactly(size) == NOISE[:size]
    sending.get()


MUCH = 4000


@pytest.fixture
def soon_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fits in one packet is much, so that there is no saying how it is cut."""
    monkeypatch.setattr(relay_worker, "BULK", MUCH)


@pytest.fixture
def endless_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_worker, "_PATIENCE", 1000.0)


@pytest.mark.parametrize("way", [0, 1], ids=["requester", "owner"])
def test_source_that_brings_much_is_asked_for_no_less(
    soon_much: None, endless_patience: None, pumps: WorkerPairs, way: int
) -> None:
    ends = pumps.greeted()
    _carry(ends[way], ends[1 - way], MUCH)
    assert [_least(sock) for sock in (pumps.inner()[way], pumps.inner()[1 - way])] == [MUCH, 1]
    moved = pumps.moved(way)
    ends[way].send(NOISE[: MUCH - 1])
    hear(ends[1 - way], ends[way])  # the other way is not concerned
    assert pumps.moved(way) == moved
    ends[way].send(b"!")
    assert ends[1 - way].exactly(MUCH) == NOISE[: MUCH - 1] + b"!"


def test_source_that_brings_less_is_asked_for_any(soon_much: None, endless_patience: None, pumps: WorkerPairs) -> None:
    requester, owner = pumps.greeted()
    _carry(owner, requester, MUCH - 1)
    assert _least(pumps.inner()[1]) == 1


def test_source_that_has_brought_much_is_soon_asked_for_any(soon_much: None, pumps: WorkerPairs) -> None:
    requester, owner = pumps.greeted()
    _carry(owner, requester, MUCH)
    until(lambda: _least(pumps.inner()[1]) == 1)


@pytest.mark.parametrize("rest", [1, MUCH - 1, MUCH, MUCH + 1])
@pytest.mark.parametrize("way", [0, 1], ids=["requester", "owner"])
def test_rest_after_much_is_not_left_lying(soon_much: None, pumps: WorkerPairs, way: int, rest: int) -> None:
    ends = pumps.greeted()
    for _ in range(3):
        _carry(ends[way], ends[1 - way], MUCH)
        _carry(ends[way], ends[1 - way], rest)


def test_lines_go_back_and_forth_after_much_both_ways(soon_much: None, pumps: WorkerPairs) -> None:
    one, other = pumps.joined()
    for _ in range(3):
        _carry(one, other, MUCH)
        _carry(other, one, MUCH)
        for _ in range(10):
            hear(one, other)
            hear(other, one)


@pytest.mark.parametrize("rest", [b"", b"rest"], ids=["none", "a rest"])
def test_end_after_much_is_found_out_at_once(
    soon_much: None, endless_patience: None, pumps: WorkerPairs, rest: bytes
) -> None:
    requester, owner = pumps.joined()
    _carry(owner, requester, MUCH)
    say_all(owner, rest)
    assert requester.rest() == rest
    hear(requester, owner)


def test_row_20_side_that_vanishes_after_much_ends_the_other_at_once(
    soon_much: None, endless_patience: None, pumps: WorkerPairs
) -> None:
    requester, owner = pumps.joined()
    _carry(owner, requester, MUCH)
    reset(owner.sock)
    assert ended(requester)
    assert pumps.told() == [0]


def test_patience_ends_with_its_pair(soon_much: None, endless_patience: None, pumps: WorkerPairs) -> None:
    requester, owner = pumps.joined()
    _carry(owner, requester, MUCH)
    patience: Any = pumps.worker._pairs[0]._ways[1]._patience
    assert patience.active
    reset_both(requester, owner)
    assert pumps.told() == [0]
    assert not patience.active


def test_streams_with_rests_of_any_size_are_exact(pumps: WorkerPairs) -> None:
    one, other = pumps.joined()
    for size in (BULK, BULK + 1, 1, 4 * BULK + 7, BULK - 1, len(NOISE)):
        _carry(one, other, size)
        _carry(other, one, size)
        exchange(one, other)


@pytest.mark.attack(23)
def test_slow_sink_is_given_bytes_before_its_socket_becomes_writable(
    pumps: WorkerPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_worker, "_NUDGE", 0.01)
    one, other = pumps.greeted()
    talking = gevent.spawn(say_until_it_breaks, one)
    until(lambda: is_stuck(one.sock))
    moved = pumps.moved(0)
    other.exactly(64 * 1024)  # less than a third of what waits in the socket
    until(lambda: pumps.moved(0) > moved)
    pumps.stop()
    talking.join()


@pytest.mark.attack(23)
def test_source_of_a_slow_sink_is_read_while_the_sink_takes_nothing(
    pumps: WorkerPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_worker, "_NUDGE", 60)  # the test does it
    one, _ = pumps.greeted()
    talking = gevent.spawn(say_until_it_breaks, one)

    def nudge_takes() -> bool:
        taken = pumps.taken(0)
        pumps.worker._pairs[0].nudge()
        return pumps.taken(0) > taken

    until(nudge_takes)
    pumps.stop()
    talking.join()
