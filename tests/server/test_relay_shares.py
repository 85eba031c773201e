"""How the relay's process shares what it has among its pairs."""

import contextlib
import fcntl
import time
from collections import Counter
from collections.abc import Iterator

import gevent
import pytest
from conftest import Wire, _open_descriptors, until
from gevent import socket
from server.pairs import NOISE, WorkerPairs, close_both, hear, say_all, say_until_it_breaks, worker_pairs

from greenchat.protocol.limits import MIN_STEP, PIPE_SIZE, PIPES_SIZE
from greenchat.server import relay_worker
from greenchat.transfer import pump

ANN, BOB, CAT = range(3)


@pytest.fixture
def pumps() -> Iterator[WorkerPairs]:
    with worker_pairs() as pairs:
        yield pairs


# --- pipes ------------------------------------------------------------------------------------


def _pipe_ends() -> int:
    return sum(name.startswith("pipe:") for name in _open_descriptors().values())


def test_pair_that_moves_nothing_has_no_pipe(pumps: WorkerPairs) -> None:
    before = _pipe_ends()
    for _ in range(5):
        pumps.joined()
    pumps.greeted()  # so all have been admitted, and have had their turn
    assert _pipe_ends() == before + 2


@pytest.mark.parametrize("talker", [0, 1], ids=["requester", "owner"])
def test_way_that_never_carries_anything_has_no_pipe(pumps: WorkerPairs, talker: int) -> None:
    before, ends = _pipe_ends(), pumps.joined()
    for _ in range(3):
        hear(ends[talker], ends[1 - talker])
    assert _pipe_ends() == before + 2  # both ends of one
    hear(ends[1 - talker], ends[talker])
    assert _pipe_ends() == before + 4


def test_pipe_of_a_way_that_has_ended_is_closed(pumps: WorkerPairs) -> None:
    before = _pipe_ends()
    requester, owner = pumps.greeted()
    owner.sock.shutdown(socket.SHUT_WR)
    assert requester.rest() == b""
    until(lambda: _pipe_ends() == before)
    assert list(pumps.worker._pairs) == [0]


def _pipe_sizes() -> list[int]:
    """Bytes that each pipe has room for."""
    pipes = {name: fd for fd, name in _open_descriptors().items() if name.startswith("pipe:")}
    return [fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) for fd in pipes.values()]


def test_way_that_carries_a_line_keeps_a_small_pipe(pumps: WorkerPairs) -> None:
    """The system grants a user so much for pipes in all, and then gives none over 8 KiB."""
    before = sum(_pipe_sizes())
    requester, owner = pumps.greeted()
    hear(requester, owner)
    assert sum(_pipe_sizes()) - before <= 2 * 64 * 1024


def test_all_pipes_together_are_bounded(pumps: WorkerPairs) -> None:
    bound, data = 2 * PIPE_SIZE, NOISE[:1_000_000]
    pumps.worker._pipes_size = bound
    before, pairs = sum(_pipe_sizes()), []
    for group in range(8):
        pairs.append(pumps.joined(group))
        for requester, owner in pairs:  # those that were there before move on, too
            sending = gevent.spawn(owner.send, data)
            assert requester.exactly(len(data)) == data
            sending.get()
    assert sum(_pipe_sizes()) - before <= bound


# --- fair shares ------------------------------------------------------------------------------


def steps(pumps: WorkerPairs) -> list[tuple[int, int]]:
    """Each running pair's group and step."""
    return sorted((pair.group, pair.step) for pair in pumps.worker._pairs.values())


def shared(pumps: WorkerPairs, *groups: int) -> list[tuple[int, int]]:
    """The steps when so many of each are there."""
    for group in groups:
        pumps.joined(group)
    until(lambda: len(pumps.worker._pairs) == len(groups))
    return steps(pumps)


def test_one_pair_has_all(pumps: WorkerPairs) -> None:
    assert shared(pumps, ANN) == [(ANN, PIPE_SIZE)]


def test_pairs_of_different_groups_have_the_same(pumps: WorkerPairs) -> None:
    assert shared(pumps, ANN, BOB, CAT) == [(group, PIPE_SIZE) for group in (ANN, BOB, CAT)]


