"""The two programs where all is encrypted."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from credentials import new_certificate
from programs import GOODBYE, TOP, Client, Program, Server


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
    ann.err.wait_for(f"from now on 127.0.0.1 port {server.port} is known by its fingerprint {fingerprint}\n")
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
