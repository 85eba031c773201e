import logging

import pytest

from greenchat.log.clock import Clock
from greenchat.protocol.limits import CLOCK_GAP_SECONDS, CLOCK_JUMP_SECONDS, CLOCK_TRIAL_SECONDS

NOW = 1_800_000_000.0


class Hands:
    """The two clocks of a machine, set by a test."""

    def __init__(self) -> None:
        self.wall, self.monotonic = NOW, 50.0

    def run(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def clock(self, last: float) -> Clock:
        return Clock(last, lambda: self.wall, lambda: self.monotonic)


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.mark.parametrize("last", [0, NOW, NOW - CLOCK_GAP_SECONDS + 1, NOW + CLOCK_JUMP_SECONDS - 1])
def test_clock_is_trusted_after_an_ordinary_start(hands: Hands, last: float) -> None:
    assert hands.clock(last).is_trusted()


@pytest.mark.attack(48)
@pytest.mark.parametrize("last", [NOW - CLOCK_GAP_SECONDS - 1, NOW + CLOCK_JUMP_SECONDS + 1])
def test_clock_far_from_the_last_use_is_on_trial_and_the_operator_is_told(
    hands: Hands, caplog: pytest.LogCaptureFixture, last: float
) -> None:
    clock = hands.clock(last)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    hands.run(CLOCK_TRIAL_SECONDS - 1)
    assert not clock.is_trusted()
    hands.run(1)
    assert clock.is_trusted()
    assert len(caplog.records) == 1


@pytest.mark.attack(48)
@pytest.mark.parametrize("jump", [CLOCK_JUMP_SECONDS + 1, -CLOCK_JUMP_SECONDS - 1])
def test_each_jump_of_the_clock_starts_a_trial(hands: Hands, caplog: pytest.LogCaptureFixture, jump: float) -> None:
    clock = hands.clock(NOW)
    hands.wall += jump
    assert not clock.is_trusted()
    hands.run(CLOCK_TRIAL_SECONDS / 2)
    hands.wall -= jump
    assert not clock.is_trusted()
    hands.run(CLOCK_TRIAL_SECONDS - 1)
    assert not clock.is_trusted()
    hands.run(1)
    assert clock.is_trusted()
    assert len(caplog.records) == 2


def test_clock_that_is_adjusted_a_little_stays_trusted(hands: Hands) -> None:
    clock = hands.clock(NOW)
    hands.wall += CLOCK_JUMP_SECONDS - 1
    assert clock.is_trusted()
