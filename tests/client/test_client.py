import itertools
from pathlib import Path

import gevent
import pytest
from client.owners import Alone
from conftest import People, Stub, until

from greenchat import ChatClient, ChatServer, Message, Received, Route, Served
from greenchat.client import client as client_module
from greenchat.client import inbox
from greenchat.errors import (
    BadName,
    Code,
    ConnectError,
    GreenchatError,
    ListenError,
    ProtocolError,
    Refused,
    ServerGone,
    TransferError,
)
from greenchat.protocol.codec import encode
from greenchat.protocol.limits import GOODBYE_SECONDS, MAX_LINE
from greenchat.protocol.records import Error, Get


def heard(client: ChatClient, count: int) -> list[str]:
    """The next messages."""
    return [str(message) for message in itertools.islice(client.messages(), count)]


def test_message_of_one_is_heard_by_the_others_alone(people: People) -> None:
    ann, bob, cat = (people.client(name) for name in ("ann", "bob", "cat"))
    ann.send("hello!")
    assert heard(bob, 1) == heard(cat, 1) == ["ann: hello!"]
    bob.send("hi ann")
    assert heard(ann, 1) == ["bob: hi ann"]


def test_message_knows_its_sender(people: People) -> None:
    ann, bob = people.client("ann"), people.client("bob")
    ann.send("time: 10:30")
    assert next(bob.messages()) == Message("ann", "time: 10:30")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("", "", id="empty"),
        pytest.param("  spaces  ", "  spaces  ", id="spaces"),
        pytest.param("Gr\xfc\xdfe \U0001f600", "Gr\xfc\xdfe \U0001f600", id="any script"),
        pytest.param("two\nlines", "two\u240alines", id="line end"),
        pytest.param('\x01{"t":"get"}', '\u2401{"t":"get"}', id="record"),
        pytest.param("\x1b[2J", "\u241b[2J", id="ESC"),
        pytest.param("\ud800", "?", id="lone surrogate"),
        pytest.param("x" * MAX_LINE, "x" * MAX_LINE, id="longest"),
    ],
)
def test_text_is_one_safe_line(people: People, text: str, shown: str) -> None:
    ann, bob = people.client("ann"), people.client("bob")
    ann.send(text)
    ann.send("next")
    assert heard(bob, 2) == [f"ann: {shown}", "ann: next"]


def test_text_that_is_too_long_is_an_error_and_nothing_is_sent(people: People) -> None:
    ann, bob = people.client("ann"), people.client("bob")
    with pytest.raises(ProtocolError, match="send it in parts"):
        ann.send("x" * (MAX_LINE + 1))
    ann.send("next")
    assert heard(bob, 1) == ["ann: next"]


def test_messages_of_many_are_in_one_order_for_all(people: People) -> None:
    talkers = [people.client(f"n{number}") for number in range(4)]
    guest, ear = people.wire(b"ear1\n"), people.client("ear2")
    until(lambda: people._server._rooms.counts() == (("lobby", 6),))
    gevent.joinall([gevent.spawn(_talk, one) for one in talkers], raise_error=True)
    first = [guest.line().decode() for _ in range(400)]
    assert first == heard(ear, 400)
    for number, one in enumerate(talkers):
        assert [line for line in first if line.startswith(f"n{number}: ")] == [f"n{number}: {n}" for n in range(100)]
        assert heard(one, 300) == [line for line in first if not line.startswith(f"n{number}: ")]


def _talk(client: ChatClient) -> None:
    for number in range(100):
        client.send(str(number))
        gevent.sleep(0)


def test_name_is_as_the_server_has_it(people: People) -> None:
    assert people.client("Zoe\u0308").name == "Zo\xeb"


def test_context_manager_joins_and_leaves(server: ChatServer, people: People, tmp_path: Path) -> None:
    bob = people.client("bob")
    with ChatClient("ann", server.port, share=tmp_path) as ann:
        ann.send("hi")
        assert ann.listen > 0
    assert heard(bob, 1) == ["ann: hi"]
    until(lambda: len(server._sessions) == 1)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_server_is_reached_by_any_of_its_names(server: ChatServer, people: People, tmp_path: Path, host: str) -> None:
    (people.home("bob") / "file").write_bytes(b"hello")
    people.client("bob", host=host)
    with ChatClient("ann", server.port, host=host, share=tmp_path, into=tmp_path, route=Route.DIRECT) as ann:
        assert ann.fetch("bob", "file").size == 5


