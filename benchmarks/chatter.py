"""Two guests who chat while something else goes on, in a process of their own, and how long their messages take."""

import contextlib
import math
import socket
import ssl
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Final

from benchmarks.processes import child, connect

__all__ = ["chatting", "percentile"]

PAUSE: Final = 0.005
SIZE: Final = 64
PATIENCE: Final = 2.0
"""Seconds for what was said last to arrive, so that the slowest messages count too."""


@contextlib.contextmanager
def chatting(port: int, *, encrypted: bool = False) -> Iterator[list[float]]:
    """Two guests of the server at *port*, one saying something every 5 ms; afterwards, how long each took, in ms."""
    times: list[float] = []
    with child(lambda boss: _chat(port, boss, encrypted=encrypted)) as guests:
        guests.recv()  # both are in
        yield times
        guests.send("enough")
        times += guests.recv()


def percentile(times: list[float], share: float) -> float:
    """What this share of the messages took at most."""
    return sorted(times)[int(len(times) * share)] if times else math.nan


def _chat(port: int, boss: Connection, *, encrypted: bool) -> None:
    with _guest(port, encrypted=encrypted) as speaker, _guest(port, encrypted=encrypted) as listener:
        listener.sendall(b"listener\n")
        speaker.sendall(b"speaker\n")
        chat = _Chat(speaker, listener)
        while not chat.times:  # a guest is not told when it is in, but hears from then on
            chat.go_on()
        boss.send("in")
        chat.begin()
        while not boss.poll():
            chat.go_on()
        boss.send(chat.end())


def _guest(port: int, *, encrypted: bool) -> socket.socket:
    sock = connect(port)
    if not encrypted:
        return sock
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the server is our own
    return context.wrap_socket(sock)


class _Chat:
    """Messages that say when they were sent."""

    def __init__(self, speaker: socket.socket, listener: socket.socket) -> None:
        self.times: list[float] = []
        self._speaker = speaker
        self._listener = listener
        self._rest = b""
        self.begin()

    def begin(self) -> None:
        """Count what is said from here on."""
        self._begun = time.perf_counter()
        self._said = 0
        self.times.clear()

    def go_on(self) -> None:
        """Say something, and hear what comes until it is time to say more."""
        now = time.perf_counter()
        self._speaker.sendall(f"{now:0{SIZE}.9f}\n".encode())
        self._said += 1
        while (left := now + PAUSE - time.perf_counter()) > 0:
            self._hear(left)

    def end(self) -> list[float]:
        """Hear the rest too; what does not come counts as having taken all the time there was."""
        end = time.perf_counter() + PATIENCE
        while len(self.times) < self._said and (left := end - time.perf_counter()) > 0:
            self._hear(left)
        return self.times + [PATIENCE * 1000] * (self._said - len(self.times))

    def _hear(self, seconds: float) -> None:
        self._listener.settimeout(seconds)
        try:
            data = self._listener.recv(65536)
        except TimeoutError:
            return
        if not data:
            raise SystemExit("the server ended the chat")
        now = time.perf_counter()
        *lines, self._rest = (self._rest + data).split(b"\n")
        sent = (float(line.rpartition(b" ")[2]) for line in lines)
        self.times += [(now - moment) * 1000 for moment in sent if moment >= self._begun]
