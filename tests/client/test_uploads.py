"""Files that are served: to whoever shows a ticket, and to nobody else."""

import os
from pathlib import Path

import gevent
import pytest
from client.owners import LARGE, Alone, Serving, taken
from conftest import Stub, Wire, hello, until
from gevent import socket

from greenchat import Served
from greenchat.client import uploads
from greenchat.errors import Code, ServerGone
from greenchat.protocol.codec import encode
from greenchat.protocol.records import Dial, File, Go, Have, Pull, Relay, Sorry, Want
from greenchat.transfer import pump
from greenchat.transfer.digest import ALGORITHMS

# --- who shows a ticket gets the file ---------------------------------------------------------


@pytest.mark.parametrize(("file", "content"), [("file", b"hello"), ("large", LARGE)], ids=["small", "large"])
def test_ticket_gets_the_file_directly(serving: Serving, file: str, content: bytes) -> None:
    take = serving.grants(file)
    assert take.size == len(content)
    assert take.direct == (("127.0.0.1", serving.client.listen),)
    assert take.algorithms == ALGORITHMS
    assert taken(serving.pulls(take.ticket)) == content
    until(lambda: serving.served)
    assert serving.served == [Served("ann", file, len(content), None)]


def test_ticket_gets_the_file_through_the_relay(serving: Serving) -> None:
    take = serving.grants()
    end = serving.joins(take)
    end.tell(Pull(take.ticket, "sha256", 0, ""))
    assert taken(end) == b"hello"
    until(lambda: serving.served)


def test_many_are_served_at_once(serving: Serving) -> None:
    ends = [serving.pulls(serving.grants(file).ticket) for file in ("large", "file") * 4]
    contents = [gevent.spawn(taken, end) for end in reversed(ends)]
    assert [content.get() for content in contents] == [b"hello", LARGE] * 4
    serving.chat_goes_on()


def test_file_is_what_it_is_when_it_is_fetched(serving: Serving) -> None:
    take = serving.grants()
    (serving.home / "file").write_bytes(b"another")
    assert taken(serving.pulls(take.ticket)) == b"another"


def test_file_that_is_gone_when_it_is_fetched(serving: Serving) -> None:
    take = serving.grants()
    (serving.home / "file").unlink()
    assert serving.pulls(take.ticket).record(Sorry).code == Code.NOT_FOUND
    serving.chat_goes_on()


@pytest.mark.parametrize("file", ["missing", "", ".", "..", "../dan/file", "/etc/passwd", ".hidden", "x" * 255])
def test_row_14_what_may_not_be_had_is_not_found(serving: Serving, file: str) -> None:
    (serving.home / ".hidden").write_bytes(b"secret")
    assert serving.refuses(file) == Code.NOT_FOUND
    serving.chat_goes_on()


def test_row_13_fifo_is_not_found_and_nobody_waits(serving: Serving) -> None:
    os.mkfifo(serving.home / "fifo")
    assert serving.refuses("fifo") == Code.NOT_FOUND


def test_row_15_file_that_changes_while_it_is_sent(serving: Serving) -> None:
    end = serving.pulls(serving.grants("large").ticket)
    size = end.record(File).size
    with (serving.home / "large").open("ab") as file:
        file.write(b"more")
    end.exactly(size)
    assert end.record(Sorry).code == Code.CHANGED
    assert serving.failed() == Code.CHANGED


# --- and nobody else --------------------------------------------------------------------------


@pytest.mark.parametrize("ticket", ["", "0" * 32, "x" * 7000, "\u2603"], ids=["empty", "guess", "long", "not ASCII"])
def test_row_17_guessed_ticket_is_refused(serving: Serving, ticket: str) -> None:
    serving.grants()
    end = serving.pulls(ticket)
    assert end.record(Sorry).code == Code.BAD_TICKET
    assert end.rest() == b""
    assert serving.served == []
    serving.still_serves()


def test_row_17_ticket_is_good_once(serving: Serving) -> None:
    take = serving.grants()
    assert taken(serving.pulls(take.ticket)) == b"hello"
    assert serving.pulls(take.ticket).record(Sorry).code == Code.BAD_TICKET
    serving.still_serves()


def test_row_17_key_is_no_ticket(serving: Serving) -> None:
    assert serving.pulls(serving.grants().key).record(Sorry).code == Code.BAD_TICKET


def test_row_17_third_party_that_connects_first_keeps_nobody_out(serving: Serving) -> None:
    take = serving.grants()
    third = serving.comes()
    assert taken(serving.pulls(take.ticket)) == b"hello"
    third.tell(Pull(take.ticket, "sha256", 0, ""))
    assert third.record(Sorry).code == Code.BAD_TICKET


def test_row_17_ticket_is_for_one_file_whatever_the_pull_says(serving: Serving) -> None:
    take = serving.grants()
    asked = b'"algorithm":"sha256","offset":0,"prefix":"","file":"large"'
    assert taken(serving.comes(b'\x01{"t":"pull","ticket":"%b",%b}\n' % (take.ticket.encode(), asked))) == b"hello"


