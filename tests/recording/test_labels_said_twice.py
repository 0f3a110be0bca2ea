"""A label has a name of its own: said again after a lost answer it is one row; its box comes out as it was drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edge_runtime.core.errors import UsageError
from edge_runtime.core.messages import Box, HumanLabel, Label, PartKey, Trigger, Where
from edge_runtime.recording.journal import Journal
from edge_runtime.recording.reader import JournalReader
from edge_runtime.recording.records import RunInfo
from edge_runtime.recording.say_label import of_words, say, take_back, to_words

KEY = PartKey(7, 1)
SAID = HumanLabel(KEY, Label.REJECT, 0, "anna", Where.PAGE, "scratch", ref="a-1", box=Box(0.25, 0.5, 0.125, 0.0625))


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    journal = Journal(tmp_path / "journal.db", RunInfo())
    journal.start()
    journal.triggered(Trigger(KEY, 100, 5))
    assert journal.flush(10)
    journal.stop()
    return journal.path


def test_a_label_that_is_said_again_is_one_row(journal: Path, tmp_path: Path) -> None:
    nobody = tmp_path / "control.sock"
    first = say(journal, nobody, SAID)
    assert say(journal, nobody, replace(SAID, comment="again")) == first
    with JournalReader(journal) as reader:
        assert [(one.ref, one.comment, one.box) for one in reader.history(1)] == [("a-1", "", SAID.box)]


def test_a_repeat_that_reaches_the_writer_leaves_no_gap_behind(journal: Path) -> None:
    running = Journal(journal, RunInfo())
    running.start()
    for ref in ("a-1", "a-1", "a-1", "a-2"):
        running.labelled(replace(SAID, ref=ref))
    assert running.flush(10) and not running.lost
    running.stop()
    with JournalReader(journal) as reader:
        assert [(one.id, one.ref) for one in reader.history(1)] == [(1, "a-1"), (2, "a-2")]
        assert reader.losses() == [] and reader.shortfall() == ""


def test_one_name_is_not_that_of_two_labels(journal: Path, tmp_path: Path) -> None:
    nobody = tmp_path / "control.sock"
    say(journal, nobody, SAID)
    with pytest.raises(UsageError, match="'a-1' is that of label 1 already"):
        say(journal, nobody, replace(SAID, by="ben"))


def test_an_undo_may_be_said_again_too(journal: Path, tmp_path: Path) -> None:
    nobody = tmp_path / "control.sock"
    number = say(journal, nobody, SAID).id
    for _ in range(2):
        take_back(journal, nobody, number, "anna", Where.PAGE, ref="u-1")
    with JournalReader(journal) as reader:
        assert [(one.undoes, one.is_undone) for one in reader.history(1)] == [(None, True), (1, False)]
    with pytest.raises(UsageError, match="taken back already"):
        take_back(journal, nobody, number, "anna", Where.PAGE, ref="u-2")


@pytest.mark.parametrize(
    "box", [Box(-0.1, 0, 0.5, 0.5), Box(0.8, 0, 0.5, 0.5), Box(0, 0, 0, 0.5), Box(float("nan"), 0, 0.5, 0.5)]
)
def test_a_box_lies_within_the_picture(box: Box) -> None:
    with pytest.raises(UsageError, match="fractions of the picture"):
        of_words(to_words(replace(SAID, box=box)), 0)


def test_only_a_defect_has_a_box() -> None:
    with pytest.raises(UsageError, match="only the label reject"):
        of_words(to_words(replace(SAID, label=Label.ACCEPT)), 0)
    assert of_words(to_words(SAID), 0) == SAID
