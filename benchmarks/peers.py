"""What is measured beside greenchat: real programs, started here and ended here."""

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import connect, free_port, running, workplace

__all__ = ["PEERS", "Peer"]

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

    @contextlib.contextmanager
    def running(self) -> Iterator[int]:
        """The peer, serving; its port."""
        port = free_port()
        with workplace() as home, running(self.command(port), home):
            connect(port).close()
            yield port


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
