"""Peers in a transfer: owners whose every byte is spelled out, requests, and a wire that can be cut."""

import contextlib
import hashlib
from pathlib import Path
from typing import Final

import gevent
from conftest import People, Stub, Wire, reset
from gevent import socket
from gevent.pool import Group

from greenchat import ChatClient, GreenchatError, Received
from greenchat.errors import Code
from greenchat.net import listen
from greenchat.protocol.codec import encode
from greenchat.protocol.records import Dial, Done, File, Go, Have, Hello, Pull, Relay, Want, Welcome

BYTES: Final = bytes(range(256)) * 4096
"""A file's content: every byte there is, over a mebibyte."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def outcome(client: ChatClient, owner: str, file: str, into: Path | None = None) -> Received | GreenchatError:
    """What becomes of a request."""
    try:
        return client.fetch(owner, file, into)
    except GreenchatError as error:
        return error


def fetching(
    client: ChatClient, owner: str = "dan", file: str = "file", into: Path | None = None
) -> "gevent.Greenlet[..., object]":
    return gevent.spawn(outcome, client, owner, file, into)


def code_of(request: "gevent.Greenlet[..., object]") -> Code:
    """Why a request failed."""
    error = request.get()
    assert isinstance(error, GreenchatError), error
    return error.code


def received(request: "gevent.Greenlet[..., object]") -> Received:
    """What a request brought."""
    found = request.get()
    assert isinstance(found, Received), repr(found)
    return found


def sharing(people: People, name: str, **files: bytes) -> ChatClient:
    """A client that owns *files*."""
    for file, content in files.items():
        (people.home(name) / file).write_bytes(content)
    return people.client(name)


class Owner:
    """An owner called dan whose every byte is spelled out, with a port of its own."""

    def __init__(self, people: People, stub: Stub) -> None:
        self._people = people
        self._stub = stub
        self.wire = people.member("dan", listen=stub.port)
        self.ticket = ""
        self.pull = Pull("", "", 0, "")
        """The last one that was shown."""

    def grants(self, size: int = 5, *algorithms: str) -> None:
        self.ticket = self.wire.record(Want).ticket
        self.wire.tell(Have(self.ticket, size, algorithms or ("sha256",)))

    def pulled(self) -> Wire:
        """The requester's connection, after it has shown its ticket."""
        self.grants()
        return self.shown(self._stub.accept())

    def shown(self, end: Wire) -> Wire:
        self.pull = end.record(Pull)
        assert self.pull.ticket == self.ticket
        return end

    def dialled(self) -> Wire:
        """The relayed connection, after the requester has shown its ticket."""
        return self.shown(self.joined())

    def joined(self) -> Wire:
        """The relayed connection."""
        end = self._people.wire(encode(Relay(self.wire.record(Dial).key)))
        end.record(Go)
        return end


def header(size: int, offset: int = 0) -> bytes:
    return encode(File(size, offset))


def gives(end: Wire, data: bytes, offset: int = 0) -> None:
    """Hand out a file as it should be."""
    end.send(header(len(data), offset) + data[offset:] + encode(Done(sha256(data))))


def breaks_off(end: Wire, data: bytes, size: int, offset: int = 0) -> None:
    """Send *data* of a file, and vanish."""
    end.send(header(size, offset) + data)
    end.close()


def left(home: Path) -> dict[str, bytes]:
    """What is in a directory; a partial is called ``part``, and one more ``part 2``."""
    found = {}
    for path in home.iterdir():
        name = "part" if path.name.startswith(".greenchat-") else path.name
        while name in found:
            name += " 2"
        found[name] = path.read_bytes()
    return found


def chat_goes_on(client: ChatClient, owner: Owner) -> None:
    """And it is the first thing that *owner* hears."""
    client.send("still here")
    assert owner.wire.line() == f"{client.name}: still here".encode()


def with_server(stub: Stub, home: Path, name: str = "ann") -> tuple[ChatClient, Wire]:
    """A client, and a server's end whose every byte is spelled out."""
    client = ChatClient(name, stub.port, share=home, into=home)
    starting = gevent.spawn(client.start)
    server = stub.accept()
    server.record(Hello)
    server.tell(Welcome(1, name))
    starting.get()
    return client, server


class Proxy:
    """Stands before a port, and cuts connections after so many bytes towards who connects.

    Each of *cuts* is for one connection, in their order, of those whose first bytes have *only* in them; None, and what
    comes after the last, is for one that is not cut.
    """

    def __init__(self, target: int, *cuts: int | None, only: bytes = b"") -> None:
        self.target = target
        self.carried: list[int] = []
        """Bytes that went to who connected, of each such connection."""
        self._cuts = list(cuts)
        self._only = only
        self._greenlets = Group()
        (self._listener,) = listen(("127.0.0.1",), 0)
        self.port: int = self._listener.getsockname()[1]
        self._greenlets.spawn(self._accept)

    def close(self) -> None:
        self._greenlets.kill()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            self._greenlets.spawn(self._carry, self._listener.accept()[0])

    def _carry(self, near: socket.socket) -> None:
        with contextlib.suppress(OSError), near, socket.create_connection(("127.0.0.1", self.target)) as far:
            first = near.recv(65536)
            far.sendall(first)
            number, cut = -1, None
            if self._only in first:
                number, cut = len(self.carried), self._cuts.pop(0) if self._cuts else None
                self.carried.append(0)
            away = self._greenlets.spawn(_copy, near, far)
            try:
                self._back(far, near, number, cut)
                away.join()  # until it is closed there, too
            finally:
                away.kill()

    def _back(self, far: socket.socket, near: socket.socket, number: int, cut: int | None) -> None:
        done = 0
        while data := far.recv(65536 if cut is None else min(65536, cut - done)):
            near.sendall(data)
            done += len(data)
            if number >= 0:
                self.carried[number] = done
            if done == cut:
                near.shutdown(socket.SHUT_WR)  # what was sent arrives
                reset(far)
                return
        near.shutdown(socket.SHUT_WR)


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
