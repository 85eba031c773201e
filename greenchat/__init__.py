"""A chat room and a file exchange for the terminal, on green threads.

To run: ``greenchat server`` and ``greenchat client``. To embed: `ChatServer` and `ChatClient`.
"""

from greenchat.lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from greenchat.client import Accept, ChatClient, Message, Question, Received, Route, Served
    from greenchat.errors import GreenchatError
    from greenchat.server import ChatServer

__all__ = ["Accept", "ChatClient", "ChatServer", "GreenchatError", "Message", "Question", "Received", "Route", "Served"]

__getattr__, __dir__ = lazy(
    __name__,
    {"ChatServer": "greenchat.server", "GreenchatError": "greenchat.errors"}
    | dict.fromkeys(("Accept", "ChatClient", "Message", "Question", "Received", "Route", "Served"), "greenchat.client"),
)
