from pathlib import Path

import gevent
import pytest

from greenchat.client import consent as consent_module
from greenchat.client.consent import Accept, Consent, Question
from greenchat.client.peers import Peers
from greenchat.errors import Code, TransferError
from greenchat.protocol.limits import MAX_ASKED, MAX_QUESTIONS
from greenchat.security.known import Known

KEY, OTHER = b"ann's", b"another"


class ServerContext:
    """A consent, and what its user was asked."""

    def __init__(self, root: Path, accept: Accept) -> None:
        self.asked: list[Question] = []
        self.peers = Peers(Known(root / "known_peers"), ("here", 1))
        self.consent = Consent(accept, self.peers, self.asked.append)

    def comes(self, name: str = "ann", key: bytes = KEY, file: str = "file") -> str:
        """What becomes of a request; empty if it is let in."""
        try:
            self.consent.check(Question(name, file, key))
        except TransferError as error:
            return error.code
        return ""


@pytest.fixture
def house(request: pytest.FixtureRequest, tmp_path: Path) -> ServerContext:
    return ServerContext(tmp_path, request.param)


def accepting(*accept: Accept) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("house", accept, indirect=True)


@accepting(Accept.ALL)
def test_all_are_let_in_and_nobody_is_asked_or_remembered(house: ServerContext) -> None:
    assert house.comes() == house.comes("eve", b"") == ""
    assert house.asked == []
    assert not house.peers.knows("ann", KEY)


@accepting(Accept.NONE)
def test_none_are_let_in_and_nobody_is_asked(house: ServerContext) -> None:
    house.peers.remember("ann", KEY)
    assert house.comes() == Code.NOT_ACCEPTED
    assert house.asked == []


@accepting(Accept.KNOWN)
def test_known_are_let_in(house: ServerContext) -> None:
    house.peers.remember("ann", KEY)
    assert house.comes() == ""
    assert house.asked == []


@accepting(Accept.KNOWN)
def test_unknown_is_refused_until_the_user_says_otherwise_and_then_known(house: ServerContext) -> None:
    assert house.comes() == house.comes(file="another") == Code.ASKED
    assert house.asked == [Question("ann", "file", KEY, 1)]
    assert house.consent.answer(1, yes=True) == house.asked[0]
    assert house.comes() == ""
    assert not house.peers.knows("ann", KEY)  # nobody has shown yet to have that key
    house.consent.met("ann", KEY)
    assert house.peers.knows("ann", KEY)


@accepting(Accept.ASK)
def test_asked_about_whoever_comes_also_the_known(house: ServerContext) -> None:
    house.peers.remember("ann", KEY)
    assert house.comes() == house.comes() == Code.ASKED
    assert len(house.asked) == 1
    house.consent.answer(1, yes=True)
    assert house.comes() == house.comes(file="another") == ""


@accepting(Accept.ASK, Accept.KNOWN)
def test_who_was_denied_is_not_asked_about_again(house: ServerContext) -> None:
    house.comes()
    house.consent.answer(1, yes=False)
    assert house.comes() == house.comes() == Code.NOT_ACCEPTED
    assert len(house.asked) == 1
    assert not house.peers.knows("ann", KEY)


@accepting(Accept.ASK)
def test_answer_is_about_the_question_that_it_names(house: ServerContext) -> None:
    house.comes()
    house.comes("eve", OTHER)
    assert [question.requester for question in house.asked] == ["ann"]
    assert house.consent.answer(2, yes=True) is None
    house.consent.answer(1, yes=True)
    assert [question.requester for question in house.asked] == ["ann"]  # the user is told first what became of that
    gevent.sleep(0)
    assert [(question.number, question.requester) for question in house.asked] == [(1, "ann"), (2, "eve")]
    house.consent.answer(2, yes=False)
    assert house.comes() == ""
    assert house.comes("eve", OTHER) == Code.NOT_ACCEPTED
    assert house.consent.answer(3, yes=True) is None


@accepting(Accept.ASK, Accept.KNOWN)
def test_answer_can_be_taken_back(house: ServerContext) -> None:
    house.comes()
    house.consent.answer(1, yes=False)
    assert house.comes() == Code.NOT_ACCEPTED
    house.consent.answer(1, yes=True)
    assert house.comes() == ""
    house.consent.met("ann", KEY)
    house.consent.answer(1, yes=False)
    assert house.comes() == Code.NOT_ACCEPTED
    assert house.consent.questions == [(house.asked[0], False)]
    assert len(house.asked) == 1


@accepting(Accept.ASK)
def test_questions_that_can_be_answered_again_are_bounded(house: ServerContext) -> None:
    for number in range(MAX_ASKED + 5):
        house.comes(f"user{number}", b"%d" % number)
        house.consent.answer(number + 1, yes=True)
        gevent.sleep(0)
    assert len(house.consent.questions) == MAX_ASKED
    assert house.consent.answer(5, yes=False) is None
    assert house.consent.answer(6, yes=False)


@accepting(Accept.ASK)
def test_answer_is_about_one_key_and_without_one_about_a_name(house: ServerContext) -> None:
    house.comes()
    house.consent.answer(1, yes=True)
    assert house.comes("ann", OTHER) == Code.ASKED
    assert house.comes("ann", b"") == Code.ASKED
    assert house.comes("eve", KEY) == Code.ASKED
    assert house.comes("ANN", KEY) == ""


@accepting(*Accept)
def test_changed_key_is_refused_whatever_is_accepted(house: ServerContext) -> None:
    house.peers.remember("ann", OTHER)
    assert house.comes() == Code.KEY_CHANGED
    assert house.asked == []


@accepting(Accept.ASK)
def test_row_31_questions_are_bounded(house: ServerContext) -> None:
    for number in range(10 * MAX_QUESTIONS):
        assert house.comes(f"user{number}", b"%d" % number) == Code.ASKED
    number = 1
    while house.consent.answer(number, yes=False):
        number += 1
        gevent.sleep(0)
    assert len(house.asked) == 1 + MAX_QUESTIONS


@accepting(Accept.ASK)
def test_who_has_given_up_takes_nobody_s_place(house: ServerContext, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10 * MAX_QUESTIONS):
        house.comes(f"user{number}", b"%d" % number)
    monkeypatch.setattr(consent_module, "CONSENT_SECONDS", -1.0)
    house.comes()
    house.consent.answer(1, yes=False)
    gevent.sleep(0)
    assert [question.requester for question in house.asked] == ["user0", "ann"]


@accepting(Accept.ASK)
def test_key_with_many_names_takes_one_place(house: ServerContext) -> None:
    for number in range(MAX_QUESTIONS):
        assert house.comes(f"user{number}") == Code.ASKED
    assert house.comes("bob", OTHER) == Code.ASKED
    house.consent.answer(1, yes=False)
    gevent.sleep(0)
    assert [question.requester for question in house.asked] == ["user0", "bob"]
