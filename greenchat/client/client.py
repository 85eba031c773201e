"""The chat client, to run or to embed."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import gevent
from gevent.threadpool import ThreadPool

from greenchat.client.downloads import Downloads, Received, Route
from greenchat.client.inbox import Inbox
from greenchat.client.session import Session
from greenchat.client.uploads import Served, Uploads
from greenchat.errors import Code, GreenchatError, ServerGone, known, sentence
from greenchat.net import LOOPBACK, is_loopback
from greenchat.protocol.limits import DIGEST_THREADS, DISK_THREADS, GOODBYE_SECONDS
from greenchat.protocol.records import Dial, Error, Fail, Record, Take, Want, encode
from greenchat.protocol.text import safe_line
from greenchat.protocol.wire import Event, Failure, Text, message_line
from greenchat.transfer.share import Share

__all__ = ["ChatClient", "Message"]


class Message(NamedTuple):
    """What somebody said."""

    sender: str
    text: str

    def __str__(self) -> str:
        return f"{self.sender}: {self.text}"


class ChatClient:
    """One user in a chat room, who may fetch files from the others and serves those in the directory *share*.

    *listen* is the port for file requests (0: any that is free), *into* where fetched files go, *route* how
    their owners are reached, and *on_served* is called after each file that somebody fetched from here.
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
        listen: int = 0,
        share: Path | str = ".",
        into: Path | str = ".",
        route: Route = Route.AUTO,
        on_served: Callable[[Served], object] | None = None,
    ) -> None:
        self.name = name
        self.listen = listen
        self._server = (host, port)
        self._share_directory = Path(share)
        self._into = Path(into)
        self._on_served = on_served or (lambda _served: None)
        self._inbox = Inbox()
        # Digests come in small pieces, and must not wait until a large file is on the disk.
        self._disk, self._digests = ThreadPool(DISK_THREADS), ThreadPool(DIGEST_THREADS)
        self._downloads = Downloads(self._disk, self._tell, server=self._server, route=route)
        self._closing = False
        self._receiver: gevent.Greenlet[..., None] | None = None

    def start(self) -> None:
        """Connect, listen for file requests, and join the room under the name.

        Raises `ConnectError`, `ListenError`, `Refused`, or `TransferError` if the share cannot be opened.
        """
        with contextlib.ExitStack() as undo:
            share = Share(self._share_directory)
            undo.callback(share.close)
            self._session = Session(*self._server)
            undo.callback(self._session.close)
            self._uploads = Uploads(share, self._digests, self._tell, self._on_served, server=self._server)
            undo.callback(self._uploads.close)
            # Where the server sees us, and nowhere else.
            here = self._session.local_host
            self.listen = self._uploads.listen(LOOPBACK if is_loopback(here) else (here,), self.listen)
            self.name = self._session.hello(self.name, self.listen)
            self._resources = undo.pop_all()
        self._receiver = gevent.spawn(self._receive)

    def send(self, text: str) -> None:
        """Say *text*, one line, to everyone else. Raises `ProtocolError` if it is too long, or `ServerGone`."""
        self._session.send(message_line(text))

    def messages(self) -> Iterator[Message]:
        """What the others say, as it comes, until `close`. Raises `ServerGone` when the connection is lost.

        Unread messages wait, up to `limits.MAX_INBOX` bytes; what comes past that is counted in `missed`.
        """
        for line in self._inbox.lines():
            sender, _, text = line.partition(": ")
            yield Message(sender, text)

    @property
    def missed(self) -> int:
        """Messages dropped because nobody read them in time."""
        return self._inbox.missed

    def fetch(self, owner: str, file: str, into: Path | str | None = None) -> Received:
        """Wait until *owner*'s *file* is here, whole and under its name, in *into* or where the client was told.

        Any number of greenlets may do so at once. Raises `BadName`, `TransferError`, `ProtocolError` or `ServerGone`.
        """
        return self._downloads.fetch(owner, file, self._into if into is None else Path(into))

    def close(self) -> None:
        """Let what was sent arrive, end all transfers, and leave."""
        if self._closing or self._receiver is None:
            return
        self._closing = True
        self._inbox.close()
        self._downloads.close()
        self._session.finish()
        self._receiver.join(timeout=GOODBYE_SECONDS)
        self._receiver.kill()
        self._resources.close()
        self._disk.kill()
        self._digests.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tell(self, record: Record) -> None:
        self._session.send(encode(record))

    def _receive(self) -> None:
        gone: GreenchatError = ServerGone(Code.INTERRUPTED, "the server is gone: the connection was lost")
        try:
            for event in self._session.events():
                if not self._closing:
                    self._handle(event)
        except ServerGone as error:
            gone = error
        except GreenchatError as error:
            gone = ServerGone(error.code, f"the server broke the protocol: {error}")
        self._inbox.close(gone)
        self._downloads.close()

    def _handle(self, event: Event) -> None:
        match event:
            case Text(block):
                self._inbox.put(block)
            case Take() | Fail():
                self._downloads.answer(event)
            case Want():
                self._uploads.offer(event)
            case Dial():
                self._uploads.dial(event)
            case Error(code, text):
                raise ServerGone(code, f"the server closed the connection: {_reason(code, text)}")
            case Failure(code, text):
                raise ServerGone(code, f"the server broke the protocol: {text}")


def _reason(code: str, text: str) -> str:
    """Our own words for a code that we know, the server's for another."""
    return safe_line(text) if known(code) is Code.FAILED else sentence(code)
