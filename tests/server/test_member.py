"""Coming back: positions, acknowledgements, what was missed; rooms; and messages to one alone."""

import json

import gevent
import pytest
from conftest import People, Wire, reset, until
from gevent import socket
from peers import sha256

from greenchat import ChatServer
from greenchat.errors import Code, sentence
from greenchat.protocol import records
from greenchat.protocol.codec import encode
from greenchat.protocol.limits import MAX_LINE, MAX_RECORD, TAIL_LINES
from greenchat.protocol.records import Ack, Error, Hello, List, Ping, Pong, Private, Rooms, Undelivered, Welcome
from greenchat.protocol.text import safe_line

SECRET = "a secret of its own"


def placed(people: People, position: int) -> None:
    """Return once the lobby has so many lines."""
    until(lambda: people._server._rooms.find("").log.position == position)


class Lines:
    """A client with a session, by hand: it knows its position, and what of its own was placed."""

    def __init__(self, people: People, name: str, room: str = "", history: int = 0) -> None:
        self._people, self._name, self._room = people, name, room
        self.session = sha256(f"{SECRET}: {name}".encode())
        self.epoch, self.position, self.said = "", 0, 0
        self.connect(history)

    def connect(self, history: int = 0) -> Welcome:
        self.wire = self._people.wire()
        self.wire.tell(
            Hello(1, self._name, 0, "", "", self._room, history, self.session, self.epoch, self.position, self.said)
        )
        welcome = self.wire.record(Welcome)
        self.epoch, self.position, self.said = welcome.epoch, welcome.position, welcome.said
        return welcome

    def hears(self, *lines: bytes) -> None:
        for line in lines:
            assert self.wire.line() == line
            self.position += 1

    def is_told(self, lines: int, said: int) -> None:
        assert self.wire.record(Ack) == Ack(lines, said)
        self.position += lines
        self.said = said

    def lost(self) -> None:
        reset(self.wire.sock)

    def says(self, *lines: bytes) -> None:
        self.wire.send(b"".join(line + b"\n" for line in lines))


def test_own_lines_come_back_as_acknowledgements_at_their_place(people: People) -> None:
    ann, bob = Lines(people, "ann"), people.member("bob")
    bob.send(b"1\n")
    ann.hears(b"bob: 1")
    ann.says(b"2", b"3")
    ann.is_told(2, 2)
    bob.send(b"4\n")
    ann.hears(b"bob: 4")
    assert ann.position == 4
    assert [bob.line() for _ in range(2)] == [b"ann: 2", b"ann: 3"]


def test_who_has_no_session_is_told_of_no_position(people: People) -> None:
    ann = people.wire()
    ann.tell(Hello(1, "ann", 0))
    assert ann.line() == b'\x01{"t":"welcome","v":1,"name":"ann"}'
    ann.send(b"hi\n")
    bob = people.member("bob")
    bob.send(b"you?\n")
    assert ann.line() == b"bob: you?"


def test_who_comes_back_hears_what_it_missed_once_and_in_order(people: People) -> None:
    ann, bob = Lines(people, "ann"), people.member("bob")
    bob.send(b"1\n")
    ann.hears(b"bob: 1")
    ann.lost()
    for number in range(2, 50):
        bob.send(b"%d\n" % number)
    ann.connect()
    ann.hears(*(b"bob: %d" % number for number in range(2, 50)))
    ann.says(b"back")
    ann.is_told(1, 1)
    assert ann.position == 50
    assert bob.line() == b"ann: back"


def test_what_it_said_before_it_was_lost_is_acknowledged_when_it_is_back(people: People) -> None:
    ann, bob = Lines(people, "ann"), people.member("bob")
    ann.says(b"1", b"2")
    assert [bob.line() for _ in range(2)] == [b"ann: 1", b"ann: 2"]
    bob.send(b"3\n")
    ann.lost()
    assert ann.said == 0
    welcome = ann.connect()
    assert welcome.said == 2  # so it need not say that again
    ann.is_told(2, 2)
    ann.hears(b"bob: 3")


def test_one_that_comes_back_takes_its_own_place_though_its_loss_was_not_noticed(people: People) -> None:
    ann, bob = Lines(people, "ann"), people.member("bob")
    before = ann.wire
    bob.send(b"1\n")
    ann.hears(b"bob: 1")
    ann.connect()
    assert before.record(Error).code == Code.TAKEN_OVER
    before.send(b"from the grave\n")
    bob.send(b"2\n")
    ann.hears(b"bob: 2")


def attempt_of(people: People, number: int) -> Wire:
    """A connection that ann's client tries."""
    wire = people.wire()
    wire.tell(Hello(1, "ann", 0, session="s", attempt=number))
    return wire


