"""The servers of a chat: one, or several that are all the same chat, tried in turn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from greenchat.client.session import Session, connect
from greenchat.errors import Code, ConnectError
from greenchat.net import is_loopback

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
        self._addresses = [(host.lower().removesuffix("."), port) for host, port in addresses]
        self._trust = trust
        self._insecure = insecure
        self._turn = 0
        self.address = self._addresses[0]
        """Of that which was reached last."""

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._addresses)

    @property
    def first(self) -> tuple[str, int]:
        """The address that the chat is known by."""
        return self._addresses[0]

    def reach(self) -> Session:
        """A connection to the next in turn that answers. Raises `ConnectError` or `SecurityError`."""
        error = ConnectError(Code.UNREACHABLE)
        for _ in self._addresses:
            self.address = self._addresses[self._turn % len(self._addresses)]
            self._turn += 1
            try:
                return self._connect(*self.address)
            except ConnectError as failure:
                error = failure
        raise error

    def _connect(self, host: str, port: int) -> Session:
        if self._trust:
            return Session(*self._trust.reach(host, port))
        sock = connect(host, port)
        if not self._insecure and not is_loopback(sock.getpeername()[0]):
            sock.close()
            raise ConnectError(
                Code.TLS_REQUIRED, f"to {host} nothing would be encrypted: give --tls, or else --insecure"
            )
        return Session(sock)
