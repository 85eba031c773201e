"""One connected peer, from its first line to its last: a guest, a client, or one side of a relayed transfer."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Final

import gevent
from gevent import socket

from greenchat.errors import Code, GreenchatError, ProtocolError
from greenchat.net import chunks, plain_host
from greenchat.protocol.limits import HELLO_SECONDS, RECEIVE_SIZE, RECORDS_PER_TURN
from greenchat.protocol.records import Get, Have, Hello, Record, Refuse, Relay, encode
from greenchat.protocol.wire import Event, Failure, Guest, ServerWire, Text
from greenchat.server.directory import Directory
from greenchat.server.outbox import Outbox
from greenchat.server.room import Room
from greenchat.server.tickets import Party, TicketOffice

__all__ = ["House", "Session"]

_NEXT_TURN: Final = 0.001
"""Seconds: a sleep of 0 would not let the loop look at the others' sockets."""


@dataclass(frozen=True, slots=True)
class House:
    """What all sessions of a server share."""

    room: Room
    directory: Directory[Party]
    office: TicketOffice


class Session:
    """One connection; it is a member of the room and a party to transfers while its name is its own."""

    def __init__(self, house: House, sock: socket.socket, host: str) -> None:
        self.name = ""
        self.host = plain_host(host)
        self.listen: int | None = None
        self._house = house
        self._sock = sock
        self._joined = False
        self._wire = ServerWire()
        self._outbox = Outbox(sock, lambda: self._wire.farewell(Code.SLOW_CONSUMER))

    def run(self) -> None:
        """Serve the connection until it ends."""
        events = self._events()
        try:
            self._serve(events)
        except GreenchatError as error:
            self.end(error.code, str(error))
            self._leave()
            for _ in events:  # closing with bytes unread would throw away the last words on their way
                pass
        finally:
            self._leave()
            events.close()
            self._outbox.close()

    def end(self, code: Code, text: str = "") -> None:
        """Tell the peer why, and end the connection."""
        self._outbox.finish(self._wire.farewell(code, text))

    @property
    def behind(self) -> bool:
        """Whether much waits for the peer to read."""
        return self._outbox.behind

    def deliver(self, data: bytes) -> None:
        """Send lines from the room."""
        self._outbox.write(data)

    def tell(self, record: Record) -> None:
        """Send a record."""
        self._outbox.write(encode(record))

    def _events(self) -> Generator[Event]:
        for data in chunks(self._sock, RECEIVE_SIZE):
            yield from self._wire.receive(data)

    def _serve(self, events: Generator[Event]) -> None:
        match self._first(events):
            case Relay(key) if not self._outbox.finished:
                events.close()
                self._house.office.meet(key, self._sock)
            case Hello() as hello:
                self.listen = hello.listen
                self._join(hello.name)
                self._outbox.write(self._wire.welcome(hello))
                self._converse(events)
            case Guest(name):
                self._join(name)
                self._converse(events)

    def _first(self, events: Generator[Event]) -> Event | None:
        with gevent.Timeout(HELLO_SECONDS, ProtocolError(Code.HELLO_LATE)):
            first = next(events, None)
        if isinstance(first, Failure):
            raise ProtocolError(first.code, first.text)
        return first

    def _join(self, name: str) -> None:
        self.name = name
        self._house.directory.claim(self)
        self._joined = True
        self._house.room.join(self)

    def _converse(self, events: Generator[Event]) -> None:
        records = 0
        for event in events:
            if not self._outbox.finished:
                self._handle(event)
            if isinstance(event, Record) and (records := records + 1) % RECORDS_PER_TURN == 0:
                gevent.sleep(_NEXT_TURN)

    def _handle(self, event: Event) -> None:
        match event:
            case Text(block):
                self._house.room.post(self, block)
            case Get():
                self._house.office.ask(self, event)
            case Have():
                self._house.office.have(self, event)
            case Refuse():
                self._house.office.refuse(self, event)
            case Failure(code, text):
                raise ProtocolError(code, text)

    def _leave(self) -> None:
        if self._joined:
            self._joined = False
            self._house.room.leave(self)
            self._house.directory.release(self)
            self._house.office.forget(self)
