import gevent
import pytest

from greenchat.client import resume as module
from greenchat.client.resume import ResumeState
from greenchat.errors import Code, ProtocolError
from greenchat.protocol.records import Ack, Hello, Welcome

HELLO = Hello(1, "ann", 0)


def welcome(epoch: str, position: int, said: int) -> Welcome:
    return Welcome(1, "ann", epoch, position, said)


@pytest.fixture
def state() -> ResumeState:
    one = ResumeState()
    one.enter(welcome("e", 10, 0))
    return one


def say(state: ResumeState, *lines: bytes) -> None:
    for line in lines:
        state.say(line, wait=False)


def test_first_hello_has_a_session_and_no_position() -> None:
    hello = ResumeState().fill(HELLO)
    assert len(hello.session) == 32
    assert (hello.epoch, hello.position, hello.said) == ("", 0, 0)
    assert hello.session != ResumeState().fill(HELLO).session


def test_attempts_of_a_session_are_numbered(state: ResumeState) -> None:
    assert [state.fill(HELLO).attempt for _ in range(3)] == [1, 2, 3]


def test_every_line_moves_the_position(state: ResumeState) -> None:
    state.hear(5)
    say(state, b"1\n", b"2\n")
    state.acknowledge(Ack(2, 2))
    hello = state.fill(HELLO)
    assert (hello.epoch, hello.position, hello.said) == ("e", 17, 2)


def test_what_was_said_is_taken_once_and_kept_until_it_has_a_place(state: ResumeState) -> None:
    say(state, b"1\n", b"2\n")
    assert state.take() == b"1\n2\n"
    say(state, b"3\n")
    assert state.take() == b"3\n"
    assert state.unacknowledged == 3
    state.acknowledge(Ack(2, 2))
    assert state.unacknowledged == 1


def test_what_has_no_place_is_said_again_through_another_connection(state: ResumeState) -> None:
    say(state, b"1\n", b"2\n", b"3\n")
    state.take()
    state.acknowledge(Ack(1, 1))
    assert state.enter(welcome("e", 11, 2)) == 0
    assert state.take() == b"3\n"
    state.acknowledge(Ack(1, 2))  # at its place, which is told again
    assert state.unacknowledged == 1


def test_messages_that_are_gone_are_counted(state: ResumeState) -> None:
    assert state.enter(welcome("e", 15, 0)) == 5


def test_in_another_epoch_nobody_knows_what_is_gone(state: ResumeState) -> None:
    state.hear(1)
    assert state.enter(welcome("f", 3, 0)) is None
    assert state.fill(HELLO).position == 3


def test_log_that_has_gone_back_is_another(state: ResumeState) -> None:
    """As from a copy that somebody has put in its place: what was acknowledged is lost, and nothing is said twice."""
    say(state, b"1\n", b"2\n", b"3\n")
    state.take()
    state.acknowledge(Ack(2, 2))
    assert state.enter(welcome("e", 10, 0)) is None
    assert state.take() == b"3\n"
    state.acknowledge(Ack(1, 1))
    assert (state.unacknowledged, state.fill(HELLO).position, state.fill(HELLO).said) == (0, 11, 1)
    assert state.enter(welcome("e", 12, 0)) is None  # what it said is lost, though others have said more


def test_who_says_too_much_waits_or_is_told(state: ResumeState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNACKNOWLEDGED", 2)
    say(state, b"1\n", b"2\n")
    with pytest.raises(ProtocolError, match="2 messages wait") as full:
        state.say(b"3\n", wait=False)
    assert full.value.code == Code.TOO_MANY
    waiting = gevent.spawn(state.say, b"3\n", wait=True)
    gevent.idle()
    assert not waiting.ready()
    state.acknowledge(Ack(1, 1))
    waiting.get(timeout=5)
    assert state.unacknowledged == 2


def test_bytes_are_bounded(state: ResumeState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNACKNOWLEDGED_SIZE", 100)
    say(state, b"x" * 99 + b"\n")
    with pytest.raises(ProtocolError):
        state.say(b"y\n", wait=False)


def test_waiting_goes_on_for_as_long_as_more_and_more_has_a_place(state: ResumeState) -> None:
    say(state, b"1\n", b"2\n", b"3\n")
    waiting = gevent.spawn(state.wait_until_acknowledged, 1.5)
    for number in range(1, 4):
        gevent.sleep(0.6)  # far less, for a busy machine; three times it is more
        assert not waiting.ready()
        state.acknowledge(Ack(1, number))
    waiting.get(timeout=5)


def test_waiting_until_all_has_a_place_has_an_end(state: ResumeState) -> None:
    state.wait_until_acknowledged(60)
    say(state, b"1\n")
    state.wait_until_acknowledged(0.001)
    waiting = gevent.spawn(state.wait_until_acknowledged, 60)
    gevent.idle()
    assert not waiting.ready()
    state.acknowledge(Ack(1, 1))
    waiting.get(timeout=5)
