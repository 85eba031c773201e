"""How fast members may speak: who leaves and comes back has no more than before."""

from collections import OrderedDict

from greenchat.addresses import network
from greenchat.protocol.limits import BURST_SECONDS, MAX_DEBTS, MEMBER_RATE
from greenchat.transfer.rate import RateLimit

__all__ = ["Pace"]


class Pace:
    """At most *rate* bytes a second for each member; 0: any number; None: the usual, and any number on this machine."""

    def __init__(self, rate: int | None) -> None:
        self._rate = rate
        self._debts: OrderedDict[str, list[RateLimit]] = OrderedDict()
        """Of those who have left lately, by network."""
        self._number = 0

    def limit(self, host: str) -> RateLimit | None:
        """What slows down the next member from *host*, if anything does: that of one who left, before a new one."""
        where, rate = network(host), self._rate
        if rate is None and where:
            rate = MEMBER_RATE
        if not rate:
            return None
        return self._take(where) or RateLimit(rate, rate * BURST_SECONDS)

    def leave(self, host: str, limit: RateLimit | None) -> None:
        """A member from *host* has left, who had this *limit*."""
        if limit is None or limit.rested:
            return
        self._debts.setdefault(network(host), []).append(limit)
        self._number += 1
        while self._number > MAX_DEBTS:
            _, forgotten = self._debts.popitem(last=False)
            self._number -= len(forgotten)

    def _take(self, where: str) -> RateLimit | None:
        debts = self._debts.get(where)
        if not debts:
            return None
        limit = debts.pop()
        self._number -= 1
        if not debts:
            del self._debts[where]
        return limit
