"""The chat client, to run or to embed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

import gevent
from gevent.event import AsyncResult
from gevent.event import Event as Happened
from gevent.lock import BoundedSemaphore

from greenchat.addresses import LOOPBACK, is_loopback
from greenchat.client.connection import Connection
from greenchat.client.consent import Accept, Consent, Question
from greenchat.client.downloads import Downloads, Received
from greenchat.client.inbox import Inbox
from greenchat.client.peers import Peers
from greenchat.client.routes import Route, Routes
from greenchat.client.servers import Servers
from greenchat.client.uploads import Served, Uploads
from greenchat.errors import Code, GreenchatError, ServerGone, TransferError, known, sentence
from greenchat.protocol.limits import (
    ANSWER_SECONDS,
    DOWNLOADS,
    GOODBYE_SECONDS,
    MAX_DOWNLOADS,
    MAX_RECORD,
    MAX_ROOMS,
    MIN_RATE,
)
from greenchat.protocol.names import user_name
from greenchat.protocol.records import Dial, Fail, Hello, List, Note, Private, Record, Rooms, Take, Undelivered, Want
from greenchat.protocol.text import safe_line
from greenchat.protocol.wire import VERSION, Event, Text, message_line
from greenchat.security.proof import text_of
from greenchat.threads import end, on_files
from greenchat.transfer.destination import Destination
from greenchat.transfer.moving import Traffic
from greenchat.transfer.share import Share

if TYPE_CHECKING:  # only a client that encrypts needs these
    from greenchat.client.trust import Trust
    from greenchat.security.keys import Identity
    from greenchat.security.known import Known

__all__ = ["ChatClient", "Message"]


def _ignore(*_told: object) -> None:
    pass


class Message(NamedTuple):
    """What somebody said."""

    sender: str
    text: str

    def __str__(self) -> str:
        return f"{self.sender}: {self.text}"


class ChatClient:
    """One user in a chat room, who may fetch files from the others and serves those in the directory *share*.

    *listen* is the port for file requests (0: any that is free), *into* where fetched files go, *route* how
    their owners are reached, *parallel* how many files are fetched at once (up to `limits.MAX_DOWNLOADS`; the rest
    wait), and *limit_rate* how many bytes a second all together may be received, and as many sent (from
    `limits.MIN_RATE`; None: any number). *on_served* is called after each file that somebody fetched from here. Whom to
    *accept* as a requester is by default everybody, or with an *identity* who is known; about others *on_asked* is
    called with the question, and `answer` takes the answer.
    With *trust* the connection to the server is encrypted, and has to be to the right one; with an *identity*, too, the
    name belongs to its key, and an *invite* lets a new one in; other users' keys are remembered in *known_peers*.
    *others* are hosts and ports of servers that are the same chat, to be tried in turn.
    Without trust the server has to be on this machine, unless *insecure* says that anybody on the way may read and
    change what is said; files are not exchanged then.
    It enters a *room*, the lobby if none is named, and hears the last *history* lines that were said there.
    If it is to *reconnect*, it comes back to a server that is gone, hears what it missed, and says again what was not
    acknowledged: *on_lost* is called with the reason, and *on_back* with how many messages were lost for good, or None
    if the room has begun anew and nobody knows.
    *on_private* is called with what somebody says to this user alone, *on_undelivered* if what this one said so came to
    nothing; *on_note* with the code of what the server has to tell, such as that messages wait there.
    A context manager connects and closes:

        with ChatClient("ann", port=6001) as ann:
            ann.send("hello")
            picture = ann.fetch("bob", "picture.jpg")
            for message in ann.messages():
                print(message)
    """

    def __init__(  # noqa: PLR0913 - each is one option of the program
        self,
        name: str,
        port: int,
        *,
        host: str = "127.0.0.1",
        others: Sequence[tuple[str, int]] = (),
        listen: int = 0,
        share: Path | str = ".",
        into: Path | str = ".",
        route: Route = Route.AUTO,
        parallel: int = DOWNLOADS,
        limit_rate: int | None = None,
        trust: Trust | None = None,
        identity: Identity | None = None,
        invite: str = "",
        known_peers: Known | None = None,
        insecure: bool = False,
        accept: Accept | None = None,
        on_served: Callable[[Served], object] = _ignore,
        on_asked: Callable[[Question], object] = _ignore,
        room: str = "",
        history: int = 0,
        reconnect: bool = False,
        on_lost: Callable[[ServerGone], object] = _ignore,
        on_back: Callable[[int | None], object] = _ignore,
        on_private: Callable[[Message], object] = _ignore,
        on_undelivered: Callable[[GreenchatError], object] = _ignore,
        on_note: Callable[[Code], object] = _ignore,
    ) -> None:
        if not 1 <= parallel <= MAX_DOWNLOADS:
            raise ValueError(f"from 1 to {MAX_DOWNLOADS} files can be fetched at once")
        if limit_rate is not None and limit_rate < MIN_RATE:
            raise ValueError(f"the rate can be limited to {MIN_RATE} bytes a second or more")
        self.name = name
        self.listen = listen
        self.moving = Traffic(limit_rate)
        """What is being fetched and served at this moment, oldest first."""
        self._servers = Servers([(host, port), *others], trust, insecure=insecure)
        self._identity = identity
        self._invite = invite
        self._share_directory = Path(share)
        self._into = Path(into)
        self._accept = accept
        self._on_served = on_served
        self._on_asked = on_asked
        self._room = room
        self._history = history
        self._on_lost = on_lost
        self._on_back = on_back
        self._on_private = on_private
        self._on_undelivered = on_undelivered
        self._on_note = on_note
        self._noted = Code.KEPT_AGAIN
        self._peers = Peers(known_peers, self._servers.first)
        self._inbox = Inbox()
        routes = Routes(self._servers, Route(route), identity)
        self._downloads = Downloads(self._tell, routes, self._peers, self.moving, slots=parallel)
        self._connection = Connection(
            self._servers, self._handle, returns=reconnect, on_lost=self._lose, on_back=self._resume
        )
        self._listing, self._list_is_whole = BoundedSemaphore(), Happened()
        self._listed: list[tuple[str, int]] = []
        self._started = False
        self._receiver: gevent.Greenlet[..., None] | None = None
        self._resources = contextlib.ExitStack()
        self._closing = False
        self._ended: AsyncResult[None] = AsyncResult()

    def start(self) -> None:
        """Connect, listen for file requests, and join the room under the name.

        Raises `BadName`, `ConnectError`, `ListenError`, `ProtocolError`, `Refused`, `SecurityError`, `ServerGone`, or
        `TransferError` if the share cannot be opened; and `RuntimeError` the second time, because a client starts once.
        """
        if self._started or self._closing:
            raise RuntimeError("a client starts once: make another")
        self._started = True
        self.name = user_name(self.name)
        with contextlib.ExitStack() as undo:
            share = on_files(self._share_directory, Share, self._share_directory)
            undo.callback(share.close)
            self._destination = on_files(self._into, Destination, self._into)
            undo.callback(self._destination.close)
            undo.callback(self._connection.close)
            here = self._connection.open()
            self._uploads = self._serve(share, here)
            undo.callback(self._uploads.close)
            # Where the server sees us, and nowhere else.
            self.listen = self._uploads.listen(LOOPBACK if is_loopback(here) else (here,), self.listen)
            self.name = self._connection.enter(self._hello(), self._identity)
            self._receiver = gevent.spawn(self._receive)
            undo.callback(self._receiver.kill)
            self._resources = undo.pop_all()

    def _hello(self) -> Hello:
        certificate = text_of(self._identity.certificate) if self._identity else ""
        return Hello(
            VERSION, self.name, self.listen, certificate, self._invite, self._room, self._history, record=MAX_RECORD
        )

    def _serve(self, share: Share, here: str) -> Uploads:
        """By default to all who are on this machine, because all are, on a server that does not encrypt."""
        accept = self._accept or (Accept.KNOWN if self._identity else Accept.ALL)
        if self._identity is None and not is_loopback(here):
            accept = Accept.NONE  # because nothing would be encrypted
        self._consent = Consent(accept, self._peers, self._on_asked)
        return Uploads(
            share, self._tell, self._on_served, self.moving,
            consent=self._consent, servers=self._servers, identity=self._identity,
        )  # fmt: skip

    def send(self, text: str, *, wait: bool = True) -> None:
        """Say *text*, one line, to everyone else, now or when there is a connection again.

        When `limits.MAX_UNACKNOWLEDGED` messages wait for that, this waits, too, or else raises `ProtocolError`, as for
        what is too long. Raises `ServerGone`.
        """
        self._connection.say(message_line(text), wait=wait)

    def send_private(self, who: str, text: str) -> None:
        """Say *text* to the user *who* alone, in whatever room; if that can't be, *on_undelivered* is called.

        Raises `ProtocolError` if it is too long, `ServerGone`, or `TransferError` if there is no connection for long.
        """
        self._connection.tell(Private(who, message_line(text).decode().removesuffix("\n")))

    def rooms(self) -> list[tuple[str, int]]:
        """The server's rooms that somebody is in, by name, and how many are.

        Raises `ServerGone`, or `TransferError` if there is no answer.
        """
        with self._listing:
            self._listed = []
            self._list_is_whole.clear()
            self._connection.tell(List())
            with gevent.Timeout(ANSWER_SECONDS, TransferError(Code.INTERRUPTED)):
                self._list_is_whole.wait()
            return self._listed

    @property
    def server(self) -> tuple[str, int]:
        """Host and port of the server that it is connected to, or was last."""
        return self._servers.address

    @property
    def unacknowledged(self) -> int:
        """Messages that were sent and not acknowledged yet."""
        return self._connection.unacknowledged

    def messages(self) -> Iterator[Message]:
        """What the others say, as it comes, until `close`. Raises `ServerGone` when the connection is lost.

        However often it is called, each message comes once. Unread ones wait, up to `limits.MAX_INBOX` bytes; what
        comes past that is counted in `missed`.
        """
        for line in self._inbox:
            sender, _, text = line.partition(": ")
            yield Message(sender, text)

    def wait(self) -> None:
        """Wait until `close` has been called. Raises `ServerGone` as soon as the connection is lost."""
        self._ended.get()

    @property
    def missed(self) -> int:
        """Messages dropped because nobody read them in time."""
        return self._inbox.missed

    def fetch(self, owner: str, file: str, into: Path | str | None = None) -> Received:
        """Wait until *owner*'s *file* is here, whole and under its name, in *into* or where the client was told.

        Any number of greenlets may do so at once. Raises `BadName`, `ConnectError`, `ProtocolError`, `SecurityError`,
        `ServerGone` or `TransferError`.
        """
        if not self._receiver:
            raise _not_connected()
        if into is None:
            return self._downloads.fetch(owner, file, self._destination)
        with contextlib.closing(on_files(into, Destination, Path(into))) as destination:
            return self._downloads.fetch(owner, file, destination)

    def answer(self, number: int, *, yes: bool) -> Question | None:
        """Answer the question with this *number*, for which *on_asked* was called, or change the answer.

        Return the question, or None if there is none. Raises `ServerGone` before `start`.
        """
        if not self._receiver:
            raise _not_connected()
        return self._consent.answer(number, yes=yes)

    @property
    def questions(self) -> list[tuple[Question, bool | None]]:
        """What `answer` can be given for, oldest first, each with the answer so far, or None."""
        return self._consent.questions if self._receiver else []

    def close(self) -> None:
        """Let what was sent arrive, end all transfers, and leave. May be called again, and before `start`.

        What has come of unfinished files stays, hidden, to be resumed.
        """
        self._closing = True
        self._inbox.close()
        self.moving.close()
        self._downloads.close()
        with self._resources:  # they end also if this greenlet is killed while it waits
            if self._receiver is not None:
                self._connection.finish()
                self._ended.wait(GOODBYE_SECONDS)
        end(self._downloads.pool)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tell(self, record: Record) -> None:
        self._connection.tell(record)

    def _lose(self, gone: ServerGone) -> None:
        self._downloads.interrupt()
        self._on_lost(gone)

    def _resume(self, lost: int | None) -> None:
        self._downloads.resume()
        self._on_back(lost)

    def _receive(self) -> None:
        gone = self._connection.run()
        self._inbox.close(gone)
        self._downloads.close()
        if self._closing:
            self._ended.set(None)
        else:
            self._ended.set_exception(gone)

    def _handle(self, event: Event) -> None:
        match event:
            case _ if self._closing:
                pass
            case Text(block):
                self._inbox.put(block)
            case Take() | Fail():
                self._downloads.answer(event)
            case Want():
                self._uploads.offer(event)
            case Dial():
                self._uploads.dial(event)
            case Rooms(rooms, more):
                self._listed += rooms[: max(0, MAX_ROOMS - len(self._listed))]
                if not more:
                    self._list_is_whole.set()
            case _:
                self._hear(event)

    def _hear(self, event: Event) -> None:
        match event:
            case Private(who, text):
                self._on_private(Message(safe_line(who), safe_line(text)))
            case Undelivered(who, code, _):
                self._on_undelivered(TransferError(code, f"{safe_line(who)} was not told: {sentence(code)}"))
            case Note(code, _) if known(code) is not self._noted:  # one may be repeated, as a sign of life
                self._noted = known(code)
                self._on_note(self._noted)


def _not_connected() -> ServerGone:
    return ServerGone(Code.SERVER_GONE, "not connected: start the client first")
