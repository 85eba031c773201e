"""Files between clients with keys, on a server that encrypts."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from conftest import People, Wire, until
from credentials import encrypted, new_certificate
from gevent import socket
from peers import BYTES, code_of, fetching, received

from greenchat import Accept, ChatClient, ChatServer, Question, Route
from greenchat.client import client as client_module
from greenchat.client import downloads, routes
from greenchat.client.trust import Trust
from greenchat.errors import Code, GreenchatError
from greenchat.net import listen
from greenchat.protocol.records import (
    Challenge,
    Get,
    Hello,
    Proof,
    Pull,
    Secure,
    Sorry,
    Take,
    Welcome,
    encode,
)
from greenchat.security.keys import Identity
from greenchat.security.known import Known
from greenchat.security.proof import prove, text_of, transfer_of
from greenchat.security.tls import Tls, pair_context
from greenchat.server.registry import Registry

NAME = "a-name-that-nobody-else-sees"


class Street:
    """A server that encrypts, its clients, and somebody in between who sees, and may change, all that passes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.certificate = new_certificate(root / "server.pem")
        self.registry = Registry(root / "names.db")
        self.server = ChatServer(certificate=self.certificate, registry=self.registry)
        self.server.start()
        self.tap = Tap(self.server.port)
        self.asked: list[Question] = []
        """What any of the clients' users was asked."""
        self.failed: list[GreenchatError | None] = []
        """And how what they served ended."""
        self._clients: list[ChatClient] = []
        self._wires: list[Wire] = []

    def identity(self, name: str) -> Identity:
        return Identity(self.root / f"{name}.pem")

    def client(
        self, name: str, route: Route = Route.AUTO, *, keyless: bool = False, accept: Accept | None = None
    ) -> ChatClient:
        home = self.root / name
        home.mkdir(exist_ok=True)
        client = ChatClient(
            name,
            self.tap.port,
            trust=Trust(Known(self.root / "known"), self.certificate.fingerprint),
            identity=None if keyless else self.identity(name),
            known_peers=Known(self.root / f"{name}'s peers"),
            accept=accept,
            on_asked=self.asked.append,
            on_served=lambda served: self.failed.append(served.error),
            share=home,
            into=home,
            route=route,
        )
        client.start()
        self._clients.append(client)
        return client

    def owner(self, accept: Accept | None = None) -> ChatClient:
        (self.root / "ann").mkdir(exist_ok=True)
        (self.root / "ann" / NAME).write_bytes(BYTES)
        return self.client("ann", accept=accept)

    def leave(self, client: ChatClient) -> None:
        client.close()
        self._clients.remove(client)

    def change_key(self, name: str) -> None:
        """Somebody else has *name* from now on, as a server could arrange."""
        (self.root / f"{name}.pem").unlink()
        self.registry.free(name)

    def enter(self, name: str) -> Wire:
        """A raw client with a key."""
        wire, me = encrypted(self.server.port), self.identity(name)
        self._wires.append(wire)
        wire.tell(Hello(1, name, 0, text_of(me.certificate)))
        nonce = wire.record(Challenge).nonce
        wire.tell(Proof(prove(me, nonce, self.certificate.der, name)))
        wire.record(Welcome)
        return wire

    def plain(self, port: int, first: bytes) -> Wire:
        wire = Wire(port)
        self._wires.append(wire)
        wire.send(first)
        return wire

    def close(self) -> None:
        for client in self._clients:
            client.close()
        for wire in self._wires:
            wire.close()
        self.tap.close()
        self.server.stop()
        self.registry.close()


class Tap:
    """A way to a server on which everything is noted; *change* may be set to change it."""

    def __init__(self, port: int) -> None:
        self.seen = bytearray()
        self.change: Callable[[bytes], bytes] = bytes
        self._server = port
        (self._listener,) = listen(("127.0.0.1",), 0)
        self.port = self._listener.getsockname()[1]
        self._greenlets: list[gevent.Greenlet[..., None]] = [gevent.spawn(self._accept)]
        self._sockets: list[socket.socket] = []

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            far = socket.create_connection(("127.0.0.1", self._server))
            self._sockets += near, far
            self._greenlets += [gevent.spawn(self._pass_on, *way) for way in ((near, far), (far, near))]

    def _pass_on(self, source: Any, sink: Any) -> None:
        try:
            while data := source.recv(65536):
                self.seen += data
                sink.sendall(self.change(data))
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()
            sink.close()

    def close(self) -> None:
        gevent.killall(self._greenlets)
        for sock in [self._listener, *self._sockets]:
            sock.close()


