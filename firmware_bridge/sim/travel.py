"""Where an evenly moving belt is, and when it is at a place: pure arithmetic of quarter counts and microseconds."""

from __future__ import annotations

from firmware_bridge.sim.board import QUARTERS


class Travel:
    """A place that moves evenly, in quarters of a count."""

    def __init__(self) -> None:
        self.quarter = 0
        self.step = 0  # forwards, backwards, or it stands
        self._quarter_us = self._next_us = 0.0  # how long one takes, and when the next one comes

    def speed(self, quarters_per_s: float, now_us: float) -> None:
        step = (quarters_per_s > 0) - (quarters_per_s < 0)
        quarter_us = 1e6 / abs(quarters_per_s) if step else 0.0
        if (step, quarter_us) != (self.step, self._quarter_us):
            self.step, self._quarter_us, self._next_us = step, quarter_us, now_us + quarter_us

    def us_at(self, place: int) -> float:
        """When it is at a place ahead."""
        if not self.step:
            return float("inf")
        return self._next_us + (abs(place - self.quarter) - 1) * self._quarter_us

    def go_to(self, place: int) -> None:
        self._next_us += abs(place - self.quarter) * self._quarter_us
        self.quarter = place

    def place_at(self, us: float, before: int) -> int:
        """Where it is at this time, short of a place ahead, however times are rounded."""
        if not self.step or us < self._next_us:
            return self.quarter
        moved = min(int((us - self._next_us) / self._quarter_us) + 1, abs(before - self.quarter) - 1)
        return self.quarter + moved * self.step

    @property
    def count_us(self) -> float:
        """When the count that it stands in began, of a belt that runs forwards."""
        return self._next_us - (1 + self.quarter % QUARTERS) * self._quarter_us
