"""The process that a relay room has: how it begins, what it is spared, and what its end means for the pairs."""

import errno
import os
import resource
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest
from conftest import Wire, _open_descriptors, reset, tcp_pair, until
from gevent import socket
from server.pairs import (
    ANN,
    BOB,
    RoomPairs,
    children,
    close_both,
    code_of,
    end_both,
    ended,
    exchange,
    hear,
    room_pairs,
    runs,
)

from greenchat.errors import Code
from greenchat.server import relay


@pytest.fixture
def pumps() -> Iterator[RoomPairs]:
    with room_pairs() as pairs:
        yield pairs


def test_bytes_are_exact_both_ways_at_once_and_lines_after_them(pumps: RoomPairs) -> None:
    one, other = pumps.joined()
    for _ in range(3):
        exchange(one, other)
        for _ in range(10):
            hear(one, other)
            hear(other, one)
    one.sock.shutdown(socket.SHUT_WR)
    assert other.rest() == b""
    hear(other, one, b"thanks")


def test_process_begins_when_it_is_needed_and_once(pumps: RoomPairs) -> None:
    before = children(os.getpid())
    assert pumps.room._worker is None
    for users in (ANN, BOB):
        assert code_of(pumps.room, users) is None
        pumps.greeted(users)
    assert children(os.getpid()) - before == {pumps.process}


def test_process_says_nothing(pumps: RoomPairs, capfd: pytest.CaptureFixture[str]) -> None:
    end_both(*pumps.greeted())
    reset(pumps.greeted()[0].sock)
    until(pumps.nothing_counts)
    pumps.greeted()
    pumps.room.stop()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("running", [0, 3], ids=["none", "some"])
def test_process_ends_by_itself_when_the_room_stops(
    pumps: RoomPairs, monkeypatch: pytest.MonkeyPatch, running: int
) -> None:
    monkeypatch.setattr(relay, "GOODBYE_SECONDS", 1000)
    pumps.room.start()
    for _ in range(running):
        pumps.greeted()
    pumps.room.stop()
    assert not runs(pumps.process)
    assert pumps.room._worker is not None
    assert pumps.room._worker._process.returncode == 0


def test_process_that_hangs_is_killed_when_the_room_stops(pumps: RoomPairs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "GOODBYE_SECONDS", 0.05)
    one, other = pumps.greeted()
    pumps.halt()
    pumps.room.stop()
    assert not runs(pumps.process)
    assert ended(one)
    assert ended(other)


def test_process_that_has_not_quite_begun_is_killed_when_the_room_stops(
    pumps: RoomPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "GOODBYE_SECONDS", 0.05)
    process = pumps.begun()
    one, other = pumps.joined()
    pumps.room.stop()
    assert not runs(process)
    assert ended(one)
    assert ended(other)


def test_pair_that_is_joined_before_the_process_is_there_is_served(pumps: RoomPairs) -> None:
    pumps.begun()
    one, other = pumps.joined()
    one.send(b"early\n")
    assert pumps.room.running == 1
    pumps.go_on()
    assert other.line() == b"early"
    hear(other, one)


def test_signals_do_not_disturb_the_process(pumps: RoomPairs) -> None:
    one, other = pumps.greeted()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pumps.process, number)
        hear(one, other)
        hear(other, one)


def test_no_signal_of_the_servers_terminal_reaches_the_process(pumps: RoomPairs) -> None:
    pumps.room.start()
    assert os.getsid(pumps.process) == os.getpgid(pumps.process) == pumps.process


@pytest.mark.parametrize("path", [None, ".", ":"], ids=["no path", "dot", "colon"])
def test_nothing_is_imported_from_where_the_server_runs(
    pumps: RoomPairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    for name in ("gevent.py", "struct.py", "sitecustomize.py", "greenchat/__init__.py", "greenchat/server/__init__.py"):
        module = tmp_path / name
        module.parent.mkdir(exist_ok=True)
        module.write_text("open(__file__ + '.imported', 'x')")
    monkeypatch.chdir(tmp_path)
    if path is not None:
        monkeypatch.setenv("PYTHONPATH", path)
    pumps.greeted()
    assert not list(tmp_path.rglob("*.imported"))


def test_row_20_death_of_the_process_ends_its_pairs_and_the_next_has_another(pumps: RoomPairs) -> None:
    pairs = [pumps.greeted(ANN), pumps.greeted(ANN), pumps.greeted(BOB), pumps.joined(BOB)]
    dead = pumps.process
    os.kill(dead, signal.SIGKILL)
    assert all(ended(end) for pair in pairs for end in pair)
    until(pumps.nothing_counts)
    assert code_of(pumps.room) is None
    pumps.greeted()
    assert pumps.process != dead
    assert pumps.room._of == Counter(ANN)
    until(lambda: dead not in children(os.getpid()))


def test_row_20_process_may_die_again_and_again(pumps: RoomPairs) -> None:
    before = set(_open_descriptors())
    for _ in range(3):
        one, other = pumps.greeted()
        os.kill(dead := pumps.process, signal.SIGKILL)
        assert ended(one)
        close_both(one, other)
        until(lambda dead=dead: dead not in children(os.getpid()))  # type: ignore[misc]  # it is a number
        assert pumps.nothing_counts()
        assert set(_open_descriptors()) == before


def _exited(process: int) -> None:
    """Returns when it has, though nobody knows yet."""
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)


