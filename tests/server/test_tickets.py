import errno
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import gevent
import pytest
from conftest import Wire, tcp_pair, until
from gevent import socket

from greenchat.errors import Code, TransferError, sentence
from greenchat.protocol.codec import encode
from greenchat.protocol.limits import MAX_ALGORITHM_NAME, MAX_ALGORITHMS, MAX_WANTS
from greenchat.protocol.records import Dial, Fail, Get, Go, Have, Record, Refuse, Take, Want
from greenchat.server import relay, tickets
from greenchat.server.directory import Directory
from greenchat.server.relay import RelayRoom
from greenchat.server.tickets import Party, TicketOffice

SHA = ("sha256",)


@dataclass(eq=False)
class User:
    """A party that keeps what it is told."""

    name: str
    listen: int | None = 5000
    host: str = "127.0.0.1"
    certificate: str = ""
    returns: bool = False
    told: list[Record] = field(default_factory=list)

    def tell(self, record: Record) -> None:
        self.told.append(record)


class Town:
    """A ticket office, and those who go there."""

    def __init__(self) -> None:
        self.directory: Directory[Party] = Directory()
        self.relay = RelayRoom()
        self.office = TicketOffice(self.directory, self.relay)
        self.users: list[User] = []
        self.ends: list[Wire] = []
        self.ann, self.bob = self.user("ann"), self.user("bob")

    def user(self, name: str, listen: int | None = 5000, host: str = "127.0.0.1") -> User:
        user = User(name, listen, host)
        self.directory.claim(user)
        self.users.append(user)
        return user

    def asked(self, number: int = 1, file: str = "file") -> str:
        """The ticket under which ann's request waits for bob."""
        self.office.ask(self.ann, Get(number, "bob", file))
        want = self.bob.told[-1]
        assert isinstance(want, Want)
        return want.ticket

    def granted(self, number: int = 1) -> Take:
        """What ann may take from bob."""
        self.office.have(self.bob, Have(self.asked(number), 7, SHA))
        take = self.ann.told[-1]
        assert isinstance(take, Take)
        return take

    def come(self, key: str) -> "tuple[Wire, gevent.Greenlet[..., Any]]":
        """A side of a relay that shows *key*, and the greenlet that serves it."""
        near, far = tcp_pair()
        self.ends.append(Wire.over(far))
        return self.ends[-1], gevent.spawn(self._meet, key, near)

    def gone(self, user: User) -> None:
        """*user* leaves, and its name is free."""
        self.directory.release(user)
        self.office.forget(user)

    def relayed(self) -> tuple[Wire, Wire]:
        """Ann's side and bob's, joined."""
        _, requester, meeting, key = self.waiting()
        owner, joining = self.come(key)
        requester.record(Go)
        owner.record(Go)
        assert (meeting.get(), joining.get()) == (None, None)
        return requester, owner

    def _meet(self, key: str, sock: socket.socket) -> object:
        try:
            self.office.meet(key, sock)
        except TransferError as error:
            return error.code
        finally:
            sock.close()
        return None

    def waiting(self) -> "tuple[Take, Wire, gevent.Greenlet[..., Any], str]":
        """Ann is at the relay, and bob has been asked to come with the key that is last."""
        take = self.granted()
        end, meeting = self.come(take.key)
        until(lambda: isinstance(self.bob.told[-1], Dial))
        dial = self.bob.told[-1]
        assert isinstance(dial, Dial)
        assert dial.ticket == take.ticket
        return take, end, meeting, dial.key

    def close(self) -> None:
        self.relay.stop()
        for user in self.users:
            self.office.forget(user)
        for end in self.ends:
            end.close()


@pytest.fixture
def town() -> Iterator[Town]:
    one = Town()
    yield one
    one.close()


def failure(user: User) -> tuple[int, str]:
    """The number and the code of the refusal that *user* was told of last."""
    fail = user.told[-1]
    assert isinstance(fail, Fail)
    return fail.id, fail.code


