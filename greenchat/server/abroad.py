"""The users who are on other nodes of the same chat: their names, messages to them alone, and files between nodes.

requester ──get──▶ its node ──inbox──▶ owner's node: the office there sees a party like any other
requester ◀─take── its node ◀─inbox─── owner's node, which relays the file, too, if need be
"""

import dataclasses
import hashlib
import time
from collections import Counter, defaultdict
from typing import Any, Protocol

from greenchat.backplane.names import Lease
from greenchat.backplane.node import Message, Node
from greenchat.errors import Code, sentence
from greenchat.net import is_loopback
from greenchat.protocol.codec import SOH, decode, encode
from greenchat.protocol.limits import ALIVE_SECONDS
from greenchat.protocol.records import Addresses, Counts, Fail, Get, Record, Take, Undelivered
from greenchat.protocol.text import safe_line
from greenchat.server.directory import Directory
from greenchat.server.private import pass_on
from greenchat.server.rooms import Rooms
from greenchat.server.tickets import Party, TicketOffice

__all__ = ["Abroad"]


class _User(Protocol):
    """A user of this node."""

    name: str
    host: str
    origin: str
    listen: int | None
    certificate: str

    @property
    def behind(self) -> bool:
        """Whether much waits for it to read."""

    def tell(self, record: Record) -> None:
        """Send *record*."""

    def expel(self, code: Code) -> None:
        """Tell it why, end its connection, and give its name back."""


@dataclasses.dataclass(eq=False)
class _Guest:
    """A user of another *node*, as a party of this one's office."""

    name: str
    host: str
    certificate: str
    node: str
    abroad: "Abroad"
    listen: int | None = 0
    seen: float = dataclasses.field(default_factory=time.monotonic)

    behind = False

    def tell(self, record: Record) -> None:
        """Send *record* by its node."""
        if isinstance(record, Take):
            record = dataclasses.replace(record, relay=self.abroad.addresses)
        self.abroad.send(self.node, self.name, record)


class Abroad:
    """What this server has to do with the others of *node*; they reach its relay at these *addresses*."""

    def __init__(
        self, node: Node, directory: Directory[Party], office: TicketOffice, rooms: Rooms, addresses: Addresses
    ) -> None:
        self.addresses = addresses
        self._node = node
        self._directory = directory
        self._office = office
        self._rooms = rooms
        self._guests: dict[tuple[str, str], _Guest] = {}
        self._asked: defaultdict[Party, set[str]] = defaultdict(set)
        """The nodes that somebody has asked for files."""
        node.about = self._about
        node.on_message = self._take

    def claim(self, user: _User) -> Lease:
        """Have nobody on another node be called as *user* is. Raises `Refused`."""
        owner = hashlib.sha256(user.certificate.encode()).hexdigest() if user.certificate else ""
        return self._node.names.claim(user.name, user.origin, owner, user.expel)

    def release(self, user: Party, lease: Lease) -> None:
        """*user* has left."""
        self._node.names.release(lease)
        for node in self._asked.pop(user, ()):
            self._node.tell(node, {"t": "left", "name": user.name, "node": self._node.id})

    def counts(self) -> Counts:
        """The rooms of all nodes with somebody in them, by name, and how many."""
        counts = Counter(dict(self._rooms.counts()))
        for about in self._node.others.values():
            counts.update({str(name): int(count) for name, count in about.get("rooms", ())})
        return tuple(sorted(counts.items()))

    def pass_on(self, sender: _User, who: str, text: str) -> None:
        """Tell the user *who*, on whatever node, what *sender* says; the sender hears if that can't be."""

        def on_result(node: str) -> None:
            if not node:
                sender.tell(_undelivered(who, Code.UNKNOWN_USER))

        self._node.wait()
        message = {"t": "private", "to": who, "from": sender.name, "text": safe_line(text), "node": self._node.id}
        self._node.tell_holder(who, message, on_result)

    def ask(self, requester: Party, get: Get) -> None:
        """Pass a request on to the node of the owner, or say that there is none."""

        def on_result(node: str) -> None:
            if node:
                self._asked[requester].add(node)
            else:
                requester.tell(Fail(get.id, Code.UNKNOWN_OWNER, sentence(Code.UNKNOWN_OWNER)))

        self._node.wait()
        message = {
            "t": "get", "get": _text(get), "node": self._node.id,
            "name": requester.name, "host": self._host(requester), "certificate": requester.certificate,
        }  # fmt: skip
        self._node.tell_holder(get.owner, message, on_result)

    def send(self, node: str, name: str, record: Record) -> None:
        """Have *node* tell *record* to its user *name*."""
        self._node.tell(node, {"t": "record", "to": name, "record": _text(record)})

    def _host(self, requester: Party) -> str:
        """As the owner's node would see it, if this machine is another."""
        here = self.addresses[0][0]
        return here if is_loopback(requester.host) and not is_loopback(here) else requester.host

    def _about(self) -> Message:
        return {"rooms": self._rooms.counts()}

    def _take(self, message: Message) -> None:
        match message["t"]:
            case "private":
                self._deliver(message)
            case "get":
                self._office.ask(self._guest(message), _record(message["get"]))
            case "left":
                if guest := self._guests.pop((message["node"], message["name"]), None):
                    self._office.forget(guest)
            case "record":
                if user := self._directory.find(message["to"]):
                    user.tell(_record(message["record"]))

    def _deliver(self, message: Message) -> None:
        sender = _Guest(message["from"], "", "", message["node"], self)
        receiver: Any = self._directory.find(message["to"])
        pass_on(sender, receiver, message["to"], message["text"])

    def _guest(self, message: Message) -> _Guest:
        node, name = message["node"], message["name"]
        for key, guest in list(self._guests.items()):
            if guest.node not in self._node.others and guest.seen < time.monotonic() - ALIVE_SECONDS:
                self._office.forget(self._guests.pop(key))
        guest = self._guests.setdefault((node, name), _Guest(name, "", "", node, self))
        guest.host, guest.certificate, guest.seen = message["host"], message["certificate"], time.monotonic()
        return guest


def _undelivered(who: str, code: Code) -> Undelivered:
    return Undelivered(who, code, sentence(code))


def _text(record: Record) -> str:
    return encode(record).decode()


def _record(text: str) -> Any:
    return decode(text.encode().removeprefix(SOH).removesuffix(b"\n"))
