"""The connection to the server, made again when it is lost."""

import contextlib
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import gevent
from gevent.event import Event as Flag

from greenchat.client.resume import ResumeState
from greenchat.client.servers import Servers
from greenchat.client.session import Session
from greenchat.errors import Code, ConnectError, GreenchatError, ServerGone, TransferError, known, sentence
from greenchat.protocol.codec import encode
from greenchat.protocol.limits import AWAY_SECONDS, GOODBYE_SECONDS, MAX_LINE, RECONNECT_DELAYS, RECONNECT_JITTER
from greenchat.protocol.records import Ack, Error, Hello, Ping, Pong, Record
from greenchat.protocol.text import safe_line
from greenchat.protocol.wire import Event, Failure, Text

if TYPE_CHECKING:
    from greenchat.security.keys import Identity

__all__ = ["Connection"]

_PASSING: Final = frozenset(
    {
        Code.BAD_TLS,  # a server that is full says no in plain words
        Code.FAILED,
        Code.HELLO_LATE,
        Code.NAME_ALIKE,
        Code.NAME_TAKEN,
        Code.SERVER_FULL,
        Code.SERVER_GONE,
        Code.SHUTDOWN,
        Code.SLOW_CONSUMER,
        Code.TOO_MANY_FAILURES,
        Code.UNAVAILABLE,
        Code.UNREACHABLE,
    }
)
"""What may be better the next time."""


