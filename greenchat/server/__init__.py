"""The server: a room, who is in it, and the introductions and the relay for their files."""

from greenchat.server.server import ChatServer

__all__ = ["ChatServer"]
