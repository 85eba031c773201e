"""The control records, a class for each kind; `greenchat.protocol.codec` makes lines of them."""

from typing import Any, ClassVar, Self, TypeAlias, dataclass_transform

__all__ = [
    "Ack",
    "Addresses",
    "Algorithms",
    "Challenge",
    "Counts",
    "Dial",
    "Done",
    "Error",
    "Fail",
    "File",
    "Get",
    "Go",
    "Got",
    "Have",
    "Hello",
    "List",
    "Note",
    "Ping",
    "Pong",
    "Private",
    "Proof",
    "Pull",
    "Record",
    "Refuse",
    "Refused",
    "Relay",
    "Rooms",
    "Secure",
    "Sorry",
    "Take",
    "Undelivered",
    "Wait",
    "Want",
    "Welcome",
]

Addresses: TypeAlias = tuple[tuple[str, int], ...]
"""Hosts, as numeric addresses, with their ports."""

Counts: TypeAlias = tuple[tuple[str, int], ...]
"""Names, each with a number."""

Algorithms: TypeAlias = tuple[str, ...]
"""Names of digest algorithms, the one that is liked best first."""


@dataclass_transform(frozen_default=True)
class Record:
    """One control record, immutable; its fields are the JSON object's. One that has its default value is left out.

    A kind is written and used as a frozen dataclass would be. It is none, because `dataclasses` compiles code for each:
    for all kinds that took as long as all else that a client imports from this package.
    """

    FIELDS: ClassVar[dict[str, Any]] = {}
    """The type of each field, in the order of the arguments."""
    DEFAULTS: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        cls.FIELDS = cls.__annotations__
        cls.DEFAULTS = {name: vars(cls)[name] for name in cls.FIELDS if name in vars(cls)}
        cls.__match_args__ = tuple(cls.FIELDS)  # type: ignore[attr-defined,misc]  # as a dataclass has it

    def __init__(self, *values: Any, **named: Any) -> None:
        fields = vars(self)
        fields.update(self.DEFAULTS)
        fields.update(zip(self.FIELDS, values, strict=False))
        fields.update(named)
        if fields.keys() != self.FIELDS.keys() or len(values) + len(named) > len(fields):
            raise TypeError(f"{type(self).__name__} takes {', '.join(self.FIELDS) or 'nothing'}")

    def replace(self, **changes: Any) -> Self:
        """Return a record with these *changes*."""
        return type(self)(**vars(self) | changes)

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if type(self) is type(other) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), *(vars(self)[name] for name in self.FIELDS)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={vars(self)[name]!r}' for name in self.FIELDS)})"

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")


# --- the chat connection: client to server ----------------------------------------------------


class Hello(Record):
    """The first line of a client: its protocol version, its user's name, its port for file requests (0: none).

    Where all is encrypted, also the user's *certificate*, in DER and base64, and an *invite* that the user was given.
    It enters a *room*, and hears the last *history* lines of it. With a *session*, a secret of its own, it is told
    where what it says has its place; with the same one it comes back, after *position* in this *epoch* of the room's
    log, and with so many of its lines *said* as far as it knows. Each connection that the session tries has a higher
    *attempt* than the ones before, at whatever server; 0 is from a client that does not count them. The longest
    *record* that it reads has so many bytes; 0 is from a client that reads `limits.MAX_LINE`.
    """

    v: int
    name: str
    listen: int
    certificate: str = ""
    invite: str = ""
    room: str = ""
    history: int = 0
    session: str = ""
    epoch: str = ""
    position: int = 0
    said: int = 0
    attempt: int = 0
    record: int = 0


class Proof(Record):
    """Shows that the client has the key of the certificate that it named: a *signature*, in base64."""

    signature: str


class Get(Record):
    """Asks for *owner*'s *file*; *id* is the client's own number for the request."""

    id: int
    owner: str
    file: str


class List(Record):
    """Asks for the rooms that there are."""


