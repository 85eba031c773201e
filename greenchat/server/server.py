"""The chat server, to run or to embed."""

import contextlib
import logging
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, cast

import gevent
from gevent import socket
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from greenchat.addresses import LOOPBACK, host_of, is_loopback, resolve
from greenchat.errors import Code, ListenError, Refused
from greenchat.log.log import Logs
from greenchat.log.memory import MemoryLogs
from greenchat.net import Listener, listen, reason, send_now
from greenchat.protocol.limits import (
    DRAIN_SECONDS,
    FLUSH_SECONDS,
    HIGH_WATERMARK,
    JOIN_GRACE_SECONDS,
    TURNED_OUT,
    WAITING_SECONDS,
)
from greenchat.protocol.records import Addresses
from greenchat.protocol.wire import ServerWire
from greenchat.server.admission import Admission
from greenchat.server.context import ServerContext
from greenchat.server.directory import Directory
from greenchat.server.pace import Pace
from greenchat.server.relay import RelayRoom
from greenchat.server.rooms import Rooms
from greenchat.server.session import Session
from greenchat.server.tickets import Party, TicketOffice

if TYPE_CHECKING:  # not every server needs these, and each takes a while to import
    from greenchat.backplane.node import Node
    from greenchat.server.certificate import Certificate
    from greenchat.server.door import Door
    from greenchat.server.registry import Registry
    from greenchat.server.remote import RemoteUsers

__all__ = ["ChatServer"]

_log = logging.getLogger(__name__)

_log = logging.getLogger(__name__)


_ANYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - what no other machine can connect to


