import contextlib
import errno
import fcntl
import os
import select
import time
from collections import Counter
from collections.abc import Callable, Iterator

import gevent
import pytest
from conftest import Wire, _open_descriptors, reset, tcp_pair, until
from gevent import socket

from greenchat.errors import Code, TransferError
from greenchat.protocol.limits import MIN_STEP, PIPE_SIZE, PIPES_SIZE
from greenchat.server import relay
from greenchat.server.relay import RelayRoom, Users
from greenchat.transfer import pump

NOISE = os.urandom(3_000_000)
ANN: Users = ("ann", "owner")
BOB: Users = ("bob", "other")


class Pumps:
    """A relay room, and the outer ends of what it joins."""

    def __init__(self) -> None:
        self.room = RelayRoom()
        self.room.start()
        self.ends: list[Wire] = []

    def joined(self, users: Users = ANN) -> tuple[Wire, Wire]:
        """The ends of the requester and of the owner."""
        (one, inner), (other, outer) = tcp_pair(), tcp_pair()
        self.room.join(users, inner.detach(), outer.detach())
        ends = Wire.over(one), Wire.over(other)
        self.ends += ends
        return ends

    def greeted(self, users: Users = ANN) -> tuple[Wire, Wire]:
        """The same, after a line has gone from owner to requester, and so the relay has both."""
        requester, owner = self.joined(users)
        owner.send(b"hello\n")
        assert requester.line() == b"hello"
        return requester, owner

    def nothing_counts(self) -> bool:
        """Whether nobody takes part in anything."""
        return self.room.running == 0 and not self.room._of and not self.room._pairs

    def close(self) -> None:
        self.room.stop()
        for end in self.ends:
            end.close()


@pytest.fixture
def pumps() -> Iterator[Pumps]:
    one = Pumps()
    yield one
    one.close()
    assert one.nothing_counts()


def code_of(room: RelayRoom, users: Users) -> Code | None:
    """Why there is no room for *users*, if there is none."""
    try:
        room.check_room(users)
    except TransferError as error:
        return error.code
    return None


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


def test_row_20_side_that_is_behind_finds_out_at_once_though_most_of_its_bytes_were_read(pumps: Pumps) -> None:
    (one, inner), (other, outer) = tcp_pair(), tcp_pair()
    outer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # less than is read at once
    pumps.room.join(ANN, inner.detach(), outer.detach())
    pumps.ends.append(owner := Wire.over(other))
    sending = gevent.spawn(_say_until_it_breaks, owner)
    until(lambda: _is_stuck(other))
    reset(one)
    with gevent.Timeout(5):
        sending.get()


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
    assert code_of(pumps.room, ANN) is None
    pumps.room.stop()
    assert code_of(pumps.room, ANN) is Code.RELAY_BUSY


# --- the idle deadline ------------------------------------------------------------------------


def test_row_23_stalled_pair_is_ended_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "RELAY_IDLE_SECONDS", 0.3)
    with contextlib.closing(Pumps()) as pumps:
        stalled, moving = pumps.joined(ANN), pumps.joined(BOB)
        ending = gevent.spawn(ended, stalled[0])
        while not ending.ready():
            moving[0].send(b"x\n")
            assert moving[1].line() == b"x"
            gevent.sleep(0.001)
        assert ending.get()
        assert ended(stalled[1])
        moving[1].send(b"still here\n")
        assert moving[0].line() == b"still here"
        until(lambda: pumps.room.running == 1)
        assert pumps.room._of == Counter(BOB)


def test_row_23_side_that_never_reads_is_a_stalled_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "RELAY_IDLE_SECONDS", 0.3)
    with contextlib.closing(Pumps()) as pumps:
        _, owner = pumps.joined()
        gevent.spawn(_say_until_it_breaks, owner).get()
        until(pumps.nothing_counts)


def test_row_23_half_that_has_ended_does_not_keep_a_stalled_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "RELAY_IDLE_SECONDS", 0.3)
    with contextlib.closing(Pumps()) as pumps:
        requester, owner = pumps.joined()
        _say_all(requester, b"question")
        assert owner.rest() == b"question"
        assert ended(requester)
        until(pumps.nothing_counts)


