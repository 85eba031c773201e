"""The programs with files that never answer: a hung file system, FIFOs, locks that another program holds."""

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from conftest import Wire, hello
from hung import hung_file_system
from programs import Client, Server

from greenchat.errors import Code
from greenchat.protocol.records import Fail, Get, Welcome


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config" / "greenchat").mkdir(parents=True, mode=0o700)
    return tmp_path / "config" / "greenchat"


def member(stack: ExitStack, server: Server, name: str) -> Wire:
    wire = stack.enter_context(closing(Wire(server.port)))
    wire.send(hello(name))
    wire.record(Welcome)
    return wire


@pytest.mark.attack(42)
def test_a_share_that_hangs_stops_neither_chat_nor_the_end(stack: ExitStack, tmp_path: Path) -> None:
    share = stack.enter_context(hung_file_system(tmp_path / "share"))
    server = stack.enter_context(Server())
    options = ("--name", "ann", "--share", str(tmp_path / "share"))
    ann = stack.enter_context(Client(server.port, tmp_path / "ann", *options))
    ann.wait_for_menu()
    mallory = member(stack, server, "mallory")
    share.hang()
    for number in range(20):
        mallory.tell(Get(number, "ann", f"file{number}"))
    mallory.send(b"still here?\n")
    ann.out.wait_for("mallory: still here?\n")
    answers = [mallory.answer(Fail) for _ in range(20)]
    assert {answer.code for answer in answers} == {Code.OWNER_SILENT}
    ann.type("x")
    assert ann.status() == 0


@pytest.mark.attack(42)
def test_a_destination_that_hangs_stops_neither_chat_nor_the_end(stack: ExitStack, tmp_path: Path) -> None:
    into = stack.enter_context(hung_file_system(tmp_path / "into"))
    server = stack.enter_context(Server())
    (tmp_path / "bob").mkdir()
    (tmp_path / "bob" / "a.txt").write_bytes(b"x")
    bob = stack.enter_context(Client(server.port, tmp_path / "bob", "--name", "bob"))
    bob.wait_for_menu()
    ann = stack.enter_context(Client(server.port, tmp_path / "into", "--name", "ann", "--share", str(tmp_path)))
    ann.wait_for_menu()
    into.hang()
    ann.type("f", "bob", "a.txt", "m", "asked")
    bob.out.wait_for("ann: asked\n")
    bob.type("m", "still here?")
    ann.out.wait_for("bob: still here?\n")
    ann.signal(signal.SIGTERM)
    assert ann.status() == -signal.SIGTERM


@pytest.mark.attack(42)
@pytest.mark.parametrize("name", ["identity.pem", "known_servers", "known_peers"])
def test_a_fifo_among_the_clients_files_is_told_at_once(home: Path, tmp_path: Path, name: str) -> None:
    pytest.importorskip("cryptography")
    os.mkfifo(home / name, 0o600)
    with Server("--tls") as server, Client(server.port, tmp_path / "ann", "--tls", "--name", "ann") as ann:
        if name == "known_peers":  # which is of no use before somebody asks for a file
            ann.wait_for_menu()
            ann.type("f", "ann", "a.txt")
        else:
            assert ann.status() == 1
            assert ann.err.lines[-1].endswith(f"{name}: not a regular file")


@pytest.mark.attack(42)
def test_a_registry_that_another_program_has_locked_lets_chat_go_on(
    stack: ExitStack, home: Path, tmp_path: Path
) -> None:
    pytest.importorskip("cryptography")
    server = stack.enter_context(Server("--tls"))
    ann, bob = (
        stack.enter_context(Client(server.port, tmp_path / name, "--tls", "--name", name)) for name in ("ann", "bob")
    )
    ann.wait_for_menu()
    bob.wait_for_menu()
    with closing(sqlite3.connect(home / "names.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        late = stack.enter_context(Client(server.port, tmp_path / "eve", "--tls", "--name", "eve"))
        ann.type("m", "still here?")
        bob.out.wait_for("ann: still here?\n")
        assert late.status() == 1
        server.signal(signal.SIGTERM)
        assert server.status() == 0
