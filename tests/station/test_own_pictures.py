"""Somebody's own pictures on the simulated belt: what the world knows of its own parts is not told of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.core.errors import StorageError
from edge_runtime.recording.reader import JournalReader
from tests.support.waiting import until


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


def test_each_part_names_its_picture_and_files_that_come_later_are_shown_too(tmp_path: Path) -> None:
    pictures, state = tmp_path / "pictures", tmp_path / "state"
    pictures.mkdir()
    for name in ("a.png", "b\udce4\n.png", "c.png"):  # as a stick from another system may have it
        cv2.imwrite(str(tmp_path / "one.png"), np.full((72, 128, 3), 90, np.uint8))
        (tmp_path / "one.png").rename(pictures / name)
    (pictures / "broken.png").write_bytes(b"no picture")
    box = [sys.executable, "-m", "edge_runtime"] + [
        word
        for setting in (
            f"recording.state_dir={state}", "camera.driver=folder", f"camera.folder.path={pictures}",
            "camera.width=320", "camera.height=180", "world.parts_per_s=20",
        )
        for word in ("--set", setting)
    ]  # fmt: skip
    running = subprocess.Popen([*box, "run", "--parts", "400", "--json"], stdout=subprocess.PIPE, text=True)
    try:
        until(lambda: len(recorded(state)) >= 6, 60)
        cv2.imwrite(str(pictures / "late.png"), np.full((72, 128, 3), 120, np.uint8))
        until(lambda: "late.png" in recorded(state), 60)
    finally:
        running.terminate()
        running.communicate(timeout=30)
    files = recorded(state)
    assert files[:5] == ["a.png", None, "b??.png", "c.png", "a.png"]  # nothing was seen of broken.png
    said = subprocess.run([*box, "parts", "show", "3"], capture_output=True, text=True, check=True, timeout=30)
    assert "file       b??.png" in said.stdout
    said = subprocess.run([*box, "parts", "list"], capture_output=True, text=True, check=True, timeout=30)
    assert said.stdout.splitlines()[0].split()[-2:] == ["FILE", "REASON"] and "late.png" in said.stdout


def recorded(state: Path) -> list[str | None]:
    """The files that the parts in the journal name, the oldest first."""
    try:
        with JournalReader(state / "journal.db") as reader:
            return [row.file for row in reader.parts() if row.verdict]
    except StorageError:  # not made yet
        return []
