import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import gevent
import pytest
from conftest import People, Stub, Wire, hello, reset, until
from gevent import socket
from peers import sha256, with_server

from greenchat import ChatClient, Served
from greenchat.client import uploads
from greenchat.errors import Code, ServerGone
from greenchat.protocol.limits import MAX_NUMBER
from greenchat.protocol.records import (
    Dial,
    Done,
    Fail,
    File,
    Get,
    Go,
    Got,
    Have,
    Pull,
    Record,
    Relay,
    Sorry,
    Take,
    Want,
    encode,
)
from greenchat.transfer import channel, pump, rate
from greenchat.transfer.digest import ALGORITHMS, Digest

R = TypeVar("R", bound=Record)

LARGE = bytes(range(256)) * 80_000
"""More than a connection buffers."""


class Owner:
    """A client called dan that owns *files*, a raw requester called ann, and what dan was told of its files."""

    def __init__(self, people: People, **files: bytes) -> None:
        self.people = people
        for file, content in files.items():
            (people.home("dan") / file).write_bytes(content)
        self.served: list[Served] = []
        self.client: ChatClient = people.client("dan", on_served=self.served.append)
        self.ann = people.member("ann")
        self._data: list[Wire] = []

    def grants(self, file: str = "file", to: Wire | None = None) -> Take:
        requester = to or self.ann
        requester.tell(Get(1, "dan", file))
        return requester.record(Take)

    def refuses(self, file: str) -> str:
        self.ann.tell(Get(1, "dan", file))
        return self.ann.record(Fail).code

    def comes(self, first: bytes = b"") -> Wire:
        """Somebody at dan's listener."""
        end = Wire(self.client.listen)
        self._data.append(end)
        end.send(first)
        return end

    def pulls(self, ticket: str, offset: int = 0, prefix: str = "", algorithm: str = "sha256") -> Wire:
        return self.comes(encode(Pull(ticket, algorithm, offset, prefix)))

    def joins(self, take: Take) -> Wire:
        """The relayed connection."""
        end = self.people.wire(encode(Relay(take.key)))
        end.record(Go)
        return end

    def failed(self) -> Code:
        """How the only file that was served so far failed."""
        until(lambda: self.served)
        (served,) = self.served
        assert served.error is not None
        return served.error.code

    def chat_goes_on(self) -> None:
        self.client.send("still here")
        assert self.ann.line() == b"dan: still here"

    def still_serves(self) -> None:
        assert received(self.pulls(self.grants().ticket)) == b"hello"

    def close(self) -> None:
        for end in self._data:
            end.close()


def received(end: Wire, prefix: bytes = b"") -> bytes:
    """The file that comes on *end*, in full with its *prefix*, and acknowledged."""
    file = end.record(File)
    assert file.offset == len(prefix)
    content = prefix + end.exactly(file.size - file.offset)
    assert end.record(Done).digest == sha256(content)
    end.tell(Got(sha256(content)))
    assert end.rest() == b""
    return content


@pytest.fixture
def dan(people: People) -> Iterator[Owner]:
    owner = Owner(people, file=b"hello", large=LARGE)
    yield owner
    owner.close()


# --- who shows a ticket gets the file ---------------------------------------------------------


@pytest.mark.parametrize(("file", "content"), [("file", b"hello"), ("large", LARGE)], ids=["small", "large"])
def test_ticket_gets_the_file_directly(dan: Owner, file: str, content: bytes) -> None:
    take = dan.grants(file)
    assert take.size == len(content)
    assert take.direct == (("127.0.0.1", dan.client.listen),)
    assert take.algorithms == ALGORITHMS
    assert received(dan.pulls(take.ticket)) == content
    until(lambda: dan.served)
    assert dan.served == [Served("ann", file, len(content), None)]


def test_ticket_gets_the_file_through_the_relay(dan: Owner) -> None:
    take = dan.grants()
    end = dan.joins(take)
    end.tell(Pull(take.ticket, "sha256", 0, ""))
    assert received(end) == b"hello"
    until(lambda: dan.served)


def test_many_are_served_at_once(dan: Owner) -> None:
    ends = [dan.pulls(dan.grants(file).ticket) for file in ("large", "file") * 4]
    contents = [gevent.spawn(received, end) for end in reversed(ends)]
    assert [content.get() for content in contents] == [b"hello", LARGE] * 4
    dan.chat_goes_on()