def test_row_23_pair_that_moves_a_byte_now_and_then_is_not_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "RELAY_IDLE_SECONDS", 0.5)
    with contextlib.closing(Pumps()) as pumps:
        requester, owner = pumps.joined()
        end = time.monotonic() + 1.2
        while time.monotonic() < end:
            owner.send(b"x\n")
            assert requester.line() == b"x"
            gevent.sleep(0.02)
        assert pumps.room.running == 1


def test_stopping_in_the_turn_in_which_a_pair_is_found_stalled_closes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "RELAY_IDLE_SECONDS", 0.1)
    with contextlib.closing(Pumps()) as pumps:

        def stalled(_pair: object) -> bool:
            pumps.room._stopping.set()  # as `stop` does, when its word and the time to look come together
            return True

        monkeypatch.setattr(relay._Pair, "stalled", stalled)
        one, other = pumps.joined()
        pumps.room._ended.get()
        assert ended(one)
        assert ended(other)


# --- caps -------------------------------------------------------------------------------------


def test_number_of_pairs_is_bounded(pumps: Pumps, monkeypatch: pytest.MonkeyPatch) -> None:
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
    pumps: Pumps, monkeypatch: pytest.MonkeyPatch, running: list[Users]
) -> None:
    monkeypatch.setattr(relay, "MAX_RELAYS_EACH", 3)
    for users in running:
        assert code_of(pumps.room, users) is None
        pumps.greeted(users)
    assert code_of(pumps.room, ("ann", "eve")) is Code.TOO_MANY
    assert code_of(pumps.room, ("eve", "ann")) is Code.TOO_MANY
    assert code_of(pumps.room, ("x", "y")) is None


def test_row_31_pair_counts_from_when_it_is_given_to_the_room(pumps: Pumps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "MAX_RELAYS_EACH", 1)
    pumps.joined(ANN)  # whether the relay's thread has seen it or not
    assert code_of(pumps.room, ANN) is Code.TOO_MANY


def test_full_room_is_busy_also_for_who_has_too_many(pumps: Pumps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "MAX_RELAYS", 1)
    monkeypatch.setattr(relay, "MAX_RELAYS_EACH", 1)
    pumps.joined(ANN)
    assert code_of(pumps.room, ANN) is Code.RELAY_BUSY


def test_pair_that_ends_makes_room_for_its_users_again(pumps: Pumps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "MAX_RELAYS_EACH", 2)
    pumps.greeted(ANN)
    requester, owner = pumps.greeted(ANN)
    assert code_of(pumps.room, ANN) is Code.TOO_MANY
    requester.close()
    owner.close()
    until(lambda: code_of(pumps.room, ANN) is None)
    assert pumps.room._of == Counter(ANN)


def _close_both(requester: Wire, owner: Wire) -> None:
    requester.close()
    owner.close()


def _reset_both(requester: Wire, owner: Wire) -> None:
    reset(requester.sock)
    reset(owner.sock)


def _reset_one(requester: Wire, _owner: Wire) -> None:
    reset(requester.sock)


def _end_both(requester: Wire, owner: Wire) -> None:
    _say_all(requester, b"bye")
    _say_all(owner, b"bye")


def _vanish_while_behind(requester: Wire, owner: Wire) -> None:
    sending = gevent.spawn(_say_until_it_breaks, owner)
    until(lambda: _is_stuck(owner.sock))
    reset(requester.sock)
    sending.get()


@pytest.mark.parametrize("leave", [_close_both, _reset_both, _reset_one, _end_both, _vanish_while_behind])
@pytest.mark.parametrize("come", [Pumps.greeted, Pumps.joined], ids=["moving", "fresh"])
def test_row_20_counts_go_back_whatever_ends_a_pair(
    pumps: Pumps, leave: Callable[[Wire, Wire], None], come: Callable[[Pumps, Users], tuple[Wire, Wire]]
) -> None:
    for users in (ANN, ANN, BOB, ("owner", "ann")):
        leave(*come(pumps, users))
    until(pumps.nothing_counts)


