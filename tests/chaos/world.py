"""Servers that things happen to."""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Protocol

import gevent
import gevent.pool
from chaos.network import Namespace, Network
from gevent import socket, subprocess
from gevent.lock import BoundedSemaphore
from programs import TOP
from redis_server import RedisServer

from greenchat.backplane.leases import NODES
from greenchat.backplane.scripts import PREFIX
from greenchat.backplane.store import Store
from greenchat.log.database import Database, Retention
from greenchat.log.files import Files
from greenchat.net import listen

__all__ = ["Disk", "Machine", "Nodes", "Proxy", "World"]


class Proxy:
    """The way from a node to *port*, in this process: it can be slow, swallow everything, or break."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.delay = 0.0
        self.open = True
        self._target = port
        (self._listener,) = listen((host,), 0)
        self.port: int = self._listener.getsockname()[1]
        self._greenlets = gevent.pool.Group()
        self._sockets: set[socket.socket] = set()
        self._greenlets.spawn(self._accept)

    def cut(self) -> None:
        """Break all connections."""
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._greenlets.kill()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            self._greenlets.spawn(self._serve, near)

    def _serve(self, near: socket.socket) -> None:
        with near, socket.socket() as far, contextlib.suppress(OSError):
            far.connect(("127.0.0.1", self._target))
            self._sockets |= {near, far}
            ways = gevent.pool.Group()
            try:
                ways.spawn(self._carry, near, far)
                ways.spawn(self._carry, far, near)
                ways.join()
            finally:
                ways.kill()
                self._sockets -= {near, far}

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                gevent.sleep(self.delay)
                while not self.open:
                    gevent.sleep(0.05)
                sink.sendall(data)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


class Machine:
    """One server, a process that can be killed, stopped and started again on its port."""

    def __init__(self, *arguments: str, clock: Path, room: Namespace | None = None) -> None:
        self.host = room.host if room else "127.0.0.1"
        self.namespace = room
        (listener,) = listen(("127.0.0.1",), 0)
        self.port: int = listener.getsockname()[1]
        listener.close()
        self.clock = clock
        clock.write_text("0")
        skewed = str(Path(__file__).with_name("skewed.py"))
        self._command = [sys.executable, skewed, str(clock), str(TOP / "ChatServer.py"), str(self.port), *arguments]
        if room:
            self._command = ["ip", "netns", "exec", room.name, *self._command, "--host", room.host, "--insecure"]
        self._launch()

    @property
    def address(self) -> tuple[str, int]:
        """Where users reach it."""
        return self.host, self.port

    def start(self) -> None:
        """Unless it is running, because two faults may meet."""
        if self.process.poll() is not None:
            self._launch()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and to its relay's process."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()

    def _launch(self) -> None:
        self.process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL, start_new_session=True)


class World(Protocol):
    """Machines that are one chat."""

    machines: list[Machine]
    exchanges_files: bool
    """True if its clients exchange files: beyond one machine they would need encryption."""

    def log(self, room: str) -> list[str]:
        """All that was said there, in its order."""

    def close(self) -> None:
        """End all."""


class Nodes:
    """Several servers on one Redis, each with a proxy of its own to it.

    If they are to be *apart*, and that can be, each is in a network namespace of its own.
    """

    def __init__(self, count: int = 3, *, apart: bool = False) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="greenchat-chaos-"))
        self.redis = RedisServer()
        self.redis_is_mine = BoundedSemaphore()
        """For who does something to it, one at a time."""
        self.network = Network(count) if apart and Network.can_be() else None
        self.exchanges_files = self.network is None
        host = self.network.redis if self.network else "127.0.0.1"
        self.proxies = [Proxy(self.redis.port, host) for _ in range(count)]
        self.machines = [
            Machine(
                "--backplane", f"redis://{host}:{proxy.port}",
                room=self.network.namespaces[number] if self.network else None,
                clock=self._home / str(number),
            )
            for number, proxy in enumerate(self.proxies)
        ]  # fmt: skip

    def log(self, room: str) -> list[str]:
        store, lines = Store(self.redis.url), list[str]()
        (epoch,) = store.fields(f"{PREFIX}room:{room}", ["epoch"])
        after = f"{epoch}-0"
        while answer := store.range(f"{PREFIX}log:{room}", after):
            after = answer[-1][0]
            for number, fields in answer:
                lines += fields[b"b"].decode().split("\n")[:-1]
                assert number == f"{epoch}-{len(lines)}", "the log has a gap"
        store.close()
        return lines

    def shift_leases(self, seconds: int) -> None:
        """Have all nodes be alive for so much longer, or shorter."""
        store = Store(self.redis.url)
        server = store._client.server
        for node, told in server.hgetall(NODES).items():
            ends, _, about = told.partition(b" ")
            server.hset(NODES, node, b"%d %s" % (int(ends) + 1000 * seconds, about))
        store.close()

    def close(self) -> None:
        for machine in self.machines:
            with contextlib.suppress(OSError):
                machine.signal(signal.SIGCONT)
            machine.kill()
        for proxy in self.proxies:
            proxy.close()
        self.redis.close()
        if self.network:
            self.network.close()
        shutil.rmtree(self._home)


class Disk:
    """One server that keeps what is said on its disk."""

    exchanges_files = True

    def __init__(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="greenchat-chaos-"))
        self.machines = [Machine("--data", str(self._home), clock=self._home / "clock")]

    def log(self, room: str) -> list[str]:
        lines = list[str]()
        with tempfile.TemporaryDirectory() as copies:  # the server lets nobody else into its own
            for file in ("messages.db", "messages.db-wal"):
                shutil.copy(self._home / file, copies)
            database = Database(Files(Path(copies) / "messages.db"), Retention())
            while entries := database.read(room, len(lines)):
                for entry in entries:
                    lines += entry.block.decode().split("\n")[:-1]
            database.close()
        return lines

    def close(self) -> None:
        for machine in self.machines:
            with contextlib.suppress(OSError):
                machine.signal(signal.SIGCONT)
            machine.kill()
        shutil.rmtree(self._home)