@pytest.fixture
def street(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Street]:
    monkeypatch.setattr(downloads, "RETRY_DELAYS", ())
    one = Street(tmp_path)
    yield one
    one.close()


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


# --- known peers, and consent -----------------------------------------------------------------


def fetches(street: Street, client: ChatClient) -> None:
    assert received(fetching(client, "ann", NAME)).path.read_bytes() == BYTES


def test_owner_whose_key_has_changed_is_refused_until_the_user_says_otherwise(street: Street) -> None:
    first, bob = street.owner(), street.client("bob")
    fetches(street, bob)
    street.leave(first)
    street.change_key("ann")
    street.owner()
    assert code_of(fetching(bob, "ann", NAME)) == Code.KEY_CHANGED
    (known,) = bob._peers._known.all()  # type: ignore[union-attr]  # it has been given one
    Known(street.root / "bob's peers").forget(known)
    fetches(street, bob)


def test_requester_whose_key_has_changed_is_refused_and_the_owner_is_told_once(street: Street) -> None:
    street.owner()
    ann, bob = street._clients[0], street.client("bob")
    (street.root / "bob" / NAME).write_bytes(BYTES)
    received(fetching(ann, "bob", NAME))
    street.leave(bob)
    street.change_key("bob")
    eve = street.client("bob")
    street.failed.clear()
    for _ in range(3):
        assert code_of(fetching(eve, "ann", NAME)) == Code.KEY_CHANGED
    (told,) = street.failed
    assert told is not None
    assert "greenchat peers forget bob" in str(told)


def test_known_are_served_and_others_as_soon_as_the_user_says_so(street: Street) -> None:
    ann, bob = street.owner(Accept.KNOWN), street.client("bob")
    assert code_of(fetching(bob, "ann", NAME)) == Code.NOT_ACCEPTED
    (question,) = street.asked
    assert (question.requester, question.file) == ("bob", NAME)
    ann.answer(yes=True)
    fetches(street, bob)
    street.leave(ann)
    street.owner(Accept.KNOWN)
    fetches(street, bob)  # it is remembered
    assert len(street.asked) == 1


def test_requester_waits_until_the_owner_s_user_has_answered(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "CONSENT_STEP", 0.01)
    ann, bob = street.owner(Accept.ASK), street.client("bob")
    waiting = fetching(bob, "ann", NAME)
    until(lambda: street.asked)
    assert not waiting.ready()
    ann.answer(yes=True)
    assert received(waiting).path.read_bytes() == BYTES
    assert len(street.asked) == 1


def test_requester_does_not_wait_for_ever_nor_after_a_no(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "CONSENT_STEP", 0.01)
    monkeypatch.setattr(downloads, "CONSENT_SECONDS", 0.05)
    ann, bob = street.owner(Accept.ASK), street.client("bob")
    assert code_of(fetching(bob, "ann", NAME)) == Code.ASKED
    ann.answer(yes=False)
    assert code_of(fetching(bob, "ann", NAME)) == Code.NOT_ACCEPTED


def test_requester_that_waits_for_an_answer_can_leave(street: Street) -> None:
    street.owner(Accept.ASK)
    bob = street.client("bob")
    waiting = fetching(bob, "ann", NAME)
    until(lambda: street.asked)
    street.leave(bob)
    assert code_of(waiting) == Code.SERVER_GONE


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's own address is another's."""
    for module in (client_module, routes):
        monkeypatch.setattr(module, "is_loopback", lambda _host: False)


def test_only_known_are_served_beyond_this_machine(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(monkeypatch)
    street.owner()
    bob = street.client("bob")
    assert code_of(fetching(bob, "ann", NAME)) == Code.NOT_ACCEPTED
    street._clients[0].answer(yes=True)
    fetches(street, bob)


@pytest.mark.parametrize("route", [Route.DIRECT, Route.RELAY])
def test_nothing_is_fetched_or_served_in_the_open_beyond_this_machine(
    people: People, monkeypatch: pytest.MonkeyPatch, route: Route
) -> None:
    (people.home("ann") / NAME).write_bytes(BYTES)
    ann, bob = people.client("ann"), people.client("bob", route=route, into=people.home("bob"))
    elsewhere(monkeypatch)
    assert code_of(fetching(bob, "ann", NAME)) == Code.NO_KEY
    far = people.client("far", insecure=True)
    (people.home("far") / NAME).write_bytes(BYTES)
    monkeypatch.undo()
    assert code_of(fetching(ann, "far", NAME)) == Code.NOT_ACCEPTED
    assert far.listen
