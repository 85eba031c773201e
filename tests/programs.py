"""The two programs as a user has them: processes, driven through pipes or a pseudo-terminal."""

import contextlib
import os
import pty
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, Self

import gevent
from gevent import subprocess
from gevent.event import Event
from gevent.fileobject import FileObjectPosix

TOP: Final = Path(__file__).resolve().parent.parent

MENU: Final = [
    "Enter an option ('m', 'f', 'x'):",
    "  (M)essage (send)",
    "  (F)ile (request)",
    " e(X)it",
]

GOODBYE: Final = "closing your sockets...goodbye"

PATIENCE: Final = 20.0
"""Seconds that any one thing may take; with a hundred programs on two cores that can be long."""


class Stream:
    """What comes from a descriptor, collected; the descriptor is the stream's own."""

    def __init__(self, fd: int) -> None:
        self.data = b""
        self._seen = 0
        self._file = FileObjectPosix(fd, "rb", bufsize=0)
        self._arrived = Event()
        self._reader = gevent.spawn(self._read)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # how a pseudo-terminal ends
            while data := self._file.read(65536):
                self.data += data
                self._arrived.set()
        self._file.close()

    @property
    def text(self) -> str:
        return self.data.decode().replace("\r\n", "\n")

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def wait_for(self, part: str, seconds: float = PATIENCE) -> None:
        """Wait until *part* comes after what was waited for before."""
        patience = gevent.Timeout(seconds)
        try:
            with patience:
                while (at := self.text.find(part, self._seen)) < 0:
                    self._arrived.clear()
                    self._arrived.wait()
        except gevent.Timeout as timeout:
            if timeout is not patience:
                raise
            raise AssertionError(f"{part!r} did not come, but {self.text[-2000:]!r}") from None
        self._seen = at + len(part)

    def forget(self) -> None:
        """What has come and been waited for is of no use any more."""
        self.data, self._seen = self.data[self._seen :], 0

    def pause(self) -> None:
        """Read nothing more."""
        self._reader.kill()

    def close(self) -> None:
        self._reader.kill()
        self._file.close()


class Program:
    """One run of a program; on leaving it is killed if it still runs."""

    def __init__(
        self,
        *arguments: str | Path,
        home: Path | None = None,
        stdin: int | IO[bytes] = subprocess.PIPE,
        stdout: int | IO[bytes] = subprocess.PIPE,
        without: Path | None = None,
    ) -> None:
        """*without* is a directory of `absent` packages."""
        self.process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=home or tempfile.gettempdir(),
            env={**os.environ, "PYTHONPATH": str(without)} if without else None,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # a terminal's signals are for the one who runs the tests
        )
        assert self.process.stderr is not None
        self.err = Stream(os.dup(self.process.stderr.fileno()))
        self.process.stderr.close()
        self._out: Stream | None = None
        if self.process.stdout is not None:
            self._out = Stream(os.dup(self.process.stdout.fileno()))
            self.process.stdout.close()

    @property
    def out(self) -> Stream:
        assert self._out is not None
        return self._out

    def type(self, *lines: str) -> None:
        """Enter lines, all at once."""
        self.feed("".join(f"{line}\n" for line in lines).encode())

    def feed(self, data: bytes) -> None:
        assert self.process.stdin is not None
        rest = memoryview(data)
        while rest:
            rest = rest[self.process.stdin.write(rest) :]

    def end_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def status(self, seconds: float = PATIENCE) -> int:
        """The exit status, once the program has ended by itself and its output has been read."""
        status = self.process.wait(seconds)
        assert status is not None
        with gevent.Timeout(PATIENCE):
            for stream in self._streams():
                stream._reader.join()
        return int(status)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def fill_stderr(self) -> None:
        """Stop reading the standard error, and fill its pipe."""
        self.err.pause()
        fd = os.open(f"/proc/{self.process.pid}/fd/2", os.O_WRONLY | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(fd, b"x")
        os.close(fd)

    def _streams(self) -> list[Stream]:
        return [stream for stream in (self._out, self.err) if stream]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        for stream in self._streams():
            stream.close()


class Server(Program):
    """A running server; ``port`` is where."""

    def __init__(self, *arguments: str, port: int = 0) -> None:
        super().__init__(TOP / "ChatServer.py", str(port), *arguments, stdin=subprocess.DEVNULL)
        self.err.wait_for(", port ")
        self.err.wait_for("\n")
        self.port = int(self.err.lines[0].rpartition(" ")[2])


class Client(Program):
    """A running client with *home* as its current directory."""

    def __init__(
        self,
        port: int,
        home: Path,
        *arguments: str,
        stdin: int | IO[bytes] = subprocess.PIPE,
        stdout: int | IO[bytes] = subprocess.PIPE,
        without: Path | None = None,
    ) -> None:
        home.mkdir(exist_ok=True)
        program = (TOP / "ChatClient.py", "-l", "0", "-p", str(port))
        super().__init__(*program, *arguments, home=home, stdin=stdin, stdout=stdout, without=without)

    def wait_for_menu(self) -> None:
        self.out.wait_for(MENU[-1] + "\n")

    def descriptors(self) -> int:
        """How many it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


def absent(directory: Path, *packages: str) -> Path:
    """*directory*, with packages in it that are as if they were not installed."""
    for package in packages:
        (directory / f"{package}.py").write_text("raise ImportError\n")
    return directory


class Terminal:
    """A pseudo-terminal: what is typed into it, and what a person sees on it."""

    def __init__(self) -> None:
        controller, self.end = pty.openpty()
        self.screen = Stream(controller)
        self._controller = os.dup(controller)

    def type(self, line: str) -> None:
        os.write(self._controller, f"{line}\n".encode())

    def close(self) -> None:
        self.screen.close()
        os.close(self._controller)
        os.close(self.end)


@contextlib.contextmanager
def terminal() -> Iterator[Terminal]:
    opened = Terminal()
    try:
        yield opened
    finally:
        opened.close()
