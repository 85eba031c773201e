"""Members that join, leave, stall, flood and vanish: what each of them hears is one and the same order."""

import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable
from graphlib import TopologicalSorter
from itertools import pairwise
from typing import Final

import gevent
from conftest import Wire, hello, reset, until
from gevent import socket
from gevent.event import Event
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, rule

from greenchat import ChatServer
from greenchat.errors import Code
from greenchat.protocol.codec import encode
from greenchat.protocol.limits import MIN_HIGH_WATERMARK
from greenchat.protocol.records import Error, Welcome

Line = tuple[str, int]
"""Who said it, and which of its lines it is."""

BACKLOG: Final = MIN_HIGH_WATERMARK
BUFFER: Final = 16 * 1024
"""Of the kernel, for each side of a connection; so who stalls is behind soon."""
FLOOD: Final = 2000
PADDING: Final = b"." * 100
SLOW: Final = encode(Error(Code.SLOW_CONSUMER, "too much was waiting unread: read faster")).rstrip()
SLOW_GUEST: Final = b"error: too much was waiting unread: read faster"


class Person:
    """A member of the room that numbers what it says, and keeps what it hears while it reads."""

    def __init__(self, port: int, name: str, *, guest: bool) -> None:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        sock.connect(("127.0.0.1", port))
        self.name = name
        self.wire = Wire.over(sock)
        sock.settimeout(None)
        self.wire.send(name.encode() + b"\n" if guest else hello(name))
        if not guest:
            self.wire.record(Welcome)
        self.guest = guest
        self.said = 0
        self.heard: dict[str, list[int]] = defaultdict(list)
        self.order: list[Line] = []
        self.due: dict[str, int] = {}
        """The first line of each other person that it cannot have missed."""
        self.last_words = b""
        self.ended = False
        self.vanished = self.stalled = False
        self.reads = Event()
        self.reads.set()
        self._reader = gevent.spawn(self._read)
        self._speakers: list[gevent.Greenlet[..., None]] = []

    def say(self, lines: int, padding: bytes = b"") -> None:
        """Without waiting for the server to take it."""
        text = b"".join(b"%d %s\n" % (number, padding) for number in range(self.said, self.said + lines))
        self.said += lines
        before = list(self._speakers)
        self._speakers.append(gevent.spawn(self._send, before, text))

    def finish_speaking(self) -> None:
        gevent.joinall(self._speakers)

    def vanish(self) -> None:
        self.vanished = True
        self.close(reset)

    def close(self, how: Callable[[socket.socket], object] = socket.socket.close) -> None:
        gevent.killall(self._speakers)
        self._reader.kill()
        how(self.wire.sock)

    def leave(self) -> None:
        """Once everything is said, and then everything that is on its way has been heard."""
        self.reads.set()
        self.finish_speaking()
        with contextlib.suppress(OSError):
            self.wire.sock.shutdown(socket.SHUT_WR)
        self._reader.join()
        self.wire.close()

    def _send(self, before: "list[gevent.Greenlet[..., None]]", text: bytes) -> None:
        gevent.joinall(before)
        with contextlib.suppress(OSError):  # it was dropped
            self.wire.send(text)

    def _read(self) -> None:
        rest = self.wire._early  # came with the welcome
        with contextlib.suppress(ConnectionResetError):
            while self.reads.wait() and (data := self.wire.sock.recv(65536)):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._hear(line)
        self.ended = True

    def _hear(self, line: bytes) -> None:
        name, _, rest = line.partition(b": ")
        if line == (SLOW_GUEST if self.guest else SLOW):
            self.last_words = SLOW
            return
        number = int(rest.split()[0])
        self.heard[name.decode()].append(number)
        self.order.append((name.decode(), number))


