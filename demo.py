"""A server and three menu clients, for real: they chat, and swap a picture and a text, directly and relayed.

Each program is a process of its own with a directory of its own, driven as a person would: a line at a time.
"""

import os
import sys

# Fetched files may lie beside this program: nothing is imported from here.
sys.path = [entry for entry in sys.path if entry != os.path.dirname(os.path.realpath(__file__))]

import struct
import subprocess
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Empty, Queue

TOP = Path(__file__).resolve().parent
PATIENCE = 20.0
"""Seconds that anything may take before the demo counts as failed."""

TEXT = "Ameca splendens lives in one river of Jalisco, and gives birth to living young.\n" * 40


class Program:
    """One running program, with what it has written so far."""

    def __init__(self, script: str, *arguments: str, home: Path) -> None:
        self.home = home
        self.transcript: list[str] = []
        self._new: Queue[str] = Queue()
        self._unseen: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, str(TOP / script), *arguments],
            cwd=home, text=True, bufsize=1, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._readers = [
            threading.Thread(target=self._read, args=(stream, mark), daemon=True)
            for stream, mark in ((self.process.stdout, "  "), (self.process.stderr, "! "))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Iterator[str], mark: str) -> None:
        for line in stream:
            self.transcript.append(mark + line.rstrip("\n"))
            self._new.put(line.rstrip("\n"))

    def type(self, line: str) -> None:
        """Enter *line*, seen in the transcript as it would be on a terminal."""
        assert self.process.stdin is not None
        self.transcript.append("> " + line)
        self.process.stdin.write(line + "\n")

    def say(self, text: str) -> None:
        """Choose m."""
        self.type("m")
        self.wait_for("Enter your message:")
        self.type(text)
        self.wait_for("e(X)it")

    def fetch(self, owner: str, file: str) -> None:
        """Choose f."""
        self.type("f")
        self.wait_for("Who owns the file?")
        self.type(owner)
        self.wait_for("Which file do you want?")
        self.type(file)
        self.wait_for("e(X)it")

    def wait_for(self, part: str) -> str:
        """The first line that contains *part* and was not waited for before."""
        end = time.monotonic() + PATIENCE
        while not (found := next((line for line in self._unseen if part in line), None)):
            try:
                self._unseen.append(self._new.get(timeout=max(0.0, end - time.monotonic())))
            except Empty:
                raise SystemExit(f"demo: no line with {part!r} came; so far:\n" + "\n".join(self.transcript)) from None
        self._unseen.remove(found)
        return found

    def end(self, act: Callable[[], None]) -> int:
        """Do what makes the program end; its exit status."""
        act()
        status = self.process.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)
        return status


def picture(width: int = 640, height: int = 480) -> bytes:
    """A PNG: a gradient, made here so that the demo needs nothing."""
    rows = b"".join(
        b"\0" + bytes(v for x in range(width) for v in (x % 256, y % 256, x * y % 256)) for y in range(height)
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@contextmanager
def started(script: str, *arguments: str, home: Path) -> Iterator[Program]:
    """A program that is gone afterwards, whatever happens."""
    home.mkdir()
    program = Program(script, *arguments, home=home)
    try:
        yield program
    finally:
        program.process.kill()
        program.process.wait()


def main() -> int:
    """Run the demo; the exit status."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as root, ExitStack() as stack:
        server = stack.enter_context(started("ChatServer.py", "0", home=Path(root, "server")))
        port = server.wait_for("listening").rpartition(" ")[2]
        people = {}
        for name, route in (("ann", "auto"), ("bob", "auto"), ("cat", "relay")):
            arguments = ("-l", "0", "-p", port, "--transfer", route)
            people[name] = stack.enter_context(started("ChatClient.py", *arguments, home=Path(root, name)))
            people[name].type(name)
            people[name].wait_for("e(X)it")
        said = chat(people)
        swapped = swap_files(people)
        statuses = [one.end(lambda one=one: one.type("x")) for one in people.values()]  # type: ignore[misc]  # bound now
        statuses.append(server.end(server.process.terminate))
        for name, one in {"server": server, **people}.items():
            print(f"--- {name} " + "-" * (60 - len(name)), *one.transcript, sep="\n")
    good = said == 6 and swapped == 3 and not any(statuses)
    print(
        f"\n{'demo passed' if good else 'DEMO FAILED'}: 1 server, 3 clients, {said} messages delivered, "
        f"{swapped} files equal byte for byte (2 direct, 1 relayed), {time.monotonic() - begun:.1f} s"
    )
    return 0 if good else 1


def chat(people: dict[str, Program]) -> int:
    """Everyone says something, and everyone else hears it; how often."""
    heard = 0
    for name, one in people.items():
        one.say(f"hello from {name}")
        for other in people.values():
            if other is not one:
                other.wait_for(f"{name}: hello from {name}")
                heard += 1
    return heard


def swap_files(people: dict[str, Program]) -> int:
    """Bob fetches Ann's picture directly, Cat through the relay, and Ann a text of Bob's; how many are equal."""
    (people["ann"].home / "ameca.png").write_bytes(picture())
    (people["bob"].home / "ameca.txt").write_text(TEXT)
    wanted = [("bob", "ann", "ameca.png"), ("cat", "ann", "ameca.png"), ("ann", "bob", "ameca.txt")]
    for requester, owner, file in wanted:
        people[requester].fetch(owner, file)
    for requester, _, file in wanted:
        people[requester].wait_for(f"received {file}")
    return sum((people[r].home / file).read_bytes() == (people[o].home / file).read_bytes() for r, o, file in wanted)


if __name__ == "__main__":
    sys.exit(main())