class Private(Record):
    """A message for one user alone: *who* it is to, when it is sent, and who it is from, when it is received."""

    who: str
    text: str


class Ping(Record):
    """Asks whether the server is there; the last one of a client that is *leaving*, and not coming back, says so."""

    leaving: int = 0


class Have(Record):
    """The owner has the file that *ticket* is for, and will hand it to who shows that ticket; its digests."""

    ticket: str
    size: int
    algorithms: Algorithms


class Refuse(Record):
    """The owner has no such file to give."""

    ticket: str
    code: str
    text: str


class Relay(Record):
    """The first line of a data connection to the server; *key* says of which transfer it is which side."""

    key: str


# --- the chat connection: server to client ----------------------------------------------------


class Welcome(Record):
    """The client is in the room, under *name*, and the two speak version *v*.

    To one with a session: the next line that it hears comes after *position* in this *epoch* of the room's log, which
    has so many of its own lines, whatever connection they came through: those are *said*. To one that said its own: the
    longest *record* that the server reads has so many bytes.
    """

    v: int
    name: str
    epoch: str = ""
    position: int = 0
    said: int = 0
    record: int = 0


class Ack(Record):
    """Here is the place of the client's next *lines*, with which it has *said* so many; to one with a session."""

    lines: int
    said: int


class Pong(Record):
    """Answers `Ping`: the server is there."""


class Rooms(Record):
    """Some of the *rooms* with somebody in them, by name, and how many there are; then come *more*, or none."""

    rooms: Counts
    more: int


class Challenge(Record):
    """Asks the client for a `Proof` about this *nonce*, which is in hexadecimal."""

    nonce: str


class Refused(Record):
    """The client is not let in; the connection ends."""

    code: str
    text: str


class Error(Record):
    """The server's last words on a connection."""

    code: str
    text: str


class Want(Record):
    """Asks an owner for *file*, on behalf of *requester*, who will show *ticket*, and a *certificate* if it has one."""

    ticket: str
    requester: str
    file: str
    certificate: str = ""


class Take(Record):
    """The requester may fetch its request *id*: at a *direct* address, or relayed, with *key*.

    That is by its own server, unless *relay* says by which.

    If the owner has a *certificate*, it will show it, and ask for the requester's.
    """

    id: int
    ticket: str
    size: int
    direct: Addresses
    key: str
    algorithms: Algorithms
    certificate: str = ""
    relay: Addresses = ()


class Fail(Record):
    """The request *id* came to nothing."""

    id: int
    code: str
    text: str


class Undelivered(Record):
    """The last private message to *who* came to nothing."""

    who: str
    code: str
    text: str


class Note(Record):
    """Something about the server that the user may want to know; nothing ends by it."""

    code: str
    text: str


class Dial(Record):
    """Asks the owner of the file that *ticket* is for to join a relayed connection, with *key*."""

    ticket: str
    key: str


class Go(Record):
    """The two sides of a relayed connection are joined; the server is silent from here on."""


# --- the data connection ----------------------------------------------------------------------


class Secure(Record):
    """From here on all is encrypted, for the *transfer* whose ticket has this SHA-256, in hexadecimal."""

    transfer: str


class Pull(Record):
    """Asks for the file that *ticket* is for, from *offset* on, if the bytes before have the digest *prefix*.

    *algorithm* is that of the prefix's digest and of the whole file's.
    """

    ticket: str
    algorithm: str
    offset: int
    prefix: str


class Wait(Record):
    """More time, please: the owner is still reading the part that the requester has."""


class File(Record):
    """The file has *size* bytes; those from *offset* on follow, which is where the requester asked for, or 0."""

    size: int
    offset: int


class Done(Record):
    """The bytes are all sent; *digest*, in hexadecimal, is that of the whole file."""

    digest: str


class Sorry(Record):
    """The owner gives up, instead of `File` or instead of `Done`."""

    code: str
    text: str


class Got(Record):
    """The requester has the file, under its name, with this *digest*."""

    digest: str
