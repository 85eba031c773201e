"""The two sides of a chat connection as state machines: bytes in, events out; records and text in, bytes out.

A server's side:                                  A client's side:

    START ──bare name──▶ GUEST                        START ──Welcome──▶ CLIENT
      ├──────Hello─────▶ CLIENT                         ├────Challenge─▶ START
      ├─Hello with cert▶ PROVING ──Proof──▶ CLIENT      └─────Refused──▶ ENDED
      └──────Relay─────▶ RELAY
    any ──rule broken──▶ ENDED                        any ──Error, rule broken──▶ ENDED

All that changes a connection's state is in this file. Text goes through a block of lines at a time:
a block is checked, made safe and handed on as one `bytes`, however many lines it holds.
"""

import enum
import itertools
from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

from greenchat.errors import Code, GreenchatError, ProtocolError, sentence
from greenchat.protocol.codec import SOH, decode, encode
from greenchat.protocol.foreign import TLS, is_foreign, is_http, status_line
from greenchat.protocol.limits import MAX_DELIVERY, MAX_LINE, MAX_PORT, MAX_RECORD, MAX_SAID, MIN_PORT
from greenchat.protocol.names import user_name
from greenchat.protocol.records import (
    Ack,
    Challenge,
    Dial,
    Error,
    Fail,
    Get,
    Have,
    Hello,
    List,
    Note,
    Ping,
    Pong,
    Private,
    Proof,
    Record,
    Refuse,
    Refused,
    Relay,
    Rooms,
    Sorry,
    Take,
    Undelivered,
    Want,
    Welcome,
)
from greenchat.protocol.text import safe_block, safe_line

__all__ = [
    "VERSION",
    "ClientWire",
    "Event",
    "Failure",
    "Guest",
    "LineSplitter",
    "ServerWire",
    "State",
    "Text",
    "message_line",
]

_BOM: Final = "\ufeff".encode()
"""The byte order mark."""

VERSION: Final = 1
"""The newest version of the protocol that this package speaks."""


class State(enum.Enum):
    """Where a connection stands."""

    START = enum.auto()
    GUEST = enum.auto()
    PROVING = enum.auto()
    CLIENT = enum.auto()
    RELAY = enum.auto()
    ENDED = enum.auto()


class Guest(NamedTuple):
    """The first line was a bare name: the peer is a person with netcat, say."""

    name: str


class Text(NamedTuple):
    """One or more whole lines, each ended by LF, valid UTF-8 and safe to show."""

    block: bytes


class Failure(NamedTuple):
    """The peer broke a rule, and nothing more can be read from it."""

    code: Code
    text: str


Event: TypeAlias = Guest | Text | Failure | Record


class LineSplitter:
    """Whole lines out of a stream that comes in pieces, with a bound on each line and so on memory."""

    __slots__ = ("_limit", "_rest", "overlong", "record_limit")

    def __init__(self, limit: int) -> None:
        self.record_limit = limit
        """The bound on a line that starts with SOH; no smaller than the other."""
        self.overlong = False
        """Whether a line over the limit has come; neither it nor anything after it is handed on."""
        self._limit = limit
        self._rest = b""

    @property
    def pending(self) -> bool:
        """True if a line has begun and has not ended."""
        return bool(self._rest)

    def feed(self, data: bytes) -> bytes:
        """All lines completed by *data*, as one block that is empty or ends in LF."""
        if self.overlong:
            return b""
        end = data.rfind(b"\n") + 1
        block, self._rest = (self._rest + data[:end], data[end:]) if end else (b"", self._rest + data)
        if len(block) > self._limit:
            block = self._up_to_overlong(block)
        if self._too_long(self._rest):
            self.overlong, self._rest = True, b""
        return block

    def _up_to_overlong(self, block: bytes) -> bytes:
        """By steps of as many lines as the longest one has room for, because most blocks have very many."""
        begin = 0
        while len(block) - begin > self._limit:
            end = block.rfind(b"\n", begin, begin + self._limit + 1)
            if end < 0 and block.startswith(b"\r\n", begin + self._limit):
                end = begin + self._limit + 1
            if end < 0 and block.startswith(SOH, begin):
                end = block.find(b"\n", begin, begin + self.record_limit + len("\r\n"))
                end = -1 if self._too_long(block[begin:end]) else end
            if end < 0:
                self.overlong, self._rest = True, b""
                return block[:begin]
            begin = end + 1
        return block

    def _too_long(self, line: bytes) -> bool:
        limit = self.record_limit if line.startswith(SOH) else self._limit
        return len(line) > limit and len(line.removesuffix(b"\r")) > limit


