"""Files between clients with keys, on a server that encrypts."""

import gevent
import pytest
from client.street import NAME, Street
from conftest import Wire
from gevent import socket
from peers import BYTES, code_of, fetching, received

from greenchat import ChatClient, Route
from greenchat.errors import Code
from greenchat.protocol.codec import encode
from greenchat.protocol.records import Get, Pull, Secure, Sorry, Take
from greenchat.security.proof import transfer_of
from greenchat.security.tls import Tls, pair_context


@pytest.mark.parametrize("route", [Route.DIRECT, Route.RELAY])
def test_file_arrives_exactly(street: Street, route: Route) -> None:
    street.owner()
    assert received(fetching(street.client("bob", route), "ann", NAME)).path.read_bytes() == BYTES


def test_relay_sees_neither_the_file_nor_its_name(street: Street) -> None:
    street.owner()
    received(fetching(street.client("bob", Route.RELAY), "ann", NAME))
    assert len(street.tap.seen) > 2 * len(BYTES)  # it was all there
    assert BYTES[:16] not in street.tap.seen
    assert NAME.encode() not in street.tap.seen
    assert b"ticket" not in street.tap.seen


def test_row_21_relay_that_changes_a_byte_is_found_out(street: Street) -> None:
    street.owner()
    bob = street.client("bob", Route.RELAY)

    def flip(data: bytes) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1]) if len(data) > 20_000 else data

    street.tap.change = flip
    assert code_of(fetching(bob, "ann", NAME)) in (Code.BAD_TLS, Code.INTERRUPTED)
    assert [path.name for path in (street.root / "bob").iterdir() if path.name == NAME] == []


def stolen(street: Street) -> tuple[ChatClient, Take]:
    """An owner, and the ticket that it has granted to bob."""
    ann, bob = street.owner(), street.enter("bob")
    bob.tell(Get(1, "ann", NAME))
    return ann, bob.record(Take)


def test_row_17_stolen_ticket_is_of_no_use_without_its_key(street: Street) -> None:
    ann, take = stolen(street)
    plain = street.plain(ann.listen, encode(Pull(take.ticket, "sha256", 0, "")))
    assert plain.record(Sorry).code == Code.UNEXPECTED
    thief = street.plain(ann.listen, encode(Secure(transfer_of(take.ticket))))
    tls = Tls(pair_context(street.identity("eve"), street.identity("ann").certificate, server=False))
    thief.send(tls.outgoing())
    tls.receive(thief.sock.recv(65536))
    thief.send(tls.outgoing() + tls.seal(encode(Pull(take.ticket, "sha256", 0, ""))))
    with pytest.raises(Exception, match="tampered"):  # the alert
        tls.receive(thief.rest())
    rightful = street.plain(ann.listen, encode(Secure(transfer_of(take.ticket))))
    tls = Tls(pair_context(street.identity("bob"), street.identity("ann").certificate, server=False))
    rightful.send(tls.outgoing())
    tls.receive(rightful.sock.recv(65536))
    rightful.send(tls.outgoing() + tls.seal(encode(Pull(take.ticket, "sha256", 0, ""))))
    assert b'"t":"file"' in tls.receive(rightful.sock.recv(65536))


def test_row_17_ticket_of_another_transfer_is_refused(street: Street) -> None:
    ann, take = stolen(street)
    mine = street.enter("eve")
    mine.tell(Get(1, "ann", NAME))
    own = mine.record(Take)
    wire = street.plain(ann.listen, encode(Secure(transfer_of(own.ticket))))
    tls = Tls(pair_context(street.identity("eve"), street.identity("ann").certificate, server=False))
    wire.send(tls.outgoing())
    tls.receive(wire.sock.recv(65536))
    wire.send(tls.outgoing() + tls.seal(encode(Pull(take.ticket, "sha256", 0, ""))))
    assert Code.BAD_TICKET.encode() in tls.receive(wire.rest())


def test_unknown_transfer_is_refused(street: Street) -> None:
    ann = street.owner()
    assert street.plain(ann.listen, encode(Secure("f0"))).record(Sorry).code == Code.BAD_TICKET


def test_somebody_in_the_owner_s_place_is_found_out(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that joins the requester to another than the owner."""
    street.owner()
    bob = street.client("bob", Route.RELAY)
    context = pair_context(street.identity("eve"), street.identity("bob").certificate, server=True)

    def answer(wire: Wire) -> None:
        wire.record(Secure)
        tls = Tls(context)
        tls.receive(wire._early or wire.sock.recv(65536))
        wire.send(tls.outgoing())
        wire.close()

    def join_to_another(_users: tuple[str, str], requester: int, owner: int) -> None:
        socket.socket(fileno=owner).close()
        gevent.spawn(answer, Wire.over(socket.socket(fileno=requester)))

    monkeypatch.setattr(street.server._office._relay, "join", join_to_another)
    assert code_of(fetching(bob, "ann", NAME)) == Code.UNTRUSTED


@pytest.mark.parametrize("keyless", ["ann", "bob"])
def test_files_go_between_two_with_keys_only(street: Street, keyless: str) -> None:
    (street.root / "ann").mkdir()
    (street.root / "ann" / NAME).write_bytes(BYTES)
    street.client("ann", keyless=keyless == "ann")
    bob = street.client("bob", keyless=keyless == "bob")
    assert code_of(fetching(bob, "ann", NAME)) == Code.NO_KEY
