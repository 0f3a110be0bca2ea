"""The journal's file as the uplink has it open: is it still the one under its name, and what became of the one before.

Read-only, a few short queries, no transaction held: the journal's writer never waits, and its log can be cut back.
Standard library and SQL only. Raises StorageError when there is nothing that can be read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edge_runtime.core.clock import SECOND, Clock
from edge_runtime.core.errors import StorageError
from edge_runtime.core.files import identity_of
from edge_runtime.recording.database import open_for_reading, version_of
from edge_runtime.recording.going_back import journal_identity
from edge_runtime.recording.pruned import count_pruned
from edge_runtime.recording.schema import SEEN_AS_PRESENT, VERSION

LOOK_NS = SECOND // 2  # between looks at whether the file is still the one that is open

Row = dict[str, Any]


class JournalFile:
    """One journal file, reopened when it is replaced. Used by one thread.

    A journal that was deleted, or set aside for another one, is still open here: it is read to its end before it is let
    go (`is_former`).
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._companions: tuple[tuple[int, int] | None, ...] = ()
        self._had_writer = False
        self._looked_ns = 0
        self._version = -1  # SQLite's data_version at the last read
        self.identity = ""  # names this journal: drawn from its first run
        self._is_present = True  # it was of the present version when it was opened: it has all tables
        self.is_former = False  # what is open here no longer lies under the journal's name
        self._former_since_ns = 0
        self._is_aside = False  # it was opened under another name

    def close(self) -> None:
        connection, self._db = self._db, None
        self.is_former = self._is_aside = False
        if connection:
            connection.close()

    def has_news(self) -> bool:
        """Whether something was committed since the last call. Costs 10 us. Raises StorageError."""
        if self._db is not None and self._clock() - self._looked_ns >= LOOK_NS:
            self._look_at_file()
        with self._told():
            if self._db is None:
                self._open()
            (version,) = self._query("PRAGMA data_version").fetchone()
            before, self._version = self._version, int(version)
            if before != self._version:
                self.identity = self._name() or self.identity
        return before != self._version

    def _look_at_file(self) -> None:
        """The file was replaced, or nobody writes: SQLite opens such a file in ways that would not see a new writer."""
        self._looked_ns = self._clock()
        if self._is_aside:
            return
        if identity_of(self.path) == self._file:
            if not (self._had_writer and self._has_writer()) or self._companion_files() != self._companions:
                self.close()  # log and shared memory that were replaced never tell what is new
        elif self._name_of_file() == self.identity:
            self.close()  # the same rows in another file
        elif not self.is_former:
            self.is_former, self._former_since_ns = True, self._clock()

    def _name_of_file(self) -> str:
        """Which journal lies under the name now; empty where none can be read."""
        with suppress(sqlite3.Error, StorageError):
            db = open_for_reading(self.path)
            try:
                return journal_identity(db)
            finally:
                db.close()
        return ""

    def may_let_go(self, quiet_ns: int) -> bool:
        """Whether the former journal has a successor, and nobody can be writing into it any more."""
        if self._is_aside:
            return True
        return self._clock() - self._former_since_ns >= quiet_ns and self._name_of_file() != ""

    def open_former(self, path: Path) -> None:
        """Read what was set aside, until `close`. Raises StorageError."""
        self.close()
        with self._told():
            self._db = open_for_reading(path)
            self._is_present = version_of(self._db) == VERSION
            self.identity = self._name()
        self.is_former, self._is_aside, self._version = True, True, -1
        self._looked_ns = self._clock()

    def _has_writer(self) -> bool:
        return self.path.with_name(self.path.name + "-wal").exists()

    def _companion_files(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(identity_of(self.path.with_name(self.path.name + end)) for end in ("-wal", "-shm"))

    def _open(self) -> None:
        if not self.path.is_file():
            raise StorageError(f"no journal at {self.path} yet: nothing was recorded there")
        self._file, self._looked_ns, self._had_writer = identity_of(self.path), self._clock(), self._has_writer()
        self._db = open_for_reading(self.path)
        self._version = -1
        version = version_of(self._db)
        self._is_present = version == VERSION
        if not self._is_present and version not in SEEN_AS_PRESENT:
            self.close()
            raise StorageError(
                f"journal {self.path} has schema version {version}, this program reads {VERSION}: "
                "run the same version of edge-runtime for run and sync"
            )
        self.identity = self._name()
        self._companions = self._companion_files()
        if not self.identity:
            self.close()
            raise StorageError(f"no run is recorded in {self.path} yet")

    # -- SQLite -------------------------------------------------------------------------------------------------------

    def has(self, table: str) -> bool:
        """Whether there is such a table: journals of earlier versions lack some."""
        return self._is_present or bool(self.rows("SELECT 1 FROM sqlite_schema WHERE name = ?", (table,)))

    def rows(self, query: str, values: Sequence[Any]) -> list[Row]:
        with self._told():
            cursor = self._query(query, values)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def _name(self) -> str:
        return journal_identity(self._opened())

    def one(self, query: str) -> int:
        """The first value of the first row; 0 for null."""
        with self._told():
            return int(self._query(query).fetchone()[0] or 0)

    def pairs(self, query: str) -> dict[str, int]:
        with self._told():
            return {str(name): int(number) for name, number in self._query(query)}

    def pruned(self, table: str, first: int, last: int) -> int:
        """How many of these row numbers retention took."""
        with self._told():
            return count_pruned(self._opened(), table, first, last)

    def _query(self, query: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        return self._opened().execute(query, values)

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            self._open()
        assert self._db is not None
        return self._db

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as err:
            if not self.is_former:  # of that, other rows may still be readable
                self.close()
            raise StorageError(f"cannot read the journal {self.path}: {err}") from err
