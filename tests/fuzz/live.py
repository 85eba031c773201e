"""Targets that run: TLS, a server's sessions, a client, and both ends of a data connection, with sockets and files.

What a target starts goes on from one case to the next, and has to be as it was before after each.
"""

import contextlib
import functools
import hashlib
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from unittest import mock

import gevent
from fuzz.pure import pieces
from gevent import get_hub, socket

from greenchat import ChatClient, ChatServer
from greenchat.client import downloads
from greenchat.client.consent import Accept, Consent
from greenchat.client.downloads import Downloads
from greenchat.client.peers import Peers
from greenchat.client.routes import Route, Routes
from greenchat.client.uploads import Uploads
from greenchat.errors import GreenchatError, ProtocolError
from greenchat.net import listen
from greenchat.protocol.records import SOH, File, Get, Record, Take, Want, Welcome, decode, encode
from greenchat.protocol.text import UNSAFE
from greenchat.security.keys import key_file
from greenchat.security.tls import Tls, client_context, server_context
from greenchat.threads import end
from greenchat.transfer.destination import Destination
from greenchat.transfer.moving import Traffic
from greenchat.transfer.share import Share

PATIENCE: Final = 10.0
"""Seconds for one case: every conversation ends soon after its peer has gone."""

CONTENT: Final = b"hello"

_broken: list[BaseException] = []


def _note(_context: object, _kind: object, error: BaseException | str | None, _trace: object) -> None:
    _broken.append(error if isinstance(error, BaseException) else AssertionError(error))


_endings = contextlib.ExitStack()
"""Of all that was started and made."""


def close() -> None:
    """End what the targets have started; they may be used again."""
    _endings.close()
    for each in (_directory, _contexts, _house, _owner, _requester):
        each.cache_clear()


