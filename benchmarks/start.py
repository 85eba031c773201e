"""how long the programs take to start, beside a bare import of what they are made of."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, Self

from benchmarks.processes import workplace
from benchmarks.report import Figures, Results, Table, medians

__all__ = ["run"]

ROUNDS: Final = 31
TOP: Final = Path(__file__).resolve().parent.parent

BARE: Final = (
    "import gevent, gevent.server, gevent.fileobject, gevent.threadpool, argparse, json, hashlib, ssl, logging"
)
READY: Final = "; print('ready', flush=True)"


def run() -> Results:
    """Start each contender in turn, many times over; medians of the rounds."""
    with workplace() as home, _Start([str(TOP / "ChatServer.py"), "0"], home, b"listening on") as server:
        port = server.line.rpartition(b" ")[2].decode().strip()
        contenders = {
            "Python alone": ["-c", "print('ready', flush=True)"],
            "bare import": ["-c", BARE + READY],
            "ChatServer.py": [str(TOP / "ChatServer.py"), "0"],
            "ChatClient.py": [str(TOP / "ChatClient.py"), "-l", "0", "-p", port, "--name", "ann"],
        }
        marks = {"ChatServer.py": b"listening on", "ChatClient.py": b"e(X)it"}
        measured: dict[str, list[Figures]] = {name: [] for name in contenders}
        for turn in range(-1, ROUNDS):
            seconds = {name: _seconds(command, home, marks.get(name, b"ready")) for name, command in contenders.items()}
            if turn >= 0:  # the first one compiles what has changed, and fills the system's cache
                for name, took in seconds.items():
                    measured[name].append({"ready": 1000 * took, "ratio": took / seconds["bare import"]})
    table = Table("", {"ready": "ms", "ratio": ""}, {name: medians(rounds) for name, rounds in measured.items()})
    settings = f"until ready, from compiled modules, contenders in turns, median of {ROUNDS} rounds"
    return Results("start", settings, [table], {}, {})


class _Start:
    """A Python program, started with *arguments*, that is ready when it writes a line with *mark*."""

    def __init__(self, arguments: list[str], home: Path, mark: bytes) -> None:
        self._mark = mark
        self._begun = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        )
        self.line = b""
        self.seconds = 0.0

    def __enter__(self) -> Self:
        assert self._process.stdout
        for line in self._process.stdout:
            self.line = line
            if self._mark in line:
                self.seconds = time.perf_counter() - self._begun
                return self
        self.__exit__()
        raise SystemExit(f"a program ended before it was ready: {self.line.decode(errors='replace')}")

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.communicate()


def _seconds(arguments: list[str], home: Path, mark: bytes) -> float:
    with _Start(arguments, home, mark) as start:
        return start.seconds
