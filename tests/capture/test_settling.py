"""The first pictures of a camera belong to no part until exposure stands."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.capture.cameras.settling import PATIENCE_NS, PATIENCE_PICTURES, Settling
from edge_runtime.core.clock import MS

FRAME_NS = 33 * MS


def handed_out(levels: list[float], period_ns: int = FRAME_NS) -> list[float]:
    settling = Settling()
    pictures = [np.full((48, 64, 3), level, np.uint8) for level in levels]
    return [
        levels[number] for number, one in enumerate(pictures) if settling.is_done(one, 800 * MS + number * period_ns)
    ]


@pytest.mark.parametrize("black", [0, 1, 8, 30, 60])
@pytest.mark.parametrize("level_of_black", [0, 16])
@pytest.mark.parametrize("ramp", [[], [30, 60, 90], [200, 160, 140, 130], [20, 25, 32, 40, 52, 66, 84, 104, 112]])
def test_only_pictures_of_settled_exposure_are_handed_out(black: int, level_of_black: int, ramp: list[float]) -> None:
    out = handed_out([level_of_black] * black + ramp + [120.0] * 10)
    assert len(out) >= 7
    assert min(out) > 110 and max(out) < 130


def test_camera_that_is_settled_costs_two_pictures() -> None:
    assert len(handed_out([80.0] * 20)) == 18


def test_what_comes_after_settling_is_handed_out_whatever_it_is() -> None:
    assert handed_out([80.0] * 3 + [0.0, 255.0]) == [80.0, 0.0, 255.0]


@pytest.mark.parametrize("period_ns", [1 * MS, FRAME_NS, 500 * MS], ids=["fast", "usual", "slow"])
def test_dark_station_is_waited_for_and_then_shown(period_ns: int) -> None:
    out = handed_out([4.0] * 200, period_ns)
    assert len(out) >= 200 - min(PATIENCE_PICTURES, PATIENCE_NS // period_ns + 1)
    assert len(out) < 200 - 2
