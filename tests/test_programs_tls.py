"""The two programs where all is encrypted."""

import contextlib
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import hello
from credentials import encrypted, new_certificate
from gevent import socket
from programs import GOODBYE, MENU, TOP, Client, Program, Server

from greenchat.net import raise_descriptor_limit
from greenchat.protocol.records import Welcome
from greenchat.security.tls import Tls, client_context


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own files are none of a test's business."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "greenchat"


def encrypted_server(stack: ExitStack, *arguments: str) -> tuple[Server, str]:
    """A server, and its fingerprint."""
    server = stack.enter_context(Server("--tls", *arguments))
    server.err.wait_for("encrypted; the fingerprint is ")
    server.err.wait_for("\n")
    return server, server.err.lines[1].rpartition(" ")[2]


def test_one_flag_on_each_side_is_enough(stack: ExitStack, tmp_path: Path, home: Path) -> None:
    server, fingerprint = encrypted_server(stack)
    ann = stack.enter_context(Client(server.port, tmp_path, "--name", "ann", "--tls"))
    ann.err.wait_for(f"from now on 127.0.0.1:{server.port} is known by its fingerprint {fingerprint}\n")
    ann.wait_for_menu()
    bob = stack.enter_context(Client(server.port, tmp_path, "--name", "bob", "--tls"))
    bob.type("m", "hello!", "x")
    ann.out.wait_for("bob: hello!\n")
    assert bob.status() == 0
    assert bob.out.lines[-1] == GOODBYE
    assert bob.err.text == ""  # it is known already
    assert (home / "server.pem").stat().st_mode & 0o777 == 0o600


def test_certificate_stays_the_same_from_one_run_to_the_next(stack: ExitStack) -> None:
    first, fingerprint = encrypted_server(stack)
    first.signal(signal.SIGTERM)
    assert first.status() == 0
    _, again = encrypted_server(stack)
    assert again == fingerprint


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--fingerprint", f"SHA256:{'a' * 43}"], "and may be somebody in between: its fingerprint is "),
        ([], "this server takes encrypted connections only: give --tls"),
    ],
)
def test_client_that_must_not_enter_says_why(stack: ExitStack, tmp_path: Path, arguments: list[str], told: str) -> None:
    server, _ = encrypted_server(stack)
    ann = stack.enter_context(Client(server.port, tmp_path, "--name", "ann", *arguments))
    assert ann.status() == 1
    assert told in ann.err.text
    assert len(ann.err.lines) == 1


def test_certificate_is_read_again_on_sighup_and_nobody_is_dropped(stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "server.pem"
    old = new_certificate(path).fingerprint
    server = stack.enter_context(Server("--tls-cert", str(path)))
    server.err.wait_for(f"encrypted; the fingerprint is {old}\n")
    ann = stack.enter_context(Client(server.port, tmp_path, "--name", "ann", "--fingerprint", old))
    ann.wait_for_menu()
    path.unlink()
    new = new_certificate(path).fingerprint
    server.signal(signal.SIGHUP)
    server.err.wait_for(f"the certificate was read again; the fingerprint is {new}\n")
    bob = stack.enter_context(Client(server.port, tmp_path, "--name", "bob", "--fingerprint", new))
    bob.type("m", "hello!", "x")
    ann.out.wait_for("bob: hello!\n")
    path.write_text("nothing")
    server.signal(signal.SIGHUP)
    server.err.wait_for(f"the certificate stays as it was: cannot use {path} and {path}: they are not a certificate")
    cat = stack.enter_context(Client(server.port, tmp_path, "--name", "cat", "--fingerprint", new))
    cat.wait_for_menu()


def test_key_that_others_can_read_is_not_used(stack: ExitStack, home: Path) -> None:
    first, _ = encrypted_server(stack)
    first.signal(signal.SIGTERM)
    assert first.status() == 0
    (home / "server.pem").chmod(0o644)
    second = stack.enter_context(Program(TOP / "ChatServer.py", "0", "--tls"))
    assert second.status() == 1
    assert second.err.lines == [f"{home / 'server.pem'} can be read by others: make it yours alone (chmod 600)"]


def test_name_belongs_to_the_key_that_used_it_first(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = encrypted_server(stack)
    ann = stack.enter_context(Client(server.port, tmp_path, "--name", "ann", "--tls"))
    ann.wait_for_menu()
    again = stack.enter_context(Client(server.port, tmp_path, "--name", "ann", "--tls"))
    again.wait_for_menu()
    assert ann.status() == 1
    assert ann.err.lines[-1] == "the server closed the connection: you are here from elsewhere now"
    again.type("x")
    assert again.status() == 0
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "eve"))
    eve = stack.enter_context(Client(server.port, tmp_path, "--name", "ann", "--tls"))
    assert eve.status() == 1
    assert eve.err.lines[-1] == "that name is somebody else's, or looks like it: choose another"


