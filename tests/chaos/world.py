"""Servers that things happen to, and users who chat meanwhile."""

import contextlib
import itertools
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import gevent
import gevent.pool
from chaos.history import Witness, violations
from chaos.network import Namespace, Network
from gevent import socket, subprocess
from gevent.lock import BoundedSemaphore
from programs import TOP
from redis_server import RedisServer

from greenchat import ChatClient
from greenchat.backplane.leases import NODES
from greenchat.backplane.scripts import PREFIX
from greenchat.backplane.store import Store
from greenchat.client.resume import ResumeState
from greenchat.errors import ServerGone
from greenchat.log.database import Database, Retention
from greenchat.net import listen

__all__ = ["Disk", "Guest", "Machine", "Nodes", "Proxy", "User", "World", "settled", "users_of"]

RATE = 10
"""Messages a second that each user says."""

SETTLE = 90.0
"""Seconds for all to have come to all, once nothing happens any more."""


def until(condition: Callable[[], object], what: str, seconds: float = SETTLE) -> None:
    """Wait for *condition*. Raises `AssertionError` if that takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"in {seconds:.0f} s {what}"
        gevent.sleep(0.02)


class Proxy:
    """The way from a node to *port*, in this process: it can be slow, swallow everything, or break."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.delay = 0.0
        self.open = True
        self._target = port
        (self._listener,) = listen((host,), 0)
        self.port: int = self._listener.getsockname()[1]
        self._greenlets = gevent.pool.Group()
        self._sockets: set[socket.socket] = set()
        self._greenlets.spawn(self._accept)

    def cut(self) -> None:
        """Break all connections."""
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._greenlets.kill()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            self._greenlets.spawn(self._serve, near)

    def _serve(self, near: socket.socket) -> None:
        with near, socket.socket() as far, contextlib.suppress(OSError):
            far.connect(("127.0.0.1", self._target))
            self._sockets |= {near, far}
            ways = gevent.pool.Group()
            try:
                ways.spawn(self._carry, near, far)
                ways.spawn(self._carry, far, near)
                ways.join()
            finally:
                ways.kill()
                self._sockets -= {near, far}

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                gevent.sleep(self.delay)
                while not self.open:
                    gevent.sleep(0.05)
                sink.sendall(data)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


class Machine:
    """One server, a process that can be killed, stopped and started again on its port."""

    def __init__(self, *arguments: str, clock: Path, room: Namespace | None = None) -> None:
        self.host = room.host if room else "127.0.0.1"
        self.namespace = room
        (listener,) = listen(("127.0.0.1",), 0)
        self.port: int = listener.getsockname()[1]
        listener.close()
        self.clock = clock
        clock.write_text("0")
        skewed = str(Path(__file__).with_name("skewed.py"))
        self._command = [sys.executable, skewed, str(clock), str(TOP / "ChatServer.py"), str(self.port), *arguments]
        if room:
            self._command = ["ip", "netns", "exec", room.name, *self._command, "--host", room.host, "--insecure"]
        self._launch()

    @property
    def address(self) -> tuple[str, int]:
        """Where users reach it."""
        return self.host, self.port

    def start(self) -> None:
        """Unless it is running, because two faults may meet."""
        if self.process.poll() is not None:
            self._launch()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()

    def _launch(self) -> None:
        self.process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)


class World(Protocol):
    """Machines that are one chat."""

    machines: list[Machine]

    def log(self, room: str) -> list[str]:
        """All that was said there, in its order."""

    def close(self) -> None:
        """End all."""


