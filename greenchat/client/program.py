"""The client as a program: a name, then the menu on standard input and output until the user leaves.

Standard output has the menu and the messages, and nothing else ever; all else is a line on standard error.
"""

import contextlib
import math
import signal
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, cast

import gevent
from gevent.event import AsyncResult
from gevent.pool import Group

from greenchat.client.client import ChatClient, Message
from greenchat.client.consent import Question
from greenchat.client.console import (
    STDERR,
    STDIN,
    STDOUT,
    Output,
    in_foreground,
    is_one_terminal,
    is_terminal,
    mark,
    read_lines,
)
from greenchat.client.display import Display
from greenchat.client.downloads import Received
from greenchat.client.menu import GOODBYE, run_menu
from greenchat.client.uploads import Served
from greenchat.errors import BadName, Code, GreenchatError, ProtocolError, Refused, ServerGone, TransferError, sentence
from greenchat.protocol.limits import FULL_SECONDS, GOODBYE_SECONDS, MAX_FETCHES, MAX_UNWRITTEN, MAX_WANTED
from greenchat.protocol.text import safe_line
from greenchat.security.tls import short

__all__ = ["Program"]

_MOMENT: Final = 0.1
"""Seconds in which the loss of a relayed transfer may turn out to be the loss of the server."""

_NAME_REFUSED: Final = (Code.BAD_NAME, Code.NAME_ALIKE, Code.NAME_OWNED, Code.NAME_TAKEN)
"""Refusals after which another name may be let in."""


