"""TCP on gevent, as both programs need it: where to listen, how to read fairly."""

import contextlib
import errno
import os
import resource
import select
import struct
from collections.abc import Callable
from typing import Any, Final

import gevent
from gevent import get_hub, socket
from gevent.server import StreamServer

from greenchat.addresses import resolve
from greenchat.errors import Code, ListenError
from greenchat.protocol import limits

__all__ = [
    "READ",
    "RESET",
    "WRITE",
    "Handler",
    "Listener",
    "Reader",
    "has_ended",
    "listen",
    "next_turn",
    "raise_descriptor_limit",
    "reason",
    "send_now",
    "tune",
]

Handler = Callable[[socket.socket, tuple[str, int]], None]
"""Serves one accepted connection, given its socket and the peer's host and port."""

_TRIES: Final = 16
"""Free ports tried until one is free in both address families."""

_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""What ``accept`` says when the process or the system has no more to give."""

_PAUSE: Final = 0.1
"""Seconds without accepting after that; those who connect meanwhile wait in the kernel."""

RESET: Final = struct.pack("ii", 1, 0)
"""As `SO_LINGER`: closing throws away what is left, and says so."""

READ: Final = 1
WRITE: Final = 2
"""What a watcher of the loop may wait for on a descriptor (libev, EV_READ and EV_WRITE)."""

_LAST: Final = -2
"""The lowest priority of a watcher: it is told after all others (libev, EV_MINPRI)."""


def listen(hosts: tuple[str, ...], port: int) -> list[socket.socket]:
    """Listen on *port* at all addresses of *hosts*, on one port everywhere where 0 asks for a free one.

    Addresses that this machine lacks are left out. Raises `ListenError`, also if it has none of them.
    """
    if not 0 <= port <= limits.MAX_PORT:
        raise ListenError(Code.CANNOT_LISTEN, f"{port} is no port: give a number from 0 to {limits.MAX_PORT}")
    addresses = [address for host in hosts for address in _resolved(host, port)]
    for _ in range(_TRIES):
        sockets: list[socket.socket] = []
        try:
            _listen_at(addresses, port, sockets)
        except ListenError:
            for sock in sockets:
                sock.close()
            if port or not sockets:
                raise
        else:
            return sockets
    raise ListenError(Code.CANNOT_LISTEN, "no port is free in both address families: give one")


def _resolved(host: str, port: int) -> list[str]:
    try:
        return [address.host for address in resolve(host, port)]
    except (OSError, UnicodeError) as error:
        raise ListenError(Code.CANNOT_LISTEN, f"cannot listen at {host}: {reason(error)}") from None


def _listen_at(hosts: list[str], port: int, sockets: list[socket.socket]) -> None:
    """Add a socket to *sockets* for each of *hosts* that is here. Raises `ListenError`."""
    absent = None
    for host in hosts:
        try:
            sockets.append(_listen(host, sockets[0].getsockname()[1] if sockets else port))
        except _NoSuchHost as error:
            absent = absent or error
    if not sockets and absent:
        raise absent


class _NoSuchHost(ListenError):
    """The machine has no such address, or not that address family."""


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, place = resolve(host, port)[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _NoSuchHost(Code.CANNOT_LISTEN, f"cannot listen at {host}: {reason(error)}") from None
    try:
        _prepare(sock, host)
        sock.bind(place)
        sock.listen(limits.LISTEN_BACKLOG)
    except OSError as error:
        sock.close()
        raise _listen_error(error, host, port) from None
    return sock


def _prepare(sock: socket.socket, host: str) -> None:
    """Options are set on the listening socket once: accepted ones inherit them."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
    tune(sock)


