"""What every implementation of a log does."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from log.helpers import Audience, everything, opened, say
from redis_server import RedisServer

from greenchat.backplane.node import Node
from greenchat.log.durable import DurableLogs
from greenchat.log.log import Entry, Logs
from greenchat.log.memory import MemoryLogs
from greenchat.protocol.limits import CATCH_UP_SIZE, TAIL_LINES


@pytest.fixture
def memory() -> Iterator[Logs]:
    with contextlib.closing(MemoryLogs()) as made:
        yield made


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[Logs]:
    with contextlib.closing(DurableLogs(tmp_path)) as made:
        yield made


@pytest.fixture
def shared(redis: RedisServer) -> Iterator[Logs]:
    with contextlib.closing(Node(redis.url)) as node:
        node.start()
        for name in ("ann", "bob", *(f"n{number}" for number in range(7))):
            node.leases.claim(name, name, "", print)
        yield node.logs


@pytest.fixture(params=["memory", "durable", "shared"])
def logs(request: pytest.FixtureRequest) -> Logs:
    made: Logs = request.getfixturevalue(request.param)
    return made


def test_new_log_is_empty(logs: Logs) -> None:
    log = opened(logs)
    assert (log.position, log.begin, everything(log), log.settle("ann")) == (0, 0, [], None)


def test_what_is_appended_is_placed_in_order_and_can_be_read(logs: Logs) -> None:
    audience = Audience()
    log = logs.open("lobby", audience)
    log.append("ann", b"ann: 1\nann: 2\n", 2, 2)
    log.append("bob", b"bob: 1\n", 1, 0)
    log.settle("")
    assert audience.placed == [Entry(2, 2, b"ann: 1\nann: 2\n", "ann", 2), Entry(3, 1, b"bob: 1\n", "bob", 0)]
    assert log.read(0) == audience.placed
    assert (log.position, log.begin) == (3, 0)


@pytest.mark.parametrize("lines", [1, 3, 1000])
def test_order_of_what_is_appended_is_the_order_of_the_log(logs: Logs, lines: int) -> None:
    audience = Audience()
    log = logs.open("lobby", audience)
    blocks = [b"".join(b"%d.%d\n" % (number, line) for line in range(lines)) for number in range(200)]
    for number, block in enumerate(blocks):
        log.append(f"n{number % 7}", block, lines, 0)
    logs.wait(0)
    assert [entry.block for entry in audience.placed] == blocks
    assert [entry.position for entry in audience.placed] == [lines * (number + 1) for number in range(200)]
    said = b"".join(blocks).split(b"\n")[:-1]
    assert [line for _, line in everything(log)] == said[log.begin :]


def test_log_is_read_from_within_a_block(logs: Logs) -> None:
    log = opened(logs)
    say(log, b"a", b"", b"c")
    assert everything(log, 1) == [(2, b""), (3, b"c")]


def test_much_is_read_in_parts(logs: Logs) -> None:
    log = opened(logs)
    for number in range(10):
        say(log, b"%d" % number * (CATCH_UP_SIZE // 2))
    assert [entry.position for entry in log.read(3)] == [4, 5]


def test_log_knows_how_much_was_said_by_those_with_a_session(logs: Logs) -> None:
    log = opened(logs)
    say(log, b"x", origin="ann", said=7)
    say(log, b"x", origin="bob", said=3)
    assert (log.settle("ann"), log.settle("bob"), log.settle("cat")) == (7, 3, None)


def test_logs_are_apart(logs: Logs) -> None:
    tea, coffee = opened(logs, "tea"), opened(logs, "coffee")
    say(tea, b"1")
    say(coffee, b"2", b"3")
    assert (everything(tea), everything(coffee)) == ([(1, b"1")], [(1, b"2"), (2, b"3")])


def test_many_lines_are_kept(logs: Logs) -> None:
    log = opened(logs)
    for number in range(TAIL_LINES // 64):
        say(log, *(b"%d" % (64 * number + line) for line in range(64)))
    assert everything(log) == [(number + 1, b"%d" % number) for number in range(TAIL_LINES)]


def test_room_whose_members_are_behind_holds_up_no_other(logs: Logs) -> None:
    slow = Audience()
    noise, quiet = logs.open("noise", slow), opened(logs, "quiet")
    slow.has_much = True
    slow.caught_up.clear()
    blocks = [b"%d\n" % number for number in range(20)]
    for block in blocks[:10]:
        noise.append("ann", block, 1, 0)
    say(quiet, b"hello", origin="bob")
    slow.caught_up.set()
    for block in blocks[10:]:
        noise.append("ann", block, 1, 0)
    noise.settle("")
    assert [entry.block for entry in slow.placed] == blocks


def test_nothing_waits_when_all_is_placed(logs: Logs) -> None:
    log = opened(logs)
    say(log, b"x")
    logs.wait(0)
    log.settle("")
    logs.settle(0.001)
