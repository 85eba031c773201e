"""Files, as a program asks a client for them."""

from pathlib import Path

import gevent
import pytest
from conftest import People, until
from peers import BYTES, Owner, breaks_off, chat_goes_on, code_of, fetching, gives, header, left, received, sharing

from greenchat import ChatClient, ChatServer, Route
from greenchat.client import downloads
from greenchat.errors import Code, ServerGone, TransferError
from greenchat.protocol.limits import MAX_DOWNLOADS, MIN_RATE


@pytest.mark.parametrize("parallel", [0, -1, MAX_DOWNLOADS + 1, 10**9])
def test_files_at_once_are_from_one_to_what_an_owner_serves(tmp_path: Path, parallel: int) -> None:
    with pytest.raises(ValueError, match=f"from 1 to {MAX_DOWNLOADS} files"):
        ChatClient("ann", 1, share=tmp_path, parallel=parallel)


@pytest.mark.parametrize("rate", [0, -1, 1, MIN_RATE - 1])
def test_rate_that_peers_would_take_for_stalled_is_an_error(tmp_path: Path, rate: int) -> None:
    with pytest.raises(ValueError, match=f"{MIN_RATE} bytes a second or more"):
        ChatClient("ann", 1, share=tmp_path, limit_rate=rate)


@pytest.mark.parametrize("parallel", [1, MAX_DOWNLOADS])
def test_any_number_of_files_may_be_asked_for(people: People, parallel: int) -> None:
    files = {f"file{number}": str(number).encode() for number in range(40)}
    sharing(people, "bob", **files)
    ann = people.client("ann", parallel=parallel)
    requests = [fetching(ann, "bob", file) for file in files]
    assert [received(request).path.name for request in requests] == list(files)
    assert left(people.home("ann")) == files


@pytest.mark.parametrize("limited", ["ann", "bob"], ids=["the requester's", "the owner's"])
def test_rate_is_limited(people: People, limited: str) -> None:
    (people.home("bob") / "file").write_bytes(BYTES[: 3 * MIN_RATE])
    for name in ("bob", "ann"):
        client = people.client(name, **{"limit_rate": MIN_RATE} if name == limited else {})
    request = fetching(client, "bob")
    request.join(timeout=1)
    assert not request.dead  # three seconds' worth
    assert received(request).size == 3 * MIN_RATE


def test_limit_is_of_all_files_together(people: People) -> None:
    sharing(people, "bob", **{f"file{number}": BYTES[:MIN_RATE] for number in range(4)})
    ann = people.client("ann", limit_rate=MIN_RATE)
    requests = [fetching(ann, "bob", f"file{number}") for number in range(4)]
    gevent.joinall(requests, timeout=1)
    assert sum(request.dead for request in requests) <= 2
    ann.close()


def test_what_is_moving_is_told(people: People, dan: Owner) -> None:
    ann = people.client("ann")
    assert not ann.moving
    request = fetching(ann)
    end = dan.pulled()
    assert not ann.moving  # there is no telling yet whether anything will
    end.send(header(5) + b"hel")
    until(lambda: [one.moved for one in ann.moving] == [3])
    (moving,) = ann.moving
    assert (moving.file, moving.peer, moving.sending, moving.size, moving.resumed) == ("file", "dan", False, 5, 0)
    end.close()
    dan.grants()
    gives(dan.dialled(), b"hello", 3)
    received(request)
    assert not ann.moving


def test_both_ends_see_the_file_move(people: People) -> None:
    seen: list[tuple[str, str, bool, int]] = []

    def watch(client: ChatClient) -> None:
        client.moving.wait()
        seen.extend((one.file, one.peer, one.sending, one.size) for one in client.moving)

    bob, ann = sharing(people, "bob", file=BYTES), people.client("ann")
    watching = [gevent.spawn(watch, client) for client in (ann, bob)]
    gevent.idle()
    ann.fetch("bob", "file")
    gevent.joinall(watching, timeout=10)
    until(lambda: not bob.moving)
    assert sorted(seen) == [("file", "ann", True, len(BYTES)), ("file", "bob", False, len(BYTES))]


def test_file_goes_where_it_is_told_to(people: People, tmp_path: Path) -> None:
    sharing(people, "bob", file=b"hello")
    here, there = tmp_path / "here", people.home("there")
    here.mkdir()
    ann = people.client("ann", into=here)
    assert ann.fetch("bob", "file").path == here / "file"
    assert ann.fetch("bob", "file", str(there)).path == there / "file"
    assert left(here) == left(there) == {"file": b"hello"}
    assert left(people.home("ann")) == {}


@pytest.mark.parametrize("kind", ["nothing", "a file", "a link to nothing"])
def test_place_for_files_that_is_no_directory_is_an_error_at_the_start(
    server: ChatServer, people: People, tmp_path: Path, kind: str
) -> None:
    into = tmp_path / "into"
    if kind == "a file":
        into.write_bytes(b"")
    elif kind == "a link to nothing":
        into.symlink_to(tmp_path / "nowhere")
    with pytest.raises(TransferError) as failure:
        people.client("ann", into=into)
    assert failure.value.code == Code.DISK
    assert not server._sessions  # nobody came in
    people.client("ann")


def test_end_of_a_with_block_keeps_parts(server: ChatServer, people: People, dan: Owner) -> None:
    home = people.home("ann")
    with ChatClient("ann", server.port, share=home, into=home) as ann:
        request = fetching(ann)
        dan.pulled().send(header(5) + b"hel")
        until(lambda: left(home) == {"part": b"hel"})
    assert isinstance(request.get(), ServerGone)
    assert left(home) == {"part": b"hel"}


def test_row_33_loss_of_the_server_is_told_once_and_for_all(
    people: People, server: ChatServer, dan: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "RETRY_DELAYS", (1000.0,))
    ann = people.client("ann", route=Route.DIRECT)
    request = fetching(ann)
    breaks_off(dan.pulled(), b"hel", 5)
    until(lambda: left(people.home("ann")) == {"part": b"hel"} and not ann.moving)
    stopping = gevent.spawn(server.stop)
    assert code_of(request) == Code.SERVER_GONE
    with pytest.raises(ServerGone):
        ann.wait()
    assert left(people.home("ann")) == {"part": b"hel"}
    ann.close()
    dan.wire.close()
    stopping.get()


def test_chat_goes_on_while_files_fail(people: People, dan: Owner, tried_once: None) -> None:
    ann = people.client("ann", route=Route.DIRECT)
    for _ in range(10):
        request = fetching(ann)
        dan.pulled().send(b"\xff" * 10_000)
        assert code_of(request) == Code.LINE_TOO_LONG
        chat_goes_on(ann, dan)
