"""Who may fetch files from a client, and asking its user about those of whom that is not settled."""

import enum
import time
from collections.abc import Callable
from typing import NamedTuple

import gevent

from greenchat.client.peers import Peers
from greenchat.errors import Code, TransferError
from greenchat.protocol.limits import CONSENT_SECONDS, MAX_QUESTIONS
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
    """Lets in whom it may *accept*.

    About others *on_asked* is called, for one at a time, so that an answer can be about nobody else.
    """

    def __init__(self, accept: Accept, peers: Peers, on_asked: Callable[[Question], object]) -> None:
        self._accept = accept
        self._peers = peers
        self._on_asked = on_asked
        self._asked: Question | None = None
        """What the user has been asked and has not answered."""
        self._waiting: dict[tuple[str, str], tuple[Question, float]] = {}
        """What the user is still to be asked, and when each came for the last time."""
        self._answers: dict[tuple[str, str], bool] = {}

    def check(self, question: Question) -> None:
        """Raises `TransferError` unless the answer is yes, and `SecurityError` if it can't be known."""
        known = self._peers.knows(question.requester, question.certificate)
        if self._accept is Accept.ALL or (self._accept is Accept.KNOWN and known):
            return
        if self._accept is Accept.NONE:
            raise TransferError(Code.NOT_ACCEPTED)
        answer = self._answers.get(question.who)
        if answer is None:
            self._keep(question)
            self._ask_next()
        if not answer:
            raise TransferError(Code.ASKED if answer is None else Code.NOT_ACCEPTED)

    def answer(self, *, yes: bool) -> Question | None:
        """The user's answer to what was asked last; the question, if there was one."""
        question, self._asked = self._asked, None
        if question is None:
            return None
        self._answers[question.who] = yes
        gevent.spawn(self._ask_next)  # when the user has been told what became of this one
        return question

    def met(self, requester: str, certificate: bytes) -> None:
        """*requester*, who was let in, has shown to have the key of *certificate*. Raises `SecurityError`."""
        if self._accept is Accept.KNOWN:
            self._peers.remember(requester, certificate)

    def _keep(self, question: Question) -> None:
        """Have it asked in its turn; who has given up meanwhile takes nobody's place."""
        end = time.monotonic() - CONSENT_SECONDS
        self._waiting = {who: (other, came) for who, (other, came) in self._waiting.items() if came > end}
        if question.who in self._waiting or (len(self._waiting) < MAX_QUESTIONS and not self._is_open(question)):
            self._waiting[question.who] = question, time.monotonic()

    def _is_open(self, question: Question) -> bool:
        """Whether the user is being asked about its key already, which may have several names, or about its name."""
        others = [question for question, _ in self._waiting.values()]
        return any(_key(question) == _key(other) for other in [*others, *([self._asked] if self._asked else [])])

    def _ask_next(self) -> None:
        if self._asked is None and self._waiting:
            self._asked, _ = self._waiting.pop(next(iter(self._waiting)))
            self._on_asked(self._asked)
