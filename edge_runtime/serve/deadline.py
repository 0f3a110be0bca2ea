"""A point in time that a whole exchange with a server has to keep, however its bytes come."""

from __future__ import annotations

import time


class Deadline:
    """So many seconds from now."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def left_s(self) -> float:
        """Raises TimeoutError when none is left."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time is over")
        return left
