"""File requests from asking to meeting: each one answered, each permission good once and for a limited time.

requester ──get──▶ office ──want──▶ owner
requester ◀─take── office ◀─have─── owner         a ticket, and a key for each side of a relay
requester ─relay─▶ office ──dial──▶ owner ─relay─▶ office: both sides are here, and join the relay room
"""

import contextlib
import math
import os
import time
from collections import OrderedDict, defaultdict
from typing import Protocol

import gevent
from gevent import socket
from gevent.event import AsyncResult

from greenchat.addresses import is_loopback
from greenchat.errors import Code, TransferError, known, sentence
from greenchat.net import send_now
from greenchat.protocol.codec import encode
from greenchat.protocol.limits import (
    ANSWER_SECONDS,
    MAX_ABSENT,
    MAX_FILE_NAME,
    MAX_REQUESTS,
    MEET_SECONDS,
    RETURN_SECONDS,
    TICKET_SECONDS,
)
from greenchat.protocol.names import name_key
from greenchat.protocol.records import Addresses, Dial, Fail, Get, Go, Have, Record, Refuse, Take, Want
from greenchat.server.directory import Directory
from greenchat.server.relay import RelayRoom
from greenchat.server.wants import Wants

__all__ = ["Party", "TicketOffice"]


class Party(Protocol):
    """A user who may ask for files and, unless a guest, serve them."""

    name: str
    host: str
    """The address that the server sees."""
    listen: int | None
    """The port for file requests: 0 if there is none, None for a guest, who cannot serve."""
    certificate: str
    """What it has proved to have the key of, as a record has it; nothing if it has not."""

    returns: bool
    """True if it may come back after it has lost its connection."""

    def tell(self, record: Record) -> None:
        """Send *record* without ever waiting and without raising."""


def _secret() -> str:
    """Return 128 random bits, in hexadecimal."""
    return os.urandom(16).hex()


class _Transfer:
    """A request, from asking until its two sides meet."""

    def __init__(self, get: Get, requester: Party, owner: Party) -> None:
        self.id, self.file = get.id, get.file
        self.requester = requester
        self.owner = owner
        self.ticket, self.requester_key, self.owner_key = _secret(), _secret(), _secret()
        self.granted = False
        self.timer: gevent.Greenlet[..., None] | None = None
        self.waiting: socket.socket | None = None
        """The requester's side of a relay, while it waits for the owner's."""
        self.met: AsyncResult[None] = AsyncResult()

    @property
    def users(self) -> tuple[str, str]:
        """Requester and owner, in the one form of their names that the relay counts them under."""
        return name_key(self.requester.name), name_key(self.owner.name)


