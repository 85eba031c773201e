import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import gevent
import pytest
from conftest import People, Stub, Wire, reset, until
from gevent import socket

from greenchat import ChatClient, ChatServer, GreenchatError, Received, Route
from greenchat.client import downloads
from greenchat.errors import BadName, Code, ProtocolError, ServerGone, TransferError
from greenchat.protocol.records import (
    SOH,
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
    Refuse,
    Refused,
    Relay,
    Sorry,
    Take,
    Want,
    encode,
)
from greenchat.transfer import channel, pump

BYTES = bytes(range(256)) * 4096
"""A file's content: every byte there is, over a mebibyte."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def outcome(client: ChatClient, owner: str, file: str, into: Path | None = None) -> Received | GreenchatError:
    """What becomes of a request."""
    try:
        return client.fetch(owner, file, into)
    except GreenchatError as error:
        return error


def fetching(client: ChatClient, owner: str = "dan", file: str = "file") -> "gevent.Greenlet[..., object]":
    return gevent.spawn(outcome, client, owner, file)


def code_of(request: "gevent.Greenlet[..., object]") -> Code:
    """Why a request failed."""
    error = request.get()
    assert isinstance(error, GreenchatError), error
    return error.code


def sharing(people: People, name: str, **files: bytes) -> ChatClient:
    """A client that owns *files*."""
    for file, content in files.items():
        (people.home(name) / file).write_bytes(content)
    return people.client(name)


class Owner:
    """An owner called dan whose every byte is spelled out, with a port of its own."""

    def __init__(self, people: People, stub: Stub) -> None:
        self._people = people
        self._stub = stub
        self.wire = people.member("dan", listen=stub.port)
        self.ticket = ""

    def grants(self, size: int = 5) -> None:
        self.ticket = self.wire.record(Want).ticket
        self.wire.tell(Have(self.ticket, size))

    def pulled(self) -> Wire:
        """The requester's connection, after it has shown its ticket."""
        self.grants()
        return self._shown(self._stub.accept())

    def _shown(self, end: Wire) -> Wire:
        assert end.record(Pull).ticket == self.ticket
        return end

    def dialled(self) -> Wire:
        """The relayed connection, after the requester has shown its ticket."""
        end = self._people.wire(encode(Relay(self.wire.record(Dial).key)))
        end.record(Go)
        return self._shown(end)


def gives(end: Wire, data: bytes) -> None:
    """Hand out a file as it should be."""
    end.send(encode(File(len(data), "sha256")) + data + encode(Done(sha256(data))))


@pytest.fixture
def dan(people: People, stub: Stub) -> Owner:
    return Owner(people, stub)


def nothing_is_there(people: People) -> bool:
    return not list(people.home("ann").iterdir())


def chat_goes_on(ann: ChatClient, dan: Owner) -> None:
    ann.send("still here")
    assert dan.wire.line() == b"ann: still here"


# --- files that arrive ------------------------------------------------------------------------


@pytest.mark.parametrize("route", Route)
@pytest.mark.parametrize("content", [b"", b"x", BYTES], ids=["empty", "one byte", "a mebibyte"])
def test_file_arrives_byte_for_byte(people: People, route: Route, content: bytes) -> None:
    sharing(people, "bob", file=content)
    ann = people.client("ann", route=route)
    home = people.home("ann")
    assert ann.fetch("bob", "file") == Received("bob", home / "file", len(content), None, unchanged=False)
    assert (home / "file").read_bytes() == content
    assert [path.name for path in home.iterdir()] == ["file"]


@pytest.mark.parametrize(("route", "direct"), [(Route.DIRECT, True), (Route.AUTO, True), (Route.RELAY, False)])
def test_route_is_as_told(people: People, dan: Owner, route: Route, *, direct: bool) -> None:
    request = fetching(people.client("ann", route=route))
    if direct:
        end = dan.pulled()
    else:
        dan.grants()
        end = dan.dialled()
    gives(end, b"hello")
    assert end.record(Got).digest == sha256(b"hello")
    assert isinstance(request.get(), Received)


