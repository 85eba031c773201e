"""Hours in minutes: members and transfers come and go, many of them hostile, and the programs stay as they were.

`make soak` takes ten minutes; ``SOAK_SECONDS`` says otherwise. Every now and then nobody new comes in, until all is
quiet; then no descriptor, no greenlet and no temporary file may be left, and no process may have grown: see ``-s``.
"""

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

import gevent
import pytest
from conftest import Wire, hello, until
from gevent import subprocess
from gevent.pool import Group
from programs import TOP, Program
from server.pairs import children
from visitors import EVERY_KIND, FILE, OWNER, has_the_file

from greenchat.protocol.limits import TICKET_SECONDS

pytestmark = pytest.mark.soak

SECONDS: Final = float(os.environ.get("SOAK_SECONDS", "600"))
RESTS: Final = 20
WARM: Final = 3
"""Rests before which whatever is kept for good has been made. Then the highest of five is compared with the highest of
the last five, because a buffer of 2 MiB is there at some of them, and at others not."""
AT_ONCE: Final = 20
MEMBERS: Final = 30
"""Visitors at once, and those who stay all the time."""
GROWTH: Final = 1.02
LARGE: Final = 8 * 1024 * 1024
SMALL: Final = 100_000

COUNTING: Final = f"""
import gc, signal, sys
sys.path.insert(0, {str(TOP)!r})
import gevent
from greenchat.cli import main

def tell():
    gc.collect()
    alive = [one for one in gc.get_objects() if isinstance(one, gevent.Greenlet) and not one.dead]
    running = sum(one.gr_frame is not None for one in alive)
    print("greenlets:", running, len(alive), "in all", file=sys.stderr, flush=True)

gevent.signal_handler(signal.SIGUSR1, tell)
sys.exit(main(sys.argv[1:]))
"""
"""The program itself; on a signal it tells how many greenlets run, and how many there are with those that are to begin
later, such as the end of a ticket that nobody will use."""


class Counting(Program):
    """A program that is watched."""

    def __init__(self, name: str, home: Path, *arguments: str) -> None:
        home.mkdir(exist_ok=True)
        self.name = name
        super().__init__("-c", COUNTING, *arguments, home=home, stdout=subprocess.DEVNULL)

    def processes(self) -> list[int]:
        """Itself, and what it began."""
        return [self.process.pid, *children(self.process.pid)]

    def open(self) -> tuple[int, int, int]:
        """Descriptors, greenlets that run, and all greenlets."""
        self.signal(signal.SIGUSR1)
        self.err.wait_for("greenlets: ")
        self.err.wait_for(" in all\n")
        running, greenlets = map(int, self.err.text.rpartition("greenlets: ")[2].split()[:2])
        self.err.forget()
        descriptors = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.processes())  # noqa: PTH208 - quick
        return descriptors, running, greenlets

    def memory(self) -> int:
        """Resident bytes."""
        pages = (int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.processes())
        return sum(pages) * os.sysconf("SC_PAGE_SIZE")


