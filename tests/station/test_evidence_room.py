"""The box wires its pictures to what people said: the shelf of a real box asks the real journal who may go."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.clock import monotonic_ns
from edge_runtime.core.messages import Cause, Decision, Frame, HumanLabel, Label, PartKey, Trigger, Verdict, Where
from edge_runtime.recording.journal import Journal
from edge_runtime.recording.records import RunInfo
from edge_runtime.station.wiring import _evidence

SIDE = 1000  # of a picture of noise: 3 MB that nothing makes smaller, so that 10 MB hold three


def test_the_picture_of_a_labelled_reject_outlives_younger_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = {"state_dir": str(tmp_path), "quota_mb": 10, "format": "png"}
    cfg = EdgeConfig.model_validate({"recording": recording})
    journal = Journal(tmp_path / "journal.db", RunInfo())
    noted, is_kept = journal.kept, threading.Semaphore(0)
    monkeypatch.setattr(journal, "kept", lambda key, file: (noted(key, file), is_kept.release()))
    evidence = _evidence(cfg, tmp_path, journal, monotonic_ns)
    journal.start()
    evidence.start()
    noise = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    try:
        for number in range(1, 6):
            key, now = PartKey(1, number), time.monotonic_ns()
            journal.triggered(Trigger(key, 0, now))
            decision = Decision(key, Verdict.REJECT, Cause.MODEL, "", 0.9, now, now, now, "m@1")
            journal.decided(decision, None, None)
            if number == 1:
                journal.labelled(HumanLabel(key, Label.REJECT, now, "anna", Where.PAGE))
            assert journal.flush(30)
            evidence.decided(decision, Frame("cam0", number, now, 0, noise), None)
            assert is_kept.acquire(timeout=60)
    finally:
        evidence.stop()
        journal.stop()
    left = sorted(path.name.split("-")[2] for path in (tmp_path / "evidence").rglob("*.png"))
    assert left == ["1", "4", "5"]
