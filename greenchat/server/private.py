"""Messages from one user to another alone; they are in no room, and in no log."""

from typing import Protocol

from greenchat.errors import BadName, Code, ProtocolError, sentence
from greenchat.protocol.names import user_name
from greenchat.protocol.records import Private, Record, Undelivered
from greenchat.protocol.text import safe_line

__all__ = ["pass_on", "undelivered"]


class _Sender(Protocol):
    name: str

    def tell(self, record: Record) -> None:
        """Send *record*. Raises `ProtocolError` if it would be too long."""


class _Receiver(_Sender, Protocol):
    listen: int | None
    """None for a guest, who knows no records."""

    @property
    def behind(self) -> bool:
        """Whether much waits for it to read."""


def pass_on(sender: _Sender, receiver: _Receiver | None, who: str, text: str) -> None:
    """Tell *receiver*, who was asked for as *who*, what *sender* says; the sender hears if that can't be."""
    code = Code.TOO_MANY if receiver and receiver.behind else Code.UNKNOWN_USER
    if receiver and receiver.listen is not None and not receiver.behind:
        try:
            receiver.tell(Private(sender.name, safe_line(text)))
        except ProtocolError as error:
            code = error.code
        else:
            return
    undelivered(sender, who, code)


def undelivered(sender: _Sender, who: str, code: Code) -> None:
    """Tell *sender* that what it said to *who* alone came to nothing; what can be no name is not repeated."""
    try:
        user_name(who)
    except BadName:
        who = ""
    sender.tell(Undelivered(who, code, sentence(code)))
