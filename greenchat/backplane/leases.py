"""Which names are this node's: leases that last while the node is alive, and by which older ones are fenced off."""

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from greenchat.backplane.pipeline import Pipeline
from greenchat.backplane.scripts import CANCEL, CLAIM, FREE, OLD_OWNED, PREFIX, RELEASE, RENEW
from greenchat.backplane.store import Argument, Store
from greenchat.errors import Code, Refused, known
from greenchat.protocol.limits import (
    CHECKED_AT_ONCE,
    INBOX_MESSAGES,
    MAX_NAMES,
    MAX_NAMES_EACH,
    RETRY_SECONDS,
    SWEPT_AT_ONCE,
)
from greenchat.protocol.names import LOOKS_VERSION, looks, name_key

__all__ = ["INBOX", "NAMES", "NODES", "OWNED", "OWNERS", "Lease", "Leases", "form", "free", "renew_looks"]

NAMES: Final = f"{PREFIX}names"
NODES: Final = f"{PREFIX}nodes"
INBOX: Final = f"{PREFIX}inbox:"
OWNERS: Final = f"{PREFIX}owners"
OWNED: Final = f"{PREFIX}owned"
_TOKEN: Final = f"{PREFIX}token"
_CANCELLED: Final = f"{PREFIX}cancelled:"
_NO_ONE: Final = "-"


@dataclass(slots=True, eq=False)
class Lease:
    """A name that is this node's."""

    value: str
    """As Redis has it; no two leases are the same."""
    forms: tuple[str, ...]
    """Of the name; no two names have one in common."""
    origin: str
    on_lost: Callable[[Code], object]
    counted: int = 0
    """Lines that were said by it, if they have no other number."""
    acknowledged: int | None = None
    """Lines of its session that are acknowledged; None before anything is said, and for a guest."""
    epoch: str = ""
    base: int = 0
    """In this epoch of its room's log, how many lines have their place, or were said before there was any by it."""

    def count(self, lines: int) -> int:
        """So many more are said; how many were said before."""
        self.counted += lines
        return self.counted - lines

    def acknowledge(self, said: int) -> None:
        """Count the first *said* lines of its session as acknowledged."""
        self.acknowledged = max(self.acknowledged or 0, said)

    def base_in(self, epoch: str, before: int) -> int:
        """Return the base in this *epoch*. A new one begins at what is acknowledged, or for a guest at *before*.

        A line that is not acknowledged when its epoch ends may be lost with it: the next one must not be taken then,
        because the speaker would be told that both are kept.
        """
        if self.epoch != epoch:
            self.epoch = epoch
            self.base = before if self.acknowledged is None else self.acknowledged
        return self.base

    def place(self, said: int) -> None:
        """So many lines have their place."""
        self.base = max(self.base, said)


def form(name: str) -> str:
    """The form by which a user is found."""
    return f"name:{name_key(name)}"


def free(store: Store, name: str) -> bool:
    """Let *name* belong to no key any more. Return True if it did. Raises `LogError`."""
    return bool(store.one((FREE, [OWNERS, OWNED], [form(name)])))


def renew_looks(store: Store) -> None:
    """Store by the rules of this version how owned names look, where it was by those of another. Raises `LogError`.

    A name's own capitals are not stored: its looks in small letters count until its owner comes. Blocks.
    """
    at = b"0"
    while True:
        at, found = store.one((OLD_OWNED, [OWNERS], [at, SWEPT_AT_ONCE, f"small{LOOKS_VERSION}:"]))
        names = zip(found[::2], found[1::2], strict=True)
        store.run([(RENEW, [OWNERS], [told, told.split(b" ")[0], *_forms(_name_in(name))]) for name, told in names])
        if at == b"0":
            return


def _name_in(form: bytes) -> str:
    return form.decode().removeprefix("name:")


