"""The ways from a client to the owner of a file: directly, or through the server's relay."""

from __future__ import annotations

import contextlib
import enum
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from greenchat.addresses import is_loopback, may_name, with_own_zone
from greenchat.client.servers import Servers
from greenchat.connect import connect, peer_host
from greenchat.errors import Code, ConnectError, GreenchatError, ProtocolError, TransferError
from greenchat.protocol.limits import (
    ANSWER_SECONDS,
    CONNECT_SECONDS,
    DIRECT_SECONDS,
    MAX_ADDRESSES,
    MEET_SECONDS,
    SLOWEST_DISK,
)
from greenchat.protocol.records import File, Pull, Secure, Take
from greenchat.security.proof import certificate_of, transfer_of
from greenchat.security.tls import pair_context
from greenchat.threads import on_files

if TYPE_CHECKING:  # what moves files is imported when the first one does
    from greenchat.security.keys import Identity
    from greenchat.transfer.channel import Channel

__all__ = ["Route", "Routes"]

_WRONG_ROUTE: Final = frozenset({Code.INTERRUPTED, Code.STALLED, Code.BAD_TICKET})
"""What a route that leads to somebody else, or nowhere, may answer: the other one may still lead to the owner."""


class Route(enum.StrEnum):
    """How to reach the owner of a file."""

    AUTO = "auto"
    """Directly, or through the server's relay if that does not answer."""
    DIRECT = "direct"
    RELAY = "relay"


class Routes:
    """Opens channels to owners, and has all of them end on `close`."""

    def __init__(self, servers: Servers, route: Route, identity: Identity | None = None) -> None:
        self._servers = servers
        self._identity = identity
        self._route = route
        self._channels: set[Channel] = set()
        self._closed = False

    @contextlib.contextmanager
    def reach(self, take: Take, pull: Pull, turn: int) -> Iterator[tuple[Channel, File]]:
        """A channel on which the file is about to come, by the first route that leads to the owner; then it is closed.

        Which one is tried first depends on the *turn*. Raises `ConnectError`, `ProtocolError` or `TransferError`.
        """
        channel, file = self._reach(take, pull, turn)
        try:
            yield channel, file
        finally:
            self._hang_up(channel)

    def close(self) -> None:
        """End every channel, and open no more."""
        self._closed = True
        for channel in self._channels:
            channel.abort()

    def _reach(self, take: Take, pull: Pull, turn: int) -> tuple[Channel, File]:
        if self._identity and not take.certificate:
            raise TransferError(Code.NO_KEY)
        error: GreenchatError = TransferError(Code.UNREACHABLE)
        ways = list(self._ways(take))
        for place in range(len(ways)):
            try:
                return self._pull(ways[(turn + place) % len(ways)], pull, take)
            except (ConnectError, ProtocolError) as failure:
                error = failure
            except TransferError as failure:
                if failure.code not in _WRONG_ROUTE:
                    raise
                error = failure
        raise error

    def _ways(self, take: Take) -> Iterator[Callable[[], Channel]]:
        if self._route is not Route.RELAY:
            server, _ = self._servers.peer
            for host, port in take.direct[:MAX_ADDRESSES]:
                if may_name(server, host, port):
                    yield functools.partial(self._open, with_own_zone(host, server), port, DIRECT_SECONDS)
        if self._route is not Route.DIRECT:
            for host, port in self._relays(take):
                yield functools.partial(self._open_relayed, host, port, take.key)

    def _relays(self, take: Take) -> Iterator[tuple[str, int]]:
        """The server itself, or others of the chat that it names, where it may send this client."""
        if not take.relay:
            yield self._servers.peer
        for host, port in take.relay[:MAX_ADDRESSES]:
            if self._servers.trusts(host, port):
                yield host, port

    def _open(self, host: str, port: int, seconds: float) -> Channel:
        sock = connect(host, port, seconds)
        if self._identity is None and not is_loopback(peer_host(sock)):  # nothing would be encrypted
            sock.close()
            raise TransferError(Code.NO_KEY)
        from greenchat.transfer.channel import Channel

        channel = Channel(sock)
        self._channels.add(channel)
        return channel

    def _open_relayed(self, host: str, port: int, key: str) -> Channel:
        channel = self._open(host, port, CONNECT_SECONDS)
        with self._hung_up_on_error(channel):
            channel.join_relay(key, 2 * MEET_SECONDS)  # the server gives the owner one
        return channel

    def _pull(self, open_channel: Callable[[], Channel], pull: Pull, take: Take) -> tuple[Channel, File]:
        self._check_open()
        channel = open_channel()
        with self._hung_up_on_error(channel):
            self._check_open()
            if self._identity:
                owner = certificate_of(take.certificate)
                channel.send(Secure(transfer_of(take.ticket)))
                context = on_files(self._identity.path, pair_context, self._identity, owner, server=False)
                channel.encrypt(context, owner)
            channel.send(pull)
            file = channel.expect(File, ANSWER_SECONDS, more=pull.offset / SLOWEST_DISK)
        return channel, file

    def _check_open(self) -> None:
        if self._closed:
            raise TransferError(Code.INTERRUPTED)

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
