"""The client: a connection to the room, files to and from others, and the menu for a terminal."""

from greenchat.lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from greenchat.client.client import ChatClient, Message
    from greenchat.client.consent import Accept, Question
    from greenchat.client.downloads import Received
    from greenchat.client.routes import Route
    from greenchat.client.uploads import Served

__all__ = ["Accept", "ChatClient", "Message", "Question", "Received", "Route", "Served"]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "Accept": "greenchat.client.consent",
        "ChatClient": "greenchat.client.client",
        "Message": "greenchat.client.client",
        "Question": "greenchat.client.consent",
        "Received": "greenchat.client.downloads",
        "Route": "greenchat.client.routes",
        "Served": "greenchat.client.uploads",
    },
)
