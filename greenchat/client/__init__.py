"""The client: a connection to the room, files to and from others, and the menu for a terminal."""

from greenchat.client.client import ChatClient, Message
from greenchat.client.consent import Accept, Question
from greenchat.client.downloads import Received
from greenchat.client.routes import Route
from greenchat.client.uploads import Served

__all__ = ["Accept", "ChatClient", "Message", "Question", "Received", "Route", "Served"]
