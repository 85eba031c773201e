import fcntl
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from conftest import People, Stub, reset, until
from gevent import socket
from peers import (
    BYTES,
    Owner,
    Proxy,
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
    with_server,
)

from greenchat import ChatClient, ChatServer, Received, Route
from greenchat.client import downloads
from greenchat.client.uploads import Uploads
from greenchat.errors import BadName, Code, ConnectError, ProtocolError, ServerGone, TransferError
from greenchat.protocol.records import SOH, Dial, Done, Fail, Get, Got, Have, Record, Refuse, Sorry, Wait, Want, encode
from greenchat.transfer import channel, digest, pump, rate
from greenchat.transfer.pump import receive_bytes

LARGE = BYTES * 4


@pytest.fixture(autouse=True)
def tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a failure is told at once."""
    monkeypatch.setattr(downloads, "RETRY_DELAYS", ())


@pytest.fixture
def tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "RETRY_DELAYS", (0.0,) * 4)


@pytest.fixture
def dan(people: People, stub: Stub) -> Owner:
    return Owner(people, stub)


def nothing_is_there(people: People) -> bool:
    return left(people.home("ann")) == {}


def wait_for_part(people: People, content: bytes) -> None:
    """Until so much of a file has been received."""
    until(lambda: left(people.home("ann")).get("part") == content)


# --- files that arrive ------------------------------------------------------------------------


@pytest.mark.parametrize("route", Route)
@pytest.mark.parametrize("content", [b"", b"x", BYTES], ids=["empty", "one byte", "a mebibyte"])
def test_file_arrives_byte_for_byte(people: People, route: Route, content: bytes) -> None:
    sharing(people, "bob", file=content)
    ann = people.client("ann", route=route)
    home = people.home("ann")
    assert ann.fetch("bob", "file") == Received("bob", home / "file", len(content), None, unchanged=False)
    assert left(home) == {"file": content}


@pytest.mark.parametrize(("theirs", "chosen"), [(("sha256",), "sha256"), (("md5", *digest.ALGORITHMS), "best")])
def test_best_digest_that_both_have_is_asked_for(
    people: People, stub: Stub, dan: Owner, theirs: tuple[str, ...], chosen: str
) -> None:
    request = fetching(people.client("ann"))
    dan.grants(5, *theirs)
    end = dan.shown(stub.accept())
    assert dan.pull.algorithm == (digest.ALGORITHMS[0] if chosen == "best" else chosen)
    assert (dan.pull.offset, dan.pull.prefix) == (0, "")
    whole = digest.Digest(dan.pull.algorithm)
    whole.update(b"hello")
    end.send(header(5) + b"hello" + encode(Done(whole.hex())))
    assert end.record(Got).digest == whole.hex()
    assert received(request).size == 5


def test_owner_without_a_digest_in_common_is_told_of(people: People, dan: Owner) -> None:
    ann = people.client("ann")
    request = fetching(ann)
    dan.grants(5, "md5")
    assert code_of(request) == Code.BAD_VERSION
    assert nothing_is_there(people)


def test_file_may_come_in_one_piece_or_in_many(people: People, dan: Owner) -> None:
    request = fetching(people.client("ann"))
    end = dan.pulled()
    for byte in header(5) + b"a\n\x01{}" + encode(Done(sha256(b"a\n\x01{}"))):
        end.send(bytes([byte]))
    received(request)
    assert left(people.home("ann")) == {"file": b"a\n\x01{}"}


def test_fields_and_kinds_of_a_newer_version_are_ignored(people: People, dan: Owner) -> None:
    request = fetching(people.client("ann"))
    end = dan.pulled()
    end.send(b'\x01{"t":"queued","place":3}\n')
    end.send(b'\x01{"t":"file","size":1,"offset":0,"mtime":0,"mode":2541}\nx' + encode(Done(sha256(b"x"))))
    end.record(Got)
    received(request)
    assert (people.home("ann") / "file").stat().st_mode & 0o7111 == 0


def test_many_files_at_once(people: People) -> None:
    files = {f"file{number}": f"{number} ".encode() * 20_000 for number in range(30)}
    sharing(people, "bob", **files)
    ann = people.client("ann")
    requests = [fetching(ann, "bob", file) for file in files]
    ann.send("meanwhile")
    assert all(isinstance(request.get(), Received) for request in requests)
    assert left(people.home("ann")) == files


def test_files_go_both_ways_at_once(people: People) -> None:
    ann, bob = sharing(people, "ann", mine=BYTES), sharing(people, "bob", yours=BYTES[::-1])
    requests = [fetching(ann, "bob", "yours"), fetching(bob, "ann", "mine")]
    assert all(isinstance(request.get(), Received) for request in requests)
    assert (people.home("ann") / "yours").read_bytes() == BYTES[::-1]
    assert (people.home("bob") / "mine").read_bytes() == BYTES


def test_another_directory(people: People, tmp_path: Path) -> None:
    sharing(people, "bob", file=b"hello")
    (tmp_path / "there").mkdir()
    got = people.client("ann").fetch("bob", "file", tmp_path / "there")
    assert got.path == tmp_path / "there" / "file"
    assert left(tmp_path / "there") == {"file": b"hello"}
    assert nothing_is_there(people)


def test_directory_that_is_not_there_is_an_error_and_nobody_is_asked(
    people: People, dan: Owner, tmp_path: Path
) -> None:
    ann = people.client("ann")
    with pytest.raises(TransferError) as failure:
        ann.fetch("dan", "file", tmp_path / "nowhere")
    assert failure.value.code == Code.DISK
    chat_goes_on(ann, dan)


def test_row_06_directory_is_the_one_that_it_was_at_the_start(people: People, tmp_path: Path) -> None:
    sharing(people, "bob", file=b"hello")
    ann = people.client("ann")
    home, moved, trap = people.home("ann"), tmp_path / "moved", tmp_path / "trap"
    home.rename(moved)
    trap.mkdir()
    home.symlink_to(trap)
    ann.fetch("bob", "file")
    assert left(moved) == {"file": b"hello"}
    assert left(trap) == {}


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


# --- many at once -----------------------------------------------------------------------------


def test_all_ask_at_once_and_move_in_order(people: People, stub: Stub, dan: Owner) -> None:
    ann = people.client("ann", parallel=1)
    requests = [fetching(ann, "dan", f"file{number}") for number in range(3)]
    wants = [dan.wire.record(Want) for _ in requests]
    assert [want.file for want in wants] == ["file0", "file1", "file2"]
    for want in wants:
        dan.wire.tell(Have(want.ticket, 5, ("sha256",)))
    for place, want in enumerate(wants):
        dan.ticket = want.ticket
        end = dan.shown(stub.accept())
        gives(end, want.file.encode())
        assert received(requests[place]).path.name == want.file
    assert set(left(people.home("ann"))) == {"file0", "file1", "file2"}


def test_no_more_than_so_many_move_at_once(people: People, stub: Stub, dan: Owner) -> None:
    ann = people.client("ann", parallel=2)
    requests = [fetching(ann, "dan", f"file{number}") for number in range(4)]
    tickets = []
    for _ in requests:
        dan.grants()
        tickets.append(dan.ticket)
    ends = []
    for dan.ticket in tickets[:2]:
        ends.append(dan.shown(stub.accept()))
        ends[-1].send(header(5) + b"he")
    until(lambda: len(ann.moving) == 2)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.1):
        stub.accept()
    ends[1].close()  # which makes room
    dan.ticket = tickets[2]
    gives(dan.shown(stub.accept()), b"hello")
    assert code_of(requests[1]) == Code.INTERRUPTED
    assert received(requests[2]).size == 5
    ann.close()


def test_request_without_an_answer_holds_up_none_that_has_one(people: People, stub: Stub, dan: Owner) -> None:
    ann = people.client("ann", parallel=1)
    first, second = fetching(ann, "dan", "first"), fetching(ann, "dan", "second")
    dan.wire.record(Want)
    dan.grants()
    gives(dan.shown(stub.accept()), b"hello")
    assert received(second).size == 5
    first.kill()


def test_request_that_is_refused_needs_no_slot(people: People, dan: Owner) -> None:
    ann = people.client("ann", parallel=1)
    first, second = fetching(ann, "dan", "first"), fetching(ann, "dan", "second")
    dan.grants()
    want = dan.wire.record(Want)
    dan.wire.tell(Refuse(want.ticket, Code.NOT_FOUND, ""))
    assert code_of(second) == Code.NOT_FOUND
    first.kill()


def test_ticket_that_has_waited_long_for_a_slot_is_asked_for_anew(
    people: People, stub: Stub, dan: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "TICKET_SECONDS", -1.0)
    request = fetching(people.client("ann"))
    dan.grants()
    stale = dan.ticket
    dan.grants()
    assert dan.ticket != stale
    gives(dan.shown(stub.accept()), b"hello")
    assert received(request).size == 5


def test_greenlet_killed_in_line_lets_the_next_one_through(people: People, stub: Stub, dan: Owner) -> None:
    ann = people.client("ann", parallel=1)
    requests = [fetching(ann, "dan", f"file{number}") for number in range(3)]
    tickets = []
    for _ in requests:
        dan.grants()
        tickets.append(dan.ticket)
    dan.ticket = tickets[0]
    end = dan.shown(stub.accept())
    requests[1].kill()
    gives(end, b"hello")
    dan.ticket = tickets[2]
    gives(dan.shown(stub.accept()), b"hello")
    assert received(requests[2]).size == 5


@pytest.mark.parametrize("route", [Route.DIRECT, Route.RELAY])
def test_row_31_hundreds_of_requests_all_arrive(people: People, route: Route, tried_again: None) -> None:
    files = {f"file{number}": str(number).encode() for number in range(400)}  # the server holds 256 tickets of a user
    sharing(people, "bob", **files)
    ann = people.client("ann", route=route)
    requests = [fetching(ann, "bob", file) for file in files]
    failed = [error for request in requests if not isinstance(error := request.get(), Received)]
    assert {str(error) for error in failed} <= {"too many requests are waiting: ask again later"}
    assert len(failed) <= 400 - 256
    expected = {file: content for request, (file, content) in zip(requests, files.items(), strict=True)
                if isinstance(request.get(), Received)}  # fmt: skip
    assert left(people.home("ann")) == expected


# --- a file asked for twice -------------------------------------------------------------------


@pytest.mark.parametrize("again", ["dan", "DAN"])
def test_row_05_one_file_twice_at_once_is_fetched_once(people: People, dan: Owner, again: str) -> None:
    ann = people.client("ann")
    requests = [fetching(ann, "dan"), fetching(ann, again)]
    end = dan.pulled()
    third = fetching(ann, again)
    gives(end, b"hello")
    first, *others = [received(request) for request in [*requests, third]]
    assert others == [first, first]
    assert left(people.home("ann")) == {"file": b"hello"}
    chat_goes_on(ann, dan)


def test_row_05_of_a_real_owner_there_is_one_file(people: People) -> None:
    sharing(people, "bob", file=BYTES)
    ann = people.client("ann")
    for request in [fetching(ann, "bob") for _ in range(4)]:
        assert not received(request).unchanged
    assert left(people.home("ann")) == {"file": BYTES}


def test_file_that_has_arrived_is_fetched_again_when_asked_for_again(people: People) -> None:
    sharing(people, "bob", file=b"old")
    ann = people.client("ann")
    ann.fetch("bob", "file")
    (people.home("bob") / "file").write_bytes(b"new")
    assert ann.fetch("bob", "file").backup
    assert left(people.home("ann")) == {"file": b"new", "file.~1~": b"old"}


def test_same_file_for_another_directory_is_fetched_for_it(people: People, stub: Stub, dan: Owner) -> None:
    ann, there = people.client("ann"), people.home("there")
    here, over = fetching(ann), fetching(ann, into=there)
    for _ in range(2):
        dan.grants()
        end = stub.accept()
        end.record(Record)
        gives(end, b"hello")
    assert received(here).path == people.home("ann") / "file"
    assert received(over).path == there / "file"
    assert left(there) == left(people.home("ann")) == {"file": b"hello"}


def test_another_path_to_the_same_directory_is_the_same(people: People, dan: Owner, tmp_path: Path) -> None:
    ann = people.client("ann")
    (tmp_path / "link").symlink_to(people.home("ann"))
    requests = [fetching(ann), fetching(ann, into=tmp_path / "link")]
    gives(dan.pulled(), b"hello")
    assert [received(request).size for request in requests] == [5, 5]
    chat_goes_on(ann, dan)


def test_error_reaches_all_who_wait_for_the_file(people: People, dan: Owner) -> None:
    ann = people.client("ann")
    requests = [fetching(ann) for _ in range(3)]
    dan.wire.tell(Refuse(dan.wire.record(Want).ticket, Code.NOT_FOUND, ""))
    assert [code_of(request) for request in requests] == [Code.NOT_FOUND] * 3
    chat_goes_on(ann, dan)


def test_closing_reaches_all_who_wait_for_the_file(people: People, dan: Owner) -> None:
    ann = people.client("ann")
    requests = [fetching(ann) for _ in range(3)]
    dan.pulled()
    ann.close()
    assert [type(request.get()) for request in requests] == [ServerGone] * 3


def test_next_one_takes_over_from_who_was_killed_and_resumes(
    people: People, stub: Stub, dan: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def receive_and_linger(*args: Any) -> None:
        try:
            receive_bytes(*args)
        finally:
            time.sleep(0.2)  # as a thread may on a busy machine, before it lets go of the partial

    monkeypatch.setattr(channel, "receive_bytes", receive_and_linger)
    ann = people.client("ann")
    first, second, third = (fetching(ann) for _ in range(3))
    end = dan.pulled()
    end.send(header(5) + b"hel")
    wait_for_part(people, b"hel")
    first.kill()
    dan.grants()
    end = dan.shown(stub.accept())
    assert (dan.pull.offset, dan.pull.prefix) == (3, sha256(b"hel"))
    gives(end, b"hello", 3)
    assert received(second) == received(third)
    assert received(second).resumed == 3
    assert left(people.home("ann")) == {"file": b"hello"}
    chat_goes_on(ann, dan)


def test_next_one_takes_over_from_who_lost_patience(people: People, stub: Stub, dan: Owner) -> None:
    ann = people.client("ann")
    second: list[gevent.Greenlet[..., object]] = []
    joining = gevent.spawn(lambda: second.append(fetching(ann)))
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.1):
        ann.fetch("dan", "file")
    joining.get()
    dan.grants()  # to the first request
    dan.grants()
    gives(dan.shown(stub.accept()), b"hello")
    assert received(second[0]).size == 5


def test_who_only_waited_and_is_killed_is_missed_by_nobody(people: People, dan: Owner) -> None:
    ann = people.client("ann")
    first, second = fetching(ann), fetching(ann)
    end = dan.pulled()
    second.kill()
    gives(end, b"hello")
    assert received(first).size == 5
    chat_goes_on(ann, dan)


# --- files that do not arrive -----------------------------------------------------------------


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


def test_row_31_server_that_never_answers(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "ANSWER_SECONDS", 0.01)
    ann, server = with_server(stub, tmp_path)
    assert code_of(fetching(ann)) == Code.OWNER_SILENT
    server.close()
    ann.close()


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


@pytest.mark.parametrize("vanish", [lambda sock: sock.close(), reset], ids=["closed", "reset"])
@pytest.mark.parametrize(("sent", "there"), BROKEN)
def test_row_20_owner_vanishes(
    people: People, dan: Owner, sent: bytes, there: bytes, vanish: Callable[[socket.socket], None]
) -> None:
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


def test_row_21_bytes_flipped_in_the_part_that_is_here_are_found_out(people: People, dan: Owner, stub: Stub) -> None:
    ann = people.client("ann", route=Route.DIRECT)
    request = fetching(ann)
    breaks_off(dan.pulled(), b"hel", 5)
    assert code_of(request) == Code.INTERRUPTED
    (part,) = people.home("ann").iterdir()
    part.write_bytes(b"HEL")
    request = fetching(ann)
    dan.grants()
    end = dan.shown(stub.accept())
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
    expect = channel.Channel.expect
    monkeypatch.setattr(
        channel.Channel, "expect", lambda end, kind, seconds=0.02, more=0.0: expect(end, kind, seconds, more)
    )
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


def test_row_32_owner_leaves_in_the_middle(people: People, dan: Owner) -> None:
    ann = people.client("ann")
    request = fetching(ann)
    dan.wire.record(Want)
    dan.wire.close()
    assert code_of(request) == Code.OWNER_LEFT


def test_protocol_error_of_an_owner_is_what_is_raised(people: People, dan: Owner) -> None:
    ann = people.client("ann", route=Route.DIRECT)
    request = fetching(ann)
    dan.pulled().send(b"\x01{}\n")
    assert isinstance(request.get(), ProtocolError)


# --- a connection that is lost ----------------------------------------------------------------


@pytest.mark.usefixtures("tried_again")
class TestLost:
    def test_by_the_other_route_and_from_where_it_was_lost(self, people: People, stub: Stub, dan: Owner) -> None:
        ann = people.client("ann")
        request = fetching(ann)
        breaks_off(dan.pulled(), b"hel", 8)
        dan.grants(8)
        end = dan.dialled()
        assert (dan.pull.offset, dan.pull.prefix) == (3, sha256(b"hel"))
        breaks_off(end, b"lo ", 8, 3)
        dan.grants(8)
        end = dan.shown(stub.accept())
        assert (dan.pull.offset, dan.pull.prefix) == (6, sha256(b"hello "))
        gives(end, b"hello yo", 6)
        assert received(request) == Received("dan", people.home("ann") / "file", 8, None, unchanged=False, resumed=6)
        assert left(people.home("ann")) == {"file": b"hello yo"}
        chat_goes_on(ann, dan)

    @pytest.mark.parametrize("route", [Route.DIRECT, Route.RELAY])
    def test_by_the_same_route_if_that_is_the_only_one(
        self, people: People, stub: Stub, dan: Owner, route: Route
    ) -> None:
        request = fetching(people.client("ann", route=route))
        for offset, piece in enumerate((b"h", b"e", b"l")):
            dan.grants()
            end = dan.shown(stub.accept()) if route is Route.DIRECT else dan.dialled()
            assert dan.pull.offset == offset
            breaks_off(end, piece, 5, offset)
        dan.grants()
        gives(dan.shown(stub.accept()) if route is Route.DIRECT else dan.dialled(), b"hello", 3)
        assert received(request).resumed == 3

    def test_after_everything_but_the_last_word_only_that_is_asked_for(
        self, people: People, stub: Stub, dan: Owner
    ) -> None:
        request = fetching(people.client("ann", route=Route.DIRECT))
        breaks_off(dan.pulled(), b"hello", 5)
        dan.grants()
        end = dan.shown(stub.accept())
        assert dan.pull.offset == 5
        end.send(header(5, 5) + encode(Done(sha256(b"hello"))))
        assert received(request).resumed == 5
        assert left(people.home("ann")) == {"file": b"hello"}

    @pytest.mark.parametrize("now", [b"jello!", b"jell", b"jello", b"he", b""])
    def test_row_22_file_of_another_content_starts_again(
        self, people: People, stub: Stub, dan: Owner, now: bytes
    ) -> None:
        request = fetching(people.client("ann", route=Route.DIRECT))
        breaks_off(dan.pulled(), b"hel", 5)
        dan.grants()
        gives(dan.shown(stub.accept()), now)
        assert received(request).resumed == 0
        assert left(people.home("ann")) == {"file": now}

    @pytest.mark.parametrize("offset", [1, 2, 4, 5, 2**63 - 1])
    def test_row_22_owner_that_goes_on_from_elsewhere_is_refused(
        self, people: People, stub: Stub, dan: Owner, offset: int
    ) -> None:
        ann = people.client("ann", route=Route.DIRECT)
        request = fetching(ann)
        breaks_off(dan.pulled(), b"hel", 5)
        dan.grants()
        dan.shown(stub.accept()).send(header(5, offset) + b"hello")
        assert code_of(request) == Code.UNEXPECTED
        assert left(people.home("ann")) == {"part": b"hel"}
        chat_goes_on(ann, dan)

    def test_row_22_owner_that_goes_on_from_beyond_the_end_is_refused(
        self, people: People, stub: Stub, dan: Owner
    ) -> None:
        request = fetching(people.client("ann", route=Route.DIRECT))
        breaks_off(dan.pulled(), b"hel", 5)
        dan.grants()
        dan.shown(stub.accept()).send(header(2, 3) + encode(Done(sha256(b"hel"))))
        assert code_of(request) == Code.UNEXPECTED

    def test_what_was_had_is_no_longer_counted_after_starting_again(
        self, people: People, stub: Stub, dan: Owner
    ) -> None:
        request = fetching(people.client("ann", route=Route.DIRECT))
        breaks_off(dan.pulled(), b"hel", 5)
        dan.grants()
        breaks_off(dan.shown(stub.accept()), b"j", 5, 0)
        dan.grants()
        end = dan.shown(stub.accept())
        assert (dan.pull.offset, dan.pull.prefix) == (1, sha256(b"j"))
        gives(end, b"jello", 1)
        assert received(request).resumed == 1
        assert left(people.home("ann")) == {"file": b"jello"}

    def test_owner_may_have_another_digest_by_then(self, people: People, stub: Stub, dan: Owner) -> None:
        if "blake3" not in digest.ALGORITHMS:
            pytest.skip("blake3 is not installed")
        request = fetching(people.client("ann", route=Route.DIRECT))
        dan.grants(5, "sha256", "blake3")
        end = dan.shown(stub.accept())
        assert dan.pull.algorithm == "blake3"
        breaks_off(end, b"hel", 5)
        dan.grants(5, "sha256")
        end = dan.shown(stub.accept())
        assert (dan.pull.algorithm, dan.pull.prefix) == ("sha256", sha256(b"hel"))
        gives(end, b"hello", 3)
        assert received(request).resumed == 3

    @pytest.mark.parametrize("code", [Code.INTERRUPTED, Code.STALLED, Code.BAD_TICKET, Code.TOO_MANY, Code.RELAY_BUSY])
    def test_again_after_what_passes(self, people: People, stub: Stub, dan: Owner, code: Code) -> None:
        request = fetching(people.client("ann", route=Route.DIRECT))
        dan.pulled().tell(Sorry(code, ""))
        dan.grants()
        gives(dan.shown(stub.accept()), b"hello")
        assert received(request).size == 5

    def test_again_after_a_question_that_was_not_answered(
        self, people: People, stub: Stub, dan: Owner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        request = fetching(people.client("ann", route=Route.DIRECT))
        dan.pulled().close()
        want = dan.wire.record(Want)
        dan.wire.tell(Refuse(want.ticket, Code.OWNER_SILENT, ""))
        dan.grants()
        gives(dan.shown(stub.accept()), b"hello")
        assert received(request).size == 5

    @pytest.mark.parametrize(
        "code", [Code.NOT_FOUND, Code.CHANGED, Code.MISMATCH, Code.DISK, Code.BAD_VERSION, Code.FAILED, Code.OWNER_LEFT]
    )
    def test_not_again_after_what_does_not_pass(self, people: People, dan: Owner, code: Code) -> None:
        ann = people.client("ann", route=Route.DIRECT)
        request = fetching(ann)
        dan.pulled().tell(Sorry(code, ""))
        assert code_of(request) == code
        chat_goes_on(ann, dan)

    def test_the_last_error_is_what_is_told(self, people: People, dan: Owner) -> None:
        ann = people.client("ann", route=Route.DIRECT)
        request = fetching(ann)
        breaks_off(dan.pulled(), b"hel", 5)
        dan.wire.tell(Refuse(dan.wire.record(Want).ticket, Code.NOT_FOUND, ""))
        assert code_of(request) == Code.NOT_FOUND
        chat_goes_on(ann, dan)

    def test_owner_that_has_left_is_not_waited_for(self, people: People, dan: Owner) -> None:
        request = fetching(people.client("ann", route=Route.DIRECT))
        end = dan.pulled()
        dan.wire.close()
        until(lambda: not people._server._house.directory.find("dan"))
        end.close()
        assert code_of(request) == Code.UNKNOWN_OWNER

    def test_owner_that_cannot_be_reached_is_tried_as_often_as_told(self, people: People, dan: Owner) -> None:
        dan._stub.close()
        request = fetching(people.client("ann", route=Route.DIRECT))
        for _ in range(5):
            dan.grants()
        assert isinstance(request.get(), ConnectError)
        assert code_of(request) == Code.UNREACHABLE

    def test_file_waits_in_no_line_while_it_is_tried_again(self, people: People, stub: Stub, dan: Owner) -> None:
        ann = people.client("ann", route=Route.DIRECT, parallel=1)
        first, second = fetching(ann, "dan", "first"), fetching(ann, "dan", "second")
        dan.grants()
        ticket = dan.ticket
        dan.grants()
        other, dan.ticket = dan.ticket, ticket
        breaks_off(dan.shown(stub.accept()), b"fir", 5)
        dan.grants()
        gives(dan.shown(stub.accept()), b"first", 3)
        assert received(first).resumed == 3
        dan.ticket = other
        gives(dan.shown(stub.accept()), b"second")
        assert received(second).size == 6


class Pauses:
    """Stands in for an event that never comes, and takes down how long it was waited for."""

    def __init__(self, ann: ChatClient) -> None:
        self.made: list[float] = []
        self._closing = ann._downloads._closing

    def wait(self, seconds: float) -> None:
        self.made.append(seconds)

    def set(self) -> None:
        self._closing.set()


def test_pauses_grow_and_then_it_has_failed(
    people: People, stub: Stub, dan: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "RETRY_DELAYS", (0.5, 1.0, 2.0))
    ann = people.client("ann", route=Route.DIRECT)
    pauses = Pauses(ann)
    monkeypatch.setattr(ann._downloads, "_closing", pauses)
    request = fetching(ann)
    for _ in range(4):
        dan.grants()
        dan.shown(stub.accept()).close()
    assert code_of(request) == Code.INTERRUPTED
    assert pauses.made == [0.5, 1.0, 2.0]
    chat_goes_on(ann, dan)


def test_progress_starts_the_pauses_anew(
    people: People, stub: Stub, dan: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "RETRY_DELAYS", (0.5, 1.0))
    monkeypatch.setattr(downloads, "SLOWEST_STEP", 1)
    ann = people.client("ann", route=Route.DIRECT)
    pauses = Pauses(ann)
    monkeypatch.setattr(ann._downloads, "_closing", pauses)
    request = fetching(ann)
    had = 0
    for piece in (b"h", b"", b"e", b"l", b"", b""):
        dan.grants()
        breaks_off(dan.shown(stub.accept()), piece, 5, had)
        had += len(piece)
    assert code_of(request) == Code.INTERRUPTED
    assert pauses.made == [0.5, 1.0, 0.5, 0.5, 1.0]
    assert left(people.home("ann")) == {"part": b"hel"}
    chat_goes_on(ann, dan)


def test_row_19_progress_by_trickles_is_none(
    people: People, stub: Stub, dan: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "RETRY_DELAYS", (0.5, 1.0))
    ann = people.client("ann", route=Route.DIRECT)
    monkeypatch.setattr(ann._downloads, "_closing", Pauses(ann))
    request = fetching(ann)
    for had, piece in enumerate((b"h", b"e", b"l")):
        dan.grants()
        breaks_off(dan.shown(stub.accept()), piece, 5, had)
    assert code_of(request) == Code.INTERRUPTED


def test_closing_cuts_a_pause_short(people: People, dan: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "RETRY_DELAYS", (1000.0,))
    ann = people.client("ann", route=Route.DIRECT)
    request = fetching(ann)
    breaks_off(dan.pulled(), b"hel", 5)
    wait_for_part(people, b"hel")
    until(lambda: not ann._downloads._routes._channels and not ann.moving)
    ann.close()
    assert isinstance(request.get(), ServerGone)
    assert left(people.home("ann")) == {"part": b"hel"}


# --- real owners behind a wire that is cut ----------------------------------------------------


@pytest.fixture
def before_owner(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Proxy]]:
    """Makes the port that the next client tells of a proxy's."""
    proxies = []
    listen = Uploads.listen

    def make(*cuts: int | None) -> Proxy:
        proxy = Proxy(0, *cuts)
        proxies.append(proxy)

        def listen_behind(self: Uploads, hosts: tuple[str, ...], port: int) -> int:
            monkeypatch.setattr(Uploads, "listen", listen)
            proxy.target = listen(self, hosts, port)
            return proxy.port

        monkeypatch.setattr(Uploads, "listen", listen_behind)
        return proxy

    yield make
    for proxy in proxies:
        proxy.close()


