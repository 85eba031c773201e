"""The server: a room, who is in it, and the introductions and the relay for their files."""

from greenchat.lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from greenchat.server.server import ChatServer

__all__ = ["ChatServer"]

__getattr__, __dir__ = lazy(__name__, {"ChatServer": "greenchat.server.server"})
