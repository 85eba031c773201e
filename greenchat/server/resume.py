"""Coming back to a room: who somebody is whatever connection it has, and what it missed."""

import hashlib
import itertools
import os
from collections.abc import Iterator

from greenchat.errors import Code, Refused
from greenchat.log.log import Entry, Log
from greenchat.protocol.limits import MAX_HISTORY
from greenchat.protocol.names import name_key
from greenchat.protocol.records import Hello

__all__ = ["new_origin", "origin_of", "replay", "resume_position"]

_run = os.urandom(4).hex()
_numbers = itertools.count()


def new_origin() -> str:
    """For who will not come back as the same."""
    return f"~{_run}{next(_numbers):x}"  # what was said in another run is kept, too


def origin_of(hello: Hello) -> str:
    """Who it is that has this secret, as this user in this room: nothing in it tells the secret."""
    parts = (hello.session, name_key(hello.name), name_key(hello.room))
    return hashlib.sha256(b"".join(hashlib.sha256(part.encode()).digest() for part in parts)).hexdigest()[:32]


def resume_position(log: Log, hello: Hello, grace: int) -> int:
    """Return the position after which the client of *hello* hears all: for a new one *grace*, or its history.

    One from another epoch has missed all that there is in this one; what the log has forgotten, everybody has missed.
    """
    if not hello.epoch:
        position = min(log.position - min(hello.history, MAX_HISTORY), grace)
    elif hello.epoch == log.epoch:
        position = min(hello.position, log.position)
    else:
        position = 0
    return max(position, log.begin)


def replay(log: Log, position: int) -> Iterator[list[Entry]]:
    """What comes after *position*, a part at a time, until there is no more, without a gap.

    After the last part nothing has waited. Raises `Refused` if the log has forgotten some meanwhile.
    """
    while position < log.position:
        entries = log.read(position)
        if not entries or entries[0].position - entries[0].lines != position:
            raise Refused(Code.SLOW_CONSUMER)
        position = entries[-1].position
        yield entries
