from collections.abc import Iterator

import pytest
from conftest import People, Wire, hello, until

from greenchat import ChatServer
from greenchat.log.log import Entry
from greenchat.protocol.limits import JOIN_GRACE_SIZE
from greenchat.protocol.records import Hello, Welcome
from greenchat.server.grace import JoinGrace


class Timeline:
    """A grace of two seconds, and lines at times of its own."""

    def __init__(self) -> None:
        self.now, self.position = 100.0, 0
        self.grace = JoinGrace(2, lambda: self.now)

    def line(self, at: float, size: int = 10) -> None:
        self.now = at
        self.position += 1
        self.grace.note(Entry(self.position, 1, b"x" * size, "ann", 0))

    def begin(self, at: float) -> int:
        self.now = at
        return self.grace.begin(self.position)


@pytest.fixture
def timeline() -> Timeline:
    return Timeline()


def test_lines_of_the_last_moments_are_new(timeline: Timeline) -> None:
    for at in (100, 101, 102, 103):
        timeline.line(at)
    assert [timeline.begin(at) for at in (103, 103.5, 104.5, 106)] == [1, 2, 3, 4]


def test_nothing_is_new_where_nothing_was_said(timeline: Timeline) -> None:
    assert timeline.begin(100) == 0


def test_no_line_of_the_last_moments_is_left_out_however_many_there_are(timeline: Timeline) -> None:
    times = [100 + number / 1000 for number in range(5000)]
    for at in times:
        timeline.line(at)
    begin = timeline.begin(105)
    assert 2900 <= begin <= 3000
    assert len(timeline.grace._marks) < 50


def test_of_a_flood_the_last_bytes_are_new(timeline: Timeline) -> None:
    for number in range(10):
        timeline.line(100 + number / 10, JOIN_GRACE_SIZE // 4)
    assert timeline.begin(101) == 6
    timeline.line(101.5, JOIN_GRACE_SIZE * 2)
    assert timeline.begin(101.6) == 11


def test_lines_before_the_log_was_opened_are_new_for_as_long(timeline: Timeline) -> None:
    timeline.grace.seed(5, 9)
    timeline.position = 9
    timeline.line(101)
    assert [timeline.begin(at) for at in (101, 102.5, 104)] == [5, 9, 10]


def test_log_that_begins_anew_has_nothing_new(timeline: Timeline) -> None:
    timeline.line(100)
    timeline.grace.clear()
    assert timeline.begin(100) == 1


def test_without_grace_nothing_is_new() -> None:
    grace = JoinGrace(0)
    grace.note(Entry(1, 1, b"x", "ann", 0))
    assert grace.begin(1) == 1


# --- on a server ------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


def placed(people: People, position: int) -> None:
    """Return once the lobby has so many lines, and so ann has left, whose last line came first."""
    until(lambda: people._server._rooms.find("").log.position == position)


def talk(people: People, *lines: bytes, name: str = "ann") -> Wire:
    """Somebody sends *lines*, and bob has heard them."""
    bob, ann = people.wire(b"bob\n"), people.member(name)
    ann.send(b"".join(line + b"\n" for line in lines))
    for line in lines:
        assert bob.line() == name.encode() + b": " + line
    return ann


def test_guest_hears_what_was_just_said_once_and_in_order(people: People) -> None:
    ann = talk(people, b"1", b"2")
    cat = people.wire(b"cat\n")
    assert [cat.line(), cat.line()] == [b"ann: 1", b"ann: 2"]
    ann.send(b"3\n")
    assert cat.line() == b"ann: 3"


def test_client_hears_what_was_just_said_after_its_welcome(people: People) -> None:
    talk(people, b"1", b"2")
    cat = people.wire()
    cat.tell(Hello(1, "cat", 0, session="s"))
    assert cat.record(Welcome).position == 0
    assert [cat.line(), cat.line()] == [b"ann: 1", b"ann: 2"]


def test_nobody_hears_its_own_lines_though_it_has_left_and_come_again(people: People) -> None:
    talk(people, b"1").close()
    people.member("dan").send(b"2\n")
    placed(people, 2)
    for first in (b"Ann\n", hello("Ann")):
        again = people.wire(first)
        if first.startswith(b"\x01"):
            again.record(Welcome)
        assert again.line() == b"dan: 2"
        again.close()


def test_own_lines_of_another_session_count_for_the_position(people: People) -> None:
    talk(people, b"1", b"2").close()
    again = people.wire()
    again.tell(Hello(1, "ann", 0, session="s"))
    assert again.record(Welcome).position == 0
    assert again.line() == b'\x01{"t":"ack","lines":2,"said":0}'


def test_one_that_comes_back_hears_nothing_twice(people: People) -> None:
    ann = talk(people, b"1")
    cat = people.wire()
    cat.tell(Hello(1, "cat", 0, session="s"))
    epoch = cat.record(Welcome).epoch
    assert cat.line() == b"ann: 1"
    cat.close()
    cat = people.wire()
    cat.tell(Hello(1, "cat", 0, session="s", epoch=epoch, position=1, attempt=2))
    assert cat.record(Welcome).position == 1
    ann.send(b"2\n")
    assert cat.line() == b"ann: 2"


def test_history_and_grace_overlap_without_doubles(people: People) -> None:
    talk(people, b"1", b"2", b"3")
    cat = people.wire()
    cat.tell(Hello(1, "cat", 0, history=2))
    cat.record(Welcome)
    assert [cat.line() for _ in range(3)] == [b"ann: 1", b"ann: 2", b"ann: 3"]
