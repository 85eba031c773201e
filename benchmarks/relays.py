"""What is measured as a relay: each a real program, or none at all."""

import contextlib
import importlib.util
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from benchmarks.ends import Pairs
from benchmarks.processes import connect, free_port, running
from benchmarks.users import User, relayed

__all__ = ["DIRECT", "GREENCHAT", "RELAYS", "Relay", "Running"]

HERE: Final = Path(__file__).resolve().parent

RELAYED_EACH: Final = 16
"""Streams between one requester and one owner; with more streams there are more users."""

Command: TypeAlias = Callable[[Path, int, int], list[str]]
"""With a directory for what it needs, the command that joins each connection to one port with one to the other."""

Join: TypeAlias = Callable[[int], contextlib.AbstractContextManager[Pairs]]
"""Opens so many streams, for a while."""


@dataclass(frozen=True)
class Running:
    """A relay that has started."""

    pid: int
    """Of its process; 0 if there is none."""
    port: int
    join: Join


@dataclass(frozen=True)
class Relay:
    """A program that passes connections on to a port, and how it is started."""

    command: Command
    version_command: tuple[str, ...] = ()
    """What says its version, if it is somebody else's."""
    module: str | None = None
    """A package that it needs."""

    def missing(self) -> str | None:
        """Why it cannot be started here."""
        if self.module and not importlib.util.find_spec(self.module):
            return f"{self.module} is not installed"
        program = self.version_command[0] if self.version_command else sys.executable
        return None if shutil.which(program) else f"{program} is not installed"

    @contextlib.contextmanager
    def running(self, home: Path) -> Iterator[Running]:
        """The relay, serving; it keeps what it needs in the directory *home*."""
        port = free_port()
        with (
            _listener() as listener,
            running(self.command(home, port, listener.getsockname()[1]), home) as process,
        ):
            for sock in _pair(port, listener):  # now it serves
                sock.close()
            yield Running(process.pid, port, lambda count: _streams(lambda _: _pair(port, listener), count))


class _Direct(Relay):
    """No program: the two ends are connected to each other."""

    @contextlib.contextmanager
    def running(self, home: Path) -> Iterator[Running]:  # noqa: ARG002 - it needs nothing
        with _listener() as listener:
            port = listener.getsockname()[1]
            yield Running(0, port, lambda count: _streams(lambda _: _pair(port, listener), count))


class _Greenchat(Relay):
    """Our own server: users ask for files by its rules, and then the bytes pass through it."""

    @contextlib.contextmanager
    def running(self, home: Path) -> Iterator[Running]:
        port = free_port()
        with running(self.command(home, port, 0), home) as process:
            with self._join(port, 1) as ((into, out),):  # now it serves
                into.sendall(b".")
                out.recv(1)
            yield Running(process.pid, port, lambda count: self._join(port, count))

    @contextlib.contextmanager
    def _join(self, port: int, count: int) -> Iterator[Pairs]:
        with contextlib.ExitStack() as stack:

            def users(kind: str) -> list[User]:
                names = [f"{kind} {n}" for n in range(-(-count // RELAYED_EACH))]
                return [stack.enter_context(contextlib.closing(User(port, name))) for name in names]

            requesters, owners = users("requester"), users("owner")

            def pair(n: int) -> tuple[socket.socket, socket.socket]:
                return relayed(port, requesters[n // RELAYED_EACH], owners[n // RELAYED_EACH])

            yield stack.enter_context(_streams(pair, count))


def _listener() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.settimeout(10)
    return listener


def _pair(port: int, listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    """One stream: who connects to *port* hears who is connected to *listener* for it."""
    out = connect(port)
    return listener.accept()[0], out


@contextlib.contextmanager
def _streams(pair: Callable[[int], tuple[socket.socket, socket.socket]], count: int) -> Iterator[Pairs]:
    """So many pairs, one after the other, because only the order says which ends belong together."""
    with contextlib.ExitStack() as stack:
        pairs = [pair(n) for n in range(count)]
        for sock in (sock for both in pairs for sock in both):
            stack.enter_context(sock)
        yield pairs


def _haproxy(threads: int) -> Command:
    def command(home: Path, port: int, target: int) -> list[str]:
        path = home / "haproxy.cfg"
        path.write_text(HAPROXY.format(threads=threads, port=port, target=target))
        return ["haproxy", "-db", "-f", str(path)]

    return command


HAPROXY: Final = """\
global
    nbthread {threads}
    maxconn 4096
    maxpipes 4096
    tune.pipesize 1048576
defaults
    mode tcp
    option splice-request
    option splice-response
    timeout connect 10s
    timeout client 60s
    timeout server 60s
listen relay
    bind 127.0.0.1:{port}
    server target 127.0.0.1:{target}
"""


def _nginx(home: Path, port: int, target: int) -> list[str]:
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    path = home / "nginx.conf"
    path.write_text(NGINX.format(load=f"load_module {module};" if module.exists() else "", port=port, target=target))
    return ["nginx", "-p", str(home), "-c", str(path)]


NGINX: Final = """\
{load}
daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 4096; }}
stream {{
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        proxy_pass 127.0.0.1:{target};
        proxy_buffer_size 256k;
    }}
}}
"""


def _go(home: Path, port: int, target: int) -> list[str]:
    program = home / "go-relay"
    if not program.exists():
        subprocess.run(["go", "build", "-o", program, HERE / "relay.go"], check=True)
    return [str(program), f"127.0.0.1:{port}", f"127.0.0.1:{target}"]


def _socat(_home: Path, port: int, target: int) -> list[str]:
    listen = f"TCP-LISTEN:{port},bind=127.0.0.1,backlog=1024,reuseaddr,fork"
    return ["socat", "-b", "262144", "-t", "60", listen, f"TCP:127.0.0.1:{target}"]


def _asyncio(*loop: str) -> Command:
    return lambda _home, port, target: [sys.executable, str(HERE / "asyncio_relay.py"), str(port), str(target), *loop]


def _server(_home: Path, port: int, _target: int) -> list[str]:
    return [sys.executable, str(HERE.parent / "ChatServer.py"), str(port)]


DIRECT: Final = "no relay at all"
GREENCHAT: Final = "greenchat"

RELAYS: Final[dict[str, Relay]] = {
    DIRECT: _Direct(lambda *_: []),
    GREENCHAT: _Greenchat(_server),
    "HAProxy": Relay(_haproxy(1), ("haproxy", "-v")),
    "HAProxy, 2 threads": Relay(_haproxy(2), ("haproxy", "-v")),
    "Go io.Copy": Relay(_go, ("go", "version")),
    "socat": Relay(_socat, ("socat", "-V")),
    "nginx stream": Relay(_nginx, ("nginx", "-v")),
    "asyncio": Relay(_asyncio()),
    "asyncio, uvloop": Relay(_asyncio("uvloop"), module="uvloop"),
}