def test_row_20_pair_given_to_a_process_that_has_died_unnoticed_ends(pumps: RoomPairs) -> None:
    pumps.greeted(BOB)
    (one, inner), (other, outer) = tcp_pair(), tcp_pair()
    pumps.ends += (ends := (Wire.over(one), Wire.over(other)))
    os.kill(pumps.process, signal.SIGKILL)
    _exited(pumps.process)
    pumps.room.join(ANN, inner.detach(), outer.detach())
    assert pumps.room._of == Counter(BOB)
    assert all(map(ended, ends))
    until(pumps.nothing_counts)


def test_row_20_pair_that_cannot_be_handed_over_ends_and_no_other(
    pumps: RoomPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    going = pumps.greeted(BOB)
    with monkeypatch.context() as patched:
        patched.setattr(socket, "send_fds", _failing(OSError(errno.ETOOMANYREFS, "too many references")))
        one, other = pumps.joined(ANN)
    assert ended(one)
    assert ended(other)
    assert pumps.room._of == Counter(BOB)
    hear(*going)
    hear(*pumps.joined(ANN))


def _failing(error: OSError) -> Callable[..., object]:
    def fail(*_arguments: object, **_options: object) -> object:
        raise error

    return fail


def test_row_20_pairs_that_come_faster_than_the_process_takes_them_are_all_served(pumps: RoomPairs) -> None:
    giving, pairs = _more_than_fit(pumps)
    pumps.go_on()
    gevent.joinall(giving, raise_error=True)
    assert pumps.room.running == len(pairs)
    for one, other in pairs:
        hear(one, other)
        close_both(one, other)
    until(pumps.nothing_counts)


def test_row_20_pair_whose_server_side_is_killed_while_it_waits_for_the_process_counts_for_nothing(
    pumps: RoomPairs,
) -> None:
    giving, pairs = _more_than_fit(pumps)
    gevent.killall(giving)
    pumps.go_on()
    for one, other in pairs:
        close_both(one, other)
    until(pumps.nothing_counts)


def _more_than_fit(pumps: RoomPairs) -> "tuple[list[gevent.Greenlet[..., None]], list[tuple[Wire, Wire]]]":
    """Pairs that are being given to a process that takes none; the last of them wait for it."""
    pumps.begun()
    assert pumps.room._worker is not None
    pumps.room._worker._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    giving, pairs = [], []
    for _ in range(20):
        (one, inner), (other, outer) = tcp_pair(), tcp_pair()
        pairs.append((Wire.over(one), Wire.over(other)))
        pumps.ends += pairs[-1]
        giving.append(gevent.spawn(pumps.room.join, ANN, inner.detach(), outer.detach()))
    gevent.sleep(0)
    return giving, pairs


@pytest.mark.parametrize(
    ("which", "number"), [("Popen", errno.EAGAIN), ("Popen", errno.ENOMEM), ("socketpair", errno.EMFILE)]
)
def test_room_whose_process_cannot_begin_is_busy_and_tries_again_next_time(
    pumps: RoomPairs, monkeypatch: pytest.MonkeyPatch, which: str, number: int
) -> None:
    before = set(_open_descriptors())
    with monkeypatch.context() as patched:
        where = subprocess if which == "Popen" else socket
        patched.setattr(where, which, _failing(OSError(number, "no more")))
        assert [code_of(pumps.room) for _ in range(2)] == [Code.RELAY_BUSY] * 2
    assert set(_open_descriptors()) == before
    assert code_of(pumps.room) is None
    pumps.greeted()


@pytest.mark.parametrize("free", range(4))
def test_row_20_process_that_is_out_of_descriptors_ends_the_pair_and_no_other(pumps: RoomPairs, free: int) -> None:
    """With none or one it does not get both sockets; with two or three it has no pipe for them."""
    going = pumps.greeted(BOB)
    limits = resource.prlimit(pumps.process, resource.RLIMIT_NOFILE)
    before = _descriptors(pumps.process)
    resource.prlimit(pumps.process, resource.RLIMIT_NOFILE, (_limit(before, free), limits[1]))
    one, other = pumps.joined(ANN)
    one.send(b"x")
    assert ended(other)
    assert ended(one)
    until(lambda: pumps.room._of == Counter(BOB))
    hear(going[1], going[0])
    assert _descriptors(pumps.process) == before
    resource.prlimit(pumps.process, resource.RLIMIT_NOFILE, limits)
    hear(*pumps.joined(ANN))


def _descriptors(process: int) -> set[int]:
    return {int(fd.name) for fd in Path(f"/proc/{process}/fd").iterdir()}


def _limit(used: set[int], free: int) -> int:
    """The number below which *free* descriptors are."""
    return max(most for most in range(len(used) + free + 1) if len({*range(most)} - used) == free)
