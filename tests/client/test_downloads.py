"""Files that arrive, one and many."""

from pathlib import Path

import gevent
import pytest
from client.owners import nothing_is_there, refuses
from conftest import People, Stub, until
from peers import BYTES, Owner, chat_goes_on, code_of, fetching, gives, header, left, received, sha256, sharing

from greenchat import Received, Route
from greenchat.client import downloads
from greenchat.errors import Code, TransferError
from greenchat.protocol.codec import encode
from greenchat.protocol.records import Done, Got, Have, Want
from greenchat.transfer import digest

pytestmark = pytest.mark.usefixtures("tried_once")


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


def granted(dan: Owner, count: int) -> list[str]:
    """The tickets of the next requests."""
    tickets = []
    for _ in range(count):
        dan.grants()
        tickets.append(dan.ticket)
    return tickets


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
    tickets = granted(dan, len(requests))
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


def test_request_without_an_answer_holds_up_none_that_has_one(people: People, dan: Owner) -> None:
    ann = people.client("ann", parallel=1)
    first, second = fetching(ann, "dan", "first"), fetching(ann, "dan", "second")
    dan.wire.record(Want)
    gives(dan.pulled(), b"hello")
    assert received(second).size == 5
    first.kill()


def test_request_that_is_refused_needs_no_slot(people: People, dan: Owner) -> None:
    ann = people.client("ann", parallel=1)
    first, second = fetching(ann, "dan", "first"), fetching(ann, "dan", "second")
    dan.grants()
    refuses(dan, Code.NOT_FOUND)
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
    tickets = granted(dan, len(requests))
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
