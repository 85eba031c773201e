"""The wall clock, and how far it can be trusted."""

import logging
import time
from collections.abc import Callable
from typing import Final

from greenchat.protocol.limits import CLOCK_GAP_SECONDS, CLOCK_JUMP_SECONDS, CLOCK_TRIAL_SECONDS

__all__ = ["Clock"]

_log = logging.getLogger(__name__)

_DOUBT: Final = (
    "the clock says that %s has passed %s; nothing is deleted for its age for the next hour: stop the server"
    " if the clock is wrong"
)


class Clock:
    """A wall clock that showed *last* when it was last used, or 0 if never.

    A clock that is wrong once, at one start say, must not delete what is kept for some days. After a jump, and
    after a start that comes long after the last use, it is on trial for `limits.CLOCK_TRIAL_SECONDS`.
    """

    def __init__(
        self,
        last: float,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._offset = wall() - monotonic()
        self._trusted_at = monotonic()
        gap = wall() - last
        if last and (gap > CLOCK_GAP_SECONDS or gap < -CLOCK_JUMP_SECONDS):
            self._doubt(gap, "since the last message was kept")

    def is_trusted(self) -> bool:
        """Return True if the clock has run evenly for long enough. Warn when that ends."""
        jump = self._wall() - self._monotonic() - self._offset
        if abs(jump) > CLOCK_JUMP_SECONDS:
            self._offset += jump
            self._doubt(jump, "in a moment")
        return self._monotonic() >= self._trusted_at

    def _doubt(self, gap: float, since: str) -> None:
        self._trusted_at = self._monotonic() + CLOCK_TRIAL_SECONDS
        _log.warning(_DOUBT, f"{gap / 86400:+,.1f} days", since)
