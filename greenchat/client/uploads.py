"""Serving files: who may fetch what, over the client's own listener or through the server's relay."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import gevent
from gevent import socket
from gevent.pool import Group
from gevent.threadpool import ThreadPool

from greenchat.client.consent import Consent, Question
from greenchat.client.servers import Servers
from greenchat.connect import connect
from greenchat.errors import BadName, Code, GreenchatError, TransferError, sentence
from greenchat.net import Listener, listen
from greenchat.protocol.limits import (
    DIGEST_THREADS,
    FILE_SECONDS,
    FILE_THREADS,
    FULL_SECONDS,
    GOODBYE_SECONDS,
    HELLO_SECONDS,
    MAX_OFFERS,
    MAX_STRANGERS,
    MAX_UPLOADS,
    MAX_UPLOADS_EACH,
    MEET_SECONDS,
    OFFER_ORDER_SECONDS,
    TICKET_SECONDS,
)
from greenchat.protocol.names import file_name
from greenchat.protocol.records import Dial, Have, Pull, Record, Refuse, Secure, Want
from greenchat.security.proof import certificate_of, transfer_of
from greenchat.security.tls import pair_context
from greenchat.threads import call, call_within, end, on_files
from greenchat.transfer.moving import Moving, Traffic
from greenchat.transfer.share import Share, SharedFile

if TYPE_CHECKING:  # what moves files is imported when the first one does
    from greenchat.security.keys import Identity
    from greenchat.transfer.channel import Channel

__all__ = ["Served", "Uploads"]


class Served(NamedTuple):
    """A file that somebody fetched from this client, or tried to."""

    requester: str
    file: str
    size: int
    error: GreenchatError | None
    """Why it did not arrive, if it did not."""


class _Offer(NamedTuple):
    requester: str
    file: str
    certificate: bytes
    """The requester's, where all is encrypted; else empty."""
    made: float

    def expired(self) -> bool:
        return time.monotonic() - self.made > TICKET_SECONDS


