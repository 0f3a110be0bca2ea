"""Both have just been started: `sync` waits a little for what `run` says of its devices.

A node that is born with devices which are still being opened would tell the hosts at once that they died.
"""

from __future__ import annotations

from edge_runtime.core.clock import SECOND, Clock
from edge_runtime.core.state import State
from edge_runtime.core.status import Status
from edge_runtime.process.ask_status import Silence
from edge_runtime.sync.box import Silent

NOBODY_NS = 5 * SECOND  # from the start of `sync`: a process that starts beside it opens its socket by then
OPENING_NS = 30 * SECOND  # model and devices of a slow box
DEVICES = ("line", "camera", "controller")


class FirstLook:
    """From the start of `sync` to the first word that counts."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._started_ns = clock, clock()
        self._is_over = False

    def is_early(self, shot: Status | Silent) -> bool:
        """Not to be told yet: it will be another in a moment. Never again true once it was false."""
        self._is_over = self._is_over or self._clock() - self._started_ns >= _patience_ns(shot)
        return not self._is_over


def _patience_ns(shot: Status | Silent) -> int:
    if isinstance(shot, Silent):
        return {Silence.STOPPED: NOBODY_NS, Silence.NO_ANSWER: OPENING_NS}.get(shot.state, 0)
    states = {health.state for name, health in shot.health.items() if name in DEVICES}
    return OPENING_NS if states & {State.STARTING, State.STOPPED} else 0
