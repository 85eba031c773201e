"""The chat and publish-and-subscribe servers that are measured: real programs, started here and ended here.

Each has the settings that suit it best, and no bound that another one lacks: any number of connections, no penalty for
who says much, as much waiting for a member as there is memory. Where slow members are the subject, what may wait for
one of them is bounded instead, by each server that knows such a bound.
"""

import contextlib
import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from benchmarks.processes import connect, free_port, running, start_failure, version, workplace
from benchmarks.redis_servers import redis_servers
from greenchat.protocol.codec import encode
from greenchat.protocol.records import Hello

__all__ = ["BARE", "CLIENTS", "GREENCHAT", "PEERS", "REDIS", "Peer", "Server", "absent", "versions"]

REDIS: Final = next(iter(redis_servers().values()), "redis-server")

TOP: Final = Path(__file__).resolve().parent.parent

Command: TypeAlias = Callable[[Path, int, int], list[str]]
"""With a directory for what it needs, the command that serves on a port; the last is the bound, 0 for none."""


@dataclass(frozen=True)
class Server:
    """A peer that serves."""

    pid: int
    port: int


@dataclass(frozen=True)
class Peer:
    """How to start a server, and how to take part."""

    command: Command
    join: Callable[[str], bytes]
    """What a member says first, under a name."""
    say: Callable[[bytes], bytes]
    """What a speaker sends to have the members hear a text."""
    joined: bytes = b""
    """What is in the answer once the member is in; nothing if it is not told."""
    speak: Callable[[str], bytes] | None = None
    """What a speaker says first, if it is no member like the others."""
    connect: Callable[[str], bytes] | None = None
    """What somebody idle says first, if a member's joining is told to all others."""
    connected: bytes = b""
    """What is in the answer to that."""
    version_command: tuple[str, ...] = ()
    """What says its version, if it is somebody else's."""
    module: str = ""
    """A package that it needs."""
    longest: int = 8000
    """Bytes in one text."""
    largest: int = 1_000_000
    """Members in one room, where more would take too long to join."""
    mute: bool = False
    """Whether nobody hears anything."""

    def missing(self) -> str | None:
        """Why it cannot be started here."""
        if self.module and not importlib.util.find_spec(self.module):
            return f"{self.module} is not installed"
        program = self.version_command[0] if self.version_command else sys.executable
        return None if shutil.which(program) else f"{program} is not installed"

    def speaks(self, name: str) -> bytes:
        """What a speaker says first."""
        return (self.speak or self.join)(name)

    @contextlib.contextmanager
    def running(self, bound: int = 0) -> Iterator[Server]:
        """The peer, serving; with so many bytes at most for a member that does not read, or, with 0, any number."""
        port = free_port()
        with workplace() as home, running(self.command(home, port, bound), home) as process:
            connect(port).close()
            yield Server(process.pid, port)


def _line(text: bytes) -> bytes:
    return text + b"\n"


def _guest(name: str) -> bytes:
    return _line(name.encode())


def _greenchat(_home: Path, port: int, bound: int) -> list[str]:
    return [sys.executable, str(TOP / "ChatServer.py"), str(port), "--backlog", str(bound or 2**39)]


def _python(program: str, *options: str) -> Command:
    """These put no bound to what waits for a member."""
    return lambda _home, port, _bound: [sys.executable, str(TOP / program), str(port), *options]


def _redis(_home: Path, port: int, bound: int) -> list[str]:
    """With one thread for everything: on two cores a second one for writing makes it slower, not faster."""
    options = {
        "port": port,
        "bind": "127.0.0.1",
        "protected-mode": "no",  # members come from several addresses of this machine
        "save": "",
        "appendonly": "no",
        "tcp-backlog": 4096,
        "maxclients": 20_000,
        "client-output-buffer-limit": f"pubsub {bound} 0 0",
        "loglevel": "warning",
    }
    return [REDIS, *(str(word) for name, value in options.items() for word in (f"--{name}", value))]


def _redis_command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def _nats(home: Path, port: int, bound: int) -> list[str]:
    path = home / "nats.conf"
    path.write_text(NATS.format(port=port, bound=bound or 1 << 30, deadline=2 if bound else 60))
    return ["nats-server", "--config", str(path)]


NATS: Final = """\
listen: "127.0.0.1:{port}"
max_connections: 65536
max_pending: {bound}
write_deadline: "{deadline}s"
ping_interval: "10m"
"""


def _nats_hello(name: str) -> bytes:
    return f'CONNECT {{"verbose":false,"pedantic":false,"echo":false,"name":"{name}"}}\r\n'.encode()


def _ngircd(home: Path, port: int, _bound: int) -> list[str]:
    """Its bound, 32 KiB, is compiled in; as an operator with mode F a speaker is spared the limits on commands."""
    path = home / "ngircd.conf"
    path.write_text(NGIRCD.format(port=port))
    return ["ngircd", "--nodaemon", "--config", str(path)]


