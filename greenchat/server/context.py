"""What all connections of a server share."""

from dataclasses import dataclass

from greenchat.server.admission import Admission
from greenchat.server.certificate import Certificate
from greenchat.server.directory import Directory
from greenchat.server.door import Door
from greenchat.server.pace import Pace
from greenchat.server.remote import RemoteUsers
from greenchat.server.rooms import Rooms
from greenchat.server.tickets import Party, TicketOffice

__all__ = ["ServerContext"]


@dataclass(frozen=True, slots=True)
class ServerContext:
    """The parts of a server that its connections come to."""

    admission: Admission
    rooms: Rooms
    directory: Directory[Party]
    office: TicketOffice
    pace: Pace
    backlog: int
    """Bytes that may wait for a member that reads slowly."""
    certificate: Certificate | None
    """Without one, nothing is encrypted."""
    door: Door | None
    """Without one, everybody may have any name that is free."""
    remote: RemoteUsers | None
    """Without it, this server is a chat of its own."""