def test_old_ticket_is_refused(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    take = serving.grants()
    monkeypatch.setattr(uploads, "TICKET_SECONDS", -1)
    assert serving.pulls(take.ticket).record(Sorry).code == Code.BAD_TICKET


def test_oldest_of_too_many_tickets_is_forgotten(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_OFFERS", 2)
    first, second, third = serving.grants(), serving.grants(), serving.grants()
    assert serving.pulls(first.ticket).record(Sorry).code == Code.BAD_TICKET
    assert taken(serving.pulls(second.ticket)) == b"hello"
    assert taken(serving.pulls(third.ticket)) == b"hello"


@pytest.mark.attack(45)
def test_tickets_of_one_requester_push_out_those_of_nobody_else(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MAX_OFFERS", 4)
    bob = serving.people.member("bob")
    his = serving.grants(to=bob)
    for _ in range(20):
        serving.grants()
    assert taken(serving.pulls(his.ticket)) == b"hello"


def test_row_19_connection_that_says_nothing_is_let_go(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "HELLO_SECONDS", 0.02)
    end = serving.comes()
    assert end.record(Sorry).code == Code.STALLED
    assert end.rest() == b""
    serving.chat_goes_on()


def test_row_19_requester_that_takes_nothing_is_given_up(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump, "STALL_SECONDS", 0.02)
    serving.pulls(serving.grants("large").ticket)
    assert serving.failed() == Code.STALLED
    serving.chat_goes_on()


@pytest.mark.parametrize(
    ("first", "code"),
    [
        pytest.param(b"\x01{}\n", Code.BAD_RECORD, id="malformed"),
        pytest.param(hello("eve"), Code.UNEXPECTED, id="hello"),
        pytest.param(b"\x01" + b"x" * 20_000, Code.LINE_TOO_LONG, id="no line"),
        pytest.param(b'\x01{"t":"pull","ticket":["x"],"algorithm":"sha256","offset":0,"prefix":""}\n', Code.BAD_RECORD,
                     id="ticket is a list"),
        pytest.param(b'\x01{"t":"pull","ticket":"x"}\n', Code.BAD_RECORD, id="a ticket and nothing more"),
        pytest.param(b'\x01{"t":"pull","ticket":"x","algorithm":"sha256","offset":true,"prefix":""}\n',
                     Code.BAD_RECORD, id="offset is no number"),
    ],
)  # fmt: skip
def test_row_27_first_line_that_is_no_pull_is_refused(serving: Serving, first: bytes, code: Code) -> None:
    end = serving.comes(first)
    assert end.record(Sorry).code == code
    serving.chat_goes_on()
    serving.still_serves()


@pytest.mark.attack(37)
def test_web_page_at_the_listener_is_refused_with_a_status_line(serving: Serving) -> None:
    page = serving.comes(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n" + b"click here\n" * 10_000)
    assert page.line().startswith(b"HTTP/1.1 400 error: ")
    assert page.rest() == b""
    serving.chat_goes_on()
    serving.still_serves()


@pytest.mark.attack(37)
@pytest.mark.parametrize(
    "first",
    [
        b"SSH-2.0-x\r\n",
        b"EHLO a.example\r\n",
        b"\x16\x03\x01",
        b"\x16",
    ],
    ids=lambda first: ascii(first[:20]),
)
def test_other_protocol_at_the_listener_is_refused_with_one_line(serving: Serving, first: bytes) -> None:
    page = serving.comes(first)
    assert page.record(Sorry).code == Code.BAD_RECORD
    assert page.rest() == b""
    serving.chat_goes_on()
    serving.still_serves()


def test_closing_does_not_wait_for_a_stranger_that_was_refused(serving: Serving) -> None:
    page = serving.comes(b"EHLO a\r\n")
    page.record(Sorry)
    with gevent.Timeout(1):
        serving.client.close()


def test_row_17_silent_strangers_do_not_stop_the_rightful_peer(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MAX_STRANGERS", 2)
    strangers = [serving.comes(), serving.comes()]
    until(lambda: len(serving.client._uploads._strangers) == 2)
    serving.still_serves()
    assert strangers[0].rest() == b""  # the oldest had to go


@pytest.mark.parametrize("bound", ["MAX_UPLOADS", "MAX_UPLOADS_EACH"])
def test_owner_that_is_busy_says_so(serving: Serving, monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    monkeypatch.setattr(uploads, bound, 1)
    end = serving.pulls(serving.grants("large").ticket)
    end.exactly(100_000)
    assert serving.refuses("file") == Code.TOO_MANY
    end.close()
    until(lambda: not serving.client._uploads._serving)
    serving.still_serves()


@pytest.mark.parametrize("bound", ["MAX_UPLOADS", "MAX_UPLOADS_EACH"])
def test_row_31_tickets_hoarded_while_there_was_room_do_not_make_more(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(uploads, bound, 2)
    takes = [serving.grants("large") for _ in range(6)]
    ends = [serving.pulls(take.ticket) for take in takes[:2]]
    for end in ends:
        end.exactly(100_000)
    late = [serving.pulls(take.ticket) for take in takes[2:4]]
    late += [serving.joins(take) for take in takes[4:]]
    for end, take in zip(late[2:], takes[4:], strict=True):
        end.tell(Pull(take.ticket, "sha256", 0, ""))
    assert [end.record(Sorry).code for end in late] == [Code.TOO_MANY] * 4
    assert len(serving.client._uploads._serving) == len(serving.client.moving) == 2


def test_row_31_one_requester_cannot_hold_all_places(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_UPLOADS_EACH", 2)
    takes = [serving.grants("large") for _ in range(5)]
    for take in takes:
        serving.pulls(take.ticket)
    until(lambda: len(serving.client._uploads._serving) == 2)
    bob = serving.people.member("bob")
    assert taken(serving.pulls(serving.grants("file", bob).ticket)) == b"hello"


def test_row_31_one_requester_cannot_hold_all_relayed_places_by_saying_nothing_there(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MAX_UPLOADS", 4)
    monkeypatch.setattr(uploads, "MAX_UPLOADS_EACH", 2)
    for take in [serving.grants() for _ in range(4)]:
        serving.people.wire(encode(Relay(take.key)))  # and never shows the ticket
    until(lambda: len(serving.client._uploads._dialled) >= 2)
    bob = serving.people.member("bob")
    take = serving.grants("file", bob)
    end = serving.joins(take)
    end.tell(Pull(take.ticket, "sha256", 0, ""))
    assert taken(end) == b"hello"


def test_row_17_strangers_at_the_listener_take_no_place_of_a_relayed_requester(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MAX_STRANGERS", 2)
    take = serving.grants("file")
    end = serving.joins(take)
    for _ in range(6):
        serving.comes(b"")  # to the listener, and says nothing
    until(lambda: len(serving.client._uploads._strangers) == 2)
    end.tell(Pull(take.ticket, "sha256", 0, ""))
    assert taken(end) == b"hello"


def test_file_that_is_sent_is_seen_moving(serving: Serving) -> None:
    end = serving.pulls(serving.grants("large").ticket)
    end.exactly(100_000)
    (moving,) = serving.client.moving
    assert (moving.file, moving.peer, moving.sending, moving.size) == ("large", "ann", True, len(LARGE))
    assert (moving.resumed, moving.moved > 0) == (0, True)
    end.close()
    until(lambda: not serving.client.moving)


def test_row_17_other_sides_key_opens_nothing(serving: Serving) -> None:
    take = serving.grants()
    end = serving.people.wire(encode(Relay(take.ticket)))
    assert end.record(Sorry).code == Code.BAD_TICKET
    first = serving.joins(take)
    again = serving.people.wire(encode(Relay(take.key)))
    assert again.record(Sorry).code == Code.BAD_TICKET
    first.tell(Pull(take.ticket, "sha256", 0, ""))
    assert taken(first) == b"hello"


def test_row_17_ticket_of_one_way_is_used_up_on_the_other(serving: Serving) -> None:
    take = serving.grants()
    end = serving.joins(take)
    assert taken(serving.pulls(take.ticket)) == b"hello"
    end.tell(Pull(take.ticket, "sha256", 0, ""))
    assert end.record(Sorry).code == Code.BAD_TICKET


# --- a server whose every byte is spelled out -------------------------------------------------


@pytest.fixture
def alone(alone: Alone, tmp_path: Path) -> Alone:
    """It has a file."""
    (tmp_path / "file").write_bytes(b"hello")
    return alone


def _called(alone: Alone, stub: Stub) -> Wire:
    """The connection to the relay, once the client has been called there."""
    alone.server.tell(Want("ticket", "bob", "file"))
    alone.server.record(Have)
    alone.server.tell(Dial("ticket", "key"))
    end = stub.accept()
    assert end.record(Relay).key == "key"
    return end


def test_call_to_the_relay_for_nothing_that_was_offered_is_ignored(alone: Alone) -> None:
    alone.server.tell(Dial("0" * 32, "key"))
    alone.server.tell(Want("0" * 32, "bob", "file"))
    assert alone.server.record(Have) == Have("0" * 32, 5, ALGORITHMS)
    assert not len(alone.client._uploads._dialled)


def test_call_to_the_relay_is_followed(alone: Alone, stub: Stub) -> None:
    end = _called(alone, stub)
    end.tell(Go())
    end.tell(Pull("ticket", "sha256", 0, ""))
    assert taken(end) == b"hello"


def test_relay_that_says_no_is_left(alone: Alone, stub: Stub) -> None:
    end = _called(alone, stub)
    end.tell(Sorry(Code.BAD_TICKET, ""))
    assert end.rest() == b""
    until(lambda: not len(alone.client._uploads._dialled))


def test_row_27_ticket_too_long_to_answer_ends_no_chat(alone: Alone) -> None:
    alone.server.send(b'\x01{"t":"want","ticket":"' + b"x" * 9000 + b'","requester":"bob","file":"file"}\n')
    alone.server.sock.shutdown(socket.SHUT_WR)
    with gevent.Timeout(0.5), pytest.raises(ServerGone):
        list(alone.client.messages())
