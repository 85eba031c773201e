"""Targets that run: TLS, a server's sessions, a client, and both ends of a data connection, with sockets and files."""

import contextlib
import functools
import hashlib
import ssl
from collections.abc import Callable
from typing import Any, Final
from unittest import mock

import gevent
from fuzz.ground import connect, directory, ends, ignore, once, rest_of, watched
from fuzz.pure import pieces
from gevent import socket

from greenchat import ChatClient, ChatServer
from greenchat.client import downloads
from greenchat.client.consent import Accept, Consent
from greenchat.client.downloads import Downloads
from greenchat.client.peers import Peers
from greenchat.client.routes import Route, Routes
from greenchat.client.servers import Servers
from greenchat.client.uploads import Uploads
from greenchat.errors import GreenchatError, ProtocolError
from greenchat.net import listen
from greenchat.protocol.codec import SOH, decode, encode
from greenchat.protocol.records import File, Get, Record, Take, Want, Welcome
from greenchat.protocol.text import UNSAFE
from greenchat.security.keys import Identity, key_file
from greenchat.security.tls import Tls, client_context, server_context
from greenchat.threads import end
from greenchat.transfer.destination import Destination
from greenchat.transfer.moving import Traffic
from greenchat.transfer.share import Share

CONTENT: Final = b"hello"

Listener = Callable[[], bytes]
"""What a member has been told since it was last asked."""


@once
def _contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    key = key_file(directory("tls") / "key.pem")
    return server_context(key, key), client_context(vouched=False)


@watched
def tls_handshake(data: bytes) -> None:
    """What comes instead of a handshake, on either side."""
    for side in _contexts():
        tls = Tls(side)
        with contextlib.suppress(ProtocolError):
            for piece in pieces(data):
                assert tls.receive(piece) == b""
        assert not tls.established
        assert len(tls.outgoing()) < 65536


@watched
def tls_records(data: bytes) -> None:
    """What comes after a handshake without being from the peer: nothing is taken for what the peer has said."""
    one, other = map(Tls, _contexts())
    while not (one.established and other.established):
        one.receive(other.outgoing())
        other.receive(one.outgoing())
    for receive in (one.receive, lambda piece: bytes(other.open(memoryview(piece)))):
        with contextlib.suppress(ProtocolError):
            for piece in pieces(data):
                assert receive(piece) == b""


class ServerContext:
    """A server, and a member that hears all."""

    def __init__(self, server: ChatServer, enter: Callable[[int], Listener]) -> None:
        self.server = server
        self.server.start()
        ends.callback(self.server.stop)
        self._hear = enter(server.port)
        while not server._rooms.counts():
            gevent.sleep(0)

    def check(self) -> None:
        """All is as before, and what was said came as safe lines with a name before each."""
        while len(self.server._sessions) > 1:
            gevent.sleep(0)
        told = self._hear()
        assert not told or told.endswith(b"\n")
        for line in told.decode().split("\n")[:-1]:
            assert ": " in line or line[:1].encode() == SOH
            assert UNSAFE.search(line.removeprefix(SOH.decode())) is None
        assert [number for _, number in self.server._rooms.counts()] == [1]


def pending(peer: Any) -> bytes:
    """All that has come so far."""
    told = b""
    peer.settimeout(0)
    with contextlib.suppress(OSError):
        while data := peer.recv(65536):
            told += data
    return told


def _witness(port: int) -> Listener:
    peer = connect(port)
    ends.callback(peer.close)
    peer.sendall(b"witness\n")
    return functools.partial(pending, peer)


@once
def _context() -> ServerContext:
    return ServerContext(ChatServer(), _witness)


@watched
def session(data: bytes) -> None:
    """What a peer says to a server."""
    house = _context()
    peer = connect(house.server.port)
    with contextlib.suppress(OSError):
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
    rest_of(peer)
    house.check()


@watched
def server(data: bytes) -> None:
    """What a server says to a client, after a welcome or instead of one."""
    (listener,) = listen(("127.0.0.1",), 0)
    client = ChatClient("ann", listener.getsockname()[1], share=directory("share"), into=directory("into"), parallel=1)

    def serve() -> None:
        peer, _ = listener.accept()
        with contextlib.suppress(OSError):
            peer.recv(65536)
            peer.sendall(encode(Welcome(1, "ann")) + data[1:] if data[:1] < b"\x80" else data)
            peer.shutdown(socket.SHUT_WR)
            rest_of(peer)

    serving = gevent.spawn(serve)
    try:
        client.start()
        for message in client.messages():
            assert UNSAFE.search(str(message)) is None
    except GreenchatError:
        pass
    finally:
        client.close()
        serving.kill()
        listener.close()


