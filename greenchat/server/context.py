"""What all connections of a server share."""

from typing import TYPE_CHECKING, NamedTuple

from greenchat.server.admission import Admission
from greenchat.server.directory import Directory
from greenchat.server.pace import Pace
from greenchat.server.rooms import Rooms
from greenchat.server.tickets import Party, TicketOffice

if TYPE_CHECKING:
    from greenchat.server.certificate import Certificate
    from greenchat.server.door import Door
    from greenchat.server.remote import RemoteUsers

__all__ = ["ServerContext"]


class ServerContext(NamedTuple):
    """The parts of a server that its connections come to."""

    admission: Admission
    rooms: Rooms
    directory: Directory[Party]
    office: TicketOffice
    pace: Pace
    backlog: int
    """Bytes that may wait for a member that reads slowly."""
    certificate: "Certificate | None"
    """Without one, nothing is encrypted."""
    door: "Door | None"
    """Without one, everybody may have any name that is free."""
    remote: "RemoteUsers | None"
    """Without it, this server is a chat of its own."""
