"""Who may fetch, and whose key it has to be, between clients with keys."""

import pytest
from client.street import NAME, Street
from conftest import People, until
from peers import BYTES, code_of, fetching, received

from greenchat import Accept, ChatClient, Route
from greenchat.client import client as client_module
from greenchat.client import downloads, routes
from greenchat.errors import Code
from greenchat.security.known import Known

# --- known peers, and consent -----------------------------------------------------------------


def fetches(street: Street, client: ChatClient) -> None:
    assert received(fetching(client, "ann", NAME)).path.read_bytes() == BYTES


def test_owner_whose_key_has_changed_is_refused_until_the_user_says_otherwise(street: Street) -> None:
    first, bob = street.owner(), street.client("bob")
    fetches(street, bob)
    street.leave(first)
    street.change_key("ann")
    street.owner()
    assert code_of(fetching(bob, "ann", NAME)) == Code.KEY_CHANGED
    (known,) = bob._peers._known.all()  # type: ignore[union-attr]  # it has been given one
    Known(street.root / "bob's peers").forget(known)
    fetches(street, bob)


def test_requester_whose_key_has_changed_is_refused_and_the_owner_is_told_once(street: Street) -> None:
    street.owner()
    ann, bob = street._clients[0], street.client("bob")
    (street.root / "bob" / NAME).write_bytes(BYTES)
    received(fetching(ann, "bob", NAME))
    street.leave(bob)
    street.change_key("bob")
    eve = street.client("bob")
    street.failed.clear()
    for _ in range(3):
        assert code_of(fetching(eve, "ann", NAME)) == Code.KEY_CHANGED
    (told,) = street.failed
    assert told is not None
    assert "greenchat peers forget bob" in str(told)


def test_known_are_served_and_others_as_soon_as_the_user_says_so(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "CONSENT_STEP", 0.01)
    ann, bob = street.owner(Accept.KNOWN), street.client("bob")
    waiting = fetching(bob, "ann", NAME)
    until(lambda: street.asked)
    (question,) = street.asked
    assert (question.requester, question.file) == ("bob", NAME)
    ann.answer(1, yes=True)
    assert received(waiting).path.read_bytes() == BYTES
    street.leave(ann)
    street.owner(Accept.KNOWN)
    fetches(street, bob)  # it is remembered
    assert len(street.asked) == 1


def test_requester_waits_until_the_owner_s_user_has_answered(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "CONSENT_STEP", 0.01)
    ann, bob = street.owner(Accept.ASK), street.client("bob")
    waiting = fetching(bob, "ann", NAME)
    until(lambda: street.asked)
    assert not waiting.ready()
    ann.answer(1, yes=True)
    assert received(waiting).path.read_bytes() == BYTES
    assert len(street.asked) == 1


def test_requester_does_not_wait_for_ever_nor_after_a_no(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "CONSENT_STEP", 0.01)
    monkeypatch.setattr(downloads, "CONSENT_SECONDS", 0.05)
    ann, bob = street.owner(Accept.ASK), street.client("bob")
    assert code_of(fetching(bob, "ann", NAME)) == Code.ASKED
    ann.answer(1, yes=False)
    assert code_of(fetching(bob, "ann", NAME)) == Code.NOT_ACCEPTED


def test_requester_that_waits_for_an_answer_can_leave(street: Street) -> None:
    street.owner(Accept.ASK)
    bob = street.client("bob")
    waiting = fetching(bob, "ann", NAME)
    until(lambda: street.asked)
    street.leave(bob)
    assert code_of(waiting) == Code.SERVER_GONE


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's own address is another's."""
    for module in (client_module, routes):
        monkeypatch.setattr(module, "is_loopback", lambda _host: False)


def test_who_has_a_key_serves_only_whom_it_knows_unless_told_otherwise(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is: on the server's own machine, others are elsewhere."""
    monkeypatch.setattr(downloads, "CONSENT_STEP", 0.01)
    ann, bob = street.owner(accept=None), street.client("bob")
    waiting = fetching(bob, "ann", NAME)
    until(lambda: street.asked)
    assert not waiting.ready()
    ann.answer(1, yes=False)
    assert code_of(waiting) == Code.NOT_ACCEPTED


@pytest.mark.parametrize("route", [Route.DIRECT, Route.RELAY])
def test_nothing_is_fetched_or_served_in_the_open_beyond_this_machine(
    people: People, monkeypatch: pytest.MonkeyPatch, route: Route
) -> None:
    (people.home("ann") / NAME).write_bytes(BYTES)
    ann, bob = people.client("ann"), people.client("bob", route=route, into=people.home("bob"))
    elsewhere(monkeypatch)
    assert code_of(fetching(bob, "ann", NAME)) == Code.NO_KEY
    far = people.client("far", insecure=True)
    (people.home("far") / NAME).write_bytes(BYTES)
    monkeypatch.undo()
    assert code_of(fetching(ann, "far", NAME)) == Code.NOT_ACCEPTED
    assert far.listen
