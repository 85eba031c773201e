"""Serving files: who may fetch what, over the client's own listener or through the server's relay."""

import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gevent import socket
from gevent.pool import Group
from gevent.threadpool import ThreadPool

from greenchat.client.session import connect
from greenchat.errors import Code, GreenchatError, TransferError, sentence
from greenchat.net import Listener, listen
from greenchat.protocol.limits import HELLO_SECONDS, MAX_OFFERS, MAX_UPLOADS, MEET_SECONDS, TICKET_SECONDS
from greenchat.protocol.records import Dial, Go, Have, Pull, Record, Refuse, Relay, Want
from greenchat.transfer.channel import Channel
from greenchat.transfer.share import Share

__all__ = ["Served", "Uploads"]


@dataclass(frozen=True, slots=True)
class Served:
    """A file that somebody fetched from this client, or tried to."""

    requester: str
    file: str
    size: int
    error: GreenchatError | None
    """Why it did not arrive, if it did not."""


@dataclass(frozen=True, slots=True)
class _Offer:
    requester: str
    file: str
    made: float = field(default_factory=time.monotonic)

    def expired(self) -> bool:
        return time.monotonic() - self.made > TICKET_SECONDS


class Uploads:
    """Answers the server's requests for files, and hands out each once to whoever shows its ticket."""

    def __init__(
        self,
        share: Share,
        pool: ThreadPool,
        tell: Callable[[Record], None],
        on_served: Callable[[Served], object],
        *,
        server: tuple[str, int],
    ) -> None:
        self._share = share
        self._pool = pool
        self._tell = tell
        self._on_served = on_served
        self._server = server
        self._offers: OrderedDict[str, _Offer] = OrderedDict()
        self._listeners: list[Listener] = []
        self._running = Group()

    def listen(self, hosts: tuple[str, ...], port: int) -> int:
        """Accept file requests on *port*, 0 for any that is free; the port. Raises `ListenError`."""
        self._listeners = [Listener(sock, self._accept) for sock in listen(hosts, port)]
        for listener in self._listeners:
            listener.start()
        return self._listeners[0].port

    def offer(self, want: Want) -> None:
        """Say whether there is such a file, and if so, honour the ticket for a while."""
        try:
            if len(self._running) >= MAX_UPLOADS:
                raise TransferError(Code.TOO_MANY)
            with self._share.open(want.file) as file:
                size = file.size
        except TransferError as error:
            self._tell(Refuse(want.ticket, error.code, sentence(error.code)))
            return
        self._forget_old_offers()
        self._offers[want.ticket] = _Offer(want.requester, want.file)
        self._tell(Have(want.ticket, size))

    def dial(self, dial: Dial) -> None:
        """Join a relayed connection, if it is for a file that was offered."""
        if dial.ticket in self._offers and len(self._running) < MAX_UPLOADS:
            self._running.spawn(self._serve_relayed, dial.key)

    def close(self) -> None:
        """Stop listening, and end what is being served."""
        for listener in self._listeners:
            listener.stop()
        self._running.kill()

    def _forget_old_offers(self) -> None:
        while self._offers and (len(self._offers) >= MAX_OFFERS or next(iter(self._offers.values())).expired()):
            self._offers.popitem(last=False)

    def _accept(self, sock: socket.socket, _address: tuple[Any, ...]) -> None:
        if len(self._running) < MAX_UPLOADS:
            self._running.spawn(self._serve, Channel(sock)).join()

    def _serve_relayed(self, key: str) -> None:
        with contextlib.suppress(GreenchatError):
            channel = Channel(connect(*self._server))
            try:
                channel.send(Relay(key))
                channel.expect(Go, MEET_SECONDS)
            except GreenchatError:
                channel.close()
                raise
            self._serve(channel)

    def _serve(self, channel: Channel) -> None:
        """Whoever connects first matters not: only who shows a ticket gets something, and uses the ticket up."""
        try:
            pull = channel.expect(Pull, HELLO_SECONDS)
            offer = self._offers.pop(pull.ticket, None)
            if offer is None or offer.expired():
                raise TransferError(Code.BAD_TICKET)
            self._hand_out(channel, offer)
        except GreenchatError as error:
            channel.give_up(error)
        finally:
            channel.close()

    def _hand_out(self, channel: Channel, offer: _Offer) -> None:
        with self._share.open(offer.file) as file:
            try:
                channel.upload(file, self._pool)
            except GreenchatError as error:
                self._on_served(Served(offer.requester, offer.file, file.size, error))
                raise
            self._on_served(Served(offer.requester, offer.file, file.size, None))
