"""what it costs to pass bytes on between two connections, and what chat notices of it."""

import contextlib
import statistics
import time
from pathlib import Path
from typing import Final

from benchmarks.chatter import chatting, percentile
from benchmarks.ends import Content, jain, transmit
from benchmarks.processes import deadline, start_failure, version, workplace
from benchmarks.procstat import Usage, forget_peak
from benchmarks.relays import DIRECT, GREENCHAT, RELAYS, Relay
from benchmarks.report import Figures, Results, Table, medians

__all__ = ["run"]

STREAMS: Final = (1, 8, 64, 512)
CHAT_STREAMS: Final = (8, 64, 512)
ROUNDS: Final = 3
SECONDS: Final = 1.0
CHECK_SECONDS: Final = 0.25
CHAT_SECONDS: Final = 2.0
PATIENCE: Final = 60.0
"""Seconds that any one measurement may take."""

UNITS: Final = {"throughput": "MB/s", "of direct": "", "CPU": "s/GB", "memory": "MiB", "Jain": "", "stall": "ms"}
CHAT_UNITS: Final = {"p50": "ms", "p99": "ms", "worst": "ms"}
SETTINGS: Final = (
    f"each {SECONDS} s of streams from sendfile to a reused buffer, contenders in turns, median of {ROUNDS} rounds"
)


def run() -> Results:
    """Check that each contender passes on what it is given, then measure them all in turns, several times over."""
    with workplace() as home, contextlib.closing(Content()) as content:
        skipped = {name: why for name, relay in RELAYS.items() if (why := _failure(relay, home))}
        relays = {name: relay for name, relay in RELAYS.items() if name not in skipped}
        bench = _Bench(home, content, relays)
        bench.check()
        rounds = [{streams: bench.measure_all(streams) for streams in STREAMS} for _ in range(ROUNDS)]
        chats = [bench.chat_all() for _ in range(ROUNDS)]
    tables = [Table(_titled(streams), UNITS, _by_name([one[streams] for one in rounds])) for streams in STREAMS]
    tables.append(Table("chat between two guests of a greenchat server meanwhile", CHAT_UNITS, _by_name(chats)))
    versions = {name: version(relay.version_command) for name, relay in relays.items() if relay.version_command}
    return Results("relay", SETTINGS, tables, skipped, versions)


def _failure(relay: Relay, home: Path) -> str | None:
    """Return the reason if *relay* cannot be started here."""
    return relay.missing() or start_failure(lambda: relay.running(home))


def _titled(streams: int) -> str:
    return "1 stream" if streams == 1 else f"{streams} streams"


def _by_name(rounds: list[dict[str, Figures]]) -> dict[str, Figures]:
    return {name: medians([one[name] for one in rounds]) for name in rounds[0]}


class _Bench:
    """What all measurements share."""

    def __init__(self, home: Path, content: Content, relays: dict[str, Relay]) -> None:
        self._home = home
        self._content = content
        self._relays = relays

    def check(self) -> None:
        """Compare each byte that comes out of each contender with what went in."""
        for relay in self._relays.values():
            with deadline(PATIENCE), relay.running(self._home) as running, running.join(max(STREAMS)) as pairs:
                transmit(pairs, self._content, CHECK_SECONDS, check=True)

    def measure_all(self, streams: int) -> dict[str, Figures]:
        """One round of all contenders."""
        figures = {name: self._measure(relay, streams) for name, relay in self._relays.items()}
        for one in figures.values():
            one["of direct"] = one["throughput"] / figures[DIRECT]["throughput"]
        return figures

    def chat_all(self) -> dict[str, Figures]:
        """One round of chat, with nothing else, and beside streams that the same server relays or has no part in."""
        with self._relays[GREENCHAT].running(self._home) as chat:
            with chatting(chat.port) as times:
                time.sleep(CHAT_SECONDS)
            figures = {"no streams": _delivery(times)}
            for streams in CHAT_STREAMS:
                for name in (DIRECT, GREENCHAT):
                    figures[f"{_titled(streams)}, {name}"] = self._chat(name, streams)
        return figures

    def _measure(self, relay: Relay, streams: int) -> Figures:
        with deadline(PATIENCE), relay.running(self._home) as running:
            idle = Usage.of(running.pid)
            with running.join(streams) as pairs:
                before = Usage.of(running.pid)
                forget_peak(running.pid)
                outcome = transmit(pairs, self._content, SECONDS)
                after = Usage.of(running.pid)
        figures = {
            "throughput": sum(outcome.moved) / outcome.seconds / 1e6,
            "Jain": jain(outcome.moved),
            "stall": outcome.stall * 1000,
        }
        if running.pid:
            figures["CPU"] = after.since(before).cpu / (sum(outcome.received) / 1e9)
            figures["memory"] = after.since(idle).peak
        return figures

    def _chat(self, name: str, streams: int) -> Figures:
        """Chat at our own server, which relays the streams or has no part in them."""
        with (
            deadline(PATIENCE),
            self._relays[GREENCHAT].running(self._home) as server,
            contextlib.nullcontext(server) if name == GREENCHAT else self._relays[name].running(self._home) as relay,
            relay.join(streams) as pairs,
            chatting(server.port) as times,
        ):
            transmit(pairs, self._content, CHAT_SECONDS)
        return _delivery(times)


def _delivery(times: list[float]) -> Figures:
    return {"p50": statistics.median(times), "p99": percentile(times, 0.99), "worst": max(times)}
