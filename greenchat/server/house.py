"""What all connections of a server share."""

from dataclasses import dataclass

from greenchat.server.abroad import Abroad
from greenchat.server.admission import Admission
from greenchat.server.certificate import Certificate
from greenchat.server.directory import Directory
from greenchat.server.door import Door
from greenchat.server.pace import Pace
from greenchat.server.rooms import Rooms
from greenchat.server.tickets import Party, TicketOffice

__all__ = ["House"]


@dataclass(frozen=True, slots=True)
class House:
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
    abroad: Abroad | None
    """Without it, this server is a chat of its own."""