class Owner:
    """A client's side that serves, with one file that one ticket is good for."""

    def __init__(self, identity: Identity | None = None) -> None:
        (directory("owned") / "file").write_bytes(CONTENT)
        self.told: list[Record] = []
        consent = Consent(Accept.ALL, Peers(None, ("", 0)), ignore)
        share = Share(directory("owned"))
        ends.callback(share.close)
        self.uploads = Uploads(
            share,
            self.told.append,
            ignore,
            Traffic(),
            consent=consent,
            servers=Servers([("127.0.0.1", 1)], None, insecure=False),
            identity=identity,
        )
        ends.callback(self.uploads.close)
        self.port = self.uploads.listen(("127.0.0.1",), 0)

    def offer(self, want: Want) -> None:
        """Offer a file, and return once the server is told: it tells the requester of the ticket only then."""
        self.told.clear()
        self.uploads.offer(want)
        while not self.told:
            gevent.sleep(0)

    def check(self, answer: bytes) -> None:
        """Nobody is left, and the *answer* was the file or an error."""
        while self.uploads._strangers or self.uploads._serving:
            gevent.sleep(0)
        line, _, rest = answer.partition(b"\n")
        if line.startswith(b"HTTP/1.1 400 "):
            return
        if isinstance(record := decode(line[1:]) if line else None, File):
            assert CONTENT.endswith(rest[: record.size - record.offset].partition(SOH)[0])


_owner = once(Owner)


@watched
def owner(data: bytes) -> None:
    """What a requester says to an owner: it gets the file or an error."""
    one = _owner()
    one.offer(Want("t", "ann", "file"))
    peer = connect(one.port)
    with contextlib.suppress(OSError):
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
    one.check(rest_of(peer))


class Requester:
    """A client's side that fetches, from whatever answers at a port of its own."""

    def __init__(self, identity: Identity | None = None, owner: str = "") -> None:
        (self._listener,) = listen(("127.0.0.1",), 0)
        self._owner = owner
        """The certificate that the server says is the owner's."""
        self.says = b""
        """What the owner says to whom it accepts."""
        self._home = directory("home")
        self._into = Destination(self._home)
        ends.callback(self._into.close)
        ends.enter_context(mock.patch.object(downloads, "RETRY_DELAYS", ()))  # each case is tried once
        routes, peers = (
            Routes(Servers([("127.0.0.1", 1)], None, insecure=False), Route.DIRECT, identity),
            Peers(None, ("", 0)),
        )
        self._downloads = Downloads(self._grant, routes, peers, Traffic(), slots=1)
        ends.callback(self._listener.close)
        ends.callback(gevent.spawn(self._serve).kill)
        ends.callback(end, self._downloads.pool)

    def fetch(self) -> bytes | None:
        """What arrived, which is the only thing that is left then."""
        arrived = False
        with contextlib.suppress(GreenchatError):
            self._downloads.fetch("dan", "file", self._into)
            arrived = True
        left = {path.name: path.read_bytes() for path in self._home.iterdir()}
        for name in left:
            (self._home / name).unlink()
        assert arrived == ("file" in left)
        return left.get("file")

    def answer(self, peer: Any) -> None:
        """What the owner says to *peer*, which has connected."""
        peer.recv(65536)
        peer.sendall(self.says)

    def _grant(self, get: Record) -> None:
        assert isinstance(get, Get)
        direct = (self._listener.getsockname(),)
        gevent.spawn(self._downloads.answer, Take(get.id, "t", len(CONTENT), direct, "k", ("sha256",), self._owner))

    def _serve(self) -> None:
        while True:
            peer, _ = self._listener.accept()
            with contextlib.suppress(OSError, GreenchatError):
                self.answer(peer)
                peer.shutdown(socket.SHUT_WR)
            rest_of(peer)


_requester = once(Requester)


@watched
def requester(data: bytes) -> None:
    """What an owner says to a requester: a file appears only if it is whole, and then it is what was said."""
    one = _requester()
    one.says = data
    file = one.fetch()
    assert file is None or (file in data and hashlib.sha256(file).hexdigest().encode() in data)


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each for each in (tls_handshake, tls_records, session, server, owner, requester)
}
