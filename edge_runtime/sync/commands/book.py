"""What commands leave behind: how far each key has counted, and the audit. A small SQLite file of its own."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from edge_runtime.core.errors import StorageError
from edge_runtime.recording.database import connect, open_for_reading

log = logging.getLogger(__name__)

AUDIT_ROWS = 100_000  # the oldest go first

_SCHEMA = """
    CREATE TABLE IF NOT EXISTS counter (key TEXT PRIMARY KEY, last INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at TEXT NOT NULL, command TEXT NOT NULL, key TEXT NOT NULL, do TEXT NOT NULL, args TEXT NOT NULL,
        result TEXT NOT NULL, reason TEXT NOT NULL
    );
"""


class CommandBook:
    """Raises StorageError when it cannot be used.

    One thread. A command whose counter cannot be written is not obeyed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = connect(path, in_any_thread=True)
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as err:
            raise StorageError(
                f"cannot open {path}: {err}; commands are refused until it is mended or removed"
            ) from err

    def close(self) -> None:
        self._db.close()

    def advance(self, key: str, counter: int) -> bool:
        """Use up a counter, durably. False when it, or a later one, was used before."""
        try:
            changed = self._db.execute(
                "INSERT INTO counter (key, last) VALUES (?, ?)"
                " ON CONFLICT (key) DO UPDATE SET last = excluded.last WHERE excluded.last > last",
                (key, counter),
            ).rowcount
        except sqlite3.Error as err:
            raise StorageError(f"cannot write {self.path}: {err}") from err
        return changed == 1

    def note(self, row: Mapping[str, str]) -> None:
        """One line of the audit. A full disk costs the line, which the log has too."""
        columns = ("at", "command", "key", "do", "args", "result", "reason")
        try:
            self._db.execute(
                f"INSERT INTO audit ({', '.join(columns)}) VALUES (?, ?, ?, ?, ?, ?, ?)",
                [row.get(column, "") for column in columns],
            )
            self._db.execute("DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?", (AUDIT_ROWS,))
        except sqlite3.Error as err:
            log.error("command.audit %s: %s", self.path, err)

    def newest(self, last: int = 20) -> list[dict[str, Any]]:
        """The last so many lines, the newest last."""
        return _newest(self._db, last)


def read_audit(path: Path, last: int) -> list[dict[str, Any]]:
    """The same, beside a running uplink. Raises StorageError when it cannot be read."""
    if not path.is_file():
        return []
    try:
        with closing(open_for_reading(path)) as db:
            return _newest(db, last)
    except sqlite3.Error as err:
        raise StorageError(f"cannot read {path}: {err}") from err


def _newest(db: sqlite3.Connection, last: int) -> list[dict[str, Any]]:
    cursor = db.execute("SELECT * FROM audit ORDER BY id DESC LIMIT ?", (last,))
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor][::-1]
