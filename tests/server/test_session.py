import contextlib
import json
import logging
import time
from collections.abc import Callable
from typing import Any, cast

import gevent
import pytest
from conftest import People, Wire, hello, reset, until
from gevent import socket

from greenchat import ChatServer
from greenchat.errors import Code, TransferError, sentence
from greenchat.protocol.codec import encode
from greenchat.protocol.limits import ASK_COST, LINE_COST, MAX_LINE, MAX_PIECE, RECEIVE_SIZE, RECEIVE_SIZE_OF_RECORDS
from greenchat.protocol.records import (
    Dial,
    Error,
    Fail,
    File,
    Get,
    Go,
    Have,
    Hello,
    Ping,
    Pong,
    Pull,
    Record,
    Refuse,
    Refused,
    Relay,
    Sorry,
    Take,
    Wait,
    Want,
    Welcome,
)
from greenchat.protocol.wire import Event, ServerWire
from greenchat.server import relay, session, tickets


def chatting(people: People) -> tuple[Wire, Wire]:
    """Two who are talking: a guest and a client."""
    bob, cat = people.wire(b"bob\n"), people.member("cat")
    chat_goes_on(bob, cat)
    return bob, cat


def chat_goes_on(bob: Wire, cat: Wire, names: tuple[str, str] = ("bob", "cat")) -> None:
    """Each hears the other, and nothing else has come before."""
    cat.send(b"ping\n")
    assert bob.line() == f"{names[1]}: ping".encode()
    bob.send(b"pong\n")
    assert cat.line() == f"{names[0]}: pong".encode()


def raw(**fields: object) -> bytes:
    return b"\x01" + json.dumps(fields).encode() + b"\n"


# --- guests and clients -----------------------------------------------------------------------


def test_bare_name_makes_a_guest_who_gets_nothing_but_lines(people: People) -> None:
    ann, (bob, cat) = people.wire(b"ann\n"), chatting(people)
    assert [ann.line(), ann.line()] == [b"cat: ping", b"bob: pong"]
    ann.send(b"hi\r\nthere\n")
    assert [bob.line(), bob.line()] == [b"ann: hi", b"ann: there"]
    assert [cat.line(), cat.line()] == [b"ann: hi", b"ann: there"]


def test_name_and_messages_may_come_in_one_piece(people: People) -> None:
    bob, _ = chatting(people)
    people.wire(b"ann\none\ntwo\n")
    assert [bob.line(), bob.line()] == [b"ann: one", b"ann: two"]


def test_line_may_come_in_many_pieces(people: People) -> None:
    bob, _ = chatting(people)
    ann = people.wire()
    for byte in b"ann\nhi\n":
        ann.send(bytes([byte]))
    assert bob.line() == b"ann: hi"


def test_nothing_comes_back_to_the_sender(people: People) -> None:
    ann, bob = people.wire(b"ann\n"), people.wire(b"bob\n")
    ann.send(b"mine\n")
    assert bob.line() == b"ann: mine"
    bob.send(b"yours\n")
    assert ann.line() == b"bob: yours"


def test_what_was_said_last_reaches_the_others(people: People) -> None:
    bob, _ = chatting(people)
    ann = people.wire(b"ann\nbye\n")
    ann.close()
    assert bob.line() == b"ann: bye"


@pytest.mark.parametrize(("offered", "agreed"), [(1, 1), (2, 1), (2**40, 1)], ids=["ours", "newer", "far newer"])
def test_older_of_two_versions_is_spoken(people: People, offered: int, agreed: int) -> None:
    ann = people.wire(encode(Hello(offered, "ann", 0)))
    assert ann.record(Welcome) == Welcome(agreed, "ann")


def test_version_that_never_was_is_refused(people: People) -> None:
    ann = people.wire(encode(Hello(0, "ann", 0)))
    assert ann.record(Refused).code == Code.BAD_VERSION
    assert ann.rest() == b""


def test_welcome_has_the_name_as_the_others_see_it(people: People) -> None:
    bob, _ = chatting(people)
    zoe = people.wire(hello("Zoe\u0308"))
    assert zoe.record(Welcome).name == "Zo\xeb"
    zoe.send(b"hi\n")
    assert bob.line() == "Zo\xeb: hi".encode()


@pytest.mark.parametrize("port", [1, 22, 80, 1023, 65536, 2**63 - 1])
def test_row_18_port_that_nobody_may_be_sent_to_is_refused(people: People, port: int) -> None:
    bob, cat = chatting(people)
    ann = people.wire(hello("ann", port))
    assert ann.record(Refused).code == Code.BAD_PORT
    assert ann.rest() == b""
    chat_goes_on(bob, cat)