def test_owner_is_asked_on_behalf_of_the_requester(town: Town) -> None:
    town.office.ask(town.ann, Get(3, "BOB", "pic.jpg"))
    (want,) = town.bob.told
    assert isinstance(want, Want)
    assert (want.requester, want.file) == ("ann", "pic.jpg")
    assert len(bytes.fromhex(want.ticket)) == 16
    assert not town.ann.told


def test_owner_who_has_the_file_makes_a_ticket_good(town: Town) -> None:
    ticket = town.asked(3)
    town.office.have(town.bob, Have(ticket, 7, SHA))
    (take,) = town.ann.told
    assert isinstance(take, Take)
    assert (take.id, take.ticket, take.size, take.direct) == (3, ticket, 7, (("127.0.0.1", 5000),))
    assert take.key != ticket


@pytest.mark.parametrize(
    "algorithms",
    [
        pytest.param(("blake3", "sha256"), id="usual"),
        pytest.param(("sha256", "blake3"), id="the other way round"),
        pytest.param((), id="none"),
        pytest.param(("of-a-newer-version", "", "a", "a"), id="strange"),
        pytest.param(("\U0001f44d" * MAX_ALGORITHM_NAME,) * MAX_ALGORITHMS, id="most and longest"),
    ],
)
def test_algorithms_of_the_owner_are_passed_on_as_they_are(town: Town, algorithms: tuple[str, ...]) -> None:
    town.office.have(town.bob, Have(town.asked(), 7, algorithms))
    (take,) = town.ann.told
    assert isinstance(take, Take)
    assert take.algorithms == algorithms
    assert encode(take)


def test_every_secret_is_another(town: Town) -> None:
    takes = [town.granted(number) for number in range(100)]
    assert len({secret for take in takes for secret in (take.ticket, take.key)}) == 200


@pytest.mark.parametrize(
    ("owner", "file", "code"),
    [
        pytest.param("nobody", "file", Code.UNKNOWN_OWNER, id="unknown owner"),
        pytest.param("", "file", Code.UNKNOWN_OWNER, id="no owner"),
        pytest.param("x" * 8000, "file", Code.UNKNOWN_OWNER, id="owner of 8,000 characters"),
        pytest.param("ann", "file", Code.OWN_FILE, id="own file"),
        pytest.param("ANN", "file", Code.OWN_FILE, id="own file, in capitals"),
        pytest.param("guest", "file", Code.NO_FILES, id="guest"),
        pytest.param("bob", "x" * 256, Code.BAD_FILE_NAME, id="long file name"),
        pytest.param("bob", "é" * 128, Code.BAD_FILE_NAME, id="long in bytes"),
    ],
)
def test_row_31_request_that_cannot_be_passed_on_is_answered(town: Town, owner: str, file: str, code: Code) -> None:
    town.user("guest", listen=None)
    town.office.ask(town.ann, Get(9, owner, file))
    assert failure(town.ann) == (9, code)
    assert not town.bob.told


def test_longest_file_name_is_passed_on(town: Town) -> None:
    town.asked(file="é" * 127 + "x")
    assert town.bob.told


@pytest.mark.parametrize(
    ("code", "told"),
    [
        pytest.param(Code.NOT_FOUND, Code.NOT_FOUND, id="not found"),
        pytest.param("of-a-newer-version", Code.FAILED, id="unknown code"),
    ],
)
def test_refusal_of_the_owner_reaches_the_requester(town: Town, code: str, told: Code) -> None:
    town.office.refuse(town.bob, Refuse(town.asked(4), code, "\x1b[31mwords of the owner"))
    assert failure(town.ann) == (4, told)
    assert "owner]" not in str(town.ann.told) and "\x1b" not in str(town.ann.told)  # noqa: PT018 - one thing