def tune(sock: socket.socket) -> None:
    """Small messages leave at once, and a dead peer is found within `limits.DEAD_SECONDS`."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", limits.KEEPALIVE_SECONDS),
        ("TCP_KEEPINTVL", limits.KEEPALIVE_INTERVAL),
        ("TCP_KEEPCNT", limits.KEEPALIVE_PROBES),
        ("TCP_USER_TIMEOUT", 1000 * limits.DEAD_SECONDS),  # while something is on its way nobody probes (tcp(7))
    ):
        if hasattr(socket, option):  # macOS names the first one otherwise
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def reason(error: OSError | UnicodeError) -> str:
    """Return why something about an address or a connection failed, in words that follow a colon."""
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
        return "its name cannot be looked up at the moment: no name server answers"
    if isinstance(error, UnicodeError | socket.gaierror):  # no name may be that long, or there is none such
        return "no such host"
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return os.strerror(error.errno or 0).lower()


def _listen_error(error: OSError, host: str, port: int) -> ListenError:
    number = error.errno
    if number == errno.EADDRINUSE:
        return ListenError(Code.CANNOT_LISTEN, f"port {port} is in use: give another, or 0 for any that is free")
    if number == errno.EACCES:
        return ListenError(Code.CANNOT_LISTEN, f"port {port} needs more privileges: give one from 1024 to 65535")
    if number == errno.EADDRNOTAVAIL:
        return _NoSuchHost(Code.CANNOT_LISTEN, f"{host} is no address of this machine: give one that is")
    return ListenError(Code.CANNOT_LISTEN, f"cannot listen at {host} port {port}: {reason(error)}")


def _do_nothing() -> None:
    pass


class Listener(StreamServer):
    """Accepts on one socket, a greenlet for each connection.

    When the system runs out of descriptors it pauses, and *on_exhausted* may let some go.
    """

    def __init__(self, sock: socket.socket, handler: Handler, on_exhausted: Callable[[], object] = _do_nothing) -> None:
        sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
        super().__init__(sock, handler)
        self._on_exhausted = on_exhausted

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.address[1])

    def do_read(self) -> tuple[socket.socket, Any] | None:  # type: ignore[override]  # None says: nothing to accept now
        """Accept one connection. StreamServer itself would write a traceback, over and over."""
        try:
            return super().do_read()
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            self.stop_accepting()
            self._on_exhausted()
            gevent.spawn_later(_PAUSE, self._accept_again)
            return None

    def _accept_again(self) -> None:
        if self.started:
            self.start_accepting()


class Reader:
    """Reads from *sock* in turns with everybody else.

    A plain ``recv`` does not yield while there is more to read, and would let one flood keep everyone waiting. It is no
    generator, because a greenlet that waits inside of one keeps a kilobyte more of stack.
    """

    __slots__ = ("_closed", "_hub", "_readable", "_sock", "ended")

    def __init__(self, sock: socket.socket) -> None:
        self.ended = False
        """True if the peer has ended its side properly, and not by a reset."""
        self._sock = sock
        self._closed = False
        self._hub = get_hub()
        self._readable = self._hub.loop.io(sock.fileno(), READ)

    def read(self, size: int) -> bytes:
        """What has arrived, at most *size* bytes, in the next turn of the loop that has some; nothing at the end."""
        if self._closed:
            return b""
        self._hub.wait(self._readable)
        try:
            data: bytes = self._sock.recv(size)
        except OSError:
            return b""  # a reset is an end, too
        self.ended = not data
        return data

    def close(self) -> None:
        """Stop reading; the socket is the caller's. May be called again, and there is nothing to read any more."""
        self._closed = True
        self._readable.stop()
        self._readable.close()


def has_ended(sock: socket.socket) -> bool:
    """Return True if the peer has closed the connection or its side of it, though bytes from it may be unread."""
    poller = select.poll()
    poller.register(sock.fileno(), getattr(select, "POLLRDHUP", 0))  # where there is none, only a reset is noticed
    return bool(poller.poll(0))


def next_turn() -> None:
    """Return as soon as everybody else for whom something has come has had a turn.

    After ``gevent.sleep(0)`` the loop may not have looked at any socket, and any longer sleep is one of a millisecond.
    """
    loop = get_hub().loop
    idle, looked = loop.idle(), loop.check(priority=_LAST)  # the sockets come first
    idle.start(_do_nothing)  # so that the loop does not wait when it looks
    try:
        get_hub().wait(looked)
    finally:
        for watcher in (idle, looked):
            watcher.stop()
            watcher.close()


def send_now(sock: socket.socket, data: bytes | bytearray | memoryview) -> int:
    """How many bytes of *data* the socket took without waiting. Raises `OSError` if the connection is broken."""
    try:
        return sock.send(data, timeout=0.0)  # type: ignore[call-arg]  # the stubs lack gevent's own parameter
    except BlockingIOError:
        return 0


def raise_descriptor_limit() -> None:
    """Let this process have as many descriptors as the system grants it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
