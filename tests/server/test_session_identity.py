"""Sessions of a server where names belong to keys."""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from conftest import Wire, hello
from credentials import encrypted, new_certificate
from gevent import socket

from greenchat import ChatServer
from greenchat.errors import Code
from greenchat.protocol.codec import encode
from greenchat.protocol.records import Challenge, Error, Get, Hello, Proof, Refused, Welcome
from greenchat.security.keys import Identity
from greenchat.security.proof import prove, text_of
from greenchat.security.tls import fingerprint
from greenchat.server import bans, session
from greenchat.server.certificate import Certificate
from greenchat.server.registry import Registry


class ServerContext:
    """A server, and those who come to it."""

    def __init__(self, root: Path) -> None:
        self.certificate: Certificate = new_certificate(root / "server.pem")
        self.registry = Registry(root / "names.db")
        self.server = ChatServer(certificate=self.certificate, registry=self.registry)
        self.server.start()
        self._wires: list[Wire] = []

    def wire(self, first: bytes) -> Wire:
        wire = encrypted(self.server.port)
        self._wires.append(wire)
        wire.send(first)
        return wire

    def come(self, who: Identity, name: str) -> Wire:
        """*who*, who has proved to be that; the answer is not read yet."""
        wire = self.wire(encode(Hello(1, name, 0, text_of(who.certificate))))
        nonce = wire.record(Challenge).nonce
        wire.tell(Proof(prove(who, nonce, self.certificate.der, name)))
        return wire

    def enter(self, who: Identity, name: str) -> Wire:
        wire = self.come(who, name)
        wire.record(Welcome)
        return wire

    def close(self) -> None:
        for wire in self._wires:
            wire.close()
        self.server.stop()
        self.registry.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[ServerContext]:
    one = ServerContext(tmp_path)
    yield one
    one.close()


@pytest.fixture
def ann(tmp_path: Path) -> Identity:
    return Identity(tmp_path / "ann.pem")


@pytest.fixture
def eve(tmp_path: Path) -> Identity:
    return Identity(tmp_path / "eve.pem")


def test_owner_enters_and_chats(house: ServerContext, ann: Identity) -> None:
    other, member = house.wire(hello("other")), house.enter(ann, "ann")
    other.record(Welcome)
    member.send(b"hi\n")
    assert other.line() == b"ann: hi"


def test_messages_may_come_right_behind_the_proof(house: ServerContext, ann: Identity) -> None:
    guest = house.enter(ann, "bob")
    wire = house.wire(encode(Hello(1, "ann", 0, text_of(ann.certificate))))
    nonce = wire.record(Challenge).nonce
    wire.send(encode(Proof(prove(ann, nonce, house.certificate.der, "ann"))) + b"hi\n")
    assert guest.line() == b"ann: hi"


def test_another_key_and_a_guest_are_refused_and_the_owner_is_not_disturbed(
    house: ServerContext, ann: Identity, eve: Identity
) -> None:
    owner = house.enter(ann, "ann")
    assert house.come(eve, "ann").record(Refused).code == Code.NAME_OWNED
    assert house.wire(hello("ann")).record(Refused).code == Code.NAME_OWNED
    assert house.wire(b"ann\n").rest() == b"error: that name is somebody else's, or looks like it: choose another\n"
    house.enter(eve, "eve").send(b"hi\n")
    assert owner.line() == b"eve: hi"


def test_owner_takes_over_from_its_own_ghost_at_once(house: ServerContext, ann: Identity, eve: Identity) -> None:
    ghost, other = house.enter(ann, "ann"), house.enter(eve, "eve")
    again = house.enter(ann, "ann")
    assert ghost.record(Error).code == Code.TAKEN_OVER
    again.send(b"back\n")
    assert other.line() == b"ann: back"
    other.send(b"hi\n")
    assert again.line() == b"eve: hi"
    assert ghost.rest() == b""
    third = house.enter(ann, "ann")  # what the ghost leaves behind is not the one's who came after it
    third.send(b"and again\n")
    assert other.line() == b"ann: and again"


@pytest.mark.attack(43)
def test_connection_that_has_ended_takes_nothing_over_though_it_proved_the_key(
    house: ServerContext, ann: Identity, eve: Identity
) -> None:
    live, other = house.enter(ann, "ann"), house.enter(eve, "eve")
    stale = house.come(ann, "ann")
    with socket.socket(fileno=os.dup(stale.sock.fileno())) as plain:  # which knows nothing of TLS
        plain.shutdown(socket.SHUT_WR)
    assert stale.record(Refused).code == Code.NAME_TAKEN
    other.send(b"hi\n")
    assert live.line() == b"eve: hi"