def test_serving_while_chatting(people: People) -> None:
    content, served = b"0123456789" * 1_000_000, list[Served]()
    (people.home("bob") / "file").write_bytes(content)
    ann, bob = people.client("ann"), people.client("bob", on_served=served.append)
    request = gevent.spawn(ann.fetch, "bob", "file")
    for number in range(50):
        bob.send(f"b{number}")
        ann.send(f"a{number}")
        assert heard(ann, 1) == [f"bob: b{number}"]
        assert heard(bob, 1) == [f"ann: a{number}"]
    assert request.get() == Received("bob", people.home("ann") / "file", len(content), None, unchanged=False)
    assert (people.home("ann") / "file").read_bytes() == content
    until(lambda: served)
    assert served == [Served("ann", "file", len(content), None)]


# --- getting in -------------------------------------------------------------------------------


def test_name_in_use_is_refused_and_the_holder_undisturbed(server: ChatServer, people: People) -> None:
    ann, bob = people.client("ann"), people.client("bob")
    with pytest.raises(Refused) as refusal:
        people.client("ANN", share=people.home("ann"))
    assert refusal.value.code == Code.NAME_TAKEN
    bob.send("hi")
    assert heard(ann, 1) == ["bob: hi"]


@pytest.mark.parametrize("name", ["", "a:b", "x" * 33, "a\nb", " ann"])
def test_row_26_bad_name_is_refused(server: ChatServer, tmp_path: Path, name: str) -> None:
    with pytest.raises(BadName) as refusal:
        ChatClient(name, server.port, share=tmp_path).start()
    assert refusal.value.code == Code.BAD_NAME


def test_each_message_comes_once_however_it_is_asked_for(people: People) -> None:
    ann, bob = people.client("ann"), people.wire(b"bob\none\ntwo\nthree\n")
    assert [next(ann.messages()).text for _ in range(3)] == ["one", "two", "three"]
    bob.send(b"four\n")
    assert next(ann.messages()).text == "four"


def test_route_that_is_none_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pigeon"):
        ChatClient("ann", 1, share=tmp_path, route="pigeon")  # type: ignore[arg-type]  # as a careless program may


def test_fetching_after_closing_is_an_error_at_once(people: People) -> None:
    ann = people.client("ann")
    ann.close()
    with pytest.raises(ServerGone):
        ann.fetch("bob", "file")


def test_client_starts_once(people: People) -> None:
    ann = people.client("ann")
    with pytest.raises(RuntimeError, match="starts once"):
        ann.start()
    ann.send("still here")
    ann.close()
    with pytest.raises(RuntimeError, match="starts once"):
        ann.start()


def test_client_that_did_not_start_is_not_connected(tmp_path: Path) -> None:
    client = ChatClient("ann", 1, share=tmp_path)
    with pytest.raises(ServerGone, match="not connected"):
        client.send("hi")
    with pytest.raises(ServerGone, match="not connected"):
        client.fetch("bob", "file")


def test_waiting_ends_with_closing_or_with_the_server(alone: Alone, people: People) -> None:
    ann = people.client("ann")
    waiting = gevent.spawn(ann.wait)
    ann.close()
    waiting.get()
    alone.server.close()
    with pytest.raises(ServerGone):
        alone.client.wait()


def test_server_that_is_absent_is_an_error(stub: Stub, tmp_path: Path) -> None:
    stub.close()
    with pytest.raises(ConnectError, match=f"port {stub.port}: connection refused"):
        ChatClient("ann", stub.port, share=tmp_path).start()


def test_port_in_use_is_an_error(people: People, stub: Stub) -> None:
    with pytest.raises(ListenError, match=f"port {stub.port} is in use"):
        people.client("ann", listen=stub.port)
    people.client("ann")  # the name was not taken by that


def test_share_that_is_not_there_is_an_error(people: People, tmp_path: Path) -> None:
    with pytest.raises(TransferError, match=r"cannot share .*: no such file or directory"):
        people.client("ann", share=tmp_path / "nowhere")


