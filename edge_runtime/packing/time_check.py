"""Is a model quick enough for the station on this box? Measured in its child process, at idle priority."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from edge_runtime.config.schema import DecisionConfig
from edge_runtime.packing.judging import Judged

ROOMY = 0.5  # of the deadline: the rest is for the camera, for a part that waits, and for a box that has other work


@dataclass(frozen=True, slots=True)
class Pace:
    """picture_ms: median time of a picture, from its pixels to its score. measured: of so many pictures."""

    picture_ms: float
    measured: int
    deadline_ms: float
    budget_ms: float

    @property
    def fits(self) -> bool:
        return self.picture_ms <= min(self.deadline_ms, self.budget_ms)

    def remarks(self) -> list[str]:
        """Nothing where it fits and leaves room."""
        takes = f"takes {self.picture_ms:.3g} ms a picture on this box (median of {self.measured})"
        no = "does not fit this station: " + takes
        if self.picture_ms > self.deadline_ms:
            given = f"decision.deadline_ms = {self.deadline_ms:g}"
            return [f"{no}, {given}: no verdict would be in time; take a smaller model, or give parts more time"]
        if self.picture_ms > self.budget_ms:
            given = f"decision.stage_budget_ms = {self.budget_ms:g}"
            return [f"{no}, {given}: the line would take it for hung and replace it; take a smaller model, or raise it"]
        if self.picture_ms > ROOMY * self.deadline_ms:
            left_ms = self.deadline_ms - self.picture_ms
            return [
                f"fits this station only just: {takes}, which leaves {left_ms:.0f} of decision.deadline_ms = "
                f"{self.deadline_ms:g} for the camera and for parts that wait"
            ]
        return []


def measured_pace(judged: Sequence[Judged], trial_ms: Sequence[float], cfg: DecisionConfig) -> Pace:
    """trial_ms: of pictures that are no samples, for where there were none."""
    times = [one.took_ms for one in judged if not one.fault] or list(trial_ms)
    return Pace(round(statistics.median(times), 3), len(times), cfg.deadline_ms, cfg.stage_budget_ms)
