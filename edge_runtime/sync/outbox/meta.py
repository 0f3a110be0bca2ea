"""What the outbox's file says of itself: one row, beside the number that SQLite counts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from edge_runtime.core.machine import Machine
from edge_runtime.sync.outbox.schema import DamagedRecord


@dataclass(frozen=True, slots=True)
class Meta:
    """seal: stamp of the seal that belongs to it. made: records made here, numbered in this epoch, by kind. machine:
    where it was written. last_seq: the newest number that was given.
    """

    epoch: str
    waiting: int
    seal: int
    made: Mapping[str, int]
    machine: Machine
    last_seq: int


def read_meta(db: sqlite3.Connection) -> Meta:
    """Raises DamagedRecord where it contradicts itself."""
    meta = db.execute("SELECT epoch, waiting, seal, made, machine FROM meta").fetchone()
    highest = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'record'").fetchone()
    newest = db.execute("SELECT max(seq) FROM record").fetchone()[0] or 0
    if meta is None or newest > (highest[0] if highest else 0):
        raise DamagedRecord("the outbox contradicts itself")
    try:
        made, written_on = json.loads(meta[3]), json.loads(meta[4])
        machine = {str(name): tuple(map(str, values)) for name, values in written_on.items()}
    except (ValueError, TypeError, AttributeError) as err:
        raise DamagedRecord(f"the outbox is not what was written: {err}") from err
    return Meta(str(meta[0]), int(meta[1]), int(meta[2]), made, machine, int(highest[0]) if highest else 0)


def write_machine(db: sqlite3.Connection, machine: Machine) -> None:
    """Inside a transaction."""
    db.execute("UPDATE meta SET machine = ?", (json.dumps(machine),))
