"""One connected peer, from its first line to its last: a guest, a client, or one side of a relayed transfer."""

import contextlib
import logging
from dataclasses import dataclass
from typing import Final

import gevent
from gevent import get_hub, socket

from greenchat.errors import Code, GreenchatError, ProtocolError, Refused
from greenchat.net import network, next_turn, plain_host
from greenchat.protocol.codec import SOH, encode
from greenchat.protocol.limits import (
    HELLO_SECONDS,
    LINE_COST,
    MAX_UNSENT,
    RECEIVE_SIZE,
    RECEIVE_SIZE_OF_RECORDS,
    RECORDS_PER_TURN,
)
from greenchat.protocol.records import Challenge, Get, Have, Hello, Proof, Record, Refuse, Relay
from greenchat.protocol.text import safe_line
from greenchat.protocol.wire import Event, Failure, Guest, ServerWire, State, Text
from greenchat.security.tls import Tls
from greenchat.server.admission import Admission
from greenchat.server.certificate import Certificate
from greenchat.server.directory import Directory
from greenchat.server.door import Claim, Door
from greenchat.server.inlet import Inlet
from greenchat.server.outbox import Outbox
from greenchat.server.pace import Pace
from greenchat.server.room import Room
from greenchat.server.tickets import Party, TicketOffice

__all__ = ["House", "Session"]

_log = logging.getLogger(__name__)

_DROPPED: Final = "dropped %s at %s: it reads too slowly"

_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", 25)
"""As Linux has it (tcp(7)); not every version of the standard library knows its name."""

_UNKNOWN: Final = (State.START, State.PROVING)
"""Before it is clear who is there."""


@dataclass(frozen=True, slots=True)
class House:
    """What all sessions of a server share."""

    admission: Admission
    room: Room
    directory: Directory[Party]
    office: TicketOffice
    pace: Pace
    backlog: int
    """Bytes that may wait for a member that reads slowly."""
    certificate: Certificate | None
    """Without one, nothing is encrypted."""
    door: Door | None
    """Without one, everybody may have any name that is free."""