def test_row_18_host_in_a_hello_is_no_address(people: People) -> None:
    dan = people.wire(raw(t="hello", v=1, name="dan", listen=5000, host="192.0.2.1", direct=[["192.0.2.1", 22]]))
    dan.record(Welcome)
    ann = people.member("ann")
    ann.tell(Get(1, "dan", "file"))
    dan.send(raw(t="have", ticket=dan.record(Want).ticket, size=1, algorithms=[], direct=[["192.0.2.1", 22]]))
    assert ann.record(Take).direct == (("127.0.0.1", 5000),)


def test_fields_and_kinds_of_a_newer_version_are_ignored(people: People) -> None:
    bob, _ = chatting(people)
    ann = people.wire(raw(t="hello", v=2, name="ann", listen=0, colour="red", tags=[{"a": None}]))
    ann.record(Welcome)
    ann.send(b"one\n" + raw(t="typing", who=1) + b"two\n" + raw(t="want") + b"three\n")
    assert bob.line() == b"ann: one"
    assert bob.line() == b"ann: two"


@pytest.mark.parametrize("leave", [lambda sock: sock.close(), reset], ids=["closed", "reset"])
@pytest.mark.parametrize("first", [b"Ann\n", hello("Ann")], ids=["guest", "client"])
def test_name_is_free_at_once_after_leaving(
    people: People, server: ChatServer, leave: Callable[[socket.socket], None], first: bytes
) -> None:
    bob, cat = chatting(people)
    ann = people.wire(first + b"here\n")
    assert bob.line() == cat.line() == b"Ann: here"
    leave(ann.sock)
    until(lambda: len(server._sessions) == 2)
    people.wire(b"ann\nagain\n")
    assert bob.line() == cat.line() == b"ann: again"
    chat_goes_on(bob, cat)


# --- the chat connection: bad inputs ----------------------------------------------------------