def test_file_may_come_in_one_piece_or_in_many(people: People, dan: Owner) -> None:
    ann = people.client("ann")
    request = fetching(ann)
    end = dan.pulled()
    for byte in encode(File(5, "sha256")) + b"a\n\x01{}" + encode(Done(sha256(b"a\n\x01{}"))):
        end.send(bytes([byte]))
    request.get()
    assert (people.home("ann") / "file").read_bytes() == b"a\n\x01{}"


def test_fields_and_kinds_of_a_newer_version_are_ignored(people: People, dan: Owner) -> None:
    request = fetching(people.client("ann"))
    end = dan.pulled()
    end.send(b'\x01{"t":"queued","place":3}\n')
    end.send(b'\x01{"t":"file","size":1,"algorithm":"sha256","mtime":0,"mode":2541}\nx' + encode(Done(sha256(b"x"))))
    end.record(Got)
    assert isinstance(request.get(), Received)
    assert (people.home("ann") / "file").stat().st_mode & 0o7111 == 0


def test_many_files_at_once(people: People) -> None:
    files = {f"file{number}": f"{number} ".encode() * 20_000 for number in range(30)}
    sharing(people, "bob", **files)
    ann = people.client("ann")
    requests = [fetching(ann, "bob", file) for file in files]
    ann.send("meanwhile")
    assert all(isinstance(request.get(), Received) for request in requests)
    assert {path.name: path.read_bytes() for path in people.home("ann").iterdir()} == files


def test_files_go_both_ways_at_once(people: People) -> None:
    ann, bob = sharing(people, "ann", mine=BYTES), sharing(people, "bob", yours=BYTES[::-1])
    requests = [fetching(ann, "bob", "yours"), fetching(bob, "ann", "mine")]
    assert all(isinstance(request.get(), Received) for request in requests)
    assert (people.home("ann") / "yours").read_bytes() == BYTES[::-1]
    assert (people.home("bob") / "mine").read_bytes() == BYTES


def test_all_ask_at_once_and_move_in_order(people: People, dan: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "MAX_DOWNLOADS", 1)
    ann = people.client("ann")
    requests = [fetching(ann, "dan", f"file{number}") for number in range(3)]
    wants = [dan.wire.record(Want) for _ in requests]
    assert [want.file for want in wants] == ["file0", "file1", "file2"]
    for want in wants:
        dan.wire.tell(Refuse(want.ticket, Code.NOT_FOUND, ""))
    assert [code_of(request) for request in requests] == [Code.NOT_FOUND] * 3


def test_another_directory(people: People, tmp_path: Path) -> None:
    sharing(people, "bob", file=b"hello")
    (tmp_path / "there").mkdir()
    got = people.client("ann").fetch("bob", "file", tmp_path / "there")
    assert got.path == tmp_path / "there" / "file"
    assert got.path.read_bytes() == b"hello"
    assert nothing_is_there(people)


def test_directory_that_is_not_there_is_an_error(people: People, tmp_path: Path) -> None:
    sharing(people, "bob", file=b"hello")
    with pytest.raises(TransferError) as failure:
        people.client("ann").fetch("bob", "file", tmp_path / "nowhere")
    assert failure.value.code == Code.DISK


def test_what_was_there_is_kept(people: People) -> None:
    sharing(people, "bob", file=b"new")
    ann = sharing(people, "ann", file=b"old")
    got = ann.fetch("bob", "file")
    assert got.backup == people.home("ann") / "file.~1~"
    assert got.backup.read_bytes() == b"old"
    assert got.path.read_bytes() == b"new"


def test_same_file_is_left_alone(people: People) -> None:
    sharing(people, "bob", file=b"same")
    ann = sharing(people, "ann", file=b"same")
    before = (people.home("ann") / "file").stat()
    assert ann.fetch("bob", "file").unchanged
    assert (people.home("ann") / "file").stat().st_ino == before.st_ino


# --- ways to the owner ------------------------------------------------------------------------


def without_listener(people: People) -> ChatClient:
    """An owner whose port for file requests is closed."""
    bob = sharing(people, "bob", file=BYTES)
    for listener in bob._uploads._listeners:
        listener.stop()
    return bob


def test_relay_if_the_owners_listener_is_gone(people: People) -> None:
    without_listener(people)
    assert people.client("ann").fetch("bob", "file").size == len(BYTES)