class _Wire:
    """What both sides share: splitting, decoding, and the end of a connection that broke a rule."""

    __slots__ = ("_lines", "state")

    _ALLOWED: tuple[type[Record], ...]
    """The records that may come once the connection has started."""

    def __init__(self, limit: int) -> None:
        self.state = State.START
        self._lines = LineSplitter(limit)

    @property
    def _ended(self) -> bool:
        return self.state is State.ENDED

    def receive(self, data: bytes) -> list[Event]:
        """The events that *data* completes; never raises. After a `Failure` there are none."""
        events: list[Event] = []
        if self._ended:
            return events
        try:
            if block := self._lines.feed(data):
                self._read(block, events)
            if self._lines.overlong and not self._ended:
                raise ProtocolError(Code.LINE_TOO_LONG)
        except GreenchatError as error:
            self.state = State.ENDED
            events.append(Failure(error.code, str(error)))
        return events

    def _read(self, block: bytes, events: list[Event]) -> None:
        """Add the events of *block*; what came before an error stays."""
        while block and self.state is State.START:
            first, _, block = block.partition(b"\n")
            events.append(self._start(first.removesuffix(b"\r")))
        if block and not self._ended:
            self._go_on(block, events)

    def _start(self, line: bytes) -> Event:
        """What the connection's first line is; decides the state that follows."""
        raise NotImplementedError

    def _go_on(self, block: bytes, events: list[Event]) -> None:
        """Text in runs as long as they are, and the records between them."""
        if SOH not in block:
            events.append(self._text(block))
            return
        for is_record, run in _runs(block):
            if self._ended:
                return
            if not is_record:
                events.append(self._text(run))
            elif (record := decode(run[1:-1])) is not None:
                events.append(self._accept(record))

    def _text(self, block: bytes) -> Text:
        return Text(safe_block(block))

    def _accept(self, record: Record) -> Event:
        if not isinstance(record, self._ALLOWED):
            raise ProtocolError(Code.UNEXPECTED)
        return record


def _runs(block: bytes) -> Iterator[tuple[bool, bytes]]:
    """*block* as runs of text lines and single records, in order."""
    lines = (line + b"\n" for line in block.split(b"\n")[:-1])
    for is_record, run in itertools.groupby(lines, lambda line: line.startswith(SOH)):
        if is_record:
            yield from ((True, line) for line in run)
        else:
            yield False, b"".join(run)


