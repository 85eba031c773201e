"""What the tests of a client share: owners, a client that is alone with its server, and what is left of a file."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import pytest
from conftest import People, Wire, reset, until
from gevent import socket
from peers import Owner, left, sha256

from greenchat import ChatClient, Served
from greenchat.errors import Code, ServerGone
from greenchat.protocol.codec import encode
from greenchat.protocol.records import Done, Fail, File, Get, Go, Got, Pull, Refuse, Relay, Take, Want

LARGE: Final = bytes(range(256)) * 80_000
"""More than a connection buffers."""

Vanish: TypeAlias = Callable[[socket.socket], None]

VANISHING = pytest.mark.parametrize("vanish", [lambda sock: sock.close(), reset], ids=["closed", "reset"])


def refuses(dan: Owner, code: Code) -> None:
    """The owner's answer to the next request."""
    dan.wire.tell(Refuse(dan.wire.record(Want).ticket, code, ""))


@dataclass(frozen=True)
class Alone:
    """A client, and a server's end whose every byte is spelled out."""

    client: ChatClient
    server: Wire

    def gone(self) -> ServerGone:
        """How the connection ended for the program."""
        with pytest.raises(ServerGone) as gone:
            list(self.client.messages())
        return gone.value

    def close(self) -> None:
        self.server.close()
        self.client.close()


# --- an owner that serves ---------------------------------------------------------------------


class Serving:
    """A client called dan that owns two files, a raw requester called ann, and what dan was told of its files."""

    def __init__(self, people: People) -> None:
        self.people = people
        self.home = people.home("dan")
        (self.home / "file").write_bytes(b"hello")
        (self.home / "large").write_bytes(LARGE)
        self.served: list[Served] = []
        self.client: ChatClient = people.client("dan", on_served=self.served.append)
        self.ann = people.member("ann")
        self._data: list[Wire] = []

    def grants(self, file: str = "file", to: Wire | None = None) -> Take:
        requester = to or self.ann
        requester.tell(Get(1, "dan", file))
        return requester.record(Take)

    def refuses(self, file: str) -> str:
        self.ann.tell(Get(1, "dan", file))
        return self.ann.record(Fail).code

    def comes(self, first: bytes = b"") -> Wire:
        """Somebody at dan's listener."""
        end = Wire(self.client.listen)
        self._data.append(end)
        end.send(first)
        return end

    def pulls(self, ticket: str, offset: int = 0, prefix: str = "", algorithm: str = "sha256") -> Wire:
        return self.comes(encode(Pull(ticket, algorithm, offset, prefix)))

    def joins(self, take: Take) -> Wire:
        """The relayed connection."""
        end = self.people.wire(encode(Relay(take.key)))
        end.record(Go)
        return end

    def failed(self) -> Code:
        """How the only file that was served so far failed."""
        until(lambda: self.served)
        (served,) = self.served
        assert served.error is not None
        return served.error.code

    def chat_goes_on(self) -> None:
        self.client.send("still here")
        assert self.ann.line() == b"dan: still here"

    def still_serves(self) -> None:
        assert taken(self.pulls(self.grants().ticket)) == b"hello"

    def close(self) -> None:
        for end in self._data:
            end.close()


def all_but_got(end: Wire, prefix: bytes = b"") -> bytes:
    """The file that comes on *end*, in full with its *prefix*; the next word is the requester's."""
    file = end.record(File)
    assert file.offset == len(prefix)
    content = prefix + end.exactly(file.size - file.offset)
    assert end.record(Done).digest == sha256(content)
    return content


def taken(end: Wire, prefix: bytes = b"") -> bytes:
    """The same, acknowledged."""
    content = all_but_got(end, prefix)
    end.tell(Got(sha256(content)))
    assert end.rest() == b""
    return content


# --- what is left -----------------------------------------------------------------------------


def nothing_is_there(people: People) -> bool:
    return left(people.home("ann")) == {}


def wait_for_part(people: People, content: bytes) -> None:
    """Until so much of a file has been received."""
    until(lambda: left(people.home("ann")).get("part") == content)