def test_listens_on_the_given_port(people: People) -> None:
    first = people.client("ann")
    first.close()
    assert people.client("bob", listen=first.listen).listen == first.listen


def test_row_36_another_protocol_is_an_error(stub: Stub, tmp_path: Path) -> None:
    starting = gevent.spawn(_start, ChatClient("ann", stub.port, share=tmp_path))
    stub.accept().send(b"220 mail.example ESMTP\r\n")
    assert "not a greenchat server" in str(starting.get())


def _start(client: ChatClient) -> object:
    try:
        client.start()
    except ConnectError as error:
        return error
    return None


# --- the end ----------------------------------------------------------------------------------


def test_closing_delivers_what_was_sent(people: People) -> None:
    ann, bob = people.client("ann"), people.client("bob")
    for number in range(1000):
        ann.send(f"{number} " + "x" * 1000)
    ann.close()
    assert [line.split()[1] for line in heard(bob, 1000)] == [str(number) for number in range(1000)]


def test_closing_waits_until_a_slow_server_has_what_was_sent(alone: Alone) -> None:
    text = "x" * 8000
    for _ in range(200):  # more than the server's end holds
        alone.client.send(text)
    alone.server.send(b"bob: unread\n")  # closing with this unread would throw away what is on its way
    closing = gevent.spawn(alone.client.close)
    assert alone.server.rest() == (text + "\n").encode() * 200
    alone.server.close()
    closing.get()


def test_closing_ends_the_messages(people: People) -> None:
    ann = people.client("ann")
    reading = gevent.spawn(list, ann.messages())
    gevent.sleep(0)
    ann.close()
    assert reading.get() == []


def test_what_was_heard_before_closing_can_still_be_read(people: People) -> None:
    ann, bob = people.client("ann"), people.client("bob")
    bob.send("hi")
    until(lambda: ann._inbox._size)
    ann.close()
    assert [str(message) for message in ann.messages()] == ["bob: hi"]


def test_closing_twice_is_closing(people: People) -> None:
    ann = people.client("ann")
    ann.close()
    ann.close()


def test_closed_client_sends_nothing(people: People) -> None:
    ann = people.client("ann")
    ann.close()
    with pytest.raises(ServerGone):
        ann.send("hi")


def test_closing_what_never_started_does_nothing(tmp_path: Path) -> None:
    ChatClient("ann", 1, share=tmp_path).close()


def test_closing_what_was_refused_waits_for_nobody(server: ChatServer, people: People, tmp_path: Path) -> None:
    people.client("ann")
    refused = ChatClient("ann", server.port, share=tmp_path)
    with pytest.raises(Refused):
        refused.start()
    with gevent.Timeout(GOODBYE_SECONDS / 2):
        refused.close()


def test_name_is_free_after_closing(server: ChatServer, people: People) -> None:
    people.client("ann").close()
    until(lambda: not server._sessions)
    people.client("Ann")


def test_connection_that_is_lost_ends_the_messages_with_an_error(alone: Alone) -> None:
    alone.server.close()
    assert str(alone.gone()) == "the server is gone: the connection was lost"


def test_messages_before_the_loss_are_read_first(alone: Alone) -> None:
    alone.server.send(b"bob: last\n")
    alone.server.close()
    messages = alone.client.messages()
    assert next(messages) == Message("bob", "last")
    with pytest.raises(ServerGone):
        next(messages)
    alone.gone()


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (Error(Code.SLOW_CONSUMER, "ignored"), Code.SLOW_CONSUMER, "too much was waiting unread: read faster"),
        (Error("of-a-newer-version", "go \x1b[31m away"), Code.FAILED, "go \u241b[31m away"),
    ],
    ids=["a code that we know", "another"],
)
def test_last_words_of_the_server_are_told(alone: Alone, error: Error, code: Code, text: str) -> None:
    alone.server.send(encode(error) + b"bob: unheard\n")
    gone = alone.gone()
    assert gone.code == code
    assert str(gone) == f"the server closed the connection: {text}"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        pytest.param(b"\x01{}\n", Code.BAD_RECORD, id="malformed record"),
        pytest.param(encode(Get(1, "bob", "x")), Code.UNEXPECTED, id="a client's record"),
        pytest.param(b"x" * 30_000, Code.LINE_TOO_LONG, id="no line"),
    ],
)
def test_row_27_server_that_breaks_the_protocol_is_left(alone: Alone, sent: bytes, code: Code) -> None:
    alone.server.send(sent)
    gone = alone.gone()
    assert gone.code == code
    assert "the server broke the protocol" in str(gone)


