"""Connecting to a host by any of its addresses, in the pace of RFC 8305 (happy eyeballs)."""

import errno
from collections.abc import Iterable
from itertools import chain, zip_longest
from typing import Final, TypeAlias

import gevent
from gevent import socket
from gevent.pool import Group
from gevent.queue import Empty, Queue

from greenchat.addresses import Address, host_of, resolve
from greenchat.errors import Code, ConnectError
from greenchat.net import reason, tune
from greenchat.protocol.limits import ATTEMPT_DELAY, CONNECT_SECONDS, MAX_PORT

__all__ = ["Outcomes", "connect", "peer_host"]

_NO_WAY: Final = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL)
"""Errors that tell about this machine's network, and so less than what another address answered."""

Outcomes: TypeAlias = "Queue[socket.socket | OSError]"
"""What has become of attempts: connections, and errors."""


def connect(host: str, port: int, seconds: float = CONNECT_SECONDS) -> socket.socket:
    """Connect to the first address of *host* that accepts. Raises `ConnectError`.

    Looking up the name has a bound of its own, `limits.RESOLVE_SECONDS`.
    """
    try:
        if not 0 <= port <= MAX_PORT:
            raise OSError(errno.EADDRNOTAVAIL, "")  # a resolver would take it modulo 65536
        sock = _race(_interleaved(resolve(host, port)), seconds)
        tune(sock)
    except (OSError, UnicodeError) as error:
        raise ConnectError(Code.UNREACHABLE, f"no server answers at {host} port {port}: {reason(error)}") from None
    return sock


def peer_host(sock: socket.socket) -> str:
    """Return the numeric address that *sock* is connected to; close it and raise `ConnectError` if it was reset."""
    try:
        return host_of(sock.getpeername())
    except OSError:
        sock.close()
        raise ConnectError(Code.UNREACHABLE, "the other side closed the connection") from None


def _interleaved(addresses: Iterable[Address]) -> list[Address]:
    """Return *addresses* with their families in turn, the preferred one first (RFC 8305, section 4)."""
    families: dict[int, list[Address]] = {}
    for address in addresses:
        families.setdefault(address.family, []).append(address)
    return [address for address in chain(*zip_longest(*families.values())) if address]


def _race(addresses: list[Address], seconds: float) -> socket.socket:
    """Return the first connection to any of *addresses*. Raises `OSError` if all fail, or none accepts in time."""
    attempts = Group()
    outcomes: Outcomes = Queue()
    try:
        with gevent.Timeout(seconds, TimeoutError()):
            return _first(addresses, attempts, outcomes)
    finally:
        attempts.kill()
        while not outcomes.empty():
            if isinstance(late := outcomes.get(), socket.socket):
                late.close()


def _first(addresses: list[Address], attempts: Group, outcomes: Outcomes) -> socket.socket:
    """Begin the next attempt when one has failed, or none has succeeded for `limits.ATTEMPT_DELAY`."""
    waiting, errors = iter(addresses), list[OSError]()
    while len(errors) < len(addresses):
        address = next(waiting, None)
        if address:
            attempts.spawn(_attempt, address, outcomes)
        try:
            outcome = outcomes.get(timeout=ATTEMPT_DELAY if address else None)
        except Empty:
            continue
        if isinstance(outcome, socket.socket):
            return outcome
        errors.append(outcome)
    raise min(errors, key=lambda error: error.errno in _NO_WAY)


def _attempt(address: Address, outcomes: Outcomes) -> None:
    """Put a connection to *address* into *outcomes*, or the error that there was."""
    try:
        sock = socket.socket(address.family, socket.SOCK_STREAM)
    except OSError as error:
        outcomes.put(error)
        return
    try:
        sock.connect(address.place)
    except OSError as error:
        sock.close()
        outcomes.put(error)
    except BaseException:  # killed, because another was first
        sock.close()
        raise
    else:
        outcomes.put(sock)
