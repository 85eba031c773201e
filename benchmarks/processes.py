"""Processes started for a benchmark: each is ended with all that it started, whatever happens."""

import contextlib
import multiprocessing
import os
import re
import resource
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

__all__ = [
    "child",
    "connect",
    "deadline",
    "free_port",
    "on_signals",
    "raise_descriptor_limit",
    "running",
    "version",
    "workplace",
]

MEMORY: Final = Path("/dev/shm")
PATIENCE: Final = 5.0
"""Seconds for a program to end by itself before it is killed."""

_fork = multiprocessing.get_context("fork")


def on_signals() -> None:
    """Have signals end the benchmark as an error does, so that what it started ends too."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, _end)


def _end(number: int, _frame: object) -> None:
    raise SystemExit("this took too long" if number == signal.SIGALRM else 128 + number)


def raise_descriptor_limit() -> None:
    """Let this process and those that it starts have as many descriptors as the system grants."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """End the benchmark if this takes longer."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextlib.contextmanager
def running(command: list[str], home: Path, pipes: int = subprocess.DEVNULL) -> Iterator["subprocess.Popen[bytes]"]:
    """A program with *home* as its current directory; what it says goes into the file ``said`` there.

    With *pipes* as `subprocess.PIPE`, its standard input and standard error are pipes to us instead.
    """
    with (home / "said").open("ab") as said:
        error = said if pipes == subprocess.DEVNULL else pipes
        process = subprocess.Popen(command, cwd=home, stdin=pipes, stdout=said, stderr=error, start_new_session=True)
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Ask *process* to end, and leave nothing of its group behind."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # the group outlives its leader as long as it has members
    process.wait()
    for pipe in filter(None, (process.stdin, process.stderr)):
        with contextlib.suppress(BrokenPipeError):
            pipe.close()


@contextlib.contextmanager
def child(job: Callable[[Connection], None]) -> Iterator[Connection]:
    """A process that does *job* with all that we have open, and a connection to it."""
    here, there = _fork.Pipe()

    def work() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends when we end it
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        here.close()
        job(there)

    process = _fork.Process(target=work, daemon=True)
    process.start()
    there.close()
    try:
        yield here
    except EOFError:
        raise SystemExit("a process of the benchmark broke off") from None
    finally:
        process.kill()
        process.join()
        here.close()


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A directory for a while, in memory if there is such a place."""
    with tempfile.TemporaryDirectory(prefix="greenchat-", dir=MEMORY if MEMORY.is_dir() else None) as home:
        yield Path(home)


def version(command: Sequence[str]) -> str:
    """The first number of a version in what *command* says."""
    said = subprocess.run(command, capture_output=True, text=True, check=False)  # Mosquitto calls its help an error
    found = re.search(r"\d+\.\d+[\w.]*", said.stdout + said.stderr)
    return found[0] if found else "of unknown version"


def free_port() -> int:
    """A port that nobody listened at a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def connect(port: int, seconds: float = 10.0) -> socket.socket:
    """A connection to a server that may not listen yet."""
    end = time.monotonic() + seconds
    while True:
        try:
            sock = socket.create_connection(("127.0.0.1", port), seconds)
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
