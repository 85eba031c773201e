"""The programs with a standard error that nobody reads."""

import signal
from contextlib import closing
from pathlib import Path

import pytest
from conftest import Wire, hello
from programs import Client, Server

from greenchat.protocol.records import Private, Welcome


def member(server: Server, name: str) -> Wire:
    wire = Wire(server.port)
    wire.send(hello(name))
    wire.record(Welcome)
    return wire


@pytest.mark.attack(42)
def test_a_server_whose_standard_error_is_full_serves_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cryptography")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with Server("--tls") as server, Client(server.port, tmp_path / "ann", "--tls", "--name", "ann") as ann:
        ann.wait_for_menu()
        server.fill_stderr()
        server.signal(signal.SIGHUP)  # of which a line tells
        with Client(server.port, tmp_path / "bob", "--tls", "--name", "bob") as bob:
            bob.wait_for_menu()
            bob.type("m", "still here")
            ann.out.wait_for("bob: still here\n")
            server.signal(signal.SIGTERM)
            server.process.wait(20)
        assert server.process.returncode == 0


@pytest.mark.attack(42)
def test_a_client_whose_standard_error_is_full_shows_messages_and_ends(tmp_path: Path) -> None:
    with (
        Server() as server,
        Client(server.port, tmp_path / "ann", "--name", "ann") as ann,
        closing(member(server, "mallory")) as mallory,
    ):
        ann.wait_for_menu()
        ann.fill_stderr()
        for _ in range(200):
            mallory.tell(Private("ann", "x" * 4000))
        mallory.send(b"still here?\n")
        ann.out.wait_for("mallory: still here?\n")
        ann.type("m", "yes", "f", "mallory", "a.txt")
        while mallory.line() != b"ann: yes":
            pass
        ann.signal(signal.SIGTERM)
        ann.process.wait(20)
        assert ann.process.returncode == -signal.SIGTERM
