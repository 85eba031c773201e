"""A chat room and a file exchange for the terminal, on green threads.

To run: ``greenchat server`` and ``greenchat client``. To embed: `ChatServer` and `ChatClient`.
"""

import sys  # nothing else, and no syntax that Python 2 cannot read: see `greenchat.launch`

if sys.version_info < (3, 11):  # noqa: UP036 - a checkout may be started by any Python
    sys.exit(
        "greenchat needs Python 3.11 or newer, and this is " + sys.version.split()[0] + ": start it with a newer one"
    )

from greenchat.lazy import lazy  # which older versions cannot read

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
