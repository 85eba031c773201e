import pytest
from log.helpers import Audience

from greenchat.errors import Code, Refused
from greenchat.log.log import Entry
from greenchat.log.memory import MemoryLog, MemoryLogs
from greenchat.protocol.limits import MAX_HISTORY
from greenchat.protocol.records import Hello
from greenchat.server.resume import new_origin, origin_of, replay, resume_position


def hello(name: str = "ann", room: str = "", session: str = "s") -> Hello:
    return Hello(1, name, 0, room=room, session=session)


def filled(lines: int, begin: int = 0) -> MemoryLog:
    log = MemoryLogs().open("lobby", Audience())
    for number in range(lines):
        log.append("bob", b"%d\n" % number, 1, 0)
    for _ in range(begin):
        log._tail._drop()
    return log


def test_one_is_the_same_whatever_the_spelling_of_its_name_and_room() -> None:
    assert origin_of(hello()) == origin_of(hello("ANN")) != origin_of(hello("bob"))
    assert origin_of(hello(room="Tea")) == origin_of(hello(room="tea")) != origin_of(hello())
    assert origin_of(hello()) != origin_of(hello(session="t"))


def test_origin_does_not_tell_the_secret() -> None:
    assert "secret" not in origin_of(hello(session="secret"))
    assert new_origin() != new_origin()


@pytest.mark.parametrize(
    ("asked", "position"),
    [
        ({}, 50),
        ({"history": 7}, 43),
        ({"history": 90}, 10),
        ({"history": MAX_HISTORY + 1}, 10),
        ({"epoch": "same", "position": 30}, 30),
        ({"epoch": "same", "position": 3}, 10),
        ({"epoch": "same", "position": 60}, 50),
        ({"epoch": "same", "position": 30, "history": 40}, 30),
        ({"epoch": "other", "position": 30}, 10),
    ],
)
def test_it_goes_on_where_it_was_as_far_as_there_is_anything(asked: dict[str, object], position: int) -> None:
    log = filled(50, begin=10)
    log.epoch = "same"
    hello = Hello(1, "ann", 0, **asked)  # type: ignore[arg-type]  # as they are named there
    assert resume_position(log, hello, grace=50) == position


@pytest.mark.parametrize(("asked", "position"), [({}, 45), ({"history": 3}, 45), ({"history": 7}, 43)])
def test_new_one_hears_the_last_moments_too(asked: dict[str, int], position: int) -> None:
    assert resume_position(filled(50), Hello(1, "ann", 0, **asked), grace=45) == position  # type: ignore[arg-type]  # the same


def test_one_that_comes_back_hears_nothing_twice() -> None:
    log = filled(50)
    assert resume_position(log, Hello(1, "ann", 0, epoch=log.epoch, position=48), grace=45) == 48


def test_what_was_missed_is_told_to_its_end_though_more_comes_meanwhile() -> None:
    log, told = filled(3), list[Entry]()
    for entries in replay(log, 1):
        told += entries
        if log.position < 6:
            log.append("bob", b"more\n", 1, 0)
    assert [entry.position for entry in told] == [2, 3, 4, 5, 6]


def test_gap_is_no_way_to_go_on() -> None:
    with pytest.raises(Refused) as refused:
        list(replay(filled(50, begin=30), 20))
    assert refused.value.code == Code.SLOW_CONSUMER