def test_row_19_peer_that_says_nothing_is_told_and_let_go(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    bob, cat = chatting(people)
    monkeypatch.setattr(session, "HELLO_SECONDS", 0.02)
    silent = people.wire()
    assert silent.rest() == b"error: no name was given in time\n"
    chat_goes_on(bob, cat)


def test_row_19_trickle_of_a_name_does_not_extend_the_deadline(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "HELLO_SECONDS", 0.05)
    slow = people.wire()
    trickle = gevent.spawn(_trickle, slow)
    assert slow.line() == b"error: no name was given in time"
    trickle.get()


def _trickle(wire: Wire) -> None:
    with contextlib.suppress(OSError):
        while True:
            wire.send(b"a")
            gevent.sleep(0.001)


def test_deadline_is_for_the_first_line_alone(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "HELLO_SECONDS", 0.02)
    bob, cat = chatting(people)
    with pytest.raises(TimeoutError):
        _wait_for_data(bob, 0.04)
    chat_goes_on(bob, cat)


def _wait_for_data(wire: Wire, seconds: float) -> None:
    wire.sock.settimeout(seconds)
    try:
        wire.sock.recv(1)
    finally:
        wire.sock.settimeout(10)


TOO_LONG = b"x" * (MAX_LINE + 1)
RECORD_TOO_LONG = b'\x01{"t":"get","file":"' + TOO_LONG


@pytest.mark.parametrize(
    ("first", "last"),
    [
        pytest.param(TOO_LONG, b"error: ", id="before a name"),
        pytest.param(b"ann\n" + TOO_LONG, b"error: ", id="guest"),
        pytest.param(b"ann\n" + TOO_LONG + b"\n", b"error: ", id="guest, with a line end"),
        pytest.param(b"ann\n" + b"x" * 1_000_000, b"error: ", id="guest, a million bytes"),
        pytest.param(hello("ann") + TOO_LONG, b'\x01{"t":"error","code":"line-too-long"', id="client"),
        pytest.param(hello("ann") + RECORD_TOO_LONG, b'\x01{"t":"error","code":"line-too-long"', id="record"),
        pytest.param(RECORD_TOO_LONG, b"error: ", id="record as the first line"),
    ],
)
def test_row_24_line_over_the_limit_is_refused(people: People, first: bytes, last: bytes) -> None:
    bob, cat = chatting(people)
    ann = people.wire(first)
    last_line = ann.rest().splitlines()[-1]
    assert last_line.startswith(last)
    assert b"too long" in last_line
    chat_goes_on(bob, cat)


def test_row_24_longest_line_is_whole(people: People) -> None:
    bob, _ = chatting(people)
    people.wire(b"ann\n" + TOO_LONG[1:] + b"\n")
    assert bob.line() == b"ann: " + TOO_LONG[1:]


def test_row_24_what_came_before_the_long_line_is_delivered(people: People) -> None:
    bob, _ = chatting(people)
    ann = people.wire(b"ann\nfirst\n")
    assert bob.line() == b"ann: first"
    ann.send(TOO_LONG)
    ann.rest()


def test_name_is_free_at_once_after_an_error(people: People) -> None:
    ann = people.member("ann")
    ann.send(b"\x01{}\n")
    ann.record(Error)
    people.member("ann")  # while the first one's connection is still open


def test_row_24_flood_is_read_to_its_end_so_that_last_words_arrive(people: People) -> None:
    flood = people.wire(b":\n")
    assert flood.line().startswith(b"error: ")
    flood.send(b"x" * 10_000_000)
    flood.sock.shutdown(socket.SHUT_WR)
    assert flood.rest() == b""


@pytest.mark.parametrize("first", [b"ann\n", hello("ann")], ids=["guest", "client"])
@pytest.mark.parametrize(
    ("sent", "heard"),
    [
        pytest.param(b"\xff\xfe", "\ufffd\ufffd", id="invalid UTF-8"),
        pytest.param(b"a\x00b", "a\u2400b", id="NUL"),
        pytest.param(b"\x1b[2J\x1b]0;x\x07", "\u241b[2J\u241b]0;x\u2407", id="ESC"),
        pytest.param(b"\xc2\x9b2J", "\ufffd2J", id="C1"),
        pytest.param("\u202eevil".encode(), "\ufffdevil", id="bidirectional override"),
        pytest.param(b"hi\rbob: I am bob", "hi\u240dbob: I am bob", id="CR in the middle"),
        pytest.param(b'a\x01{"t":"error"}', 'a\u2401{"t":"error"}', id="SOH inside"),
    ],
)
def test_row_25_text_is_harmless_before_anyone_sees_it(people: People, first: bytes, sent: bytes, heard: str) -> None:
    bob, cat = chatting(people)
    people.wire(first + sent + b"\n")
    assert bob.line() == cat.line() == f"ann: {heard}".encode()
    chat_goes_on(bob, cat)


def test_row_25_record_of_a_guest_is_text(people: People) -> None:
    bob, cat = chatting(people)
    people.wire(b"ann\n" + raw(t="error", code="x", text="y"))
    line = bob.line()
    assert line.startswith("ann: \u2401".encode())
    assert cat.line() == line
    chat_goes_on(bob, cat)


BAD_NAMES = [
    pytest.param("", "bad-name", id="empty"),
    pytest.param("   ", "bad-name", id="only spaces"),
    pytest.param("x" * 33, "bad-name", id="too long"),
    pytest.param("x" * 8000, "bad-name", id="far too long"),
    pytest.param("a:b", "bad-name", id="colon"),
    pytest.param("a\tb", "bad-name", id="control"),
    pytest.param("a\x1b[2J", "bad-name", id="ESC"),
    pytest.param("ann ", "bad-name", id="trailing space"),
    pytest.param(" ann", "bad-name", id="leading space"),
    pytest.param("a\u202eb", "bad-name", id="direction"),
    pytest.param("a\u200bb", "bad-name", id="zero width"),
    pytest.param("error", "bad-name", id="the server's word"),
    pytest.param("bob", "name-taken", id="in use"),
    pytest.param("BOB", "name-taken", id="case twin"),
    pytest.param("\uff42\uff4f\uff42", "name-taken", id="width twin"),
]


@pytest.mark.parametrize(("name", "code"), BAD_NAMES)
def test_row_26_bad_name_of_a_client_is_refused(people: People, name: str, code: str) -> None:
    bob, cat = chatting(people)
    ann = people.wire(hello(name))
    assert ann.record(Refused).code == code
    assert ann.rest() == b""
    chat_goes_on(bob, cat)


@pytest.mark.parametrize(("name", "code"), BAD_NAMES)
def test_row_26_bad_name_of_a_guest_is_refused(people: People, name: str, code: str) -> None:
    bob, cat = chatting(people)
    ann = people.wire(name.encode() + b"\nand a message\n")
    answer = ann.rest()
    assert answer.startswith(b"error: ")
    assert answer.count(b"\n") == 1
    assert (b"in use" in answer) == (code == "name-taken")
    chat_goes_on(bob, cat)


def test_row_26_invalid_utf_8_in_a_name_is_no_name_of_another(people: People) -> None:
    _, cat = chatting(people)
    people.wire(b"b\xffb\nhi\n")
    assert cat.line() == "b\ufffdb: hi".encode()


NESTED = b'\x01{"t":"get","id":' + b"[" * 4000 + b"]" * 4000 + b"}\n"


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(b"\x01\n", id="empty"),
        pytest.param(b"\x01not JSON\n", id="not JSON"),
        pytest.param(b"\x01\xff\n", id="not UTF-8"),
        pytest.param(b"\x01[]\n", id="list"),
        pytest.param(b"\x01null\n", id="null"),
        pytest.param(b"\x01{}\n", id="no kind"),
        pytest.param(raw(t=1), id="kind is a number"),
        pytest.param(raw(t=["get"]), id="kind is a list"),
        pytest.param(NESTED, id="deep nesting"),
        pytest.param(raw(t="get", id=1, owner="bob"), id="missing field"),
        pytest.param(raw(t="get", id="1", owner="bob", file="x"), id="number as text"),
        pytest.param(raw(t="get", id=True, owner="bob", file="x"), id="number as truth"),
        pytest.param(raw(t="get", id=1.0, owner="bob", file="x"), id="number as fraction"),
        pytest.param(raw(t="get", id=-1, owner="bob", file="x"), id="negative number"),
        pytest.param(raw(t="get", id=2**63, owner="bob", file="x"), id="number of 64 bits"),
        pytest.param(b'\x01{"t":"get","id":' + b"9" * 8000 + b"}\n", id="number of 8,000 digits"),
        pytest.param(b'\x01{"t":"get","id":NaN,"owner":"bob","file":"x"}\n', id="NaN"),
        pytest.param(raw(t="get", id=1, owner=["bob"], file="x"), id="text as list"),
        pytest.param(raw(t="get", id=1, owner="bob", file="\ud800"), id="lone surrogate"),
        pytest.param(raw(t="have", ticket="f0", size=1), id="no algorithms"),
        pytest.param(raw(t="have", ticket="f0", size=1, algorithms="sha256"), id="algorithms as text"),
        pytest.param(raw(t="have", ticket="f0", size=1, algorithms=["a"] * 1000), id="a thousand algorithms"),
        pytest.param(raw(t="have", ticket="f0", size=1, algorithms=["a" * 1000]), id="long algorithm"),
        pytest.param(raw(t="have", ticket="f0", size=1, algorithms=[["a"]]), id="algorithm as list"),
    ],
)
def test_row_27_malformed_record_is_an_error_with_a_code(
    people: People, capfd: pytest.CaptureFixture[str], record: bytes
) -> None:
    bob, cat = chatting(people)
    ann = people.member("ann")
    ann.send(record)
    assert ann.record(Error).code == Code.BAD_RECORD
    assert ann.rest() == b""
    chat_goes_on(bob, cat)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "record",
    [
        Hello(1, "ann", 0),
        Hello(1, "eve", 0),
        Welcome(1, "ann"),
        Want("0" * 32, "ann", "x"),
        Take(1, "0" * 32, 1, (), "0" * 32, ("sha256",)),
        Dial("0" * 32, "0" * 32),
        Error("x", "y"),
        Relay("0" * 32),
        Pull("0" * 32, "sha256", 0, ""),
        Wait(),
        File(1, 0),
    ],
    ids=lambda record: type(record).__name__.lower(),
)
def test_row_27_record_where_it_is_not_allowed_is_an_error(people: People, record: Record) -> None:
    bob, cat = chatting(people)
    ann = people.member("ann")
    ann.tell(record)
    assert ann.record(Error).code == Code.UNEXPECTED
    assert ann.rest() == b""
    chat_goes_on(bob, cat)


