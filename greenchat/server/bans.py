"""Bans that reach those who are here already."""

import logging
from collections.abc import Callable, Iterable
from typing import Protocol

import gevent

from greenchat.errors import Code, SecurityError
from greenchat.net import next_turn
from greenchat.protocol.limits import BAN_SECONDS
from greenchat.server.registry import Registry

__all__ = ["watch_bans"]

_log = logging.getLogger(__name__)


class _Present(Protocol):
    def marks(self) -> set[str]:
        """What a ban of it would name."""

    def expel(self, code: Code) -> None:
        """End it, and give its name back."""


def watch_bans(registry: Registry, present: Callable[[], Iterable[_Present]]) -> None:
    """For ever, look whether another program has changed *registry*, and expel those of *present* who are banned."""
    seen = None
    while True:
        try:
            if (version := registry.version()) != seen:
                _expel(set(registry.bans()), present())
                seen = version
        except SecurityError as error:
            _log.error("%s", error)
        gevent.sleep(BAN_SECONDS)


def _expel(bans: set[str], present: Iterable[_Present]) -> None:
    for each in list(present) if bans else ():
        if not bans.isdisjoint(each.marks()):
            each.expel(Code.BANNED)
        next_turn()  # there may be thousands
