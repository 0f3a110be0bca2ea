"""All that waits gets new numbers in a new epoch, inside one transaction.

A file that was copied, or that lost its newest commits, does not know which numbers were seen outside. What waits in it
is still true and was perhaps never sent, so it is kept, under names that nobody has used.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from array import array
from collections.abc import Iterator

from edge_runtime.sync.outbox.schema import DamagedRecord
from edge_runtime.sync.records.format import Kind

ROWS = 500  # read and written at a time
TABLES = ("record", "aside")  # where numbered records lie


def renumber(db: sqlite3.Connection, before: str, epoch: str, room: int) -> int:
    """Give the records numbers `room + 1`, `room + 2`, ... in `epoch`. Inside a transaction.

    before: the epoch that their numbers were of. Answers the highest number that is now taken. Raises DamagedRecord.
    """
    highest = room
    for table in TABLES:
        highest = _renumber_table(db, table, before, epoch, highest)
    db.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'record'", (highest,))
    return highest


def _renumber_table(db: sqlite3.Connection, table: str, before: str, epoch: str, room: int) -> int:
    seqs = array("q", (seq for (seq,) in db.execute(f"SELECT seq FROM {table} ORDER BY seq")))
    for some in _moves(seqs, room):
        moved = []
        for old, new in some:
            query = f"SELECT kind, crc, payload FROM {table} WHERE seq = ?"
            kind, crc, payload = db.execute(query, (old,)).fetchone()
            if not isinstance(payload, bytes) or zlib.crc32(payload) != crc:
                raise DamagedRecord(f"record {old} is not what was written")
            renamed = _renamed(payload, kind, before, epoch, new)
            moved.append((new, zlib.crc32(renamed), renamed, old))
        db.executemany(f"UPDATE {table} SET seq = ?, crc = ?, payload = ? WHERE seq = ?", moved)
    return room + len(seqs)


def _moves(seqs: array[int], room: int) -> Iterator[list[tuple[int, int]]]:
    """(old, new) in an order in which no new number is still taken: those that move up from the end, then the rest."""
    upwards = 0
    while upwards < len(seqs) and seqs[upwards] < room + upwards + 1:
        upwards += 1
    order = [*range(upwards - 1, -1, -1), *range(upwards, len(seqs))]
    for at in range(0, len(order), ROWS):
        yield [(seqs[index], room + index + 1) for index in order[at : at + ROWS]]


def _renamed(payload: bytes, kind: str, before: str, epoch: str, seq: int) -> bytes:
    record = json.loads(payload)
    record["epoch"], record["seq"] = epoch, seq
    data = record["data"]
    if kind == Kind.EPOCH or data.get("seqs"):
        data.setdefault("epoch", before)  # it speaks of that one
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