def test_file_is_what_it_is_when_it_is_fetched(dan: Owner) -> None:
    take = dan.grants()
    (dan.people.home("dan") / "file").write_bytes(b"another")
    assert received(dan.pulls(take.ticket)) == b"another"


def test_file_that_is_gone_when_it_is_fetched(dan: Owner) -> None:
    take = dan.grants()
    (dan.people.home("dan") / "file").unlink()
    assert dan.pulls(take.ticket).record(Sorry).code == Code.NOT_FOUND
    dan.chat_goes_on()


@pytest.mark.parametrize("file", ["missing", "", ".", "..", "../dan/file", "/etc/passwd", ".hidden", "x" * 255])
def test_row_14_what_may_not_be_had_is_not_found(dan: Owner, file: str) -> None:
    (dan.people.home("dan") / ".hidden").write_bytes(b"secret")
    assert dan.refuses(file) == Code.NOT_FOUND
    dan.chat_goes_on()


def test_row_13_fifo_is_not_found_and_nobody_waits(dan: Owner) -> None:
    os.mkfifo(dan.people.home("dan") / "fifo")
    assert dan.refuses("fifo") == Code.NOT_FOUND


def test_row_15_file_that_changes_while_it_is_sent(dan: Owner) -> None:
    end = dan.pulls(dan.grants("large").ticket)
    size = end.record(File).size
    with (dan.people.home("dan") / "large").open("ab") as file:
        file.write(b"more")
    end.exactly(size)
    assert end.record(Sorry).code == Code.CHANGED
    assert dan.failed() == Code.CHANGED


# --- and nobody else --------------------------------------------------------------------------


@pytest.mark.parametrize("ticket", ["", "0" * 32, "x" * 7000, "\u2603"], ids=["empty", "guess", "long", "not ASCII"])
def test_row_17_guessed_ticket_is_refused(dan: Owner, ticket: str) -> None:
    dan.grants()
    end = dan.pulls(ticket)
    assert end.record(Sorry).code == Code.BAD_TICKET
    assert end.rest() == b""
    assert dan.served == []
    dan.still_serves()


def test_row_17_ticket_is_good_once(dan: Owner) -> None:
    take = dan.grants()
    assert received(dan.pulls(take.ticket)) == b"hello"
    assert dan.pulls(take.ticket).record(Sorry).code == Code.BAD_TICKET
    dan.still_serves()


def test_row_17_key_is_no_ticket(dan: Owner) -> None:
    assert dan.pulls(dan.grants().key).record(Sorry).code == Code.BAD_TICKET


def test_row_17_third_party_that_connects_first_keeps_nobody_out(dan: Owner) -> None:
    take = dan.grants()
    third = dan.comes()
    assert received(dan.pulls(take.ticket)) == b"hello"
    third.tell(Pull(take.ticket, "sha256", 0, ""))
    assert third.record(Sorry).code == Code.BAD_TICKET


def test_row_17_ticket_is_for_one_file_whatever_the_pull_says(dan: Owner) -> None:
    take = dan.grants()
    asked = b'"algorithm":"sha256","offset":0,"prefix":"","file":"large"'
    assert received(dan.comes(b'\x01{"t":"pull","ticket":"%b",%b}\n' % (take.ticket.encode(), asked))) == b"hello"