class Program:
    """One run of the client under *name*, or under the first line of input; *connect* makes the client for a name.

    It is also given this, to be told of what happens.
    """

    def __init__(
        self,
        name: str | None,
        connect: Callable[[str, "Program"], ChatClient],
    ) -> None:
        self._name = name
        self._connect = connect
        self._client: ChatClient | None = None
        self._where: tuple[str, int] | None = None
        """The server that it was on last, by host and port."""
        self._status: AsyncResult[int] = AsyncResult()
        self._broken = False
        self._failed = False
        """True if something that the user asked for came to nothing."""
        self._left = False
        """True if the user has left by x, and so waits for nothing."""
        self._mark = mark(STDERR)
        self._answering = False
        """True while the user answers a prompt, and so can take no question for what it is."""
        self._questions: list[str] = []
        """Questions that wait for that to be over."""
        self._greenlets = Group()
        self._requests = Group()
        self._wanted: deque[tuple[str, str]] = deque()
        self._dropped = 0
        """Lines for standard error that found it full."""
        self._err = Output(self._on_broken, self._on_room)
        # On one terminal the order between the two matters; elsewhere neither may hold up the other.
        self._out = self._err if is_one_terminal(STDOUT, STDERR) else Output(self._on_broken)
        self._display = Display(STDERR, self._err)

    def run(self) -> int:
        """Chat until the user leaves or the server is gone; the exit status."""
        self._greenlets.spawn(self._chat)
        status = cast(int, self._status.get())
        self._display.stop()  # first, because a second signal ends the program wherever it is
        given_up = len(self._requests) + len(self._wanted)
        if self._client is not None:
            self._client.close()
        self._requests.kill()
        if self._client is not None:
            self._printer.join(timeout=GOODBYE_SECONDS)  # what has been received is written
        self._greenlets.kill()
        if status == 0:
            self._out.write(STDOUT, GOODBYE, math.inf)  # a stuck output must not hold up the end
        self._out.flush(GOODBYE_SECONDS)
        if status == 0 and given_up:
            self._failed = True
            self.hint(f"files given up: {given_up}; ask again to resume")
        if self._client is not None and self._client.unacknowledged:
            status = status or 1
            self.hint(f"messages that the server has not acknowledged: {self._client.unacknowledged}; they may be lost")
        if self._broken:
            status = 1
            self.hint("standard output cannot be written to")
        self._err.flush(FULL_SECONDS)
        return status or int(self._failed)

    def end_by(self, number: int) -> None:
        """Make `run` return for the signal *number*; what a key has echoed as ^C gets a line of its own."""
        if is_terminal(STDERR) and number in (signal.SIGINT, signal.SIGQUIT):
            self._err.put(STDERR, "\n")
        self.end(128 + number)

    def end(self, status: int) -> None:
        """Make `run` return *status*."""
        if not self._status.ready():
            self._status.set(status)

    def leave_terminal(self) -> None:
        """Give its rows back to the terminal, for as long as another program has it."""
        self._display.stop()
        self._err.flush(FULL_SECONDS)

    def take_terminal(self) -> None:
        """Show again what moves, unless the job is in the background."""
        self._display.stop()
        if self._client is not None and not self._status.ready() and in_foreground(STDERR):
            self._display.start(self._client.moving)

    def show(self, line: str) -> None:
        """Write *line* of the menu to standard output, also where messages have to wait already."""
        self._out.write(STDOUT, line, 2 * MAX_UNWRITTEN)

    def hint(self, line: str) -> None:
        """Write *line* to standard error without waiting; where too much waits already, it is dropped and counted."""
        if self._dropped or not self._err.offer(STDERR, self._mark + safe_line(line)):
            self._dropped += 1

    def send(self, text: str) -> None:
        """Say *text*; if it cannot be said as it is, only the user is told."""
        try:
            self._here.send(text, wait=not is_terminal(STDIN))
        except ProtocolError as error:
            self._failed = True
            self.hint(str(error))

    def request(self, owner: str, file: str) -> None:
        """Fetch *owner*'s *file* in the background."""
        if len(self._wanted) >= MAX_WANTED:
            self._could_not_get(owner, file, TransferError(Code.TOO_MANY))
            return
        self._wanted.append((owner, file))
        if len(self._requests) < MAX_FETCHES:
            self._requests.spawn(self._fetch_wanted)
            gevent.sleep(0)  # the request itself leaves now, even if the next line of input ends the program

    def answer(self, number: int, *, yes: bool) -> None:
        """Let the requester of a question fetch, or not."""
        question = self._here.answer(number, yes=yes)
        if question is None:
            self.reject(f"there is no question {number}")
        else:
            self.hint(_answered(question, yes=yes))

    def reject(self, line: str) -> None:
        """Tell the user of a mistake in the input; to a script it is a failure."""
        self._failed = self._failed or not is_terminal(STDIN)
        self.hint(line)

    def help(self) -> None:
        """Show what can be typed, and what was asked."""
        for line in _HELP:
            self.hint(line)
        for question, yes in self._here.questions:
            self.hint(_asked(question) if yes is None else _answered(question, yes=yes))

    def pause(self) -> None:
        """Keep questions back: the user is answering a prompt."""
        self._answering = True

    def resume(self) -> None:
        """Ask what was kept back."""
        self._answering = False
        questions, self._questions = self._questions, []
        for question in questions:
            self.hint(question)

    @property
    def _here(self) -> ChatClient:
        assert self._client is not None
        return self._client

    def _chat(self) -> None:
        lines = read_lines(STDIN)
        try:
            if self._enter(lines):
                self._printer = self._greenlets.spawn(self._print_messages)
                self._greenlets.spawn(self._watch)
                self._display.start(self._here.moving)
                self._left = run_menu(lines, self)
                if not self._left:
                    self._requests.join()  # a script ends its input, and wants its files all the same
            self.end(0)
        except GreenchatError as error:
            self._fail(error)

    def _enter(self, lines: Iterator[str]) -> bool:
        """Join under the user's name; where a person can be asked, ask until there is one that the server takes."""
        name = self._name
        while True:
            if name is None:
                name = self._ask_name(lines)
            if name is None:
                return False
            try:
                client = self._connect(name, self)
                client.start()
            except (BadName, Refused) as error:
                if not is_terminal(STDIN) or error.code not in _NAME_REFUSED:
                    raise
                self.hint(str(error))
                name = None
            else:
                self._client, self._where = client, client.server
                return True

    def _ask_name(self, lines: Iterator[str]) -> str | None:
        if is_terminal(STDIN):
            self._err.put(STDERR, "Enter your name:\n")
        return next(lines, None)

    def _watch(self) -> None:
        """When the server is gone, say so, also if standard output is stuck with messages that came before."""
        try:
            self._here.wait()
        except ServerGone as error:
            self._printer.join(timeout=GOODBYE_SECONDS)
            self._fail(error)

    def _print_messages(self) -> None:
        missed = 0
        with contextlib.suppress(ServerGone):  # which is told once, by another
            for message in self._here.messages():
                self._out.write(STDOUT, str(message))
                if self._here.missed > missed:
                    missed = self._here.missed
                    self.hint(f"{missed} messages were lost so far: standard output is read too slowly")

    def _fetch_wanted(self) -> None:
        while self._wanted:
            self._fetch(*self._wanted.popleft())

    def _fetch(self, owner: str, file: str) -> None:
        try:
            self.hint(_received(file, self._here.fetch(owner, file)))
        except ServerGone:
            pass  # which is told once, by another
        except GreenchatError as error:
            if not self._status.wait(_MOMENT):  # what the end of the program broke is not told one by one
                self._could_not_get(owner, file, error)

    def _could_not_get(self, owner: str, file: str, error: GreenchatError) -> None:
        self._failed = True
        self.hint(f"could not get {file} from {owner}: {error}")

    def on_served(self, served: Served) -> None:
        """Say what somebody fetched from here."""
        if served.error is None:
            self.hint(f"sent {served.file} to {served.requester} ({served.size:,} bytes)")
        else:
            self.hint(f"could not send {served.file} to {served.requester}: {served.error}")

    def on_asked(self, question: Question) -> None:
        """Ask whether somebody may fetch, when the user is at the menu."""
        if self._answering:
            self._questions.append(_asked(question))
        else:
            self.hint(_asked(question))

    def on_lost(self, gone: ServerGone) -> None:
        """Say that the server is gone for now."""
        self.hint(f"{gone}; coming back to it, and what you send waits")

    def on_back(self, lost: int | None) -> None:
        """Say that the server is there again, and what is lost."""
        host, port = where = self._here.server
        back = "the server is there again" if where == self._where else f"now at {host} port {port}"
        self._where = where
        if lost is None:
            self.hint(f"{back}, but what was said before is lost there: so may be what was sent meanwhile")
        else:
            self.hint(f"{back}{f'; messages lost meanwhile: {lost:,}' if lost else ''}")

    def on_private(self, message: Message) -> None:
        """Show what somebody says to this user alone; not among the messages, where a name could read like it."""
        self.hint(f"{message.sender} says to you alone: {message.text}")

    def on_note(self, code: Code) -> None:
        """Show what the server has to tell."""
        self.hint(sentence(code))

    def _on_room(self) -> None:
        """Tell how many lines were dropped, in their place."""
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self.hint(f"lines dropped because standard error was full: {dropped}")

    def _on_broken(self, fd: int) -> None:
        if fd == STDOUT:
            self._broken = True
            self.end(1)

    def _fail(self, error: GreenchatError) -> None:
        if not self._status.ready():
            self.end(1)  # first, because a stuck terminal would hold up the hint
            self.hint(str(error))


_HELP: Final = (
    "m: send a message; f: request a file; x: leave; an empty answer goes back to the menu",
    "y NUMBER, n NUMBER: let whoever asked fetch files from you, or not; a later answer counts",
)


def _asked(question: Question) -> str:
    """Return *question* with what cannot be chosen by its requester first: a name, or a file's, can read like it."""
    key = f"key {short(question.mark)}" if question.mark else "no key"
    number = question.number
    return f"question {number} (y {number} or n {number}), {key}: {question.requester} asks for {question.file}"


def _answered(question: Question, *, yes: bool) -> str:
    number, who = question.number, question.requester
    if yes:
        return f"question {number}: {who} may fetch files from you until you leave; n {number} takes it back"
    return f"question {number}: {who} may not fetch files from you; y {number} takes it back"


def _received(file: str, received: Received) -> str:
    if received.unchanged:
        return f"{file} from {received.owner} is the same as the one that is here"
    earlier = f", {received.resumed:,} of them earlier" if received.resumed else ""
    told = f"received {file} from {received.owner} ({received.size:,} bytes{earlier})"
    return f"{told}; the one that was here is now {received.backup.name}" if received.backup else told
