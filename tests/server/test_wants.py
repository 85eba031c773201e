import pytest

from greenchat.protocol.limits import MAX_WANTS, MAX_WANTS_EACH
from greenchat.server.wants import Wants

pytestmark = pytest.mark.attack(45)


def asking(wants: Wants[str, str], requester: str, number: int) -> list[str]:
    """Add requests of *requester*; those that are passed on."""
    for one in range(number):
        wants.add(requester, f"{requester}{one}")
    return list(wants.due())


def test_requests_are_passed_on_in_order() -> None:
    assert asking(Wants(), "ann", 3) == ["ann0", "ann1", "ann2"]


def test_one_requester_has_a_part_of_all_places() -> None:
    wants: Wants[str, str] = Wants()
    assert len(asking(wants, "ann", 200)) == MAX_WANTS_EACH
    assert asking(wants, "bob", 1) == ["bob0"]


def test_place_that_is_free_again_is_that_of_the_next_of_its_requester() -> None:
    wants: Wants[str, str] = Wants()
    asking(wants, "ann", 200)
    wants.remove("ann", "ann3")
    assert list(wants.due()) == [f"ann{MAX_WANTS_EACH}"]


def test_places_are_limited_and_go_round() -> None:
    wants: Wants[str, tuple[str, int]] = Wants()
    flooding = [f"user{number}" for number in range(20)]
    for one in flooding:
        for number in range(100):
            wants.add(one, (one, number))
    passed_on = list(wants.due())
    assert len(passed_on) == MAX_WANTS
    wants.add("ann", ("ann", 0))
    assert list(wants.due()) == []
    turns = 0
    while ("ann", 0) not in passed_on:
        want = passed_on.pop(0)
        wants.remove(want[0], want)
        passed_on += wants.due()
        turns += 1
    assert turns <= len(flooding) + 1


def test_nothing_is_kept_of_what_is_over() -> None:
    wants: Wants[str, str] = Wants()
    asking(wants, "ann", 50)
    for number in reversed(range(50)):
        wants.remove("ann", f"ann{number}")
    assert not wants
    wants.remove("ann", "ann0")
    assert not wants
