"""Members who come back after a crash as clients do, and how long that takes; a thousand cost little."""

import contextlib
import json
import os
import random
import select
import signal
import socket
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from subprocess import Popen
from typing import Any, Final

import gevent

from benchmarks.load import LoadError
from benchmarks.peers import REDIS, TOP
from benchmarks.processes import child, connect, deadline, free_port, running, workplace
from benchmarks.report import Figures
from greenchat.client import ChatClient
from greenchat.protocol.codec import encode
from greenchat.protocol.limits import RECONNECT_DELAYS, RECONNECT_JITTER
from greenchat.protocol.records import Hello

__all__ = ["MEASURES", "redis_command"]

MEMBERS: Final = 1000
SPEAKERS: Final = 10
RATE: Final = 20
"""Messages a second that each speaker says."""

BEFORE: Final = 3.0
AFTER: Final = 12.0
"""Seconds until the crash, and after it."""

LATE: Final = 0.25
"""Seconds: who hears what was said no longer ago than that has caught up."""

TOO_LONG: Final = 90.0
SIZE: Final = 256 * 1024


@dataclass(eq=False)
class _Member:
    """One that only hears; it takes up where it was."""

    name: str
    ports: Sequence[int]
    sock: socket.socket | None = None
    rest: bytes = b""
    epoch: str = ""
    position: int = 0
    lines: int = 0
    digest: int = 0
    tries: int = 0
    due: float = 0.0
    """When to connect."""
    turn: int = 0
    back: float = 0.0
    """When it was let in last."""
    crashed: float = 0.0
    caught_up: float = 0.0
    """When it heard what had just been said, and after the crash."""
    session: str = field(default_factory=lambda: f"{random.getrandbits(128):032x}")

    def connect(self) -> bool:
        """Whether there is a server."""
        self.turn += 1
        self.rest = b""
        self.sock = socket.socket()
        try:
            self.sock.connect(("127.0.0.1", self.ports[self.turn % len(self.ports)]))
        except OSError:
            self.lose()
            return False
        hello = Hello(1, self.name, 0, session=self.session, epoch=self.epoch, position=self.position)
        self.sock.sendall(encode(hello))
        self.sock.setblocking(False)  # noqa: FBT003 - as it is called
        return True

    def lose(self) -> None:
        """Come back later."""
        if self.sock:
            self.sock.close()
            self.sock = None
        delay = RECONNECT_DELAYS[min(self.tries, len(RECONNECT_DELAYS) - 1)]
        self.due = time.monotonic() + delay * random.uniform(1 - RECONNECT_JITTER, 1 + RECONNECT_JITTER)
        self.tries += 1

    def read(self) -> bool:
        """Whether the connection is there still."""
        assert self.sock
        try:
            data = self.sock.recv(SIZE)
        except OSError:
            data = b""
        if not data:
            return False
        whole, _, self.rest = (self.rest + data).rpartition(b"\n")
        if whole:
            self._hear(whole + b"\n")
        return True

    def _hear(self, lines: bytes) -> None:
        if b"\x01" in lines:
            for line in lines.splitlines(keepends=True):
                if line.startswith(b"\x01"):
                    self._obey(json.loads(line[1:]))
                else:
                    self._count(line)
        else:
            self._count(lines)

    def _count(self, lines: bytes) -> None:
        number = lines.count(b"\n")
        self.lines += number
        self.position += number
        self.digest = zlib.crc32(lines, self.digest)
        now, said = time.monotonic(), float(lines[lines.rindex(b" ") :])
        if not self.caught_up and now - said < LATE and said > self.crashed:
            self.caught_up = now

    def _obey(self, record: dict[str, Any]) -> None:
        if record["t"] == "welcome":
            self.epoch, self.position = record["epoch"], record.get("position", 0)
            self.back, self.tries, self.caught_up = time.monotonic(), 0, 0.0


def _listen(ports: Sequence[int], boss: Connection) -> None:
    """Members until the boss says that it is enough; it says when something has crashed, too. What became of them."""
    poll = select.epoll()
    members = [_Member(f"m{number}", ports, turn=number) for number in range(MEMBERS)]
    by_fd, waiting = dict[int, _Member](), list(members)
    told, crashed = False, 0.0
    while not (boss.poll() and (crashed := boss.recv()) == "enough"):
        if crashed:
            for member in members:
                member.crashed, member.caught_up = crashed, 0.0
            crashed = 0.0
        now = time.monotonic()
        for member in [member for member in waiting if member.due <= now]:
            if member.connect() and member.sock:
                waiting.remove(member)
                by_fd[member.sock.fileno()] = member
                poll.register(member.sock, select.EPOLLIN)
        for fd, _ in poll.poll(0.02):
            if not by_fd[fd].read():
                member = by_fd.pop(fd)
                poll.unregister(fd)
                member.lose()
                waiting.append(member)
        if not told and all(member.back for member in members):
            told = True
            boss.send("all are in")
    boss.send([(member.back, member.caught_up, member.lines, member.digest) for member in members])


