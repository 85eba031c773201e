"""An active man in the middle, with a key of his own, on each of the ways that there are."""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest
from client.street import NAME, Street
from conftest import Wire
from credentials import new_certificate
from gevent import socket
from peers import code_of, fetching, received

from greenchat import ChatClient, Route
from greenchat.client import routes
from greenchat.client.trust import Trust
from greenchat.connect import connect
from greenchat.errors import Code, ConnectError, GreenchatError
from greenchat.net import listen
from greenchat.protocol.codec import SOH
from greenchat.security.keys import Identity
from greenchat.security.known import Known
from greenchat.security.tls import Tls, client_context, pair_context, server_context


class Man:
    """Answers at a port, passes on to another what is plain, and encrypts towards each end as its peer would."""

    def __init__(self, port: int, near: Callable[[], Tls], far: Callable[[], Tls]) -> None:
        self.read = b""
        """What he has been able to read of what was encrypted."""
        self._target = port
        self._near, self._far = near, far
        (self._listener,) = listen(("127.0.0.1",), 0)
        self.port: int = self._listener.getsockname()[1]
        self._greenlets: list[gevent.Greenlet[..., None]] = [gevent.spawn(self._accept)]
        self._wires: list[Wire] = []

    def _accept(self) -> None:
        while True:
            near = Wire.over(self._listener.accept()[0])
            far = Wire(self._target)
            self._wires += near, far
            self._greenlets.append(gevent.spawn(self._stand_between, near, far))

    def _stand_between(self, near: Wire, far: Wire) -> None:
        with contextlib.suppress(OSError, GreenchatError):
            self._pass_the_plain_on(near, far)
            tls = self._far()
            far.send(tls.outgoing())
            for wire, end in ((far, tls), (near, self._near())):
                self._converse(wire, end)
        near.close()
        far.close()

    def _pass_the_plain_on(self, near: Wire, far: Wire) -> None:
        """Up to where the ends begin to encrypt."""
        while (near._early or near.sock.recv(1, socket.MSG_PEEK)).startswith(SOH):
            line = near.line()
            far.send(line + b"\n")
            if b'"relay"' in line:
                near.send(far.line() + b"\n")

    def _converse(self, wire: Wire, tls: Tls) -> None:
        """Shake hands, and read as long as somebody says something."""
        wire.sock.settimeout(1)
        with contextlib.suppress(GreenchatError, TimeoutError):
            while data := wire._early or wire.sock.recv(65536):
                wire._early = b""
                self.read += tls.receive(data)
                wire.send(tls.outgoing())
        wire.send(tls.outgoing())

    def close(self) -> None:
        gevent.killall(self._greenlets)
        self._listener.close()
        for wire in self._wires:
            wire.close()


@pytest.fixture
def men() -> Iterator[list[Man]]:
    men: list[Man] = []
    yield men
    for man in men:
        man.close()


def between_ends(street: Street, port: int) -> Man:
    """Somebody who has a key, which neither of the two knows."""
    eve = Identity(street.root / "eve.pem")
    ann, bob = (street.identity(name).certificate for name in ("ann", "bob"))
    return Man(
        port,
        lambda: Tls(pair_context(eve, bob, server=True)),
        lambda: Tls(pair_context(eve, ann, server=False)),
    )


@pytest.mark.parametrize("route", [Route.DIRECT, Route.RELAY])
def test_between_two_clients(street: Street, men: list[Man], monkeypatch: pytest.MonkeyPatch, route: Route) -> None:
    """On the requester's way to the owner, or to the relay."""
    ann, bob = street.owner(), street.client("bob", route)
    men.append(between_ends(street, ann.listen if route is Route.DIRECT else street.server.port))
    monkeypatch.setattr(routes, "connect", lambda host, _port, seconds: connect(host, men[0].port, seconds))
    assert code_of(fetching(bob, "ann", NAME)) == Code.UNTRUSTED
    assert men[0].read == b""
    assert not (street.root / "bob" / NAME).exists()
    monkeypatch.undo()
    assert received(fetching(bob, "ann", NAME)).size  # the two are well


def test_between_a_client_and_its_server(street: Street, men: list[Man], tmp_path: Path) -> None:
    own = new_certificate(tmp_path / "man.pem")
    context = server_context(tmp_path / "man.pem", tmp_path / "man.pem")
    men.append(Man(street.server.port, lambda: Tls(context), lambda: Tls(client_context(vouched=False))))
    known = Known(tmp_path / "known_servers")
    known.add(f"127.0.0.1:{men[0].port}", street.certificate.fingerprint)
    client = ChatClient("ann", men[0].port, trust=Trust(known), identity=street.identity("ann"), share=tmp_path)
    with pytest.raises(ConnectError, match=re.escape(own.fingerprint)) as refused:
        client.start()
    assert refused.value.code == Code.UNTRUSTED
    assert b"ann" not in men[0].read