def test_members_are_invited(stack: ExitStack, tmp_path: Path) -> None:
    server, _ = encrypted_server(stack, "--members-only")
    stranger = stack.enter_context(Client(server.port, tmp_path, "--name", "ann", "--tls"))
    assert stranger.status() == 1
    assert stranger.err.lines[-1] == "only members are let in: ask for an invitation"
    invite = stack.enter_context(Program("-m", "greenchat", "names", "invite", home=TOP))
    assert invite.status() == 0
    code = invite.out.text.strip()
    for arguments in (["--invite", code], []):
        ann = stack.enter_context(Client(server.port, tmp_path, "--name", "ann", "--tls", *arguments))
        ann.type("x")
        assert ann.status() == 0


def test_user_is_asked_who_may_fetch(stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, _ = encrypted_server(stack)
    ann = stack.enter_context(Client(server.port, tmp_path / "ann", "--name", "ann", "--tls", "--accept", "ask"))
    (tmp_path / "ann" / "fish.jpg").write_bytes(b"fish")
    ann.wait_for_menu()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "bob's"))
    fingerprint = stack.enter_context(Program("-m", "greenchat", "fingerprint", home=TOP))
    assert fingerprint.status() == 0
    bob = stack.enter_context(Client(server.port, tmp_path / "bob", "--name", "bob", "--tls"))
    bob.type("f", "ann", "fish.jpg")
    key = fingerprint.out.text.split()[0]
    ann.err.wait_for(f"question 1 (y 1 or n 1), key {key}: bob asks for fish.jpg\n")
    ann.type("y 1")
    ann.err.wait_for("question 1: bob may fetch files from you until you leave; n 1 takes it back\n")
    bob.err.wait_for("received fish.jpg from ann (4 bytes)\n")
    ann.err.wait_for("sent fish.jpg to bob (4 bytes)\n")
    ann.type("y", "x")
    assert ann.status() == 1
    assert ann.err.lines[-1] == "type the number of the question too, as in y 1"
    assert ann.out.lines == [*MENU, *MENU, *MENU, GOODBYE]


def test_row_29_thousands_of_half_open_handshakes_and_chat_goes_on(stack: ExitStack) -> None:
    server, _ = encrypted_server(stack)
    raise_descriptor_limit()
    one, other = (stack.enter_context(contextlib.closing(encrypted(server.port))) for _ in range(2))
    for guest, name in ((one, "one"), (other, "other")):
        guest.send(hello(name))
        guest.record(Welcome)
    opening = Tls(client_context(vouched=False), "127.0.0.1").outgoing()
    for number in range(5000):
        half = stack.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", server.port))))
        half.sendall(opening)
        if number % 100 == 0:
            one.send(b"%d\n" % number)
    for number in range(0, 5000, 100):
        assert other.line() == b"one: %d" % number
    late = stack.enter_context(contextlib.closing(encrypted(server.port)))
    late.send(b"late\nhi\n")
    assert other.line() == one.line() == b"late: hi"
