"""Sessions of a server that encrypts."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from conftest import Wire, hello, until
from credentials import encrypted, new_certificate
from gevent import socket

from greenchat import ChatServer
from greenchat.errors import Code, ProtocolError
from greenchat.protocol.codec import encode
from greenchat.protocol.limits import MAX_LINE
from greenchat.protocol.records import Error, Refused, Relay, Sorry, Welcome
from greenchat.security.tls import HANDSHAKE, Tls, client_context
from greenchat.server import session
from greenchat.server.certificate import Certificate


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return new_certificate(tmp_path / "server.pem")


@pytest.fixture
def server(certificate: Certificate) -> Iterator[ChatServer]:
    with ChatServer(certificate=certificate) as running:
        yield running


class Crowd:
    """Peers of one server, each of which is gone after the test."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._all: list[Wire] = []

    def encrypted(self, first: bytes) -> Wire:
        return self._add(encrypted(self.port), first)

    def plain(self, first: bytes = b"") -> Wire:
        return self._add(Wire(self.port), first)

    def _add(self, wire: Wire, first: bytes) -> Wire:
        self._all.append(wire)
        wire.send(first)
        return wire

    def close(self) -> None:
        for wire in self._all:
            wire.close()


@pytest.fixture
def crowd(server: ChatServer) -> Iterator[Crowd]:
    everyone = Crowd(server.port)
    yield everyone
    everyone.close()


def client(crowd: Crowd, name: str) -> Wire:
    wire = crowd.encrypted(hello(name))
    wire.record(Welcome)
    return wire


def chat_goes_on(crowd: Crowd) -> None:
    ann, bob = client(crowd, "ann"), client(crowd, "bob")
    ann.send(b"ping\n")
    assert bob.line() == b"ann: ping"
    bob.send(b"pong\n")
    assert ann.line() == b"bob: pong"


def test_clients_chat(crowd: Crowd) -> None:
    chat_goes_on(crowd)


def test_guest_may_come_by_any_tls_program(crowd: Crowd) -> None:
    bob, ann = client(crowd, "bob"), crowd.encrypted(b"ann\nhi\n")
    assert bob.line() == b"ann: hi"
    bob.send(b"welcome\n")
    assert ann.line() == b"bob: welcome"


def test_much_is_said_exactly(crowd: Crowd) -> None:
    bob, ann = client(crowd, "bob"), crowd.encrypted(b"ann\n")
    said = b"".join(b"%d %s\n" % (number, b"x" * (number % 1000)) for number in range(5000))
    saying = gevent.spawn(ann.send, said)
    heard = b"".join(bob.line() + b"\n" for _ in range(5000))
    assert heard.replace(b"ann: ", b"") == said
    saying.join()


@pytest.mark.parametrize("first", [b"ann\n", b"ann\nhi\n"])
def test_guest_without_encryption_is_refused(crowd: Crowd, first: bytes) -> None:
    assert crowd.plain(first).rest() == b"error: this server takes encrypted connections only: give --tls\n"
    chat_goes_on(crowd)


def test_client_without_encryption_is_refused(crowd: Crowd) -> None:
    assert crowd.plain(hello("ann")).record(Refused).code == Code.TLS_REQUIRED
    chat_goes_on(crowd)


def test_relayed_connection_is_plain_because_its_ends_encrypt(crowd: Crowd) -> None:
    line = encode(Relay("no such key"))
    assert crowd.plain(line).record(Sorry).code == Code.BAD_TICKET
    assert crowd.encrypted(line).record(Sorry).code == Code.UNEXPECTED


@pytest.mark.parametrize("before", [b"x", b"\n", b"ann", b"\x01"])
def test_what_somebody_said_before_the_encryption_began_is_not_taken_for_the_client_s(
    crowd: Crowd, before: bytes
) -> None:
    """As in the command injections of STARTTLS (CVE-2011-0411)."""
    wire = crowd.plain(before)
    tls = Tls(client_context(vouched=False), "127.0.0.1")
    wire.send(tls.outgoing() + b"\n")
    assert b"this server takes encrypted connections only" in wire.rest()
    chat_goes_on(crowd)


@pytest.mark.parametrize("junk", [HANDSHAKE, HANDSHAKE * 100, HANDSHAKE + os.urandom(MAX_LINE), HANDSHAKE + b"\n"])
def test_row_24_junk_that_begins_as_encryption_does_ends_the_connection(
    crowd: Crowd, junk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "HELLO_SECONDS", 0.2)
    wire = crowd.plain(junk)
    rest = wire.rest()
    assert rest == b"" or rest.startswith(b"\x15")
    chat_goes_on(crowd)