class Town:
    """A server, an owner, two who fetch one file after the other, members who stay, and visitors."""

    def __init__(self, stack: ExitStack, root: Path) -> None:
        self._stack, self._root = stack, root
        self.did: Counter[str] = Counter()
        self._content = {FILE: random.randbytes(LARGE), "small": random.randbytes(SMALL)}
        (root / OWNER).mkdir()
        for name, content in self._content.items():
            (root / OWNER / name).write_bytes(content)
        server = self._program("server", "server", "0")
        server.err.wait_for(", port ")
        server.err.wait_for("\n")
        self._port = int(server.err.lines[0].rpartition(" ")[2])
        self._requesters = [self._client("direct", "direct"), self._client("relay", "relay")]
        self.programs = [server, self._client(OWNER, "auto"), *self._requesters]
        self._members = [Wire(self._port) for _ in range(MEMBERS)]
        self._listening = Group()

    def _program(self, name: str, *arguments: str) -> Counting:
        return self._stack.enter_context(Counting(name, self._root / name, *arguments))

    def _client(self, name: str, route: str) -> Counting:
        return self._program(name, "client", "-l", "0", "-p", str(self._port), "--name", name, "--transfer", route)

    def __enter__(self) -> Self:
        for number, wire in enumerate(self._members):
            wire.send(hello(f"member {number}"))
            wire.sock.settimeout(None)
            self._listening.spawn(_read_all, wire)
        until(lambda: has_the_file(self._port))
        for requester in self._requesters:
            self._fetch_once(requester)
        return self

    def __exit__(self, *_error: object) -> None:
        self._listening.kill()
        for wire in self._members:
            wire.close()

    def live(self, seconds: float) -> None:
        """For so long, and until everybody who came has gone."""
        end = time.monotonic() + seconds
        busy: list[gevent.Greenlet[..., None]] = [gevent.spawn(self._visit, end) for _ in range(AT_ONCE)]
        busy += [gevent.spawn(self._fetch, one, end) for one in self._requesters]
        busy += [gevent.spawn(_talk, wire, end) for wire in self._members]
        try:
            gevent.joinall(busy, timeout=seconds + 60, raise_error=True)
            assert not [one for one in busy if not one.ready()]
        finally:
            gevent.killall(busy)

    def _visit(self, end: float) -> None:
        while time.monotonic() < end:
            visit = random.choice(EVERY_KIND)
            with contextlib.suppress(OSError):  # the server has ended its connection
                visit(self._port)
            self.did[visit.__name__] += 1

    def _fetch(self, requester: Counting, end: float) -> None:
        while time.monotonic() < end:
            self._fetch_once(requester)

    def _fetch_once(self, requester: Counting) -> None:
        name = random.choice(list(self._content))
        requester.type("f", OWNER, name)
        requester.err.wait_for(f"received {name} from {OWNER}", 60)
        requester.err.forget()
        arrived = self._root / requester.name / name
        assert arrived.read_bytes() == self._content[name]
        arrived.unlink()
        self.did[f"{name} file, {requester.name}"] += 1

    def open(self) -> list[tuple[int, int, int]]:
        return [program.open() for program in self.programs]

    def is_left_clean(self, before: list[tuple[int, int, int]], kinds: int) -> None:
        """Of the first *kinds* of what programs have open, there is no more than *before*, and no partial file."""
        with gevent.Timeout(TICKET_SECONDS + 30):
            while any(more > 0 for more in self._more_than(before, kinds)):
                gevent.sleep(0.2)
        assert not list(self._root.glob("*/.greenchat-*"))

    def _more_than(self, before: list[tuple[int, int, int]], kinds: int) -> Iterator[int]:
        for now, then in zip(self.open(), before, strict=True):
            yield from (one - other for one, other in zip(now[:kinds], then, strict=False))

    def memory(self) -> dict[str, int]:
        return {program.name: program.memory() for program in self.programs}

    def end(self) -> None:
        for program in reversed(self.programs):
            program.signal(signal.SIGTERM)
            assert program.status() == (0 if program.name == "server" else -signal.SIGTERM)
        assert not [path for name in ("direct", "relay", "server") for path in (self._root / name).iterdir()]


def _read_all(wire: Wire) -> None:
    while wire.sock.recv(65536):
        pass


def _talk(wire: Wire, end: float) -> None:
    while time.monotonic() < end:
        wire.send(b"I am still here\n")
        gevent.sleep(random.uniform(0.5, 1.5))


def test_nothing_grows_and_nothing_is_left(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    random.seed(seed)
    print(f"\nseed {seed}; resident KiB at each rest")  # noqa: T201 - for who watches
    rests: list[dict[str, int]] = []
    with ExitStack() as stack, Town(stack, tmp_path) as town:
        before = town.open()
        for _ in range(RESTS):
            town.live(SECONDS / RESTS)
            town.is_left_clean(before, 2)
            rests.append(town.memory())
            print(*(f"{name} {size // 1024:,}" for name, size in rests[-1].items()), sep="   ")  # noqa: T201
        town.is_left_clean(before, 3)
        town.end()
    print(*(f"{count:,} {what}" for what, count in sorted(town.did.items())), sep=", ")  # noqa: T201
    for name in rests[0]:
        early, late = (max(sizes[name] for sizes in part) for part in (rests[WARM : WARM + 5], rests[-5:]))
        assert late <= GROWTH * early, name
