import contextlib
import socket
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from benchmarks import load
from benchmarks.crowd import SIZE, BareWrites, Crowd
from benchmarks.load import LoadError
from benchmarks.peers import GREENCHAT, PEERS, Server

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there is no epoll"),
    pytest.mark.skipif(load.compiler() is None, reason="there is no C compiler"),
]


@contextlib.contextmanager
def room(members: int, hand_out: Callable[[int, bytes], bytes]) -> Iterator[Crowd]:
    """A room as simple as can be: who comes first speaks, and hears nothing."""

    def serve() -> None:
        socks = [listener.accept()[0] for _ in range(members + 1)]
        lines = socks[0].makefile("rb")
        lines.readline()
        for sock in socks[1:]:
            sock.recv(100)
        for n, line in enumerate(lines):
            for sock in socks[1:]:
                sock.sendall(hand_out(n, line))
        lines.close()
        for sock in socks:
            sock.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with Crowd(PEERS[GREENCHAT], Server(0, listener.getsockname()[1])) as crowd:
            crowd.grow(members)
            yield crowd
        thread.join(5)


def test_members_of_greenchat_hear_bursts_and_paced_messages() -> None:
    peer = PEERS[GREENCHAT]
    with peer.running() as server, Crowd(peer, server) as crowd:
        crowd.grow(2)
        crowd.hears_exactly(200)
        assert crowd.burst(1000).seconds > 0
        assert crowd.paced(200, 0.05).delivered == 20
        assert crowd.usage().cpu > 0


def test_a_flood_to_members_of_greenchat_and_more_members() -> None:
    peer = PEERS[GREENCHAT]
    with peer.running() as server, Crowd(peer, server, speakers=3) as crowd:
        crowd.grow(2)
        done, flooded = crowd.flooded(200, 0.05, 2)
        assert done.delivered == 20
        assert flooded > 0
        assert crowd.fill(3) > 0
        assert len(crowd.members) == 5


def test_members_that_hear_all_hear_exactly() -> None:
    with room(2, lambda _, line: line) as crowd:
        crowd.hears_exactly(50)


@pytest.mark.parametrize(
    "hand_out",
    [
        lambda n, line: line * (1 + (n == 20)),
        lambda n, line: line * (n != 20),
        lambda n, line: b"00000030" + line[8:] if n == 20 else line,
        lambda n, line: line[:-2] + b"\n" if n == 20 else line,
    ],
    ids=["twice", "lost", "in place of another", "not whole"],
)
def test_a_message_that_is_not_as_it_was_said_is_found(
    hand_out: Callable[[int, bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.crowd.PATIENCE", 0.3)
    with room(1, hand_out) as crowd, pytest.raises(LoadError, match="a member heard"):
        crowd.hears_exactly(50)


def test_bare_writes_are_what_was_asked_for() -> None:
    with BareWrites() as writes:
        writes.grow(2)
        writes.grow(4)
        assert writes.burst(2000).seconds > 0
        done = writes.paced(200, 0.05)
        assert (done.sent, done.delivered) == (10, 40)
        writes.calm()
        assert load.drain(writes.members, 0.02, 1) == ([0] * 4, 0)
        assert SIZE == 64