@pytest.mark.parametrize(
    ("owner", "requester", "listen", "direct"),
    [
        pytest.param("127.0.0.1", "127.0.0.1", 5000, (("127.0.0.1", 5000),), id="both on the server's machine"),
        pytest.param("::1", "127.0.0.1", 5000, (("::1", 5000),), id="both there, in two families"),
        pytest.param("192.0.2.1", "192.0.2.9", 5000, (("192.0.2.1", 5000),), id="both elsewhere"),
        pytest.param("192.0.2.1", "127.0.0.1", 5000, (("192.0.2.1", 5000),), id="owner elsewhere"),
        pytest.param("127.0.0.1", "192.0.2.9", 5000, (), id="requester elsewhere"),
        pytest.param("127.0.0.1", "127.0.0.1", 0, (), id="no listener"),
    ],
)
def test_row_18_direct_address_is_where_the_server_sees_the_owner(
    town: Town, owner: str, requester: str, listen: int, direct: object
) -> None:
    town.ann.host, town.bob.host, town.bob.listen = requester, owner, listen
    town.ann.certificate, town.bob.certificate = "hers", "his"
    assert town.granted().direct == direct


@pytest.mark.parametrize("answer", [Have, Refuse], ids=["have", "refuse"])
@pytest.mark.parametrize("who", ["ann", "eve"], ids=["requester", "third party"])
def test_row_17_answer_of_another_than_the_owner_is_ignored(town: Town, who: str, answer: type[Record]) -> None:
    user = town.directory.find(who) or town.user(who)
    ticket = town.asked()
    if answer is Have:
        town.office.have(user, Have(ticket, 666, SHA))
    else:
        town.office.refuse(user, Refuse(ticket, Code.NOT_FOUND, ""))
    assert not town.ann.told
    town.office.have(town.bob, Have(ticket, 7, SHA))
    assert isinstance(town.ann.told[0], Take)


def test_answers_to_what_nobody_asked_are_ignored(town: Town) -> None:
    town.office.have(town.bob, Have("0" * 32, 7, SHA))
    town.office.refuse(town.bob, Refuse("0" * 32, Code.NOT_FOUND, ""))
    assert not town.ann.told


def test_second_answer_is_ignored(town: Town) -> None:
    take = town.granted()
    town.office.have(town.bob, Have(take.ticket, 8, SHA))
    town.office.refuse(town.bob, Refuse(take.ticket, Code.NOT_FOUND, ""))
    assert town.ann.told == [take]


def test_row_31_owner_that_never_answers(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "ANSWER_SECONDS", 0.01)
    ticket = town.asked(5)
    until(lambda: town.ann.told)
    assert failure(town.ann) == (5, Code.OWNER_SILENT)
    town.office.have(town.bob, Have(ticket, 7, SHA))
    assert len(town.ann.told) == 1  # an answer that is too late is none


def test_grant_outlives_the_time_for_an_answer(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "ANSWER_SECONDS", 0.001)
    take = town.granted()
    gevent.sleep(0.005)
    assert town.ann.told == [take]
    assert take.key in town.office._by_key


def test_ticket_expires(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "TICKET_SECONDS", 0.01)
    take = town.granted()
    until(lambda: not town.office._by_ticket)
    assert town.come(take.key)[1].get() == Code.BAD_TICKET
    assert town.ann.told == [take]


def test_ticket_that_expires_at_the_relay_ends_the_wait(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "TICKET_SECONDS", 0.05)
    _, _, meeting, key = town.waiting()
    assert meeting.get() == Code.OWNER_SILENT
    assert town.come(key)[1].get() == Code.BAD_TICKET


# --- leaving ----------------------------------------------------------------------------------


def test_row_32_owner_leaves_before_it_answers(town: Town) -> None:
    ticket = town.asked(6)
    town.office.forget(town.bob)
    assert failure(town.ann) == (6, Code.OWNER_LEFT)
    town.office.have(town.bob, Have(ticket, 7, SHA))
    assert len(town.ann.told) == 1


