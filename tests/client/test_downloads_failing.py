"""Files that do not arrive."""

import hashlib
import json

import gevent
import pytest
from client.owners import VANISHING, Alone, Vanish, nothing_is_there, wait_for_part
from conftest import People, until
from gevent import socket
from peers import (
    BYTES,
    Owner,
    breaks_off,
    chat_goes_on,
    code_of,
    fetching,
    gives,
    header,
    left,
    received,
    sha256,
    sharing,
)

from greenchat import Received, Route
from greenchat.client import downloads
from greenchat.errors import BadName, Code, ProtocolError, TransferError
from greenchat.protocol.codec import SOH, encode
from greenchat.protocol.records import Done, Fail, Get, Got, Record, Sorry, Wait, Want
from greenchat.transfer import channel, pump

pytestmark = pytest.mark.usefixtures("tried_once")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "C:x", ".hidden", "x" * 256])
def test_row_01_bad_file_name_is_refused_before_anyone_is_asked(people: People, dan: Owner, name: str) -> None:
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


def test_code_of_a_newer_server_is_a_failure(alone: Alone) -> None:
    request = fetching(alone.client)
    alone.server.tell(Fail(alone.server.record(Get).id, "quota-exceeded", "\x1b[31m"))
    assert code_of(request) == Code.FAILED
    assert "\x1b" not in str(request.get())


def test_answers_to_what_nobody_asked_are_ignored(alone: Alone) -> None:
    alone.server.tell(Fail(99, Code.NOT_FOUND, ""))
    alone.server.send(b"bob: hi\n")
    assert str(next(alone.client.messages())) == "bob: hi"


def test_row_31_server_that_never_answers(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "ANSWER_SECONDS", 0.01)
    assert code_of(fetching(alone.client)) == Code.OWNER_SILENT


def test_row_03_name_that_the_owner_gives_decides_nothing(people: People, dan: Owner) -> None:
    ann = people.client("ann")
    request = fetching(ann)
    end = dan.pulled()
    fields = {"t": "file", "size": 4, "offset": 0, "name": "../evil", "file": "evil", "path": "/tmp/evil"}
    end.send(b"\x01" + json.dumps(fields).encode() + b"\nevil" + encode(Done(sha256(b"evil"))))
    end.record(Got)
    assert received(request).path == people.home("ann") / "file"
    assert left(people.home("ann")) == {"file": b"evil"}
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
    assert left(people.home("ann")) == {names[0]: BYTES, names[1]: BYTES[::-1]}


def test_row_05_two_files_of_one_name_at_once_are_both_whole(people: People) -> None:
    sharing(people, "bob", file=BYTES)
    sharing(people, "cat", file=BYTES[::-1])
    ann = people.client("ann")
    requests = [fetching(ann, owner) for owner in ("bob", "cat")]
    assert all(isinstance(request.get(), Received) for request in requests)
    contents = left(people.home("ann"))
    assert set(contents) == {"file", "file.~1~"}
    assert set(contents.values()) == {BYTES, BYTES[::-1]}


def kept(content: bytes) -> dict[str, bytes]:
    """What is left of a transfer that brought *content*: nothing has the file's own name."""
    return {"part": content} if content else {}


BROKEN = [
    pytest.param(b"", b"", id="before the header"),
    pytest.param(b'\x01{"t":"fi', b"", id="in the header"),
    pytest.param(header(5), b"", id="after the header"),
    pytest.param(header(5) + b"hel", b"hel", id="in mid-file"),
    pytest.param(header(5) + b"hello", b"hello", id="before done"),
    pytest.param(header(5) + b"hello" + b'\x01{"t":', b"hello", id="in done"),
]


@VANISHING
@pytest.mark.parametrize(("sent", "there"), BROKEN)
def test_row_20_owner_vanishes(people: People, dan: Owner, sent: bytes, there: bytes, vanish: Vanish) -> None:
    ann = people.client("ann", route=Route.DIRECT)
    request = fetching(ann)
    end = dan.pulled()
    end.send(sent)
    if there:
        wait_for_part(people, there)  # a reset throws away what has not been read
    vanish(end.sock)
    assert code_of(request) == Code.INTERRUPTED
    assert left(people.home("ann")) == kept(there)
    chat_goes_on(ann, dan)


@pytest.mark.parametrize(("sent", "there"), BROKEN)
def test_row_20_owner_vanishes_behind_the_relay(people: People, dan: Owner, sent: bytes, there: bytes) -> None:
    ann = people.client("ann", route=Route.RELAY)
    request = fetching(ann)
    dan.grants()
    end = dan.dialled()
    end.send(sent)
    end.close()
    assert code_of(request) == Code.INTERRUPTED
    assert left(people.home("ann")) == kept(there)
    chat_goes_on(ann, dan)


