"""Targets that run where all is encrypted: what somebody says who can do the handshake, or instead of one."""

import contextlib
import ssl
from collections.abc import Callable
from typing import Any, Final

from fuzz.ground import connect, directory, ends, once, rest_of, watched
from fuzz.live import Listener, Owner, Requester, ServerContext, pending
from gevent import socket

from greenchat import ChatServer
from greenchat.errors import ProtocolError
from greenchat.protocol.codec import decode, encode
from greenchat.protocol.records import Challenge, Hello, Proof, Secure, Want
from greenchat.security.keys import Identity, key_file
from greenchat.security.proof import prove, text_of, transfer_of
from greenchat.security.tls import Tls, client_context, pair_context
from greenchat.server.certificate import Certificate
from greenchat.server.registry import Registry

_RAW: Final = 0x40
"""A first byte below this: the rest is said at once, with no handshake."""

_STRANGER: Final = 0x80
"""One below this: after the handshake, as anybody can do it. From here on: as somebody who has proved a key."""


class Sealed:
    """The other end of an encrypted connection, over the socket *peer*, of which *early* has been read."""

    def __init__(self, peer: Any, context: ssl.SSLContext, early: bytes = b"") -> None:
        self.peer = peer
        self._tls = Tls(context)
        self._opened = self._tls.receive(early)
        peer.sendall(self._tls.outgoing())
        while not self._tls.established:
            self._opened += self._tls.receive(self._received())
            peer.sendall(self._tls.outgoing())

    def say(self, data: bytes) -> None:
        """Send *data* sealed."""
        self.peer.sendall(self._tls.seal(data))

    def line(self) -> bytes:
        """The next line."""
        while b"\n" not in self._opened:
            self._opened += self._tls.receive(self._received())
        line, _, self._opened = self._opened.partition(b"\n")
        return line

    def open(self, data: bytes) -> bytes:
        """What *data*, which was received, says."""
        with contextlib.suppress(ProtocolError):
            self._opened += self._tls.receive(data)
        opened, self._opened = self._opened, b""
        return opened

    def _received(self) -> bytes:
        if data := self.peer.recv(65536):
            return bytes(data)
        raise OSError("the peer has gone")


@once
def _identity(name: str) -> Identity:
    return Identity(directory("keys") / f"{name}.pem")


@once
def _certificate() -> Certificate:
    path = directory("server") / "server.pem"
    key_file(path)
    return Certificate(path, path)


def _enter(port: int, name: str) -> Sealed:
    """Whoever is *name*, and proves it."""
    me, wire = _identity(name), Sealed(connect(port), client_context(vouched=False))
    wire.say(encode(Hello(1, name, 0, text_of(me.certificate))))
    challenge = decode(wire.line()[1:])
    assert isinstance(challenge, Challenge)
    wire.say(encode(Proof(prove(me, challenge.nonce, _certificate().der, name))))
    return wire


def _witness(port: int) -> Listener:
    wire = _enter(port, "witness")
    ends.callback(wire.peer.close)
    assert b"welcome" in wire.line()
    return lambda: wire.open(pending(wire.peer))


@once
def _registry() -> Registry:
    registry = Registry(directory("registry") / "names.db")
    ends.callback(registry.close)
    return registry


@once
def _context() -> ServerContext:
    return ServerContext(ChatServer(certificate=_certificate(), registry=_registry()), _witness)


@watched
def door(data: bytes) -> None:
    """What a peer says to a server where names belong to keys: nobody gets one without."""
    house = _context()
    rest_of(_visit(house.server.port, data[:1], data[1:]))
    house.check()
    assert {owned.name for owned in _registry().names()} <= {"witness", "ann"}


def _visit(port: int, kind: bytes, data: bytes) -> Any:
    """The connection on which *data* was said."""
    if kind >= bytes([_STRANGER]):
        wire = _enter(port, "ann")
        return _say_last(wire.peer, wire.say, data)
    peer = connect(port)
    if kind < bytes([_RAW]):
        return _say_last(peer, peer.sendall, data)
    return _say_last(peer, Sealed(peer, client_context(vouched=False)).say, data)


def _say_last(peer: Any, say: Callable[[bytes], object], data: bytes) -> Any:
    with contextlib.suppress(OSError):  # the other end may have had enough before it has all
        say(data)
        peer.shutdown(socket.SHUT_WR)
    return peer


@once
def _owner() -> Owner:
    return Owner(_identity("ann"))


@watched
def sealed_owner(data: bytes) -> None:
    """What a requester says to an owner, before a handshake or after: it gets the file or an error."""
    one, bob = _owner(), _identity("bob")
    one.offer(Want("t", "bob", "file", text_of(bob.certificate)))
    peer = connect(one.port)
    if data[:1] < bytes([_RAW]):
        one.check(rest_of(_say_last(peer, peer.sendall, data[1:])))
        return
    peer.sendall(encode(Secure(transfer_of("t"))))
    wire = Sealed(peer, pair_context(bob, _identity("ann").certificate, server=False))
    one.check(wire.open(rest_of(_say_last(peer, wire.say, data[1:]))))


class _SealedRequester(Requester):
    def answer(self, peer: Any) -> None:
        secure, _, early = peer.recv(65536).partition(b"\n")
        if self.says[:1] < bytes([_RAW]):
            peer.sendall(self.says[1:])
            return
        assert b"secure" in secure
        context = pair_context(_identity("dan"), _identity("ann").certificate, server=True)
        Sealed(peer, context, early).say(self.says[1:])


@once
def _requester() -> Requester:
    return _SealedRequester(_identity("ann"), text_of(_identity("dan").certificate))


@watched
def sealed_requester(data: bytes) -> None:
    """What an owner says to a requester, instead of a handshake or after it: a file appears only if it is whole."""
    one = _requester()
    one.says = data
    file = one.fetch()
    assert file is None or (file in data and data[:1] >= bytes([_RAW]))


TARGETS: dict[str, Callable[[bytes], None]] = {each.__name__: each for each in (door, sealed_owner, sealed_requester)}