def _watched(target: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """*target*, with a bound on its time, which also fails if any greenlet does."""

    @functools.wraps(target)
    def run(data: bytes) -> None:
        hub = get_hub()
        hub.handle_error = _note  # type: ignore[method-assign,assignment]  # gevent's way to hear of it
        with gevent.Timeout(PATIENCE, AssertionError("it hangs")):
            try:
                target(data)
            finally:
                del hub.handle_error
        if _broken:
            raise _broken.pop()

    return run


@functools.cache
def _directory(name: str) -> Path:
    return Path(_endings.enter_context(tempfile.TemporaryDirectory(suffix=name)))


@functools.cache
def _contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    key = key_file(_directory("tls") / "key.pem")
    return server_context(key, key), client_context(vouched=False)


@_watched
def tls_handshake(data: bytes) -> None:
    """What comes instead of a handshake, on either side."""
    for side in _contexts():
        tls = Tls(side)
        with contextlib.suppress(ProtocolError):
            for piece in pieces(data):
                assert tls.receive(piece) == b""
        assert not tls.established
        assert len(tls.outgoing()) < 65536


@_watched
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


class _House:
    """A server, and a member that hears all."""

    def __init__(self) -> None:
        self.server = ChatServer()
        self.server.start()
        _endings.callback(self.server.stop)
        self.witness = _connect(self.server.port)
        _endings.callback(self.witness.close)
        self.witness.sendall(b"witness\n")
        while not self.server._room._members:
            gevent.sleep(0)

    def heard(self) -> bytes:
        """All that the witness has been told so far."""
        told = b""
        self.witness.settimeout(0)
        with contextlib.suppress(OSError):
            while data := self.witness.recv(65536):
                told += data
        return told


_house = functools.cache(_House)


@_watched
def session(data: bytes) -> None:
    """What a peer says to a server: others hear safe lines with a name before each, and the server is as before."""
    house = _house()
    peer = _connect(house.server.port)
    with contextlib.suppress(OSError):
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
    _rest(peer)
    while len(house.server._sessions) > 1:
        gevent.sleep(0)
    told = house.heard()
    assert not told or told.endswith(b"\n")
    for line in told.decode().split("\n")[:-1]:
        assert ": " in line
        assert UNSAFE.search(line) is None
    assert len(house.server._room._members) == 1


@_watched
def server(data: bytes) -> None:
    """What a server says to a client, after a welcome or instead of one."""
    (listener,) = listen(("127.0.0.1",), 0)
    client = ChatClient(
        "ann", listener.getsockname()[1], share=_directory("share"), into=_directory("into"), parallel=1
    )

    def serve() -> None:
        peer, _ = listener.accept()
        with contextlib.suppress(OSError):
            peer.recv(65536)
            peer.sendall(encode(Welcome(1, "ann")) + data[1:] if data[:1] < b"\x80" else data)
            peer.shutdown(socket.SHUT_WR)
            _rest(peer)

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


class _Owner:
    """A client's side that serves, with one file that one ticket is good for."""

    def __init__(self) -> None:
        (_directory("owned") / "file").write_bytes(CONTENT)
        self.told: list[Record] = []
        consent = Consent(Accept.ALL, Peers(None, ("", 0)), _ignore)
        share = Share(_directory("owned"))
        _endings.callback(share.close)
        self.uploads = Uploads(share, self.told.append, _ignore, Traffic(), consent=consent, server=("127.0.0.1", 1))
        _endings.callback(self.uploads.close)
        self.port = self.uploads.listen(("127.0.0.1",), 0)


_owner = functools.cache(_Owner)


@_watched
def owner(data: bytes) -> None:
    """What a requester says to an owner: it gets the file or an error, and nothing else."""
    one = _owner()
    one.uploads.offer(Want("t", "ann", "file"))
    one.told.clear()
    peer = _connect(one.port)
    with contextlib.suppress(OSError):
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
    answer = _rest(peer)
    while one.uploads._strangers or one.uploads._serving:
        gevent.sleep(0)
    line, _, rest = answer.partition(b"\n")
    if isinstance(record := decode(line[1:]) if line else None, File):
        assert CONTENT.endswith(rest[: record.size - record.offset].partition(SOH)[0])


class _Requester:
    """A client's side that fetches, from whatever answers at a port of its own."""

    def __init__(self) -> None:
        (self._listener,) = listen(("127.0.0.1",), 0)
        self.says = b""
        """What the owner says to whom it accepts."""
        self.home = _directory("home")
        self.into = Destination(self.home)
        _endings.callback(self.into.close)
        _endings.enter_context(mock.patch.object(downloads, "RETRY_DELAYS", ()))  # each case is tried once
        routes, peers = Routes(("127.0.0.1", 1), Route.DIRECT), Peers(None, ("", 0))
        self.downloads = Downloads(self._grant, routes, peers, Traffic(), slots=1)
        _endings.callback(self._listener.close)
        _endings.callback(gevent.spawn(self._serve).kill)
        _endings.callback(end, self.downloads.pool)

    def _grant(self, get: Record) -> None:
        assert isinstance(get, Get)
        direct = (self._listener.getsockname(),)
        gevent.spawn(self.downloads.answer, Take(get.id, "t", len(CONTENT), direct, "k", ("sha256",)))

    def _serve(self) -> None:
        while True:
            peer, _ = self._listener.accept()
            with contextlib.suppress(OSError):
                peer.recv(65536)
                peer.sendall(self.says)
                peer.shutdown(socket.SHUT_WR)
            _rest(peer)


_requester = functools.cache(_Requester)


@_watched
def requester(data: bytes) -> None:
    """What an owner says to a requester: a file appears only if it is whole, and then it is what was said."""
    one = _requester()
    one.says = data
    arrived = False
    with contextlib.suppress(GreenchatError):
        one.downloads.fetch("dan", "file", one.into)
        arrived = True
    left = {path.name: path.read_bytes() for path in one.home.iterdir()}
    for name in left:
        (one.home / name).unlink()
    assert arrived == ("file" in left)
    if arrived:
        assert hashlib.sha256(left["file"]).hexdigest().encode() in data
        assert left["file"] in data


def _connect(port: int) -> Any:
    return socket.create_connection(("127.0.0.1", port))


def _rest(peer: Any) -> bytes:
    """All that comes until the connection ends, which is closed then."""
    rest = b""
    with contextlib.closing(peer), contextlib.suppress(OSError):
        while data := peer.recv(65536):
            rest += data
    return rest


def _ignore(_told: object) -> None:
    pass


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each for each in (tls_handshake, tls_records, session, server, owner, requester)
}
