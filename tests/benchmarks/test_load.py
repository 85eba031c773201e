import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from benchmarks import load
from benchmarks.load import STAMP, LoadError, Pace, Paced

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there is no epoll"),
    pytest.mark.skipif(load.compiler() is None, reason="there is no C compiler"),
]

FRAME = b"from somebody " + STAMP + b" and more\n"
PATIENCE = 0.1
LONG = 40.0
"""Seconds that nothing takes, not even where the first test of a run compiles the generator on a busy machine."""


class Ends:
    """Connections, each with the end that the generator has and the end that a server would have."""

    def __init__(self, stack: ExitStack, count: int) -> None:
        self.near: list[socket.socket] = []
        self.far: list[socket.socket] = []
        with socket.create_server(("127.0.0.1", 0)) as listener:
            for _ in range(count):
                self.near.append(stack.enter_context(socket.create_connection(listener.getsockname())))
                self.far.append(stack.enter_context(listener.accept()[0]))

    @property
    def fds(self) -> list[int]:
        return [sock.fileno() for sock in self.near]

    def hear(self, data: bytes) -> None:
        for sock in self.far:
            sock.sendall(data)


Connect = Callable[[int], Ends]


@pytest.fixture
def ends() -> Iterator[Connect]:
    with ExitStack() as stack:
        yield lambda count: Ends(stack, count)


