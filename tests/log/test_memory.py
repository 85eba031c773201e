from log.helpers import Audience, opened, say

from greenchat.log.log import Entry
from greenchat.log.memory import MemoryLogs
from greenchat.protocol.limits import MAX_SPEAKERS


def test_what_is_appended_is_placed_at_once() -> None:
    audience = Audience()
    MemoryLogs().open("lobby", audience).append("ann", b"x\n", 1, 3)
    assert audience.placed == [Entry(1, 1, b"x\n", "ann", 3)]


def test_speakers_are_bounded() -> None:
    log = opened(MemoryLogs())
    for number in range(MAX_SPEAKERS + 1):
        say(log, b"x", origin=str(number), said=1)
    assert (log.settle("0"), log.settle("1"), log.settle(str(MAX_SPEAKERS))) == (None, 1, 1)


def test_log_that_is_opened_again_begins_anew() -> None:
    logs = MemoryLogs()
    first = opened(logs)
    say(first, b"x")
    second = opened(logs)
    assert (second.epoch != first.epoch, second.position) == (True, 0)
