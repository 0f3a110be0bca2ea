"""What waits for a person's eye: parts whose picture was kept and that this person has not answered yet.

Three reasons, in this order: the model was unsure; a person decided at the line (override); an accepted part drawn for
audit. Who reviews is told neither the verdict nor what others said before they have answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edge_runtime.core.errors import UsageError
from edge_runtime.recording.labels import Saying, by_person
from edge_runtime.recording.reader import JournalReader, PartFilter, PartRow

KINDS: Mapping[str, PartFilter] = {
    "unsure": PartFilter(verdicts=("unsure",), with_evidence=True),
    "override": PartFilter(causes=("human",), with_evidence=True),
    "audit": PartFilter(verdicts=("accept",), with_evidence=True),
}
LOOKED_BACK = 500  # parts of each kind; who has more to review than that begins with the newest
CLASSES_FROM = 50  # rejected parts whose marked places name the classes


@dataclass(frozen=True, slots=True)
class Waiting:
    """One part to review. kind: why."""

    row: int
    part: str
    at_ms: int  # UTC, of the photo-eye
    day: str  # local, 2026-11-30
    kind: str


@dataclass(frozen=True, slots=True)
class Queue:
    """good: row of an accepted part to hold beside it. defects: classes that the model names."""

    waiting: tuple[Waiting, ...]
    kinds: Mapping[str, int]
    days: Mapping[str, int]
    good: int | None
    defects: tuple[str, ...]


def review_queue(journal: Path, by: str, day: str = "") -> Queue:
    """What `by` has not answered; with a day, what was recorded on it. Counts are of all days. Raises StorageError."""
    with JournalReader(journal) as reader:
        found = _without_repeats(
            _waiting(row, kind)
            for kind, which in KINDS.items()
            for row in reversed(reader.newest(LOOKED_BACK, which))
            if is_there(journal, row) and not has_answered(reader, row, by)
        )
        good = [row for row in reader.newest(20, KINDS["audit"]) if row.label in (None, "accept")]
        regions = [
            region for row in reader.newest(CLASSES_FROM, PartFilter(verdicts=("reject",))) for region in row.regions
        ]
    chosen = tuple(one for one in found if day in ("", one.day))
    return Queue(
        chosen,
        {kind: sum(one.kind == kind for one in found) for kind in KINDS},
        dict(sorted(Counter(one.day for one in found).items())),
        good[-1].id if good else None,
        tuple(sorted({region.label for region in regions})),
    )


def is_there(journal: Path, row: PartRow) -> bool:
    """Its picture has not gone with age."""
    return row.evidence is not None and (journal.parent / row.evidence).is_file()


def has_answered(reader: JournalReader, row: PartRow, by: str) -> bool:
    return row.label is not None and by in by_person(reader.history(row.id))


def answers(journal: Path, number: int, by: str) -> tuple[PartRow, list[Saying]]:
    """The part and what everybody said about it, for one who has answered. Raises UsageError, StorageError."""
    with JournalReader(journal) as reader:
        row = reader.part(number)
        if row is None or not has_answered(reader, row, by):
            raise UsageError(f"{by} has not answered for part {number}: the answers of others are told after one's own")
        return row, [one for one in reader.history(number) if one.is_in_force]


def _waiting(row: PartRow, kind: str) -> Waiting:
    day = datetime.fromtimestamp(row.trigger_utc_ns / 1e9).astimezone().date().isoformat()
    return Waiting(row.id, row.part, row.trigger_utc_ns // 10**6, day, kind)


def _without_repeats(found: Iterable[Waiting]) -> list[Waiting]:
    """The first kind that a part is of counts."""
    return list({one.row: one for one in reversed(list(found))}.values())[::-1]