def _speak(ports: Sequence[int], boss: Connection) -> None:
    """Speakers until the boss says that it is enough; how much they have said."""
    speakers = [
        ChatClient(
            f"s{number}", ports[number % len(ports)], others=[("127.0.0.1", port) for port in ports], reconnect=True
        )
        for number in range(SPEAKERS)
    ]
    said = 0
    for speaker in speakers:
        speaker.start()
    while not boss.poll():
        for speaker in speakers:
            speaker.send(f"{time.monotonic():.6f}", wait=True)
        said += SPEAKERS
        gevent.sleep(1 / RATE)
    while any(speaker.unacknowledged for speaker in speakers):
        gevent.sleep(0.01)
    boss.send(said)


def _measured(ports: Sequence[int], crash: Callable[[], None]) -> Figures:
    with child(lambda boss: _listen(ports, boss)) as members:
        members.recv()
        with child(lambda boss: _speak(ports, boss)) as speakers:
            time.sleep(BEFORE)
            crashed = time.monotonic()
            members.send(crashed)
            crash()
            time.sleep(AFTER)
            speakers.send("enough")
            said = speakers.recv()
        time.sleep(2 * LATE)
        members.send("enough")
        ends: list[tuple[float, float, int, int]] = members.recv()
    if len({digest for *_, digest in ends}) > 1 and all(lines == said for _, _, lines, _ in ends):
        raise LoadError("not all heard the same")
    if not said or not all(caught for _, caught, *_ in ends):
        raise LoadError("not all came back")
    return {
        "all back": max(0.0, max(back for back, *_ in ends) - crashed),
        "caught up": max(caught for _, caught, *_ in ends) - crashed,
        "lost": float(sum(max(0, said - lines) for _, _, lines, _ in ends)),
        "doubled": float(sum(max(0, lines - said) for _, _, lines, _ in ends)),
    }


class _Machine:
    """A process that can be killed and started again."""

    def __init__(self, command: list[str], home: Path, stack: contextlib.ExitStack) -> None:
        self._command, self._home, self._stack = command, home, stack
        self.start()

    def start(self) -> None:
        self._process: Popen[bytes] = self._stack.enter_context(running(self._command, self._home))

    def kill(self) -> None:
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()


@contextlib.contextmanager
def _place() -> Iterator[tuple[Path, contextlib.ExitStack]]:
    with deadline(TOO_LONG), workplace() as home, contextlib.ExitStack() as stack:
        yield home, stack


def _server(port: int, *options: str) -> list[str]:
    return [sys.executable, str(TOP / "ChatServer.py"), str(port), "--backlog", "64M", *options]


def on_disk() -> Figures:
    """A server with a disk is killed and started again."""
    with _place() as (home, stack):
        port = free_port()
        server = _Machine(_server(port, "--data", str(home / "data")), home, stack)
        connect(port).close()

        def crash() -> None:
            server.kill()
            server.start()

        return _measured([port], crash)


def of_two_nodes() -> Figures:
    """One of two nodes is killed, and not started again."""
    with _place() as (home, stack):
        redis, ports, machines = _nodes(home, stack, 2)
        assert redis
        return _measured(ports, machines[0].kill)


def of_redis() -> Figures:
    """Redis is killed and started again."""
    with _place() as (home, stack):
        redis, ports, _ = _nodes(home, stack, 2)

        def crash() -> None:
            redis.kill()
            redis.start()

        return _measured(ports, crash)


def _nodes(home: Path, stack: contextlib.ExitStack, count: int) -> tuple[_Machine, list[int], list[_Machine]]:
    port = free_port()
    redis = _Machine(redis_command(port), home, stack)
    connect(port).close()
    ports = [free_port() for _ in range(count)]
    machines = [_Machine(_server(each, "--backplane", f"redis://127.0.0.1:{port}"), home, stack) for each in ports]
    for each in ports:
        connect(each).close()
    return redis, ports, machines


def redis_command(port: int) -> list[str]:
    """A Redis that keeps all on its disk."""
    options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "yes", "appendfsync": "everysec"}
    return [REDIS, *(str(word) for name, value in options.items() for word in (f"--{name}", value))]


MEASURES: Final[dict[str, Callable[[], Figures]]] = {
    "greenchat on disk, restarted": on_disk,
    "1 of 2 nodes, killed": of_two_nodes,
    "Redis of 2 nodes, restarted": of_redis,
}