def test_key_does_not_take_over_a_name_from_a_guest_who_was_there_first(house: ServerContext, ann: Identity) -> None:
    witness = house.wire(hello("witness"))
    witness.record(Welcome)
    house.wire(b"ann\nhi\n")
    assert witness.line() == b"ann: hi"
    assert house.come(ann, "ann").record(Refused).code == Code.NAME_TAKEN
    assert house.registry.names() == []  # who was refused owns nothing by it


@pytest.mark.parametrize("answer", [b"hi\n", encode(Get(1, "a", "b")), hello("ann"), encode(Proof("AAAA")), b"\x01{\n"])
def test_row_27_what_is_no_proof_is_refused(house: ServerContext, ann: Identity, answer: bytes) -> None:
    wire = house.wire(encode(Hello(1, "ann", 0, text_of(ann.certificate))))
    wire.record(Challenge)
    wire.send(answer)
    assert wire.record(Refused).code in (Code.UNEXPECTED, Code.BAD_PROOF, Code.BAD_RECORD)
    house.enter(ann, "ann")


@pytest.mark.attack(27)
@pytest.mark.parametrize(
    "more", [encode(Proof("AAAA")), encode(Proof("AAAA")) + b"hi\n", b"hi\n", encode(Get(1, "a", "b"))]
)
def test_whatever_comes_in_one_piece_with_a_hello_that_has_a_certificate_is_refused(
    house: ServerContext, ann: Identity, eve: Identity, more: bytes
) -> None:
    other = house.enter(eve, "eve")
    wire = house.wire(encode(Hello(1, "ann", 0, text_of(ann.certificate))) + more)
    assert wire.record(Refused).code == Code.UNEXPECTED
    assert wire.rest() == b""
    house.enter(ann, "ann").send(b"it is me\n")
    assert other.line() == b"ann: it is me"


def test_proof_in_one_piece_with_a_hello_is_refused_where_nobody_asks_for_proofs(ann: Identity) -> None:
    with ChatServer() as server:
        wire = Wire(server.port)
        wire.send(encode(Hello(1, "ann", 0, text_of(ann.certificate))) + encode(Proof("AAAA")))
        assert wire.record(Refused).code == Code.UNEXPECTED
        wire.close()


@pytest.mark.parametrize("name", ["Jose\u0301", "Jos\u00e9", "\u1112\u1161\u11ab"], ids=["NFD", "NFC", "jamo"])
def test_name_is_proved_as_the_client_spells_it(house: ServerContext, ann: Identity, eve: Identity, name: str) -> None:
    composed = unicodedata.normalize("NFC", name)
    assert house.come(ann, name).record(Welcome).name == composed
    assert house.come(eve, composed).record(Refused).code == Code.NAME_OWNED
    assert house.come(ann, composed).record(Welcome).name == composed


@pytest.mark.parametrize("certificate", ["!", "AAAA", "x" * 4000])
def test_row_27_certificate_that_is_none_is_refused(house: ServerContext, certificate: str) -> None:
    wire = house.wire(encode(Hello(1, "ann", 0, certificate)))
    if certificate == "AAAA":  # nobody knows before somebody has signed
        wire.record(Challenge)
        wire.tell(Proof("AAAA"))
    assert wire.record(Refused).code == Code.BAD_PROOF


def test_row_19_proof_that_never_comes_has_a_deadline(
    house: ServerContext, ann: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "HELLO_SECONDS", 0.2)
    wire = house.wire(encode(Hello(1, "ann", 0, text_of(ann.certificate))))
    wire.record(Challenge)
    assert wire.record(Refused).code == Code.HELLO_LATE


def test_certificate_is_of_no_use_where_nothing_is_encrypted(ann: Identity) -> None:
    with ChatServer() as server:
        wire = Wire(server.port)
        wire.send(encode(Hello(1, "ann", 0, text_of(ann.certificate))))
        assert wire.record(Refused).code == Code.UNEXPECTED
        wire.close()


def test_row_33_server_ends_while_somebody_proves(house: ServerContext, ann: Identity) -> None:
    wire = house.wire(encode(Hello(1, "ann", 0, text_of(ann.certificate))))
    wire.record(Challenge)
    stopping = gevent.spawn(house.server.stop)
    assert wire.record(Refused).code == Code.SHUTDOWN
    wire.close()
    stopping.join()


def test_who_is_banned_while_it_is_here_has_to_go(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ann: Identity, eve: Identity
) -> None:
    """As ``greenchat names ban`` does it: from another program."""
    monkeypatch.setattr(bans, "BAN_SECONDS", 0.05)
    house = ServerContext(tmp_path)
    owner, other = house.enter(ann, "ann"), house.enter(eve, "eve")
    command = Registry(tmp_path / "names.db")
    command.ban(fingerprint(eve.certificate))
    command.close()
    assert other.record(Error).code == Code.BANNED
    assert other.rest() == b""
    house.wire(hello("eve")).record(Refused)
    house.wire(hello("guest")).send(b"hi\n")
    assert owner.line() == b"guest: hi"
    house.close()
