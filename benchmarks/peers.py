"""What is measured beside greenchat: real programs, started here and ended here."""

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PEERS", "Peer", "connect"]

TOP = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Peer:
    """A chat or publish-and-subscribe server: how to start it, and how to take part."""

    command: Callable[[int], list[str]]
    """The command that serves on a port."""
    join: Callable[[str], bytes]
    """What a listener says first."""
    joined: bytes
    """What it is answered with, or nothing."""
    say: Callable[[str], bytes]
    """What a speaker sends, to have listeners hear the text."""
    hears: Callable[[str], bytes]
    """What they hear."""
    answer: bytes = b""
    """What the speaker is answered with."""
    program: str = sys.executable

    def missing(self) -> str | None:
        """Why it cannot be started here."""
        return None if shutil.which(self.program) else f"{self.program} is not installed"

    def version(self) -> str:
        """What the program says of itself, in its own words."""
        said = subprocess.run([self.program, "--version"], capture_output=True, text=True, check=True).stdout
        return " ".join(said.split()[:3])

    @contextlib.contextmanager
    def running(self) -> Iterator[int]:
        """The peer, serving; its port."""
        port = _free_port()
        with tempfile.TemporaryDirectory() as home:
            process = subprocess.Popen(
                self.command(port), cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            try:
                connect(port).close()
                yield port
            finally:
                process.terminate()
                process.wait()


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


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _redis_command(*words: str) -> bytes:
    parts = b"".join(b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words)
    return b"*%d\r\n%s" % (len(words), parts)


def _chat(*command: str) -> Peer:
    return Peer(
        command=lambda port: [sys.executable, *command, str(port)],
        join=lambda name: f"{name}\n".encode(),
        joined=b"",
        say=lambda text: f"{text}\n".encode(),
        hears=lambda text: f"speaker: {text}\n".encode(),
    )


PEERS = {
    "greenchat": _chat(str(TOP / "ChatServer.py")),
    "asyncio streams": _chat(str(TOP / "benchmarks" / "asyncio_chat.py")),
    "redis pub/sub": Peer(
        command=lambda port: ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no"],
        join=lambda _name: _redis_command("SUBSCRIBE", "room"),
        joined=b"*3\r\n$9\r\nsubscribe\r\n$4\r\nroom\r\n:1\r\n",
        say=lambda text: _redis_command("PUBLISH", "room", text),
        hears=lambda text: _redis_command("message", "room", text),
        answer=b":1\r\n",
        program="redis-server",
    ),
}
