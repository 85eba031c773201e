"""A user who is here, under a name and in a room: a guest or a client, whatever its connection is like."""

import contextlib
from typing import TYPE_CHECKING

from greenchat.errors import Code, Refused, sentence
from greenchat.log.log import Entry
from greenchat.protocol.codec import encode
from greenchat.protocol.limits import ANSWER_SIZE, ASK_COST, LINE_COST, MAX_LINE, SEND_SECONDS
from greenchat.protocol.names import name_key
from greenchat.protocol.records import Ack, Counts, Get, Have, Hello, List, Note, Ping, Pong, Private, Record, Refuse
from greenchat.protocol.wire import Event, ServerWire, Text
from greenchat.server.context import ServerContext
from greenchat.server.outbox import Outbox
from greenchat.server.private import pass_on, undelivered
from greenchat.server.resume import new_origin, origin_of, replay, resume_position
from greenchat.server.room import Room

if TYPE_CHECKING:  # only a server that is one of several needs it
    from greenchat.backplane.leases import Lease

__all__ = ["Member", "holder_of"]


class Member:
    """Whoever is called *name* while it is here; what it is told goes to *outbox*, in the way of *wire*."""

    __slots__ = (
        "_context",
        "_here",
        "_lease",
        "_outbox",
        "_room",
        "_said",
        "_tracked",
        "_wire",
        "attempt",
        "certificate",
        "charge",
        "deliver",
        "host",
        "listen",
        "name",
        "origin",
        "returns",
    )

    def __init__(self, context: ServerContext, outbox: Outbox, wire: ServerWire, name: str, host: str) -> None:
        self.name = name
        self.host = host
        self.listen: int | None = None
        """None also for a client that has not been welcomed: it expects to be told nothing before."""
        self.certificate = ""
        """What it has proved to have the key of, as a record has it."""
        self.origin = ""
        """Who it is, whatever connection it has."""
        self.attempt = 0
        """The number of its connection among those of its session."""
        self.charge = 0
        """Bytes that count beside those that it sent, or instead of them, until its session settles that."""
        self.returns = False
        """True if it may come back after it has lost its connection."""
        self.deliver = outbox.write
        """Sends lines from the room."""
        self._context = context
        self._outbox = outbox
        self._wire = wire
        self._here = False
        self._lease: Lease | None = None
        self._room: Room | None = None
        self._tracked = False
        """Whether it has a session, and so is told of its own lines' places."""
        self._said = 0

    def enter_as_guest(self) -> None:
        """Take the name and join the lobby. Raises `Refused`."""
        self.origin = new_origin()
        self._take_name()
        room = self._context.rooms.find("")
        self._replay(room, max(room.grace, room.log.begin), skip_own=True)
        self._join(room)

    def enter(self, hello: Hello, certificate: str = "") -> None:
        """Take the name, from a connection of the same user if there is one, and replay what *hello* asks for.

        A *certificate* proves that the name is the user's. Raises `Refused`.
        """
        self.certificate, self.attempt = certificate, hello.attempt
        self._tracked = self.returns = bool(hello.session)
        self.origin = origin_of(hello) if self._tracked else new_origin()
        self._supersede(holder_of(self._context, hello.name))
        self._take_name()
        room = self._context.rooms.find(hello.room)
        position = self._begin(room, hello)
        self._replay(room, position, skip_own=not hello.epoch and not hello.history)
        self._join(room)

    def leave(self) -> None:
        """Give the name back; the others hear nothing more from it."""
        if self._here:
            self._here = False
            if self._room:
                self._room.leave(self)
            self._context.directory.release(self)
            self._context.office.forget(self)
            if self._lease and self._context.remote:
                self._context.remote.release(self, self._lease)

    def expel(self, code: Code) -> None:
        """Tell it why, end its connection, and give its name back."""
        self._outbox.finish(self._wire.farewell(code))
        self.leave()

    def handle(self, event: Event) -> None:
        """What it says or asks for."""
        match event:
            case Text(block) if self._room:
                self._room.post(self, block)
            case Get():
                self.charge += ASK_COST
                self._ask(event)
            case Have() | Refuse():
                self._answer(event)
            case Private(who, text):
                self._say_privately(who, text)
            case Ping(leaving):
                self.returns = self.returns and not leaving
                self.tell(Pong())
            case List():
                for rooms in self._context.rooms.listed(self._counts()):
                    self.tell(rooms)

    def tell(self, record: Record) -> None:
        """Send a record."""
        self._outbox.write(encode(record, self._wire.longest))

    @property
    def here(self) -> bool:
        """Whether it has its name, and has not left."""
        return self._here

    @property
    def behind(self) -> bool:
        """Whether much waits for it to read."""
        return self._outbox.behind

    @property
    def silenced(self) -> bool:
        """Whether it has been told to go."""
        return self._outbox.finished

    def note(self, code: Code) -> None:
        """Send a note, unless it is a guest, who knows no records."""
        if self.listen is not None:
            self.tell(Note(code, sentence(code)))

    def count(self, lines: int) -> int:
        """How many lines it has said with these, if it has a session, or else 0."""
        if self._tracked:
            self._said += lines
        return self._said

    def acknowledge(self, entry: Entry) -> bytes:
        """What tells it that these lines of its own have their place here."""
        return encode(Ack(entry.lines, entry.said)) if self._tracked else b""

    def restart(self) -> None:
        """Have it come again, if it counts positions."""
        if self._tracked:
            self.expel(Code.UNAVAILABLE)

    def _ask(self, get: Get) -> None:
        if self._context.remote and self._context.directory.find(get.owner) is None:
            self._context.remote.ask(self, get)
        else:
            self._context.office.ask(self, get)

    def _answer(self, answer: Have | Refuse) -> None:
        """Pass on what this owner answers to a request; its requester has been charged for that."""
        office = self._context.office
        if office.have(self, answer) if isinstance(answer, Have) else office.refuse(self, answer):
            self.charge -= ANSWER_SIZE + LINE_COST

    def _counts(self) -> Counts:
        if self._context.remote:
            with contextlib.suppress(Refused):  # then those of this server
                return self._context.remote.counts()
        return self._context.rooms.counts()

    def _say_privately(self, who: str, text: str) -> None:
        holder = holder_of(self._context, who)
        if len(text.encode()) > MAX_LINE:
            undelivered(self, who, Code.LINE_TOO_LONG)
        elif self._context.remote and holder is None:
            self._context.remote.pass_on(self, who, text)
        else:
            pass_on(self, holder, who, text)

    def _supersede(self, holder: "Member | None") -> None:
        """End the connection of *holder* if that is the same user. Raises `Refused` for an attempt out of date.

        A server that hung finds connections waiting that their clients have given up since, for newer ones.
        """
        resumed = holder is not None and holder.origin == self.origin
        if (self._tracked or holder) and self._outbox.deserted:
            raise Refused(Code.NAME_TAKEN)
        if holder and resumed and self.attempt < holder.attempt:
            raise Refused(Code.NAME_TAKEN)
        if holder and (resumed or self.certificate):
            holder.expel(Code.TAKEN_OVER)

    def _take_name(self) -> None:
        self._context.directory.claim(self)
        self._here = True
        if self._context.remote:
            lease = self._context.remote.claim(self)
            if not self._here:  # it has been expelled meanwhile
                self._context.remote.release(self, lease)
                raise Refused(Code.TAKEN_OVER)
            self._lease = lease

    def _begin(self, room: Room, hello: Hello) -> int:
        """The position after which it hears all; it has been told, if it wants to know."""
        if self._tracked or hello.history:
            said = room.log.settle(self.origin)  # what it said through another connection counts
        position = resume_position(room.log, hello, room.grace)
        if self._tracked:
            self._said = hello.said if said is None else said
            self._outbox.write(self._wire.welcome(hello, room.log.epoch, position, self._said))
        else:
            self._outbox.write(self._wire.welcome(hello))
        self.listen = hello.listen
        return position

    def _replay(self, room: Room, position: int, *, skip_own: bool) -> None:
        """Send what comes after *position*, without own lines, or to *skip_own* without any under the member's name.

        Raises `Refused` if the log begins anew meanwhile, or the member reads too slowly.
        """
        epoch = room.log.epoch
        for entries in replay(room.log, position):
            if data := b"".join(self._as_heard(entry, skip_own=skip_own) for entry in entries):
                self._outbox.write(data)
                self._outbox.wait(SEND_SECONDS)
        if room.log.epoch != epoch:  # it counts in one that is over
            raise Refused(Code.UNAVAILABLE)

    def _as_heard(self, entry: Entry, *, skip_own: bool) -> bytes:
        if entry.origin == self.origin:
            return self.acknowledge(entry)
        if skip_own and name_key(entry.sender) == name_key(self.name):  # it has left and come again as another
            return encode(Ack(entry.lines, self._said)) if self._tracked else b""
        return entry.block

    def _join(self, room: Room) -> None:
        if self._here:  # it may have been expelled meanwhile
            self._room = room
            room.join(self)


def holder_of(context: ServerContext, name: str) -> Member | None:
    """Who is called *name*."""
    holder = context.directory.find(name)
    return holder if isinstance(holder, Member) else None