TALK = 1000
"""More than all records of a transfer together."""


@pytest.mark.usefixtures("tried_again")
def test_only_what_is_missing_is_sent_directly(people: People, before_owner: Callable[..., Proxy]) -> None:
    proxy = before_owner(1_000_000, 2_000_000)
    sharing(people, "bob", file=LARGE)
    got = people.client("ann", route=Route.DIRECT).fetch("bob", "file")
    assert left(people.home("ann")) == {"file": LARGE}
    assert 3_000_000 - TALK < got.resumed < 3_000_000
    assert proxy.carried[:2] == [1_000_000, 2_000_000]
    assert len(LARGE) <= sum(proxy.carried) < len(LARGE) + TALK


@pytest.mark.usefixtures("tried_again")
def test_only_what_is_missing_is_sent_through_the_relay(server: ChatServer, people: People, tmp_path: Path) -> None:
    sharing(people, "bob", file=LARGE)
    proxy = Proxy(server.port, 1_500_000, 1000, only=b'"relay"')
    ann = ChatClient("ann", proxy.port, share=tmp_path, into=people.home("ann"), route=Route.RELAY)
    try:
        with ann:
            got = ann.fetch("bob", "file")
        assert left(people.home("ann")) == {"file": LARGE}
        assert 1_500_000 - TALK < got.resumed < 1_500_000 + TALK
        assert len(LARGE) <= sum(proxy.carried) < len(LARGE) + TALK
    finally:
        proxy.close()


