"""What is said of a part, and what was said of those that may still change.

A part is one row of the journal that fills up over a few seconds. It is looked at until its outcome is known; each
change becomes a record (decision, decision revised, outcome). A part that `OPEN_PARTS` younger ones have passed gets
the outcome `unknown`: counts of decisions and outcomes add up in the cloud, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from edge_runtime.core.clock import SECOND
from edge_runtime.recording.wall_clock import WallClock
from edge_runtime.sync.records.batch import Batch, Told
from edge_runtime.sync.records.format import LIVE, Row, decision_record, outcome_record, part_name

OPEN_PARTS = 1024  # between photo-eye and gate are some 20, a controller's ring holds at most 256
LINGER_NS = 10 * SECOND  # a finished part's picture may be written this much later


class Parts:
    """pictures_of: verdicts whose pictures are to be uploaded."""

    def __init__(self, wall: WallClock, pictures_of: Collection[str] = frozenset()) -> None:
        self._wall = wall
        self._pictures_of = frozenset(pictures_of)
        self.open: dict[int, Told] = {}
        self._finished_ns: dict[int, int] = {}

    def load(self, told: Mapping[int, str]) -> None:
        """What was said, as it was stored with the place in the journal."""
        self.open = {row: Told.of(text) for row, text in told.items()}
        self._finished_ns.clear()

    def committed(self, batch: Batch) -> None:
        for row in batch.closed:
            self.open.pop(row, None)
            self._finished_ns.pop(row, None)
        self.open |= batch.opened

    def due(self, states: Iterable[Row], newest: int) -> tuple[list[int], set[int]]:
        """Open parts of which there is something to say, and those that are no longer there. states: of open parts."""
        now, known = self._wall.monotonic(), {row["id"]: row for row in states}
        there = {number: told for number, told in self.open.items() if number in known}
        changed = [number for number, told in there.items() if self._is_due(number, known[number], told, newest, now)]
        return changed, self.open.keys() - there.keys()

    def tell(self, batch: Batch, row: Row, lane: int, newest: int) -> None:
        """Say of this part what was not said yet, and whether to keep an eye on it. newest: of the parts read."""
        number, now = row["id"], self._wall.monotonic()
        said = told = self.open.get(number, Told())
        if row["verdict"] is not None and _signature(row) != told.verdict:
            said = replace(said, revision=said.revision + 1, verdict=_signature(row))
            batch.drafts.append(decision_record(row, said.revision, lane))
        is_old = number < newest - OPEN_PARTS and row["verdict"] is not None
        if row["outcome"] != told.outcome or (is_old and row["outcome"] == "unknown"):
            said = replace(said, outcome=row["outcome"])
            batch.drafts.append(outcome_record(row, lane))
        if row["evidence"] and not told.picture:
            said = replace(said, picture=True)
            if row["verdict"] in self._pictures_of:
                batch.pictures.append((row["evidence"], part_name(row["boot_id"], row["part_id"]), row["verdict"]))
        has_lingered = now - self._finished_ns.get(number, now) >= LINGER_NS
        waits_for_picture = bool(self._pictures_of) and lane == LIVE and not (said.picture or has_lingered)
        is_over = _is_finished(row) and not waits_for_picture
        if is_old or is_over:
            batch.closed.add(number)
            batch.opened.pop(number, None)
        elif said != told or number not in self.open:
            batch.opened[number] = said

    def tell_unknown(self, batch: Batch, rows: Iterable[Row]) -> None:
        """Nobody will ever know the outcome of these."""
        for row in rows:
            self.tell(batch, row, LIVE, row["id"] + OPEN_PARTS + 1)

    def _is_due(self, number: int, state: Row, told: Told, newest: int, now: int) -> bool:
        """Whether there is something to say about this part, or no longer anything to wait for."""
        if (
            _signature(state) != told.verdict
            or state["outcome"] != told.outcome
            or bool(state["evidence"]) != told.picture
        ):
            return True
        if _is_finished(state):
            return now - self._finished_ns.setdefault(number, now) >= LINGER_NS
        return number < newest - OPEN_PARTS and state["verdict"] is not None


def _signature(row: Row) -> str:
    return "" if row["verdict"] is None else f"{row['verdict']}|{row['cause']}|{row['recovered']}"


def _is_finished(row: Row) -> bool:
    return row["verdict"] is not None and row["outcome"] != "unknown"