def test_old_ticket_is_refused(dan: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    take = dan.grants()
    monkeypatch.setattr(uploads, "TICKET_SECONDS", -1)
    assert dan.pulls(take.ticket).record(Sorry).code == Code.BAD_TICKET


def test_oldest_of_too_many_tickets_is_forgotten(dan: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_OFFERS", 2)
    first, second, third = dan.grants(), dan.grants(), dan.grants()
    assert dan.pulls(first.ticket).record(Sorry).code == Code.BAD_TICKET
    assert received(dan.pulls(second.ticket)) == b"hello"
    assert received(dan.pulls(third.ticket)) == b"hello"


def test_row_19_connection_that_says_nothing_is_let_go(dan: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    expect = channel.Channel.expect

    def hurried(self: channel.Channel, kind: type[R], seconds: float = 0.02, more: float = 0.0) -> R:
        return expect(self, kind, min(seconds, 0.02), more)

    monkeypatch.setattr(channel.Channel, "expect", hurried)
    monkeypatch.setattr(uploads, "HELLO_SECONDS", 0.02)
    end = dan.comes()
    assert end.record(Sorry).code == Code.STALLED
    assert end.rest() == b""
    dan.chat_goes_on()


def test_row_19_requester_that_takes_nothing_is_given_up(dan: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump, "STALL_SECONDS", 0.02)
    dan.pulls(dan.grants("large").ticket)
    assert dan.failed() == Code.STALLED
    dan.chat_goes_on()


@pytest.mark.parametrize(
    ("first", "code"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", Code.BAD_RECORD, id="HTTP"),
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
def test_row_27_first_line_that_is_no_pull_is_refused(dan: Owner, first: bytes, code: Code) -> None:
    end = dan.comes(first)
    assert end.record(Sorry).code == code
    dan.chat_goes_on()
    dan.still_serves()


def test_row_17_silent_strangers_do_not_stop_the_rightful_peer(dan: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_STRANGERS", 2)
    strangers = [dan.comes(), dan.comes()]
    until(lambda: len(dan.client._uploads._strangers) == 2)
    dan.still_serves()
    assert strangers[0].rest() == b""  # the oldest had to go


@pytest.mark.parametrize("bound", ["MAX_UPLOADS", "MAX_UPLOADS_EACH"])
def test_owner_that_is_busy_says_so(dan: Owner, monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    monkeypatch.setattr(uploads, bound, 1)
    end = dan.pulls(dan.grants("large").ticket)
    end.exactly(100_000)
    assert dan.refuses("file") == Code.TOO_MANY
    end.close()
    until(lambda: not dan.client._uploads._serving)
    dan.still_serves()


@pytest.mark.parametrize("bound", ["MAX_UPLOADS", "MAX_UPLOADS_EACH"])
def test_row_31_tickets_hoarded_while_there_was_room_do_not_make_more(
    dan: Owner, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(uploads, bound, 2)
    takes = [dan.grants("large") for _ in range(6)]
    ends = [dan.pulls(take.ticket) for take in takes[:2]]
    for end in ends:
        end.exactly(100_000)
    late = [dan.pulls(take.ticket) for take in takes[2:4]]
    late += [dan.joins(take) for take in takes[4:]]
    for end, take in zip(late[2:], takes[4:], strict=True):
        end.tell(Pull(take.ticket, "sha256", 0, ""))
    assert [end.record(Sorry).code for end in late] == [Code.TOO_MANY] * 4
    assert len(dan.client._uploads._serving) == len(dan.client.moving) == 2


def test_row_31_one_requester_cannot_hold_all_places(dan: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_UPLOADS_EACH", 2)
    takes = [dan.grants("large") for _ in range(5)]
    for take in takes:
        dan.pulls(take.ticket)
    until(lambda: len(dan.client._uploads._serving) == 2)
    bob = dan.people.member("bob")
    assert received(dan.pulls(dan.grants("file", bob).ticket)) == b"hello"


def test_row_31_one_requester_cannot_hold_all_relayed_places_by_saying_nothing_there(
    dan: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MAX_UPLOADS", 4)
    monkeypatch.setattr(uploads, "MAX_UPLOADS_EACH", 2)
    for take in [dan.grants() for _ in range(4)]:
        dan.people.wire(encode(Relay(take.key)))  # and never shows the ticket
    until(lambda: len(dan.client._uploads._strangers) >= 2)
    bob = dan.people.member("bob")
    take = dan.grants("file", bob)
    end = dan.joins(take)
    end.tell(Pull(take.ticket, "sha256", 0, ""))
    assert received(end) == b"hello"


def test_file_that_is_sent_is_seen_moving(dan: Owner) -> None:
    end = dan.pulls(dan.grants("large").ticket)
    end.exactly(100_000)
    (moving,) = dan.client.moving
    assert (moving.file, moving.peer, moving.sending, moving.size) == ("large", "ann", True, len(LARGE))
    assert (moving.resumed, moving.moved > 0) == (0, True)
    end.close()
    until(lambda: not dan.client.moving)


# --- from the middle on -----------------------------------------------------------------------


@pytest.mark.parametrize("had", [b"h", b"hel", b"hello"])
@pytest.mark.parametrize("relayed", [False, True], ids=["direct", "relayed"])
def test_only_what_is_missing_is_sent(dan: Owner, had: bytes, *, relayed: bool) -> None:
    take = dan.grants()
    end = dan.joins(take) if relayed else dan.comes()
    end.tell(Pull(take.ticket, "sha256", len(had), sha256(had)))
    assert received(end, had) == b"hello"
    until(lambda: dan.served)
    assert dan.served == [Served("ann", "file", 5, None)]


def test_large_file_is_sent_from_the_middle_on(dan: Owner) -> None:
    had = LARGE[:10_000_001]
    end = dan.pulls(dan.grants("large").ticket, len(had), sha256(had))
    assert end.record(File) == File(len(LARGE), len(had))
    (moving,) = dan.client.moving
    assert moving.resumed == len(had)
    assert had + end.exactly(len(LARGE) - len(had)) == LARGE
    assert end.record(Done).digest == sha256(LARGE)


def test_prefix_is_of_the_algorithm_that_is_asked_for(dan: Owner) -> None:
    for algorithm in ALGORITHMS:
        prefix, whole = Digest(algorithm), Digest(algorithm)
        prefix.update(b"hel")
        whole.update(b"hello")
        end = dan.pulls(dan.grants().ticket, 3, prefix.hex(), algorithm)
        assert end.record(File) == File(5, 3)
        assert end.exactly(2) == b"lo"
        assert end.record(Done).digest == whole.hex()
        end.close()


@pytest.mark.parametrize(
    ("offset", "prefix"),
    [
        pytest.param(6, sha256(b"hello!"), id="beyond the end"),
        pytest.param(6, sha256(b"hello"), id="beyond the end, but the digest of all"),
        pytest.param(MAX_NUMBER, sha256(b"hello"), id="2^63 - 1"),
        pytest.param(3, sha256(b"HEL"), id="another content"),
        pytest.param(3, sha256(b"hello"), id="of all instead of a part"),
        pytest.param(5, sha256(b"hel"), id="of a part instead of all"),
        pytest.param(3, "", id="no digest"),
        pytest.param(3, sha256(b"hel").upper(), id="in capitals"),
        pytest.param(3, "\u2603" * 100, id="nonsense"),
        pytest.param(0, sha256(b""), id="from the start"),
        pytest.param(0, sha256(b"hello"), id="from the start, whatever the digest"),
    ],
)
def test_row_22_offset_that_does_not_fit_starts_again(dan: Owner, offset: int, prefix: str) -> None:
    assert received(dan.pulls(dan.grants().ticket, offset, prefix)) == b"hello"
    dan.chat_goes_on()


@pytest.mark.parametrize("offset", ["-1", "9223372036854775808", "1.5", '"3"', "null", "true", "1e400"])
def test_row_22_offset_that_is_none_is_refused(dan: Owner, offset: str) -> None:
    ticket = dan.grants().ticket
    asked = f'"t":"pull","ticket":"{ticket}","algorithm":"sha256","offset":{offset},"prefix":""'
    end = dan.comes(b"\x01{%b}\n" % asked.encode())
    assert end.record(Sorry).code == Code.BAD_RECORD
    assert dan.served == []
    assert received(dan.pulls(ticket)) == b"hello"  # which was not used up
    dan.chat_goes_on()


@pytest.mark.parametrize("algorithm", ["", "md5", "SHA256", "x" * 5000])
def test_row_22_digest_that_nobody_offered_is_refused(dan: Owner, algorithm: str) -> None:
    end = dan.pulls(dan.grants().ticket, 0, "", algorithm)
    assert end.record(Sorry).code == Code.BAD_VERSION
    assert end.rest() == b""
    assert dan.failed() == Code.BAD_VERSION
    dan.still_serves()
    dan.chat_goes_on()


def test_row_22_file_that_shrank_after_it_was_offered_starts_again(dan: Owner) -> None:
    ticket = dan.grants().ticket
    (dan.people.home("dan") / "file").write_bytes(b"he")
    assert received(dan.pulls(ticket, 3, sha256(b"hel"))) == b"he"


@pytest.mark.parametrize("vanish", [lambda sock: sock.close(), reset], ids=["closed", "reset"])
def test_row_20_requester_vanishes_while_its_part_is_read(
    dan: Owner, vanish: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "DIGESTED_AHEAD", 1000)  # so that it takes long
    monkeypatch.setattr(channel, "WAIT_SECONDS", 0.0)
    end = dan.pulls(dan.grants("large").ticket, len(LARGE), sha256(LARGE))
    end.line()
    vanish(end.sock)
    assert dan.failed() == Code.INTERRUPTED
    dan.chat_goes_on()
    dan.still_serves()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        pytest.param(encode(Got(sha256(b"jello"))), Code.MISMATCH, id="another digest"),
        pytest.param(encode(Got("")), Code.MISMATCH, id="no digest"),
        pytest.param(b"x" * 100_000, Code.LINE_TOO_LONG, id="a flood"),
        pytest.param(b"\x00\xff\n", Code.BAD_RECORD, id="no record"),
        pytest.param(encode(Pull("t", "sha256", 0, "")), Code.UNEXPECTED, id="asks again"),
        pytest.param(encode(Sorry(Code.DISK, "")), Code.DISK, id="its disk is full"),
        pytest.param(encode(Sorry("of-a-newer-version", "")), Code.FAILED, id="a new reason"),
    ],
)
def test_row_19_requester_that_answers_something_else_was_not_served(dan: Owner, answer: bytes, code: Code) -> None:
    end = dan.pulls(dan.grants().ticket)
    end.exactly(end.record(File).size)
    end.record(Done)
    end.send(answer)
    assert dan.failed() == code
    dan.chat_goes_on()
    dan.still_serves()


def test_row_19_requester_that_talks_before_its_turn_gets_its_file(dan: Owner) -> None:
    end = dan.pulls(dan.grants().ticket)
    end.tell(Got(sha256(b"hello")))  # what it will say anyway
    assert end.exactly(end.record(File).size) == b"hello"
    end.record(Done)
    until(lambda: dan.served)
    assert dan.served == [Served("ann", "file", 5, None)]


def test_row_17_other_sides_key_opens_nothing(dan: Owner) -> None:
    take = dan.grants()
    end = dan.people.wire(encode(Relay(take.ticket)))
    assert end.record(Sorry).code == Code.BAD_TICKET
    first = dan.joins(take)
    again = dan.people.wire(encode(Relay(take.key)))
    assert again.record(Sorry).code == Code.BAD_TICKET
    first.tell(Pull(take.ticket, "sha256", 0, ""))
    assert received(first) == b"hello"


def test_row_17_ticket_of_one_way_is_used_up_on_the_other(dan: Owner) -> None:
    take = dan.grants()
    end = dan.joins(take)
    assert received(dan.pulls(take.ticket)) == b"hello"
    end.tell(Pull(take.ticket, "sha256", 0, ""))
    assert end.record(Sorry).code == Code.BAD_TICKET


# --- who vanishes -----------------------------------------------------------------------------


@pytest.mark.parametrize("vanish", [lambda sock: sock.close(), reset], ids=["closed", "reset"])
@pytest.mark.parametrize("first", [b"", b'\x01{"t":"pu'], ids=["before the ticket", "in the ticket"])
def test_row_20_somebody_vanishes(dan: Owner, first: bytes, vanish: Callable[[socket.socket], None]) -> None:
    end = dan.comes(first)
    until(lambda: dan.client._uploads._strangers)
    vanish(end.sock)
    until(lambda: not dan.client._uploads._strangers)
    assert dan.served == []
    dan.chat_goes_on()
    dan.still_serves()


@pytest.mark.parametrize("vanish", [lambda sock: sock.close(), reset], ids=["closed", "reset"])
@pytest.mark.parametrize("read", [0, 100_000], ids=["before the file", "in mid-file"])
def test_row_20_requester_vanishes_while_it_is_sent_a_file(
    dan: Owner, read: int, vanish: Callable[[socket.socket], None]
) -> None:
    end = dan.pulls(dan.grants("large").ticket)
    end.exactly(read)
    vanish(end.sock)
    assert dan.failed() == Code.INTERRUPTED
    assert (dan.served[0].requester, dan.served[0].file) == ("ann", "large")
    dan.chat_goes_on()
    dan.still_serves()


def test_row_20_requester_that_vanishes_before_got_is_not_counted_as_served(dan: Owner) -> None:
    end = dan.pulls(dan.grants().ticket)
    end.exactly(end.record(File).size)
    end.record(Done)
    end.close()
    assert dan.failed() == Code.INTERRUPTED


def test_refusal_instead_of_got_is_told(dan: Owner) -> None:
    end = dan.pulls(dan.grants().ticket)
    end.exactly(end.record(File).size)
    end.record(Done)
    end.tell(Sorry(Code.MISMATCH, ""))
    assert dan.failed() == Code.MISMATCH


def test_row_32_requester_that_leaves_may_still_be_sent_what_it_has_a_ticket_for(dan: Owner) -> None:
    take = dan.grants()
    dan.ann.close()
    assert received(dan.pulls(take.ticket)) == b"hello"


# --- a server whose every byte is spelled out -------------------------------------------------


@pytest.fixture
def alone(stub: Stub, tmp_path: Path) -> Iterator[tuple[ChatClient, Wire]]:
    """A client with a file, and its server's end."""
    (tmp_path / "file").write_bytes(b"hello")
    client, server = with_server(stub, tmp_path, "dan")
    yield client, server
    server.close()
    client.close()


def test_call_to_the_relay_for_nothing_that_was_offered_is_ignored(alone: tuple[ChatClient, Wire]) -> None:
    client, server = alone
    server.tell(Dial("0" * 32, "key"))
    server.tell(Want("0" * 32, "ann", "file"))
    assert server.record(Have) == Have("0" * 32, 5, ALGORITHMS)
    assert not len(client._uploads._dialled)


def test_call_to_the_relay_is_followed(alone: tuple[ChatClient, Wire], stub: Stub) -> None:
    _, server = alone
    server.tell(Want("ticket", "ann", "file"))
    server.record(Have)
    server.tell(Dial("ticket", "key"))
    end = stub.accept()
    assert end.record(Relay).key == "key"
    end.tell(Go())
    end.tell(Pull("ticket", "sha256", 0, ""))
    assert received(end) == b"hello"


def test_relay_that_says_no_is_left(alone: tuple[ChatClient, Wire], stub: Stub) -> None:
    client, server = alone
    server.tell(Want("ticket", "ann", "file"))
    server.record(Have)
    server.tell(Dial("ticket", "key"))
    end = stub.accept()
    end.record(Relay)
    end.tell(Sorry(Code.BAD_TICKET, ""))
    assert end.rest() == b""
    until(lambda: not len(client._uploads._dialled))


def test_closing_ends_what_is_being_served(dan: Owner) -> None:
    end = dan.pulls(dan.grants("large").ticket)
    end.exactly(100_000)
    dan.client.close()
    with contextlib.suppress(ConnectionResetError):
        assert len(end.rest()) < len(LARGE)
    with pytest.raises(ConnectionRefusedError):
        dan.comes()


@pytest.mark.parametrize("relayed", [False, True], ids=["direct", "relayed"])
def test_closing_waits_for_no_limited_rate(dan: Owner, monkeypatch: pytest.MonkeyPatch, *, relayed: bool) -> None:
    monkeypatch.setattr(rate.RateLimit, "pause", lambda _self, _size: 20.0)
    take = dan.grants("large")
    end = dan.joins(take) if relayed else dan.comes()
    end.tell(Pull(take.ticket, "sha256", 0, ""))
    end.exactly(1000)
    with gevent.Timeout(10):
        dan.client.close()


def test_row_27_ticket_too_long_to_answer_ends_no_chat(alone: tuple[ChatClient, Wire]) -> None:
    client, server = alone
    server.send(b'\x01{"t":"want","ticket":"' + b"x" * 9000 + b'","requester":"ann","file":"file"}\n')
    server.sock.shutdown(socket.SHUT_WR)
    with gevent.Timeout(0.5), pytest.raises(ServerGone):
        list(client.messages())
