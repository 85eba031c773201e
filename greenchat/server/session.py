"""One connected peer, from its first line to its last: a guest, a client, or one side of a relayed transfer."""

import contextlib
import logging
from dataclasses import dataclass, field

import gevent
from gevent import socket
from gevent.lock import BoundedSemaphore

from greenchat.errors import Code, GreenchatError, ProtocolError
from greenchat.net import Reader, network, next_turn, plain_host, send_now
from greenchat.protocol.limits import (
    BURST_SECONDS,
    HELLO_SECONDS,
    LINE_COST,
    MEMBER_RATE,
    RECEIVE_SIZE,
    RECEIVE_SIZE_OF_RECORDS,
    RECORDS_PER_TURN,
)
from greenchat.protocol.records import SOH, Get, Have, Hello, Record, Refuse, Relay, encode
from greenchat.protocol.text import safe_line
from greenchat.protocol.wire import Event, Failure, Guest, ServerWire, Text
from greenchat.security.tls import HANDSHAKE, Tls
from greenchat.server.admission import Admission
from greenchat.server.certificate import Certificate
from greenchat.server.directory import Directory
from greenchat.server.outbox import Outbox
from greenchat.server.room import Room
from greenchat.server.tickets import Party, TicketOffice
from greenchat.transfer.rate import RateLimit

__all__ = ["House", "Session"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class House:
    """What all sessions of a server share."""

    admission: Admission
    room: Room
    directory: Directory[Party]
    office: TicketOffice
    backlog: int
    """Bytes that may wait for a member that reads slowly."""
    member_rate: int | None
    """Bytes a second that a member may say, or 0 for any number; None: the usual, and any number on this machine."""
    certificate: Certificate | None
    """Without one, nothing is encrypted."""
    handshaking: BoundedSemaphore = field(default_factory=BoundedSemaphore)
    """For one connection at a time: a step takes a good part of a millisecond."""

    def limit(self, host: str) -> RateLimit | None:
        """What slows down a member from *host*, if anything does."""
        rate = self.member_rate
        if rate is None and network(host):
            rate = MEMBER_RATE
        return RateLimit(rate, rate * BURST_SECONDS) if rate else None


class Session:
    """One connection; it is a member of the room and a party to transfers while its name is its own."""

    __slots__ = (
        "_house",
        "_joined",
        "_limit",
        "_outbox",
        "_sock",
        "_tls",
        "_wire",
        "deliver",
        "host",
        "listen",
        "name",
    )

    def __init__(self, house: House, sock: socket.socket, host: str) -> None:
        self.name = ""
        self.host = plain_host(host)
        self.listen: int | None = None
        self._house = house
        self._sock = sock
        self._joined = False
        self._tls: Tls | None = None
        self._wire = ServerWire()
        self._limit = house.limit(self.host)
        self._outbox = Outbox(sock, house.backlog, self._too_slow)
        self.deliver = self._outbox.write
        """Sends lines from the room."""

    def run(self) -> None:
        """Serve the connection until it ends."""
        reader = Reader(self._sock)
        try:
            self._serve(reader)
        except GreenchatError as error:
            self.end(error.code, str(error))
            self._leave()
            while reader.read(RECEIVE_SIZE):  # closing with bytes unread would throw away the last words on their way
                pass
        finally:
            self._leave()
            reader.close()
            self._outbox.close()

    def end(self, code: Code, text: str = "") -> None:
        """Tell the peer why, and end the connection."""
        self._outbox.finish(self._wire.farewell(code, text))

    @property
    def behind(self) -> bool:
        """Whether much waits for the peer to read."""
        return self._outbox.behind

    def tell(self, record: Record) -> None:
        """Send a record."""
        self._outbox.write(encode(record))

    def _too_slow(self) -> bytes:
        _log.warning("dropped %s at %s: it reads too slowly", safe_line(self.name), self.host)
        return self._wire.farewell(Code.SLOW_CONSUMER)

    def _serve(self, reader: Reader) -> None:
        match events := self._first(reader):
            case [Relay(key)] if not self._outbox.finished:
                reader.close()
                self._house.office.meet(key, self._sock)
                return
        self._handle_all(events)
        size = RECEIVE_SIZE_OF_RECORDS
        while data := self._read(reader, size):
            size = RECEIVE_SIZE_OF_RECORDS if SOH in data else RECEIVE_SIZE
            self._handle_all(self._wire.receive(data))
            if self._limit:  # who says too much is not read from for a while, and so has to wait; nothing is lost
                gevent.sleep(self._limit.pause(len(data) + LINE_COST * data.count(b"\n")))

    def _first(self, reader: Reader) -> list[Event]:
        """What comes first, soon enough; nothing if the connection ends before."""
        events: list[Event] = []
        deadline = gevent.Timeout(HELLO_SECONDS)
        try:
            with deadline:
                data = self._begin(reader)
                while data and not (events := self._wire.receive(data)):
                    data = self._read(reader, RECEIVE_SIZE_OF_RECORDS)
        except gevent.Timeout as timeout:
            if timeout is not deadline:
                raise
            raise ProtocolError(Code.HELLO_LATE) from None
        self._house.admission.known(self)
        self._check_encrypted(events)
        return events

    def _begin(self, reader: Reader) -> bytes:
        """What comes first: its first byte, and nothing later, decides whether the connection is encrypted."""
        data = reader.read(RECEIVE_SIZE_OF_RECORDS)
        if self._house.certificate is None or not data.startswith(HANDSHAKE):
            return data
        self._tls = Tls(self._house.certificate.context)
        self._outbox.seal = self._tls.seal
        return self._open(self._tls, data) or self._read(reader, RECEIVE_SIZE_OF_RECORDS)

    def _read(self, reader: Reader, size: int) -> bytes:
        """What comes next, nothing at the end."""
        while data := reader.read(size):
            opened = self._open(self._tls, data) if self._tls else data
            if opened:
                return opened
        return b""

    def _open(self, tls: Tls, data: bytes) -> bytes:
        if tls.established:
            return tls.receive(data)
        with self._house.handshaking:
            next_turn()
        try:
            return tls.receive(data)
        finally:
            with contextlib.suppress(OSError):  # it may be gone already
                send_now(self._sock, tls.outgoing())

    def _check_encrypted(self, events: list[Event]) -> None:
        """A relay's connection is plain here: what goes through it is encrypted by its ends."""
        relayed = any(isinstance(event, Relay) for event in events)
        if self._tls and relayed:
            raise ProtocolError(Code.UNEXPECTED)
        if self._house.certificate and not self._tls and events and not relayed:
            raise ProtocolError(Code.TLS_REQUIRED)

    def _join(self, name: str) -> None:
        self.name = name
        self._house.directory.claim(self)
        self._joined = True
        self._house.room.join(self)

    def _handle_all(self, events: list[Event]) -> None:
        records = 0
        for event in events:
            if not self._outbox.finished:
                self._handle(event)
            if isinstance(event, Record) and (records := records + 1) % RECORDS_PER_TURN == 0:
                next_turn()

    def _handle(self, event: Event) -> None:
        match event:
            case Text(block):
                self._house.room.post(self, block)
            case Guest(name):
                self._join(name)
            case Hello() as hello:
                self.listen = hello.listen
                self._join(hello.name)
                self._outbox.write(self._wire.welcome(hello))
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