def test_row_27_kinds_and_fields_of_a_newer_server_are_ignored(alone: Alone) -> None:
    alone.server.send(b'\x01{"t":"joined","name":"bob"}\nbob: hi\n')
    assert heard(alone.client, 1) == ["bob: hi"]
    alone.server.close()
    alone.gone()


def test_row_25_hostile_server_sends_nothing_unsafe(alone: Alone) -> None:
    alone.server.send(b"bob: \x1b[2J\xff\x00\n")
    assert heard(alone.client, 1) == ["bob: \u241b[2J\ufffd\u2400"]
    alone.server.close()
    alone.gone()


def test_row_33_server_that_shuts_down_is_told_of(server: ChatServer, people: People) -> None:
    ann, bob = people.client("ann"), people.client("bob")
    bob.send("hi")
    assert heard(ann, 1) == ["bob: hi"]
    stopping = gevent.spawn(server.stop)
    for one in (ann, bob):
        with pytest.raises(ServerGone, match="the server is shutting down"):
            list(one.messages())
        one.close()
    stopping.get()


def test_unread_messages_are_bounded_and_the_missed_are_counted(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "MAX_INBOX", 10_000)
    ann, bob = people.client("ann"), people.client("bob")
    for _ in range(100):
        bob.send("x" * 994)  # a thousand bytes with the name and the line end, so ten fit
        gevent.sleep(0)
    until(lambda: ann._inbox._size + 1000 * ann.missed == 100_000)
    assert ann.missed >= 90
    kept = heard(ann, 100 - ann.missed)
    assert kept == ["bob: " + "x" * 994] * len(kept)
    bob.send("now")
    assert heard(ann, 1) == ["bob: now"]


def test_closing_does_not_wait_long_for_a_server_that_hangs(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "GOODBYE_SECONDS", 0.01)
    with gevent.Timeout(1):
        alone.client.close()


def test_private_message_is_told_to_one_alone(people: People) -> None:
    told: list[Message] = []
    failed: list[GreenchatError] = []
    ann = people.client("ann", on_undelivered=failed.append)
    people.client("bob", on_private=told.append, room="tea")
    ann.send_private("Bob", "hi \x1b[31m")
    ann.send_private("nobody", "hi")
    until(lambda: told and failed)
    assert told == [Message("ann", "hi \u241b[31m")]
    assert failed[0].code == Code.UNKNOWN_USER


@pytest.mark.parametrize("letter", ["x", "ж", "名", '"'])
def test_private_message_may_be_as_long_as_any_other(people: People, letter: str) -> None:
    told: list[Message] = []
    ann = people.client("ann")
    people.client("bob", on_private=told.append)
    text = letter * (MAX_LINE // len(letter.encode()))
    ann.send_private("bob", text)
    until(lambda: told)
    assert told == [Message("ann", text)]
    with pytest.raises(ProtocolError) as refused:
        ann.send_private("bob", text + "xxx")
    assert refused.value.code is Code.LINE_TOO_LONG


def test_private_message_too_long_for_the_records_of_an_older_server_is_not_sent(alone: Alone) -> None:
    with pytest.raises(ProtocolError) as refused:
        alone.client.send_private("bob", "x" * MAX_LINE)
    assert refused.value.code is Code.LINE_TOO_LONG


def test_rooms_are_listed(people: People) -> None:
    ann = people.client("ann", room="Tea")
    for number in range(40):
        people.client(f"n{number}", room=f"room {number:02}")
    assert ann.rooms() == [*((f"room {number:02}", 1) for number in range(40)), ("Tea", 1)]


def test_room_of_no_good_name_is_refused(people: People) -> None:
    with pytest.raises(Refused) as refused:
        people.client("ann", room="a:b")
    assert refused.value.code == Code.BAD_NAME
