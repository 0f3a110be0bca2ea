"""How many records wait or lie aside, by kind, kept with each transaction: what is told when the file is lost."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from edge_runtime.sync.outbox.seal import Last


@dataclass(slots=True)
class Counts:
    """own: made here, no row of the journal stands for them. rows: read from the journal. made: own ones ever numbered
    in this epoch.
    """

    own: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    made: Counter[str] = field(default_factory=Counter)

    def copy(self) -> Counts:
        return Counts(Counter(self.own), Counter(self.rows), Counter(self.made))

    def added(self, kind: str, *, is_own: bool) -> None:
        if is_own:
            self.own[kind] += 1
            self.made[kind] += 1
        else:
            self.rows[kind] += 1

    def gone(self, found: Iterable[tuple[str, int]]) -> int:
        """found: kind, and 1 where it is an own one. Answers how many."""
        number = 0
        for kind, is_own in found:
            (self.own if is_own else self.rows)[kind] -= 1
            number += 1
        return number

    @staticmethod
    def of(db: sqlite3.Connection, made: Mapping[str, int], last: Last | None, waiting: int, last_seq: int) -> Counts:
        """Of the file that was opened; read from it where `last` is not about its newest commit."""
        (aside,) = db.execute("SELECT count(*) FROM aside").fetchone()
        if last and last.seq == last_seq and sum(last.own.values()) + sum(last.rows.values()) == waiting + aside:
            return Counts(Counter(last.own), Counter(last.rows), Counter(made))
        counts = Counts(made=Counter(made))
        for table in ("record", "aside"):
            for kind, is_own, number in db.execute(f"SELECT kind, source IS NULL, count(*) FROM {table} GROUP BY 1, 2"):
                (counts.own if is_own else counts.rows)[kind] += number
        return counts


def lost_since(last: Last | None, made: Mapping[str, int]) -> dict[str, int]:
    """Own records that a database which lost its newest commits cannot know, at most: `made` is what it counted."""
    if last is None:
        return {}
    newer = {kind: number - made.get(kind, 0) for kind, number in last.made.items()}
    return {kind: min(number, last.own.get(kind, 0)) for kind, number in newer.items() if number > 0}
