"""The control records, a class for each kind; `greenchat.protocol.codec` makes lines of them."""

import dataclasses
from typing import TypeAlias

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


@dataclasses.dataclass(frozen=True)
class Record:
    """One control record; its fields are the JSON object's. One that has its default value is left out."""


# --- the chat connection: client to server ----------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Hello(Record):
    """The first line of a client: its protocol version, its user's name, its port for file requests (0: none).

    Where all is encrypted, also the user's *certificate*, in DER and base64, and an *invite* that the user was given.
    It enters a *room*, and hears the last *history* lines of it. With a *session*, a secret of its own, it is told
    where what it says has its place; with the same one it comes back, after *position* in this *epoch* of the room's
    log, and with so many of its lines *said* as far as it knows. Each connection that the session tries has a higher
    *attempt* than the ones before, at whatever server; 0 is from a client that does not count them.
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


@dataclasses.dataclass(frozen=True)
class Proof(Record):
    """Shows that the client has the key of the certificate that it named: a *signature*, in base64."""

    signature: str


@dataclasses.dataclass(frozen=True)
class Get(Record):
    """Asks for *owner*'s *file*; *id* is the client's own number for the request."""

    id: int
    owner: str
    file: str


@dataclasses.dataclass(frozen=True)
class List(Record):
    """Asks for the rooms that there are."""


@dataclasses.dataclass(frozen=True)
class Private(Record):
    """A message for one user alone: *who* it is to, when it is sent, and who it is from, when it is received."""

    who: str
    text: str


@dataclasses.dataclass(frozen=True)
class Ping(Record):
    """Asks whether the server is there."""


@dataclasses.dataclass(frozen=True)
class Have(Record):
    """The owner has the file that *ticket* is for, and will hand it to who shows that ticket; its digests."""

    ticket: str
    size: int
    algorithms: Algorithms


@dataclasses.dataclass(frozen=True)
class Refuse(Record):
    """The owner has no such file to give."""

    ticket: str
    code: str
    text: str


@dataclasses.dataclass(frozen=True)
class Relay(Record):
    """The first line of a data connection to the server; *key* says of which transfer it is which side."""

    key: str


# --- the chat connection: server to client ----------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Welcome(Record):
    """The client is in the room, under *name*, and the two speak version *v*.

    To one with a session: the next line that it hears comes after *position* in this *epoch* of the room's log, which
    has so many of its own lines, whatever connection they came through: those are *said*.
    """

    v: int
    name: str
    epoch: str = ""
    position: int = 0
    said: int = 0


@dataclasses.dataclass(frozen=True)
class Ack(Record):
    """Here is the place of the client's next *lines*, with which it has *said* so many; to one with a session."""

    lines: int
    said: int


@dataclasses.dataclass(frozen=True)
class Pong(Record):
    """Answers `Ping`: the server is there."""


@dataclasses.dataclass(frozen=True)
class Rooms(Record):
    """Some of the *rooms* with somebody in them, by name, and how many there are; then come *more*, or none."""

    rooms: Counts
    more: int


@dataclasses.dataclass(frozen=True)
class Challenge(Record):
    """Asks the client for a `Proof` about this *nonce*, which is in hexadecimal."""

    nonce: str


@dataclasses.dataclass(frozen=True)
class Refused(Record):
    """The client is not let in; the connection ends."""

    code: str
    text: str


@dataclasses.dataclass(frozen=True)
class Error(Record):
    """The server's last words on a connection."""

    code: str
    text: str


@dataclasses.dataclass(frozen=True)
class Want(Record):
    """Asks an owner for *file*, on behalf of *requester*, who will show *ticket*, and a *certificate* if it has one."""

    ticket: str
    requester: str
    file: str
    certificate: str = ""


@dataclasses.dataclass(frozen=True)
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


@dataclasses.dataclass(frozen=True)
class Fail(Record):
    """The request *id* came to nothing."""

    id: int
    code: str
    text: str


@dataclasses.dataclass(frozen=True)
class Undelivered(Record):
    """The last private message to *who* came to nothing."""

    who: str
    code: str
    text: str


@dataclasses.dataclass(frozen=True)
class Note(Record):
    """Something about the server that the user may want to know; nothing ends by it."""

    code: str
    text: str


@dataclasses.dataclass(frozen=True)
class Dial(Record):
    """Asks the owner of the file that *ticket* is for to join a relayed connection, with *key*."""

    ticket: str
    key: str


@dataclasses.dataclass(frozen=True)
class Go(Record):
    """The two sides of a relayed connection are joined; the server is silent from here on."""


# --- the data connection ----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Secure(Record):
    """From here on all is encrypted, for the *transfer* whose ticket has this SHA-256, in hexadecimal."""

    transfer: str


@dataclasses.dataclass(frozen=True)
class Pull(Record):
    """Asks for the file that *ticket* is for, from *offset* on, if the bytes before have the digest *prefix*.

    *algorithm* is that of the prefix's digest and of the whole file's.
    """

    ticket: str
    algorithm: str
    offset: int
    prefix: str


@dataclasses.dataclass(frozen=True)
class Wait(Record):
    """More time, please: the owner is still reading the part that the requester has."""


@dataclasses.dataclass(frozen=True)
class File(Record):
    """The file has *size* bytes; those from *offset* on follow, which is where the requester asked for, or 0."""

    size: int
    offset: int


@dataclasses.dataclass(frozen=True)
class Done(Record):
    """The bytes are all sent; *digest*, in hexadecimal, is that of the whole file."""

    digest: str


@dataclasses.dataclass(frozen=True)
class Sorry(Record):
    """The owner gives up, instead of `File` or instead of `Done`."""

    code: str
    text: str


@dataclasses.dataclass(frozen=True)
class Got(Record):
    """The requester has the file, under its name, with this *digest*."""

    digest: str
