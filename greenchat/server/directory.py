"""Who is here: each name belongs to one connection at a time."""

from typing import Generic, Protocol, TypeVar

from greenchat.errors import Code, Refused
from greenchat.protocol.names import name_key

__all__ = ["Directory"]


class _Named(Protocol):
    name: str


T = TypeVar("T", bound=_Named)


class Directory(Generic[T]):
    """Users by name, without regard to case and Unicode form."""

    def __init__(self) -> None:
        self._users: dict[str, T] = {}

    def claim(self, user: T) -> None:
        """Give *user* its name. Raises `Refused` if the name is taken."""
        if self._users.setdefault(name_key(user.name), user) is not user:
            raise Refused(Code.NAME_TAKEN)

    def release(self, user: T) -> None:
        """Free the name of *user*, if it has it."""
        if self.find(user.name) is user:
            del self._users[name_key(user.name)]

    def find(self, name: str) -> T | None:
        """Who has *name*."""
        return self._users.get(name_key(name))
