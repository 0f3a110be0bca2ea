"""`review list | next | label`: the queue of the page on the command line, with no box and no network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.cli.main import main
from edge_runtime.config.schema import RecordingConfig
from edge_runtime.core.messages import Cause, Decision, Frame, PartKey, Prediction, Trigger, Verdict
from edge_runtime.dataset.review import review_queue
from edge_runtime.recording.evidence import Evidence
from edge_runtime.recording.journal import Journal
from edge_runtime.recording.reader import JournalReader
from edge_runtime.recording.records import RunInfo


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Three parts of which the model was unsure, each with its picture."""
    journal = Journal(tmp_path / "journal.db", RunInfo({}, "c" * 64, "scratch@1", "d" * 64))
    evidence = Evidence(tmp_path, RecordingConfig(), journal.kept, reserve_bytes=0)
    journal.start()
    for number in (1, 2, 3):
        key = PartKey(7, number)
        frame = Frame("cam0", number, number, 100, np.zeros((72, 128, 3), np.uint8), key)
        journal.triggered(Trigger(key, number, number))
        decision = Decision(key, Verdict.UNSURE, Cause.MODEL, "unsure", 0.5, number, number, number + 1, "scratch@1")
        prediction = Prediction("scratch@1", 0.5, {})
        for tap in (journal, evidence):
            tap.decided(decision, frame, prediction)
    evidence.start()
    evidence.stop()
    journal.stop()
    return tmp_path


def run(state: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(["--config", "embedded", "--set", f'recording.state_dir="{state}"', "review", *words])
    return int(ended.value.code or 0), capsys.readouterr().out


def test_a_person_works_through_the_queue(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    waiting = json.loads(run(state, capsys, "list", "--by", "ann", "--json")[1])["waiting"]
    assert [one["row"] for one in waiting] == [one.row for one in review_queue(state / "journal.db", "ann").waiting]
    assert len(waiting) == 3
    for one in waiting:
        code, said = run(state, capsys, "next", "--by", "ann", "--json")
        told = json.loads(said)
        assert (code, told["row"], Path(told["picture"]).is_file()) == (0, one["row"], True)
        assert "verdict" not in told and "score" not in told
        words = ("--by", "ann", "--defect", "scratch", "--box", "0.1", "0.2", "0.3", "0.25")
        assert run(state, capsys, "label", str(one["row"]), "reject", *words)[0] == 0
    assert run(state, capsys, "next", "--by", "ann") == (1, "nothing waits for review\n")
    with JournalReader(state / "journal.db") as reader:
        (said,) = reader.history(waiting[0]["row"])
    assert (said.by, said.where, said.defect, said.box and said.box.w) == ("ann", "cli", "scratch", 0.3)
    assert run(state, capsys, "label", waiting[0]["part"], "undo", "--by", "ann")[0] == 0
    assert run(state, capsys, "label", waiting[0]["part"], "undo", "--by", "ann")[0] == 1 + 1
    assert json.loads(run(state, capsys, "next", "--by", "ann", "--json")[1])["row"] == waiting[0]["row"]


def test_what_names_no_part_or_no_place_is_refused(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(state, capsys, "label", "9999", "accept")[0] == 1
    assert run(state, capsys, "label", "x", "accept")[0] == 2
    assert run(state, capsys, "label", "1", "reject", "--box", "0.9", "0", "0.5", "0.5")[0] == 2