@pytest.mark.usefixtures("tried_again")
def test_owner_that_can_be_reached_no_longer_is_reached_through_the_relay(
    people: People, before_owner: Callable[..., Proxy]
) -> None:
    proxy = before_owner(1_000_000, 0)
    sharing(people, "bob", file=LARGE)
    ann = people.client("ann")
    got = ann.fetch("bob", "file")
    assert left(people.home("ann")) == {"file": LARGE}
    assert 1_000_000 - TALK < got.resumed < 1_000_000
    assert proxy.carried == [1_000_000]  # the relay was tried first the second time


def test_another_run_of_the_client_resumes(people: People, before_owner: Callable[..., Proxy]) -> None:
    before_owner(3_000_000)
    sharing(people, "bob", file=LARGE)
    ann = people.client("ann", route=Route.DIRECT)
    assert code_of(fetching(ann, "bob")) == Code.INTERRUPTED
    ann.close()
    (size,) = [len(content) for content in left(people.home("ann")).values()]
    again = people.client("ann again", into=people.home("ann"))
    assert again.fetch("BOB", "file").resumed == size > 3_000_000 - TALK
    assert left(people.home("ann")) == {"file": LARGE}


def test_part_of_one_owners_file_is_not_anothers(people: People, before_owner: Callable[..., Proxy]) -> None:
    before_owner(3_000_000)
    sharing(people, "bob", file=LARGE)
    sharing(people, "cat", file=LARGE)
    ann = people.client("ann", route=Route.DIRECT)
    assert code_of(fetching(ann, "bob")) == Code.INTERRUPTED
    assert ann.fetch("cat", "file").resumed == 0
    assert ann.fetch("bob", "file").resumed > 3_000_000 - TALK