def test_row_32_owner_leaves_after_it_answered(town: Town) -> None:
    take = town.granted()
    town.office.forget(town.bob)
    assert town.ann.told == [take]  # the direct way may still lead to it
    assert town.come(take.key)[1].get() == Code.BAD_TICKET


def test_row_32_owner_leaves_while_the_requester_waits_at_the_relay(town: Town) -> None:
    _, _, meeting, key = town.waiting()
    town.office.forget(town.bob)
    assert meeting.get() == Code.OWNER_LEFT
    assert town.come(key)[1].get() == Code.BAD_TICKET


def test_row_32_requester_leaves_before_the_answer(town: Town) -> None:
    ticket = town.asked()
    town.office.forget(town.ann)
    town.office.have(town.bob, Have(ticket, 7, SHA))
    assert not town.ann.told[1:]
    assert not town.office._by_ticket
    assert not town.office._by_key


def test_row_32_requester_leaves_after_the_answer(town: Town) -> None:
    take = town.granted()
    town.office.forget(town.ann)
    assert town.come(take.key)[1].get() == Code.BAD_TICKET


def test_row_32_requester_leaves_while_it_waits_at_the_relay(town: Town) -> None:
    _, _, meeting, key = town.waiting()
    town.office.forget(town.ann)
    assert meeting.get() == Code.INTERRUPTED
    assert town.come(key)[1].get() == Code.BAD_TICKET


def test_who_leaves_disturbs_no_others(town: Town) -> None:
    town.asked(1)
    cat = town.user("cat")
    town.office.ask(cat, Get(2, "bob", "file"))
    town.office.forget(town.ann)
    want = town.bob.told[-1]
    assert isinstance(want, Want)
    town.office.have(town.bob, Have(want.ticket, 7, SHA))
    assert isinstance(cat.told[-1], Take)


def test_nothing_is_kept_of_who_left(town: Town) -> None:
    town.granted()
    town.office.forget(town.ann)
    town.office.forget(town.bob)
    assert not town.office._of


# --- coming back ------------------------------------------------------------------------------


