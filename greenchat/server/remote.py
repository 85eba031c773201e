"""The users who are on other nodes of the same chat: their names, messages to them alone, and files between nodes.

requester ──get──▶ its node ──inbox──▶ owner's node: the office there sees a party like any other
requester ◀─take── its node ◀─inbox─── owner's node, which relays the file, too, if need be
"""

import contextlib
import dataclasses
import hashlib
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator
from typing import Any, Protocol

from greenchat.addresses import is_address, is_loopback
from greenchat.backplane.leases import Lease
from greenchat.backplane.node import Message, Node
from greenchat.errors import Code, sentence
from greenchat.protocol.codec import SOH, decode, encode
from greenchat.protocol.limits import MAX_REMOTE_REQUESTERS, REMOTE_REQUESTER_SECONDS
from greenchat.protocol.names import name_key
from greenchat.protocol.records import Addresses, Counts, Fail, Get, Record, Take
from greenchat.protocol.text import safe_line
from greenchat.server.directory import Directory
from greenchat.server.private import pass_on, undelivered
from greenchat.server.rooms import Rooms
from greenchat.server.tickets import Party, TicketOffice

__all__ = ["RemoteUsers"]


class _User(Protocol):
    """A user of this node."""

    name: str
    host: str
    origin: str
    attempt: int
    listen: int | None
    certificate: str

    @property
    def behind(self) -> bool:
        """Whether much waits for it to read."""

    @property
    def here(self) -> bool:
        """Whether it has not left."""

    def tell(self, record: Record) -> None:
        """Send *record*."""

    def expel(self, code: Code) -> None:
        """Tell it why, end its connection, and give its name back."""


@dataclasses.dataclass(eq=False)
class _RemoteUser:
    """A user of another *node*, as a party of this one's office."""

    name: str
    origin: str
    node: str
    remote: "RemoteUsers"
    host: str = ""
    certificate: str = ""
    listen: int | None = 0
    returns: bool = False
    seen: float = dataclasses.field(default_factory=time.monotonic)

    behind = False

    def tell(self, record: Record) -> None:
        """Send *record* by its node."""
        if isinstance(record, Take):
            record = record.replace(relay=self.remote.addresses)
        self.remote.send(self, record)


