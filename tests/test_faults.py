"""Real programs that are killed, and connections that are cut, at random moments of large transfers.

Whatever happens, a file is exact or absent, the next request completes it, and nothing is left open or on disk.
Shown with ``-s``: how many bytes that were here already had to be sent again.
"""

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import gevent
import pytest
from conftest import Wire, run_command, tcp_pair, until
from gevent import subprocess
from programs import Client, Server

from greenchat import ChatServer
from greenchat.protocol import limits

pytestmark = pytest.mark.slow

TIMES: Final = 20
SIZE: Final = 16 * 1024 * 1024
RATE: Final = "48M"
"""So that the moments fall into the transfer, and not before or after it."""
SECONDS: Final = 0.35
"""What a transfer takes at this rate, and a moment before and after."""


class World:
    """A server, an owner with a large file, and a requester in a directory of its own; each can be had anew."""

    def __init__(self, stack: ExitStack, root: Path, mode: str) -> None:
        self._stack, self._mode = stack, mode
        self._root = root
        self.home = root / "requester"
        (root / "owner").mkdir(parents=True)
        self.content = random.randbytes(SIZE)
        (root / "owner" / "large").write_bytes(self.content)
        self.here = self.again = 0
        """Bytes that were here when the file was asked for again, and how many of them had to be sent again."""
        self.start()

    def start(self) -> None:
        self.server = self._stack.enter_context(Server())
        self.owner, self.requester = self._client("owner"), self._client("requester")
        self.owner.wait_for_menu()
        self.requester.wait_for_menu()

    def start_server(self) -> None:
        """Start the server again, where the clients look for it."""
        self.server = self._stack.enter_context(Server(port=self.server.port))

    def wait_until_back(self, times: int) -> None:
        """Return when both clients have come back so many *times*."""
        for client in (self.owner, self.requester):
            while client.err.text.count("the server is there again") < times:
                gevent.sleep(0.01)

    def start_owner(self) -> None:
        self.owner = self._client("owner")
        self.owner.wait_for_menu()

    def start_requester(self) -> None:
        self.requester = self._client("requester")
        self.requester.wait_for_menu()

    def _client(self, name: str) -> Client:
        options = ("--transfer", self._mode, "--limit-rate", RATE)
        return self._stack.enter_context(Client(self.server.port, self._root / name, "--name", name, *options))

    def ask(self) -> None:
        self.requester.type("f", "owner", "large")

    def at_a_random_moment(self) -> None:
        gevent.sleep(random.uniform(0, SECONDS))

    def is_exact_or_absent(self) -> bool:
        """Also about the names: there is the file, or one part of it, or neither."""
        names = {path.name for path in self.home.iterdir()}
        parts = {name for name in names if name.startswith(".greenchat-")}
        assert names - parts <= {"large"}
        assert len(parts) <= 1
        return "large" not in names or (self.home / "large").read_bytes() == self.content

    def part(self) -> int:
        """Bytes of the file that are here, though it is not whole."""
        return sum(part.stat().st_size for part in self.home.glob(".greenchat-*"))

    def complete(self, ask: bool = True) -> None:  # noqa: FBT001, FBT002 - it is a test's own
        """The file comes, whole; what was here already is not sent again."""
        here, whole = self.part(), ask and (self.home / "large").exists()
        if ask:
            self.ask()
        self.requester.err.wait_for("large from owner")
        told = self._line()
        if whole:  # it had come before the moment
            assert told == "large from owner is the same as the one that is here"
            return
        assert told.startswith("received large"), (told, self.requester.err.lines[-4:])
        if not ask and here == SIZE:  # all of it had come before the moment, and it was only not published yet
            return
        resumed = int(told.partition("bytes, ")[2].partition(" of them")[0].replace(",", "") or 0)
        self.here += here
        self.again += max(0, here - resumed)  # more had come by the time of the last break, where nobody asked anew
        assert [path.name for path in self.home.iterdir()] == ["large"]
        assert (self.home / "large").read_bytes() == self.content

    def _line(self) -> str:
        self.requester.err.wait_for("\n")
        return next(line for line in reversed(self.requester.err.lines) if "large from owner" in line)

    def clear(self) -> None:
        (self.home / "large").unlink()

    def is_left_clean(self, before: "list[int]") -> None:
        """No descriptor more than before, when all is done."""
        with gevent.Timeout(10, AssertionError("descriptors are left open")):
            while any(now > then for now, then in zip(self.descriptors(), before, strict=True)):
                gevent.sleep(0.01)

    def descriptors(self) -> list[int]:
        pids = [one.process.pid for one in (self.server, self.owner, self.requester)]
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]  # noqa: PTH208 - quick

    def tell(self, what: str) -> None:
        assert self.here
        assert self.again == 0
        print(f"\n{what}, {self._mode}: of {self.here:,} bytes here, {self.again:,} were sent again")  # noqa: T201


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as programs:
        yield programs


