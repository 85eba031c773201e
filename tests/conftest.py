"""What every test gets: a bound on its time, and a look at what it left behind."""

import contextlib
import ctypes
import gc
import os
import struct
import subprocess
import weakref
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import gevent
import pytest
from gevent import get_hub, socket
from redis_server import PROGRAMS, RedisServer

from greenchat import ChatClient, ChatServer
from greenchat.net import listen
from greenchat.protocol.codec import decode, encode
from greenchat.protocol.records import Hello, Record, Welcome

R = TypeVar("R", bound=Record)

# The tests run with gevent and pytest alone, but for those that need more.
MORE = {
    "from client.street import": "cryptography",
    "from credentials import": "cryptography",
    "from hypothesis import": "hypothesis",
    "from emulator import": "pyte",
    "from greenchat.backplane.store import": "redis",
    "from rich.": "rich",
}
missing = [line for line, library in MORE.items() if not find_spec(library)]
tests = Path(__file__).parent.rglob("test_*.py")
collect_ignore = [str(path) for path in tests if any(line in path.read_text() for line in missing)]

if find_spec("hypothesis"):
    from hypothesis import settings

    # A busy machine makes a slow example, not a wrong one.
    settings.register_profile("greenchat", parent=settings(), deadline=None)
    settings.load_profile("greenchat")

PATIENCE = 60.0
"""Seconds for one test; a hang is a failure."""

SLOW_PATIENCE = 600.0
"""Seconds for a test that is marked as slow. A soak bounds each of its own steps."""


def _open_descriptors() -> dict[int, str]:
    found = {}
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists the directory
            found[int(fd.name)] = str(fd.readlink())
    return found


def _patience(test: pytest.Item) -> float | None:
    if test.get_closest_marker("soak"):
        return None
    return SLOW_PATIENCE if test.get_closest_marker("slow") else PATIENCE


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """No descriptor and no greenlet outlives its test."""
    get_hub().threadpool.apply(os.getpid)  # the hub's own descriptors are no leak
    descriptors = _open_descriptors()
    spawned: weakref.WeakSet[gevent.Greenlet[..., Any]] = weakref.WeakSet()
    gevent.Greenlet.add_spawn_callback(spawned.add)

    def left() -> list[object]:
        fresh = {fd: name for fd, name in _open_descriptors().items() if fd not in descriptors}
        return [*fresh.items(), *(greenlet for greenlet in spawned if greenlet and not greenlet.dead)]

    try:
        with gevent.Timeout(_patience(request.node)):
            yield
        with contextlib.suppress(gevent.Timeout), gevent.Timeout(5):
            while left():
                gevent.sleep(0.01)
                gc.collect()
        assert not left()
    finally:
        gevent.Greenlet.remove_spawn_callback(spawned.add)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    """A server where nobody hears what was said before, because most tests are about something else."""
    with ChatServer(join_grace=0) as running:
        yield running


def until(condition: Callable[[], object]) -> None:
    """Return once *condition* holds; the bound on the test's time is the bound on this too."""
    while not condition():
        gevent.sleep(0.001)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets."""
    (listener,) = listen(("127.0.0.1",), 0)
    one = socket.create_connection(listener.getsockname())
    other, _ = listener.accept()
    listener.close()
    return one, other


def reset(sock: socket.socket) -> None:
    """Close *sock* so that its peer gets a reset, as when a machine dies."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def hello(name: str, listen: int = 0) -> bytes:
    """A client's first line."""
    return encode(Hello(1, name, listen))


class Wire:
    """A peer that is nothing but a socket: what it sends is spelled out, byte for byte."""

    def __init__(self, port: int, host: str = "127.0.0.1", *, sock: socket.socket | None = None) -> None:
        self.sock = sock or socket.create_connection((host, port))
        self.sock.settimeout(10)
        self._early = b""

    @classmethod
    def over(cls, sock: socket.socket) -> Self:
        """A peer at the end of a connection that is there already."""
        return cls(0, sock=sock)

    def tell(self, record: Record) -> None:
        self.send(encode(record))

    def record(self, kind: type[R]) -> R:
        """The next line, which has to be such a record."""
        return _decoded(self.line(), kind)

    def answer(self, kind: type[R]) -> R:
        """The next line that is a record, which has to be such a one; what others said before is left out."""
        while not (line := self.line()).startswith(b"\x01"):
            assert line
        return _decoded(line, kind)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def line(self) -> bytes:
        """The next line, without its end; empty at the end of the connection."""
        while b"\n" not in self._early:
            data = self.sock.recv(65536)
            if not data:
                break
            self._early += data
        line, _, self._early = self._early.partition(b"\n")
        return line

    def exactly(self, size: int) -> bytes:
        """The next *size* bytes."""
        data = bytearray(self._early)
        while len(data) < size:
            more = self.sock.recv(65536)
            assert more, data
            data += more
        self._early = bytes(data[size:])
        return bytes(data[:size])

    def rest(self) -> bytes:
        """All that comes until the connection ends."""
        rest, self._early = self._early, b""
        while data := self.sock.recv(65536):
            rest += data
        return rest

    def close(self) -> None:
        self.sock.close()


