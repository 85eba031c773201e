import contextlib
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from conftest import Stub
from credentials import Authority, new_certificate
from gevent import socket

from greenchat import ChatClient, ChatServer
from greenchat.client import servers as client_servers
from greenchat.client import trust
from greenchat.client.trust import Trust
from greenchat.errors import Code, ConnectError, GreenchatError
from greenchat.security.known import BY_AUTHORITIES, Known
from greenchat.server.certificate import Certificate


class Servers:
    """Servers on one port, one after another, as who is in between could be there instead of the right one."""

    def __init__(self, certificate: Certificate) -> None:
        self.certificate = certificate
        self._server = ChatServer(certificate=certificate)
        self._server.start()
        self.port = self._server.port

    def replace(self, certificate: Certificate | None) -> None:
        self._server.stop()
        self._server = ChatServer(self.port, certificate=certificate)
        self._server.start()

    def close(self) -> None:
        self._server.stop()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    running = Servers(new_certificate(tmp_path / "server.pem"))
    yield running
    running.close()


@pytest.fixture
def known(tmp_path: Path) -> Known:
    return Known(tmp_path / "known_servers")


def enter(port: int, who: Trust, home: Path) -> None:
    """Join and leave again."""
    with ChatClient("ann", port, trust=who, share=home, into=home):
        pass


def refusal(port: int, who: Trust) -> GreenchatError:
    with pytest.raises(ConnectError) as refused:
        who.reach("127.0.0.1", port)
    return refused.value


def test_server_met_for_the_first_time_is_remembered(servers: Servers, known: Known, tmp_path: Path) -> None:
    told: list[str] = []
    for _ in range(2):
        enter(servers.port, Trust(known, on_new=lambda *new: told.append(new[-1])), tmp_path)
    assert told == [servers.certificate.fingerprint]
    assert known.find(f"127.0.0.1:{servers.port}") == servers.certificate.fingerprint


def test_another_in_its_place_is_refused_before_anything_is_said(
    servers: Servers, known: Known, tmp_path: Path
) -> None:
    right = servers.certificate.fingerprint
    enter(servers.port, Trust(known), tmp_path)
    wrong = new_certificate(tmp_path / "other.pem")
    servers.replace(wrong)
    error = refusal(servers.port, Trust(known))
    assert error.code == Code.UNTRUSTED
    assert str(error) == (
        f"what answers at 127.0.0.1:{servers.port} is not the right server, and may be somebody in between:"
        f" its fingerprint is {wrong.fingerprint}, not {right};"
        f" if the server has really changed, remove its line from {known.path}"
    )
    servers.replace(servers.certificate)
    enter(servers.port, Trust(known), tmp_path)


def test_pinned_server_need_not_be_known(servers: Servers, known: Known, tmp_path: Path) -> None:
    enter(servers.port, Trust(known, servers.certificate.fingerprint), tmp_path)
    assert not known.path.exists()


def test_server_other_than_the_pinned_is_refused_even_if_it_is_known(
    servers: Servers, known: Known, tmp_path: Path
) -> None:
    enter(servers.port, Trust(known), tmp_path)
    error = refusal(servers.port, Trust(known, "SHA256:another"))
    assert error.code == Code.UNTRUSTED
    assert str(error).endswith(f"its fingerprint is {servers.certificate.fingerprint}, not SHA256:another")


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """One that this system trusts."""
    authority = Authority(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    return authority


def test_vouched_server_may_change_its_certificate(
    servers: Servers, known: Known, authority: Authority, tmp_path: Path
) -> None:
    told: list[str] = []
    for place in ("one.pem", "two.pem"):
        servers.replace(authority.certify(tmp_path / place, "127.0.0.1"))
        enter(servers.port, Trust(known, on_new=lambda *new: told.append(new[-1])), tmp_path)
    assert told == []
    assert known.find(f"127.0.0.1:{servers.port}") == BY_AUTHORITIES


def test_who_was_vouched_for_has_to_be_again(
    servers: Servers, known: Known, authority: Authority, tmp_path: Path
) -> None:
    servers.replace(authority.certify(tmp_path / "one.pem", "127.0.0.1"))
    enter(servers.port, Trust(known), tmp_path)
    servers.replace(servers.certificate)
    error = refusal(servers.port, Trust(known))
    assert error.code == Code.UNTRUSTED
    assert "self-signed certificate" in str(error)


def test_server_without_encryption_is_no_server(servers: Servers, known: Known) -> None:
    servers.replace(None)
    error = refusal(servers.port, Trust(known))
    assert error.code == Code.BAD_TLS
    assert not known.path.exists()


def test_server_that_says_nothing_is_given_up(stub: Stub, known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "CONNECT_SECONDS", 0.05)
    assert refusal(stub.port, Trust(known)).code == Code.UNREACHABLE


def test_server_that_hangs_up_is_an_error(stub: Stub, known: Known) -> None:
    hanging_up = gevent.spawn(lambda: stub.accept().close())
    assert refusal(stub.port, Trust(known)).code == Code.UNREACHABLE
    hanging_up.join()


def test_client_without_encryption_is_told_what_to_do(servers: Servers, tmp_path: Path) -> None:
    with pytest.raises(GreenchatError, match="takes encrypted connections only: give --tls"):
        ChatClient("ann", servers.port, share=tmp_path).start()


def test_beyond_this_machine_nothing_is_said_without_encryption_unless_told_so(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_servers, "is_loopback", lambda _host: False)
    with pytest.raises(ConnectError, match=r"to 127\.0\.0\.1 nothing would be encrypted: give --tls") as refused:
        ChatClient("ann", stub.port, share=tmp_path).start()
    assert refused.value.code == Code.TLS_REQUIRED
    assert stub.accept().rest() == b""
    told_so = ChatClient("ann", stub.port, share=tmp_path, insecure=True)
    starting = gevent.spawn(told_so.start)
    assert stub.accept().line().startswith(b"\x01")
    starting.kill()


def test_answer_that_comes_byte_by_byte_is_no_other(servers: Servers, known: Known, stub: Stub) -> None:
    far = socket.create_connection(("127.0.0.1", servers.port))

    def dribble() -> None:
        near = stub.accept()
        far.sendall(near.sock.recv(65536))
        with contextlib.suppress(OSError):
            while data := far.recv(1):
                near.send(data)
        near.close()

    dribbling = gevent.spawn(dribble)
    sock, tls = Trust(known, servers.certificate.fingerprint).reach("127.0.0.1", stub.port)
    assert tls.established
    sock.close()
    far.shutdown(socket.SHUT_RDWR)
    dribbling.join()
    far.close()
