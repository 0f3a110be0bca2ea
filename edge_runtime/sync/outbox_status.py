"""What waits for the cloud, seen from outside: for the command line, whether sync runs or not.

Reads the files and nothing else; standard library only, so that `spool status` starts at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

from edge_runtime.core.errors import StorageError
from edge_runtime.recording.schema import open_for_reading as open_journal
from edge_runtime.sync.outbox_schema import open_for_reading

OUTBOX, JOURNAL = "outbox.db", "journal.db"
LOOK_EVERY_S = 0.2


def spool_status(state: Path) -> dict[str, Any]:
    """Counts, age and room of what waits in this state folder. Raises StorageError when there is no outbox to read.

    `unread` are parts of the journal that are not in the outbox yet; `records` are in the outbox, not yet delivered.
    """
    path = state / OUTBOX
    if not path.is_file():
        raise StorageError(f"no outbox at {path}: nothing was to be delivered yet (start `edge-runtime sync` first)")
    try:
        db = open_for_reading(path)
        try:
            found = _read(db)
        finally:
            db.close()
        found["unread"] = _unread(state / JOURNAL, found.pop("position")) + found.pop("behind")
    except (sqlite3.Error, ValueError) as err:
        raise StorageError(f"cannot read the outbox {path}: {err}") from err
    found["bytes"] = sum(file.stat().st_size for file in (path, path.with_name(path.name + "-wal")) if file.exists())
    found["sync_runs"] = _is_locked(path.with_suffix(".lock"))
    return found


def _read(db: sqlite3.Connection) -> dict[str, Any]:
    epoch, waiting = db.execute("SELECT epoch, waiting FROM meta").fetchone()
    last = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'record'").fetchone()
    oldest = db.execute("SELECT payload FROM record ORDER BY seq LIMIT 1").fetchone()
    position = db.execute("SELECT row FROM position WHERE name = 'part'").fetchone()
    return {
        "epoch": epoch,
        "last_seq": last[0] if last else 0,
        "records": waiting,
        "oldest": json.loads(oldest[0])["time"] if oldest else None,
        "metrics": db.execute("SELECT count(*) FROM record WHERE kind = 'metrics'").fetchone()[0],
        "pictures": db.execute("SELECT count(*) FROM upload").fetchone()[0],
        "behind": db.execute("SELECT coalesce(sum(last - first + 1), 0) FROM behind").fetchone()[0],
        "position": position[0] if position else 0,
    }


def _unread(journal: Path, position: int) -> int:
    if not journal.is_file():
        return 0
    db = open_journal(journal)
    try:
        return int(db.execute("SELECT count(*) FROM part WHERE id > ?", (position,)).fetchone()[0])
    finally:
        db.close()


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def wait_until_delivered(state: Path, timeout_s: float) -> dict[str, Any]:
    """Watch a sync that runs elsewhere until nothing waits, or time is up; the last status. Raises StorageError."""
    limit = time.monotonic() + timeout_s
    while True:
        status = spool_status(state)
        if not (status["records"] or status["unread"]) or time.monotonic() >= limit:
            return status
        time.sleep(LOOK_EVERY_S)