@pytest.mark.parametrize(
    ("first", "code"),
    [
        pytest.param(encode(Get(1, "bob", "x")), Code.UNEXPECTED, id="get"),
        pytest.param(encode(Have("0" * 32, 1, ("sha256",))), Code.UNEXPECTED, id="have"),
        pytest.param(encode(Go()), Code.UNEXPECTED, id="go"),
        pytest.param(raw(t="unknown"), Code.UNEXPECTED, id="unknown kind"),
        pytest.param(b"\x01{\n", Code.BAD_RECORD, id="malformed"),
        pytest.param(raw(t="hello", v=1, name=["ann"], listen=0), Code.BAD_RECORD, id="name is a list"),
        pytest.param(raw(t="hello", v=1, name="ann"), Code.BAD_RECORD, id="no port"),
        pytest.param(raw(t="hello", v="1", name="ann", listen=0), Code.BAD_RECORD, id="version is text"),
    ],
)
def test_row_27_first_line_that_is_no_hello_is_refused(people: People, first: bytes, code: Code) -> None:
    bob, cat = chatting(people)
    ann = people.wire(first)
    assert ann.record(Refused).code == code
    assert ann.rest() == b""
    chat_goes_on(bob, cat)


@pytest.mark.attack(37)
@pytest.mark.parametrize(
    "first",
    [
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n\r\nhello everyone\nclick here\n" * 1000,
        b"GET /\r\nclick here\n",
        b"SSH-2.0-OpenSSH_9.2\r\nclick here\n",
        b"EHLO a.example\r\nclick here\n",
        b"\x16\x03\x01\nbob\nclick here\n",
        b"\x16",
    ],
    ids=lambda first: ascii(first[:20]),
)
def test_other_protocol_is_refused_with_one_line_and_said_to_nobody(people: People, first: bytes) -> None:
    bob, cat = chatting(people)
    page = people.wire(first)
    assert b"error: " in page.line()
    page.send(b"click here\n")
    assert page.rest() == b""
    chat_goes_on(bob, cat)


