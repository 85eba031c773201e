"""Who may come in: bounds on connections in all, from one network, and before the first line."""

import itertools
from collections import defaultdict
from typing import Protocol

from greenchat.addresses import network
from greenchat.errors import Code, Refused
from greenchat.protocol.limits import MAX_CONNECTIONS, MAX_FROM_ONE_NETWORK, MAX_NEWCOMERS

__all__ = ["Admission", "Visitor"]


class Visitor(Protocol):
    """Whoever is connected."""

    host: str
    """The address that it comes from."""

    def turn_out(self, code: Code) -> None:
        """Tell it why, and end its connection at once."""


class Admission:
    """Counts who is here."""

    def __init__(self) -> None:
        self._here = 0
        self._from: dict[str, int] = defaultdict(int)
        self._newcomers: dict[Visitor, None] = {}

    def enter(self, visitor: Visitor) -> None:
        """Give *visitor* a place until it has to `leave`. Raises `Refused` if there is none.

        It is a newcomer until it is `known`; where there are too many, who has been one longest is turned out.
        """
        where = network(visitor.host)
        if self._here >= MAX_CONNECTIONS or (where and self._from[where] >= MAX_FROM_ONE_NETWORK):
            raise Refused(Code.SERVER_FULL)
        if len(self._newcomers) >= MAX_NEWCOMERS:
            self.turn_out(1)
        self._here += 1
        self._from[where] += 1
        self._newcomers[visitor] = None

    def turn_out(self, number: int) -> None:
        """Let so many go who have been newcomers longest."""
        for visitor in [*itertools.islice(self._newcomers, number)]:
            self.known(visitor)
            visitor.turn_out(Code.HELLO_LATE)

    def known(self, visitor: Visitor) -> None:
        """*visitor* has said what it came for."""
        self._newcomers.pop(visitor, None)

    def leave(self, visitor: Visitor) -> None:
        """Take the place back."""
        self.known(visitor)
        where = network(visitor.host)
        self._here -= 1
        self._from[where] -= 1
        if not self._from[where]:
            del self._from[where]
