from chaos.history import Witness, gaps, violations

LOG = ["ann: 1", "bob: 1", "ann: 2", "bob: 2"]


def ann(heard: list[str], said: list[str] | None = None, begin: int = 0) -> list[str]:
    return violations(LOG, [Witness("ann", begin=begin, heard=heard, said=["1", "2"] if said is None else said)])


def test_what_is_as_promised() -> None:
    assert ann(["bob: 1", "bob: 2"]) == []
    assert ann(["bob: 2"], begin=2) == []
    assert violations(LOG, [Witness("cat", heard=LOG)]) == []


def test_loss_is_found() -> None:
    assert ann(["bob: 2"]) == ["ann heard: of the log 1 lines are missing, 'bob: 1' first"]
    assert ann(["bob: 1", "bob: 2"], ["1", "2", "3"]) == ["ann said: 1 lines are not in the log, 'ann: 3' first"]


def test_doubles_are_found() -> None:
    assert ann(["bob: 1", "bob: 1", "bob: 2"]) == ["ann heard: 1 lines are there more than once"]
    assert violations([*LOG, "ann: 2"], [Witness("ann", heard=["bob: 1", "bob: 2"], said=["1", "2"])]) == [
        "ann said: 1 lines are in the log more than once"
    ]


def test_another_order_is_found() -> None:
    assert ann(["bob: 2", "bob: 1"]) == ["ann heard: the order is another"]
    assert ann(["bob: 1", "bob: 2"], ["2", "1"]) == ["ann said: the order is another"]


def test_what_nobody_said_is_found() -> None:
    assert ann(["bob: 1", "bob: 2", "eve: 1"]) == ["ann heard: 1 lines are not in the log, 'eve: 1' first"]


def test_what_a_user_was_told_is_lost_is_found() -> None:
    assert violations([], [Witness("ann", lost=3)]) == ["ann was told that 3 lines are lost"]


def test_guest_hears_parts_of_the_log_without_holes() -> None:
    assert gaps(LOG, [LOG[1:3], [], LOG]) == []
    assert gaps(LOG, [[LOG[0], LOG[2]]]) == ["a guest heard 2 lines from 'ann: 1' on, but not all that are in the log"]
    assert gaps(LOG, [[LOG[1], LOG[0]]]) != []
    assert gaps(LOG, [[LOG[1], LOG[1]]]) != []
    assert gaps(LOG, [["eve: 1"]]) == ["a guest heard 1 lines that are not in the log, 'eve: 1' first"]
