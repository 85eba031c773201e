"""A limit on bytes a second, shared by any number of transfers."""

import math
import threading
import time
from typing import Final

from greenchat.protocol.limits import BLOCK, MIN_STEP

__all__ = ["UNLIMITED", "RateLimit"]

_STEPS_A_SECOND: Final = 10


class RateLimit:
    """At most *rate* bytes a second for all who share it, in the order in which they ask; good for any thread.

    After a silence, *burst* bytes more may move at once (a token bucket).
    """

    def __init__(self, rate: float, burst: float = 0.0) -> None:
        self.rate = rate
        self._credit = burst / rate
        self._lock = threading.Lock()
        self._free_at = 0.0
        self.lifted = math.isinf(rate)
        """Whether nobody needs to pause any more."""
        self.step = int(max(MIN_STEP, min(BLOCK, rate / _STEPS_A_SECOND)))
        """Bytes to move at once, so that no pause is long."""

    @property
    def rested(self) -> bool:
        """Whether as much as ever may move at once."""
        return self._free_at <= time.monotonic() - self._credit

    def pause(self, size: int) -> float:
        """Seconds to wait, now that *size* more bytes have moved."""
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - self._credit) + size / self.rate
            return max(0.0, self._free_at - now)


UNLIMITED: Final = RateLimit(math.inf)
