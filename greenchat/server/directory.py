"""Who is here: each name belongs to one connection at a time."""

from typing import Generic, Protocol, TypeVar

from greenchat.errors import Code, Refused
from greenchat.protocol.names import looks, name_key

__all__ = ["Directory"]


class _Named(Protocol):
    name: str


T = TypeVar("T", bound=_Named)


class Directory(Generic[T]):
    """Users by name, without regard to case and Unicode form. No two have names that look alike."""

    def __init__(self) -> None:
        self._users: dict[str, T] = {}
        self._written: set[str] = set()
        self._in_small_letters: set[str] = set()

    def claim(self, user: T) -> None:
        """Give *user* its name. Raises `Refused` if that is taken, or looks like one that is."""
        if self.find(user.name):
            raise Refused(Code.NAME_TAKEN)
        written, small = looks(user.name)
        if written in self._written or small in self._in_small_letters:
            raise Refused(Code.NAME_ALIKE)
        self._users[name_key(user.name)] = user
        self._written.add(written)
        self._in_small_letters.add(small)

    def release(self, user: T) -> None:
        """Free the name of *user*, if it has it."""
        if self.find(user.name) is user:
            written, small = looks(user.name)
            del self._users[name_key(user.name)]
            self._written.remove(written)
            self._in_small_letters.remove(small)

    def find(self, name: str) -> T | None:
        """Who has *name*."""
        return self._users.get(name_key(name))