def test_file_that_was_changed_meanwhile_is_fetched_anew(people: People, before_owner: Callable[..., Proxy]) -> None:
    before_owner(3_000_000)
    sharing(people, "bob", file=LARGE)
    ann = people.client("ann", route=Route.DIRECT)
    assert code_of(fetching(ann, "bob")) == Code.INTERRUPTED
    with (people.home("bob") / "file").open("r+b") as file:
        file.write(b"X")
    assert ann.fetch("bob", "file").resumed == 0
    assert left(people.home("ann")) == {"file": b"X" + LARGE[1:]}


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


def test_closing_ends_a_request_that_waits_in_line(people: People, dan: Owner) -> None:
    ann = people.client("ann", parallel=1)
    requests = [fetching(ann, "dan", f"file{number}") for number in range(3)]
    for _ in requests:
        dan.grants()
    ann.close()
    assert [type(request.get()) for request in requests] == [ServerGone] * 3
    assert nothing_is_there(people)


@pytest.mark.parametrize("keep", [True, False])
def test_closing_ends_a_transfer_and_keeps_what_has_come_if_told_to(people: People, dan: Owner, *, keep: bool) -> None:
    ann = people.client("ann")
    request = fetching(ann)
    end = dan.pulled()
    end.send(header(5) + b"hel")
    wait_for_part(people, b"hel")
    ann.close(keep=keep)
    assert isinstance(request.get(), ServerGone)
    assert left(people.home("ann")) == ({"part": b"hel"} if keep else {})