class RemoteUsers:
    """What this server has to do with the others of *node*; they reach its relay at these *addresses*."""

    def __init__(
        self, node: Node, directory: Directory[Party], office: TicketOffice, rooms: Rooms, addresses: Addresses
    ) -> None:
        self.addresses = addresses
        self._node = node
        self._directory = directory
        self._office = office
        self._rooms = rooms
        self._requesters: OrderedDict[tuple[str, str], _RemoteUser] = OrderedDict()
        """By node and origin, those who asked last at the end."""
        self._asked: defaultdict[_User, set[str]] = defaultdict(set)
        """The nodes that somebody has asked for files."""
        node.about = self._about
        node.on_message = self._take

    def claim(self, user: _User) -> Lease:
        """Have nobody on another node be called as *user* is. Raises `Refused`."""
        owner = hashlib.sha256(user.certificate.encode()).hexdigest() if user.certificate else ""
        return self._node.leases.claim(user.name, user.origin, owner, user.expel, attempt=user.attempt)

    def release(self, user: _User, lease: Lease) -> None:
        """*user* has left. Never waits."""
        self._node.leases.release(lease)
        for node in self._asked.pop(user, ()):
            self._say_left(user, node)

    def settle(self) -> None:
        """Wait until names that were given back are free, unless Redis is away. Raises `Refused` if it takes long."""
        if self._node.pipeline.queue.works:
            self._node.pipeline.queue.settle()

    def counts(self) -> Counts:
        """The rooms of all nodes with somebody in them, by name, and how many. Raises `Refused` if Redis is away."""
        names, counts = dict[str, str](), Counter[str]()
        for name, count in (*self._rooms.counts(), *_rooms_of(self._node.others())):
            counts[names.setdefault(name_key(name), name)] += count
        return tuple(sorted(counts.items()))

    def pass_on(self, sender: _User, who: str, text: str) -> None:
        """Tell the user *who*, on whatever node, what *sender* says; the sender hears if that can't be."""

        def on_result(node: str) -> None:
            if not node:
                fail(Code.UNKNOWN_USER)

        def fail(code: Code) -> None:
            undelivered(sender, who, code)

        self._node.wait()
        message = {
            "t": "private", "to": who, "text": safe_line(text),
            "node": self._node.id, "from": sender.name, "origin": sender.origin,
        }  # fmt: skip
        self._node.tell_holder(who, message, sender.origin, on_result, fail)

    def ask(self, requester: _User, get: Get) -> None:
        """Pass a request on to the node of the owner, or say that there is none."""

        def on_result(node: str) -> None:
            if not node:
                fail(self._office.absence(get.owner))
            elif requester.here:
                self._asked[requester].add(node)
            else:
                self._say_left(requester, node)

        def fail(code: Code) -> None:
            requester.tell(Fail(get.id, code, sentence(code)))

        self._node.wait()
        message = {
            "t": "get", "get": _text(get), "node": self._node.id, "name": requester.name, "origin": requester.origin,
            "host": self._host(requester), "certificate": requester.certificate,
        }  # fmt: skip
        self._node.tell_holder(get.owner, message, requester.origin, on_result, fail)

    def send(self, to: _RemoteUser, record: Record) -> None:
        """Have the node of a user tell it *record*."""
        message = {"t": "record", "to": to.name, "origin": to.origin, "record": _text(record)}
        self._node.tell(to.node, message)

    def _say_left(self, user: _User, node: str) -> None:
        self._node.tell(node, {"t": "left", "origin": user.origin, "node": self._node.id})

    def _host(self, requester: _User) -> str:
        """As the owner's node would see it, if this machine is another."""
        here = self.addresses[0][0]
        if is_loopback(requester.host) and is_address(here) and not is_loopback(here):
            return here
        return requester.host

    def _about(self) -> Message:
        return {"rooms": self._rooms.counts()}

    def _take(self, message: Message) -> None:
        match message["t"]:
            case "private":
                receiver: Any = self._directory.find(message["to"])
                pass_on(self._remote_user(message), receiver, message["to"], message["text"])
            case "get" if isinstance(get := _record(message["get"]), Get):
                self._office.ask(self._requester(message), get)
            case "left":
                if requester := self._requesters.pop((message["node"], message["origin"]), None):
                    self._office.forget(requester)
            case "record" if record := _record(message["record"]):
                user: Any = self._directory.find(message["to"])
                if user and user.origin == message["origin"]:
                    user.tell(record)

    def _remote_user(self, message: Message) -> _RemoteUser:
        return _RemoteUser(message.get("name") or message["from"], message["origin"], message["node"], self)

    def _requester(self, message: Message) -> _RemoteUser:
        """Who asks; the same object each time, as long as anything that it asked for may be open."""
        key = message["node"], message["origin"]
        requester = self._requesters.pop(key, None) or self._remote_user(message)
        requester.host, requester.certificate = message["host"], message["certificate"]
        requester.seen = time.monotonic()
        self._requesters[key] = requester
        self._forget_some()
        return requester

    def _forget_some(self) -> None:
        since = time.monotonic() - REMOTE_REQUESTER_SECONDS
        while self._requesters and (len(self._requesters) > MAX_REMOTE_REQUESTERS or self._oldest.seen < since):
            self._office.forget(self._requesters.popitem(last=False)[1])

    @property
    def _oldest(self) -> _RemoteUser:
        return next(iter(self._requesters.values()))


def _rooms_of(others: list[Message]) -> Iterator[tuple[str, int]]:
    for about in others:
        with contextlib.suppress(KeyError, TypeError, ValueError):  # of a version that tells something else
            yield from [(str(name), int(count)) for name, count in about["rooms"]]


def _text(record: Record) -> str:
    return encode(record).decode()


def _record(text: str) -> Record | None:
    """None if it is of a kind that only a newer version knows. Raises `ProtocolError`."""
    return decode(text.encode().removeprefix(SOH).removesuffix(b"\n"))
