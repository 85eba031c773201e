"""Both sides of a transfer, for tests: the two ends of a data connection, and what holds them up."""

import contextlib
import math
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeAlias

import gevent
import pytest
from gevent import socket
from gevent.threadpool import ThreadPool

from greenchat.errors import Code, GreenchatError
from greenchat.protocol.codec import encode
from greenchat.protocol.limits import BLOCK, CHUNK
from greenchat.protocol.records import File, Pull, Record
from greenchat.transfer.channel import Channel
from greenchat.transfer.digest import Digest
from greenchat.transfer.moving import Moving
from greenchat.transfer.partial import Partial
from greenchat.transfer.pump import Stream
from greenchat.transfer.rate import UNLIMITED, RateLimit
from greenchat.transfer.share import Share, SharedFile

# What the fixtures are.
Download: TypeAlias = Callable[..., str]
Make: TypeAlias = Callable[[bytes], Path]
Pair: TypeAlias = tuple[Stream, Stream]
Serve: TypeAlias = "Callable[..., gevent.Greenlet[..., GreenchatError | None]]"
Streams: TypeAlias = Callable[[], AbstractContextManager[Pair]]

SECONDS = 5.0
"""More than anything here takes, less than a test may."""

LARGE = random.Random(0).randbytes(3 * 1024 * 1024)
"""More than the buffers between two ends hold."""

AROUND = pytest.mark.parametrize(
    "size",
    [
        pytest.param(0, id="empty"),
        pytest.param(1, id="one byte"),
        pytest.param(CHUNK - 1, id="a byte less than a chunk"),
        pytest.param(CHUNK, id="a chunk"),
        pytest.param(CHUNK + 1, id="a byte more than a chunk"),
        pytest.param(BLOCK - 1, id="a byte less than a block"),
        pytest.param(BLOCK + 1, id="a byte more than a block"),
        pytest.param(3 * 1024 * 1024, id="3 MiB"),
    ],
)

A_FILE = encode(File(4, 0))
PULL = Pull("t", "sha256", 0, "")


def code_of(error: GreenchatError | None) -> Code | None:
    return error.code if error else None


def moving_of(size: int = 0, *, moved: int = 0, limit: RateLimit = UNLIMITED) -> Moving:
    return Moving("file", "ann", sending=True, size=size, moved=moved, resumed=moved, limit=limit)


class Steps(RateLimit):
    """A limit that only notes what moves, in steps of *step*, and has everyone pause for *pause* seconds."""

    def __init__(self, step: int, pause: float = 0.0) -> None:
        super().__init__(math.inf)
        self.lifted = False
        self.step = step
        self.sizes: list[int] = []
        self._pause = pause

    def pause(self, size: int) -> float:
        self.sizes.append(size)
        return self._pause


class Hook(RateLimit):
    """No limit, but *hook* is called after each step; on the hub by who sends, on a thread by who receives."""

    def __init__(self, hook: Callable[[], object], step: int = CHUNK) -> None:
        super().__init__(math.inf)
        self.step = step
        self._hook = hook

    def pause(self, size: int) -> float:
        self._hook()
        return 0.0


class Gate(Hook):
    """A receiving thread stops here after each step, until it may go on."""

    def __init__(self, step: int = CHUNK) -> None:
        super().__init__(self._stop, step)
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def _stop(self) -> None:
        self.reached.set()
        assert self.go_on.wait(SECONDS)


class Clock:
    """Time that passes in pauses, and when a test says so."""

    def __init__(self) -> None:
        self.now = 5_000.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def read_all(sock: socket.socket) -> bytes:
    """All that comes until the connection ends."""
    received = bytearray()
    while data := sock.recv(1 << 20):
        received += data
    return bytes(received)


def before_each_digest(monkeypatch: pytest.MonkeyPatch, hook: Callable[[int, int], object]) -> None:
    """The *hook* is called before each stretch of a file is digested, with its offset and size."""
    real = Digest.update_from

    def update_from(digest: Digest, fd: int, offset: int, size: int) -> None:
        hook(offset, size)
        real(digest, fd, offset, size)

    monkeypatch.setattr(Digest, "update_from", update_from)


# --- the two ends -----------------------------------------------------------------------------


class Ends:
    """Both ends of a data connection: a channel, and a peer that spells out its bytes or is a channel as well."""

    def __init__(self) -> None:
        self.sock, self.peer = socket.socketpair()
        self.channel = Channel(self.sock)
        self.requester = Channel(self.peer)

    def close(self) -> None:
        self.channel.close()
        self.requester.close()

    def say(self, *parts: Record | bytes) -> None:
        """The peer says this."""
        self.peer.sendall(b"".join(part if isinstance(part, bytes) else encode(part) for part in parts))

    def hear(self) -> bytes:
        """All that the peer is told until the connection ends."""
        heard = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while data := self.peer.recv(1 << 20):
                heard += data
        return bytes(heard)

    def hear_exactly(self, size: int) -> bytes:
        """The next *size* bytes that the peer is told."""
        heard = bytearray()
        while len(heard) < size:
            data = self.peer.recv(size - len(heard))
            assert data, bytes(heard)
            heard += data
        return bytes(heard)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[SharedFile]:
    with contextlib.closing(Share(path.parent)) as share, share.open(path.name) as file:
        yield file


def serve_on(
    channel: Channel, path: Path, pool: ThreadPool, pull: Pull = PULL, moving: Moving | None = None
) -> GreenchatError | None:
    """What an owner does; what went wrong."""
    try:
        with opened(path) as file:
            channel.upload(file, pull, pool, moving or moving_of(file.size))
    except GreenchatError as error:
        channel.give_up(error)
        return error
    else:
        return None
    finally:
        channel.close()


def download(
    channel: Channel, partial: Partial, pool: ThreadPool, file: File | None = None, moving: Moving | None = None
) -> str:
    """What a requester does from the announcement of a *file* on, up to the owner's digest."""
    file = file or channel.expect(File, SECONDS)
    return channel.download(file.size - file.offset, partial, pool, moving or moving_of(file.size, moved=file.offset))
