"""A real Redis, or Valkey, which a test may kill, stop and start again."""

import contextlib
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import ClassVar, Final, Self

import gevent
import pytest
from gevent import socket

from benchmarks.redis_servers import redis_servers
from greenchat.net import listen

__all__ = ["PROGRAMS", "RedisServer", "free_port", "needs_redis", "with_tls"]

PROGRAMS: Final = dict(sorted(redis_servers().items()))
"""Paths of the servers that are tested. The packaged one comes first: it is what every machine has."""

needs_redis = pytest.mark.usefixtures("redis_program")
"""A test that starts a Redis; it is skipped where none is installed."""


def free_port() -> int:
    (listener,) = listen(("127.0.0.1",), 0)
    with listener:
        return int(listener.getsockname()[1])


def with_tls() -> str:
    """Return the path of a server that is built with TLS, or skip the test."""
    for program in PROGRAMS.values():
        command = [program, "--port", "0", "--tls-port", "1"]
        if "Failed to configure TLS" in subprocess.run(command, capture_output=True, text=True, check=False).stdout:
            return program  # it lacks no more than a certificate
    pytest.skip("no Redis server with TLS is installed")


class RedisServer:
    """A server that writes each change to its disk before it answers (AOF), with more *options*."""

    program: ClassVar[str] = next(iter(PROGRAMS.values()), "redis-server")
    """The path of the server that is tested now."""

    def __init__(self, *options: str, program: str = "") -> None:
        self._program = program or self.program
        self._options = options
        self._home = Path(tempfile.mkdtemp(prefix="greenchat-redis-"))
        self.port = free_port()
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._home)]
        options = ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--loglevel", "warning"]
        self.process = subprocess.Popen([*command, *options, *self._options], stdout=subprocess.DEVNULL)
        while not self._answers():
            assert self.process.poll() is None
            gevent.sleep(0.01)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """As a crash does."""
        self.process.kill()
        self.process.wait()

    def forget(self) -> None:
        """All that is on the disk is lost."""
        shutil.rmtree(self._home / "appendonlydir")

    def keep(self) -> None:
        """Make a copy of what is on the disk."""
        shutil.copytree(self._home / "appendonlydir", self._home / "kept")

    def go_back(self) -> None:
        """What is on the disk is the copy again, and what came since is lost."""
        self.forget()
        (self._home / "kept").rename(self._home / "appendonlydir")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.process.send_signal(signal.SIGCONT)
        self.kill()
        shutil.rmtree(self._home)

    def command(self, *words: str) -> bytes:
        """What Redis answers to a command."""
        return self.ask(self.port, *words)

    def keys(self) -> list[str]:
        """The keys of the chat, without their prefix."""
        return re.findall(r"\{greenchat\}:(\S+)", self.command("KEYS", "*").decode())

    @staticmethod
    def ask(port: int, *words: str) -> bytes:
        """What answers to a command there."""
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            sock.sendall(f"{' '.join(words)}\r\n".encode())
            answer: bytes = sock.recv(65536)
            return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self.command("PING").startswith(b"+PONG")
        return False
