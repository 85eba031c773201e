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
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

__all__ = [
    "StartError",
    "child",
    "connect",
    "deadline",
    "free_port",
    "on_signals",
    "raise_descriptor_limit",
    "running",
    "start_failure",
    "version",
    "workplace",
]

MEMORY: Final = Path("/dev/shm")
PATIENCE: Final = 5.0
"""Seconds for a program to end by itself before it is killed, and for one to say its version."""

START_SECONDS: Final = 10.0
"""Seconds for a program to listen at its port, and for a connection there to be answered."""

_fork = multiprocessing.get_context("fork")


class StartError(OSError):
    """A program that is to be measured did not start."""


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
    except OSError as error:
        if process.poll() in (None, 0):
            raise
        raise StartError(_last_words(process, home)) from error
    finally:
        _stop(process)


def _last_words(process: "subprocess.Popen[bytes]", home: Path) -> str:
    """Return how a program ended, and the last line that it wrote."""
    said = (home / "said").read_text(errors="replace").split("\n")
    reason = next((line for line in reversed(said) if line.strip()), "it wrote nothing")
    program = Path(str(process.args[0])).name  # type: ignore[index]  # commands are lists
    return f"{program} ended with status {process.returncode}: {reason.strip()}"


def start_failure(start: Callable[[], AbstractContextManager[object]]) -> str | None:
    """Return why a contender does not start, or None once it has been started and ended."""
    try:
        with start():
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        return f"it does not start: {error}"


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
    """Return the first number of a version in the output of *command*."""
    try:  # Mosquitto calls its help an error
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return "of unknown version"
    found = re.search(r"\d+\.\d+[\w.]*", said.stdout + said.stderr)
    return found[0] if found else "of unknown version"


def free_port() -> int:
    """A port that nobody listened at a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def connect(port: int, seconds: float | None = None) -> socket.socket:
    """Return a connection to a server that may not listen yet. Raise `StartError` if it never does."""
    patience = START_SECONDS if seconds is None else seconds
    end = time.monotonic() + patience
    while True:
        try:
            sock = socket.create_connection(("127.0.0.1", port), patience)
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise StartError(f"nothing listens at its port after {patience:.0f} s") from None
            time.sleep(0.01)
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
