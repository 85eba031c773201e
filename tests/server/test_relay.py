"""The relay room: who may have a pair, what counts, and how it ends; with a process of its own in each test."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator

import gevent
import pytest
from conftest import Wire, _open_descriptors, reset, tcp_pair, until
from gevent import socket
from server.pairs import (
    ANN,
    BOB,
    WAYS_TO_END,
    RoomPairs,
    close_both,
    code_of,
    end_both,
    ended,
    hear,
    is_stuck,
    room_pairs,
    say_until_it_breaks,
)

from greenchat.errors import Code
from greenchat.server import relay
from greenchat.server.relay import JOIN, Users


@pytest.fixture
def pumps() -> Iterator[RoomPairs]:
    with room_pairs() as pairs:
        yield pairs


def test_stopping_ends_every_pair(pumps: RoomPairs) -> None:
    before = set(_open_descriptors())
    pairs = [pumps.greeted() for _ in range(10)]
    pumps.room.stop()
    assert all(ended(end) for pair in pairs for end in pair)
    ours = {end.sock.fileno() for pair in pairs for end in pair}
    assert set(_open_descriptors()) - before - ours == set()
    assert pumps.room.running == 0


def test_stopping_right_after_joining_ends_the_pair(pumps: RoomPairs) -> None:
    one, other = pumps.joined()
    pumps.room.stop()
    assert ended(one)
    assert ended(other)


def test_stopping_ends_a_pair_that_is_stuck_in_writing(pumps: RoomPairs) -> None:
    one, _ = pumps.joined()
    sending = gevent.spawn(say_until_it_breaks, one)
    until(lambda: is_stuck(one.sock))
    pumps.room.stop()
    sending.get()


def test_stopping_what_never_ran_does_nothing(pumps: RoomPairs) -> None:
    pumps.room.stop()
    pumps.room.stop()


def test_stopping_twice_is_stopping(pumps: RoomPairs) -> None:
    pumps.greeted()
    stopping = [gevent.spawn(pumps.room.stop) for _ in range(2)]
    gevent.joinall(stopping, raise_error=True)
    pumps.room.stop()


def test_stopped_room_takes_nobody(pumps: RoomPairs) -> None:
    assert code_of(pumps.room) is None
    pumps.room.stop()
    assert code_of(pumps.room) is Code.RELAY_BUSY


# --- caps -------------------------------------------------------------------------------------


def test_number_of_pairs_is_bounded(pumps: RoomPairs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "MAX_RELAYS", 1)
    assert code_of(pumps.room, BOB) is None
    one, other = pumps.joined(ANN)
    assert code_of(pumps.room, BOB) is Code.RELAY_BUSY
    one.close()
    other.close()
    until(pumps.nothing_counts)
    assert code_of(pumps.room, BOB) is None


@pytest.mark.parametrize(
    "running",
    [
        pytest.param([("ann", "x"), ("ann", "y"), ("ann", "z")], id="requester"),
        pytest.param([("x", "ann"), ("y", "ann"), ("z", "ann")], id="owner"),
        pytest.param([("ann", "x"), ("y", "ann"), ("ann", "z")], id="either"),
    ],
)
def test_row_31_pairs_of_one_user_are_bounded_in_either_role(
    pumps: RoomPairs, monkeypatch: pytest.MonkeyPatch, running: list[Users]
) -> None:
    monkeypatch.setattr(relay, "MAX_RELAYS_EACH", 3)
    for users in running:
        assert code_of(pumps.room, users) is None
        pumps.greeted(users)
    assert code_of(pumps.room, ("ann", "eve")) is Code.TOO_MANY
    assert code_of(pumps.room, ("eve", "ann")) is Code.TOO_MANY
    assert code_of(pumps.room, ("x", "y")) is None


def test_row_31_pair_counts_from_when_it_is_given_to_the_room(
    pumps: RoomPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "MAX_RELAYS_EACH", 1)
    pumps.joined(ANN)  # whether the process has seen it or not
    assert code_of(pumps.room, ANN) is Code.TOO_MANY


def test_full_room_is_busy_also_for_who_has_too_many(pumps: RoomPairs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "MAX_RELAYS", 1)
    monkeypatch.setattr(relay, "MAX_RELAYS_EACH", 1)
    pumps.joined(ANN)
    assert code_of(pumps.room, ANN) is Code.RELAY_BUSY


def test_pair_that_ends_makes_room_for_its_users_again(pumps: RoomPairs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "MAX_RELAYS_EACH", 2)
    pumps.greeted(ANN)
    requester, owner = pumps.greeted(ANN)
    assert code_of(pumps.room, ANN) is Code.TOO_MANY
    close_both(requester, owner)
    until(lambda: code_of(pumps.room, ANN) is None)
    assert pumps.room._of == Counter(ANN)


@pytest.mark.parametrize("come", [RoomPairs.greeted, RoomPairs.joined], ids=["moving", "fresh"])
def test_row_20_counts_go_back_whatever_ends_a_pair(
    pumps: RoomPairs, come: Callable[[RoomPairs, Users], tuple[Wire, Wire]]
) -> None:
    for leave in WAYS_TO_END:
        for users in (ANN, ANN, BOB, ("owner", "ann")):
            leave(*come(pumps, users))
        until(pumps.nothing_counts)


def test_row_20_counts_go_back_for_pairs_that_were_gone_before_they_were_joined(pumps: RoomPairs) -> None:
    for _ in range(20):
        (one, inner), (other, outer) = tcp_pair(), tcp_pair()
        reset(one)
        reset(other)
        pumps.give(ANN, inner.detach(), outer.detach())
    until(pumps.nothing_counts)


def test_counts_go_back_when_the_room_stops(pumps: RoomPairs) -> None:
    for users in (ANN, ANN, BOB):
        pumps.greeted(users)
    pumps.joined(BOB)
    pumps.room.stop()
    assert pumps.nothing_counts()


def test_share_is_the_requesters_whoever_the_owner_is(pumps: RoomPairs, monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[int] = []
    send = socket.send_fds

    def note(sock: socket.socket, messages: list[bytes], descriptors: list[int]) -> None:
        groups.append(JOIN.unpack(messages[0])[1])
        send(sock, messages, descriptors)

    monkeypatch.setattr(socket, "send_fds", note)
    for users in (("ann", "dan"), ("bob", "dan"), ("dan", "ann"), ("ann", "bob")):
        pumps.greeted(users)
    assert len(set(groups[:3])) == 3
    assert groups[0] == groups[3]


# --- draining ---------------------------------------------------------------------------------


def test_draining_an_empty_room_is_over_at_once(pumps: RoomPairs) -> None:
    draining = gevent.spawn(pumps.room.drain, 1000)
    gevent.sleep(0)
    assert draining.ready()


def test_draining_waits_for_running_pairs(pumps: RoomPairs) -> None:
    first, second = pumps.greeted(ANN), pumps.greeted(BOB)
    draining = gevent.spawn(pumps.room.drain, 1000)
    close_both(*first)
    until(lambda: pumps.room.running == 1)
    hear(second[1], second[0], b"more")
    assert not draining.ready()
    close_both(*second)
    draining.get()
    assert pumps.nothing_counts()


def test_draining_waits_for_what_was_given_to_the_room_a_moment_ago(pumps: RoomPairs) -> None:
    requester, owner = pumps.joined()
    draining = gevent.spawn(pumps.room.drain, 1000)
    gevent.sleep(0)
    assert not draining.ready()
    end_both(requester, owner)
    draining.get()


def test_pair_that_joins_meanwhile_is_waited_for(pumps: RoomPairs) -> None:
    first = pumps.greeted()
    draining = gevent.spawn(pumps.room.drain, 1000)
    gevent.sleep(0)
    assert code_of(pumps.room, ANN) is None  # what was granted may still come
    second = pumps.greeted()
    close_both(*first)
    until(lambda: pumps.room.running == 1)
    assert not draining.ready()
    close_both(*second)
    draining.get()


@pytest.mark.parametrize("seconds", [0.05, 0, -1], ids=["a while", "none", "less"])
def test_draining_ends_at_its_deadline_and_stopping_closes_the_rest(pumps: RoomPairs, seconds: float) -> None:
    requester, owner = pumps.greeted()
    with gevent.Timeout(5):
        pumps.room.drain(seconds)
    hear(owner, requester, b"still here")
    assert pumps.room.running == 1
    pumps.room.stop()
    assert ended(requester)
    assert ended(owner)
    assert pumps.nothing_counts()


def test_deadline_of_draining_is_kept_though_bytes_move(pumps: RoomPairs) -> None:
    _, owner = pumps.greeted()
    sending = gevent.spawn(say_until_it_breaks, owner)
    with gevent.Timeout(5):
        pumps.room.drain(0.05)
    pumps.room.stop()
    sending.get()


def test_draining_is_over_when_the_process_has_died(pumps: RoomPairs) -> None:
    pumps.greeted()
    draining = gevent.spawn(pumps.room.drain, 1000)
    os.kill(pumps.process, signal.SIGKILL)
    with gevent.Timeout(5):
        draining.get()
