"""Who may fetch files from a client, and asking its user about those of whom that is not settled."""

import enum
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import gevent

from greenchat.client.peers import Peers
from greenchat.errors import Code, TransferError
from greenchat.protocol.limits import CONSENT_SECONDS, MAX_ASKED, MAX_QUESTIONS
from greenchat.protocol.names import name_key
from greenchat.security.tls import fingerprint

__all__ = ["Accept", "Consent", "Question"]


class Accept(enum.StrEnum):
    """Who may fetch."""

    ALL = "all"
    KNOWN = "known"
    """Who was known before; others as soon as the user says so, and then they are known."""
    ASK = "ask"
    """Nobody before the user says so; it holds until the client ends."""
    NONE = "none"


class Question(NamedTuple):
    """May *requester*, who asks for *file*, and has a key with this *certificate* or none, fetch files?"""

    requester: str
    file: str
    certificate: bytes
    number: int = 0
    """What an answer calls it by; 0 before the user has been asked."""

    @property
    def who(self) -> tuple[str, str]:
        """Whom it is about, whatever the file: a name, and the fingerprint of its key."""
        return name_key(self.requester), self.mark

    @property
    def mark(self) -> str:
        """The fingerprint of the requester's key; empty if it has none."""
        return fingerprint(self.certificate) if self.certificate else ""


def _key(question: Question) -> str:
    return question.mark or question.who[0]


class Consent:
    """The user's decision about who may fetch, as far as *accept* leaves it to the user.

    *on_asked* is called with a question at a time, each with a number. An answer names that number, so it can be about
    nobody else, and it may come again, the other way.
    """

    def __init__(self, accept: Accept, peers: Peers, on_asked: Callable[[Question], object]) -> None:
        self._accept = accept
        self._peers = peers
        self._on_asked = on_asked
        self._asked: OrderedDict[int, Question] = OrderedDict()
        """Questions that the user has been asked, by their numbers; only the last may be open."""
        self._waiting: dict[tuple[str, str], tuple[Question, float]] = {}
        """What the user is still to be asked, and when each came for the last time."""
        self._answers: dict[tuple[str, str], bool] = {}

    def check(self, question: Question) -> None:
        """Raise `TransferError` unless the answer is yes, and `SecurityError` if it can't be known."""
        known = self._peers.knows(question.requester, question.certificate)
        answer = self._answers.get(question.who)
        if self._accept is Accept.ALL or (self._accept is Accept.KNOWN and known and answer is None):
            return
        if self._accept is Accept.NONE:
            raise TransferError(Code.NOT_ACCEPTED)
        if answer is None:
            self._keep(question)
            self._ask_next()
        if not answer:
            raise TransferError(Code.ASKED if answer is None else Code.NOT_ACCEPTED)

    def answer(self, number: int, *, yes: bool) -> Question | None:
        """Take the answer to the question with this *number*. Return the question, or None if there is none."""
        question = self._asked.get(number)
        if question is not None:
            self._answers[question.who] = yes
            gevent.spawn(self._ask_next)  # when the user has been told what became of this one
        return question

    @property
    def questions(self) -> list[tuple[Question, bool | None]]:
        """What the user has been asked, oldest first, each with the answer, or None if it is open."""
        return [(question, self._answers.get(question.who)) for question in self._asked.values()]

    def met(self, requester: str, certificate: bytes) -> None:
        """*requester*, who was let in, has shown to have the key of *certificate*. Raises `SecurityError`."""
        if self._accept is Accept.KNOWN:
            self._peers.remember(requester, certificate)

    def _keep(self, question: Question) -> None:
        """Put *question* among those to be asked; one that was given up since takes nobody's place."""
        end = time.monotonic() - CONSENT_SECONDS
        self._waiting = {who: (other, came) for who, (other, came) in self._waiting.items() if came > end}
        if question.who in self._waiting or (len(self._waiting) < MAX_QUESTIONS and not self._is_about(question)):
            self._waiting[question.who] = question, time.monotonic()

    def _is_about(self, question: Question) -> bool:
        """Return True if the user is asked about its key already, which may have several names, or about its name."""
        others = [question for question, _ in self._waiting.values()]
        return any(_key(question) == _key(other) for other in [*others, *([self._open] if self._open else [])])

    @property
    def _open(self) -> Question | None:
        """The question that the user has not answered yet."""
        last = next(reversed(self._asked.values()), None)
        return last if last and last.who not in self._answers else None

    def _ask_next(self) -> None:
        if self._open is None and self._waiting:
            question, _ = self._waiting.pop(next(iter(self._waiting)))
            number = next(reversed(self._asked), 0) + 1
            self._asked[number] = question = question._replace(number=number)
            if len(self._asked) > MAX_ASKED:
                self._asked.popitem(last=False)
            self._on_asked(question)