def test_owner_that_may_come_back_has_left_for_a_while(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    town.bob.returns = True
    town.gone(town.bob)
    town.office.ask(town.ann, Get(1, "BOB", "file"))
    assert failure(town.ann) == (1, Code.OWNER_LEFT)
    monkeypatch.setattr(tickets, "RETURN_SECONDS", 0.0)
    town.office.ask(town.ann, Get(2, "bob", "file"))
    assert failure(town.ann) == (2, Code.UNKNOWN_OWNER)


def test_owner_that_does_not_come_back_is_unknown_at_once(town: Town) -> None:
    town.gone(town.bob)
    town.office.ask(town.ann, Get(1, "bob", "file"))
    assert failure(town.ann) == (1, Code.UNKNOWN_OWNER)


def test_those_who_left_fill_no_memory(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "MAX_ABSENT", 3)
    for number in range(10):
        user = town.user(f"user{number}")
        user.returns = True
        town.gone(user)
    absent = [town.office.absence(f"user{number}") is Code.OWNER_LEFT for number in range(10)]
    assert absent == [False] * 7 + [True] * 3


# --- fair shares ------------------------------------------------------------------------------


def wanted(user: User) -> list[Want]:
    return [record for record in user.told if isinstance(record, Want)]


@pytest.mark.attack(45)
@pytest.mark.parametrize("answer", ["have", "refuse"])
def test_requests_of_many_leave_room_for_one(town: Town, answer: str) -> None:
    for number in range(6):
        eve = town.user(f"eve{number}")
        for each in range(100):
            town.office.ask(eve, Get(each, "bob", "file"))
    assert len(wanted(town.bob)) == MAX_WANTS
    town.office.ask(town.ann, Get(1, "bob", "file"))
    for want in wanted(town.bob)[:8]:
        if answer == "have":
            assert town.office.have(town.bob, Have(want.ticket, 7, SHA))
        else:
            assert town.office.refuse(town.bob, Refuse(want.ticket, Code.NOT_FOUND, ""))
    assert "ann" in [want.requester for want in wanted(town.bob)]
    assert len(wanted(town.bob)) == MAX_WANTS + 8


def test_request_that_waits_for_its_turn_is_answered_in_time(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "ANSWER_SECONDS", 0.01)
    for number in range(100):
        town.office.ask(town.ann, Get(number, "bob", "file"))
    until(lambda: len(town.ann.told) == 100)
    assert {record.code for record in town.ann.told if isinstance(record, Fail)} == {Code.OWNER_SILENT}
    assert not town.office._wants


def test_next_request_is_passed_on_when_its_requester_leaves(town: Town) -> None:
    for number in range(100):
        town.office.ask(town.ann, Get(number, "bob", "file"))
    town.office.forget(town.ann)
    assert len(wanted(town.bob)) == 100
    assert not town.office._wants


def test_answer_to_no_request_is_none(town: Town) -> None:
    ticket = town.asked()
    assert town.office.refuse(town.bob, Refuse(ticket, Code.NOT_FOUND, ""))
    assert not town.office.refuse(town.bob, Refuse(ticket, Code.NOT_FOUND, ""))
    assert not town.office.have(town.bob, Have(ticket, 7, SHA))


# --- bounds -----------------------------------------------------------------------------------


def test_row_31_requests_of_one_member_are_bounded_and_each_is_answered(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tickets, "MAX_REQUESTS", 10)
    for number in range(1000):
        town.office.ask(town.ann, Get(number, "bob", "file"))
    assert len(town.bob.told) == 10
    assert [fail.id for fail in town.ann.told if isinstance(fail, Fail)] == list(range(10, 1000))
    assert failure(town.ann) == (999, Code.TOO_MANY)
    town.office.forget(town.bob)
    assert [fail.id for fail in town.ann.told[-10:] if isinstance(fail, Fail)] == list(range(10))


def test_row_31_flood_of_one_is_no_bound_for_another(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "MAX_REQUESTS", 10)
    for number in range(100):
        town.office.ask(town.ann, Get(number, "bob", "file"))
    town.office.ask(town.bob, Get(1, "ann", "file"))
    assert isinstance(town.ann.told[-1], Want)


def test_answered_request_makes_room(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "MAX_REQUESTS", 1)
    town.office.refuse(town.bob, Refuse(town.asked(1), Code.NOT_FOUND, ""))
    town.asked(2)


def test_oldest_unused_ticket_makes_room(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "MAX_REQUESTS", 2)
    first, second = town.granted(1), town.granted(2)
    town.granted(3)
    assert town.come(first.key)[1].get() == Code.BAD_TICKET
    assert second.key in town.office._by_key


def test_ticket_in_use_makes_no_room(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "MAX_REQUESTS", 1)
    _, end, meeting, key = town.waiting()
    town.office.ask(town.ann, Get(2, "bob", "file"))
    assert failure(town.ann) == (2, Code.TOO_MANY)
    town.come(key)
    end.record(Go)
    meeting.get()
    town.asked(3)


# --- meeting ----------------------------------------------------------------------------------


def test_both_sides_are_told_and_joined(town: Town) -> None:
    _, requester, meeting, key = town.waiting()
    owner, _ = town.come(key)
    assert meeting.get() is None
    for here, there in ((requester, owner), (owner, requester)):
        here.record(Go)
        there.send(b"over to you\n")
        assert here.line() == b"over to you"


@pytest.mark.parametrize("key", ["", "0" * 32, "x" * 8000, "\u2603"], ids=["empty", "guess", "long", "not ASCII"])
def test_row_17_guessed_key_is_refused(town: Town, key: str) -> None:
    town.granted()
    assert town.come(key)[1].get() == Code.BAD_TICKET


def test_row_17_ticket_is_no_key(town: Town) -> None:
    assert town.come(town.granted().ticket)[1].get() == Code.BAD_TICKET


def test_row_17_one_key_does_not_make_both_sides(town: Town) -> None:
    take, requester, meeting, key = town.waiting()
    assert town.come(take.key)[1].get() == Code.BAD_TICKET
    town.come(key)  # and the rightful owner gets through
    requester.record(Go)
    assert meeting.get() is None


def test_row_17_used_keys_are_void(town: Town) -> None:
    take, _, meeting, key = town.waiting()
    town.come(key)[1].get()
    meeting.get()
    assert [town.come(again)[1].get() for again in (take.key, key)] == [Code.BAD_TICKET] * 2


def test_row_17_owner_cannot_come_before_the_requester(town: Town) -> None:
    take = town.granted()
    (transfer,) = town.office._by_ticket.values()
    assert town.come(transfer.owner_key)[1].get() == Code.BAD_TICKET
    assert take.key in town.office._by_key


def test_row_20_owner_that_never_comes_to_the_relay(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "MEET_SECONDS", 0.02)
    _, _, meeting, key = town.waiting()
    assert meeting.get() == Code.OWNER_SILENT
    assert town.come(key)[1].get() == Code.BAD_TICKET


def test_row_20_requester_that_vanished_at_the_relay_ends_the_owners_side(town: Town) -> None:
    _, requester, _, key = town.waiting()
    requester.close()
    owner, _ = town.come(key)
    assert owner.rest() == encode(Go())


def test_full_relay_is_busy(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "MAX_RELAYS", 0)
    assert town.come(town.granted().key)[1].get() == Code.RELAY_BUSY
    assert not any(isinstance(record, Dial) for record in town.bob.told)


def test_relay_that_fills_up_meanwhile_is_busy_for_both(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, meeting, key = town.waiting()
    monkeypatch.setattr(relay, "MAX_RELAYS", 0)
    assert town.come(key)[1].get() == Code.RELAY_BUSY
    assert meeting.get() == Code.RELAY_BUSY


# --- the relay's process ----------------------------------------------------------------------


def test_process_begins_before_they_come_where_there_is_no_other_way(town: Town) -> None:
    town.user("dan", listen=0)
    town.granted()
    assert town.relay._worker is None
    assert _granted(town, "ann", "dan").direct == ()
    assert town.relay._worker is not None


@pytest.mark.parametrize("owner", ["bob", "dan"], ids=["direct", "no other way"])
def test_requester_of_a_relay_whose_process_cannot_begin_is_told_and_may_ask_again(
    town: Town, monkeypatch: pytest.MonkeyPatch, owner: str
) -> None:
    dan = town.user("dan", listen=0)
    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", _no_process)
        assert town.come(_granted(town, "ann", owner).key)[1].get() == Code.RELAY_BUSY
    assert not any(isinstance(record, Dial) for record in (*town.bob.told, *dan.told))
    town.relayed()


def _no_process(*_arguments: object, **_options: object) -> None:
    raise BlockingIOError(errno.EAGAIN, "no more processes")


def test_row_20_process_that_dies_before_both_are_there_is_replaced(town: Town) -> None:
    _, requester, meeting, key = town.waiting()
    _end_process(town)
    owner, _ = town.come(key)
    owner.record(Go)
    owner.send(b"over to you\n")
    requester.record(Go)
    assert requester.line() == b"over to you"
    assert meeting.get() is None


def test_row_20_process_that_dies_before_both_are_there_and_cannot_be_replaced_is_told_to_both(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, meeting, key = town.waiting()
    _end_process(town)
    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", _no_process)
        assert town.come(key)[1].get() == meeting.get() == Code.RELAY_BUSY
    assert not town.relay._of
    town.relayed()


def _end_process(town: Town) -> None:
    worker = town.relay._worker
    assert worker is not None
    worker._process.kill()
    until(lambda: worker.ended)


# --- caps on relays ---------------------------------------------------------------------------


def test_row_31_user_with_too_many_relays_is_told_and_the_owner_is_not_asked(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "MAX_RELAYS_EACH", 1)
    town.relayed()
    take = town.granted(2)
    assert town.come(take.key)[1].get() == Code.TOO_MANY
    assert isinstance(town.bob.told[-1], Want)
    assert town.come(take.key)[1].get() == Code.BAD_TICKET  # the key is used up


def test_row_31_relays_that_become_too_many_meanwhile_are_told_to_both(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "MAX_RELAYS_EACH", 1)
    _, _, meeting, key = town.waiting()
    town.relayed()
    assert town.come(key)[1].get() == Code.TOO_MANY
    assert meeting.get() == Code.TOO_MANY
    assert town.relay.running == 1


@pytest.mark.parametrize(("requester", "owner"), [("ann", "cat"), ("cat", "ann"), ("bob", "cat"), ("cat", "bob")])
def test_row_31_relays_count_for_both_users_in_either_role(
    town: Town, monkeypatch: pytest.MonkeyPatch, requester: str, owner: str
) -> None:
    monkeypatch.setattr(relay, "MAX_RELAYS_EACH", 1)
    town.user("cat")
    town.relayed()
    assert town.come(_granted(town, requester, owner).key)[1].get() == Code.TOO_MANY


def test_row_31_relays_of_some_are_no_bound_for_others(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "MAX_RELAYS_EACH", 1)
    town.relayed()
    town.user("cat"), town.user("dan")
    end, meeting = town.come(_granted(town, "cat", "dan").key)
    until(lambda: isinstance(town.users[-1].told[-1], Dial))
    town.come(town.users[-1].told[-1].key)  # type: ignore[attr-defined]  # it is a Dial
    end.record(Go)
    assert meeting.get() is None


def _granted(town: Town, requester: str, owner: str) -> Take:
    """What one of them may take from the other."""
    users = {user.name: user for user in town.users}
    town.office.ask(users[requester], Get(1, owner, "file"))
    want = users[owner].told[-1]
    assert isinstance(want, Want)
    town.office.have(users[owner], Have(want.ticket, 7, SHA))
    take = users[requester].told[-1]
    assert isinstance(take, Take)
    return take


@pytest.mark.parametrize("again", ["ann", "ANN", "\uff21\uff4e\uff4e"], ids=["same", "capitals", "wide letters"])
def test_row_31_who_comes_back_in_another_form_of_the_name_has_the_same_relays(
    town: Town, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    monkeypatch.setattr(relay, "MAX_RELAYS_EACH", 1)
    town.relayed()
    town.gone(town.ann)
    town.ann = town.user(again)
    town.user("cat")
    assert town.come(_granted(town, again, "cat").key)[1].get() == Code.TOO_MANY


def test_both_users_are_counted_in_one_form_of_their_names(town: Town) -> None:
    town.gone(town.ann)
    town.gone(town.bob)
    town.ann, town.bob = town.user("STRASSE"), town.user("Bob")
    town.office.ask(town.ann, Get(1, "BOB", "file"))
    (want,) = town.bob.told
    assert isinstance(want, Want)
    town.office.have(town.bob, Have(want.ticket, 7, SHA))
    (take,) = town.ann.told
    assert isinstance(take, Take)
    end, _ = town.come(take.key)
    until(lambda: isinstance(town.bob.told[-1], Dial))
    town.come(town.bob.told[-1].key)  # type: ignore[attr-defined]  # it is a Dial
    end.record(Go)
    assert town.relay._of == Counter(("strasse", "bob"))


def test_relay_that_ends_makes_room_again(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "MAX_RELAYS_EACH", 1)
    for _ in range(3):
        for side in town.relayed():
            side.close()
        until(lambda: town.relay.running == 0)
    assert not town.relay._of


def test_who_waits_at_the_relay_counts_for_nothing(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "MAX_RELAYS_EACH", 1)
    monkeypatch.setattr(tickets, "MEET_SECONDS", 0.05)
    _, _, meeting, _ = town.waiting()
    town.relayed()
    assert meeting.get() == Code.OWNER_SILENT
    assert town.relay._of == Counter(("ann", "bob"))


@pytest.mark.parametrize("cap", ["MAX_RELAYS", "MAX_RELAYS_EACH"])
def test_refused_meeting_counts_for_nothing(town: Town, monkeypatch: pytest.MonkeyPatch, cap: str) -> None:
    _, _, meeting, key = town.waiting()
    monkeypatch.setattr(relay, cap, 0)
    assert town.come(key)[1].get() == meeting.get() != None  # noqa: E711 - both have a code, the same
    assert town.relay.running == 0
    assert not town.relay._of
    assert not town.office._by_key
    assert not town.office._by_ticket


def test_running_relay_outlives_its_users_and_counts_until_it_ends(town: Town) -> None:
    requester, owner = town.relayed()
    town.gone(town.ann)
    town.gone(town.bob)
    owner.send(b"the rest\n")
    assert requester.line() == b"the rest"
    assert town.relay._of == Counter(("ann", "bob"))
    requester.close()
    owner.close()
    until(lambda: not town.relay._of)


@pytest.mark.parametrize("why", [TransferError(Code.OWNER_SILENT), gevent.GreenletExit()], ids=["late", "killed"])
def test_side_that_gives_up_in_the_turn_in_which_it_is_joined_is_joined(town: Town, why: BaseException) -> None:
    _, requester, meeting, key = town.waiting()
    near, far = tcp_pair()
    town.ends.append(owner := Wire.over(far))
    gevent.kill(meeting, why)  # arrives when the other side has just come
    town.office.meet(key, near)
    meeting.join()
    requester.record(Go)
    owner.record(Go)
    owner.send(b"over to you\n")
    assert requester.line() == b"over to you"
    assert town.relay.running == 1
    assert not town.office._by_key


# --- closing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "get", [Get(8, "bob", "file"), Get(8, "nobody", "file"), Get(8, "ann", "file"), Get(8, "bob", "x" * 300)]
)
def test_row_33_closed_office_refuses_every_request_as_it_shuts_down(town: Town, get: Get) -> None:
    town.office.close()
    town.office.ask(town.ann, get)
    assert town.ann.told == [Fail(8, Code.SHUTDOWN, sentence(Code.SHUTDOWN))]
    assert not town.bob.told
    assert not town.office._by_ticket


def test_row_33_request_that_waited_when_the_office_closed_is_answered(town: Town) -> None:
    have, refused = town.asked(1), town.asked(2)
    town.office.close()
    town.office.have(town.bob, Have(have, 7, SHA))
    town.office.refuse(town.bob, Refuse(refused, Code.NOT_FOUND, ""))
    take, fail = town.ann.told
    assert isinstance(take, Take)
    assert isinstance(fail, Fail)
    assert (take.id, fail.id) == (1, 2)


def test_row_33_what_was_granted_may_still_be_fetched_when_the_office_has_closed(town: Town) -> None:
    take = town.granted()
    town.office.close()
    requester, meeting = town.come(take.key)
    until(lambda: isinstance(town.bob.told[-1], Dial))
    town.come(town.bob.told[-1].key)  # type: ignore[attr-defined]  # it is a Dial
    requester.record(Go)
    assert meeting.get() is None


def test_closing_the_office_again_changes_nothing(town: Town) -> None:
    town.office.close()
    town.office.close()
    town.office.ask(town.ann, Get(1, "bob", "file"))
    assert failure(town.ann) == (1, Code.SHUTDOWN)


@pytest.mark.parametrize(("ann", "bob"), [("", ""), ("hers", ""), ("", "his")])
def test_files_beyond_this_machine_go_between_two_with_keys_only(town: Town, ann: str, bob: str) -> None:
    town.ann.host, town.ann.certificate, town.bob.certificate = "192.0.2.7", ann, bob
    town.office.ask(town.ann, Get(1, "bob", "file"))
    assert town.ann.told == [Fail(1, Code.NO_KEY, sentence(Code.NO_KEY))]
