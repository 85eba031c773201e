"""Fetching files: asking for one, reaching its owner one way or the other, and keeping what arrives whole."""

import contextlib
import enum
import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import gevent
from gevent.event import AsyncResult
from gevent.lock import BoundedSemaphore
from gevent.threadpool import ThreadPool

from greenchat.client.session import connect
from greenchat.errors import Code, ConnectError, GreenchatError, ProtocolError, ServerGone, TransferError
from greenchat.net import is_address
from greenchat.protocol.limits import (
    ANSWER_SECONDS,
    CONNECT_SECONDS,
    DIRECT_SECONDS,
    MAX_DOWNLOADS,
    MAX_PORT,
    MEET_SECONDS,
    MIN_PORT,
)
from greenchat.protocol.names import file_name
from greenchat.protocol.records import Fail, File, Get, Got, Pull, Record, Take
from greenchat.threads import call
from greenchat.transfer.channel import Channel
from greenchat.transfer.digest import ALGORITHM
from greenchat.transfer.partial import Partial, Published

__all__ = ["Downloads", "Received", "Route"]

_WRONG_ROUTE = frozenset({Code.INTERRUPTED, Code.STALLED, Code.BAD_TICKET})
"""What a route that leads to somebody else, or nowhere, may answer: the other one may still lead to the owner."""


class Route(enum.StrEnum):
    """How to reach the owner of a file."""

    AUTO = "auto"
    """Directly, or through the server's relay if that does not answer."""
    DIRECT = "direct"
    RELAY = "relay"


@dataclass(frozen=True, slots=True)
class Received:
    """A file that arrived whole."""

    owner: str
    path: Path
    size: int
    backup: Path | None
    """Where what had that name before is kept."""
    unchanged: bool
    """The same file was there already, and was left alone."""


class Downloads:
    """The requests of one client, `limits.MAX_DOWNLOADS` at a time; the rest wait in order."""

    def __init__(
        self, pool: ThreadPool, tell: Callable[[Record], None], *, server: tuple[str, int], route: Route
    ) -> None:
        self._pool = pool
        self._tell = tell
        self._server = server
        self._route = route
        self._ids = itertools.count()
        self._asked: dict[int, AsyncResult[Take | Fail]] = {}
        self._slots = BoundedSemaphore(MAX_DOWNLOADS)
        self._channels: set[Channel] = set()
        self._closed: ServerGone | None = None

    def fetch(self, owner: str, file: str, into: Path) -> Received:
        """Wait until *owner*'s *file* is in the directory *into*.

        The request leaves at once; the file moves when there is a slot for it. Raises `BadName`, `ConnectError`,
        `ProtocolError`, `ServerGone` or `TransferError`.
        """
        name = file_name(file)
        take = self._ask(owner, name)
        with self._slots:
            try:
                return self._fetch(take, owner, name, into)
            except TransferError as error:
                if error.code is not Code.BAD_TICKET:
                    raise
            # It waited for a slot so long that its ticket expired.
            return self._fetch(self._ask(owner, name), owner, name, into)

    def _fetch(self, take: Take, owner: str, name: str, into: Path) -> Received:
        channel, announced = self._reach(take)
        try:
            published = self._receive(channel, announced, into, name)
        finally:
            self._hang_up(channel)
        backup = into / published.backup if published.backup else None
        return Received(owner, into / name, announced.size, backup, published.unchanged)

    def answer(self, answer: Take | Fail) -> None:
        """The server's answer to a request."""
        if asked := self._asked.get(answer.id):
            asked.set(answer)

    def close(self) -> None:
        """End every request and every transfer; their greenlets are told, and so is whoever asks later."""
        self._closed = ServerGone(Code.SERVER_GONE, "the connection to the server was closed")
        for asked in self._asked.values():
            asked.set_exception(self._closed)
        for channel in self._channels:
            channel.abort()

    def _ask(self, owner: str, name: str) -> Take:
        self._check_open()
        number = next(self._ids)
        asked = self._asked[number] = AsyncResult()
        try:
            self._tell(Get(number, owner, name))
            with gevent.Timeout(2 * ANSWER_SECONDS, TransferError(Code.OWNER_SILENT)):  # the server answers within one
                answer = cast(Take | Fail, asked.get())
        finally:
            del self._asked[number]
        if isinstance(answer, Fail):
            raise TransferError(answer.code)
        return answer

    def _check_open(self) -> None:
        if self._closed is not None:
            raise self._closed

    def _reach(self, take: Take) -> tuple[Channel, File]:
        """A channel on which the file is about to come, by the first route that leads to the owner."""
        error: GreenchatError = TransferError(Code.UNREACHABLE)
        for open_channel in self._routes(take):
            try:
                return self._pull(open_channel, take.ticket)
            except (ConnectError, ProtocolError) as failure:
                error = failure
            except TransferError as failure:
                if failure.code not in _WRONG_ROUTE:
                    raise
                error = failure
        raise error

    def _routes(self, take: Take) -> Iterator[Callable[[], Channel]]:
        if self._route is not Route.RELAY:
            for host, port in take.direct:
                if MIN_PORT <= port <= MAX_PORT and is_address(host):
                    yield functools.partial(self._open, host, port, DIRECT_SECONDS)
        if self._route is not Route.DIRECT:
            yield functools.partial(self._open_relayed, take.key)

    def _open(self, host: str, port: int, seconds: float) -> Channel:
        channel = Channel(connect(host, port, seconds))
        self._channels.add(channel)
        return channel

    def _open_relayed(self, key: str) -> Channel:
        channel = self._open(*self._server, CONNECT_SECONDS)
        with self._hung_up_on_error(channel):
            channel.join_relay(key, 2 * MEET_SECONDS)  # the server gives the owner one
        return channel

    def _pull(self, open_channel: Callable[[], Channel], ticket: str) -> tuple[Channel, File]:
        self._check_open()
        channel = open_channel()
        with self._hung_up_on_error(channel):
            self._check_open()
            channel.send(Pull(ticket))
            announced = channel.expect(File, ANSWER_SECONDS)
            if announced.algorithm != ALGORITHM:
                raise ProtocolError(Code.BAD_VERSION)
        return channel, announced

    @contextlib.contextmanager
    def _hung_up_on_error(self, channel: Channel) -> Iterator[None]:
        """Until a channel is handed on, whoever opened it owns it, also when its greenlet is killed."""
        try:
            yield
        except BaseException:
            self._hang_up(channel)
            raise

    def _hang_up(self, channel: Channel) -> None:
        self._channels.discard(channel)
        channel.close()

    def _receive(self, channel: Channel, announced: File, into: Path, name: str) -> Published:
        with Partial(into, name) as partial:
            digest = channel.download(announced, partial.write)
            if digest != partial.digest():
                raise TransferError(Code.MISMATCH)
            published = call(self._pool, partial.publish)
        with contextlib.suppress(GreenchatError):  # we have the file, whether or not the owner hears of it
            channel.send(Got(digest))
        return published
