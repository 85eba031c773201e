"""Users who chat and swap files, guests who listen, and intruders, while things happen to their servers."""

import contextlib
import itertools
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
from chaos.history import Witness, leaks, violations
from chaos.world import World
from gevent import socket

from greenchat import ChatClient
from greenchat.client import Message
from greenchat.client.resume import ResumeState
from greenchat.errors import GreenchatError, ServerGone

__all__ = ["Guest", "Intruder", "User", "guests_of", "settled", "users_of"]

RATE = 10
"""Messages a second that each user says."""

SETTLE = 90.0
"""Seconds for all to have come to all, once nothing happens any more."""

CALM = 30.0
"""Seconds for a private message, or a file, to reach its receiver then."""

FILE_SIZE = 300_000


def until(condition: Callable[[], object], what: str, seconds: float = SETTLE) -> None:
    """Wait for *condition*. Raises `AssertionError` if that takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"in {seconds:.0f} s {what}"
        gevent.sleep(0.02)


class User:
    """Sends messages, to all and to one, and fetches files for as long as it is *talking*; keeps all it hears."""

    def __init__(self, name: str, room: str, servers: list[tuple[str, int]], home: Path) -> None:
        self.witness = Witness(name, room)
        self.file = os.urandom(FILE_SIZE)
        self.peers: list[User] = []
        self.may_fetch = False
        """True if clients of this world exchange files."""
        (home / name).mkdir()
        (home / name / f"{name}.bin").write_bytes(self.file)
        self._number = 0
        self._acknowledged = 0
        """Of what it had said when its connection was lost last."""
        self._old = 0
        """Messages that have come and not been heard, of an epoch that is over."""
        host, port = servers[0]
        self.client = ChatClient(
            name, port, host=host, others=servers[1:], insecure=True, room=room,
            share=home / name, into=home / name, reconnect=True, on_lost=self._on_lost, on_back=self._on_back,
            on_private=self._on_private,
        )  # fmt: skip
        self.talking = False
        self.client.start()
        self.witness.begin = self._state._position
        self._listening = gevent.spawn(self._listen)
        self._busy: list[gevent.Greenlet[..., None]] = []

    def close(self) -> None:
        gevent.killall([self._listening, *self._busy])
        self.client.close()

    def resume(self) -> None:
        """Talk again."""
        gevent.joinall(self._busy, raise_error=True)
        self.talking = True
        self._busy = [gevent.spawn(work) for work in (self._talk, self._whisper, self._fetch)]

    def whisper(self, peer: "User") -> tuple[str, str]:
        """Send *peer* a private message, if there is a connection; return it as *peer* will receive it."""
        text = f"for {peer.witness.name}, {len(self.witness.whispered)}"
        self.witness.whispered.append((peer.witness.name, text))
        with contextlib.suppress(GreenchatError):
            self.client.send_private(peer.witness.name, text)
        return self.witness.name, text

    def fetch(self, peer: "User") -> bool:
        """Fetch the file of *peer*. Return True if it came, whole or not."""
        try:
            path = self.client.fetch(peer.witness.name, f"{peer.witness.name}.bin").path
        except GreenchatError:
            return False
        if path.read_bytes() != peer.file:
            self.witness.damaged.append(path.name)
        return True

    def _talk(self) -> None:
        while self.talking:
            self._number += 1
            self.client.send(str(self._number), wait=True)
            self.witness.said.append(str(self._number))
            gevent.sleep(1 / RATE)

    def _whisper(self) -> None:
        while self.talking:
            self.whisper(random.choice(self.peers))
            gevent.sleep(5 / RATE)

    def _fetch(self) -> None:
        while self.talking and self.may_fetch:
            self.fetch(random.choice(self.peers))
            gevent.sleep(10 / RATE)

    def _listen(self) -> None:
        for message in self.client.messages():
            if self._old:
                self._old -= 1
            else:
                self.witness.heard.append(str(message))

    def _on_private(self, message: Message) -> None:
        self.witness.overheard.append((message.sender, message.text))

    def _on_lost(self, _gone: ServerGone) -> None:
        self._acknowledged = len(self.witness.said) - self._state.unacknowledged

    def _on_back(self, lost: int | None) -> None:
        if lost is not None:
            self.witness.lost += lost
            return
        inbox = self.client._inbox
        self._old = len(inbox._lines) + sum(block.count(b"\n") for block in inbox._blocks)
        self.witness.anew += 1
        self.witness.begin = self._state._position
        self.witness.heard.clear()
        del self.witness.said[: self._acknowledged]
        self._acknowledged = 0

    @property
    def _state(self) -> ResumeState:
        state = self.client._connection._resume
        assert state
        return state


class Guest:
    """Hears what is said in the lobby, at whatever server answers, and keeps that of each connection apart."""

    def __init__(self, name: str, servers: list[tuple[str, int]]) -> None:
        self.runs: list[list[str]] = []
        self._name, self._servers = name, itertools.cycle(servers)
        self._listening = gevent.spawn(self._listen)

    def close(self) -> None:
        self._listening.kill()

    def start_anew(self) -> None:
        """Forget what was heard, and come by another connection."""
        self.close()
        self.runs.clear()
        self._listening = gevent.spawn(self._listen)

    def _listen(self) -> None:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(next(self._servers), timeout=2) as sock:
                sock.settimeout(None)
                sock.sendall(f"{self._name}\n".encode())
                self._hear(sock)
            gevent.sleep(0.3)

    def _hear(self, sock: socket.socket) -> None:
        run, rest = list[str](), b""
        self.runs.append(run)
        while data := sock.recv(65536):
            *lines, rest = (rest + data).split(b"\n")
            run += [line.decode() for line in lines if not line.startswith(b"error: ")]


class Intruder:
    """Tries to get in under the *names* of users, at any server, for as long as it lives; talks there for a moment."""

    def __init__(self, names: list[str], servers: list[tuple[str, int]]) -> None:
        self._names, self._servers = names, servers
        self._trying = gevent.spawn(self._try)

    def close(self) -> None:
        self._trying.kill()

    def _try(self) -> None:
        for number in itertools.count():
            name, server = random.choice(self._names), random.choice(self._servers)
            with contextlib.suppress(OSError), socket.create_connection(server, timeout=2) as sock:
                sock.settimeout(1)
                sock.sendall(f"{name}\nintruder {number}\n".encode())
                sock.recv(65536)
            gevent.sleep(0.3)


@contextlib.contextmanager
def users_of(world: World, count: int) -> Iterator[list[User]]:
    """So many users, spread over all machines."""
    home = Path(tempfile.mkdtemp(prefix="greenchat-chaos-"))
    servers = [machine.address for machine in world.machines]
    users = list[User]()
    try:
        for machine in world.machines:
            until(lambda: _answers(machine.address), "a server did not come up")  # noqa: B023 - called at once
        for number in range(count):
            first = number % len(servers)
            room = "tea" if number % 3 == 2 else "lobby"
            users.append(User(f"u{number}", room, servers[first:] + servers[:first], home))
        for user in users:
            user.peers = [peer for peer in users if peer is not user]
            user.may_fetch = world.exchanges_files
        yield users
    finally:
        for user in users:
            user.close()
        shutil.rmtree(home)


@contextlib.contextmanager
def guests_of(world: World, count: int) -> Iterator[list[Guest]]:
    """So many guests, each first at another machine."""
    servers = [machine.address for machine in world.machines]
    guests = [Guest(f"g{number}", servers[number:] + servers[:number]) for number in range(count)]
    try:
        yield guests
    finally:
        for guest in guests:
            guest.close()


def settled(world: World, users: list[User]) -> list[str]:
    """Return what is not as promised, once all that was sent has come to all."""
    for user in users:
        user.talking = False
    until(lambda: not any(user.client.unacknowledged for user in users), "not all that was said had a place")
    logs = {room: world.log(room) for room in {user.witness.room for user in users}}
    with contextlib.suppress(AssertionError):  # the violations say it better
        until(lambda: all(_has_heard(user.witness, logs) for user in users), "not all was heard", 20)
    return [
        each
        for room, log in logs.items()
        for each in violations(log, [user.witness for user in users if user.witness.room == room])
    ] + in_calm(users)


def in_calm(users: list[User]) -> list[str]:
    """Return what does not work between users while nothing happens, and what went wrong before."""
    ring = list(zip(users, users[1:] + users[:1], strict=True))
    whispers = [(peer, user.whisper(peer)) for user, peer in ring]
    fetches = [(user, peer, gevent.spawn(user.fetch, peer)) for user, peer in ring if user.may_fetch]
    with contextlib.suppress(AssertionError):
        until(lambda: all(whisper in peer.witness.overheard for peer, whisper in whispers), "not all came", CALM)
    gevent.joinall([fetch for *_, fetch in fetches], timeout=CALM)
    return [
        *(f"{peer.witness.name} did not get {whisper}" for peer, whisper in whispers
          if whisper not in peer.witness.overheard),
        *(f"{user.witness.name} could not fetch from {peer.witness.name}" for user, peer, fetch in fetches
          if not fetch.value),
        *leaks(user.witness for user in users),
    ]  # fmt: skip


def _has_heard(witness: Witness, logs: dict[str, list[str]]) -> bool:
    due = [line for line in logs[witness.room][witness.begin :] if not witness.is_own(line)]
    return len(witness.heard) >= len(due)


def _answers(address: tuple[str, int]) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(address, timeout=1).close()
        return True
    return False