NGIRCD: Final = """\
[Global]
Name = irc.benchmark.test
Info = benchmark
AdminEMail = nobody@localhost
Listen = 127.0.0.1
Ports = {port}
MotdPhrase = hello
[Limits]
MaxConnections = 0
MaxConnectionsIP = 0
MaxJoins = 0
MaxNickLength = 20
MaxPenaltyTime = 0
PingTimeout = 86400
[Options]
DNS = no
Ident = no
PAM = no
[Operator]
Name = speaker
Password = speaker
"""


def _irc_hello(name: str) -> bytes:
    return f"NICK {name}\r\nUSER {name} 0 * :{name}\r\n".encode()


def _irc_speaker(name: str) -> bytes:
    return _irc_hello(name) + f"OPER speaker speaker\r\nMODE {name} +F\r\nJOIN #room\r\n".encode()


def _mosquitto(home: Path, port: int, _bound: int) -> list[str]:
    """Bounds on what waits for a client (max_queued_...) are for other qualities of service than 0."""
    path = home / "mosquitto.conf"
    path.write_text(MOSQUITTO.format(port=port))
    return ["mosquitto", "-c", str(path)]


MOSQUITTO: Final = """\
listener {port} 127.0.0.1
allow_anonymous true
set_tcp_nodelay true
max_queued_messages 0
max_queued_bytes 0
max_inflight_bytes 0
persistence false
sys_interval 0
log_type error
user root
"""


def _mqtt(kind: int, *fields: bytes) -> bytes:
    body = b"".join(fields)
    length, rest = b"", len(body)
    while not length or rest:
        rest, low = divmod(rest, 128)
        length += bytes([low | (128 if rest else 0)])
    return bytes([kind]) + length + body


def _mqtt_text(text: bytes) -> bytes:
    return len(text).to_bytes(2, "big") + text


def _mqtt_connect(name: str) -> bytes:
    """Version 3.1.1, a clean session, no keepalive."""
    return _mqtt(0x10, _mqtt_text(b"MQTT"), b"\x04\x02\x00\x00", _mqtt_text(name.encode()))


GREENCHAT: Final = "greenchat"

PEERS: Final[dict[str, Peer]] = {
    GREENCHAT: Peer(_greenchat, _guest, _line),
    "Redis": Peer(
        _redis,
        join=lambda _name: _redis_command(b"SUBSCRIBE", b"room"),
        say=lambda text: _redis_command(b"PUBLISH", b"room", text),
        joined=b"room\r\n:1\r\n",
        speak=lambda _name: _redis_command(b"CLIENT", b"REPLY", b"OFF"),
        version_command=(REDIS, "--version"),
    ),
    "NATS": Peer(
        _nats,
        join=lambda name: _nats_hello(name) + b"SUB room 1\r\nPING\r\n",
        say=lambda text: b"PUB room %d\r\n%s\r\n" % (len(text), text),
        joined=b"PONG\r\n",
        speak=_nats_hello,
        version_command=("nats-server", "--version"),
    ),
    "ngIRCd": Peer(
        _ngircd,
        join=lambda name: _irc_hello(name) + b"JOIN #room\r\n",
        say=lambda text: b"PRIVMSG #room :%s\r\n" % text,
        joined=b" 366 ",  # the end of the list of names
        speak=_irc_speaker,
        connect=_irc_hello,
        connected=b" 376 ",  # the end of the message of the day
        version_command=("ngircd", "--version"),
        longest=400,
        largest=1000,
    ),
    "Mosquitto": Peer(
        _mosquitto,
        join=lambda name: _mqtt_connect(name) + _mqtt(0x82, b"\x00\x01", _mqtt_text(b"room"), b"\x00"),
        say=lambda text: _mqtt(0x30, _mqtt_text(b"room"), text),
        joined=b"\x90\x03\x00\x01\x00",
        speak=_mqtt_connect,
        version_command=("mosquitto", "-h"),
    ),
    "asyncio streams": Peer(_python("benchmarks/asyncio_chat.py"), _guest, _line),
    "asyncio, uvloop": Peer(_python("benchmarks/asyncio_chat.py", "uvloop"), _guest, _line, module="uvloop"),
    "queue and writer greenlet each": Peer(_python("benchmarks/naive_chat.py"), _guest, _line),
}


BARE: Final = Peer(_python("benchmarks/bare_handler.py"), _guest, _line, mute=True)
"""No chat at all: what is left of greenchat's figures for joining is its own."""

CLIENTS: Final = Peer(
    _greenchat,
    join=lambda name: encode(Hello(1, name, 0)),
    say=_line,
    joined=b'"welcome"',
    speak=_guest,
)
"""greenchat, where each member can ask for files and serve them."""


def absent() -> dict[str, str]:
    """Return the peers that cannot be started here, each with the reason."""
    return {name: why for name, peer in PEERS.items() if (why := peer.missing() or start_failure(peer.running))}


def versions(names: Iterable[str]) -> dict[str, str]:
    """Of the peers of these *names* that are somebody else's."""
    return {name: version(PEERS[name].version_command) for name in names if PEERS[name].version_command}
