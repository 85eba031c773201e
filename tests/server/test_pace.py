import pytest

from greenchat.protocol.limits import BURST_SECONDS, MEMBER_RATE
from greenchat.server import pace as module
from greenchat.server.pace import Pace
from greenchat.transfer.rate import RateLimit

AWAY = "192.0.2.1"


def limit_of(pace: Pace, host: str = AWAY) -> RateLimit:
    limit = pace.limit(host)
    assert limit is not None
    return limit


@pytest.mark.parametrize(("host", "limited"), [("127.0.0.1", False), ("::1", False), (AWAY, True)])
def test_members_of_this_machine_may_say_as_much_as_they_like(host: str, limited: bool) -> None:  # noqa: FBT001 - what it is to be
    assert (Pace(None).limit(host) is not None) == limited


@pytest.mark.parametrize(("rate", "limited"), [(0, False), (1024, True)])
def test_rate_that_was_asked_for_is_everyones(rate: int, limited: bool) -> None:  # noqa: FBT001 - what it is to be
    assert {Pace(rate).limit(host) is not None for host in ("127.0.0.1", AWAY)} == {limited}


def test_row_30_who_comes_back_has_no_more_than_before() -> None:
    pace = Pace(None)
    limit = limit_of(pace)
    limit.pause(MEMBER_RATE * BURST_SECONDS)
    pace.leave(AWAY, limit)
    assert limit_of(pace, "192.0.2.2") is not limit
    assert limit_of(pace) is limit
    assert limit_of(pace) is not limit  # which somebody else has now


def test_who_has_said_little_leaves_nothing_behind() -> None:
    pace = Pace(None)
    pace.leave(AWAY, limit_of(pace))
    pace.leave("127.0.0.1", None)
    assert pace._debts == {}


def test_debts_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DEBTS", 5)
    pace = Pace(None)
    for number in range(20):
        limit = limit_of(pace, f"192.0.2.{number}")
        limit.pause(1_000_000_000)
        pace.leave(f"192.0.2.{number}", limit)
    assert list(pace._debts) == [f"192.0.2.{number}" for number in range(15, 20)]
    assert pace._number == 5
