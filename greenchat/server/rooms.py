"""The rooms of a server, each with its own log, order and members."""

import weakref
from collections import OrderedDict
from collections.abc import Iterator

from gevent.lock import BoundedSemaphore

from greenchat.errors import Code, Refused
from greenchat.log.log import Logs
from greenchat.protocol.limits import MAX_ROOMS, ROOMS_LISTED
from greenchat.protocol.names import name_key, user_name
from greenchat.protocol.records import Counts
from greenchat.protocol.records import Rooms as Listed
from greenchat.server.room import Budget, Room

__all__ = ["LOBBY", "Rooms"]

LOBBY = "lobby"
"""Where everybody is who names no room."""


class Rooms:
    """Rooms by name; one that nobody is in any more is kept, with its last lines, for those who come back.

    A new member of a room hears its last *grace* seconds first.
    """

    def __init__(self, logs: Logs, grace: float = 0) -> None:
        self._logs = logs
        self._grace = grace
        self._budget = Budget()
        self._rooms: OrderedDict[str, Room] = OrderedDict()
        """Those that were entered last at the end."""
        self._known: weakref.WeakValueDictionary[str, Room] = weakref.WeakValueDictionary()
        """These, and those that are forgotten but for somebody who still has business there."""
        self._opening: weakref.WeakValueDictionary[str, BoundedSemaphore] = weakref.WeakValueDictionary()
        """For each room that is being opened, because that may take long, and none is to be opened twice."""

    def find(self, name: str) -> Room:
        """The room *name*, which may be new. May wait.

        Raises `BadName`, or `Refused` if there are too many, or if its log can't be had at the moment.
        """
        name = user_name(name) if name else LOBBY
        key = name_key(name)
        room = self._known.get(key)
        if room is None:
            room = self._open(key, name)
        if key not in self._rooms:
            self._make_place()
            self._rooms[key] = room
        self._rooms.move_to_end(key)
        return room

    def counts(self) -> Counts:
        """The rooms with somebody in them, by name, and how many."""
        return tuple((room.name, len(room)) for _, room in sorted(self._rooms.items()) if len(room))

    @staticmethod
    def listed(counts: Counts) -> Iterator[Listed]:
        """*counts* as records."""
        for at in range(0, max(1, len(counts)), ROOMS_LISTED):
            more = max(0, len(counts) - at - ROOMS_LISTED)
            yield Listed(counts[at : at + ROOMS_LISTED], more)

    def close(self) -> None:
        """Hand out what is left."""
        for room in self._rooms.values():
            room.close()

    def _open(self, key: str, name: str) -> Room:
        opening = self._opening.setdefault(key, BoundedSemaphore())
        with opening:
            room = self._known.get(key)
            if room is None:
                room = self._known[key] = Room(name, self._logs, self._budget, self._grace)
            return room

    def _make_place(self) -> None:
        if len(self._rooms) < MAX_ROOMS:
            return
        for key, room in self._rooms.items():
            if not len(room):
                del self._rooms[key]
                return
        raise Refused(Code.TOO_MANY_ROOMS)