@pytest.mark.parametrize(
    ("sent", "code", "there"),
    [
        pytest.param(header(5) + b"hello, more\n" + encode(Done(sha256(b"hello"))), Code.BAD_RECORD, b"hello",
                     id="more bytes"),
        pytest.param(header(5) + b"hello" + b"x" * 10_000, Code.LINE_TOO_LONG, b"hello", id="no end of bytes"),
        pytest.param(header(5) + b"hello" + encode(Got("")), Code.UNEXPECTED, b"hello", id="another record"),
        pytest.param(header(5) + b"hello" + encode(Sorry(Code.CHANGED, "")), Code.CHANGED, b"hello",
                     id="owner gives up at the end"),
        pytest.param(encode(Sorry(Code.NOT_FOUND, "")), Code.NOT_FOUND, b"", id="owner gives up at once"),
        pytest.param(encode(Sorry("of-a-newer-version", "")), Code.FAILED, b"", id="owner gives up for a new reason"),
        pytest.param(encode(Wait()) + header(5) + b"hello", Code.UNEXPECTED, b"", id="owner plays for time"),
        pytest.param(header(5, 1) + b"ello", Code.UNEXPECTED, b"", id="from the middle on"),
        pytest.param(header(5, 5) + encode(Done(sha256(b"hello"))), Code.UNEXPECTED, b"", id="from the end on"),
        pytest.param(header(5, 9) + b"hello", Code.UNEXPECTED, b"", id="from beyond the end on"),
        pytest.param(SOH + b'{"t":"file","size":-1,"offset":0}\n', Code.BAD_RECORD, b"", id="negative size"),
        pytest.param(SOH + b'{"t":"file","size":5,"offset":-5}\n', Code.BAD_RECORD, b"", id="negative offset"),
        pytest.param(SOH + b'{"t":"file","size":%d,"offset":0}\n' % (2**63), Code.BAD_RECORD, b"", id="2^63"),
        pytest.param(SOH + b'{"t":"file","size":5}\n', Code.BAD_RECORD, b"", id="no offset"),
    ],
)  # fmt: skip
def test_row_19_owner_sends_something_else(people: People, dan: Owner, sent: bytes, code: Code, there: bytes) -> None:
    ann = people.client("ann", route=Route.DIRECT)
    request = fetching(ann)
    end = dan.pulled()
    end.send(sent)
    assert code_of(request) == code
    assert left(people.home("ann")) == kept(there)
    chat_goes_on(ann, dan)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"hello" + encode(Done(sha256(b"jello"))), id="wrong digest"),
        pytest.param(b"jello" + encode(Done(sha256(b"hello"))), id="bytes flipped"),
        pytest.param(b"hello" + encode(Done(hashlib.md5(b"hello").hexdigest())), id="digest of another kind"),
        pytest.param(b"hello" + encode(Done(sha256(b"hello").upper())), id="digest in capitals"),
        pytest.param(b"hello" + encode(Done("")), id="no digest"),
    ],
)
def test_row_21_what_has_another_digest_is_thrown_away(
    people: People, dan: Owner, sent: bytes, tried_again: None
) -> None:
    ann = people.client("ann", route=Route.DIRECT)
    request = fetching(ann)
    end = dan.pulled()
    end.send(header(5) + sent)
    assert code_of(request) == Code.MISMATCH
    assert nothing_is_there(people)
    chat_goes_on(ann, dan)


def test_row_21_bytes_flipped_in_the_part_that_is_here_are_found_out(people: People, dan: Owner) -> None:
    ann = people.client("ann", route=Route.DIRECT)
    request = fetching(ann)
    breaks_off(dan.pulled(), b"hel", 5)
    assert code_of(request) == Code.INTERRUPTED
    (part,) = people.home("ann").iterdir()
    part.write_bytes(b"HEL")
    request = fetching(ann)
    end = dan.pulled()
    assert dan.pull.prefix == sha256(b"HEL")
    gives(end, b"hello", 3)  # an owner that does not compare
    assert code_of(request) == Code.MISMATCH
    assert nothing_is_there(people)


@pytest.mark.parametrize("size", [2**63 - 1, 2**50], ids=["2^63 - 1", "a pebibyte"])
def test_row_19_more_than_the_disk_has_room_for_is_refused_at_once(
    people: People, dan: Owner, size: int, tried_again: None
) -> None:
    ann = people.client("ann", route=Route.DIRECT)
    request = fetching(ann)
    end = dan.pulled()
    end.send(header(size) + b"hel")
    assert code_of(request) == Code.DISK
    assert "no space left" in str(request.get())
    assert nothing_is_there(people)
    chat_goes_on(ann, dan)


@pytest.mark.parametrize("sent", [b"", b"hel", b"hello"], ids=["header", "mid-file", "before done"])
def test_row_19_owner_that_stalls_is_given_up(
    people: People, dan: Owner, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(pump, "STALL_SECONDS", 0.02)
    monkeypatch.setattr(channel.Channel.expect, "__defaults__", (0.02, 0.0))
    ann = people.client("ann", route=Route.DIRECT)
    request = fetching(ann)
    end = dan.pulled()
    end.send(header(5) + sent)
    assert code_of(request) == Code.STALLED
    assert left(people.home("ann")) == kept(sent)
    chat_goes_on(ann, dan)


def test_row_19_owner_that_trickles_is_given_up(people: People, dan: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump, "STALL_SECONDS", 0.2)
    ann = people.client("ann", route=Route.DIRECT)
    request = fetching(ann)
    end = dan.pulled()
    end.send(header(10**6))
    until(lambda: _trickled(end.sock) or request.dead)
    assert code_of(request) == Code.STALLED
    chat_goes_on(ann, dan)


def _trickled(sock: socket.socket) -> bool:
    """Whether the other side is still there to be sent a byte."""
    gevent.sleep(0.005)
    try:
        sock.send(b"x")
    except OSError:
        return True
    return False


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
    received(request)


def test_row_32_owner_leaves_in_the_middle(people: People, dan: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """It might have come back; once more is asked."""
    monkeypatch.setattr(downloads, "CONSENT_STEP", 0.01)
    ann = people.client("ann")
    request = fetching(ann)
    dan.wire.record(Want)
    dan.wire.close()
    assert code_of(request) == Code.UNKNOWN_OWNER


def test_protocol_error_of_an_owner_is_what_is_raised(people: People, dan: Owner) -> None:
    ann = people.client("ann", route=Route.DIRECT)
    request = fetching(ann)
    dan.pulled().send(b"\x01{}\n")
    assert isinstance(request.get(), ProtocolError)
