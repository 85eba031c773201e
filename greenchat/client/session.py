"""The connection to the server: being let in, sending, receiving, parting in peace."""

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING

import gevent
from gevent import socket
from gevent.lock import BoundedSemaphore

from greenchat.addresses import host_of
from greenchat.errors import Code, ConnectError, Refused, ServerGone
from greenchat.net import Reader
from greenchat.protocol import records
from greenchat.protocol.codec import encode
from greenchat.protocol.limits import (
    CONNECT_SECONDS,
    HEARTBEAT_SECONDS,
    PONG_SECONDS,
    RECEIVE_SIZE,
    SEND_SECONDS,
)
from greenchat.protocol.text import safe_line
from greenchat.protocol.wire import ClientWire, Event, Failure

if TYPE_CHECKING:  # only a client that encrypts needs these
    from greenchat.security.keys import Identity
    from greenchat.security.tls import Tls

__all__ = ["Session"]


class Session:
    """One connection to a server, perhaps encrypted; any greenlet may send, one receives."""

    def __init__(self, sock: socket.socket, tls: "Tls | None" = None) -> None:
        self.heartbeat = False
        """Whether a server that is silent is asked whether it is there, and counts as gone if it does not answer."""
        self._sock = sock
        self._tls = tls
        self._reader = Reader(self._sock)
        self._wire = ClientWire()
        self._events = self._receive()
        self._sending = BoundedSemaphore()

    @property
    def local_host(self) -> str:
        """This machine's address as the connection has it, and so as the server can reach it."""
        return host_of(self._sock.getsockname())

    def hello(self, hello: records.Hello, identity: "Identity | None" = None) -> records.Welcome:
        """Ask to be let in, and prove to be who has this *identity*; the server's welcome.

        Raises `Refused`, `ConnectError` or `SecurityError`.
        """
        self.send(encode(hello))
        answer = self._answer()
        if isinstance(answer, records.Challenge) and identity and self._tls:
            from greenchat.security.proof import prove

            self.send(encode(records.Proof(prove(identity, answer.nonce, self._tls.peer(), hello.name))))
            answer = self._answer()
        match answer:
            case records.Welcome():
                return answer
            case records.Refused(code=code, text=text):
                raise Refused(code, safe_line(text))
            case Failure(code, text):
                raise ConnectError(code, text)
        raise ConnectError(Code.UNREACHABLE, "the server closed the connection")

    def _answer(self) -> Event | None:
        with gevent.Timeout(CONNECT_SECONDS, ConnectError(Code.UNREACHABLE, "the server does not answer")):
            return next(self._events, None)

    def send(self, line: bytes) -> None:
        """Send one line. Raises `ServerGone`."""
        with self._sending:
            try:
                left = memoryview(self._tls.seal(line) if self._tls else line)
                while left:
                    with gevent.Timeout(SEND_SECONDS, TimeoutError()):
                        left = left[self._sock.send(left) :]
            except OSError:
                self._abort()
                raise ServerGone(Code.SERVER_GONE, "the server is gone") from None
            except BaseException:  # killed, perhaps in the middle of the line: no other may follow it
                self._abort()
                raise

    def _abort(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def events(self) -> Generator[Event]:
        """What the server says, until the connection ends. Raises `ServerGone` if a heartbeat is not answered."""
        return self._events

    def _receive(self) -> Generator[Event]:
        while (data := self._read()) and not (self._tls and self._tls.over):
            yield from self._wire.receive(self._tls.receive(data) if self._tls else data)

    def _read(self) -> bytes:
        if not self.heartbeat:
            return self._reader.read(RECEIVE_SIZE)
        with gevent.Timeout(HEARTBEAT_SECONDS, False):  # type: ignore[arg-type]  # noqa: FBT003 - gevent: silent
            return self._reader.read(RECEIVE_SIZE)
        self.send(encode(records.Ping()))
        with gevent.Timeout(PONG_SECONDS, ServerGone(Code.SERVER_GONE, "the server is gone: it does not answer")):
            return self._reader.read(RECEIVE_SIZE)

    def finish(self) -> None:
        """Send nothing more; what was sent arrives, and then the server ends the connection, and so the events."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End the connection at once; with bytes unread, the kernel throws away what is on its way."""
        self._events.close()
        self._reader.close()
        self._sock.close()
