import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import gevent
import pytest
from conftest import People, Stub, Wire, hello, reset, until
from gevent import socket

from greenchat import ChatClient, Served
from greenchat.client import uploads
from greenchat.errors import Code, ServerGone
from greenchat.protocol.records import (
    Dial,
    Done,
    Fail,
    File,
    Get,
    Go,
    Got,
    Have,
    Hello,
    Pull,
    Record,
    Relay,
    Sorry,
    Take,
    Want,
    Welcome,
    encode,
)
from greenchat.transfer import channel, pump

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

    def grants(self, file: str = "file") -> Take:
        self.ann.tell(Get(1, "dan", file))
        return self.ann.record(Take)

    def refuses(self, file: str) -> str:
        self.ann.tell(Get(1, "dan", file))
        return self.ann.record(Fail).code

    def comes(self, first: bytes = b"") -> Wire:
        """Somebody at dan's listener."""
        end = Wire(self.client.listen)
        self._data.append(end)
        end.send(first)
        return end

    def pulls(self, ticket: str) -> Wire:
        return self.comes(encode(Pull(ticket)))

    def chat_goes_on(self) -> None:
        self.client.send("still here")
        assert self.ann.line() == b"dan: still here"

    def still_serves(self) -> None:
        assert received(self.pulls(self.grants().ticket)) == b"hello"

    def close(self) -> None:
        for end in self._data:
            end.close()


def received(end: Wire) -> bytes:
    """The file that comes on *end*, in full, and acknowledged."""
    content = end.exactly(end.record(File).size)
    assert end.record(Done).digest == hashlib.sha256(content).hexdigest()
    end.tell(Got(hashlib.sha256(content).hexdigest()))
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
    assert received(dan.pulls(take.ticket)) == content
    until(lambda: dan.served)
    assert dan.served == [Served("ann", file, len(content), None)]


def test_ticket_gets_the_file_through_the_relay(dan: Owner) -> None:
    take = dan.grants()
    end = dan.people.wire(encode(Relay(take.key)))
    end.record(Go)
    end.tell(Pull(take.ticket))
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
    until(lambda: dan.served)
    assert dan.served[0].error is not None
    assert dan.served[0].error.code == Code.CHANGED


# --- and nobody else --------------------------------------------------------------------------


@pytest.mark.parametrize("ticket", ["", "0" * 32, "x" * 8000, "\u2603"], ids=["empty", "guess", "long", "not ASCII"])
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
    third.tell(Pull(take.ticket))
    assert third.record(Sorry).code == Code.BAD_TICKET


def test_row_17_ticket_is_for_one_file_whatever_the_pull_says(dan: Owner) -> None:
    take = dan.grants()
    end = dan.comes(b'\x01{"t":"pull","ticket":"%b","file":"large"}\n' % take.ticket.encode())
    assert received(end) == b"hello"


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

    def hurried(self: channel.Channel, kind: type[R], seconds: float = 0.02) -> R:
        return expect(self, kind, min(seconds, 0.02))

    monkeypatch.setattr(channel.Channel, "expect", hurried)
    monkeypatch.setattr(uploads, "HELLO_SECONDS", 0.02)
    end = dan.comes()
    assert end.record(Sorry).code == Code.STALLED
    assert end.rest() == b""
    dan.chat_goes_on()


def test_row_19_requester_that_takes_nothing_is_given_up(dan: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump, "STALL_SECONDS", 0.02)
    dan.pulls(dan.grants("large").ticket)
    until(lambda: dan.served)
    (served,) = dan.served
    assert served.error is not None
    assert served.error.code == Code.STALLED
    dan.chat_goes_on()


@pytest.mark.parametrize(
    ("first", "code"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", Code.BAD_RECORD, id="HTTP"),
        pytest.param(b"\x01{}\n", Code.BAD_RECORD, id="malformed"),
        pytest.param(hello("eve"), Code.UNEXPECTED, id="hello"),
        pytest.param(b"\x01" + b"x" * 20_000, Code.LINE_TOO_LONG, id="no line"),
        pytest.param(b'\x01{"t":"pull","ticket":["x"]}\n', Code.BAD_RECORD, id="ticket is a list"),
    ],
)
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
    until(lambda: dan.served)
    (served,) = dan.served
    assert (served.requester, served.file) == ("ann", "large")
    assert served.error is not None
    assert served.error.code == Code.INTERRUPTED
    dan.chat_goes_on()
    dan.still_serves()


def test_row_20_requester_that_vanishes_before_got_is_not_counted_as_served(dan: Owner) -> None:
    end = dan.pulls(dan.grants().ticket)
    end.exactly(end.record(File).size)
    end.record(Done)
    end.close()
    until(lambda: dan.served)
    assert dan.served[0].error is not None
    assert dan.served[0].error.code == Code.INTERRUPTED


def test_refusal_instead_of_got_is_told(dan: Owner) -> None:
    end = dan.pulls(dan.grants().ticket)
    end.exactly(end.record(File).size)
    end.record(Done)
    end.tell(Sorry(Code.MISMATCH, ""))
    until(lambda: dan.served)
    assert dan.served[0].error is not None
    assert dan.served[0].error.code == Code.MISMATCH


def test_row_32_requester_that_leaves_may_still_be_sent_what_it_has_a_ticket_for(dan: Owner) -> None:
    take = dan.grants()
    dan.ann.close()
    assert received(dan.pulls(take.ticket)) == b"hello"


# --- a server whose every byte is spelled out -------------------------------------------------


@pytest.fixture
def alone(stub: Stub, tmp_path: Path) -> Iterator[tuple[ChatClient, Wire]]:
    """A client with a file, and its server's end."""
    (tmp_path / "file").write_bytes(b"hello")
    client = ChatClient("dan", stub.port, share=tmp_path, into=tmp_path)
    starting = gevent.spawn(client.start)
    server = stub.accept()
    server.record(Hello)
    server.tell(Welcome(1, "dan"))
    starting.get()
    yield client, server
    server.close()
    client.close()


def test_call_to_the_relay_for_nothing_that_was_offered_is_ignored(alone: tuple[ChatClient, Wire]) -> None:
    client, server = alone
    server.tell(Dial("0" * 32, "key"))
    server.tell(Want("0" * 32, "ann", "file"))
    assert server.record(Have) == Have("0" * 32, 5)
    assert not len(client._uploads._dialled)


def test_call_to_the_relay_is_followed(alone: tuple[ChatClient, Wire], stub: Stub) -> None:
    _, server = alone
    server.tell(Want("ticket", "ann", "file"))
    server.record(Have)
    server.tell(Dial("ticket", "key"))
    end = stub.accept()
    assert end.record(Relay).key == "key"
    end.tell(Go())
    end.tell(Pull("ticket"))
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
    assert len(end.rest()) < len(LARGE)
    with pytest.raises(ConnectionRefusedError):
        dan.comes()


def test_row_27_ticket_too_long_to_answer_ends_no_chat(alone: tuple[ChatClient, Wire]) -> None:
    client, server = alone
    server.send(b'\x01{"t":"want","ticket":"' + b"x" * 9000 + b'","requester":"ann","file":"file"}\n')
    server.sock.shutdown(socket.SHUT_WR)
    with gevent.Timeout(0.5), pytest.raises(ServerGone):
        list(client.messages())