@pytest.mark.attack(43)
@pytest.mark.parametrize("late", [0, 1, 4])
def test_attempt_that_is_out_of_date_is_refused_and_the_later_one_not_disturbed(people: People, late: int) -> None:
    live, bob = attempt_of(people, 5), people.member("bob")
    live.record(Welcome)
    assert attempt_of(people, late).record(records.Refused).code == Code.NAME_TAKEN
    bob.send(b"hi\n")
    assert live.line() == b"bob: hi"


@pytest.mark.attack(43)
def test_connection_that_has_ended_takes_nothing_over(people: People) -> None:
    """Also from a client that does not number its attempts."""
    live, bob = attempt_of(people, 0), people.member("bob")
    live.record(Welcome)
    stale = attempt_of(people, 0)
    stale.sock.shutdown(socket.SHUT_WR)  # before the server had a turn
    assert stale.record(records.Refused).code == Code.NAME_TAKEN
    bob.send(b"hi\n")
    assert live.line() == b"bob: hi"


def test_later_attempt_takes_over(people: People) -> None:
    first = attempt_of(people, 1)
    first.record(Welcome)
    attempt_of(people, 2).record(Welcome)
    assert first.record(Error).code == Code.TAKEN_OVER


def test_name_of_another_session_is_taken(people: People) -> None:
    Lines(people, "ann")
    eve = people.wire()
    eve.tell(Hello(1, "ann", 0, session="another"))
    assert b"name-taken" in eve.line()


def test_new_epoch_begins_anew_with_all_that_there_is(people: People) -> None:
    bob = people.member("bob")
    bob.send(b"1\n2\n")
    ann = Lines(people, "ann")
    placed(people, 2)
    ann.lost()
    ann.epoch, ann.position, ann.said = "of another server", 700, 5
    welcome = ann.connect()
    assert (welcome.position, welcome.said) == (0, 5)
    ann.hears(b"bob: 1", b"bob: 2")
    ann.says(b"3")
    ann.is_told(1, 6)


def test_who_was_away_for_too_long_is_told_from_where_it_goes_on(people: People) -> None:
    ann, bob = Lines(people, "ann"), people.member("bob")
    ann.lost()
    for begin in range(0, 2 * TAIL_LINES, 64):
        bob.send(b"".join(b"%d\n" % number for number in range(begin, begin + 64)))
        placed(people, begin + 64)
    begin = ann.connect().position
    assert TAIL_LINES - 64 <= begin <= TAIL_LINES
    ann.hears(*(b"bob: %d" % number for number in range(begin, 2 * TAIL_LINES)))


def test_position_that_never_was_is_the_last(people: People) -> None:
    ann = Lines(people, "ann")
    ann.lost()
    ann.position = 2**48
    assert ann.connect().position == 0


def test_history_is_heard_by_who_asks_for_it(people: People) -> None:
    bob = people.member("bob")
    bob.send(b"1\n2\n3\n")
    placed(people, 3)
    ann = Lines(people, "ann", history=2)
    ann.hears(b"bob: 2", b"bob: 3")
    assert ann.position == 3
    cat = people.wire()
    cat.tell(Hello(1, "cat", 0, history=9))
    cat.record(Welcome)
    assert [cat.line() for _ in range(3)] == [b"bob: 1", b"bob: 2", b"bob: 3"]


def test_much_that_was_missed_makes_nobody_a_slow_consumer(people: People) -> None:
    bob = people.member("bob")
    ann = Lines(people, "ann")
    ann.lost()
    block = b"x" * 7000 + b"\n"
    for _ in range(400):
        bob.send(block)
    placed(people, 400)
    ann.connect()
    gevent.sleep(0.05)  # it does not read yet
    bob.send(b"live\n")
    ann.hears(*[b"bob: " + block[:-1]] * 400, b"bob: live")


def test_rooms_are_apart_and_names_are_not(people: People) -> None:
    ann, bob = Lines(people, "ann", "Tea"), Lines(people, "bob", "tea")
    cat = people.member("cat")
    ann.says(b"one lump or two?")
    bob.hears(b"ann: one lump or two?")
    cat.send(b"hello\n")
    cat.tell(Ping())
    cat.record(Pong)
    cat.tell(List())
    assert cat.record(Rooms) == Rooms((("lobby", 1), ("Tea", 2)), 0)
    eve = people.wire()
    eve.tell(Hello(1, "ann", 0, room="another"))
    assert b"name-taken" in eve.line()


def test_session_is_of_one_name_and_one_room(people: People) -> None:
    ann = Lines(people, "ann")
    ann.says(b"1")
    ann.is_told(1, 1)
    ann.lost()
    ann._room, ann.epoch, ann.said = "tea", "", 0
    assert ann.connect().said == 0


@pytest.mark.parametrize("room", ["x" * 33, "a:b", "\x1b[31m"])
def test_row_02_room_of_no_good_name_is_refused(people: People, room: str) -> None:
    wire = people.wire()
    wire.tell(Hello(1, "ann", 0, room=room))
    assert b"bad-name" in wire.line()


# --- messages to one alone --------------------------------------------------------------------


