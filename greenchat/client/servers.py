"""The servers of a chat: one, or several that are all the same chat, tried in turn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from greenchat.addresses import fold_host, is_loopback, may_name
from greenchat.client.session import Session
from greenchat.connect import connect, peer_host
from greenchat.errors import Code, ConnectError

if TYPE_CHECKING:
    from greenchat.client.trust import Trust

__all__ = ["Servers"]


class Servers:
    """The *addresses*, hosts with ports, of which the first gives the chat its name.

    With *trust* connections are encrypted, and have to be to the right servers; without, servers have to be on this
    machine, unless *insecure* says that anybody on the way may read and change what is said.
    """

    def __init__(self, addresses: Sequence[tuple[str, int]], trust: "Trust | None", *, insecure: bool) -> None:
        # One server has one name in what is remembered.
        self._addresses = [(fold_host(host), port) for host, port in addresses]
        self._trust = trust
        self._insecure = insecure
        self._turn = 0
        self.address = self._addresses[0]
        """Host and port of the server that was tried last, as the user has them."""
        self.peer = self._addresses[0]
        """Numeric host and port of the server that was reached last: a name may lead to another one next time."""

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._addresses)

    @property
    def first(self) -> tuple[str, int]:
        """The address that the chat is known by."""
        return self._addresses[0]

    def reach(self) -> Session:
        """Connect to the next in turn that answers. Raises `ConnectError` or `SecurityError`."""
        error = ConnectError(Code.UNREACHABLE)
        for _ in self._addresses:
            self.address = self._addresses[self._turn % len(self._addresses)]
            self._turn += 1
            try:
                return self._connect(*self.address)
            except ConnectError as failure:
                error = failure
        raise error

    def trusts(self, host: str, port: int) -> bool:
        """Return True if the user has named *host* and *port*, or the server may."""
        return (fold_host(host), port) in self._addresses or may_name(self.peer[0], host, port)

    def _connect(self, host: str, port: int) -> Session:
        sock, tls = self._trust.reach(host, port) if self._trust else (connect(host, port), None)
        here = peer_host(sock)
        if not tls and not self._insecure and not is_loopback(here):
            sock.close()
            raise ConnectError(
                Code.TLS_REQUIRED, f"to {host} nothing would be encrypted: give --tls, or else --insecure"
            )
        self.peer = here, port
        return Session(sock, tls)