def test_row_20_counts_go_back_for_pairs_that_were_gone_before_they_were_joined(pumps: Pumps) -> None:
    for _ in range(20):
        (one, inner), (other, outer) = tcp_pair(), tcp_pair()
        reset(one)
        reset(other)
        pumps.room.join(ANN, inner.detach(), outer.detach())
    until(pumps.nothing_counts)


def test_counts_go_back_when_the_room_stops(pumps: Pumps) -> None:
    for users in (ANN, ANN, BOB):
        pumps.greeted(users)
    pumps.joined(BOB)
    pumps.room.stop()
    assert pumps.nothing_counts()


def test_row_20_out_of_descriptors_ends_the_pair_and_no_other(
    pumps: Pumps, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    going = pumps.greeted(BOB)
    monkeypatch.setattr(relay, "new_mover", _no_descriptors)
    requester, owner = pumps.joined(ANN)
    requester.send(b"x")
    assert ended(owner)
    assert ended(requester)
    until(lambda: pumps.room._of == Counter(BOB))
    going[1].send(b"on\n")
    assert going[0].line() == b"on"
    assert capfd.readouterr().err == ""


def _no_descriptors() -> pump.Mover:
    raise OSError(errno.EMFILE, "too many open files")


# --- pipes ------------------------------------------------------------------------------------


def _pipe_ends() -> int:
    return sum(name.startswith("pipe:") for name in _open_descriptors().values())


def test_pair_that_moves_nothing_has_no_pipe(pumps: Pumps) -> None:
    before = _pipe_ends()
    for _ in range(5):
        pumps.joined()
    pumps.greeted()  # so all have been admitted, and have had their turn
    assert _pipe_ends() == before + 2


@pytest.mark.parametrize("talker", [0, 1], ids=["requester", "owner"])
def test_way_that_never_carries_anything_has_no_pipe(pumps: Pumps, talker: int) -> None:
    before, ends = _pipe_ends(), pumps.joined()
    for _ in range(3):
        ends[talker].send(b"x\n")
        assert ends[1 - talker].line() == b"x"
    assert _pipe_ends() == before + 2  # both ends of one
    ends[1 - talker].send(b"back\n")
    assert ends[talker].line() == b"back"
    assert _pipe_ends() == before + 4


def test_pipe_of_a_way_that_has_ended_is_closed(pumps: Pumps) -> None:
    before = _pipe_ends()
    requester, owner = pumps.greeted()
    owner.sock.shutdown(socket.SHUT_WR)
    assert requester.rest() == b""
    until(lambda: _pipe_ends() == before)
    assert pumps.room.running == 1


def _pipe_sizes() -> list[int]:
    """Bytes that each pipe has room for."""
    pipes = {name: fd for fd, name in _open_descriptors().items() if name.startswith("pipe:")}
    return [fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) for fd in pipes.values()]


def test_way_that_carries_a_line_keeps_a_small_pipe(pumps: Pumps) -> None:
    """The system grants a user so much for pipes in all, and then gives none over 8 KiB."""
    before = sum(_pipe_sizes())
    requester, owner = pumps.greeted()
    requester.send(b"thanks\n")
    assert owner.line() == b"thanks"
    assert sum(_pipe_sizes()) - before <= 2 * 64 * 1024


def test_all_pipes_together_are_bounded(pumps: Pumps) -> None:
    bound, data = 2 * PIPE_SIZE, NOISE[:1_000_000]
    pumps.room._pipes_size = bound
    before, pairs = sum(_pipe_sizes()), []
    for number in range(8):
        pairs.append(pumps.joined((f"n{number}", "x")))
        for requester, owner in pairs:  # those that were there before move on, too
            sending = gevent.spawn(owner.send, data)
            assert requester.exactly(len(data)) == data
            sending.get()
    assert sum(_pipe_sizes()) - before <= bound


