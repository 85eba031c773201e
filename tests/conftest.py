"""What every test gets: a bound on its time, and a look at what it left behind."""

import contextlib
import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import get_hub, socket

from greenchat import ChatClient, ChatServer

PATIENCE = 60.0
"""Seconds for one test; a hang is a failure."""


def _open_descriptors() -> dict[int, str]:
    found = {}
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists the directory
            found[int(fd.name)] = str(fd.readlink())
    return found


def _running_greenlets() -> "set[gevent.Greenlet[..., Any]]":
    return {found for found in gc.get_objects() if isinstance(found, gevent.Greenlet) and not found.dead and found}


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No descriptor and no greenlet outlives its test."""
    get_hub().threadpool.apply(os.getpid)  # the hub's own descriptors are no leak
    descriptors, greenlets = _open_descriptors(), _running_greenlets()
    with gevent.Timeout(PATIENCE):
        yield
    with contextlib.suppress(gevent.Timeout), gevent.Timeout(5):
        while set(_open_descriptors()) - set(descriptors) or _running_greenlets() - greenlets:
            gevent.sleep(0.01)
            gc.collect()
    assert not {fd: name for fd, name in _open_descriptors().items() if fd not in descriptors}
    assert not _running_greenlets() - greenlets


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


class Wire:
    """A peer that is nothing but a socket: what it sends is spelled out, byte for byte."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.sock = socket.create_connection((host, port))
        self.sock.settimeout(10)
        self._early = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def line(self) -> bytes:
        """The next line, without its end; empty at the end of the connection."""
        while b"\n" not in self._early:
            data = self.sock.recv(65536)
            if not data:
                break
            self._early += data
        line, _, self._early = self._early.partition(b"\n")
        return line

    def rest(self) -> bytes:
        """All that comes until the connection ends."""
        rest, self._early = self._early, b""
        while data := self.sock.recv(65536):
            rest += data
        return rest

    def close(self) -> None:
        self.sock.close()


class People:
    """Clients and raw peers of one server, each client with a directory of its own; all are gone after the test."""

    def __init__(self, server: ChatServer, root: Path) -> None:
        self._server = server
        self._root = root
        self._all: list[ChatClient | Wire] = []

    def client(self, name: str, **options: object) -> ChatClient:
        home = self.home(name)
        client = ChatClient(name, self._server.port, **{"share": home, "into": home, **options})  # type: ignore[arg-type]  # as each test likes
        client.start()
        self._all.append(client)
        return client

    def home(self, name: str) -> Path:
        home = self._root / name
        home.mkdir(exist_ok=True)
        return home

    def wire(self, first: bytes = b"") -> Wire:
        wire = Wire(self._server.port)
        self._all.append(wire)
        wire.send(first)
        return wire

    def close(self) -> None:
        for one in self._all:
            one.close()


@pytest.fixture
def people(server: ChatServer, tmp_path: Path) -> Iterator[People]:
    everyone = People(server, tmp_path)
    yield everyone
    everyone.close()