class Uploads:
    """Answers the server's requests for files, and hands out each once to whoever shows its ticket."""

    def __init__(  # noqa: PLR0913 - each is one thing that serving takes
        self,
        share: Share,
        tell: Callable[[Record], None],
        on_served: Callable[[Served], object],
        traffic: Traffic,
        *,
        consent: Consent,
        servers: Servers,
        identity: Identity | None = None,
    ) -> None:
        self._share = share
        # One digests for many; where all is encrypted, each file has one that reads, seals and sends it.
        self._pool = ThreadPool(MAX_UPLOADS if identity else DIGEST_THREADS)
        self._looking = ThreadPool(FILE_THREADS)
        self._last_offer: gevent.Greenlet[..., None] | None = None
        """For what a hung file system never answers, and nothing else."""
        self._tell = tell
        self._on_served = on_served
        self._traffic = traffic
        self._consent = consent
        self._servers = servers
        self._identity = identity
        self._offers: OrderedDict[str, _Offer] = OrderedDict()
        """What was offered, by what names each ticket in the open."""
        self._listeners: list[Listener] = []
        self._accepted, self._dialled = Group(), Group()
        self._offering, self._closing = Group(), Group()
        self._dialled_for: dict[gevent.Greenlet[..., None], str] = {}
        """The requesters for whom relayed connections were joined."""
        self._told: set[str] = set()
        """Requesters with changed keys, of whom the user has heard."""
        self._strangers: dict[Channel, None] = {}
        """Who connected to the listener and has not shown a ticket yet, oldest first."""
        self._serving: dict[Channel, str] = {}
        """Who is being served, with the requester's name."""

    def listen(self, hosts: tuple[str, ...], port: int) -> int:
        """Accept file requests on *port*, 0 for any that is free; the port. Raises `ListenError`."""
        self._listeners = [Listener(sock, self._accept) for sock in listen(hosts, port)]
        for listener in self._listeners:
            listener.start()
        return self._listeners[0].port

    def offer(self, want: Want) -> None:
        """Say whether there is such a file, and if so, honour the ticket for a while. Nobody waits for the disk."""
        if len(self._offering) < MAX_OFFERS:
            self._last_offer = self._offering.spawn(self._offer, want, self._last_offer)
        else:
            self._tell(Refuse(want.ticket, Code.TOO_MANY, sentence(Code.TOO_MANY)))

    def _offer(self, want: Want, before: gevent.Greenlet[..., None] | None) -> None:
        with contextlib.suppress(GreenchatError):  # of the server, which is told of by others
            self._answer(want, before)

    def _answer(self, want: Want, before: gevent.Greenlet[..., None] | None) -> None:
        try:
            self._check_room(want.requester)
            certificate = self._certificate_of(want)
            _check_name(want.file)  # before anybody is asked
            self._consent.check(Question(want.requester, want.file, certificate))
            size = self._look_up(want.file)
        except GreenchatError as error:
            self._tell(Refuse(want.ticket, error.code, sentence(error.code)))
            self._warn(want, error)
            return
        from greenchat.transfer.digest import ALGORITHMS

        if before is not None:
            before.join(OFFER_ORDER_SECONDS)  # a requester's files wait for each other in the order of the answers
        self._forget_old_offers()
        self._offers[transfer_of(want.ticket)] = _Offer(want.requester, want.file, certificate, time.monotonic())
        self._tell(Have(want.ticket, size, ALGORITHMS))

    def _look_up(self, name: str) -> int:
        """Return the size of the file *name*. Raises `TransferError`."""
        with self._opened(name) as file:
            return file.size

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[SharedFile]:
        """Open the file *name* on a thread, and close it there. Raises `TransferError`."""
        silent = TransferError(Code.OWNER_SILENT)  # the share's file system hangs: somebody may ask again
        file = call_within(FILE_SECONDS, silent, self._looking, self._share.open, name)
        try:
            yield file
        finally:
            self._closing.spawn(call, self._looking, file.close)

    def dial(self, dial: Dial) -> None:
        """Join a relayed connection, if it is for a file that was offered."""
        offer = self._offers.get(transfer_of(dial.ticket))
        if offer is None or len(self._dialled) >= MAX_UPLOADS:
            return
        if list(self._dialled_for.values()).count(offer.requester) < MAX_UPLOADS_EACH:
            greenlet = self._dialled.spawn(self._serve_relayed, dial.key)
            self._dialled_for[greenlet] = offer.requester
            greenlet.rawlink(self._dialled_for.pop)

    def close(self) -> None:
        """Stop listening, and end what is being served."""
        for listener in self._listeners:
            listener.stop()
        self._offering.kill()
        self._dialled.kill()
        for channel in [*self._strangers, *self._serving]:
            channel.abort()
        self._accepted.join(timeout=GOODBYE_SECONDS)  # it may wait for the disk
        self._accepted.kill()
        self._closing.join(timeout=FULL_SECONDS)
        self._closing.kill()
        end(self._looking)
        end(self._pool)

    def _certificate_of(self, want: Want) -> bytes:
        if self._identity is None:
            return b""
        if not want.certificate:
            raise TransferError(Code.NO_KEY)
        return certificate_of(want.certificate)

    def _warn(self, want: Want, error: GreenchatError) -> None:
        """The user hears, once, of who comes with another key; what else was refused is the requester's concern."""
        if error.code is Code.KEY_CHANGED and want.requester not in self._told:
            self._told.add(want.requester)
            self._on_served(Served(want.requester, want.file, 0, error))

    def _check_room(self, requester: str) -> None:
        requesters = list(self._serving.values())
        if len(requesters) >= MAX_UPLOADS or requesters.count(requester) >= MAX_UPLOADS_EACH:
            raise TransferError(Code.TOO_MANY)

    def _forget_old_offers(self) -> None:
        """Make room for one more; of too many, the requester that has most loses its oldest."""
        while self._offers and next(iter(self._offers.values())).expired():
            self._offers.popitem(last=False)
        if len(self._offers) >= MAX_OFFERS:
            ((most, _),) = Counter(offer.requester for offer in self._offers.values()).most_common(1)
            del self._offers[next(ticket for ticket, offer in self._offers.items() if offer.requester == most)]

    def _accept(self, sock: socket.socket, _address: tuple[Any, ...]) -> None:
        if len(self._strangers) >= MAX_STRANGERS:
            next(iter(self._strangers)).abort()  # the oldest, who has said nothing for longest
        from greenchat.transfer.channel import Channel

        channel = Channel(sock)
        self._strangers[channel] = None
        self._accepted.spawn(self._serve, channel).join()

    def _serve_relayed(self, key: str) -> None:
        from greenchat.transfer.channel import Channel

        with contextlib.suppress(GreenchatError):
            channel = Channel(connect(*self._servers.peer))
            try:
                channel.join_relay(key, MEET_SECONDS)
            except BaseException:
                channel.close()
                raise
            self._serve(channel)

    def _serve(self, channel: Channel) -> None:
        """Whoever connects first matters not: only who shows a ticket gets something, and uses the ticket up."""
        try:
            pull = self._expect_pull(channel)
            offer = self._offers.pop(transfer_of(pull.ticket), None)
            if offer is None or offer.expired():
                raise TransferError(Code.BAD_TICKET)
            self._check_room(offer.requester)
            self._serve_offer(channel, pull, offer)
        except GreenchatError as error:
            channel.give_up(error)
            if channel in self._strangers:
                channel.drain()
        finally:
            self._strangers.pop(channel, None)
            channel.close()

    def _expect_pull(self, channel: Channel) -> Pull:
        if self._identity is None:
            pull = channel.expect(Pull, HELLO_SECONDS)
        else:
            pull = self._expect_encrypted(channel, self._identity)
        self._strangers.pop(channel, None)
        return pull

    def _expect_encrypted(self, channel: Channel, identity: Identity) -> Pull:
        """Only from the one whom the transfer is for."""
        secure = channel.expect(Secure, HELLO_SECONDS)
        offer = self._offers.get(secure.transfer)
        if offer is None:
            raise TransferError(Code.BAD_TICKET)
        context = on_files(identity.path, pair_context, identity, offer.certificate, server=True)
        channel.encrypt(context, offer.certificate)
        self._consent.met(offer.requester, offer.certificate)
        pull = channel.expect(Pull, HELLO_SECONDS)
        if transfer_of(pull.ticket) != secure.transfer:
            raise TransferError(Code.BAD_TICKET)
        return pull

    def _serve_offer(self, channel: Channel, pull: Pull, offer: _Offer) -> None:
        self._serving[channel] = offer.requester
        try:
            with self._opened(offer.file) as file:
                error = self._upload(channel, file, pull, offer)
                self._on_served(Served(offer.requester, offer.file, file.size, error))
        finally:
            del self._serving[channel]
        if error is not None:
            raise error

    def _upload(self, channel: Channel, file: SharedFile, pull: Pull, offer: _Offer) -> GreenchatError | None:
        moving = Moving(offer.file, offer.requester, sending=True, size=file.size)
        try:
            with self._traffic.carry(moving):
                channel.upload(file, pull, self._pool, moving)
        except GreenchatError as error:
            return error
        return None


def _check_name(file: str) -> None:
    """Raise `TransferError` if *file* can be no file's name, as if there were none."""
    try:
        file_name(file)
    except BadName:
        raise TransferError(Code.NOT_FOUND) from None
