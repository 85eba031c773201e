"""Which names are this node's: leases that last while the node is alive, with tokens that fence off older ones."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import gevent
from gevent.event import AsyncResult

from greenchat.backplane.link import Link, Order
from greenchat.backplane.scripts import CLAIM, PREFIX, RELEASE
from greenchat.errors import Code, Refused, known
from greenchat.protocol.limits import SESSION_SECONDS, SETTLE_SECONDS
from greenchat.protocol.names import looks, name_key

__all__ = ["INBOX", "NAMES", "NODES", "Lease", "Names", "form"]

NAMES: Final = f"{PREFIX}names"
NODES: Final = f"{PREFIX}nodes"
INBOX: Final = f"{PREFIX}inbox:"
_OWNERS: Final = f"{PREFIX}owners"
_TOKEN: Final = f"{PREFIX}token"
_NO_ONE: Final = "-"


@dataclass(slots=True, eq=False)
class Lease:
    """A name that is this node's."""

    token: int
    forms: tuple[str, ...]
    """Of the name; no two names have one in common."""
    origin: str
    on_lost: Callable[[Code], object]
    counted: int = 0
    """Lines that were said by it, if they have no other number."""

    def count(self, lines: int) -> int:
        """So many more are said; how many were said before."""
        self.counted += lines
        return self.counted - lines


def form(name: str) -> str:
    """The form by which a user is found."""
    return f"name:{name_key(name)}"


class Names:
    """The leases of the node that is called *node*."""

    def __init__(self, link: Link, node: str) -> None:
        self._link = link
        self._node = node
        self._leases: dict[str, Lease] = {}
        """By origin."""

    def claim(self, name: str, origin: str, owner: str, on_lost: Callable[[Code], object]) -> Lease:
        """Take *name* for who has this *origin*, and this key if *owner* names one; *on_lost* is told if it is lost.

        Raises `Refused` if it is taken elsewhere, or if Redis is away.
        """
        written, small = looks(name)
        forms = (form(name), f"written:{written}", f"small:{small}")
        result = self._ask(forms, origin, owner)
        if not isinstance(result, int):
            raise Refused(known(result.decode()))
        lease = self._leases[origin] = Lease(result, forms, origin, on_lost)
        return lease

    def release(self, lease: Lease) -> None:
        """Give the name back, once all that was said under it has its place. Never waits."""
        if self._leases.get(lease.origin) is lease:
            del self._leases[lease.origin]
        self._link.order(Order(RELEASE, [NAMES], [lease.token, *lease.forms], _do_nothing))

    def of(self, origin: str) -> Lease | None:
        """By what lease who has this *origin* speaks."""
        return self._leases.get(origin)

    def lose(self, token: int) -> None:
        """Somebody else has the name by now."""
        for lease in [lease for lease in self._leases.values() if lease.token == token]:
            lease.on_lost(Code.TAKEN_OVER)

    def check(self) -> None:
        """Find out which names are lost, when this node has not been alive for a while. Raises `LogError`."""
        for leases in _parts(list(self._leases.values())):
            holders = self._link.call(self._link.store.held, NAMES, [lease.forms[0] for lease in leases])
            for lease, holder in zip(leases, holders, strict=True):
                if holder is None or int(holder.split(" ")[0]) != lease.token:
                    lease.on_lost(Code.UNAVAILABLE if holder is None else Code.TAKEN_OVER)

    def _ask(self, forms: tuple[str, ...], origin: str, owner: str) -> Any:
        keys = [NAMES, NODES, _OWNERS, _TOKEN, INBOX]
        arguments: list[str | bytes | int] = [self._node, origin, owner or _NO_ONE, SESSION_SECONDS, *forms]
        result: AsyncResult[Any] = AsyncResult()
        waiting = True

        def on_result(token: Any) -> None:
            if waiting:
                result.set(token)
            elif isinstance(token, int):  # too late
                self._link.order(Order(RELEASE, [NAMES], [token, *forms], _do_nothing))

        order = Order(CLAIM, keys, arguments, on_result, result.set_exception)
        self._link.order(order)
        try:
            with gevent.Timeout(SETTLE_SECONDS, Refused(Code.UNAVAILABLE)):
                return result.get()
        finally:
            waiting = False


def _parts(leases: list[Lease]) -> list[list[Lease]]:
    return [leases[at : at + 500] for at in range(0, len(leases), 500)]


def _do_nothing(_result: Any) -> None:
    pass