def test_group_that_has_more_pairs_has_less_in_each(pumps: WorkerPairs) -> None:
    expected = [(ANN, PIPE_SIZE // 4)] * 4 + [(BOB, PIPE_SIZE)] + [(CAT, PIPE_SIZE // 2)] * 2
    assert shared(pumps, ANN, BOB, CAT, ANN, ANN, CAT, ANN) == expected


def test_group_that_alone_has_many_pairs_has_them_whole(pumps: WorkerPairs) -> None:
    assert shared(pumps, *[ANN] * 5) == [(ANN, PIPE_SIZE)] * 5


def test_share_grows_again_when_others_end(pumps: WorkerPairs) -> None:
    one, *_ = [pumps.greeted(ANN) for _ in range(4)]
    bob = pumps.greeted(BOB)
    assert steps(pumps) == [(ANN, PIPE_SIZE // 4)] * 4 + [(BOB, PIPE_SIZE)]
    close_both(*one)
    until(lambda: steps(pumps) == [(ANN, PIPE_SIZE // 3)] * 3 + [(BOB, PIPE_SIZE)])
    close_both(*bob)
    until(lambda: steps(pumps) == [(ANN, PIPE_SIZE)] * 3)


def test_all_steps_together_are_bounded(pumps: WorkerPairs) -> None:
    pumps.worker._pipes_size = PIPES_SIZE // 16
    found = shared(pumps, *range(20))
    assert {step for _, step in found} == {PIPES_SIZE // 16 // 20}
    assert sum(step for _, step in found) <= PIPES_SIZE // 16


def test_step_is_never_below_the_least(pumps: WorkerPairs) -> None:
    pumps.worker._pipes_size = 0
    assert shared(pumps, ANN, ANN, BOB) == [(ANN, MIN_STEP), (ANN, MIN_STEP), (BOB, MIN_STEP)]


class _Costly:
    """Moves as the best mover does, at such a cost for the relay that all streams wait for it."""

    def __init__(self) -> None:
        self._mover = pump.new_mover()

    @property
    def held(self) -> int:
        return self._mover.held

    def fill(self, source: int, most: int) -> int:
        filled = self._mover.fill(source, most)
        time.sleep(filled / 100_000_000)
        return filled

    def empty(self, sink: int) -> int:
        return self._mover.empty(sink)

    def close(self) -> None:
        self._mover.close()


MANY = 31


def test_group_with_one_stream_gets_far_more_than_one_streams_share(
    pumps: WorkerPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_worker, "new_mover", _Costly)
    pairs = [pumps.joined(ANN) for _ in range(MANY)] + [pumps.joined(BOB)]
    until(lambda: len(pumps.worker._pairs) == len(pairs))
    talking = [gevent.spawn(say_until_it_breaks, owner) for _, owner in pairs]
    reading = [gevent.spawn(_drop_all, requester) for requester, _ in pairs]
    until(lambda: sum(_moved(pumps).values()) > 10_000_000)  # buffers are full
    begun = _moved(pumps)
    until(lambda: sum((_moved(pumps) - begun).values()) > 60_000_000)
    moved = _moved(pumps) - begun
    pumps.stop()
    gevent.joinall(talking + reading)
    assert moved[BOB] > 4 * sum(moved.values()) / len(pairs)


def _moved(pumps: WorkerPairs) -> Counter[int]:
    """Bytes that each group's pairs have moved."""
    moved: Counter[int] = Counter()
    for pair in pumps.worker._pairs.values():
        moved[pair.group] += sum(way.moved for way in pair._ways)
    return moved


def _drop_all(end: Wire) -> None:
    with contextlib.suppress(OSError):
        while end.sock.recv(1_000_000, socket.MSG_TRUNC):
            gevent.sleep(0)


def test_every_stream_of_many_moves(pumps: WorkerPairs) -> None:
    pumps.worker._pipes_size = 0  # as if there were a thousand
    pairs = [pumps.joined(number % 7) for number in range(100)]
    talking = [gevent.spawn(say_all, owner, NOISE[:300_000]) for _, owner in pairs]
    reading = [gevent.spawn(requester.rest) for requester, _ in pairs]
    gevent.joinall(talking, raise_error=True)
    assert all(one.get() == NOISE[:300_000] for one in reading)
    for requester, _ in pairs:
        requester.close()
    assert pumps.told(len(pairs)) == list(range(len(pairs)))