class TicketOffice:
    """Introduces requesters to owners."""

    def __init__(self, directory: Directory[Party], relay: RelayRoom) -> None:
        self._directory = directory
        self._relay = relay
        self._by_ticket: dict[str, _Transfer] = {}
        self._by_key: dict[str, _Transfer] = {}
        self._closed = False
        self._of: dict[Party, dict[_Transfer, None]] = defaultdict(dict)
        """Each party's transfers, in either role, oldest first."""
        self._wants: defaultdict[Party, Wants[Party, _Transfer]] = defaultdict(Wants)
        """What each owner has still to answer."""
        self._left: OrderedDict[str, float] = OrderedDict()
        """When users who may come back have left, by name."""

    def ask(self, requester: Party, get: Get) -> None:
        """Pass a request on to the owner, or say what is wrong with it."""
        try:
            owner = self._owner(requester, get)
            self._make_room(requester)
        except TransferError as error:
            requester.tell(Fail(get.id, error.code, str(error)))
            return
        transfer = _Transfer(get, requester, owner)
        self._by_ticket[transfer.ticket] = transfer
        self._of[requester][transfer] = self._of[owner][transfer] = None
        self._expire_in(ANSWER_SECONDS, transfer)
        self._wants[owner].add(requester, transfer)
        self._pass_on(owner)

    def have(self, owner: Party, have: Have) -> bool:
        """Tell the requester where it may fetch the file that the owner has; return True if somebody asked for it."""
        transfer = self._unanswered(owner, have.ticket)
        if transfer is None:
            return False
        transfer.granted = True
        self._settle(transfer)
        self._by_key[transfer.requester_key] = transfer
        self._expire_in(TICKET_SECONDS, transfer)
        direct = _direct(owner, transfer.requester)
        if not direct:
            with contextlib.suppress(TransferError):  # it is told when they come to the relay
                self._relay.start()
        transfer.requester.tell(
            Take(
                transfer.id,
                have.ticket,
                have.size,
                direct,
                transfer.requester_key,
                have.algorithms,
                owner.certificate,
            )
        )
        return True

    def refuse(self, owner: Party, refuse: Refuse) -> bool:
        """Tell the requester that the owner does not hand out the file; return True if somebody asked for it."""
        transfer = self._unanswered(owner, refuse.ticket)
        if transfer is not None:
            self._fail(transfer, known(refuse.code))
        return transfer is not None

    def meet(self, key: str, sock: socket.socket) -> None:
        """Take *sock* as one side of a relayed transfer: the first waits for the second, which starts the relay.

        On return the relay room owns the connection. Raises `TransferError` if there will be no relay.
        """
        transfer = self._by_key.pop(key, None)
        if transfer is None:
            raise TransferError(Code.BAD_TICKET)
        if key == transfer.owner_key:
            self._join(transfer, sock)
        else:
            self._wait_for_owner(transfer, sock)

    def forget(self, party: Party) -> None:
        """Tell whoever waits for *party* that it has left."""
        self._note_absence(party)
        self._wants.pop(party, None)
        for transfer in list(self._of.pop(party, ())):
            self._fail(transfer, Code.OWNER_LEFT if party is transfer.owner else Code.INTERRUPTED)

    def absence(self, name: str) -> Code:
        """Return why nobody is called *name*: a user may have left a moment ago, and be on its way back."""
        left = self._left.get(name_key(name), -math.inf)
        return Code.OWNER_LEFT if time.monotonic() < left + RETURN_SECONDS else Code.UNKNOWN_OWNER

    def _note_absence(self, party: Party) -> None:
        if party.returns:
            key = name_key(party.name)
            self._left.pop(key, None)
            self._left[key] = time.monotonic()
            if len(self._left) > MAX_ABSENT:
                self._left.popitem(last=False)

    def close(self) -> None:
        """Take no more requests; what was granted may still go on."""
        self._closed = True

    def _owner(self, requester: Party, get: Get) -> Party:
        if self._closed:
            raise TransferError(Code.SHUTDOWN)
        if len(get.file.encode()) > MAX_FILE_NAME:
            raise TransferError(Code.BAD_FILE_NAME)
        owner = self._directory.find(get.owner)
        if owner is None:
            raise TransferError(self.absence(get.owner))
        if owner is requester:
            raise TransferError(Code.OWN_FILE)
        if owner.listen is None:
            raise TransferError(Code.NO_FILES)
        encrypted = bool(owner.certificate and requester.certificate)
        if not encrypted and not (is_loopback(owner.host) and is_loopback(requester.host)):
            raise TransferError(Code.NO_KEY)
        return owner

    def _pass_on(self, owner: Party) -> None:
        for transfer in self._wants[owner].due():
            requester = transfer.requester
            owner.tell(Want(transfer.ticket, requester.name, transfer.file, requester.certificate))

    def _settle(self, transfer: _Transfer) -> None:
        """Ask the owner for what is next, if it was asked for this."""
        owner = transfer.owner
        if owner in self._wants:
            self._wants[owner].remove(transfer.requester, transfer)
            self._pass_on(owner)
            if not self._wants[owner]:
                del self._wants[owner]

    def _make_room(self, requester: Party) -> None:
        """Forget the oldest ticket that lies unused, if there are too many."""
        if len(self._of[requester]) < MAX_REQUESTS:
            return
        mine = [transfer for transfer in self._of[requester] if transfer.requester is requester]
        if len(mine) < MAX_REQUESTS:
            return
        unused = next((transfer for transfer in mine if transfer.granted and not transfer.waiting), None)
        if unused is None:
            raise TransferError(Code.TOO_MANY)
        self._drop(unused)

    def _unanswered(self, owner: Party, ticket: str) -> _Transfer | None:
        transfer = self._by_ticket.get(ticket)
        return transfer if transfer and transfer.owner is owner and not transfer.granted else None

    def _wait_for_owner(self, transfer: _Transfer, sock: socket.socket) -> None:
        self._relay.check_room(transfer.users)
        transfer.waiting = sock
        self._by_key[transfer.owner_key] = transfer
        transfer.owner.tell(Dial(transfer.ticket, transfer.owner_key))
        try:
            with gevent.Timeout(MEET_SECONDS, TransferError(Code.OWNER_SILENT)):
                transfer.met.get()
        finally:
            self._drop(transfer)

    def _join(self, transfer: _Transfer, owner_side: socket.socket) -> None:
        """Does not wait before the relay has both, so that neither side can give up meanwhile."""
        if transfer.waiting is None:
            raise TransferError(Code.BAD_TICKET)
        try:
            self._relay.check_room(transfer.users)
        except TransferError as error:
            self._fail(transfer, error.code)
            raise
        sides = (transfer.waiting, owner_side)
        for sock in sides:
            with contextlib.suppress(OSError):  # a side that is gone is found out by the relay
                send_now(sock, encode(Go()))
        descriptors = [sock.detach() for sock in sides]
        self._drop(transfer)
        transfer.met.set(None)
        self._relay.join(transfer.users, *descriptors)

    def _fail(self, transfer: _Transfer, code: Code) -> None:
        self._drop(transfer)
        if transfer.waiting:
            transfer.met.set_exception(TransferError(code))
        elif not transfer.granted:
            transfer.requester.tell(Fail(transfer.id, code, sentence(code)))

    def _expire_in(self, seconds: float, transfer: _Transfer) -> None:
        if transfer.timer:
            transfer.timer.kill(block=False)
        transfer.timer = gevent.spawn_later(seconds, self._fail, transfer, Code.OWNER_SILENT)

    def _drop(self, transfer: _Transfer) -> None:
        self._by_ticket.pop(transfer.ticket, None)
        self._by_key.pop(transfer.requester_key, None)
        self._by_key.pop(transfer.owner_key, None)
        for party in (transfer.requester, transfer.owner):
            self._of.get(party, {}).pop(transfer, None)
        self._settle(transfer)
        if transfer.timer and transfer.timer is not gevent.getcurrent():
            transfer.timer.kill(block=False)


def _direct(owner: Party, requester: Party) -> Addresses:
    """Where *requester* may reach *owner* without the relay."""
    if not owner.listen or (is_loopback(owner.host) and not is_loopback(requester.host)):
        return ()  # the server's own loopback is not the requester's
    return ((owner.host, owner.listen),)