class ServerWire(_Wire):
    """A server's side of a connection."""

    __slots__ = ("_is_http", "_last_word", "longest", "name_as_sent")

    _ALLOWED = (Get, Have, Refuse, List, Private, Ping)

    def __init__(self) -> None:
        super().__init__(MAX_LINE)
        self.longest = MAX_LINE
        """Bytes of the longest record that the peer reads."""
        self.name_as_sent = ""
        """The name in the hello before it was normalised: a proof is a signature of that."""
        self._is_http = False
        self._last_word: type[Refused | Error | Sorry] | None = None

    def receive(self, data: bytes) -> list[Event]:
        """Return the events that *data* completes; a TLS handshake fails at its first byte, as it has no lines."""
        if data[:1] == TLS and self.state is State.START and not self._lines.pending:
            self.state = State.ENDED
            return [Failure(Code.OTHER_PROTOCOL, "this server does not speak TLS: connect without it")]
        return super().receive(data)

    def end(self) -> list[Event]:
        """Return the events of the end of the stream: a guest's last line may lack its LF, as from ``printf``."""
        return self.receive(b"\n") if self.state is State.GUEST and self._lines.pending else []

    def farewell(self, code: str, text: str = "") -> bytes:
        """The last words to this peer, in the form that it understands, whatever state it is in."""
        text = text or sentence(code)
        if self._is_http:
            return status_line(text)
        return encode(self._last_word(code, text)) if self._last_word else f"error: {text}\n".encode()

    def _start(self, line: bytes) -> Event:
        if not line.startswith(SOH):
            line = line.removeprefix(_BOM)  # as editors put it at the start of a file
            if is_foreign(line):
                self._is_http = is_http(line)
                raise ProtocolError(Code.OTHER_PROTOCOL)
            self.state = State.GUEST
            return Guest(user_name(line.decode(errors="replace")))
        self._last_word = Refused
        record = decode(line[1:])
        if isinstance(record, Hello):
            return self._hello(record)
        if isinstance(record, Relay):
            self.state, self._last_word = State.RELAY, Sorry
            return record
        raise ProtocolError(Code.UNEXPECTED)

    def _hello(self, hello: Hello) -> Hello:
        if hello.v < 1:
            raise ProtocolError(Code.BAD_VERSION)
        if hello.listen and not MIN_PORT <= hello.listen <= MAX_PORT:
            raise ProtocolError(Code.BAD_PORT)
        self.state = State.PROVING if hello.certificate else State.CLIENT
        if hello.said > MAX_SAID:
            raise ProtocolError(Code.BAD_RECORD)
        room = user_name(hello.room) if hello.room else ""
        self.name_as_sent = hello.name
        return hello.replace(v=min(hello.v, VERSION), name=user_name(hello.name), room=room)

    def welcome(self, hello: Hello, epoch: str = "", position: int = 0, said: int = 0) -> bytes:
        """Lets the client of *hello* in: from now on its errors are `Error`, no longer `Refused`.

        One with a session is told where in its room's log it is, and how much it has *said*.
        """
        self._last_word = Error
        if hello.record:
            self._lines.record_limit = MAX_RECORD
            self.longest = min(max(hello.record, MAX_LINE), MAX_RECORD)
        return encode(Welcome(hello.v, hello.name, epoch, position, said, MAX_RECORD if hello.record else 0))

    def _go_on(self, block: bytes, events: list[Event]) -> None:
        if self.state is State.GUEST:  # a guest has no records: SOH is one more control in its text
            events.append(Text(safe_block(block)))
        elif self.state is not State.RELAY:
            super()._go_on(block, events)
        # a data connection that speaks before Go loses what it said

    def _text(self, block: bytes) -> Text:
        if self.state is State.PROVING:
            raise ProtocolError(Code.UNEXPECTED)
        return super()._text(block)

    def _accept(self, record: Record) -> Event:
        if self.state is not State.PROVING:
            return super()._accept(record)
        if not isinstance(record, Proof):
            raise ProtocolError(Code.UNEXPECTED)
        self.state = State.CLIENT
        return record


class ClientWire(_Wire):
    """A client's side of a connection."""

    __slots__ = ()

    _ALLOWED = (Want, Take, Fail, Dial, Error, Ack, Rooms, Private, Undelivered, Note, Pong)

    def __init__(self) -> None:
        super().__init__(MAX_DELIVERY)
        self._lines.record_limit = MAX_RECORD

    def _start(self, line: bytes) -> Event:
        if line.startswith(b"error: "):  # a server that had no time for a hello
            self.state = State.ENDED
            return Refused(Code.FAILED, safe_line(line.decode(errors="replace").removeprefix("error: ")))
        record = decode(line[1:]) if line.startswith(SOH) else None
        if isinstance(record, Welcome):
            return self._welcome(record)
        if isinstance(record, Refused):
            self.state = State.ENDED
            return record
        if isinstance(record, Challenge):
            return record
        raise ProtocolError(
            Code.UNEXPECTED, "what answers there is not a greenchat server: check the host and the port"
        )

    def _welcome(self, welcome: Welcome) -> Welcome:
        if not 1 <= welcome.v <= VERSION:
            raise ProtocolError(Code.BAD_VERSION)
        self.state = State.CLIENT
        return welcome.replace(name=user_name(welcome.name))

    def _accept(self, record: Record) -> Event:
        if isinstance(record, Error):
            self.state = State.ENDED
        return super()._accept(record)


def message_line(text: str) -> bytes:
    """*text* as one line to send. Raises `ProtocolError` if it is longer than a line may be."""
    line = safe_line(text).encode(errors="replace")
    if len(line) > MAX_LINE:
        raise ProtocolError(Code.LINE_TOO_LONG, f"that message has more than {MAX_LINE} bytes: send it in parts")
    return line + b"\n"