class Dropped(logging.Handler):
    """The names of those whom the server says that it dropped; who does not read is not told itself."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[object] = set()

    def emit(self, record: logging.LogRecord) -> None:
        assert isinstance(record.args, tuple)
        self.names.add(record.args[0])


class Room(RuleBasedStateMachine):
    """Everybody has a name of its own, which nobody takes again."""

    people = Bundle("people")

    def __init__(self) -> None:
        super().__init__()
        self.server = ChatServer(backlog=BACKLOG)
        self.server.start()
        for listener in self.server._listeners:
            listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        self.everybody: list[Person] = []
        self.dropped = Dropped()
        logging.getLogger("greenchat.server").addHandler(self.dropped)
        self.witness = self._enter(guest=False)

    def _enter(self, *, guest: bool) -> Person:
        """It is in the room once its first line has been heard there."""
        person = Person(self.server.port, f"n{len(self.everybody)}", guest=guest)
        self.everybody.append(person)
        person.say(1)
        if len(self.everybody) > 1:
            until(lambda: self.witness.heard[person.name])
        person.due = {other.name: other.said for other in self.everybody if other is not person}
        return person

    @rule(target=people, guest=st.booleans())
    def join(self, guest: bool) -> Person:  # noqa: FBT001 - drawn by hypothesis
        return self._enter(guest=guest)

    @rule(person=people, lines=st.integers(1, 5))
    def say(self, person: Person, lines: int) -> None:
        person.say(lines)

    @rule(person=people)
    def flood(self, person: Person) -> None:
        person.say(FLOOD, PADDING)

    @rule(person=people)
    def stall(self, person: Person) -> None:
        person.stalled = True
        person.reads.clear()

    @rule(person=people)
    def is_overwhelmed(self, person: Person) -> None:
        """By more than what may wait for it, in the kernel and in the server."""
        self.stall(person)
        self.witness.say(4 * FLOOD, PADDING)

    @rule(person=people)
    def read_on(self, person: Person) -> None:
        person.reads.set()

    @rule(person=consumes(people))
    def leave(self, person: Person) -> None:
        person.leave()

    @rule(person=consumes(people))
    def vanish(self, person: Person) -> None:
        person.vanish()

    @rule(seconds=st.sampled_from([0.001, 0.02]))
    def go_on(self, seconds: float) -> None:
        gevent.sleep(seconds)

    def teardown(self) -> None:
        try:
            self._end()
            for person in self.everybody:
                assert person.stalled or person.name not in self.dropped.names
                assert not person.last_words or person.name in self.dropped.names
                self._check_what_was_heard(person)
            self._check_order()
        finally:
            for person in self.everybody:
                person.close()
            self.server.stop()
            logging.getLogger("greenchat.server").removeHandler(self.dropped)

    def _end(self) -> None:
        """Let everything come to rest, until a last line has reached all who are there."""
        for person in self.everybody:
            person.reads.set()
            person.finish_speaking()
        until(lambda: all(not self._is_whole(one) or self._is_heard_to_the_end(one) for one in self.everybody[1:]))
        gone = {person.name for person in self.everybody if not self._is_whole(person)}
        until(lambda: not gone & {session.name for session in self.server._sessions})
        last = self._enter(guest=False).name
        until(lambda: all(one.ended or one.vanished or one.heard[last] for one in self.everybody[:-1]))

    def _is_whole(self, person: Person) -> bool:
        """Whether all that it said has to reach the others."""
        return not person.vanished and person.name not in self.dropped.names

    def _is_heard_to_the_end(self, person: Person) -> bool:
        return self.witness.heard[person.name][-1] == person.said - 1

    def _check_what_was_heard(self, person: Person) -> None:
        assert not person.heard.get(person.name)
        for other in self.everybody:
            numbers, start = person.heard[other.name], person.due.get(other.name, 0)
            assert numbers == [numbers[0] + place for place in range(len(numbers))]
            assert not numbers or numbers[0] <= start
            last = self.witness.heard[other.name][-1:]
            if not person.ended and not person.vanished and other is not person and last >= [start]:
                assert numbers[-1:] == last

    def _check_order(self) -> None:
        """There is one order that all of them heard a part of, and in which each one's lines are in their own."""
        after: dict[Line, set[Line]] = defaultdict(set)
        for person in self.everybody:
            for one, other in pairwise(person.order):
                after[other].add(one)
            for number in range(1, person.said):
                after[person.name, number].add((person.name, number - 1))
        TopologicalSorter(after).prepare()  # raises if there is none


Room.TestCase.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
TestRoom = Room.TestCase