@pytest.mark.parametrize("keep", [True, False])
def test_closing_between_two_attempts_keeps_what_has_come_if_told_to(
    people: People, dan: Owner, monkeypatch: pytest.MonkeyPatch, *, keep: bool
) -> None:
    monkeypatch.setattr(downloads, "RETRY_DELAYS", (1000.0,))
    ann = people.client("ann", route=Route.DIRECT)
    request = fetching(ann)
    breaks_off(dan.pulled(), b"hel", 5)
    wait_for_part(people, b"hel")
    ann.close(keep=keep)
    assert isinstance(request.get(), ServerGone)
    assert left(people.home("ann")) == ({"part": b"hel"} if keep else {})


@pytest.mark.parametrize("size", [5, 10**6], ids=["all that was sent has come", "more is on its way"])
def test_closing_waits_for_no_limited_rate(
    people: People, dan: Owner, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(rate.RateLimit, "pause", lambda _self, _size: 20.0)
    ann = people.client("ann")
    request = fetching(ann)
    end = dan.pulled()
    end.send(header(10**6 + 1))
    until(lambda: ann.moving)
    end.send(b"x" * size)
    until(lambda: any(left(people.home("ann")).values()))
    with gevent.Timeout(10):
        ann.close(keep=False)
        assert isinstance(request.get(), ServerGone)
    assert nothing_is_there(people)


def test_giving_up_one_file_leaves_what_there_is_of_others(people: People, dan: Owner) -> None:
    ann = people.client("ann", route=Route.DIRECT)
    request = fetching(ann, file="other")
    breaks_off(dan.pulled(), b"oth", 5)
    assert code_of(request) == Code.INTERRUPTED
    request = fetching(ann)
    dan.pulled().send(header(5) + b"hel")
    until(lambda: "part 2" in left(people.home("ann")))
    ann.close(keep=False)
    assert isinstance(request.get(), ServerGone)
    assert left(people.home("ann")) == {"part": b"oth"}


def test_request_whose_greenlet_is_killed_can_be_resumed(people: People, stub: Stub, dan: Owner) -> None:
    ann = people.client("ann")
    request = fetching(ann)
    end = dan.pulled()
    end.send(header(5) + b"hel")
    wait_for_part(people, b"hel")
    request.kill()
    assert end.rest() == b""
    assert left(people.home("ann")) == {"part": b"hel"}
    chat_goes_on(ann, dan)
    until(lambda: _nobody_holds(people.home("ann")))
    request = fetching(ann)
    dan.grants()
    end = dan.shown(stub.accept())
    assert dan.pull.offset == 3
    gives(end, b"hello", 3)
    assert received(request).resumed == 3


def _nobody_holds(home: Path) -> bool:
    with next(home.iterdir()).open("rb") as part:
        try:
            fcntl.flock(part, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_callers_own_timeout_is_the_callers(people: People, dan: Owner) -> None:
    ann = people.client("ann")
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
        ann.fetch("dan", "file")


@pytest.mark.usefixtures("tried_again")
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


def test_row_33_loss_of_the_server_keeps_what_has_come(
    server: ChatServer, people: People, stub: Stub, tmp_path: Path
) -> None:
    dan = Owner(people, stub)
    proxy = Proxy(server.port)
    ann = ChatClient("ann", proxy.port, share=tmp_path, into=people.home("ann"))
    ann.start()
    request = fetching(ann)
    dan.pulled().send(header(5) + b"hel")
    wait_for_part(people, b"hel")
    proxy.close()
    assert isinstance(request.get(), ServerGone)
    assert left(people.home("ann")) == {"part": b"hel"}
    ann.close(keep=False)  # too late
    assert left(people.home("ann")) == {"part": b"hel"}


def test_refused_requests_leave_nothing_behind(people: People, dan: Owner) -> None:
    ann = people.client("ann")
    for number in range(20):
        request = fetching(ann, "dan", f"file{number}")
        dan.wire.tell(Refuse(dan.wire.record(Want).ticket, Code.NOT_FOUND, ""))
        assert code_of(request) == Code.NOT_FOUND
    mine = ann._downloads
    assert not mine._asked
    assert not mine._fetching
    assert not mine._partials


def test_row_20_owner_that_never_comes_to_the_relay(people: People, dan: Owner) -> None:
    ann = people.client("ann", route=Route.RELAY)
    request = fetching(ann)
    dan.grants()
    dan.wire.record(Dial)
    dan.wire.close()
    assert code_of(request) == Code.OWNER_LEFT
    assert nothing_is_there(people)