@pytest.fixture(params=["direct", "relay"])
def world(request: pytest.FixtureRequest, stack: ExitStack, tmp_path: Path) -> World:
    seed = random.randrange(10**6)
    random.seed(seed)
    print(f"\nseed {seed}")  # noqa: T201 - for who wants the same again
    made = World(stack, tmp_path, request.param)
    made.complete()
    made.clear()
    return made


def test_row_33_requester_is_killed(world: World) -> None:
    before = world.descriptors()
    for _ in range(TIMES):
        world.ask()
        world.at_a_random_moment()
        world.requester.signal(signal.SIGKILL)
        world.requester.status()
        assert world.is_exact_or_absent()
        world.start_requester()
        world.complete()
        world.clear()
    world.tell("requester killed")
    world.is_left_clean(before)


def test_row_33_owner_is_killed(world: World) -> None:
    before = world.descriptors()
    for _ in range(TIMES):
        world.ask()
        world.at_a_random_moment()
        world.owner.signal(signal.SIGKILL)
        world.owner.status()
        assert world.is_exact_or_absent()
        world.start_owner()
        world.requester.err.wait_for("large from owner")  # it came, by itself, or could not be had before anything came
        assert world.is_exact_or_absent()
        world.complete()
        world.clear()
    world.is_left_clean(before)


def test_row_33_server_is_killed(world: World) -> None:
    for number in range(1, TIMES + 1):
        world.ask()
        world.at_a_random_moment()
        world.server.signal(signal.SIGKILL)
        world.server.status()
        assert world.is_exact_or_absent()
        world.start_server()
        world.wait_until_back(number)
        world.requester.err.wait_for("large from owner")  # it came, by itself, or could not be had
        assert world.is_exact_or_absent()
        world.complete()
        world.clear()
    before = world.descriptors()
    world.complete()
    world.is_left_clean(before)


# --- a network of its own ---------------------------------------------------------------------


def test_row_20_link_is_down_for_a_moment(network: Callable[..., None], world: World) -> None:
    before = world.descriptors()
    for _ in range(TIMES):
        world.ask()
        world.at_a_random_moment()
        network("ip", "link", "set", "lo", "down")
        gevent.sleep(random.uniform(0, 0.3))
        network("ip", "link", "set", "lo", "up")
        world.complete(ask=False)
        world.clear()
    world.is_left_clean(before)


def test_row_20_connections_are_cut_and_can_be_made_again(network: Callable[..., None], world: World) -> None:
    """Those that move the file; those that were there before are the chat's."""
    if not _can_cut():
        pytest.skip("the system cannot cut connections")
    before, chat, cut = world.descriptors(), _connections(), 0
    for _ in range(TIMES):
        world.ask()
        world.at_a_random_moment()
        for local, peer in _connections() - chat:
            _cut(local, peer)
            cut += 1
        world.complete(ask=False)
        world.clear()
    assert cut
    world.tell(f"{cut} ends of connections cut")
    world.is_left_clean(before)


@pytest.mark.parametrize("waiting", [b"", b"somebody says something\n"], ids=["idle", "with something on its way"])
def test_row_29_member_whose_machine_is_gone_is_found(
    network: Callable[..., None], monkeypatch: pytest.MonkeyPatch, waiting: bytes
) -> None:
    """As after `limits.DEAD_SECONDS`, which are fewer here."""
    for name, number in (("SECONDS", 1), ("INTERVAL", 1), ("PROBES", 2)):
        monkeypatch.setattr(limits, f"KEEPALIVE_{name}", number)
    monkeypatch.setattr(limits, "DEAD_SECONDS", 3)
    with ChatServer() as server, contextlib.closing(Wire(server.port)) as ann, ExitStack() as others:
        others.enter_context(contextlib.closing(Wire(server.port))).send(b"bob\n")
        ann.send(b"ann\n")
        until(lambda: {one.name for one in server._sessions} == {"ann", "bob"})
        network("ip", "link", "set", "lo", "down")
        begun = time.monotonic()
        if waiting:
            member = next(iter(server._sessions))._member
            assert member
            server._rooms.find("").post(member, waiting)
        with gevent.Timeout(30):
            until(lambda: not server._sessions)
        assert time.monotonic() - begun > 1


def _connections() -> set[tuple[str, str]]:
    """The ports of both ends of each, once as each end has them."""
    listed = subprocess.run(["ss", "-Htn", "state", "established"], capture_output=True, text=True, check=True)
    ends = (line.split()[2:4] for line in listed.stdout.splitlines())
    return {(local.rpartition(":")[2], peer.rpartition(":")[2]) for local, peer in ends}


def _cut(local: str, peer: str) -> None:
    run_command("ss", "-K", "-tn", "sport", "=", f":{local}", "dport", "=", f":{peer}")


def _can_cut() -> bool:
    if not shutil.which("ss"):
        return False
    one, other = tcp_pair()
    with one, other:
        _cut(str(one.getsockname()[1]), str(one.getpeername()[1]))
        try:
            return not one.send(b"x")
        except OSError:
            return True