# --- fair shares ------------------------------------------------------------------------------


def steps(pumps: Pumps) -> list[tuple[str, int]]:
    """Each running pair's requester and step."""
    return sorted((pair.users[0], pair.step) for pair in list(pumps.room._pairs))


def shared(pumps: Pumps, *requesters: str) -> list[tuple[str, int]]:
    """The steps when so many of each are there."""
    for number, requester in enumerate(requesters):
        pumps.joined((requester, f"owner{number}"))
    until(lambda: len(pumps.room._pairs) == len(requesters))
    return steps(pumps)


def test_one_pair_has_all(pumps: Pumps) -> None:
    assert shared(pumps, "ann") == [("ann", PIPE_SIZE)]


def test_pairs_of_different_users_have_the_same(pumps: Pumps) -> None:
    assert shared(pumps, "ann", "bob", "cat") == [(name, PIPE_SIZE) for name in ("ann", "bob", "cat")]


def test_who_has_more_pairs_has_less_in_each(pumps: Pumps) -> None:
    expected = [("ann", PIPE_SIZE // 4)] * 4 + [("bob", PIPE_SIZE)] + [("cat", PIPE_SIZE // 2)] * 2
    assert shared(pumps, "ann", "bob", "cat", "ann", "ann", "cat", "ann") == expected


def test_share_is_the_requesters_whoever_the_owner_is(pumps: Pumps) -> None:
    for users in (("ann", "dan"), ("bob", "dan"), ("dan", "ann")):
        pumps.greeted(users)
    assert steps(pumps) == [(name, PIPE_SIZE) for name in ("ann", "bob", "dan")]


def test_who_alone_has_many_pairs_has_them_whole(pumps: Pumps) -> None:
    assert shared(pumps, *["ann"] * 5) == [("ann", PIPE_SIZE)] * 5


def test_share_grows_again_when_others_end(pumps: Pumps) -> None:
    one, *_ = [pumps.greeted(("ann", "x")) for _ in range(4)]
    bob = pumps.greeted(("bob", "x"))
    assert steps(pumps) == [("ann", PIPE_SIZE // 4)] * 4 + [("bob", PIPE_SIZE)]
    _close_both(*one)
    until(lambda: steps(pumps) == [("ann", PIPE_SIZE // 3)] * 3 + [("bob", PIPE_SIZE)])
    _close_both(*bob)
    until(lambda: steps(pumps) == [("ann", PIPE_SIZE)] * 3)


def test_all_steps_together_are_bounded(pumps: Pumps) -> None:
    pumps.room._pipes_size = PIPES_SIZE // 16
    found = shared(pumps, *[f"n{number}" for number in range(20)])
    assert {step for _, step in found} == {PIPES_SIZE // 16 // 20}
    assert sum(step for _, step in found) <= PIPES_SIZE // 16


def test_step_is_never_below_the_least(pumps: Pumps) -> None:
    pumps.room._pipes_size = 0
    assert shared(pumps, "ann", "ann", "bob") == [("ann", MIN_STEP), ("ann", MIN_STEP), ("bob", MIN_STEP)]


class _Costly:
    """Moves as the best mover does, at such a cost for the relay's one thread that all streams wait for it."""

    def __init__(self) -> None:
        self._mover = pump.new_mover()

    def fill(self, source: int, most: int) -> int:
        filled = self._mover.fill(source, most)
        time.sleep(filled / 100_000_000)
        return filled

    def empty(self, sink: int) -> int:
        return self._mover.empty(sink)

    def close(self) -> None:
        self._mover.close()


MANY = 31


def test_user_with_one_stream_gets_far_more_than_one_streams_share(
    pumps: Pumps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "new_mover", _Costly)
    pairs = [pumps.joined(("ann", "x")) for _ in range(MANY)] + [pumps.joined(("bob", "y"))]
    until(lambda: len(pumps.room._pairs) == len(pairs))
    talking = [gevent.spawn(_say_until_it_breaks, owner) for _, owner in pairs]
    reading = [gevent.spawn(_drop_all, requester) for requester, _ in pairs]
    until(lambda: sum(_moved(pumps).values()) > 10_000_000)  # buffers are full
    begun = _moved(pumps)
    until(lambda: sum((_moved(pumps) - begun).values()) > 60_000_000)
    moved = _moved(pumps) - begun
    pumps.room.stop()
    gevent.joinall(talking + reading)
    assert moved["bob"] > 4 * sum(moved.values()) / len(pairs)


def _moved(pumps: Pumps) -> Counter[str]:
    """Bytes that each requester's pairs have moved."""
    moved: Counter[str] = Counter()
    for pair in list(pumps.room._pairs):
        moved[pair.users[0]] += sum(way.moved for way in pair._ways)
    return moved


def _drop_all(end: Wire) -> None:
    with contextlib.suppress(OSError):
        while end.sock.recv(1_000_000, socket.MSG_TRUNC):
            gevent.sleep(0)


def test_every_stream_of_many_moves(pumps: Pumps) -> None:
    pumps.room._pipes_size = 0  # as if there were a thousand
    pairs = [pumps.joined((f"n{number % 7}", "x")) for number in range(100)]
    talking = [gevent.spawn(_say_all, owner, NOISE[:300_000]) for _, owner in pairs]
    reading = [gevent.spawn(requester.rest) for requester, _ in pairs]
    gevent.joinall(talking, raise_error=True)
    assert all(one.get() == NOISE[:300_000] for one in reading)
    for requester, _ in pairs:
        requester.close()
    until(pumps.nothing_counts)


# --- draining ---------------------------------------------------------------------------------


def test_draining_an_empty_room_is_over_at_once(pumps: Pumps) -> None:
    draining = gevent.spawn(pumps.room.drain, 1000)
    gevent.sleep(0)
    assert draining.ready()


def test_draining_waits_for_running_pairs(pumps: Pumps) -> None:
    first, second = pumps.greeted(ANN), pumps.greeted(BOB)
    draining = gevent.spawn(pumps.room.drain, 1000)
    _close_both(*first)
    until(lambda: pumps.room.running == 1)
    second[1].send(b"more\n")
    assert second[0].line() == b"more"
    assert not draining.ready()
    _close_both(*second)
    draining.get()
    assert pumps.nothing_counts()


def test_draining_waits_for_what_was_given_to_the_room_a_moment_ago(pumps: Pumps) -> None:
    requester, owner = pumps.joined()
    draining = gevent.spawn(pumps.room.drain, 1000)
    gevent.sleep(0)
    assert not draining.ready()
    _end_both(requester, owner)
    draining.get()


def test_pair_that_joins_meanwhile_is_waited_for(pumps: Pumps) -> None:
    first = pumps.greeted()
    draining = gevent.spawn(pumps.room.drain, 1000)
    gevent.sleep(0)
    assert code_of(pumps.room, ANN) is None  # what was granted may still come
    second = pumps.greeted()
    _close_both(*first)
    until(lambda: pumps.room.running == 1)
    assert not draining.ready()
    _close_both(*second)
    draining.get()


@pytest.mark.parametrize("seconds", [0.05, 0, -1], ids=["a while", "none", "less"])
def test_draining_ends_at_its_deadline_and_stopping_closes_the_rest(pumps: Pumps, seconds: float) -> None:
    requester, owner = pumps.greeted()
    with gevent.Timeout(5):
        pumps.room.drain(seconds)
    owner.send(b"still here\n")
    assert requester.line() == b"still here"
    assert pumps.room.running == 1
    pumps.room.stop()
    assert ended(requester)
    assert ended(owner)
    assert pumps.nothing_counts()


def test_deadline_of_draining_is_kept_though_bytes_move(pumps: Pumps) -> None:
    _, owner = pumps.greeted()
    sending = gevent.spawn(_say_until_it_breaks, owner)
    with gevent.Timeout(5):
        pumps.room.drain(0.05)
    pumps.room.stop()
    sending.get()