class Session:
    """One connection; it is a member of the room and a party to transfers while its name is its own."""

    __slots__ = (
        "_claim",
        "_house",
        "_inlet",
        "_joined",
        "_limit",
        "_outbox",
        "_sock",
        "_wire",
        "certificate",
        "deliver",
        "host",
        "listen",
        "name",
    )

    def __init__(self, house: House, sock: socket.socket, host: str) -> None:
        self.name = ""
        self.host = plain_host(host)
        self.listen: int | None = None
        self.certificate = ""
        """What it has proved to have the key of, as a record has it."""
        self._claim: Claim | None = None
        self._house = house
        self._sock = sock
        self._joined = False
        self._wire = ServerWire()
        self._limit = house.pace.limit(self.host)
        self._outbox = Outbox(sock, house.backlog, self._too_slow)
        self._inlet = Inlet(sock, house.certificate, self._encrypt)
        self.deliver = self._outbox.write
        """Sends lines from the room."""

    def run(self) -> None:
        """Serve the connection until it ends."""
        try:
            self._serve()
        except GreenchatError as error:
            self.end(error.code, str(error))
            self.leave()
            self._inlet.drain(RECEIVE_SIZE)
        finally:
            self.leave()
            self._house.pace.leave(self.host, self._limit)
            self._inlet.close()
            self._outbox.close()

    def end(self, code: Code, text: str = "") -> None:
        """Tell the peer why, and end the connection."""
        self._outbox.finish(self._wire.farewell(code, text))

    def expel(self, code: Code) -> None:
        """Tell the peer why, end the connection, and give its name back."""
        self.end(code)
        self.leave()

    def marks(self) -> set[str]:
        """What a ban of this peer would name."""
        marks = {network(self.host) or self.host}
        return marks | {self._claim.owner} if self._claim else marks

    def turn_out(self, code: Code) -> None:
        """Tell the peer why, and end the connection at once."""
        self.end(code)
        with contextlib.suppress(OSError):  # it may be gone already
            self._sock.shutdown(socket.SHUT_RDWR)

    @property
    def behind(self) -> bool:
        """Whether much waits for the peer to read."""
        return self._outbox.behind

    def tell(self, record: Record) -> None:
        """Send a record."""
        self._outbox.write(encode(record))

    def _too_slow(self) -> bytes:
        # Later, because a log may do anything, and others are still to be handed what this one was.
        get_hub().loop.run_callback(_log.warning, _DROPPED, safe_line(self.name), self.host)
        return self._wire.farewell(Code.SLOW_CONSUMER)

    def _encrypt(self, tls: Tls) -> None:
        self._outbox.seal = tls.seal

    def _serve(self) -> None:
        match events := self._first():
            case [Relay(key)] if not self._outbox.finished:
                self._inlet.close()
                self._house.office.meet(key, self._sock)
                return
        self._handle_all(events)
        while data := self._inlet.read(self._most(RECEIVE_SIZE)):
            step = RECEIVE_SIZE_OF_RECORDS if SOH in data else len(data)
            for at in range(0, len(data), step):
                if at:
                    next_turn()
                self._handle_all(self._wire.receive(data[at : at + step]))
            self._pause(data)

    def _most(self, size: int) -> int:
        """Bytes to read at once: so few from who may say little that no pause is long, even if each is a line."""
        return max(LINE_COST, min(size, int(self._limit.rate) // LINE_COST)) if self._limit else size

    def _pause(self, data: bytes) -> None:
        """Who says too much is not read from for a while, and so has to wait; nothing is lost."""
        if self._limit and not self._outbox.finished:
            gevent.sleep(self._limit.pause(len(data) + LINE_COST * data.count(b"\n")))

    def _first(self) -> list[Event]:
        """What comes until it is clear who is there, soon enough; less if the connection ends before."""
        events: list[Event] = []
        most = self._most(RECEIVE_SIZE_OF_RECORDS)
        deadline = gevent.Timeout(HELLO_SECONDS)
        try:
            with deadline:
                while self._wire.state in _UNKNOWN and (data := self._inlet.read(most)):
                    events += self._wire.receive(data)
                    self._pause(data)
                    self._check_encrypted(events)
                    if self._wire.state is State.PROVING and self._claim is None:
                        self._challenge(events)
        except gevent.Timeout as timeout:
            if timeout is not deadline:
                raise
            raise ProtocolError(Code.HELLO_LATE) from None
        self._house.admission.known(self)
        return events

    def _check_encrypted(self, events: list[Event]) -> None:
        """A relay's connection is plain here: what goes through it is encrypted by its ends."""
        relayed = any(isinstance(event, Relay) for event in events)
        if self._inlet.tls and relayed:
            raise ProtocolError(Code.UNEXPECTED)
        if self._house.certificate and not self._inlet.tls and events and not relayed:
            raise ProtocolError(Code.TLS_REQUIRED)

    def _challenge(self, events: list[Event]) -> None:
        match events:
            case [Hello() as hello] if self._house.door:
                self._claim = self._house.door.claim(hello, self._inlet.shown)
                self.tell(Challenge(self._claim.nonce))
            case _:
                raise ProtocolError(Code.UNEXPECTED)

    def _enter(self, hello: Hello) -> None:
        self.listen = hello.listen
        self._join(hello.name)
        self._outbox.write(self._wire.welcome(hello))

    def _enter_by(self, claim: Claim, proof: Proof) -> None:
        """As who has proved to be the owner of a name, and takes it over from a connection that it has lost.

        A name that a guest has at the moment does not become its own.
        """
        assert self._house.door
        if (holder := self._holder(claim)) and not holder.certificate:
            raise Refused(Code.NAME_TAKEN)
        self._house.door.admit(claim, proof, self.host)
        if self._outbox.finished:  # it was turned out meanwhile
            return
        if holder := self._holder(claim):
            holder.expel(Code.TAKEN_OVER)
        self.certificate = claim.hello.certificate
        self._enter(claim.hello)

    def _holder(self, claim: Claim) -> "Session | None":
        holder = self._house.directory.find(claim.hello.name)
        return holder if isinstance(holder, Session) else None

    def _admit_guest(self, name: str) -> None:
        if self._house.door:
            self._house.door.admit_guest(name, self.host)

    def _join(self, name: str) -> None:
        if self._outbox.finished:  # it was turned out while somebody was asked whether it may enter
            return
        self.name = name
        self._house.directory.claim(self)
        self._joined = True
        with contextlib.suppress(OSError):  # other systems may lack it
            self._sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, MAX_UNSENT)
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
                self._admit_guest(name)
                self._join(name)
            case Hello() as hello if not self._claim:
                self._admit_guest(hello.name)
                self._enter(hello)
            case Proof() if self._claim:
                self._enter_by(self._claim, event)
            case Get():
                self._house.office.ask(self, event)
            case Have():
                self._house.office.have(self, event)
            case Refuse():
                self._house.office.refuse(self, event)
            case Failure(code, text):
                raise ProtocolError(code, text)

    def leave(self) -> None:
        """Give the name back; the others hear nothing more from it."""
        if self._joined:
            self._joined = False
            self._house.room.leave(self)
            self._house.directory.release(self)
            self._house.office.forget(self)
