"""What one turn of the feeder found, before it is committed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from edge_runtime.sync.outbox.place import Place
from edge_runtime.sync.records.format import Draft
from edge_runtime.sync.records.places import Row, Seen, print_of


@dataclass(frozen=True, slots=True)
class Told:
    """What was said of a part so far. revision: of its decision, -1 before the first."""

    revision: int = -1
    verdict: str = ""
    outcome: str = "unknown"
    picture: bool = False

    def text(self) -> str:
        return json.dumps([self.revision, self.verdict, self.outcome, self.picture])

    @staticmethod
    def of(text: str) -> Told:
        return Told(*json.loads(text))


@dataclass(slots=True)
class Batch:
    """positions, seen: by table. opened, closed: parts that may still change, and those that cannot any more."""

    drafts: list[Draft] = field(default_factory=list)
    pictures: list[tuple[str, str, str]] = field(default_factory=list)  # file, part, verdict
    positions: dict[str, int] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)
    opened: dict[int, Told] = field(default_factory=dict)
    closed: set[int] = field(default_factory=set)
    runs_opened: set[int] = field(default_factory=set)
    runs_closed: set[int] = field(default_factory=set)
    behind: list[tuple[int, int]] | None = None

    def __bool__(self) -> bool:
        return bool(self.drafts or self.pictures or self.positions or self.opened or self.closed or self.runs_closed)

    def reach(self, table: str, row: Row) -> None:
        """The table was read up to this row."""
        self.positions[table] = row["id"]
        self.seen[table] = row["id"], print_of(table, row)

    def store(self, place: Place) -> None:
        """What may still change, and what is left for later. Inside a transaction."""
        place.close_rows([("part", row) for row in self.closed] + [("run", row) for row in self.runs_closed])
        opened = {("part", row): told.text() for row, told in self.opened.items()}
        place.keep_open(opened | {("run", row): "" for row in self.runs_opened})
        if self.behind is not None:
            place.leave_behind(self.behind)
