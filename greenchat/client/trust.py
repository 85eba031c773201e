"""Which server is the right one: that with the fingerprint the user gave, or the one met before, or one vouched for."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import gevent
from gevent import socket

from greenchat.connect import connect
from greenchat.errors import Code, ConnectError, GreenchatError
from greenchat.net import Reader, send_now
from greenchat.protocol.limits import CONNECT_SECONDS, RECEIVE_SIZE
from greenchat.security.known import BY_AUTHORITIES, Known
from greenchat.security.tls import ALERT, HANDSHAKE, Tls, client_context, fingerprint

__all__ = ["Trust"]


def _ignore(_who: str, _mark: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Trust:
    """How a client knows its server: by the fingerprint *pinned*, or else as *known* from before.

    One that is met for the first time becomes known: as vouched for, if this system's authorities do so, or else by its
    fingerprint, and *on_new* is told who it is, and that.
    """

    known: Known
    pinned: str | None = None
    on_new: Callable[[str, str], object] = _ignore

    def reach(self, host: str, port: int) -> tuple[socket.socket, Tls]:
        """A connection to the right server.

        Raises `ConnectError`, `ProtocolError` if it is no TLS, or `SecurityError` if what is known can't be had.
        """
        who = f"{host}:{port}"
        mark = self.pinned or self.known.find(who)
        if mark in (None, BY_AUTHORITIES):
            try:
                return _connect(host, port, lambda _seen: self._remember(who, mark, BY_AUTHORITIES), vouched=True)
            except ConnectError as error:
                if mark or error.code != Code.UNTRUSTED:
                    raise
        return _connect(host, port, lambda seen: self._check(who, mark, seen), vouched=False)

    def _check(self, who: str, mark: str | None, seen: str) -> None:
        if mark is None:
            self._remember(who, mark, seen)
            self.on_new(who, seen)
        elif seen != mark:
            cure = "" if self.pinned else f"; if the server has really changed, remove its line from {self.known.path}"
            raise ConnectError(
                Code.UNTRUSTED,
                f"what answers at {who} is not the right server, and may be somebody in between:"
                f" its fingerprint is {seen}, not {mark}{cure}",
            )

    def _remember(self, who: str, mark: str | None, seen: str) -> None:
        if mark is None:
            self.known.add(who, seen)


def _connect(host: str, port: int, check: Callable[[str], None], *, vouched: bool) -> tuple[socket.socket, Tls]:
    sock = connect(host, port)
    try:
        with gevent.Timeout(CONNECT_SECONDS, ConnectError(Code.UNREACHABLE, "the server does not answer")):
            tls = _shake_hands(sock, Tls(client_context(vouched=vouched), host.partition("%")[0]))
        check(fingerprint(tls.peer()))
    except BaseException:
        sock.close()
        raise
    return sock, tls


def _shake_hands(sock: socket.socket, tls: Tls) -> Tls:
    reader, begun = Reader(sock), False
    try:
        while not tls.established:
            sock.sendall(tls.outgoing())
            data = reader.read(RECEIVE_SIZE)
            if not data:
                raise ConnectError(Code.UNREACHABLE, "the server closed the connection")
            if not begun and data[:1] not in (HANDSHAKE, ALERT):  # later a read may begin within a record
                raise ConnectError(Code.BAD_TLS, "the server answers without encryption: it is full, or has none")
            begun = True
            tls.receive(data)
        sock.sendall(tls.outgoing())
    except OSError:
        raise ConnectError(Code.UNREACHABLE, "the server closed the connection") from None
    except GreenchatError:
        with contextlib.suppress(OSError):
            send_now(sock, tls.outgoing())
        raise
    finally:
        reader.close()
    return tls