def test_relay_if_the_owner_has_no_listener(people: People, dan: Owner) -> None:
    bob = people.member("bob")
    request = fetching(people.client("ann"), "bob")
    bob.tell(Have(bob.record(Want).ticket, 1))
    end = people.wire(encode(Relay(bob.record(Dial).key)))
    end.record(Go)
    end.record(Pull)
    gives(end, b"x")
    end.record(Got)
    assert isinstance(request.get(), Received)


ANOTHER_PROGRAM = [
    pytest.param(b"", id="closes"),
    pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="HTTP"),
    pytest.param(encode(Refused(Code.UNEXPECTED, "")), id="a chat server"),
    pytest.param(b"\x01{", id="half a record"),
    pytest.param(b"\x01{}\n", id="malformed record"),
    pytest.param(encode(Sorry(Code.BAD_TICKET, "")), id="another client"),
    pytest.param(b"\x00" * 100_000, id="no line"),
]


@pytest.mark.parametrize("answer", ANOTHER_PROGRAM)
def test_relay_if_another_program_answers_on_the_owners_port(people: People, answer: bytes) -> None:
    bob = without_listener(people)
    program = Stub(bob.listen)
    answering = gevent.spawn(_answer, program, answer)
    try:
        assert people.client("ann").fetch("bob", "file").size == len(BYTES)
    finally:
        answering.get()
        program.close()


def _answer(program: Stub, answer: bytes) -> None:
    end = program.accept()
    end.record(Pull)
    end.send(answer)
    end.close()


def test_relay_if_the_owners_port_is_silent(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "ANSWER_SECONDS", 0.2)
    bob = without_listener(people)
    silent = Stub(bob.listen)
    assert people.client("ann").fetch("bob", "file").size == len(BYTES)
    silent.close()


def test_direct_route_alone_has_no_relay_to_fall_back_on(people: People) -> None:
    without_listener(people)
    request = fetching(people.client("ann", route=Route.DIRECT), "bob")
    assert code_of(request) == Code.UNREACHABLE


def test_direct_route_to_an_owner_without_listener_is_an_error(people: People) -> None:
    bob = people.member("bob")
    request = fetching(people.client("ann", route=Route.DIRECT), "bob")
    bob.tell(Have(bob.record(Want).ticket, 1))
    assert code_of(request) == Code.UNREACHABLE


@pytest.mark.parametrize(
    ("host", "beyond"),
    [
        pytest.param("localhost", 0, id="a name"),
        pytest.param("", 0, id="no host"),
        pytest.param("a" * 64, 0, id="a name that can be none"),
        pytest.param("127.0.0.1", 0, id="a port that is too low"),
        pytest.param("127.0.0.1", 65536, id="a port that is too high"),
    ],
)
def test_row_18_client_goes_to_no_privileged_port_and_looks_no_name_up(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, beyond: int
) -> None:
    ann, server = with_server(stub, tmp_path)
    request = fetching(ann)
    if host == "127.0.0.1":  # as if the stub's were one of the privileged ports
        monkeypatch.setattr(downloads, "MIN_PORT", stub.port + 1)
    server.tell(Take(server.record(Get).id, "ticket", 1, ((host, stub.port + beyond),), "k"))
    assert stub.accept().record(Relay).key == "k"  # the direct way was passed over
    stub.close()
    server.close()
    assert code_of(request) == Code.INTERRUPTED
    ann.close()


def with_server(stub: Stub, home: Path) -> tuple[ChatClient, Wire]:
    """A client, and a server's end whose every byte is spelled out."""
    ann = ChatClient("ann", stub.port, share=home, into=home)
    starting = gevent.spawn(ann.start)
    server = stub.accept()
    server.line()
    server.send(b'\x01{"t":"welcome","v":1,"name":"ann"}\n')
    starting.get()
    return ann, server


# --- files that do not arrive -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "C:x", ".hidden", "x" * 256])
def test_bad_file_name_is_refused_before_anyone_is_asked(people: People, dan: Owner, name: str) -> None:
    ann = people.client("ann")
    with pytest.raises(BadName):
        ann.fetch("dan", name)
    chat_goes_on(ann, dan)  # the first thing that dan hears


