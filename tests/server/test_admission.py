"""Who may come in, and who has to go for others."""

import pytest

from greenchat.errors import Code, Refused
from greenchat.server import admission
from greenchat.server.admission import Admission


class Guest:
    """Somebody at the door."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.told: list[Code] = []

    def turn_out(self, code: Code) -> None:
        self.told.append(code)


def refused(door: Admission, host: str) -> bool:
    try:
        door.enter(Guest(host))
    except Refused as error:
        return error.code == Code.SERVER_FULL
    return False


def test_places_are_bounded_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_CONNECTIONS", 2)
    door, ann, bob = Admission(), Guest(), Guest()
    door.enter(ann)
    door.enter(bob)
    assert refused(door, "192.0.2.1")
    door.leave(ann)
    assert not refused(door, "192.0.2.1")


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
        ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"),
    ],
)
def test_row_29_places_for_one_network_are_bounded(
    monkeypatch: pytest.MonkeyPatch, one: str, same: str, other: str
) -> None:
    monkeypatch.setattr(admission, "MAX_FROM_ONE_NETWORK", 2)
    door, first = Admission(), Guest(one)
    door.enter(first)
    assert not refused(door, same)
    assert refused(door, one)
    assert not refused(door, other)
    door.leave(first)
    assert not refused(door, same)


def test_this_machine_has_as_many_places_as_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_FROM_ONE_NETWORK", 1)
    door = Admission()
    assert not any(refused(door, host) for host in ("127.0.0.1", "127.0.0.1", "::1", "::1", "127.0.0.2"))


def test_networks_where_nobody_is_are_forgotten() -> None:
    door = Admission()
    guests = [Guest(f"192.0.2.{number}") for number in range(9)]
    for guest in guests:
        door.enter(guest)
    for guest in guests:
        door.leave(guest)
    assert not door._from


def test_row_29_newcomer_who_has_been_silent_longest_goes_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_NEWCOMERS", 2)
    door, guests = Admission(), [Guest() for _ in range(4)]
    door.enter(guests[0])
    door.known(guests[0])
    for guest in guests[1:]:
        door.enter(guest)
    assert [guest.told for guest in guests] == [[], [Code.HELLO_LATE], [], []]
    for guest in guests:
        door.leave(guest)
    assert not door._newcomers


def test_row_29_those_who_said_nothing_for_longest_make_room_first() -> None:
    door, guests = Admission(), [Guest() for _ in range(5)]
    for guest in guests:
        door.enter(guest)
    door.known(guests[0])
    door.turn_out(2)
    assert [guest.told for guest in guests] == [[], [Code.HELLO_LATE], [Code.HELLO_LATE], [], []]
    door.turn_out(100)
    assert [len(guest.told) for guest in guests] == [0, 1, 1, 1, 1]
