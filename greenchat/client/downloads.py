"""Fetching files: asking for one, keeping what arrives, and trying again until it is whole."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, ParamSpec, TypeVar, cast

import gevent
from gevent.event import AsyncResult, Event
from gevent.lock import BoundedSemaphore
from gevent.threadpool import ThreadPool

from greenchat.client.peers import Peers
from greenchat.client.routes import Routes
from greenchat.errors import Code, ConnectError, GreenchatError, ProtocolError, ServerGone, TransferError
from greenchat.protocol.limits import (
    ANSWER_SECONDS,
    ASKED_AHEAD,
    AWAY_SECONDS,
    CONSENT_SECONDS,
    CONSENT_STEP,
    DISK_SECONDS,
    MAX_HUNG,
    RETRY_DELAYS,
    SLOWEST_DISK,
    SLOWEST_STEP,
    TICKET_SECONDS,
)
from greenchat.protocol.names import file_name, name_key
from greenchat.protocol.records import Fail, File, Get, Got, Pull, Record, Take
from greenchat.security.proof import certificate_of
from greenchat.threads import call_within, disk_hangs
from greenchat.transfer.moving import Moving, Traffic

if TYPE_CHECKING:  # what moves files is imported when the first one does
    from greenchat.transfer.channel import Channel
    from greenchat.transfer.destination import Destination
    from greenchat.transfer.partial import Partial
    from greenchat.transfer.publish import Published

__all__ = ["Downloads", "Received"]

P = ParamSpec("P")
T = TypeVar("T")

_PASSING: Final = frozenset(
    {
        Code.INTERRUPTED,
        Code.STALLED,
        Code.UNREACHABLE,
        Code.BAD_TICKET,
        Code.OWNER_SILENT,
        Code.RELAY_BUSY,
        Code.TOO_MANY,
        Code.UNAVAILABLE,
    }
)
"""What may be better the next time."""

_AWAY: Final = frozenset({Code.UNKNOWN_OWNER, Code.OWNER_LEFT, Code.SHUTDOWN})
"""Answers of a server where the owner is not, or not yet."""


class Received(NamedTuple):
    """A file that arrived whole."""

    owner: str
    path: Path
    size: int
    backup: Path | None
    """Where what had that name before is kept."""
    unchanged: bool
    """The same file was there already, and was left alone."""
    resumed: int = 0
    """Bytes that had come before the connection was lost for the last time, and were not sent again."""


class Downloads:
    """The requests of one client, *slots* at a time; the rest wait in order."""

    def __init__(
        self,
        tell: Callable[[Record], None],
        routes: Routes,
        peers: Peers,
        traffic: Traffic,
        *,
        slots: int,
    ) -> None:
        self._tell = tell
        self._routes = routes
        self._peers = peers
        self._traffic = traffic
        self.pool = ThreadPool(slots + MAX_HUNG)
        """A thread for each file that moves, which receives, digests, writes and publishes it, and some that hang."""
        self._slots = BoundedSemaphore(slots)
        self._ahead = BoundedSemaphore(ASKED_AHEAD)  # the server forgets the oldest ticket of who has too many
        self._ids = itertools.count()
        self._asked: dict[int, AsyncResult[Take | Fail]] = {}
        self._fetching: dict[object, AsyncResult[Received]] = {}
        self._returned = -math.inf
        """When this client came back to a server; the owner may be on its way, too."""
        self._closed: ServerGone | None = None
        self._closing = Event()

    def fetch(self, owner: str, file: str, into: Destination) -> Received:
        """Wait until *owner*'s *file* is in the directory *into*; who asks for what is coming already waits for that.

        The request leaves when it is among the next; the file moves when there is a slot for it. Raises `BadName`,
        `ConnectError`, `ProtocolError`, `SecurityError`, `ServerGone` or `TransferError`.
        """
        name = file_name(file)
        key = (name_key(owner), name, into.identity)
        while (coming := self._fetching.get(key)) is not None:
            with contextlib.suppress(_Abandoned):
                return cast(Received, coming.get())
        coming = self._fetching[key] = AsyncResult()
        try:
            coming.set(self._fetch(owner, name, into))
        except GreenchatError as error:
            coming.set_exception(error)
        finally:
            del self._fetching[key]
            if not coming.ready():
                coming.set_exception(_Abandoned(Code.INTERRUPTED))  # killed: another who waits takes over
        return cast(Received, coming.get())

    def answer(self, answer: Take | Fail) -> None:
        """The server's answer to a request."""
        if asked := self._asked.get(answer.id):
            asked.set(answer)

    def interrupt(self) -> None:
        """The server is gone for now: what it was asked has to be asked again."""
        for asked in self._asked.values():
            asked.set_exception(TransferError(Code.INTERRUPTED))

    def resume(self) -> None:
        """Wait from now on for owners that are not at the server again yet."""
        self._returned = time.monotonic()

    def close(self) -> None:
        """End every request and every transfer with an error, for later ones too, and keep what has come."""
        self._closed = self._closed or ServerGone(Code.SERVER_GONE, "the connection to the server was closed")
        for asked in self._asked.values():
            asked.set_exception(self._closed)
        self._routes.close()
        self._closing.set()

    def _fetch(self, owner: str, name: str, into: Destination) -> Received:
        asked, take = self._turn(owner, name)
        try:
            partial = self._on_disk(0, into.partial, name_key(owner), name)
            try:
                self._on_disk(0, into.tidy)  # while this one is locked
                fresh = time.monotonic() - asked < TICKET_SECONDS / 2  # it may have waited long for a slot
                return self._retry(owner, partial, take if fresh else None, into)
            finally:
                self._close(partial)
        finally:
            self._slots.release()

    def _turn(self, owner: str, name: str) -> tuple[float, Take | None]:
        """Wait until the owner is here and agrees, and for a slot; when it was asked last, and what it granted."""
        since = time.monotonic()
        while True:
            asked = time.monotonic()
            try:
                with self._ahead:
                    take = self._ask_once(owner, name)
                    self._slots.acquire()
            except TransferError as error:
                undecided = error.code is Code.ASKED and asked < since + CONSENT_SECONDS
                if not undecided and not self._is_expected(error.code, since):
                    raise
            else:
                return asked, take
            self._closing.wait(CONSENT_STEP)

    def _is_expected(self, code: Code, since: float) -> bool:
        """Return True if an owner may come back for whom a request has waited *since* then, and got *code*.

        The server knows who was there a moment ago, unless the client has lost it meanwhile.
        """
        now = time.monotonic()
        known = code is not Code.UNKNOWN_OWNER or now < self._returned + AWAY_SECONDS
        return code in _AWAY and known and now < since + AWAY_SECONDS

    def _ask_once(self, owner: str, name: str) -> Take | None:
        """None if it may help to ask again."""
        try:
            return self._ask(owner, name)
        except TransferError as error:
            if error.code not in _PASSING:
                raise
            return None

    def _retry(self, owner: str, partial: Partial, take: Take | None, into: Destination) -> Received:
        """As often as it may help, by another route first each time."""
        delays, lost = iter(RETRY_DELAYS), False
        away: float | None = None
        for turn in itertools.count():
            had = partial.size
            try:
                return self._attempt(owner, partial, take or self._ask(owner, partial.name), turn, into)
            except (ConnectError, ProtocolError, TransferError) as error:
                self._check_open()
                if partial.size >= had + SLOWEST_STEP:
                    delays, lost = iter(RETRY_DELAYS), True
                delay: float | None = None
                if self._is_expected(error.code, away or time.monotonic()):
                    away, delay = away or time.monotonic(), CONSENT_STEP
                elif error.code in _PASSING or (lost and not away and error.code in _AWAY):
                    away, delay = None, next(delays, None)
                if delay is None and lost and error.code in _AWAY:
                    raise TransferError(Code.INTERRUPTED) from None
                if delay is None:
                    raise
            take = None
            self._closing.wait(delay)
        raise AssertionError  # it counts for ever

    def _attempt(self, owner: str, partial: Partial, take: Take, turn: int, into: Destination) -> Received:
        certificate = certificate_of(take.certificate) if take.certificate else b""
        self._peers.knows(owner, certificate)
        from greenchat.transfer.digest import choose

        algorithm = choose(take.algorithms)
        prefix = self._on_disk(partial.size, partial.begin, algorithm)
        pull = Pull(take.ticket, algorithm, partial.size, prefix if partial.size else "")
        with self._routes.reach(take, pull, turn) as (channel, file):
            self._peers.remember(owner, certificate)
            if file.offset not in (0, partial.size) or file.offset > file.size:
                raise ProtocolError(Code.UNEXPECTED)
            published = self._receive(channel, file, partial, owner)
        backup = into.path / published.backup if published.backup else None
        return Received(owner, into.path / partial.name, file.size, backup, published.unchanged, file.offset)

    def _receive(self, channel: Channel, file: File, partial: Partial, owner: str) -> Published:
        if file.offset != partial.size:
            self._on_disk(0, partial.restart)
        missing = file.size - file.offset
        self._on_disk(0, partial.check_room, missing)
        moving = Moving(partial.name, owner, sending=False, size=file.size, moved=file.offset, resumed=file.offset)
        with self._traffic.carry(moving):
            digest = channel.download(missing, partial, self.pool, moving)
        if digest != partial.digest():
            partial.resumable = False
            raise TransferError(Code.MISMATCH)
        published = self._on_disk(file.size, partial.publish)
        with contextlib.suppress(GreenchatError):  # we have the file, whether or not the owner hears of it
            channel.send(Got(digest))
        return published

    def _on_disk(self, size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what *work* returns on a thread, which reads or writes *size* bytes. Raises `TransferError`, too."""
        seconds = DISK_SECONDS + size / SLOWEST_DISK
        return call_within(seconds, disk_hangs(), self.pool, work, *args, **kwargs)

    def _close(self, partial: Partial) -> None:
        with contextlib.suppress(TransferError):  # the thread that hangs with it closes it, should it ever go on
            self._on_disk(0, partial.close)

    def _ask(self, owner: str, name: str) -> Take:
        self._check_open()
        number = next(self._ids)
        asked = self._asked[number] = AsyncResult()
        try:
            self._send(Get(number, owner, name))
            with gevent.Timeout(2 * ANSWER_SECONDS, TransferError(Code.OWNER_SILENT)):  # the server answers within one
                answer = cast(Take | Fail, asked.get())
        finally:
            del self._asked[number]
        if isinstance(answer, Fail):
            raise TransferError(answer.code)
        return answer

    def _send(self, get: Get) -> None:
        """Send *get*, or raise `TransferError` if the connection breaks meanwhile: nobody has heard of it then."""
        try:
            self._tell(get)
        except ServerGone:
            self._check_open()
            raise TransferError(Code.INTERRUPTED) from None

    def _check_open(self) -> None:
        if self._closed is not None:
            raise self._closed


class _Abandoned(TransferError):
    """Whoever fetched the file has been killed."""