@pytest.mark.parametrize(
    ("owner", "code"),
    [("nobody", Code.UNKNOWN_OWNER), ("ann", Code.OWN_FILE), ("bob", Code.NOT_FOUND), ("guest", Code.NO_FILES)],
)
def test_refusal_has_its_code(people: People, owner: str, code: Code) -> None:
    sharing(people, "bob")
    people.wire(b"guest\n")
    ann = people.client("ann")
    assert code_of(fetching(ann, owner)) == code
    assert nothing_is_there(people)


def test_code_of_a_newer_server_is_a_failure(stub: Stub, tmp_path: Path) -> None:
    ann, server = with_server(stub, tmp_path)
    request = fetching(ann)
    server.tell(Fail(server.record(Get).id, "quota-exceeded", "\x1b[31m"))
    assert code_of(request) == Code.FAILED
    assert "\x1b" not in str(request.get())
    server.close()
    ann.close()


def test_answers_to_what_nobody_asked_are_ignored(stub: Stub, tmp_path: Path) -> None:
    ann, server = with_server(stub, tmp_path)
    server.tell(Fail(99, Code.NOT_FOUND, ""))
    server.send(b"bob: hi\n")
    assert str(next(ann.messages())) == "bob: hi"
    server.close()
    ann.close()


def test_server_that_never_answers(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "ANSWER_SECONDS", 0.01)
    ann, server = with_server(stub, tmp_path)
    assert code_of(fetching(ann)) == Code.OWNER_SILENT
    server.close()
    ann.close()


def test_row_03_name_that_the_owner_gives_decides_nothing(people: People, dan: Owner) -> None:
    ann = people.client("ann")
    request = fetching(ann)
    end = dan.pulled()
    fields = {"t": "file", "size": 4, "algorithm": "sha256", "name": "../evil", "file": "evil", "path": "/tmp/evil"}
    end.send(b"\x01" + json.dumps(fields).encode() + b"\nevil" + encode(Done(sha256(b"evil"))))
    end.record(Got)
    received = request.get()
    assert isinstance(received, Received)
    assert received.path == people.home("ann") / "file"
    assert [path.name for path in people.home("ann").iterdir()] == ["file"]
    assert not (people.home("ann").parent / "evil").exists()
    chat_goes_on(ann, dan)


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("pic.jpg", "PIC.jpg"), id="case"),
        pytest.param(("caf\xe9", "cafe\u0301"), id="Unicode form"),
    ],
)
def test_row_05_twin_names_are_two_files(people: People, names: tuple[str, str]) -> None:
    sharing(people, "bob", **{names[0]: BYTES, names[1]: BYTES[::-1]})
    ann = people.client("ann")
    requests = [fetching(ann, "bob", name) for name in names]
    assert all(isinstance(request.get(), Received) for request in requests)
    assert (people.home("ann") / names[0]).read_bytes() == BYTES
    assert (people.home("ann") / names[1]).read_bytes() == BYTES[::-1]


def test_row_05_two_files_of_one_name_at_once_are_both_whole(people: People) -> None:
    sharing(people, "bob", file=BYTES)
    sharing(people, "cat", file=BYTES[::-1])
    ann = people.client("ann")
    requests = [fetching(ann, owner) for owner in ("bob", "cat")]
    assert all(isinstance(request.get(), Received) for request in requests)
    contents = {path.name: path.read_bytes() for path in people.home("ann").iterdir()}
    assert set(contents) == {"file", "file.~1~"}
    assert set(contents.values()) == {BYTES, BYTES[::-1]}


def test_row_05_one_file_twice_at_once_is_there_once(people: People) -> None:
    sharing(people, "bob", file=BYTES)
    ann = people.client("ann")
    for request in [fetching(ann, "bob") for _ in range(4)]:
        assert isinstance(request.get(), Received)
    assert {path.read_bytes() for path in people.home("ann").iterdir()} == {BYTES}


