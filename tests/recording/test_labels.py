"""Who makes room asks the journal which parts a person has labelled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_runtime.core.messages import HumanLabel
from edge_runtime.recording.journal import Journal
from edge_runtime.recording.labels import labels
from edge_runtime.recording.records import RunInfo


def test_a_label_in_the_journal_is_seen(tmp_path: Path, make_part: Callable[..., Any]) -> None:
    journal = Journal(tmp_path / "journal.db", RunInfo())
    journal.start()
    for number in (1, 2):
        journal.triggered(make_part(number).trigger)
    journal.labelled(HumanLabel(make_part(1).key, "accept", 5, "page"))
    assert journal.flush(10.0)
    with labels(journal.path) as is_labelled:
        assert is_labelled(make_part(1).key) and not is_labelled(make_part(2).key)
    journal.stop()


def test_without_a_journal_nobody_has_labelled_anything(tmp_path: Path, make_part: Callable[..., Any]) -> None:
    (tmp_path / "journal.db").write_bytes(b"no database" * 1000)
    for path in (tmp_path / "none.db", tmp_path / "journal.db"):
        with labels(path) as is_labelled:
            assert not is_labelled(make_part(1).key)