class Connection:
    """Hands events to *handle* until it ends for good.

    If a session with one of the *servers* is lost, and this *returns*, *on_lost* is told why, and again why it can't
    return yet; and *on_back* when there is another: how many lines of others were lost for good, or None if nobody
    knows.
    """

    def __init__(
        self,
        servers: Servers,
        handle: Callable[[Event], object],
        *,
        returns: bool,
        on_lost: Callable[[ServerGone], object],
        on_back: Callable[[int | None], object],
    ) -> None:
        self._servers = servers
        self._handle = handle
        self._resume = ResumeState() if returns else None
        self._on_lost = on_lost
        self._on_back = on_back
        self._here = Flag()
        self._leaving = Flag()
        self._session: Session | None = None
        self._writer: gevent.Greenlet[..., None] | None = None
        self._over: ServerGone | None = ServerGone(Code.SERVER_GONE, "not connected: start the client first")
        """Why nothing can be said, also not later."""
        self._longest = MAX_LINE
        """Bytes of the longest record that the server reads."""

    def open(self) -> str:
        """Connect; the address that this machine has there. Raises `ConnectError` or `SecurityError`."""
        self._session = self._servers.reach()
        return self._session.local_host

    def enter(self, hello: Hello, identity: "Identity | None") -> str:
        """Be let in; the name as the server has it. Raises `ConnectError`, `Refused` or `SecurityError`."""
        assert self._session
        self._hello, self._identity = hello, identity
        for left in reversed(range(self._servers.count)):
            try:
                name, _ = self._begin(self._session)
                break
            except GreenchatError as error:
                self._lose()
                if not left or error.code not in _PASSING - {
                    Code.NAME_TAKEN,
                    Code.NAME_ALIKE,
                }:  # that it is at the others, too
                    raise
                self._session = self._servers.reach()
        self._over = None
        return name

    def run(self) -> ServerGone:
        """Hand on what the server says, until the end; why that came."""
        self._over = gone = self._run()
        if self._resume:
            self._resume.give_up()
        return gone

    def _run(self) -> ServerGone:
        gone = ServerGone(Code.SERVER_GONE, "the connection to the server was closed")
        while self._session:  # also if it is to leave already: the server says when it has
            gone = self._receive()
            self._lose()
            if self._resume is None or gone.code not in _PASSING or self._leaving.is_set():
                break
            self._on_lost(gone)
            if failure := self._come_back(gone.code):
                return failure
            if self._leaving.is_set():
                break
        return gone

    def say(self, line: bytes, *, wait: bool) -> None:
        """Have *line* said, now or when there is a connection again.

        Raises `ServerGone`, or `ProtocolError` if much waits already and this is not to *wait*.
        """
        if self._resume and not self._over:
            self._resume.say(line, wait=wait)
        if self._over:
            raise self._over
        if not self._resume:
            self._send(line)

    def tell(self, record: Record) -> None:
        """Send *record*. Raises `ServerGone`, or `TransferError` if the connection is not made again in time."""
        if self._resume and not self._over:
            with gevent.Timeout(AWAY_SECONDS, TransferError(Code.INTERRUPTED)):
                self._here.wait()
        self._send(encode(record, self._longest))

    @property
    def unacknowledged(self) -> int:
        """Lines that were said, and not acknowledged yet."""
        return self._resume.unacknowledged if self._resume else 0

    def finish(self) -> None:
        """Say nothing more; what was said arrives, and then the server ends the connection."""
        if self._resume and self._here.is_set():
            self._resume.wait_until_acknowledged(GOODBYE_SECONDS)
            self._say_goodbye()
        self._leaving.set()
        if self._session:
            self._session.finish()

    def _say_goodbye(self) -> None:
        """Tell the server that nobody needs to wait for this client, if it takes that at once."""
        with contextlib.suppress(ServerGone), gevent.Timeout(GOODBYE_SECONDS, False):  # type: ignore[arg-type]  # noqa: FBT003 - gevent: silent
            if not self.unacknowledged:
                self._send(encode(Ping(leaving=1)))

    def close(self) -> None:
        """End it at once."""
        self._leaving.set()
        self._lose()

    def _begin(self, session: Session) -> tuple[str, int | None]:
        hello = self._resume.fill(self._hello) if self._resume else self._hello
        welcome = session.hello(hello, self._identity)
        self._longest = welcome.record or MAX_LINE
        lost = None
        if not welcome.epoch and self._resume:
            if self._resume.entered:
                raise ConnectError(Code.BAD_VERSION, "the server there knows of no sessions")
            self._resume = None  # there is no coming back to this one
        if self._resume:
            lost = self._resume.enter(welcome)
            session.heartbeat = True
            self._writer = gevent.spawn(self._write, session, self._resume)
        self._here.set()
        return welcome.name, lost

    def _write(self, session: Session, resume: ResumeState) -> None:
        try:
            while True:
                session.send(resume.take())
        except ServerGone:  # who receives finds out as well
            pass

    def _receive(self) -> ServerGone:
        assert self._session
        try:
            for event in self._session.events():
                self._take(event)
        except ServerGone as gone:
            return gone
        except GreenchatError as error:
            return ServerGone(error.code, f"the server broke the protocol: {error}")
        return ServerGone(Code.SERVER_GONE, "the server is gone: the connection was lost")

    def _take(self, event: Event) -> None:
        match event:
            case Text(block) if self._resume:
                self._resume.hear(block.count(b"\n"))
            case Ack() if self._resume:
                self._resume.acknowledge(event)
                return
            case Pong():
                return
            case Error(code, text):
                raise ServerGone(code, f"the server closed the connection: {_reason(code, text)}")
            case Failure(code, text):
                raise ServerGone(code, f"the server broke the protocol: {text}")
        self._handle(event)

    def _come_back(self, told: Code) -> ServerGone | None:
        """Try until it works, or cannot any more; what it is that cannot. The user has been *told* of one reason."""
        for delay in itertools.chain(RECONNECT_DELAYS, itertools.repeat(RECONNECT_DELAYS[-1])):
            from random import uniform  # only who comes back needs it

            about = uniform(1 - RECONNECT_JITTER, 1 + RECONNECT_JITTER)  # noqa: S311 - no secret
            if self._leaving.wait(delay * about):
                break
            try:
                self._session = self._servers.reach()
                _, lost = self._begin(self._session)
            except GreenchatError as error:
                self._lose()
                if error.code not in _PASSING:
                    return ServerGone(error.code, f"the server is gone, and there is no coming back: {error}")
                if error.code not in (told, Code.UNREACHABLE):
                    told = error.code
                    self._on_lost(ServerGone(error.code, f"not back yet: {error}"))
            else:
                self._on_back(lost)
                break
        return None

    def _lose(self) -> None:
        self._here.clear()
        if self._writer:
            self._writer.kill()
        if self._session:
            self._session.close()
            self._session = None

    def _send(self, line: bytes) -> None:
        if self._session is None:
            raise self._over or ServerGone(Code.SERVER_GONE, "the server is gone")
        self._session.send(line)


def _reason(code: str, text: str) -> str:
    """Our own words for a code that we know, the server's for another."""
    return safe_line(text) if known(code) is Code.FAILED else sentence(code)
