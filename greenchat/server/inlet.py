"""What one connection says, encrypted or not; the other direction is `greenchat.server.outbox`."""

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from gevent import socket
from gevent.lock import BoundedSemaphore

from greenchat.net import Reader, next_turn, send_now
from greenchat.security.tls import HANDSHAKE, Tls

if TYPE_CHECKING:  # only a server that encrypts needs it
    from greenchat.server.certificate import Certificate

__all__ = ["Inlet"]

_shaking_hands = BoundedSemaphore()
"""For one connection at a time, and one in a turn: a step of a handshake takes a good part of a millisecond."""


class Inlet:
    """Reads from *sock* in turns with everybody else.

    If there is a *certificate*, the very first byte, and nothing later, decides whether the connection is encrypted;
    then *on_encrypted* is told.
    """

    __slots__ = ("_begun", "_certificate", "_on_encrypted", "_reader", "_sock", "shown", "tls")

    def __init__(
        self, sock: socket.socket, certificate: "Certificate | None", on_encrypted: Callable[[Tls], object]
    ) -> None:
        self.tls: Tls | None = None
        self.shown = b""
        """The certificate that this connection has been shown, in DER; another may have taken its place since."""
        self._sock = sock
        self._certificate = certificate
        self._on_encrypted = on_encrypted
        self._reader = Reader(sock)
        self._begun = False

    def read(self, size: int) -> bytes:
        """What comes next, at most *size* bytes as they are on the way; nothing at the end. Raises `ProtocolError`."""
        while data := self._reader.read(size):
            if not self._begun:
                self._begin(data)
            if self.tls is None:
                return data
            if (opened := self._open(self.tls, data)) or self.tls.over:
                return opened
        return b""

    @property
    def ended(self) -> bool:
        """True if the peer has ended its side properly, so that nothing of what it sent is missing."""
        return self.tls.over if self.tls else self._reader.ended

    def drain(self, size: int) -> None:
        """Throw away what comes until the end: closing with bytes unread would lose the last words on their way."""
        while self._reader.read(size):
            pass

    def close(self) -> None:
        """Stop reading; the socket is the caller's."""
        self._reader.close()

    def _begin(self, data: bytes) -> None:
        self._begun = True
        if self._certificate and data.startswith(HANDSHAKE):
            self.tls, self.shown = Tls(self._certificate.context), self._certificate.der
            self._on_encrypted(self.tls)

    def _open(self, tls: Tls, data: bytes) -> bytes:
        if tls.established:
            return tls.receive(data)
        with _shaking_hands:
            next_turn()
        try:
            return tls.receive(data)
        finally:
            with contextlib.suppress(OSError):  # it may be gone already
                send_now(self._sock, tls.outgoing())