BROKEN = [
    pytest.param(b"", Code.INTERRUPTED, id="before the header"),
    pytest.param(b'\x01{"t":"fi', Code.INTERRUPTED, id="in the header"),
    pytest.param(encode(File(5, "sha256")), Code.INTERRUPTED, id="after the header"),
    pytest.param(encode(File(5, "sha256")) + b"hel", Code.INTERRUPTED, id="in mid-file"),
    pytest.param(encode(File(2**63 - 1, "sha256")) + b"hel", Code.INTERRUPTED, id="in a file of 2^63 bytes"),
    pytest.param(encode(File(5, "sha256")) + b"hello", Code.INTERRUPTED, id="before done"),
    pytest.param(encode(File(5, "sha256")) + b"hello" + b'\x01{"t":', Code.INTERRUPTED, id="in done"),
]


@pytest.mark.parametrize("vanish", [lambda sock: sock.close(), reset], ids=["closed", "reset"])
@pytest.mark.parametrize(("sent", "code"), BROKEN)
def test_row_20_owner_vanishes(
    people: People, dan: Owner, sent: bytes, code: Code, vanish: Callable[[socket.socket], None]
) -> None:
    ann = people.client("ann", route=Route.DIRECT)
    request = fetching(ann)
    end = dan.pulled()
    end.send(sent)
    vanish(end.sock)
    assert code_of(request) == code
    assert nothing_is_there(people)
    chat_goes_on(ann, dan)


@pytest.mark.parametrize(("sent", "code"), BROKEN)
def test_row_20_owner_vanishes_behind_the_relay(people: People, dan: Owner, sent: bytes, code: Code) -> None:
    ann = people.client("ann", route=Route.RELAY)
    request = fetching(ann)
    dan.grants()
    end = dan.dialled()
    end.send(sent)
    end.close()
    assert code_of(request) == code
    assert nothing_is_there(people)
    chat_goes_on(ann, dan)


HELLO = encode(File(5, "sha256"))


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        pytest.param(HELLO + b"hello" + encode(Done(sha256(b"jello"))), Code.MISMATCH, id="row 21, wrong digest"),
        pytest.param(HELLO + b"jello" + encode(Done(sha256(b"hello"))), Code.MISMATCH, id="row 21, bytes flipped"),
        pytest.param(HELLO + b"hello" + encode(Done("")), Code.MISMATCH, id="row 21, no digest"),
        pytest.param(HELLO + b"hello, more\n" + encode(Done(sha256(b"hello"))), Code.BAD_RECORD, id="more bytes"),
        pytest.param(HELLO + b"hello" + b"x" * 10_000, Code.LINE_TOO_LONG, id="no end of bytes"),
        pytest.param(HELLO + b"hello" + encode(Got("")), Code.UNEXPECTED, id="another record"),
        pytest.param(HELLO + b"hello" + encode(Sorry(Code.CHANGED, "")), Code.CHANGED, id="owner gives up at the end"),
        pytest.param(encode(Sorry(Code.NOT_FOUND, "")), Code.NOT_FOUND, id="owner gives up at once"),
        pytest.param(encode(Sorry("of-a-newer-version", "")), Code.FAILED, id="owner gives up for a new reason"),
        pytest.param(encode(File(5, "md5")) + b"hello", Code.BAD_VERSION, id="another algorithm"),
        pytest.param(SOH + b'{"t":"file","size":-1,"algorithm":"sha256"}\n', Code.BAD_RECORD, id="negative size"),
        pytest.param(SOH + b'{"t":"file","size":%d,"algorithm":"sha256"}\n' % (2**63), Code.BAD_RECORD, id="2^63"),
    ],
)
def test_row_19_owner_sends_something_else(people: People, dan: Owner, sent: bytes, code: Code) -> None:
    ann = people.client("ann", route=Route.DIRECT)
    request = fetching(ann)
    end = dan.pulled()
    end.send(sent)
    assert code_of(request) == code
    assert nothing_is_there(people)
    chat_goes_on(ann, dan)