@contextlib.contextmanager
def beside(work: Callable[[], None]) -> Iterator[None]:
    """*work* on a thread meanwhile; the generator's loops let go of the interpreter's lock."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    thread.join(5)
    assert not thread.is_alive()


def relay(speaker: Ends, members: Ends, size: int, hand_out: Callable[[Ends, bytes], None]) -> None:
    """What a server does, until so many bytes have come."""
    while size > 0:
        data = speaker.far[0].recv(65536)
        size -= len(data)
        hand_out(members, data)


# --- bursts ---


def test_a_burst_ends_when_all_have_all(ends: Connect) -> None:
    speaker, members = ends(1), ends(3)
    data = b"x" * 1_000_000
    with beside(lambda: relay(speaker, members, len(data), Ends.hear)):
        done = load.burst(speaker.fds[0], data, members.fds, len(data), 5)
    assert 0 < done.seconds < 5
    assert load.drain(members.fds, 0.02, 1) == ([0, 0, 0], 0)


def test_one_byte_too_few_is_no_whole_burst(ends: Connect) -> None:
    members = ends(2)
    members.hear(b"12345")
    members.far[0].sendall(b"6")
    with pytest.raises(LoadError, match="got 5"):
        load.burst(-1, b"", members.fds, 6, PATIENCE)


def test_a_burst_does_not_wait_for_a_member_that_was_dropped(ends: Connect) -> None:
    members = ends(2)
    members.far[1].close()
    begun = time.monotonic()
    with pytest.raises(LoadError):
        load.burst(-1, b"", members.fds, 1, LONG)
    assert time.monotonic() - begun < LONG


def test_what_is_drained_is_counted_for_each(ends: Connect) -> None:
    members = ends(3)
    members.far[0].sendall(b"abc")
    members.far[2].sendall(b"d" * 100_000)
    members.far[1].close()
    assert load.drain(members.fds, 0.05, 1) == ([3, 0, 100_000], 1)


# --- paced messages ---


def paced(speaker: Ends, members: Ends, hand_out: Callable[[Ends, bytes], None], watched: int = 1) -> Paced:
    """20 messages in 0.1 seconds."""
    with beside(lambda: relay(speaker, members, 20 * len(FRAME), hand_out)):
        return load.paced(speaker.fds, FRAME, members.fds, Pace(200, 0.1, 1, watched))


def test_each_paced_message_gives_a_latency_at_each_member(ends: Connect) -> None:
    done = paced(ends(1), ends(3), Ends.hear)
    assert (done.sent, done.delivered, done.ended, sum(done.histogram)) == (20, 60, 0, 60)
    assert 0 < done.percentile(0.5) <= done.percentile(0.99) < 0.5


def test_stamps_that_come_in_parts_count_once(ends: Connect) -> None:
    def bit_by_bit(members: Ends, data: bytes) -> None:
        for sock in members.far:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), 7):
            members.hear(data[at : at + 7])
            time.sleep(0.0005)

    done = paced(ends(1), ends(2), bit_by_bit)
    assert (done.delivered, sum(done.histogram)) == (40, 40)
    assert 0 < done.percentile(1.0) < 0.5


def test_time_on_the_way_counts(ends: Connect) -> None:
    def late(members: Ends, data: bytes) -> None:
        time.sleep(0.05)
        members.hear(data)

    assert 0.05 <= paced(ends(1), ends(1), late).percentile(0.01) < 0.5


def test_unwatched_members_only_have_their_deliveries_counted(ends: Connect) -> None:
    done = paced(ends(1), ends(4), Ends.hear, watched=2)
    assert (done.delivered, sum(done.histogram)) == (80, 40)


def test_speakers_take_turns(ends: Connect) -> None:
    speakers, members = ends(2), ends(1)
    done = load.paced(speakers.fds, FRAME, members.fds, Pace(100, 0.1, 1.0))
    assert done.sent == 10
    assert [len(sock.recv(5 * len(FRAME), socket.MSG_WAITALL)) for sock in speakers.far] == [5 * len(FRAME)] * 2


@pytest.mark.parametrize("watched", [1, 2])
def test_a_member_that_is_dropped_is_told_and_not_waited_for(ends: Connect, watched: int) -> None:
    speaker, members = ends(1), ends(2)
    members.far[0].close()
    begun = time.monotonic()
    done = load.paced(speaker.fds, FRAME, members.fds, Pace(100, 0.1, LONG, watched))
    assert done.ended == 1
    assert time.monotonic() - begun < LONG


def test_patience_ends(ends: Connect) -> None:
    begun = time.monotonic()
    done = load.paced(ends(1).fds, FRAME, ends(1).fds, Pace(100, 0.05, 1.0))
    assert (done.sent, done.delivered, done.percentile(0.5)) == (5, 0, float("inf"))
    assert time.monotonic() - begun >= 1.05


def test_what_a_server_has_no_room_for_was_due_all_the_same(ends: Connect) -> None:
    speaker = ends(1)
    speaker.near[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    frame = STAMP + b"x" * 4_000_000
    done = load.paced(speaker.fds, frame, ends(1).fds, Pace(100, 0.1, 0))
    assert done.sent < done.due == 10


def test_a_flood_goes_on_beside_and_is_no_message(ends: Connect) -> None:
    speaker, flooder, members = ends(1), ends(1), ends(1)
    heard = 0

    def swallow() -> None:
        nonlocal heard
        while data := flooder.far[0].recv(1 << 20):
            heard += len(data)

    with beside(swallow):
        flood = (flooder.fds[0], b"flood\n" * 1000)
        done = load.paced(speaker.fds, FRAME, members.fds, Pace(100, 0.1, 1.0), flood)
        flooder.near[0].shutdown(socket.SHUT_WR)
    assert done.flooded == heard > 6000
    assert (done.sent, done.delivered) == (10, 0)


# --- joining ---


@contextlib.contextmanager
def listening(backlog: int = 10) -> Iterator[tuple[socket.socket, int]]:
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as listener:
        yield listener, listener.getsockname()[1]


@contextlib.contextmanager
def joined(port: int, hellos: list[bytes], marker: bytes, *, far_away: bool = False) -> Iterator[load.Joined]:
    done = load.join(port, hellos, marker, patience=3, far_away=far_away)
    try:
        yield done
    finally:
        load.close(done.fds)


def test_each_says_its_hello_and_is_in_when_it_hears_so() -> None:
    hellos = [b"ann\n", b"a longer name\n"]
    heard: set[bytes] = set()

    def serve() -> None:
        socks = [listener.accept()[0] for _ in hellos]
        for sock in socks:
            heard.add(sock.recv(100))
            sock.sendall(b"hello and wel")
        time.sleep(0.02)
        for sock in socks:
            sock.sendall(b"come!\n")
        accepted.extend(socks)

    accepted: list[socket.socket] = []
    with listening() as (listener, port), beside(serve), joined(port, hellos, b"welcome") as done:
        assert heard == set(hellos)
        assert done.seconds >= 0.02
    for sock in accepted:
        sock.close()


def test_who_is_sent_away_is_not_in() -> None:
    def serve() -> None:
        listener.accept()[0].close()

    with listening() as (listener, port), beside(serve), pytest.raises(LoadError, match="let in 0 of 1"):
        load.join(port, [b"ann\n"], b"welcome", patience=3)


def test_nobody_is_waited_for_for_ever() -> None:
    with listening() as (_, port), pytest.raises(LoadError, match="let in 0 of 2"):
        load.join(port, [b"ann\n", b"bob\n"], b"welcome", patience=PATIENCE)


def test_whom_a_full_queue_ignores_tries_again_soon() -> None:
    def serve() -> None:
        time.sleep(0.1)
        accepted.extend(listener.accept()[0] for _ in range(6))

    accepted: list[socket.socket] = []
    with listening(1) as (listener, port), beside(serve), joined(port, [b"ann\n"] * 6, b"") as done:
        assert len(done.fds) == 6
        assert done.retried
        assert done.seconds < 0.9  # the kernel's own second try comes after a second
    for sock in accepted:
        sock.close()


def test_a_member_far_away_has_little_memory() -> None:
    with listening() as (listener, port), joined(port, [b"ann\n"], b"", far_away=True), listener.accept()[0] as sock:
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += sock.send(b"x" * 4096, socket.MSG_DONTWAIT)
    assert sent < 256 * 1024


# --- bare writes ---


def test_bare_writes_reach_all(ends: Connect) -> None:
    members = ends(3)
    load.bare_burst(members.fds, b"x" * 1000, 20)
    assert [len(sock.recv(20_000, socket.MSG_WAITALL)) for sock in members.far] == [20_000] * 3


def test_bare_paced_writes_are_as_many_as_asked_for(ends: Connect) -> None:
    members = ends(2)
    load.bare_pace(members.fds, FRAME, 100, 0.1)
    heard = members.far[1].recv(10 * len(FRAME), socket.MSG_WAITALL)
    assert len(heard) == 10 * len(FRAME)
    assert len(set(heard.splitlines())) == 10
