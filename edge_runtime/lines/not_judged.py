"""Why parts were not judged, for the end of a run: the newest reason for each cause."""

from __future__ import annotations

from collections.abc import Mapping

from edge_runtime.core.messages import Cause, Decision

JUDGED = (Cause.MODEL, Cause.RULE, Cause.HUMAN)


class NotJudged:
    """Any thread may call any method: one entry is set or read at a time."""

    def __init__(self) -> None:
        self._reasons: dict[Cause, str] = {}

    def note(self, decision: Decision) -> None:
        if decision.cause not in JUDGED:
            self._reasons[decision.cause] = decision.reason

    def reasons(self, camera_trouble: str) -> Mapping[str, str]:
        """camera_trouble: why the camera was lost the last time, which says more than "no frame"; empty: it was not."""
        told = dict(self._reasons)
        if Cause.NO_FRAME in told and camera_trouble:
            told[Cause.NO_FRAME] = camera_trouble
        return {cause.value: reason for cause, reason in told.items()}
