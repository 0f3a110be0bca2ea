"""Whether a server is asked: not while it fails, and again when a trial shows that it answers.

    up --MISSES in a row--> resting --time is over--> on trial --answered--> up
                               ^                         |
                               '-------- missed ---------'      resting longer each time

Only in `up` is it asked about parts; a trial is asked about nothing that matters. So a dead server costs at most MISSES
parts their wait, and after that none. No I/O, no clock of its own.
"""

from __future__ import annotations

from enum import StrEnum

from edge_runtime.core.clock import SECOND

MISSES = 3  # in a row; one slow answer is no dead server
REST_NS = tuple(round(seconds * SECOND) for seconds in (0.5, 1, 2, 5, 10, 30))  # trials cost no part, so often at first


class Phase(StrEnum):
    UP = "up"
    RESTING = "resting"
    TRIAL = "trial"


class Circuit:
    """For one thread at a time."""

    def __init__(self) -> None:
        self.phase = Phase.RESTING  # the first trial may begin at once
        self._until_ns = 0
        self._misses = 0  # in a row while up
        self._rests = 0  # in a row
        self.failures = 0  # in a row, of trials too

    def answered(self) -> None:
        """A trial or a part was answered."""
        self.phase, self._misses, self._rests, self.failures = Phase.UP, 0, 0, 0

    def missed(self, now_ns: int) -> None:
        """A trial or a part was not."""
        self._misses += 1
        self.failures += 1
        if self.phase is not Phase.RESTING and (self.phase is Phase.TRIAL or self._misses >= MISSES):
            self._rest(now_ns)

    def broke(self, now_ns: int) -> None:
        """The way to the server is gone, or it serves something else: no need to wait for more."""
        self.failures += 0 if self._misses else 1  # those that were missed with it are counted
        self._rest(now_ns)

    def _rest(self, now_ns: int) -> None:
        self.phase, self._misses = Phase.RESTING, 0
        self._until_ns = now_ns + REST_NS[min(self._rests, len(REST_NS) - 1)]
        self._rests += 1

    def begin_trial(self, now_ns: int) -> bool:
        """Whether a trial is due; then it has begun."""
        if self.phase is not Phase.RESTING or now_ns < self._until_ns:
            return False
        self.phase = Phase.TRIAL
        return True

    def rests_for_ns(self, now_ns: int) -> int:
        return max(0, self._until_ns - now_ns) if self.phase is Phase.RESTING else 0
