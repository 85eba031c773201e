"""how long whole files take from one party to another, verified, and what chat notices of many at once."""

import contextlib
import filecmp
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.carriers import CARRIERS, FILE, Carrier, Place
from benchmarks.chatter import chatting, percentile
from benchmarks.meter import measure
from benchmarks.processes import deadline, start_failure, version, workplace
from benchmarks.report import Figures, Results, Table, medians

__all__ = ["run"]

SIZE: Final = 1024 * 1024 * 1024
PIECE: Final = 16 * 1024 * 1024
FILES: Final = (1, 8, 64)
"""At once, together as large as the one."""

ROUNDS: Final = 3
PATIENCE: Final = 120.0
"""Seconds that any one measurement may take."""

RIVALS: Final = {"x scp": "scp", "x curl": "curl from nginx", "x wormhole": "magic-wormhole, relayed"}
BLOCK: Final = bytes(1024 * 1024)
WAYS: Final = {
    name.removeprefix("greenchat"): carrier
    for name, carrier in CARRIERS.items()
    if name.startswith("greenchat") and not carrier.missing()
}
"""Of greenchat's own, that of each carrier."""

UNITS: Final = {
    "time": "s",
    "throughput": "MB/s",
    **dict.fromkeys(RIVALS, ""),
    "sender": "s/GB",
    "receiver": "s/GB",
    "server": "s/GB",
    "receiver's memory": "MiB",
}
CHAT_UNITS: Final = {"throughput": "MB/s", "p50": "ms", "p99": "ms", "worst": "ms"}


def run() -> Results:
    """Bring the same file over by each carrier in turns, several times over, then by greenchat many at once."""
    with workplace() as home:
        where = "in memory" if home.is_relative_to("/dev/shm") else f"at {home}"
        bench = _Bench(home)
        skipped = {name: why for name, carrier in CARRIERS.items() if (why := bench.failure(carrier))}
        carriers = {name: carrier for name, carrier in CARRIERS.items() if name not in skipped}
        whole = [bench.all_carriers(carriers) for _ in range(ROUNDS)]
        many = [bench.all_counts() for _ in range(ROUNDS)]
    tables = [
        Table("one file of 1 GiB; the three after the ratios are CPU time", UNITS, _by_name(whole)),
        Table("1 GiB in several files between two menu clients, and chat meanwhile", CHAT_UNITS, _by_name(many)),
    ]
    versions = {name: version(carrier.version_command) for name, carrier in carriers.items() if carrier.version_command}
    settings = f"random bytes {where}, compared afterwards, contenders in turns, median of {ROUNDS} rounds"
    return Results("transfers", settings, tables, skipped, versions)


def _touch_memory(home: Path) -> None:
    """Use as much as is needed once: a virtual machine gets it from its host only then, and does not keep it long."""
    with (home / "touched").open("wb") as file:
        for _ in range(0, 2 * SIZE, len(BLOCK)):
            file.write(BLOCK)
    (home / "touched").unlink()


def _by_name(rounds: list[dict[str, Figures]]) -> dict[str, Figures]:
    return {name: medians([one[name] for one in rounds]) for name in rounds[0]}


class _Bench:
    """The files, and where they go."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._shared = home / "shared"
        self._received = home / "received"
        self._shared.mkdir()
        self._received.mkdir()
        _fill(self._shared / FILE)
        for count in FILES[1:]:
            _cut(self._shared, _names(count))

    def failure(self, carrier: Carrier) -> str | None:
        """Return the reason if *carrier* cannot be used here."""
        if why := carrier.missing():
            return why
        with self._place() as place:
            return start_failure(lambda: carrier.open(place))

    def all_carriers(self, carriers: dict[str, Carrier]) -> dict[str, Figures]:
        """One round of one whole file."""
        figures = {name: self._one(carrier) for name, carrier in carriers.items()}
        for one in figures.values():
            for column, rival in RIVALS.items():
                if rival in figures:
                    one[column] = one["throughput"] / figures[rival]["throughput"]
        return figures

    def all_counts(self) -> dict[str, Figures]:
        """One round of many at once."""
        return {
            f"{count} {'file' if count == 1 else 'files'}{words}": self._many(carrier, count)
            for count in FILES
            for words, carrier in WAYS.items()
        }

    def _one(self, carrier: Carrier) -> Figures:
        with self._place() as place, carrier.open(place) as parties:
            _touch_memory(self._home)
            taken, used = measure(parties, FILE, place.own)
            self._check([FILE])
        figures = {role: usage.cpu / (SIZE / 1e9) for role, usage in used.items()}
        figures |= {"receiver's memory": used["receiver"].peak, "time": taken, "throughput": SIZE / taken / 1e6}
        return figures

    def _many(self, carrier: Carrier, count: int) -> Figures:
        with self._place() as place, carrier.open(place) as parties:
            _touch_memory(self._home)
            with chatting(parties.port, encrypted=parties.encrypted) as times:
                begun = time.perf_counter()
                parties.fetch(_names(count))
                taken = time.perf_counter() - begun
            self._check(_names(count))
        figures = {"p50": statistics.median(times), "p99": percentile(times, 0.99), "worst": max(times)}
        return figures | {"throughput": SIZE / taken / 1e6}

    @contextlib.contextmanager
    def _place(self) -> Iterator[Place]:
        with deadline(PATIENCE), tempfile.TemporaryDirectory(dir=self._home) as own:
            yield Place(self._shared, self._received, Path(own))

    def _check(self, names: list[str]) -> None:
        """Compare what came with what was there, and remove it."""
        for name in names:
            if not filecmp.cmp(self._shared / name, self._received / name, shallow=False):
                raise SystemExit(f"{name} did not arrive as it was")
            (self._received / name).unlink()


def _names(count: int) -> list[str]:
    return [FILE] if count == 1 else [f"{FILE}-{n}-of-{count}" for n in range(count)]


def _fill(path: Path) -> None:
    with path.open("wb") as file:
        for _ in range(SIZE // PIECE):
            file.write(os.urandom(PIECE))


def _cut(directory: Path, names: list[str]) -> None:
    """Make of the one file as many of equal size."""
    with (directory / FILE).open("rb") as whole:
        for name in names:
            (directory / name).write_bytes(whole.read(SIZE // len(names)))
