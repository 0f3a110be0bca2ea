"""What people say about parts is a history: nothing is overwritten, and what was taken back stays to be seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_runtime.core.clock import SECOND, ManualClock
from edge_runtime.core.errors import StorageError, UsageError
from edge_runtime.core.messages import HumanLabel, Label, PartKey, Verdict, Where
from edge_runtime.recording.database import FileLock
from edge_runtime.recording.journal import Journal
from edge_runtime.recording.labelled_parts import labels_in_force
from edge_runtime.recording.labels import Saying, append, by_person, is_disputed, over_all, undo_of
from edge_runtime.recording.reader import JournalReader
from edge_runtime.recording.records import RunInfo
from edge_runtime.recording.say_label import of_words, say, take_back, to_words, write_alone
from edge_runtime.recording.schema import open_for_writing
from edge_runtime.recording.wall_clock import WallClock

UTC_NS = 1_800_000_000 * SECOND


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def journal(tmp_path: Path, clock: ManualClock) -> Iterator[Journal]:
    info = RunInfo({}, "c", "scratch@1", "digest-of-1")
    journal = Journal(tmp_path / "journal.db", info, clock, utc_ns=lambda: UTC_NS + clock())
    journal.start()
    yield journal
    journal.stop()


@pytest.fixture
def passed(journal: Journal, make_part: Callable[..., Any]) -> PartKey:
    """A part that the model let pass."""
    part = make_part(1)
    journal.triggered(part.trigger)
    journal.decided(part.decision, None, part.prediction)
    assert journal.flush(10)
    return PartKey(*part.key)


def history(journal: Journal, key: PartKey) -> list[Saying]:
    assert journal.flush(10)
    with JournalReader(journal.path) as reader:
        row = reader.part_by_key(key)
        assert row is not None
        return reader.history(row.id)


def label(journal: Journal, key: PartKey) -> str | None:
    """As `parts list` shows it."""
    assert journal.flush(10)
    with JournalReader(journal.path) as reader:
        row = reader.part_by_key(key)
        assert row is not None
        return row.label


def test_a_label_keeps_who_said_it_where_when_and_after_which_verdict(
    journal: Journal, passed: PartKey, clock: ManualClock
) -> None:
    clock.advance_ms(2000)
    journal.labelled(
        HumanLabel(
            passed, Label.REJECT, clock(), "anna", Where.PAGE, "scratch", "left edge", "scratch@1", Verdict.ACCEPT
        )
    )
    (said,) = history(journal, passed)
    assert (said.label, said.defect, said.comment) == (Label.REJECT, "scratch", "left edge")
    assert (said.by, said.where, said.at_utc_ns) == ("anna", Where.PAGE, UTC_NS + clock())
    assert (said.saw_model, said.saw_digest, said.saw_verdict) == ("scratch@1", "digest-of-1", Verdict.ACCEPT)
    assert label(journal, passed) == "reject"


def test_a_later_label_overwrites_nothing(journal: Journal, passed: PartKey) -> None:
    for word in (Label.REJECT, Label.ACCEPT, Label.CANNOT_TELL):
        journal.labelled(HumanLabel(passed, word, 5, "anna", Where.CLI))
    assert [said.label for said in history(journal, passed)] == [Label.REJECT, Label.ACCEPT, Label.CANNOT_TELL]
    assert label(journal, passed) == "cannot_tell"


def test_what_is_taken_back_stays_in_the_history_and_the_word_before_is_in_force_again(
    journal: Journal, passed: PartKey
) -> None:
    journal.labelled(HumanLabel(passed, Label.ACCEPT, 5, "anna", Where.PAGE))
    journal.labelled(HumanLabel(passed, Label.REJECT, 6, "anna", Where.PAGE))
    slip = history(journal, passed)[-1]
    journal.labelled(undo_of(slip, 7, "anna", Where.PAGE, "wrong key"))
    first, second, undo = history(journal, passed)
    assert (first.is_undone, second.is_undone, undo.undoes, undo.comment) == (False, True, second.id, "wrong key")
    assert label(journal, passed) == "accept" and by_person([first, second, undo]) == {"anna": first}
    for twice in (second, undo):
        with pytest.raises(UsageError, match="back"):
            undo_of(twice, 8, "anna", Where.PAGE)


def test_each_person_has_a_last_word_and_the_last_of_all_is_in_force(journal: Journal, passed: PartKey) -> None:
    for by, word in (("anna", Label.REJECT), ("ben", Label.ACCEPT), ("anna", Label.CANNOT_TELL)):
        journal.labelled(HumanLabel(passed, word, 5, by, Where.PAGE))
    said = history(journal, passed)
    assert {by: one.label for by, one in by_person(said).items()} == {"anna": Label.CANNOT_TELL, "ben": Label.ACCEPT}
    assert over_all(said) == said[2] and is_disputed(said)
    journal.labelled(undo_of(said[2], 6, "anna", Where.PAGE))
    journal.labelled(undo_of(said[0], 6, "anna", Where.PAGE))
    said = history(journal, passed)
    assert over_all(said) == said[1] and by_person(said) == {"ben": said[1]} and not is_disputed(said)
    assert label(journal, passed) == "accept"


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from([*Label, None]), st.sampled_from(["anna", "ben"]), st.integers(0, 9))))
def test_the_ledger_and_the_history_agree_on_what_is_in_force(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[Label | None, str, int]]
) -> None:
    key, wall = PartKey(1, 1), WallClock(ManualClock(), lambda: UTC_NS)
    path = tmp_path_factory.mktemp("state") / "journal.db"
    with closing(open_for_writing(path)) as db:
        db.execute("INSERT INTO run VALUES (1, 0, 0, '', '', NULL, 'open', '{}', '', '', '', '{}')")
        db.execute("INSERT INTO part (run, boot_id, part_id, trigger_ns, trigger_utc_ns, time_quality)"
                   " VALUES (1, 1, 1, 0, 0, '')")  # fmt: skip
        for word, by, back in said:
            undoes = None if word else max(1, back)
            append(db, 1, HumanLabel(key, word, 0, by, Where.IMPORT, undoes=undoes), wall)
        with JournalReader(path) as reader:
            row, last = reader.part(1), over_all(reader.history(1))
            assert row and row.label == reader.label_of(key) == (last and last.label)


def test_a_name_that_the_controller_gave_twice_is_two_parts(
    journal: Journal, passed: PartKey, make_part: Callable[..., Any], tmp_path: Path
) -> None:
    with JournalReader(journal.path) as reader:
        before = reader.newest(1)[0].id
    journal.stop()
    again = Journal(journal.path, RunInfo())
    again.start()
    again.triggered(make_part(1, at_ns=10**15).trigger)
    again.labelled(HumanLabel(passed, Label.REJECT, 5, "anna", Where.CLI))
    again.labelled(HumanLabel(passed, Label.ACCEPT, 5, "anna", Where.CLI, row=before))
    assert again.flush(10)
    with JournalReader(again.path) as reader:
        assert [row.label for row in reader.newest(2)] == ["accept", "reject"]
    again.stop()


def test_a_label_of_a_part_that_the_journal_does_not_know_is_kept_under_its_name(journal: Journal) -> None:
    journal.labelled(HumanLabel(PartKey(9, 9), Label.REJECT, 5, "anna", Where.CLI))
    assert journal.flush(10)
    with JournalReader(journal.path) as reader:
        assert (reader.saying(1).part, reader.label_of(PartKey(9, 9))) == (None, Label.REJECT)
        with pytest.raises(StorageError, match="no label 2"):
            reader.saying(2)


@pytest.mark.parametrize(
    "odd",
    [{"label": None}, {"undoes": 1}, {"by": ""}, {"defect": "x" * 65}, {"comment": "\x00"}, {"label": "perhaps"}],
    ids=str,
)
def test_a_label_that_makes_no_sense_costs_only_itself_and_is_counted(
    journal: Journal, passed: PartKey, odd: dict[str, Any]
) -> None:
    words: dict[str, Any] = {"label": Label.REJECT, "by": "anna", "where": Where.PAGE, "at_ns": 5}
    journal.labelled(HumanLabel(passed, **{**words, **odd}))
    journal.labelled(HumanLabel(passed, **words))
    assert len(history(journal, passed)) == 1
    with JournalReader(journal.path) as reader:
        assert [(loss["what"], loss["why"]) for loss in reader.losses()] == [("label", "malformed")]


# -- from outside ------------------------------------------------------------------------------------------------------


def test_while_no_box_runs_the_label_is_written_beside_it(journal: Journal, passed: PartKey, tmp_path: Path) -> None:
    journal.stop()
    nobody, began_ns = tmp_path / "control.sock", time.time_ns()
    say(journal.path, nobody, HumanLabel(passed, Label.REJECT, 5, "anna", Where.CLI, saw_model="scratch@1"))
    with JournalReader(journal.path) as reader:
        (said,) = reader.history(1)
    assert (said.run, said.saw_digest, said.label) == (1, "digest-of-1", Label.REJECT)
    assert abs(said.at_utc_ns - began_ns) < 60 * SECOND
    take_back(journal.path, nobody, said.id, "ben", Where.CLI)
    with JournalReader(journal.path) as reader:
        assert [one.by for one in reader.history(1)] == ["anna", "ben"] and over_all(reader.history(1)) is None
        row = reader.part(1)
        assert row and row.label is None
    with pytest.raises(UsageError, match="taken back already"):
        take_back(journal.path, nobody, said.id, "anna", Where.CLI)
    again = Journal(journal.path, RunInfo())
    again.start()
    assert again.flush(10) and not again.quarantined
    with JournalReader(again.path) as reader:
        assert reader.losses() == [] and {event["kind"] for event in reader.events()} <= {"clock.stepped"}
    again.stop()


def test_a_journal_that_is_written_by_another_is_left_alone(journal: Journal, passed: PartKey, tmp_path: Path) -> None:
    saying = HumanLabel(passed, Label.REJECT, 5, "anna", Where.CLI)
    with pytest.raises(StorageError, match="another program holds the journal"):
        write_alone(journal.path, saying)
    assert history(journal, passed) == []
    journal.stop()
    lock = FileLock(journal.path)
    lock.take()
    with pytest.raises(StorageError, match="another program"):
        say(journal.path, tmp_path / "control.sock", saying)
    lock.free()
    say(journal.path, tmp_path / "control.sock", saying)


def test_nobody_labels_a_part_that_is_not_there(journal: Journal, passed: PartKey, tmp_path: Path) -> None:
    journal.stop()
    for key, row in ((PartKey(9, 9), None), (passed, 7)):
        with pytest.raises(StorageError, match="no part"):
            say(journal.path, tmp_path / "c.sock", HumanLabel(key, Label.REJECT, 5, "anna", Where.CLI, row=row))


def test_a_label_travels_as_words_and_comes_out_the_same() -> None:
    whole = HumanLabel(
        PartKey(3, 4), Label.REJECT, 7, "anna", Where.PAGE, "dent", "two\nlines", "m@1", Verdict.UNSURE, None, 8
    )
    for said in (whole, HumanLabel(PartKey(3, 4), None, 7, "ben", Where.CLI, undoes=2)):
        assert of_words(to_words(said), 7) == said
    for odd in ({"boot_id": -1}, {"part_id": True}, {"where": "pub"}, {"by": 3}, {"label": "rescan"}, {"undoes": "1"}):
        with pytest.raises(UsageError):
            of_words({**to_words(whole), **odd}, 7)


# -- for the pictures --------------------------------------------------------------------------------------------------


def test_a_label_in_the_journal_is_seen_by_who_makes_room(
    journal: Journal, passed: PartKey, make_part: Callable[..., Any]
) -> None:
    journal.labelled(HumanLabel(passed, Label.REJECT, 5, "anna", Where.PAGE))
    assert journal.flush(10.0)
    with labels_in_force(journal.path) as label_of:
        assert label_of(passed) is Label.REJECT and label_of(make_part(2).key) is None


def test_without_a_journal_nobody_has_labelled_anything(tmp_path: Path, make_part: Callable[..., Any]) -> None:
    (tmp_path / "journal.db").write_bytes(b"no database" * 1000)
    for path in (tmp_path / "none.db", tmp_path / "journal.db"):
        with labels_in_force(path) as label_of:
            assert label_of(make_part(1).key) is None