def test_row_19_handshake_that_is_not_finished_has_a_deadline(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "HELLO_SECONDS", 0.05)
    silent = crowd.plain(Tls(client_context(vouched=False), "127.0.0.1").outgoing())
    assert silent.rest().startswith(HANDSHAKE)


def test_row_19_who_agrees_and_says_nothing_is_told_so(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "HELLO_SECONDS", 0.1)
    assert crowd.encrypted(b"").rest() == b"error: no name was given in time\n"


def test_row_21_line_tampered_with_on_its_way_ends_the_connection(crowd: Crowd) -> None:
    wire = crowd.plain()
    tls = Tls(client_context(vouched=False), "127.0.0.1")
    while not tls.established:
        wire.send(tls.outgoing())
        tls.receive(wire.sock.recv(65536))
    wire.send(tls.outgoing() + tls.seal(b"ann\n"))
    bob = client(crowd, "bob")
    sealed = bytearray(tls.seal(b"pay 100\n"))
    sealed[8] ^= 1
    wire.send(bytes(sealed))
    with pytest.raises(ProtocolError):  # the alert; nothing more can be said
        tls.receive(wire.rest())
    wire = client(crowd, "cat")
    wire.send(b"still here\n")
    assert bob.line() == b"cat: still here"


def test_row_28_member_that_never_reads_is_dropped_with_a_last_line(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ChatServer(certificate=certificate, backlog=256 * 1024) as server:
        crowd = Crowd(server.port)
        ann, slow = client(crowd, "ann"), client(crowd, "slow")
        slow.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        talking = gevent.spawn(ann.send, (b"x" * 1000 + b"\n") * 40_000)
        until(lambda: len(server._sessions) < 2 or talking.dead or _finished(server, "slow"))
        lines = slow.rest().split(b"\n")
        assert json.loads(lines[-2][1:])["code"] == Code.SLOW_CONSUMER
        assert set(lines[:-2]) == {b"ann: " + b"x" * 1000}
        talking.kill()
        crowd.close()


def _finished(server: ChatServer, name: str) -> bool:
    return any(one.name == name and one._outbox.finished for one in server._sessions)


def test_row_29_those_who_never_finish_their_handshake_keep_nobody_out(crowd: Crowd) -> None:
    opening = Tls(client_context(vouched=False), "127.0.0.1").outgoing()
    for _ in range(100):
        crowd.plain(opening)
    chat_goes_on(crowd)


def test_row_33_everyone_is_told_of_the_end(crowd: Crowd, server: ChatServer) -> None:
    ann, guest = client(crowd, "ann"), crowd.encrypted(b"guest\n")
    guest.send(b"hi\n")
    assert ann.line() == b"guest: hi"
    stopping = gevent.spawn(server.stop)
    assert ann.record(Error).code == Code.SHUTDOWN
    assert guest.rest() == b"error: the server is shutting down\n"
    crowd.close()
    stopping.join()


def test_new_certificate_is_for_new_connections(crowd: Crowd, certificate: Certificate, tmp_path: Path) -> None:
    ann = client(crowd, "ann")
    (tmp_path / "server.pem").rename(tmp_path / "old.pem")
    new = new_certificate(tmp_path / "server.pem")
    certificate.load()
    bob = client(crowd, "bob")
    bob.send(b"hi\n")
    assert ann.line() == b"bob: hi"
    tls = Tls(client_context(vouched=False), "127.0.0.1")
    wire = crowd.plain(tls.outgoing())
    while not tls.established:
        tls.receive(wire.sock.recv(65536))
    assert tls.peer() == new.der == certificate.der


@pytest.mark.attack(37)
@pytest.mark.parametrize("encrypted", [True, False], ids=["encrypted", "plain"])
def test_http_is_refused_with_one_line_and_said_to_nobody(crowd: Crowd, *, encrypted: bool) -> None:
    ann = client(crowd, "ann")
    request = b"POST / HTTP/1.1\r\nHost: a\r\n\r\nclick here\n"
    page = crowd.encrypted(request) if encrypted else crowd.plain(request)
    assert b"error: " in page.line()
    assert page.rest() == b""
    bob = client(crowd, "bob")
    bob.send(b"hi\n")
    assert ann.line() == b"bob: hi"