@pytest.mark.parametrize("sent", [HELLO, HELLO + b"hel", HELLO + b"hello"], ids=["header", "mid-file", "before done"])
def test_row_19_owner_that_stalls_is_given_up(
    people: People, dan: Owner, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(pump, "STALL_SECONDS", 0.02)
    expect = channel.Channel.expect
    monkeypatch.setattr(channel.Channel, "expect", lambda end, kind, seconds=0.02: expect(end, kind, seconds))
    ann = people.client("ann", route=Route.DIRECT)
    request = fetching(ann)
    end = dan.pulled()
    end.send(sent)
    assert code_of(request) == Code.STALLED
    assert nothing_is_there(people)
    chat_goes_on(ann, dan)


def test_owner_that_does_not_hear_of_the_success_matters_not(
    people: People, dan: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = channel.Channel.send

    def send_no_got(self: channel.Channel, record: Record) -> None:
        if isinstance(record, Got):
            raise TransferError(Code.INTERRUPTED)
        send(self, record)

    monkeypatch.setattr(channel.Channel, "send", send_no_got)
    request = fetching(people.client("ann"))
    gives(dan.pulled(), b"hello")
    assert isinstance(request.get(), Received)


def test_row_32_owner_leaves_in_the_middle(people: People, dan: Owner) -> None:
    ann = people.client("ann")
    request = fetching(ann)
    dan.wire.record(Want)
    dan.wire.close()
    assert code_of(request) == Code.OWNER_LEFT


def test_row_20_owner_that_never_comes_to_the_relay(
    people: People, dan: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "MEET_SECONDS", 0.01)
    ann = people.client("ann", route=Route.RELAY)
    request = fetching(ann)
    dan.grants()
    dan.wire.record(Dial)
    assert code_of(request) == Code.STALLED
    chat_goes_on(ann, dan)


# --- the end of the connection, or of the program's patience ----------------------------------


def test_row_33_server_that_ends_ends_the_requests(server: ChatServer, people: People, dan: Owner) -> None:
    ann = people.client("ann")
    request = fetching(ann)
    dan.wire.record(Want)
    dan.wire.close()
    stopping = gevent.spawn(server.stop)
    assert code_of(request) in {Code.SERVER_GONE, Code.OWNER_LEFT}
    ann.close()
    stopping.get()


def test_closing_ends_a_request_that_waits_for_its_answer(people: People, dan: Owner) -> None:
    ann = people.client("ann")
    request = fetching(ann)
    dan.wire.record(Want)
    ann.close()
    assert isinstance(request.get(), ServerGone)


def test_closing_ends_a_request_that_waits_in_line(people: People, dan: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "MAX_DOWNLOADS", 1)
    ann = people.client("ann")
    requests = [fetching(ann) for _ in range(3)]
    dan.wire.record(Want)
    ann.close()
    assert [type(request.get()) for request in requests] == [ServerGone] * 3


def test_closing_ends_a_transfer(people: People, dan: Owner) -> None:
    ann = people.client("ann")
    request = fetching(ann)
    end = dan.pulled()
    end.send(HELLO + b"hel")
    until(lambda: not nothing_is_there(people))
    ann.close()
    assert code_of(request) == Code.INTERRUPTED
    assert nothing_is_there(people)


def test_request_whose_greenlet_is_killed_leaves_nothing(people: People, dan: Owner) -> None:
    ann = people.client("ann")
    request = fetching(ann)
    end = dan.pulled()
    end.send(HELLO + b"hel")
    until(lambda: [path.stat().st_size for path in people.home("ann").iterdir()] == [len(b"hel")])
    request.kill()
    assert end.rest() == b""
    assert nothing_is_there(people)
    chat_goes_on(ann, dan)


def test_callers_own_timeout_is_the_callers(people: People, dan: Owner) -> None:
    ann = people.client("ann")
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
        ann.fetch("dan", "file")


def test_request_after_the_server_is_gone_is_an_error_at_once(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "ANSWER_SECONDS", 0.02)
    ann, server = with_server(stub, tmp_path)
    server.sock.shutdown(socket.SHUT_WR)
    with pytest.raises(ServerGone):
        list(ann.messages())
    request = fetching(ann)
    error = request.get()
    server.close()
    ann.close()
    assert isinstance(error, ServerGone)


def test_protocol_error_of_an_owner_is_what_is_raised(people: People, dan: Owner) -> None:
    ann = people.client("ann", route=Route.DIRECT)
    request = fetching(ann)
    dan.pulled().send(b"\x01{}\n")
    assert isinstance(request.get(), ProtocolError)
