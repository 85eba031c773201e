"""The other users of a server by their keys, as they were met before."""

from typing import TYPE_CHECKING

from greenchat.errors import Code, TransferError
from greenchat.protocol.names import name_key
from greenchat.protocol.text import safe_line
from greenchat.security.tls import fingerprint

if TYPE_CHECKING:
    from greenchat.security.known import Known

__all__ = ["Peers", "is_named"]


def is_named(who: str, name: str) -> bool:
    """Whether *who*, from the file of known peers, is the user *name* of any server."""
    return who.partition(" ")[2] == _key(name)


def _key(name: str) -> str:
    return safe_line(name_key(name))  # without line ends, whatever a server says


class Peers:
    """The users of *server*, as far as they are *known*; with no file to remember them in, nobody ever is."""

    def __init__(self, known: "Known | None", server: tuple[str, int]) -> None:
        self._known = known
        self._server = server

    def knows(self, name: str, certificate: bytes) -> bool:
        """Whether *name* is known by this *certificate*; nobody is by an empty one.

        Raises `TransferError` if it was another, or `SecurityError`.
        """
        if self._known is None or not certificate:
            return False
        mark = self._known.find(self._who(name))
        if mark not in (None, fingerprint(certificate)):
            from shlex import quote

            raise TransferError(
                Code.KEY_CHANGED,
                f"{name} has not the key that was known before, and may be somebody else;"
                f" if {name} says that it is right: greenchat peers forget {quote(name)}",
            )
        return mark is not None

    def remember(self, name: str, certificate: bytes) -> None:
        """From now on *name* is known by this *certificate*. Raises `TransferError` or `SecurityError`."""
        if self._known is not None and certificate and not self.knows(name, certificate):
            self._known.add(self._who(name), fingerprint(certificate))

    def _who(self, name: str) -> str:
        host, port = self._server
        return f"{host}:{port} {_key(name)}"
