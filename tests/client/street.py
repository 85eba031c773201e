"""A server that encrypts, its clients with their keys, and who stands between them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from conftest import Wire, reset
from credentials import encrypted, new_certificate
from gevent import socket
from gevent.event import Event
from peers import BYTES

from greenchat import Accept, ChatClient, ChatServer, Question, Route
from greenchat.client.trust import Trust
from greenchat.errors import GreenchatError
from greenchat.net import listen
from greenchat.protocol.records import Challenge, Hello, Proof, Welcome
from greenchat.security.keys import Identity
from greenchat.security.known import Known
from greenchat.security.proof import prove, text_of
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
        self, name: str, route: Route = Route.AUTO, *, keyless: bool = False, accept: Accept | None = Accept.ALL
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

    def owner(self, accept: Accept | None = Accept.ALL) -> ChatClient:
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
        self._open = Event()
        self._open.set()
        (self._listener,) = listen(("127.0.0.1",), 0)
        self.port = self._listener.getsockname()[1]
        self._greenlets: list[gevent.Greenlet[..., None]] = [gevent.spawn(self._accept)]
        self._sockets: list[socket.socket] = []

    def cut(self) -> None:
        """Reset all that goes through."""
        sockets, self._sockets = self._sockets, []
        for sock in sockets:
            reset(sock)

    def close_door(self) -> None:
        """Nobody gets through from now on."""
        self._open.clear()

    def open_door(self) -> None:
        """But from now on again."""
        self._open.set()

    def _accept(self) -> None:
        while True:
            self._open.wait()
            near, _ = self._listener.accept()
            if not self._open.is_set():
                near.close()
                continue
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
