"""What waits for the cloud, seen from outside: for the command line, whether sync runs or not.

Reads the files and nothing else; standard library only, so that `spool status` starts at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_runtime.config.paths import JOURNAL
from edge_runtime.core.errors import StorageError
from edge_runtime.recording.database import open_for_reading as open_journal
from edge_runtime.sync.outbox.schema import OUTBOX, NewerOutbox, open_for_reading

LOOK_EVERY_S = 0.2
LOOK_AT = 50  # records among which a small one is chosen


def spool_status(state: Path) -> dict[str, Any]:
    """Counts, age and room of what waits in this state folder. Raises StorageError when there is no outbox to read.

    `unread` are parts of the journal that are not in the outbox yet, `behind` those of them older than what was
    read; `records` are in the outbox, not yet delivered, `live` those of them that came as they happened. `bytes` is
    what the files take, `used_bytes` what counts against `sync.quota_mb`.
    """
    path = state / OUTBOX
    try:
        db = open_for_reading(path) if path.is_file() else None
        if db is None:
            raise StorageError(f"no outbox at {path} yet: `edge-runtime sync` makes it when it starts")
        try:
            found = _read(db)
        finally:
            db.close()
        found["newest_part"], unread = _unread(state / JOURNAL, found["read_to_part"])
        found["unread"] = unread + found["behind"]
    except NewerOutbox as err:
        raise StorageError(f"the outbox {path} is of a newer release ({err}): update this one") from err
    except (sqlite3.Error, ValueError) as err:
        raise StorageError(f"cannot read the outbox {path}: {err}") from err
    found["bytes"] = sum(file.stat().st_size for file in (path, path.with_name(path.name + "-wal")) if file.exists())
    found["sync_runs"] = _is_locked(path.with_suffix(".lock"))
    return found


def _read(db: sqlite3.Connection) -> dict[str, Any]:
    pages, free, size = (
        db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    epoch, waiting = db.execute("SELECT epoch, waiting FROM meta").fetchone()
    last = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'record'").fetchone()
    oldest = db.execute("SELECT seq, payload FROM record ORDER BY seq LIMIT 1").fetchone()
    position = db.execute("SELECT row FROM position WHERE name = 'part'").fetchone()
    return {
        "epoch": epoch,
        "last_seq": last[0] if last else 0,
        "records": waiting,
        "live": db.execute("SELECT count(*) FROM record WHERE lane = 0").fetchone()[0],
        "first_seq": oldest[0] if oldest else None,
        "oldest": json.loads(oldest[1])["time"] if oldest else None,
        "metrics": db.execute("SELECT count(*) FROM record WHERE kind = 'metrics'").fetchone()[0],
        "pictures": db.execute("SELECT count(*) FROM upload").fetchone()[0],
        "used_bytes": (pages - free) * size,
        "behind": db.execute("SELECT coalesce(sum(last - first + 1), 0) FROM behind").fetchone()[0],
        "read_to_part": position[0] if position else 0,
        "aside": _aside(db),
    }


def some_record(state: Path) -> bytes | None:
    """A small one of the records that are not delivered, to show to a broker; None where there is none.

    Raises StorageError.
    """
    path = state / OUTBOX
    try:
        db = open_for_reading(path) if path.is_file() else None
        if db is None:
            return None
        try:
            for table in ("record", "aside"):
                if db.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (table,)).fetchone():
                    first = f"SELECT payload FROM {table} ORDER BY seq LIMIT {LOOK_AT}"
                    if row := db.execute(f"SELECT payload FROM ({first}) ORDER BY length(payload)").fetchone():
                        return bytes(row[0])
            return None
        finally:
            db.close()
    except (sqlite3.Error, NewerOutbox) as err:
        raise StorageError(f"cannot read the outbox {path}: {err}") from err


def _aside(db: sqlite3.Connection) -> dict[str, Any]:
    """What is neither delivered nor waiting: how many and why, and how many were given up for want of room."""
    found: dict[str, Any] = {"refused": 0, "unproven": 0, "reasons": {}, "gone": {}}
    if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'aside'").fetchone():
        return found  # an outbox of an older release that no sync has opened since
    for why, reason, count in db.execute("SELECT why, reason, count(*) FROM aside GROUP BY why, reason"):
        found[why] += count
        if why == "refused":
            found["reasons"][reason] = count
    found["gone"] = dict(db.execute("SELECT why, count FROM aside_gone").fetchall())
    return found


def _unread(journal: Path, position: int) -> tuple[int, int]:
    """The newest part, and how many there are after `position`."""
    if not journal.is_file():
        return 0, 0
    db = open_journal(journal)
    try:
        newest, count = db.execute("SELECT max(id), count(*) FROM part WHERE id > ?", (position,)).fetchone()
        return int(newest or position), int(count)
    finally:
        db.close()


def _is_locked(path: Path) -> bool:
    """Whether a sync holds it. Looking takes a shared lock for a moment, so that two who look do not see each other."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def wait_until_delivered(
    state: Path, timeout_s: float, told: Callable[[dict[str, Any]], None] = lambda status: None
) -> dict[str, Any]:
    """Watch a sync that runs elsewhere until what waits now is delivered, or time is up. Raises StorageError.

    The last status, with `delivered`: whether it is. A line that runs makes new records all the time: those that come
    while this waits are not waited for. told: shown every status.
    """
    limit = time.monotonic() + timeout_s
    status = spool_status(state)
    newest_part, last_seq = status["newest_part"], None
    while True:
        if last_seq is None and status["read_to_part"] >= newest_part and not status["behind"]:
            last_seq = status["last_seq"]
        is_gone = status["first_seq"] is None or (last_seq is not None and status["first_seq"] > last_seq)
        status["delivered"] = last_seq is not None and is_gone
        told(status)
        if status["delivered"] or not status["sync_runs"] or time.monotonic() >= limit:
            return status
        time.sleep(LOOK_EVERY_S)
        status = spool_status(state)
