"""Somebody's own pictures on the simulated belt: what the world knows of its own parts is not told of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest


@pytest.mark.parametrize("driver", ["folder", "sim"])
def test_the_truth_of_the_simulated_world_is_told_of_its_own_parts_alone(tmp_path: Path, driver: str) -> None:
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((72, 128, 3), 60 + 40 * number, np.uint8))
    settings = [
        f"recording.state_dir={tmp_path / 'state'}", f"camera.driver={driver}", f"camera.folder.path={tmp_path}",
        "camera.width=320", "camera.height=180", "world.parts_per_s=20",
    ]  # fmt: skip
    args = [word for setting in settings for word in ("--set", setting)]
    run = [sys.executable, "-m", "edge_runtime", *args, "run", "--parts", "3", "--json"]
    summary = json.loads(subprocess.run(run, capture_output=True, text=True, check=True, timeout=120).stdout)
    assert summary["parts"] == 3 and ("truth" in summary) is (driver == "sim")
