from collections.abc import Iterator

import gevent
import pytest
from conftest import until
from server.fake_member import FakeMember

from greenchat.protocol.limits import MAX_LINE, MAX_PASS, MAX_PIECE, MIN_PIECE
from greenchat.server.room import Room


@pytest.fixture
def room() -> Iterator[Room]:
    one = Room()
    yield one
    one.close()


def joined(room: Room, *names: str) -> list[FakeMember]:
    ears = [FakeMember(name) for name in names]
    for ear in ears:
        room.join(ear)
    return ears


def test_everyone_else_hears_a_message(room: Room) -> None:
    ann, bob, cat = joined(room, "ann", "bob", "cat")
    room.post(ann, b"hi\n")
    until(lambda: cat.heard)
    assert (ann.heard, bob.heard, cat.heard) == (b"", b"ann: hi\n", b"ann: hi\n")


@pytest.mark.parametrize(
    ("block", "heard"),
    [
        pytest.param(b"one\ntwo\n", b"ann: one\nann: two\n", id="two lines"),
        pytest.param(b"\n", b"ann: \n", id="empty line"),
        pytest.param(b"\n\nx\n\n", b"ann: \nann: \nann: x\nann: \n", id="empty lines around"),
        pytest.param(b"bob: hi\n", b"ann: bob: hi\n", id="another's name in the text"),
    ],
)
def test_each_line_gets_its_senders_name(room: Room, block: bytes, heard: bytes) -> None:
    ann, bob = joined(room, "ann", "bob")
    room.post(ann, block)
    until(lambda: bob.heard)
    assert bob.heard == heard


def test_name_is_sent_as_utf_8(room: Room) -> None:
    zoe, bob = joined(room, "Zoë", "bob")
    room.post(zoe, b"hi\n")
    until(lambda: bob.heard)
    assert bob.heard == "Zoë: hi\n".encode()


def test_what_was_said_in_one_turn_comes_in_one_delivery_without_ones_own(room: Room) -> None:
    ann, bob, cat = joined(room, "ann", "bob", "cat")
    for sender, block in ((ann, b"1\n"), (bob, b"2\n"), (ann, b"3\n"), (cat, b"4\n")):
        room.post(sender, block)
    until(lambda: ann.heard)
    assert ann.heard == b"bob: 2\ncat: 4\n"
    assert bob.heard == b"ann: 1\nann: 3\ncat: 4\n"
    assert cat.heard == b"ann: 1\nbob: 2\nann: 3\n"


def test_newcomer_hears_nothing_of_before(room: Room) -> None:
    ann, bob = joined(room, "ann", "bob")
    room.post(ann, b"before\n")
    (cat,) = joined(room, "cat")
    room.post(ann, b"after\n")
    until(lambda: cat.heard)
    assert cat.heard == b"ann: after\n"
    assert bob.heard == b"ann: before\nann: after\n"


def test_last_words_of_one_who_leaves_reach_the_others(room: Room) -> None:
    ann, bob = joined(room, "ann", "bob")
    room.post(ann, b"bye\n")
    room.leave(ann)
    until(lambda: bob.heard)
    assert bob.heard == b"ann: bye\n"


def test_who_left_hears_nothing_more(room: Room) -> None:
    ann, bob, cat = joined(room, "ann", "bob", "cat")
    room.leave(bob)
    room.post(ann, b"hi\n")
    until(lambda: cat.heard)
    assert bob.heard == b""


def test_leaving_twice_is_leaving(room: Room) -> None:
    ann, bob = joined(room, "ann", "bob")
    room.leave(ann)
    room.leave(ann)
    room.post(bob, b"alone\n")


def test_closing_hands_out_what_is_left(room: Room) -> None:
    ann, bob = joined(room, "ann", "bob")
    room.post(ann, b"hi\n")
    room.close()
    assert bob.heard == b"ann: hi\n"


FLOODING = b"x\n" * MAX_LINE


def test_row_30_who_floods_waits_for_those_who_are_behind(room: Room) -> None:
    ann, bob = joined(room, "ann", "bob")
    bob.behind = True
    flooding = gevent.spawn(room.post, ann, FLOODING)
    gevent.sleep(0.01)
    assert not flooding.ready()
    assert bob.heard == b""
    bob.behind = False
    flooding.get(timeout=5)
    until(lambda: bob.heard)


def test_row_30_who_floods_does_not_wait_for_ever(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greenchat.server.room.CATCH_UP_SECONDS", 0.01)
    ann, bob = joined(room, "ann", "bob")
    bob.behind = True
    gevent.spawn(room.post, ann, FLOODING).get(timeout=5)


def test_row_30_who_does_not_flood_never_waits(room: Room) -> None:
    ann, bob = joined(room, "ann", "bob")
    bob.behind = True
    speaking = gevent.spawn(room.post, ann, b"hi\n")
    gevent.idle()
    assert speaking.ready()


@pytest.mark.parametrize(
    ("members", "most"), [(2, MAX_PIECE), (100, MAX_PASS // 100), (1000, MIN_PIECE)], ids=["few", "some", "many"]
)
def test_row_30_flood_comes_in_smaller_pieces_the_more_members_there_are(room: Room, members: int, most: int) -> None:
    ann, bob, *_ = joined(room, *(f"n{number}" for number in range(members)))
    pieces: list[int] = []
    bob.deliver = lambda data: pieces.append(len(data))  # type: ignore[method-assign]  # to see how much comes at once
    gevent.spawn(room.post, ann, b"x" * 60 + b"\n").get(timeout=10)
    gevent.spawn(room.post, ann, (b"x" * 60 + b"\n") * 10_000).get(timeout=10)
    until(lambda: sum(pieces) == 10_001 * len(b"n0: \n" + b"x" * 60))
    assert most / 4 < max(pieces) <= most


def test_row_30_others_are_heard_between_two_pieces_of_a_flood(room: Room) -> None:
    ann, bob, cat = joined(room, "ann", "bob", "cat")

    def chat() -> None:
        room.post(bob, b"may I?\n")

    flooding = gevent.spawn(room.post, ann, b"x\n" * 10 * MAX_PIECE)
    gevent.spawn_later(0.001, chat)
    flooding.get(timeout=20)
    until(lambda: cat.heard.endswith(b"ann: x\n") and b"bob: may I?\n" in cat.heard)
    assert not cat.heard.endswith(b"bob: may I?\n")


def test_row_30_many_empty_lines_under_a_long_name_come_in_pieces(room: Room) -> None:
    name = "\U0001f600" * 32
    ann, bob = joined(room, name, "bob")
    most, deliver = 0, bob.deliver

    def spy(data: bytes) -> None:
        nonlocal most
        most = max(most, len(data))
        deliver(data)

    bob.deliver = spy  # type: ignore[method-assign]  # to see how much comes at once
    gevent.spawn(room.post, ann, b"\n" * 65_536).get(timeout=10)
    until(lambda: len(bob.heard) == 65_536 * len(f"{name}: \n".encode()))
    assert most <= 2 * MAX_PIECE
