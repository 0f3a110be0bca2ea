"""Recorded runs, judged again by today's code, get the decisions of then; `tools/record_replay` renews them.

Verdict, cause and reason must be the same, the reason without its figures; the score within 0.001. Not to the last
digit: the network is computed in integers, but what comes before and after it (resampling, sigmoid, calibration) is
floating point, and processors differ in its last digits. Recorded on x86-64, with the runtime that the bundle names.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.dataset.replay import Judged, Replay, replay
from edge_runtime.recording.journal import Journal
from edge_runtime.recording.reader import JournalReader, PartRow
from edge_runtime.recording.records import RunInfo

HERE = Path(__file__).parent
RUNS = sorted(path.parent.name for path in HERE.glob("*/decisions.json"))
RECORDED = 1  # the run in each journal
SCORE_TOLERANCE = 0.001
FIGURE = re.compile(r"\d+(\.\d+)?")


@pytest.fixture(params=RUNS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """State folder with a recorded run: a copy, opened once by today's writer, as a box does after an update."""
    state = Path(shutil.copytree(HERE / request.param, tmp_path / request.param))
    journal = Journal(state / "journal.db", RunInfo())
    journal.start()
    journal.stop()
    return state


def rows_of(state: Path) -> list[PartRow]:
    with JournalReader(state / "journal.db") as reader:
        return list(reader.parts())


def again(state: Path) -> Replay:
    return replay(EdgeConfig(), state, RECORDED, None)


def in_words(judged: Judged) -> tuple[str, str]:
    return judged.verdict, FIGURE.sub("#", judged.reason)


def is_same(recorded: Judged, replayed: Judged) -> bool:
    if in_words(recorded) != in_words(replayed) or (recorded.score is None) != (replayed.score is None):
        return False
    return recorded.score is None or abs(recorded.score - (replayed.score or 0.0)) <= SCORE_TOLERANCE


def test_there_are_ordinary_parts_faults_and_a_dark_lamp() -> None:
    causes = {name: Counter(part["cause"] for part in json.loads((HERE / name / "decisions.json").read_text()))
              for name in RUNS}  # fmt: skip
    verdicts = {part["verdict"] for part in json.loads((HERE / "ordinary" / "decisions.json").read_text())}
    assert causes["ordinary"].keys() == {"model"} and verdicts >= {"accept", "reject"}
    assert causes["faults"].keys() >= {"model", "no_frame", "engine_fault"}
    assert causes["dark_lamp"].keys() == {"model", "invalid_image"}


def test_a_recorded_run_gets_the_same_decisions_again(run: Path) -> None:
    judged = [row for row in rows_of(run) if row.cause in ("model", "invalid_image")]
    found = again(run)
    assert found.compared == len(judged) >= 4 and found.lossy_compared == 0
    assert [one for one in found.differences if not is_same(one.recorded, one.replayed)] == []
    others = Counter(f"decided by {row.cause}" for row in rows_of(run) if row not in judged)
    assert found.not_compared == others


def test_its_ledger_says_what_was_decided(run: Path) -> None:
    told: list[dict[str, Any]] = json.loads((run / "decisions.json").read_text())
    rows = rows_of(run)
    assert [(row.part_id, row.verdict, row.cause, row.reason) for row in rows] == [
        (part["part"], part["verdict"], part["cause"], part["reason"]) for part in told
    ]
    assert [row.score for row in rows] == [pytest.approx(part["score"], abs=1e-6) for part in told]


def test_a_picture_of_another_part_is_told(run: Path) -> None:
    """What is compared can differ: the pictures of a rejected or invalid part and of an accepted one change places."""
    by_verdict = {
        row.verdict: run / row.evidence for row in rows_of(run) if row.evidence and row.cause != "engine_fault"
    }
    accepted = by_verdict.pop("accept")
    (other, *_) = by_verdict.values()
    picture = accepted.read_bytes()
    accepted.write_bytes(other.read_bytes())
    other.write_bytes(picture)
    found = again(run)
    assert len([one for one in found.differences if not is_same(one.recorded, one.replayed)]) == 2


def test_they_stay_small() -> None:
    assert sum(path.stat().st_size for path in HERE.rglob("*") if path.is_file()) < 1_000_000
