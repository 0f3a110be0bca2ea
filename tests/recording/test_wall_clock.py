"""Wall time beside monotonic time, and how much it is worth."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.core.clock import SECOND, ManualClock
from edge_runtime.recording import wall_clock
from edge_runtime.recording.wall_clock import TimeQuality, WallClock, time_quality


def test_a_step_of_the_wall_clock_counts_from_the_next_refresh() -> None:
    clock, utc_ns = ManualClock(5 * SECOND), [1000 * SECOND]
    wall = WallClock(clock, lambda: utc_ns[0])
    assert wall.utc(4 * SECOND) == 999 * SECOND
    utc_ns[0] += 3600 * SECOND
    assert wall.utc(4 * SECOND) == 999 * SECOND
    wall.refresh()
    assert wall.utc(4 * SECOND) == 4599 * SECOND


@pytest.mark.parametrize(("flag", "kernel", "quality"), [(1, 0, "synced"), (0, 1, "synced"), (0, 0, "free_running")])
def test_a_clock_is_synced_when_somebody_vouches_for_it(
    flag: int, kernel: int, quality: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wall_clock, "TIMESYNC_FLAG", tmp_path if flag else tmp_path / "missing")
    monkeypatch.setattr(wall_clock, "_kernel_is_synced", lambda: bool(kernel))
    assert time_quality() == quality


def test_the_kernel_answers_one_of_both() -> None:
    assert time_quality() in set(TimeQuality)
