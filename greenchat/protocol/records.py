"""The control records and their codec: SOH, one flat JSON object whose ``t`` names its kind, LF."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any, Final, TypeAlias, get_type_hints

from greenchat.errors import Code, ProtocolError
from greenchat.protocol.limits import MAX_ALGORITHM_NAME, MAX_ALGORITHMS, MAX_LINE, MAX_NUMBER

__all__ = [
    "SOH",
    "Addresses",
    "Algorithms",
    "Challenge",
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
    "Proof",
    "Pull",
    "Record",
    "Refuse",
    "Refused",
    "Relay",
    "Secure",
    "Sorry",
    "Take",
    "Wait",
    "Want",
    "Welcome",
    "decode",
    "encode",
]

SOH: Final = b"\x01"
"""Starts a record's line; text never contains it."""

Addresses: TypeAlias = tuple[tuple[str, int], ...]
"""Hosts, as numeric addresses, with their ports."""

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
    """

    v: int
    name: str
    listen: int
    certificate: str = ""
    invite: str = ""


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
    """The client is in the room, under *name*, and the two speak version *v*."""

    v: int
    name: str


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

    If the owner has a *certificate*, it will show it, and ask for the requester's.
    """

    id: int
    ticket: str
    size: int
    direct: Addresses
    key: str
    algorithms: Algorithms
    certificate: str = ""


@dataclasses.dataclass(frozen=True)
class Fail(Record):
    """The request *id* came to nothing."""

    id: int
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


# --- the codec --------------------------------------------------------------------------------


def _number(value: Any) -> int:
    if type(value) is int and 0 <= value <= MAX_NUMBER:  # a bool is no number
        return value
    raise ValueError


def _string(value: Any) -> str:
    if isinstance(value, str):
        value.encode()  # JSON can spell lone surrogates, which no UTF-8 can
        return value
    raise ValueError


def _addresses(value: Any) -> Addresses:
    if isinstance(value, list | tuple):
        return tuple((_string(host), _number(port)) for host, port in value)
    raise ValueError


def _algorithms(value: Any) -> Algorithms:
    if isinstance(value, list | tuple) and len(value) <= MAX_ALGORITHMS:
        names = tuple(map(_string, value))
        if all(len(name) <= MAX_ALGORITHM_NAME for name in names):
            return names
    raise ValueError


def _no_constant(_name: str) -> None:
    raise ValueError  # NaN and the infinities are Python's, not JSON's


_READERS: Final[dict[object, Callable[[Any], object]]] = {
    int: _number,
    str: _string,
    Addresses: _addresses,
    Algorithms: _algorithms,
}

_FIELDS: Final[dict[type[Record], dict[str, Callable[[Any], object]]]] = {
    kind: {name: _READERS[hint] for name, hint in get_type_hints(kind).items()} for kind in Record.__subclasses__()
}

_DEFAULTS: Final[dict[type[Record], dict[str, object]]] = {
    kind: {each.name: each.default for each in dataclasses.fields(kind) if each.default is not dataclasses.MISSING}
    for kind in _FIELDS
}

_KINDS: Final[dict[str, type[Record]]] = {kind.__name__.lower(): kind for kind in _FIELDS}


def encode(record: Record) -> bytes:
    """*record* as one line. Raises `ProtocolError` if it would be too long, or a value in it cannot be sent."""
    kind = type(record)
    try:
        fields = {name: read(getattr(record, name)) for name, read in _FIELDS[kind].items()}
        fields = {name: value for name, value in fields.items() if _DEFAULTS[kind].get(name) != value}
    except ValueError:  # a number out of range, or a text with a lone surrogate
        raise ProtocolError(Code.BAD_RECORD) from None
    line = SOH + json.dumps({"t": kind.__name__.lower()} | fields, separators=(",", ":")).encode()
    if len(line) > MAX_LINE:
        raise ProtocolError(Code.LINE_TOO_LONG)
    return line + b"\n"


def decode(line: bytes) -> Record | None:
    """The record in *line*, given without its SOH and its line end; None if its kind is unknown.

    Unknown fields are ignored. Raises `ProtocolError` if the line is no JSON object, names no kind,
    or lacks a field or has one of the wrong type.
    """
    try:
        fields = json.loads(line.decode(), parse_constant=_no_constant)
        kind = _KINDS.get(_string(fields["t"]))
        if kind is None:
            return None
        fields = _DEFAULTS[kind] | fields
        return kind(**{name: read(fields[name]) for name, read in _FIELDS[kind].items()})
    # in this order: not JSON, or a wrong value; a wrong shape; a missing field; nested too deep
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ProtocolError(Code.BAD_RECORD) from None
