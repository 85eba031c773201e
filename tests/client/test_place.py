import gevent
import pytest

from greenchat.client import place as module
from greenchat.client.place import Place
from greenchat.errors import Code, ProtocolError
from greenchat.protocol.records import Ack, Hello, Welcome

HELLO = Hello(1, "ann", 0)


def welcome(epoch: str, position: int, said: int) -> Welcome:
    return Welcome(1, "ann", epoch, position, said)


@pytest.fixture
def place() -> Place:
    one = Place()
    one.enter(welcome("e", 10, 0))
    return one


def say(place: Place, *lines: bytes) -> None:
    for line in lines:
        place.say(line, wait=False)


def test_first_hello_has_a_session_and_no_position() -> None:
    hello = Place().fill(HELLO)
    assert len(hello.session) == 32
    assert (hello.epoch, hello.position, hello.said) == ("", 0, 0)
    assert hello.session != Place().fill(HELLO).session


def test_every_line_moves_the_position(place: Place) -> None:
    place.hear(5)
    say(place, b"1\n", b"2\n")
    place.acknowledge(Ack(2, 2))
    hello = place.fill(HELLO)
    assert (hello.epoch, hello.position, hello.said) == ("e", 17, 2)


def test_what_was_said_is_taken_once_and_kept_until_it_has_a_place(place: Place) -> None:
    say(place, b"1\n", b"2\n")
    assert place.take() == b"1\n2\n"
    say(place, b"3\n")
    assert place.take() == b"3\n"
    assert place.unplaced == 3
    place.acknowledge(Ack(2, 2))
    assert place.unplaced == 1


def test_what_has_no_place_is_said_again_through_another_connection(place: Place) -> None:
    say(place, b"1\n", b"2\n", b"3\n")
    place.take()
    place.acknowledge(Ack(1, 1))
    assert place.enter(welcome("e", 11, 2)) == 0
    assert place.take() == b"3\n"
    place.acknowledge(Ack(1, 2))  # at its place, which is told again
    assert place.unplaced == 1


def test_messages_that_are_gone_are_counted(place: Place) -> None:
    assert place.enter(welcome("e", 15, 0)) == 5


def test_in_another_epoch_nobody_knows_what_is_gone(place: Place) -> None:
    place.hear(1)
    assert place.enter(welcome("f", 3, 0)) is None
    assert place.fill(HELLO).position == 3


def test_log_that_has_gone_back_is_another(place: Place) -> None:
    """As from a copy that somebody has put in its place: what was acknowledged is lost, and nothing is said twice."""
    say(place, b"1\n", b"2\n", b"3\n")
    place.take()
    place.acknowledge(Ack(2, 2))
    assert place.enter(welcome("e", 10, 0)) is None
    assert place.take() == b"3\n"
    place.acknowledge(Ack(1, 1))
    assert (place.unplaced, place.fill(HELLO).position, place.fill(HELLO).said) == (0, 11, 1)
    assert place.enter(welcome("e", 12, 0)) is None  # what it said is lost, though others have said more


def test_who_says_too_much_waits_or_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNPLACED", 2)
    say(place, b"1\n", b"2\n")
    with pytest.raises(ProtocolError, match="2 messages wait") as full:
        place.say(b"3\n", wait=False)
    assert full.value.code == Code.TOO_MANY
    waiting = gevent.spawn(place.say, b"3\n", wait=True)
    gevent.idle()
    assert not waiting.ready()
    place.acknowledge(Ack(1, 1))
    waiting.get(timeout=5)
    assert place.unplaced == 2


def test_bytes_are_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNPLACED_SIZE", 100)
    say(place, b"x" * 99 + b"\n")
    with pytest.raises(ProtocolError):
        place.say(b"y\n", wait=False)


def test_waiting_goes_on_for_as_long_as_more_and_more_has_a_place(place: Place) -> None:
    say(place, b"1\n", b"2\n", b"3\n")
    waiting = gevent.spawn(place.wait_until_placed, 0.2)
    for number in range(1, 4):
        gevent.sleep(0.15)
        assert not waiting.ready()
        place.acknowledge(Ack(1, number))
    waiting.get(timeout=5)


def test_waiting_until_all_has_a_place_has_an_end(place: Place) -> None:
    place.wait_until_placed(60)
    say(place, b"1\n")
    place.wait_until_placed(0.001)
    waiting = gevent.spawn(place.wait_until_placed, 60)
    gevent.idle()
    assert not waiting.ready()
    place.acknowledge(Ack(1, 1))
    waiting.get(timeout=5)