def _decoded(line: bytes, kind: type[R]) -> R:
    assert line.startswith(b"\x01"), line
    found = decode(line[1:])
    assert isinstance(found, kind), found
    return found


class People:
    """Clients and raw peers of one server, each client with a directory of its own; all are gone after the test."""

    def __init__(self, server: ChatServer, root: Path) -> None:
        self._server = server
        self._root = root
        self._all: list[ChatClient | Wire] = []

    def member(self, name: str, listen: int = 0) -> Wire:
        """A raw client that has been let in."""
        wire = self.wire(hello(name, listen))
        wire.record(Welcome)
        return wire

    def client(self, name: str, **options: object) -> ChatClient:
        home = self.home(name)
        client = ChatClient(name, self._server.port, **{"share": home, "into": home, **options})  # type: ignore[arg-type]  # as each test likes
        client.start()
        self._all.append(client)
        return client

    def home(self, name: str) -> Path:
        home = self._root / name
        home.mkdir(exist_ok=True)
        return home

    def wire(self, first: bytes = b"") -> Wire:
        wire = Wire(self._server.port)
        self._all.append(wire)
        wire.send(first)
        return wire

    def close(self) -> None:
        for one in self._all:
            one.close()


class Stub:
    """A port where a test answers by hand."""

    def __init__(self, port: int = 0) -> None:
        (self._listener,) = listen(("127.0.0.1",), port)
        self._listener.settimeout(10)
        self.port: int = self._listener.getsockname()[1]
        self._accepted: list[Wire] = []

    def accept(self) -> Wire:
        wire = Wire.over(self._listener.accept()[0])
        self._accepted.append(wire)
        return wire

    def close(self) -> None:
        self._listener.close()
        for wire in self._accepted:
            wire.close()


@pytest.fixture
def stub() -> Iterator[Stub]:
    one = Stub()
    yield one
    one.close()


@pytest.fixture
def people(server: ChatServer, tmp_path: Path) -> Iterator[People]:
    everyone = People(server, tmp_path)
    yield everyone
    everyone.close()


# --- a network of its own ---------------------------------------------------------------------

CLONE_NEWNET: Final = 0x40000000


@pytest.fixture
def network() -> Iterator[Callable[..., None]]:
    """A network namespace with nothing but a loopback, for all that is started from here on; runs commands there."""
    if os.geteuid() != 0:
        pytest.skip("a network of its own needs root")
    libc = ctypes.CDLL(None, use_errno=True)
    outside = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if libc.unshare(CLONE_NEWNET) != 0:
        os.close(outside)
        pytest.skip(f"no network of its own here: {os.strerror(ctypes.get_errno())}")
    try:
        run_command("ip", "link", "set", "lo", "up")
        yield run_command
    finally:
        assert libc.setns(outside, CLONE_NEWNET) == 0
        os.close(outside)


def run_command(*command: str) -> None:
    """Run *command*, which has to work; the test is skipped if it is not installed."""
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=10)
    except FileNotFoundError:
        pytest.skip(f"{command[0]} is not installed")


@pytest.fixture(scope="session")
def redis_program(request: pytest.FixtureRequest) -> None:
    """Choose the Redis server that is started from now on: the packaged one, or the one in the parameter."""
    if not PROGRAMS or not find_spec("redis"):
        pytest.skip("no Redis server, or not the library redis, is installed: see the extra dev")
    RedisServer.program = PROGRAMS[getattr(request, "param", next(iter(PROGRAMS)))]


@pytest.fixture(scope="session")
def shared_redis(redis_program: None) -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture
def redis(shared_redis: RedisServer) -> RedisServer:
    """A Redis where nothing has been said yet."""
    shared_redis.command("FLUSHALL")
    return shared_redis
