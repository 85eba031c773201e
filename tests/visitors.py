"""Visitors of a server, kind and hostile: each comes, does what its function's name says, and goes."""

import contextlib
import random
import secrets
from collections.abc import Callable, Iterator
from itertools import count
from typing import Final

import gevent
from conftest import Wire, hello, reset
from gevent import socket

from greenchat.protocol.codec import encode
from greenchat.protocol.limits import MAX_LINE
from greenchat.protocol.records import Fail, File, Get, Go, Pull, Record, Relay, Sorry, Take, Welcome

OWNER: Final = "owner"
FILE: Final = "large"
"""Whom visitors ask for which file; both are there."""

_numbers = count()


@contextlib.contextmanager
def connected(port: int, first: bytes = b"", buffer: int = 0) -> Iterator[Wire]:
    """A connection, whose end the visitor may have come to itself; *buffer*, if any, is the kernel's for what comes."""
    sock = socket.socket()
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    with sock:
        sock.connect(("127.0.0.1", port))
        wire = Wire.over(sock)
        wire.send(first)
        yield wire


def a_name() -> str:
    return f"visitor {next(_numbers)}"


def a_guest(port: int) -> contextlib.AbstractContextManager[Wire]:
    return connected(port, f"{a_name()}\n".encode())


@contextlib.contextmanager
def a_client(port: int, buffer: int = 0) -> Iterator[Wire]:
    with connected(port, hello(a_name()), buffer) as wire:
        wire.record(Welcome)
        yield wire


def talks(port: int) -> None:
    with random.choice([a_guest, a_client])(port) as wire:
        for number in range(random.randrange(20)):
            wire.send(b"this is line %d\n" % number)
            gevent.sleep(random.uniform(0, 0.05))


def vanishes(port: int) -> None:
    with a_client(port) as wire:
        wire.send(b"a whole line\nhalf a li")
        reset(wire.sock)


def never_reads(port: int) -> None:
    with a_client(port, buffer=4096) as wire:
        gevent.sleep(random.uniform(0, 2))
        reset(wire.sock)


def floods(port: int) -> None:
    with a_guest(port) as wire:
        wire.send(b"the same again\n" * random.randrange(5000))
        wire.sock.shutdown(socket.SHUT_WR)
        wire.rest()


def floods_with_records(port: int) -> None:
    with a_client(port) as wire:
        wire.send(b'\x01{"t":"of another version"}\n' * random.randrange(2000))


def storms(port: int) -> None:
    for _ in range(50):
        with connected(port):
            pass


def hesitates(port: int) -> None:
    with connected(port, random.choice([b"", b"half a na", b"\x01{"])):
        gevent.sleep(random.uniform(0, 1))


def never_ends_its_line(port: int) -> None:
    with random.choice([a_guest, a_client])(port) as wire:
        wire.send(b"x" * random.randrange(MAX_LINE, 100 * MAX_LINE))
        wire.sock.shutdown(socket.SHUT_WR)
        wire.rest()


GARBAGE: Final = (
    b"\x01\n", b"\x01[[[[[[\n", b'\x01{"t":1}\n', b'\x01{"t":"get"}\n', b'\x01{"t":"have","size":-1}\n', b"\x01\xff\n",
    hello("again"), encode(Relay("0")), encode(Take(1, "", 1, (), "", ())), encode(Go()),
)  # fmt: skip


def breaks_the_protocol(port: int) -> None:
    with a_client(port) as wire:
        wire.send(random.choice(GARBAGE))
        wire.rest()


def asks_for_what_is_not_there(port: int) -> None:
    with a_client(port) as wire:
        for number in range(20):
            wire.tell(Get(number, random.choice([OWNER, "nobody"]), "not there"))
        for _ in range(20):
            wire.answer(Fail)


def guesses_a_ticket(port: int) -> None:
    with connected(port, encode(Relay(secrets.token_hex(16)))) as wire:
        wire.record(Sorry)


def has_the_file(port: int) -> bool:
    """Whether the owner is there."""
    with a_client(port) as wire:
        wire.tell(Get(1, OWNER, FILE))
        return isinstance(wire.answer(Record), Take)


def loses_interest(port: int) -> None:
    """In the middle of a file, directly or relayed."""
    with a_client(port) as wire:
        wire.tell(Get(1, OWNER, FILE))
        take = wire.answer(Take)
        with random.choice([_direct, _relayed])(port, take) as data:
            data.tell(Pull(take.ticket, "sha256", 0, ""))
            data.record(File)
            data.exactly(random.randrange(take.size))
            random.choice([reset, socket.socket.close])(data.sock)


def _direct(_port: int, take: Take) -> contextlib.AbstractContextManager[Wire]:
    return connected(take.direct[0][1])


@contextlib.contextmanager
def _relayed(port: int, take: Take) -> Iterator[Wire]:
    with connected(port, encode(Relay(take.key))) as wire:
        wire.record(Go)
        yield wire


EVERY_KIND: Final[tuple[Callable[[int], None], ...]] = (
    talks, talks, talks, talks, talks, vanishes, never_reads, floods, floods_with_records, storms, hesitates,
    never_ends_its_line, breaks_the_protocol, asks_for_what_is_not_there, guesses_a_ticket, loses_interest,
)  # fmt: skip
