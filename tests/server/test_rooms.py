import gevent
import pytest
from gevent.event import Event
from server.fake_member import FakeMember

from greenchat.errors import Code, Refused
from greenchat.log.log import Audience
from greenchat.log.memory import MemoryLog, MemoryLogs
from greenchat.protocol.codec import encode
from greenchat.protocol.limits import MAX_LINE, MAX_ROOMS, ROOMS_LISTED
from greenchat.server.rooms import LOBBY, Rooms


def test_room_is_one_however_its_name_is_written() -> None:
    rooms = Rooms(MemoryLogs())
    assert rooms.find("Tea") is rooms.find("tea") is not rooms.find("coffee")
    assert rooms.find("") is rooms.find("LOBBY")
    assert rooms.find("").name == LOBBY


def test_rooms_with_somebody_are_counted() -> None:
    rooms = Rooms(MemoryLogs())
    rooms.find("empty")
    for name, room in (("ann", "tea"), ("bob", "tea"), ("cat", "")):
        rooms.find(room).join(FakeMember(name))
    assert rooms.counts() == (("lobby", 1), ("tea", 2))


def test_many_rooms_are_told_in_several_records_each_of_which_fits() -> None:
    rooms = Rooms(MemoryLogs())
    for number in range(3 * ROOMS_LISTED - 1):
        rooms.find("\U0001f600" * 29 + str(number)).join(FakeMember("ann"))
    told = list(rooms.listed(rooms.counts()))
    assert [(len(each.rooms), each.more) for each in told] == [
        (ROOMS_LISTED, 2 * ROOMS_LISTED - 1),
        (ROOMS_LISTED, ROOMS_LISTED - 1),
        (ROOMS_LISTED - 1, 0),
    ]
    assert all(len(encode(each)) <= MAX_LINE for each in told)


def test_no_room_is_told_in_one_record() -> None:
    (told,) = Rooms.listed(())
    assert (told.rooms, told.more) == ((), 0)


class Stuck(MemoryLogs):
    """Logs that take long to open."""

    def __init__(self) -> None:
        super().__init__()
        self.may_open = Event()

    def open(self, room: str, audience: Audience) -> MemoryLog:
        if room != "lobby":
            self.may_open.wait()
        return super().open(room, audience)


def test_nobody_waits_for_a_room_that_others_open() -> None:
    logs = Stuck()
    rooms = Rooms(logs)
    opening = [gevent.spawn(rooms.find, name) for name in ("tea", "Tea", "coffee")]
    gevent.idle()
    with gevent.Timeout(1):
        assert rooms.find("") is rooms.find("")
    assert not any(each.ready() for each in opening)
    logs.may_open.set()
    tea, same, coffee = (each.get(timeout=1) for each in opening)
    assert tea is same is not coffee


def test_rooms_are_bounded_and_the_one_left_longest_ago_is_forgotten() -> None:
    rooms = Rooms(MemoryLogs())
    first, second = rooms.find("0"), rooms.find("1")
    for number in range(2, MAX_ROOMS):
        rooms.find(str(number)).join(FakeMember("ann"))
    second.join(FakeMember("bob"))
    rooms.find("one more").join(FakeMember("cat"))
    assert rooms.find("1") is second
    with pytest.raises(Refused) as refused:
        rooms.find("0")
    assert refused.value.code == Code.TOO_MANY_ROOMS
    assert first.name == "0"
