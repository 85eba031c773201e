"""A server that keeps what is said on the disk."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from conftest import People, until

from greenchat import ChatClient, ChatServer
from greenchat.client import connection
from greenchat.errors import Code
from greenchat.log import queue
from greenchat.log.database import Database
from greenchat.log.durable import DurableLogs
from greenchat.protocol.limits import MAX_PIECE, MAX_UNKEPT
from greenchat.protocol.records import Hello, Note, Welcome
from greenchat.server import server as server_module


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DurableLogs]:
    monkeypatch.setattr(queue, "LOG_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(connection, "RECONNECT_DELAYS", (0.01, 0.02))
    with contextlib.closing(DurableLogs(tmp_path / "data")) as made:
        yield made


@pytest.fixture
def server(logs: DurableLogs) -> Iterator[ChatServer]:
    with ChatServer(logs=logs) as running:
        yield running


def heard(client: ChatClient, number: int) -> list[str]:
    messages = client.messages()
    return [str(next(messages)) for _ in range(number)]


def test_messages_are_heard_and_acknowledged_once_they_are_kept(
    people: People, logs: DurableLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = people.client("ann", reconnect=True), people.client("bob", reconnect=True)
    notes = list[Code]()
    cat = people.client("cat", reconnect=True, on_note=notes.append)
    works = Database.commit

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Database, "commit", fail)
    ann.send("hello")
    until(lambda: notes == [Code.WAITING])
    assert ann.unacknowledged == 1
    monkeypatch.setattr(Database, "commit", works)
    assert (heard(bob, 1), heard(cat, 1)) == (["ann: hello"], ["ann: hello"])
    until(lambda: notes == [Code.WAITING, Code.KEPT_AGAIN])
    until(lambda: ann.unacknowledged == 0)


def test_that_messages_wait_is_said_again_and_again(
    people: People, logs: DurableLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who hears nothing would take the server for gone."""
    monkeypatch.setattr(server_module, "WAITING_SECONDS", 0.01)
    ann, works = people.member("ann"), Database.commit

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Database, "commit", fail)
    ann.send(b"hello\n")
    for _ in range(3):
        assert ann.record(Note).code == Code.WAITING
    monkeypatch.setattr(Database, "commit", works)
    while (code := ann.record(Note).code) == Code.WAITING:
        pass
    assert code == Code.KEPT_AGAIN


def test_who_says_much_has_to_wait_while_nothing_is_kept(
    people: People, logs: DurableLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest, bob = people.wire(b"guest\n"), people.client("bob")
    works = Database.commit

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Database, "commit", fail)
    guest.sock.settimeout(None)
    hearing = gevent.spawn(heard, bob, 20_000)
    saying = gevent.spawn(guest.send, (b"x" * 999 + b"\n") * 20_000)
    until(lambda: logs.queue._added > MAX_PIECE)
    gevent.sleep(0.5)
    assert logs.queue._added < MAX_UNKEPT + 2 * MAX_PIECE
    assert not saying.dead
    monkeypatch.setattr(Database, "commit", works)
    saying.get()
    assert hearing.get() == ["guest: " + "x" * 999] * 20_000


def test_restart_loses_and_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "RECONNECT_DELAYS", (0.01, 0.02))
    back: list[int | None] = []
    with contextlib.closing(DurableLogs(tmp_path / "data")) as logs, ChatServer(logs=logs) as server:
        port = server.port
        ann = ChatClient("ann", port, reconnect=True, on_back=back.append)
        bob = ChatClient("bob", port, reconnect=True, on_back=back.append)
        ann.start()
        bob.start()
        for number in range(100):
            ann.send(str(number))
        server.stop()
    for number in range(100, 200):
        ann.send(str(number))
    with contextlib.closing(DurableLogs(tmp_path / "data")) as logs, ChatServer(port, logs=logs, join_grace=0):
        assert heard(bob, 200) == [f"ann: {number}" for number in range(200)]
        until(lambda: back == [0, 0])
        until(lambda: ann.unacknowledged == 0)
        with ChatClient("cat", port, history=50) as cat:
            assert heard(cat, 50) == [f"ann: {number}" for number in range(150, 200)]
        ann.close()
        bob.close()


def test_who_comes_back_is_told_of_what_it_had_just_said(
    people: People, logs: DurableLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would say that again."""
    first = people.wire()
    first.tell(Hello(1, "ann", 0, session="s"))
    first.record(Welcome)
    may_commit, commit, added = gevent.event.Event(), logs.queue._write, logs.queue._added
    monkeypatch.setattr(logs.queue, "_write", lambda batch: may_commit.wait() and commit(batch))
    first.send(b"1\n2\n3\n")
    until(lambda: logs.queue._added > added)
    second = people.wire()
    second.tell(Hello(1, "ann", 0, session="s"))
    assert b"taken-over" in first.rest()
    may_commit.set()
    assert second.record(Welcome).said == 3


def test_guest_of_another_run_is_somebody_else(tmp_path: Path) -> None:
    for run in range(2):
        with (
            contextlib.closing(DurableLogs(tmp_path / "data")) as logs,
            ChatServer(logs=logs) as server,
            ChatClient("ann", server.port, history=10) as ann,
            ChatClient("bob", server.port) as bob,
        ):
            assert heard(ann, run) == ["bob: 0"][:run]
            bob.send(str(run))
            assert heard(ann, 1) == [f"bob: {run}"]
