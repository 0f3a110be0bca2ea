"""What a run could not write: how many parts it is about, and the last words that the next start counts in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from edge_runtime.core.messages import Event, OperatorRequest, PartKey
from edge_runtime.recording.high_water import LastWords
from edge_runtime.recording.inbox import Lost
from edge_runtime.recording.records import KINDS, Decided, Record
from edge_runtime.recording.wall_clock import WallClock


def count_unwritten(waiting: Iterable[Record], lost: Mapping[str, int]) -> int:
    """Parts of which a record waits, or for whose trigger or decision there was no room."""
    return len(_parts(waiting)) + max(lost.get("trigger", 0), lost.get("decision", 0))


def last_words(
    run: int, waiting: Sequence[Record], losses: Mapping[tuple[str, str], Lost], wall: WallClock
) -> LastWords:
    """Of records in memory, and of counts of lost ones that are not written either."""
    records = Counter(KINDS[type(record)] for record in waiting)
    lost = Counter[str]()
    for (what, _), some in losses.items():
        lost[what] += some.count
    now = wall.monotonic()
    times = [now, *(lost.first_ns for lost in losses.values()), *(at for at in map(_moment, waiting) if at)]
    return LastWords(
        run, count_unwritten(waiting, lost), dict(records + lost), wall.utc(min(times)), wall.utc(max(times))
    )


def _parts(records: Iterable[Record]) -> set[PartKey]:
    keys = set()
    for record in records:
        if isinstance(record, Decided):
            keys.add(record.decision.key)
        elif not isinstance(record, Event | OperatorRequest):
            keys.add(record.key)
    return keys


def _moment(record: Record) -> int | None:
    if isinstance(record, Decided):
        return record.decision.decided_ns
    return getattr(record, "at_ns", None)
