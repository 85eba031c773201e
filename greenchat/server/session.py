"""One connected peer, from its first line to its last: a guest, a client, or one side of a relayed transfer."""

import contextlib
import logging
from typing import TYPE_CHECKING, Final

import gevent
from gevent import get_hub, socket

from greenchat.addresses import network, plain_host
from greenchat.errors import Code, GreenchatError, ProtocolError, Refused
from greenchat.net import next_turn
from greenchat.protocol.codec import SOH, encode
from greenchat.protocol.limits import (
    HELLO_SECONDS,
    LINE_COST,
    MAX_UNSENT,
    RECEIVE_SIZE,
    RECEIVE_SIZE_OF_RECORDS,
    RECORDS_PER_TURN,
)
from greenchat.protocol.records import Challenge, Hello, Proof, Record, Relay
from greenchat.protocol.text import safe_line
from greenchat.protocol.wire import Event, Failure, Guest, ServerWire, State
from greenchat.security.tls import Tls
from greenchat.server.context import ServerContext
from greenchat.server.inlet import Inlet
from greenchat.server.member import Member, holder_of
from greenchat.server.outbox import Outbox

if TYPE_CHECKING:  # only a server with a registry needs it
    from greenchat.server.door import Claim

__all__ = ["Session"]

_log = logging.getLogger(__name__)

_DROPPED: Final = "dropped %s at %s: it reads too slowly"

_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", 25)
"""As Linux has it (tcp(7)); not every version of the standard library knows its name."""

_UNKNOWN: Final = (State.START, State.PROVING)
"""Before it is clear who is there."""


class Session:
    """One connection, and the member that comes by it."""

    __slots__ = ("_claim", "_context", "_inlet", "_limit", "_member", "_outbox", "_sock", "_wire", "host")

    def __init__(self, context: ServerContext, sock: socket.socket, host: str) -> None:
        self.host = plain_host(host)
        self._member: Member | None = None
        self._claim: Claim | None = None
        self._context = context
        self._sock = sock
        self._wire = ServerWire()
        self._limit = context.pace.limit(self.host)
        self._outbox = Outbox(sock, context.backlog, self._too_slow)
        self._inlet = Inlet(sock, context.certificate, self._encrypt)

    @property
    def name(self) -> str:
        """Whose it is, or was; empty before that is known."""
        return self._member.name if self._member else ""

    def run(self) -> None:
        """Serve the connection until it ends."""
        try:
            self._serve_until_error()
            self.leave()
            self._wait_until_gone()
        finally:
            self.leave()
            self._context.pace.leave(self.host, self._limit)
            self._inlet.close()
            self._outbox.close()

    def _serve_until_error(self) -> None:
        try:
            self._serve()
        except GreenchatError as error:
            self.end(error.code, str(error))
            self.leave()
            self._inlet.drain(RECEIVE_SIZE)

    def _wait_until_gone(self) -> None:
        """Before the peer hears of the end: it may come back at another server, under the same name."""
        if self._member and self._context.remote:
            with contextlib.suppress(Refused):
                self._context.remote.settle()

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
                self._context.office.meet(key, self._sock)
                return
        self._handle_all(events)
        while data := self._inlet.read(self._most(RECEIVE_SIZE)):
            step = RECEIVE_SIZE_OF_RECORDS if SOH in data else len(data)
            for at in range(0, len(data), step):
                if at:
                    next_turn()
                self._handle_all(self._wire.receive(data[at : at + step]))
            self._pause(data)
        if self._inlet.ended:
            self._handle_all(self._wire.end())

    def _most(self, size: int) -> int:
        """Bytes to read at once: so few from who may say little that no pause is long, even if each is a line."""
        return max(LINE_COST, min(size, int(self._limit.rate) // LINE_COST)) if self._limit else size

    def _pause(self, data: bytes) -> None:
        """Leave unread for a while what comes from a peer that sends too much; nothing is lost."""
        size = len(data) + LINE_COST * data.count(b"\n")
        if self._member:
            size, self._member.charge = size + self._member.charge, 0
        if self._limit and not self._outbox.finished:
            gevent.sleep(self._limit.pause(size))

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
                    if self._claim is None and any(isinstance(event, Hello) and event.certificate for event in events):
                        self._challenge(events)
        except gevent.Timeout as timeout:
            if timeout is not deadline:
                raise
            raise ProtocolError(Code.HELLO_LATE) from None
        self._context.admission.known(self)
        return events

    def _check_encrypted(self, events: list[Event]) -> None:
        """A relay's connection is plain here: what goes through it is encrypted by its ends."""
        relayed = any(isinstance(event, Relay) for event in events)
        if self._inlet.tls and relayed:
            raise ProtocolError(Code.UNEXPECTED)
        if self._context.certificate and not self._inlet.tls and events and not relayed:
            raise ProtocolError(Code.TLS_REQUIRED)

    def _challenge(self, events: list[Event]) -> None:
        """Ask the client of a hello to prove its name; raise if more came with the hello, as that can be no proof."""
        match events:
            case [Hello() as hello] if self._context.door:
                self._claim = self._context.door.claim(hello, self._inlet.shown, self._wire.name_as_sent)
                self._outbox.write(encode(Challenge(self._claim.nonce)))
            case _:
                raise ProtocolError(Code.UNEXPECTED)

    def _enter_by(self, claim: "Claim", proof: Proof) -> None:
        """Admit a client that has proved to own its name, or to be its first owner. Raises `Refused`.

        A name that a guest has at the moment does not become its own.
        """
        assert self._context.door
        holder = holder_of(self._context, claim.hello.name)
        if holder and not holder.certificate:
            raise Refused(Code.NAME_TAKEN)
        self._context.door.admit(claim, proof, self.host)
        if self._outbox.finished:  # it was turned out meanwhile
            return
        self._become(claim.hello.name).enter(claim.hello, claim.hello.certificate)
        self._context.door.record(claim)

    def _admit_guest(self, name: str) -> bool:
        """Whether it may be let in under *name*, and is still here."""
        if self._context.door:
            self._context.door.admit_guest(name, self.host)
        return not self._outbox.finished

    def _become(self, name: str) -> Member:
        self._member = Member(self._context, self._outbox, self._wire, name, self.host)
        with contextlib.suppress(OSError):  # other systems may lack it
            self._sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, MAX_UNSENT)
        return self._member

    def _handle_all(self, events: list[Event]) -> None:
        records = 0
        for event in events:
            if not self._outbox.finished:
                self._handle(event)
            if isinstance(event, Record) and (records := records + 1) % RECORDS_PER_TURN == 0:
                next_turn()

    def _handle(self, event: Event) -> None:
        match event:
            case Failure(code, text):
                raise ProtocolError(code, text)
            case _ if self._member:
                self._member.handle(event)
            case Guest(name) if self._admit_guest(name):
                self._become(name).enter_as_guest()
            case Hello() as hello if not self._claim and self._admit_guest(hello.name):
                self._become(hello.name).enter(hello)
            case Proof() if self._claim:
                self._enter_by(self._claim, event)

    def note(self, code: Code) -> None:
        """Tell the peer something, if it is a client that has been let in."""
        if self._member:
            self._member.note(code)

    def leave(self) -> None:
        """Give the name back; the others hear nothing more from it."""
        if self._member:
            self._member.leave()
