"""Several servers that are one chat, as processes."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from programs import TOP, Client, Program, Server
from redis_server import RedisServer, needs_redis

pytestmark = needs_redis


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as one:
        yield one


def test_when_a_server_is_killed_its_clients_go_on_at_another(
    redis: RedisServer, stack: ExitStack, tmp_path: Path
) -> None:
    one, two = (stack.enter_context(Server("--backplane", redis.url)) for _ in range(2))
    both = ("--server", f"127.0.0.1:{two.port}")
    ann = stack.enter_context(Client(one.port, tmp_path / "ann", "--name", "ann", *both))
    bob = stack.enter_context(Client(two.port, tmp_path / "bob", "--name", "bob"))
    for client in (ann, bob):
        client.wait_for_menu()
    ann.type("m", "one")
    bob.out.wait_for("ann: one\n")
    one.signal(signal.SIGKILL)
    ann.err.wait_for("coming back to it, and what you send waits\n")
    bob.type("m", "two")
    ann.type("m", "three")
    ann.out.wait_for("bob: two\n")
    bob.out.wait_for("ann: three\n")
    assert ann.err.lines[-1] == f"now at 127.0.0.1 port {two.port}"
    (tmp_path / "ann" / "file").write_bytes(b"hello")
    bob.type("f", "ann", "file")
    bob.err.wait_for("received file from ann (5 bytes)\n")
    for client in (ann, bob):
        client.type("x")
        assert client.status() == 0


def test_backplane_that_keeps_nothing_is_warned_of() -> None:
    with RedisServer("--appendonly", "no") as redis, Server("--backplane", redis.url) as server:
        server.err.wait_for("warning: should the backplane crash, what was said is lost: set its appendonly to yes\n")


def test_backplane_that_is_not_there_is_one_line() -> None:
    with Program(TOP / "ChatServer.py", "0", "--backplane", "redis://:secret@127.0.0.1:1") as server:
        assert server.status() == 1
        assert len(server.err.lines) == 1
        assert server.err.lines[0].startswith("cannot use the backplane redis://127.0.0.1:1: ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--backplane", "redis://x", "--data", "x"), "--data is of no use with --backplane, which keeps what is said"),
        (("--keep-days", "1"), "--keep-days requires --data"),
        (
            ("--keep-lines", "1"),
            "--keep-lines and --keep-size require --data or --backplane: in memory, 2,048 lines are kept",
        ),
        (
            ("--backplane", "secret@x"),
            "argument --backplane: that is no Redis: give redis://host:port, or another kind that the README names",
        ),
        (("--advertise", "x:1"), "--advertise takes --backplane: without, nobody is told"),
    ],
)
def test_options_that_do_not_go_together(arguments: tuple[str, ...], told: str) -> None:
    with Program(TOP / "ChatServer.py", "0", *arguments) as server:
        assert server.status() == 2
        assert server.err.lines == [f"ChatServer.py: {told}; see ChatServer.py --help"]
