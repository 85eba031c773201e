"""Users on the wire alone, who ask for files and own them: all that the benchmarks know of the protocol."""

import itertools
import socket
from typing import TypeVar

from benchmarks.processes import connect
from greenchat.protocol.codec import decode, encode
from greenchat.protocol.records import Dial, Get, Go, Have, Hello, Record, Relay, Take, Want, Welcome

__all__ = ["User", "relayed"]

_R = TypeVar("_R", bound=Record)


class User:
    """One client of the server at *port*, under *name*."""

    def __init__(self, port: int, name: str) -> None:
        self.name = name
        self._ids = itertools.count()
        self._sock = connect(port)
        self._lines = self._sock.makefile("rb")
        self.tell(Hello(1, name, 0))
        self.hear(Welcome)

    def tell(self, record: Record) -> None:
        """Send *record*."""
        self._sock.sendall(encode(record))

    def ask(self, owner: "User") -> None:
        """Ask for a file of *owner*."""
        self.tell(Get(next(self._ids), owner.name, "file"))

    def hear(self, kind: type[_R]) -> _R:
        """The next record, which has to be of that kind."""
        line = next(self._lines, b"")
        record = decode(line[1:])
        if not isinstance(record, kind):
            raise SystemExit(f"{self.name} heard {line!r} where {kind.__name__} was to come")
        return record

    def close(self) -> None:
        """Leave."""
        self._lines.close()
        self._sock.close()


def relayed(port: int, requester: User, owner: User) -> tuple[socket.socket, socket.socket]:
    """The owner's and the requester's end of a transfer that the server has joined, and relays from here on."""
    requester.ask(owner)
    owner.tell(Have(owner.hear(Want).ticket, 0, ("sha256",)))
    to_requester = _data_connection(port, requester.hear(Take).key)
    from_owner = _data_connection(port, owner.hear(Dial).key)
    for sock in (to_requester, from_owner):
        go = encode(Go())
        if (heard := sock.recv(len(go), socket.MSG_WAITALL)) != go:
            raise SystemExit(f"heard {heard!r} instead of go")
    return from_owner, to_requester


def _data_connection(port: int, key: str) -> socket.socket:
    sock = connect(port)
    sock.sendall(encode(Relay(key)))
    return sock