class Nodes:
    """Several servers on one Redis, each with a proxy of its own to it.

    If they are to be *apart*, and that can be, each is in a network namespace of its own.
    """

    def __init__(self, count: int = 3, *, apart: bool = False) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="greenchat-chaos-"))
        self.redis = RedisServer()
        self.redis_is_mine = BoundedSemaphore()
        """For who does something to it, one at a time."""
        self.network = Network(count) if apart and Network.can_be() else None
        host = Network.REDIS if self.network else "127.0.0.1"
        self.proxies = [Proxy(self.redis.port, host) for _ in range(count)]
        self.machines = [
            Machine(
                "--backplane", f"redis://{host}:{proxy.port}",
                room=self.network.namespaces[number] if self.network else None,
                clock=self._home / str(number),
            )
            for number, proxy in enumerate(self.proxies)
        ]  # fmt: skip

    def log(self, room: str) -> list[str]:
        store, lines = Store(self.redis.url), list[str]()
        (epoch,) = store.fields(f"{PREFIX}room:{room}", ["epoch"])
        after = f"{epoch}-0"
        while answer := store.range(f"{PREFIX}log:{room}", after):
            after = answer[-1][0]
            for number, fields in answer:
                lines += fields[b"b"].decode().split("\n")[:-1]
                assert number == f"{epoch}-{len(lines)}", "the log has a gap"
        store.close()
        return lines

    def shift_leases(self, seconds: int) -> None:
        """Have all nodes be alive for so much longer, or shorter."""
        store = Store(self.redis.url)
        server = store._client.server
        for node, told in server.hgetall(NODES).items():
            ends, _, about = told.partition(b" ")
            server.hset(NODES, node, b"%d %s" % (int(ends) + 1000 * seconds, about))
        store.close()

    def close(self) -> None:
        for machine in self.machines:
            with contextlib.suppress(OSError):
                machine.signal(signal.SIGCONT)
            machine.kill()
        for proxy in self.proxies:
            proxy.close()
        self.redis.close()
        if self.network:
            self.network.close()
        shutil.rmtree(self._home)


class Disk:
    """One server that keeps what is said on its disk."""

    def __init__(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="greenchat-chaos-"))
        self.machines = [Machine("--data", str(self._home), clock=self._home / "clock")]

    def log(self, room: str) -> list[str]:
        database, lines = Database(self._home / "messages.db", Retention()), list[str]()
        while entries := database.read(room, len(lines)):
            for entry in entries:
                lines += entry.block.decode().split("\n")[:-1]
        database.close()
        return lines

    def close(self) -> None:
        for machine in self.machines:
            with contextlib.suppress(OSError):
                machine.signal(signal.SIGCONT)
            machine.kill()
        shutil.rmtree(self._home)


class User:
    """Says one message after the other for as long as it is *talking*, and keeps all it hears."""

    def __init__(self, name: str, room: str, servers: list[tuple[str, int]], home: Path) -> None:
        self.witness = Witness(name, room)
        self._number = 0
        self._acknowledged = 0
        """Of what it had said when its connection was lost last."""
        self._old = 0
        """Messages that have come and not been heard, of an epoch that is over."""
        host, port = servers[0]
        self.client = ChatClient(
            name, port, host=host, others=servers[1:], insecure=True, room=room,
            share=home, into=home, reconnect=True, on_lost=self._on_lost, on_back=self._on_back,
        )  # fmt: skip
        self.talking = False
        self.client.start()
        self.witness.begin = self._state._position
        self._listening = gevent.spawn(self._listen)
        self._talking = gevent.spawn(self._talk)

    def close(self) -> None:
        gevent.killall([self._listening, self._talking])
        self.client.close()

    def resume(self) -> None:
        """Talk again."""
        self._talking.join()
        self.talking = True
        self._talking = gevent.spawn(self._talk)

    def _talk(self) -> None:
        while self.talking:
            self._number += 1
            self.client.send(str(self._number), wait=True)
            self.witness.said.append(str(self._number))
            gevent.sleep(1 / RATE)

    def _listen(self) -> None:
        for message in self.client.messages():
            if self._old:
                self._old -= 1
            else:
                self.witness.heard.append(str(message))

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
    """What is not as promised, once all that was said has come to all."""
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
    ]


def _has_heard(witness: Witness, logs: dict[str, list[str]]) -> bool:
    due = [line for line in logs[witness.room][witness.begin :] if not line.startswith(f"{witness.name}: ")]
    return len(witness.heard) >= len(due)


def _answers(address: tuple[str, int]) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(address, timeout=1).close()
        return True
    return False
