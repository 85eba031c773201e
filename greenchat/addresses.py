"""Hosts and their addresses: looking them up, how far each reaches, and which of them a peer may name."""

import enum
import functools
import ipaddress
import socket as system
from typing import Any, Final, NamedTuple

import gevent
from gevent import socket

from greenchat.protocol.limits import MAX_CONNECTIONS, MAX_HOST_ADDRESSES, MAX_PORT, MIN_PORT, RESOLVE_SECONDS

__all__ = [
    "LOOPBACK",
    "Address",
    "Reach",
    "fold_host",
    "host_of",
    "is_address",
    "is_loopback",
    "may_name",
    "network",
    "plain_host",
    "reach_of",
    "resolve",
    "with_own_zone",
]

LOOPBACK: Final = ("127.0.0.1", "::1")
"""The machine itself, in both address families."""


class Address(NamedTuple):
    """One address of a host, as the system calls take it."""

    family: int
    place: tuple[Any, ...]

    @property
    def host(self) -> str:
        """The address in numbers, with its zone if it has one."""
        return host_of(self.place)


class Reach(enum.IntEnum):
    """How far an address is good: the same one names another machine in another network of a smaller reach."""

    MACHINE = 0
    LINK = 1
    SITE = 2
    """RFC 1918, RFC 4193, RFC 6598, and whatever else is not routed globally."""
    WORLD = 3


def host_of(place: tuple[Any, ...]) -> str:
    """Return the numeric host of *place*, as a socket has it: only there a zone is a number beside the address."""
    if len(place) < 4 or not place[3]:
        return str(place[0])
    return system.getnameinfo(place, system.NI_NUMERICHOST | system.NI_NUMERICSERV)[0]


def plain_host(host: str) -> str:
    """Return *host* as people write it: an IPv4 address seen through an IPv6 socket is an IPv4 address."""
    mapped = ipaddress.IPv6Address(host).ipv4_mapped if host.lower().startswith("::ffff:") else None
    return str(mapped) if mapped else host


def fold_host(host: str) -> str:
    """Return *host* in the one spelling under which it is compared. The zone of an address keeps its case."""
    name, percent, zone = host.partition("%")
    return name.lower().removesuffix(".") + percent + zone


def is_address(host: str) -> bool:
    """Return True if *host* is a numeric address, rather than a name that would be looked up."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Return True if *host*, a numeric address, is this machine alone."""
    return reach_of(host) is Reach.MACHINE


@functools.lru_cache(maxsize=MAX_CONNECTIONS)
def network(host: str) -> str:
    """Return the network that *host*, a numeric address, counts as where places are limited.

    It is empty for this machine. For IPv6 it is the /64, all of which one customer has.
    """
    if is_loopback(host):
        return ""
    address = _parsed(host)
    return str(address) if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))


def reach_of(host: str) -> Reach:
    """Return how far *host*, a numeric address, is good."""
    address = _parsed(host)
    if address.is_loopback:
        return Reach.MACHINE
    if address.is_link_local:
        return Reach.LINK
    if not address.is_global or getattr(address, "is_site_local", False):
        return Reach.SITE
    return Reach.WORLD


def may_name(server: str, host: str, port: int) -> bool:
    """Return True if a server that was reached at the address *server* may send its client to *host* and *port*.

    It may neither make the client look up a name, nor reach into a network where the server itself is not: curl's
    CVE-2020-8284, and what browsers call private network access.
    """
    if not MIN_PORT <= port <= MAX_PORT or not is_address(host):
        return False
    address = _parsed(host)
    if address.is_multicast or address.is_unspecified or (address.version == 4 and address.is_reserved):
        return False
    return reach_of(host) >= reach_of(server)


def with_own_zone(host: str, server: str) -> str:
    """Return *host*, as a server named it, with the zone by which this machine reaches the address *server*.

    A zone is the name that one machine has for one of its links.
    """
    if reach_of(host) is not Reach.LINK or is_loopback(server):
        return host
    _, percent, zone = server.partition("%")
    return host.partition("%")[0] + percent + zone


def resolve(host: str, port: int, seconds: float = RESOLVE_SECONDS) -> list[Address]:
    """Return the addresses of *host*, at most `limits.MAX_HOST_ADDRESSES`, in the order in which to prefer them.

    Numeric addresses and ``localhost`` (RFC 6761, section 6.3) are not looked up. Raises `OSError`, or `UnicodeError`
    for what can be no name.
    """
    if is_address(host):
        return _numeric(host, port)
    if fold_host(host) == "localhost":
        return [address for one in LOOPBACK for address in _numeric(one, port)]
    host.encode("idna")  # fails here, rather than on the resolver's thread, which would print a traceback
    # The thread goes on until the system gives up; it is one of the hub's ten, which do nothing else here.
    with gevent.Timeout(seconds, socket.gaierror(socket.EAI_AGAIN, "")):
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICSERV)
    return _listed(found)[:MAX_HOST_ADDRESSES]


def _numeric(host: str, port: int) -> list[Address]:
    """Parse *host* without waiting for whatever names are being looked up."""
    flags = system.AI_NUMERICHOST | system.AI_NUMERICSERV
    return _listed(system.getaddrinfo(host, port, type=system.SOCK_STREAM, flags=flags))


def _listed(found: list[Any]) -> list[Address]:
    return list(dict.fromkeys(Address(int(family), place) for family, _, _, _, place in found))


def _parsed(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(plain_host(host).partition("%")[0])