class ChatServer:
    """A chat room and file exchange on one port.

    Listens on this machine alone, in both address families, unless *host* names another address;
    *port* 0 picks a free one. A context manager starts and stops it:

        with ChatServer() as server:
            client = ChatClient("ann", port=server.port)

    A member for whom more than *backlog* bytes wait is dropped. One that says more than *member_rate* bytes a second
    for long has to wait; 0 is any number, and None is `limits.MEMBER_RATE`, but any number on this machine.
    A new member hears the last *join_grace* seconds of its room first.
    With a *certificate* all chat is encrypted; with a *registry*, too, each name belongs to the key that used it first,
    and *members_only* lets nobody in who has none of them, unless invited. Without a certificate the server has to be
    on this machine alone, unless *insecure* says that anybody on the way may read and change what is said and sent.
    What is said is kept in *logs*, which it does not close; without them, as much as `limits.TAIL_LINES` in memory.
    As a *node*, which it does not close either, it is one chat with other servers: they and their users reach it at
    the addresses that it is to *advertise*, or where it listens. Then `start` may raise `LogError`.
    What happens to members is logged under ``greenchat.server``. Raises `ValueError` for members or a registry without
    what they take, and `SecurityError` for a registry where the extra that checks proofs is not installed.
    """

    def __init__(  # noqa: PLR0913 - each is one option of the program
        self,
        port: int = 0,
        *,
        host: str | None = None,
        backlog: int = HIGH_WATERMARK,
        member_rate: int | None = None,
        join_grace: float = JOIN_GRACE_SECONDS,
        certificate: "Certificate | None" = None,
        registry: "Registry | None" = None,
        members_only: bool = False,
        insecure: bool = False,
        logs: Logs | None = None,
        node: "Node | None" = None,
        advertise: Addresses = (),
    ) -> None:
        if (registry and not certificate) or (members_only and not registry):
            raise ValueError("members take a registry, and that a certificate: without, nobody can prove who he is")
        self.port = port
        self._backlog = backlog
        self._member_rate = member_rate
        self._join_grace = join_grace
        self._certificate = certificate
        self._registry = registry
        self._door: Door | None = None
        if certificate and registry:
            self._door = _door(registry, members_only=members_only, shared=node is not None)
        self._insecure = insecure
        self._node = node
        self._advertise = advertise
        self._logs = logs or (node.logs if node else MemoryLogs())
        self._noting = gevent.Greenlet()
        self._logs.watch(self._note)
        self._hosts = LOOPBACK if host is None else (host,)
        self._listeners: list[Listener] = []
        self._watching: gevent.Greenlet[..., None] | None = None
        self._sessions: dict[Session, gevent.Greenlet[..., object]] = {}
        self._serving = False
        self._ending = BoundedSemaphore()
        self._stopped = Event()

    def start(self) -> None:
        """Listen and serve, in the background. Raises `ListenError`; as a node `LogError`, too."""
        sockets = listen(self._hosts, self.port)
        with contextlib.ExitStack() as undo:
            for sock in sockets:
                undo.callback(sock.close)
            self.port = sockets[0].getsockname()[1]
            self.hosts = tuple(host_of(sock.getsockname()) for sock in sockets)
            self._check_safe()
            self._build()
            undo.pop_all()
        self._listeners = [Listener(sock, self._accept, self._make_room) for sock in sockets]
        for listener in self._listeners:
            listener.start()
        if self._door and self._registry:
            from greenchat.server.bans import watch_bans

            self._watching = gevent.spawn(watch_bans, self._registry, self._sessions.keys)
        self._serving = True

    @property
    def relaying(self) -> int:
        """Transfers that go through this server right now."""
        return self._relay.running if self._serving else 0

    def stop(self, drain: float = DRAIN_SECONDS) -> None:
        """Let running transfers finish, tell everyone, let what is on its way leave, and end all connections.

        The transfers that the server relays have *drain* seconds; people go on chatting meanwhile, but nobody new comes
        in. What is on its way has `limits.FLUSH_SECONDS`. May be called again, with less patience.
        """
        if self._serving:
            for listener in self._listeners:
                listener.stop()
            self._office.close()
            self._relay.drain(drain)
            with self._ending:
                if self._serving:
                    self._end()
        self._stopped.set()

    def _end(self) -> None:
        if self._watching:
            self._watching.kill()
        self._noting.kill()
        self._logs.settle(FLUSH_SECONDS)
        self._rooms.close()
        for session in self._sessions:
            session.end(Code.SHUTDOWN)
        gevent.joinall(list(self._sessions.values()), timeout=FLUSH_SECONDS)
        gevent.killall(list(self._sessions.values()))
        self._relay.stop()  # last, because a session may have handed it something until now
        self._listeners.clear()
        self._serving = False

    def serve_forever(self) -> None:
        """Wait until `stop` has been called and has done its work."""
        self._stopped.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _check_safe(self) -> None:
        if not self._certificate and not self._insecure and not all(map(is_loopback, self.hosts)):
            raise ListenError(
                Code.TLS_REQUIRED,
                f"at {self.hosts[0]} nothing would be encrypted: give --tls, or else --insecure",
            )

    def _build(self) -> None:
        """The parts of the server. Raises `LogError`."""
        self._relay = RelayRoom()
        self._rooms = Rooms(self._logs, self._join_grace)
        directory: Directory[Party] = Directory()
        self._office = TicketOffice(directory, self._relay)
        self._context = ServerContext(
            Admission(),
            self._rooms,
            directory,
            self._office,
            Pace(self._member_rate),
            self._backlog,
            self._certificate,
            self._door,
            self._join(directory),
        )

    def _join(self, directory: Directory[Party]) -> "RemoteUsers | None":
        """Be one chat with others. Raises `LogError`, or `ListenError` if they would not find this server."""
        if not self._node:
            return None
        addresses = self._advertise or tuple((host, self.port) for host in self.hosts)
        if any(host in _ANYWHERE for host, _ in addresses):
            raise ListenError(Code.CANNOT_LISTEN, "others have to know where to reach this server: give --advertise")
        from greenchat.server.remote import RemoteUsers

        remote = RemoteUsers(self._node, directory, self._office, self._rooms, _with_numbers(addresses))
        self._node.start()
        return remote

    def _note(self, works: bool) -> None:  # noqa: FBT001 - what the logs are doing
        self._noting.kill(block=False)
        self._tell_all(Code.KEPT_AGAIN if works else Code.WAITING)
        if not works and self._serving:
            self._noting = gevent.spawn(self._note_again)

    def _note_again(self) -> None:
        """As a sign of life: nothing may be read while nothing can be kept."""
        while True:
            gevent.sleep(WAITING_SECONDS)
            self._tell_all(Code.WAITING)

    def _tell_all(self, code: Code) -> None:
        for session in list(self._sessions):
            session.note(code)

    def _make_room(self) -> None:
        """Without descriptors nobody can come in: those go who take one and say nothing."""
        self._context.admission.turn_out(TURNED_OUT)

    def _accept(self, sock: socket.socket, address: tuple[Any, ...]) -> None:
        session = Session(self._context, sock, host_of(address))
        try:
            self._context.admission.enter(session)
        except Refused as error:
            with contextlib.suppress(OSError):
                send_now(sock, ServerWire().farewell(error.code))
            return
        self._sessions[session] = cast("gevent.Greenlet[..., object]", gevent.getcurrent())
        try:
            session.run()
        finally:
            del self._sessions[session]
            self._context.admission.leave(session)


def _door(registry: "Registry", *, members_only: bool, shared: bool) -> "Door":
    from greenchat.server.door import Door

    return Door(registry, members_only=members_only, shared=shared)


def _with_numbers(addresses: Addresses) -> Addresses:
    """Return *addresses*, and what their names lead to: a client looks no name up for a server."""
    found = list(addresses)
    for host, port in addresses:
        try:
            found += ((address.host, port) for address in resolve(host, port))
        except (OSError, UnicodeError) as error:
            _log.warning("others cannot be told where %s is: %s", host, reason(error))
    return tuple(dict.fromkeys(found))