def private(wire: Wire, who: str, text: str) -> None:
    wire.tell(Private(who, text))


def test_private_message_reaches_one_alone(people: People) -> None:
    ann, bob, cat = people.member("ann"), people.member("bob"), people.member("cat")
    private(ann, "BOB", "hi \x1b[31m\nthere")
    assert bob.record(Private) == Private("ann", "hi \u241b[31m\u240athere")
    ann.send(b"all\n")
    assert bob.line() == cat.line() == b"ann: all"


def test_private_message_crosses_rooms(people: People) -> None:
    ann, bob = Lines(people, "ann", "tea"), people.member("bob")
    private(bob, "ann", "hi")
    assert ann.wire.record(Private) == Private("bob", "hi")


@pytest.mark.parametrize("who", ["nobody", "guest"])
def test_private_message_to_who_cannot_be_told_comes_back(people: People, who: str) -> None:
    people.wire(b"guest\n")
    ann = people.member("ann")
    until(lambda: people._server._rooms.counts() == (("lobby", 2),))
    private(ann, who, "hi")
    told = ann.record(Undelivered)
    assert (told.who, told.code) == (who, Code.UNKNOWN_USER)


@pytest.mark.parametrize("who", ["", "x" * 500, "é" * 1500])
def test_what_can_be_no_name_is_not_repeated(people: People, who: str) -> None:
    ann = people.member("ann")
    ann.send(b'\x01{"t":"private","who":"%s","text":"hi"}\n' % who.encode())  # as JSON may be, without escapes
    assert ann.record(Undelivered) == Undelivered("", Code.UNKNOWN_USER, sentence(Code.UNKNOWN_USER))


def test_private_message_that_becomes_too_long_comes_back(people: People) -> None:
    ann, _bob = people.member("ann"), people.member("bob")
    ann.send(b'\x01{"t":"private","who":"bob","text":"' + "\x9b".encode() * 3000 + b'"}\n')
    assert ann.record(Undelivered).code == Code.LINE_TOO_LONG


@pytest.mark.parametrize("text", ["ж" * 1400, "ж" * 4000, "名" * 2700, "\U0001f44d" * 2000, "'" * 8000])
@pytest.mark.parametrize("escaped", [False, True])
def test_private_message_is_delivered_whatever_its_letters(people: People, text: str, *, escaped: bool) -> None:
    ann, bob = people.member("ann"), people.member("bob")
    line = {"t": "private", "who": "bob", "text": text[: 600 if escaped else None]}
    ann.send(b"\x01" + json.dumps(line, ensure_ascii=escaped).encode() + b"\n")
    assert bob.record(Private) == Private("ann", line["text"])


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("letter", ["x", "ж", "名", "\U0001f44d", '"', "\\", "\u009b"])
def test_private_message_may_be_as_long_as_any_other(people: People, letter: str, *, ascii_only: bool) -> None:
    ann, bob = (people.wire(encode(Hello(1, name, 0, record=MAX_RECORD))) for name in ("ann", "bob"))
    for wire in ann, bob:
        assert wire.record(Welcome).record == MAX_RECORD
    text = letter * (MAX_LINE // len(letter.encode()))
    line = json.dumps({"t": "private", "who": "bob", "text": text}, ensure_ascii=ascii_only)
    ann.send(b"\x01" + line.encode() + b"\n")
    assert bob.record(Private) == Private("ann", safe_line(text))
    ann.send(encode(Private("bob", text + "xxxx"), MAX_RECORD))
    assert ann.record(Undelivered).code == Code.LINE_TOO_LONG


def test_private_flood_makes_nobody_a_slow_consumer(people: People, server: ChatServer) -> None:
    ann, bob = people.member("ann"), people.member("bob")

    def flood() -> None:
        for _ in range(1500):
            private(ann, "bob", "x" * 7000)

    flooding = gevent.spawn(flood)
    assert ann.record(Undelivered).code == Code.TOO_MANY
    flooding.kill()
    ann.close()
    until(lambda: {session.name for session in server._sessions} == {"bob"})
    assert bob.record(Private).who == "ann"


@pytest.mark.parametrize("said", [2**48 + 1, 2**63 - 1])
def test_row_27_nobody_has_said_so_much(people: People, said: int) -> None:
    wire = people.wire()
    wire.tell(Hello(1, "ann", 0, session="s", said=said))
    assert b"bad-record" in wire.line()


def test_row_27_who_claims_to_have_said_as_much_as_can_be_harms_nobody(people: People) -> None:
    bob = people.member("bob")
    ann = people.wire()
    ann.tell(Hello(1, "ann", 0, session="s", said=2**48))
    assert ann.record(Welcome).said == 2**48
    ann.send(b"1\n2\n")
    assert ann.record(Ack) == Ack(2, 2**48 + 2)
    assert [bob.line() for _ in range(2)] == [b"ann: 1", b"ann: 2"]
