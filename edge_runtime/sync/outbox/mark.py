"""What survives the loss of the outbox: a few numbers in a file beside it.

The journal still has what the outbox held, so a lost or damaged outbox costs nothing but repetition: a new one begins
to read the journal where everything before was delivered. Written every few seconds and replaced whole.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from edge_runtime.core.files import write_atomic
from edge_runtime.sync.outbox.place import Place
from edge_runtime.sync.outbox.queue import Queue
from edge_runtime.sync.records.format import Kind

MARK_ROWS = 10_000  # records looked through for the first ones that were not delivered


@dataclass(frozen=True, slots=True)
class Mark:
    """`delivered`: for each table of that journal, the row up to which all was delivered."""

    epoch: str
    journal: str
    delivered: Mapping[str, int] = field(default_factory=dict)


def mark_file(outbox: Path) -> Path:
    return outbox.with_suffix(".mark")


def read_mark(outbox: Path) -> Mark | None:
    """None where there is none, or none that makes sense: then the journal is read from its beginning."""
    try:
        found = json.loads(mark_file(outbox).read_text())
        delivered = {str(name): int(row) for name, row in found["delivered"].items()}
        return Mark(str(found["epoch"]), str(found["journal"]), delivered)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_mark(outbox: Path, mark: Mark) -> None:
    """Raises OSError; the old mark is still good then, and merely means more repetition."""
    write_atomic(mark_file(outbox), json.dumps(asdict(mark)), sync_folder=False)


def take_mark(outbox: Queue) -> Mark:
    """Up to where all is delivered of what was read, and of what may still change."""
    place = Place(outbox)
    delivered = place.rows()
    delivered |= {table: row - 1 for table, row in _first_undelivered(outbox.db).items()}
    for table, first in place.unfinished():
        delivered[table] = min(delivered.get(table, 0), first - 1)
    return Mark(outbox.epoch, place.journal(), delivered)


def _first_undelivered(db: sqlite3.Connection) -> dict[str, int]:
    tables: dict[str, int] = {}
    for where in ("record", "aside"):
        query = f"SELECT kind, min(source) FROM (SELECT kind, source FROM {where} ORDER BY seq LIMIT ?)"
        for kind, source in db.execute(f"{query} WHERE source IS NOT NULL GROUP BY kind", (MARK_ROWS,)):
            table = Kind(kind).table
            tables[table] = min(source, tables.get(table, source))
    return tables