class Leases:
    """The leases of the node that is called *node*."""

    def __init__(self, pipeline: Pipeline, node: str) -> None:
        self._pipeline = pipeline
        self._node = node
        self._numbers = itertools.count(1)
        self._leases: dict[str, Lease] = {}
        """By origin."""

    def claim(
        self, name: str, origin: str, owner: str, on_lost: Callable[[Code], object], *, attempt: int = 0
    ) -> Lease:
        """Take *name* for the session *origin*, and for the key *owner* if there is one; *on_lost* is told of its loss.

        Raises `Refused` if another user has it, or a later *attempt* of the session, or if Redis is away.
        """
        if not self._pipeline.queue.works:
            raise Refused(Code.UNAVAILABLE)
        number, forms, cancelled = next(self._numbers), _forms(name), f"{_CANCELLED}{self._node}:{origin}"
        told: list[Argument] = [
            self._node, origin, owner or _NO_ONE, attempt, number, INBOX_MESSAGES, RETRY_SECONDS,
            MAX_NAMES_EACH, MAX_NAMES, *forms,
        ]  # fmt: skip
        try:
            answer = self._pipeline.ask(CLAIM, [NAMES, NODES, OWNERS, _TOKEN, INBOX, cancelled, OWNED], told)
        except BaseException:  # it may have been run all the same, or may be yet
            self._pipeline.run(CANCEL, [NAMES, cancelled], (self._node, origin, number, RETRY_SECONDS, *forms))
            raise
        if isinstance(answer, bytes):
            raise Refused(known(answer.decode()))
        lease = self._leases[origin] = Lease(answer[0].decode(), forms, origin, on_lost)
        return lease

    def release(self, lease: Lease) -> None:
        """Give the name back, once all that was said under it has its place. Never waits."""
        if self._leases.get(lease.origin) is lease:
            del self._leases[lease.origin]
        self._pipeline.run(RELEASE, [NAMES], [lease.value, *lease.forms])

    def of(self, origin: str) -> Lease | None:
        """By what lease who has this *origin* speaks."""
        return self._leases.get(origin)

    def revoke(self, value: str) -> None:
        """The user has come by another node, which has taken over the lease with this *value*."""
        for lease in [lease for lease in self._leases.values() if lease.value == value]:
            self._lose(lease, Code.TAKEN_OVER)

    def lose(self, lease: Lease, found: str | None = None) -> None:
        """*lease* is good no more; what was *found* instead of it, if anything.

        Only if that is a later one of the same user has it come from elsewhere, and is not to come back here. Otherwise
        Redis has lost something, or this node counted as dead, and somebody else has the name, perhaps not for long.
        """
        self._lose(lease, Code.TAKEN_OVER if found and _follows(found, lease.value) else Code.UNAVAILABLE)

    def check(self) -> None:
        """Find out which names are lost, when this node has not been alive for a while. Raises `LogError`."""
        for leases in _parts(list(self._leases.values())):
            found = self._pipeline.call(self._pipeline.store.fields, NAMES, [lease.forms[0] for lease in leases])
            for lease, value in zip(leases, found, strict=True):
                if value != lease.value:
                    self.lose(lease, value)

    def _lose(self, lease: Lease, code: Code) -> None:
        if self._leases.get(lease.origin) is lease:  # it may have been given back, or lost, meanwhile
            del self._leases[lease.origin]
            lease.on_lost(code)


def _follows(later: str, earlier: str) -> bool:
    """Return True if one lease is a later one of the same user: of its key, or of its session and no older attempt."""
    found = re.fullmatch(r"(\d+) (\S+) (\S+) (\S+) (\d+)", later)
    if not found:  # another program's
        return False
    number, _, origin, owner, attempt = found.groups()
    before, _, same_origin, same_owner, previous = earlier.split(" ")
    same = int(attempt) >= int(previous) if origin == same_origin else owner == same_owner != _NO_ONE
    return int(number) > int(before) and same


def _forms(name: str) -> tuple[str, ...]:
    """Return the forms of *name*, the one that it is found by first; those of other rules never meet the others."""
    written, small = looks(name)
    return form(name), f"written{LOOKS_VERSION}:{written}", f"small{LOOKS_VERSION}:{small}"


def _parts(leases: list[Lease]) -> Iterator[list[Lease]]:
    return (leases[at : at + CHECKED_AT_ONCE] for at in range(0, len(leases), CHECKED_AT_ONCE))