def test_row_28_member_that_never_reads_is_dropped_with_a_final_error(
    people: People, server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    bob, cat = chatting(people)
    deaf = people.member("deaf")
    (session,) = (one for one in server._sessions if one.name == "deaf")
    session._outbox._most = 64 * 1024
    block, sessions = b"y" * 999 + b"\n", len(server._sessions)
    while len(server._sessions) == sessions and not _has_finished(server, "deaf"):
        cat.send(block * 64)
        for _ in range(64):
            assert bob.line() == b"cat: " + block[:-1]
    deaf.send(b"words of one who is as good as gone\n")
    *_, last = deaf.rest().splitlines()
    assert last == encode(Error(Code.SLOW_CONSUMER, "too much was waiting unread: read faster")).rstrip()
    assert [one.getMessage() for one in caplog.records] == ["dropped deaf at 127.0.0.1: it reads too slowly"]
    chat_goes_on(bob, cat)


def _has_finished(server: ChatServer, name: str) -> bool:
    return any(one.name == name and one._outbox.finished for one in server._sessions)


def test_row_30_records_that_cost_much_are_read_few_at_once_and_text_in_large_blocks(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, cat = chatting(people)
    sizes: list[int] = []
    receive = ServerWire.receive

    def spy(wire: ServerWire, data: bytes) -> list[Event]:
        sizes.append(len(data))
        return receive(wire, data)

    monkeypatch.setattr(ServerWire, "receive", spy)
    flooder = people.wire(hello("dan") + raw(t="of another version") * 2000)
    flooder.send(b"done\n")
    assert cat.line() == b"dan: done"
    assert max(sizes) == RECEIVE_SIZE_OF_RECORDS
    flooder.send(b"x\n" * RECEIVE_SIZE)
    for _ in range(RECEIVE_SIZE):
        assert cat.line() == b"dan: x"
    assert max(sizes) > RECEIVE_SIZE_OF_RECORDS


# --- asking for files -------------------------------------------------------------------------


def introduced(people: People) -> tuple[Wire, Wire, Take]:
    """A requester, an owner who granted, and what the requester may take."""
    ann, owner = people.member("ann"), people.member("dan", listen=5000)
    ann.tell(Get(1, "dan", "file"))
    owner.tell(Have(owner.record(Want).ticket, 5, ("blake3", "sha256")))
    return ann, owner, ann.record(Take)


def at_the_relay(people: People, key: str) -> Wire:
    return people.wire(encode(Relay(key)))


def relayed(people: People) -> tuple[Wire, Wire]:
    """The two sides of a relayed connection."""
    _, owner, take = introduced(people)
    requester_side = at_the_relay(people, take.key)
    owner_side = at_the_relay(people, owner.record(Dial).key)
    requester_side.record(Go)
    owner_side.record(Go)
    return requester_side, owner_side


def test_request_is_passed_on_and_answered(people: People) -> None:
    _, _, take = introduced(people)
    assert (take.id, take.size, take.direct) == (1, 5, (("127.0.0.1", 5000),))
    assert take.algorithms == ("blake3", "sha256")


def test_refusal_is_passed_on(people: People) -> None:
    ann, dan = people.member("ann"), people.member("dan", listen=5000)
    ann.tell(Get(7, "dan", "file"))
    dan.tell(Refuse(dan.record(Want).ticket, Code.NOT_FOUND, "\x1b[31m"))
    assert ann.record(Fail) == Fail(7, Code.NOT_FOUND, "the owner has no such file to give")


def test_chat_goes_on_while_a_request_waits(people: People) -> None:
    ann, dan = people.member("ann"), people.member("dan", listen=5000)
    ann.tell(Get(7, "dan", "file"))
    dan.record(Want)
    chat_goes_on(ann, dan, ("ann", "dan"))


@pytest.mark.parametrize(
    ("owner", "code"),
    [("nobody", Code.UNKNOWN_OWNER), ("ann", Code.OWN_FILE), ("bob", Code.NO_FILES)],
    ids=["unknown owner", "own file", "guest"],
)
def test_row_31_request_that_leads_nowhere_is_answered(people: People, owner: str, code: Code) -> None:
    bob, cat = chatting(people)
    ann = people.member("ann")
    ann.tell(Get(3, owner, "file"))
    assert ann.record(Fail).code == code
    chat_goes_on(bob, cat)


def test_row_31_thousands_of_requests_are_each_answered(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "MAX_REQUESTS", 16)
    bob, cat = chatting(people)
    ann, dan = people.member("ann"), people.member("dan", listen=5000)
    ann.send(b"".join(encode(Get(number, "dan", "file")) for number in range(3000)))
    assert [ann.record(Fail) for _ in range(16, 3000)] == [
        Fail(number, Code.TOO_MANY, sentence(Code.TOO_MANY)) for number in range(16, 3000)
    ]
    chat_goes_on(bob, cat)
    dan.close()
    assert [ann.line() for _ in range(2)] == [b"cat: ping", b"bob: pong"]
    assert [ann.record(Fail).id for _ in range(16)] == list(range(16))


@pytest.mark.parametrize("leave", [lambda sock: sock.close(), reset], ids=["closed", "reset"])
def test_row_32_owner_leaves_in_the_middle(people: People, leave: Callable[[socket.socket], None]) -> None:
    bob, cat = chatting(people)
    ann, dan = people.member("ann"), people.member("dan", listen=5000)
    ann.tell(Get(1, "dan", "file"))
    dan.record(Want)
    leave(dan.sock)
    assert ann.record(Fail).code == Code.OWNER_LEFT
    chat_goes_on(bob, cat)


def test_row_32_owner_leaves_while_the_requester_waits_at_the_relay(people: People) -> None:
    bob, cat = chatting(people)
    _, owner, take = introduced(people)
    side = at_the_relay(people, take.key)
    owner.record(Dial)
    owner.close()
    assert side.record(Sorry).code == Code.OWNER_LEFT
    assert side.rest() == b""
    chat_goes_on(bob, cat)


def test_row_32_requester_leaves_in_the_middle(people: People) -> None:
    bob, cat = chatting(people)
    ann, owner, take = introduced(people)
    side = at_the_relay(people, take.key)
    key = owner.record(Dial).key
    ann.close()
    assert side.record(Sorry).code == Code.INTERRUPTED
    assert at_the_relay(people, key).record(Sorry).code == Code.BAD_TICKET
    owner.tell(Have(take.ticket, 5, ("sha256",)))  # too late, and harmless
    chat_goes_on(bob, cat)
    owner.send(b"here\n")
    assert bob.line() == b"dan: here"


# --- relayed connections ----------------------------------------------------------------------


def test_relayed_sides_hear_each_other_and_nothing_else(people: People) -> None:
    one, other = relayed(people)
    one.send(b"\x01\x00raw\xff\n")
    assert other.line() == b"\x01\x00raw\xff"
    other.send(b"back\n")
    assert one.line() == b"back"


@pytest.mark.parametrize("key", ["", "0" * 32, "x" * 8000], ids=["empty", "guess", "long"])
def test_row_17_guessed_key_is_refused(people: People, key: str) -> None:
    bob, cat = chatting(people)
    _, owner, take = introduced(people)
    side = at_the_relay(people, key)
    assert side.record(Sorry).code == Code.BAD_TICKET
    assert side.rest() == b""
    chat_goes_on(bob, cat)
    assert [owner.line(), owner.line()] == [b"cat: ping", b"bob: pong"]
    at_the_relay(people, take.key)
    owner.record(Dial)  # the rightful peer still gets through


def test_row_17_key_is_good_once_and_for_one_side(people: People) -> None:
    _, owner, take = introduced(people)
    rightful = at_the_relay(people, take.key)
    key = owner.record(Dial).key
    assert at_the_relay(people, take.key).record(Sorry).code == Code.BAD_TICKET
    assert at_the_relay(people, take.ticket).record(Sorry).code == Code.BAD_TICKET
    owner_side = at_the_relay(people, key)
    rightful.record(Go)
    owner_side.record(Go)
    assert at_the_relay(people, key).record(Sorry).code == Code.BAD_TICKET


@pytest.mark.parametrize("vanish", [lambda sock: sock.close(), reset], ids=["closed", "reset"])
@pytest.mark.parametrize("who", [0, 1], ids=["requester", "owner"])
def test_row_20_side_that_vanishes_at_the_relay(
    people: People, who: int, vanish: Callable[[socket.socket], None]
) -> None:
    bob, cat = chatting(people)
    sides = relayed(people)
    vanish(sides[who].sock)
    with contextlib.suppress(ConnectionResetError):
        assert sides[1 - who].rest() == b""
    chat_goes_on(bob, cat)


def test_row_20_data_connection_that_ends_before_it_is_joined(people: People) -> None:
    bob, cat = chatting(people)
    _, owner, take = introduced(people)
    at_the_relay(people, take.key).close()
    side = at_the_relay(people, owner.record(Dial).key)
    assert side.rest() == encode(Go())
    chat_goes_on(bob, cat)


@pytest.mark.parametrize(("cap", "code"), [("MAX_RELAYS", Code.RELAY_BUSY), ("MAX_RELAYS_EACH", Code.TOO_MANY)])
def test_row_31_relay_that_is_full_is_told_to_both_sides(
    people: People, monkeypatch: pytest.MonkeyPatch, cap: str, code: Code
) -> None:
    bob, cat = chatting(people)
    _, owner, take = introduced(people)
    requester_side = at_the_relay(people, take.key)
    key = owner.record(Dial).key
    monkeypatch.setattr(relay, cap, 0)
    owner_side = at_the_relay(people, key)
    for side in (requester_side, owner_side):
        assert side.record(Sorry) == Sorry(code, sentence(code))
        assert side.rest() == b""
    chat_goes_on(bob, cat)


def test_row_31_user_with_too_many_relays_can_ask_again_when_one_has_ended(
    people: People, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "MAX_RELAYS_EACH", 1)
    ann, owner, take = introduced(people)
    sides = [at_the_relay(people, take.key), at_the_relay(people, owner.record(Dial).key)]
    sides[0].record(Go)
    assert at_the_relay(people, granted(ann, owner).key).record(Sorry).code == Code.TOO_MANY
    for side in sides:
        side.close()
    until(lambda: server.relaying == 0)
    at_the_relay(people, granted(ann, owner).key)
    owner.record(Dial)


def granted(ann: Wire, owner: Wire) -> Take:
    """What ann may take from dan once more."""
    ann.tell(Get(2, "dan", "file"))
    owner.tell(Have(owner.record(Want).ticket, 5, ("sha256",)))
    return ann.record(Take)


def test_row_32_relayed_file_goes_on_when_both_users_leave(people: People, server: ChatServer) -> None:
    bob, cat = chatting(people)
    ann, owner, take = introduced(people)
    one = at_the_relay(people, take.key)
    other = at_the_relay(people, owner.record(Dial).key)
    one.record(Go)
    other.record(Go)
    ann.close()
    owner.close()
    until(lambda: len(server._sessions) == 2)
    other.send(b"the rest\n")
    assert one.line() == b"the rest"
    chat_goes_on(bob, cat)


def test_row_32_requester_whose_time_is_up_as_the_owner_comes_is_served(
    people: People, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob, cat = chatting(people)
    _, owner, take = introduced(people)
    one = at_the_relay(people, take.key)
    key = owner.record(Dial).key
    (waiting,) = (greenlet for session, greenlet in server._sessions.items() if not session.name)
    join = tickets.TicketOffice._join

    def join_too_late(*arguments: Any) -> None:
        gevent.kill(waiting, TransferError(Code.OWNER_SILENT))
        join(*arguments)

    monkeypatch.setattr(tickets.TicketOffice, "_join", join_too_late)
    other = at_the_relay(people, key)
    one.record(Go)
    other.record(Go)
    other.send(b"all of it\n")
    assert one.line() == b"all of it"
    chat_goes_on(bob, cat)


def test_row_31_others_have_their_turn_between_the_requests_of_one_member(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    handled: list[int] = []
    monkeypatch.setattr(tickets.TicketOffice, "ask", lambda _office, _requester, get: handled.append(get.id))
    ann, bob = people.member("ann"), people.wire(b"bob\n")
    requests = [encode(Get(number, "nobody", "file")) for number in range(900)]  # all of them come in one read
    people.wire(hello("eve") + b"".join(requests))
    until(lambda: handled)
    bob.send(b"hi\n")
    assert ann.line() == b"bob: hi"
    assert len(handled) < len(requests)


# --- what floods and broken logs must not do ----------------------------------------------------


class BrokenLog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise OSError(record.getMessage())


def test_row_28_log_that_fails_costs_nobody_a_message(people: People, server: ChatServer, capfd: Any) -> None:
    log = logging.getLogger("greenchat.server")
    handler = BrokenLog()
    log.addHandler(handler)
    try:
        slow = people.member("slow")  # hears first, and so is dropped before the others have heard
        ann, bob = people.member("ann"), people.member("bob")
        line = b"x" * 4000
        talking = gevent.spawn(lambda: ann.send((line + b"\n") * 1000))
        assert [bob.line() for _ in range(1000)] == [b"ann: " + line] * 1000
        talking.join()
        until(lambda: server._context.directory.find("slow") is None)
        assert slow.sock.fileno() >= 0
    finally:
        log.removeHandler(handler)
    assert "dropped slow" in capfd.readouterr().err  # what becomes of it is the log's business


def test_row_30_many_who_speak_at_once_fill_no_memory(server: ChatServer, people: People) -> None:
    witness, wires = people.member("witness"), [people.member(f"m{number}") for number in range(60)]
    for wire in wires:
        wire.send(b"x" * 8000 + b"\n")  # nobody reads, and each would have bytes of its own for what all others say
    for _ in wires:
        assert witness.line().endswith(b": " + b"x" * 8000)
    backlogs = [one._outbox._backlog for one in server._sessions if one._outbox._backlog]
    kept = {id(_of(block)): len(_of(block)) for backlog in backlogs for block in backlog._blocks}
    assert sum(kept.values()) < 2 * len(wires) * MAX_PIECE


def _of(block: bytes | memoryview) -> bytes:
    """The bytes that are kept for *block*'s sake."""
    return cast(bytes, block.obj) if isinstance(block, memoryview) else block


def test_row_30_flood_of_single_lines_drops_nobody_who_reads(server: ChatServer, people: People) -> None:
    flooder, reader = people.member("flooder"), people.member("reader")
    line = b"x" * 8000

    def flood() -> None:
        for _ in range(2000):
            flooder.send(line + b"\n")

    flooding = gevent.spawn(flood)
    for _ in range(2000):
        assert reader.line() == b"flooder: " + line
        gevent.sleep(0.001)  # 8 MB/s at most
    flooding.join()


def test_row_30_rate_counts_what_is_said_with_the_name() -> None:
    with ChatServer(member_rate=20_000) as server:
        ann = Wire(server.port)
        ann.send(hello("ann"))
        ann.record(Welcome)
        begun = time.monotonic()
        for _ in range(3):  # each some 45,000, and 80,000 in all are free
            bob = Wire(server.port)
            bob.send(b"bob\n" + b"\n" * 700)
            assert [ann.line() for _ in range(700)] == [b"bob: "] * 700
            bob.close()
            until(lambda: server._context.directory.find("bob") is None)
        ann.close()
        assert time.monotonic() - begun > 2


@pytest.mark.parametrize("kind", [b'\x01{"t":"new"}\n', b'\x01{"t":"new"}\nhi\n'], ids=["records", "records and text"])
def test_row_30_others_have_a_turn_within_a_flood_of_records(
    people: People, kind: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = ServerWire.receive

    def receive(wire: ServerWire, data: bytes) -> list[Event]:
        sizes.append(len(data))
        return real(wire, data)

    monkeypatch.setattr(ServerWire, "receive", receive)
    ann, bob = people.member("ann"), people.member("bob")
    ann.send(kind * 5000 + b"done\n")
    while bob.line() != b"ann: done":
        pass
    assert sum(sizes) > 5000 * len(kind)
    assert max(sizes) <= RECEIVE_SIZE_OF_RECORDS


def test_last_line_of_a_guest_counts_without_its_end_unless_it_was_cut_off(people: People) -> None:
    bob = people.member("bob")
    ann, eve = people.wire(b"ann\n1\n2"), people.wire(b"eve\n1\n2")
    assert sorted([bob.line(), bob.line()]) == [b"ann: 1", b"eve: 1"]
    reset(eve.sock)
    ann.sock.shutdown(socket.SHUT_WR)
    assert bob.line() == b"ann: 2"
    people.member("cat").send(b"3\n")
    assert bob.line() == b"cat: 3"


# --- who pays ---------------------------------------------------------------------------------


class Account:
    """Stands in for a rate limit, and only counts."""

    rate = 1024.0
    rested = True

    def __init__(self) -> None:
        self.size = 0

    def pause(self, size: int) -> float:
        self.size += size
        return 0.0


@pytest.mark.attack(45)
@pytest.mark.parametrize("answer", ["refuse", "have"])
def test_requester_pays_for_a_request_and_the_owner_nothing_for_its_answer(
    server: ChatServer, people: People, answer: str
) -> None:
    ann, bob = people.member("ann"), people.member("bob", listen=5000)
    accounts = {"ann": Account(), "bob": Account()}
    for one in server._sessions:
        one._limit = accounts[one.name]  # type: ignore[assignment]  # it does what is needed of it
    for number in range(50):
        ann.tell(Get(number, "bob", "file"))
        ticket = bob.record(Want).ticket
        if answer == "refuse":
            bob.tell(Refuse(ticket, Code.NOT_FOUND, sentence(Code.NOT_FOUND)))
            ann.record(Fail)
        else:
            bob.tell(Have(ticket, 5, ("blake3", "sha256")))
            ann.record(Take)
    assert accounts["ann"].size > 50 * ASK_COST
    assert accounts["bob"].size <= 0
    before = accounts["bob"].size
    bob.tell(Refuse("0" * 32, Code.NOT_FOUND, ""))
    bob.tell(Ping())
    bob.record(Pong)
    until(lambda: accounts["bob"].size > before + 2 * LINE_COST)  # what answers nothing counts
