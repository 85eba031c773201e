"""one chat on several servers: what a backplane or a disk costs, and how soon all is well after a crash."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from benchmarks import fanout, load
from benchmarks.crowd import PATIENCE, TOO_LONG, Crowd
from benchmarks.latency import one_by_one
from benchmarks.load import LoadError
from benchmarks.peers import GREENCHAT, PEERS, TOP, Peer, Server, versions
from benchmarks.processes import connect, deadline, free_port, raise_descriptor_limit, running, start_failure, workplace
from benchmarks.procstat import Usage
from benchmarks.recovery import MEASURES, redis_command
from benchmarks.report import Figures, Results
from benchmarks.trials import Trials

__all__ = ["run"]

ROUNDS: Final = 3
BURST_TO: Final = 100
PACED_TO: Final = 1000
RATE: Final = 300
STEP: Final = 250
MOST_TO: Final = 8000
SECONDS: Final = 2.0
"""Of messages, each time that there are more members."""

MESSAGES: Final = 1000

BURST: Final = f"burst to {BURST_TO} members"
PACED: Final = f"{RATE} messages/s to {PACED_TO:,} members"
MOST: Final = f"most members who hear {RATE} messages/s with p99 under 50 ms"
ONE: Final = "one message at a time, to a member of the last server"
BACK: Final = "1,000 members and 200 messages/s, and what they speak to is killed and started again"
TABLES: Final = {
    ONE: {"p50": "µs", "p99": "µs", "p99.9": "µs"},
    BURST: {"deliveries": "M/s", "server": "CPU s/s", "generator": "CPU s/s"},
    PACED: {"p50": "ms", "p99": "ms", "p99.9": "ms", "server": "CPU s/s", "generator": "CPU s/s"},
    MOST: {"members": ""},
    BACK: {"all back": "s", "caught up": "s", "lost": "messages", "doubled": "messages"},
}


@dataclass(frozen=True)
class Contender:
    """A *peer* as one or several servers, on a Redis of their own if it has a *backplane*."""

    peer: Peer
    servers: int = 1
    backplane: Callable[[str], list[str]] | None = None
    """What a server has to be told besides, given the url."""

    def missing(self) -> str | None:
        """Return the reason if it cannot be started here."""
        if self.backplane and (why := PEERS["Redis"].missing()):
            return why
        return self.peer.missing() or start_failure(self.running)

    @contextlib.contextmanager
    def running(self) -> Iterator[list[Server]]:
        """All servers; Redis, if there is one, is the last."""
        with deadline(TOO_LONG), workplace() as home, contextlib.ExitStack() as stack:
            more, redis = list[str](), list[Server]()
            if self.backplane:
                port = free_port()
                process = stack.enter_context(running(redis_command(port), home))
                connect(port).close()
                more, redis = self.backplane(f"redis://127.0.0.1:{port}"), [Server(process.pid, port)]
            servers = list[Server]()
            for _ in range(self.servers):
                port = free_port()
                process = stack.enter_context(running([*self.peer.command(home, port, 0), *more], home))
                servers.append(Server(process.pid, port))
            for server in servers:
                connect(server.port).close()
            yield [*servers, *redis]


class Spread(Crowd):
    """Members of a room that is on several *servers*; who speaks is on the first."""

    def __init__(self, contender: Contender, servers: list[Server]) -> None:
        super().__init__(contender.peer, servers[0])
        self._all = servers
        self._homes = servers[: contender.servers]

    def grow(self, number: int) -> None:
        """Have so many members in all, as many on each server as on any other."""
        names = range(len(self.members), number)
        for at, home in enumerate(self._homes):
            hellos = [self._peer.join(f"m{n}") for n in names if n % len(self._homes) == at]
            self.members += load.join(home.port, hellos, self._peer.joined, patience=PATIENCE).fds
        self.until_heard()
        self.calm()
        self._heard = self._size_of_one()

    def usage(self) -> Usage:
        """What the servers have used, and Redis."""
        return Usage.of(*(server.pid for server in self._all))


def run() -> Results:
    """Measure all contenders in turns, several times over."""
    raise_descriptor_limit()
    skipped = {name: why for name, one in CONTENDERS.items() if (why := one.missing())}
    contenders = {name: one for name, one in CONTENDERS.items() if name not in skipped}
    trials = Trials(TABLES)
    for _ in range(ROUNDS):
        for name, one in contenders.items():
            with trials.excused(name), one.running() as servers, Spread(one, servers) as crowd:
                _steady(trials, name, one, crowd, servers)
        for name, measure in MEASURES.items():
            trials.measure(BACK, name, partial(_fill, measure))
    settings = (
        f"messages of 64 bytes, contenders in turns, median of {ROUNDS} rounds; Redis keeps all on disk (everysec)"
    )
    found = versions(name for name in ("Redis", "NATS") if name not in skipped)
    return Results("cluster", settings, trials.tables(), skipped, found, trials.remarks)


def _steady(trials: Trials, name: str, one: Contender, crowd: Spread, servers: list[Server]) -> None:
    trials.measure(ONE, name, partial(_one_by_one, one, servers[0], servers[one.servers - 1]))
    crowd.grow(BURST_TO)
    trials.measure(BURST, name, partial(fanout.measure_burst, crowd))
    crowd.calm()
    crowd.grow(PACED_TO)
    if trials.measure(PACED, name, partial(fanout.measure_paced, crowd, RATE)):
        crowd.calm()
        trials.measure(MOST, name, partial(_find_most, crowd))


def _find_most(crowd: Spread, figures: Figures) -> None:
    """Let members in, some at a time, for as long as messages come soon enough."""
    carried = 0
    while carried < MOST_TO and fanout.soon_enough(crowd, RATE, SECONDS):
        carried = len(crowd.members)
        crowd.grow(carried + STEP)
    if not carried:
        raise LoadError(f"later even to {len(crowd.members):,}")
    figures["members"] = carried


def _one_by_one(one: Contender, here: Server, there: Server, figures: Figures) -> None:
    figures |= one_by_one(one.peer, here.port, there.port, MESSAGES)


def _fill(measure: Callable[[], Figures], figures: Figures) -> None:
    figures |= measure()


def _frame(text: bytes) -> bytes:
    """A WebSocket frame (RFC 6455) as a client sends it, with a mask of zeros."""
    size = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + len(text).to_bytes(2, "big")
    return b"\x81" + size + bytes(4) + text


HANDSHAKE: Final = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)

SOCKETIO: Final = Peer(
    lambda _home, port, _bound: [sys.executable, str(TOP / "benchmarks/socketio_chat.py"), str(port)],
    join=lambda _name: HANDSHAKE + _frame(b"40"),
    say=lambda text: _frame(b'42["say","' + text + b'"]'),
    joined=b'40{"sid"',
    module="socketio",
)

CHAT: Final = PEERS[GREENCHAT]
ON_DISK: Final = replace(
    CHAT, command=lambda home, port, bound: [*CHAT.command(home, port, bound), "--data", str(home / f"data{port}")]
)


def _backplane(url: str) -> list[str]:
    return ["--backplane", url]


CONTENDERS: Final[dict[str, Contender]] = {
    "greenchat": Contender(CHAT),
    "greenchat, on disk": Contender(ON_DISK),
    "greenchat, 1 node": Contender(CHAT, 1, _backplane),
    "greenchat, 2 nodes": Contender(CHAT, 2, _backplane),
    "greenchat, 4 nodes": Contender(CHAT, 4, _backplane),
    "python-socketio, 1 process": Contender(SOCKETIO),
    "python-socketio, 2 on Redis": Contender(SOCKETIO, 2, lambda url: [url]),
    "Redis": Contender(PEERS["Redis"]),
    "NATS": Contender(PEERS["NATS"]),
}
