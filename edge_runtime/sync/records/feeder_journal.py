"""The journal as the feeder reads it: what is new since a row, and what became of rows that were still open.

Read-only, a few short queries, no transaction held: the journal's writer never waits, and its log can be cut back.
Standard library and SQL only. Raises StorageError when there is nothing that can be read.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edge_runtime.core.clock import SECOND, Clock
from edge_runtime.core.errors import StorageError
from edge_runtime.core.files import identity_of
from edge_runtime.recording.going_back import journal_identity
from edge_runtime.recording.pruned import count_pruned
from edge_runtime.recording.schema import VERSION, open_for_reading
from edge_runtime.sync.records.feeder_place import COLUMNS, print_of

LOOK_NS = SECOND // 2  # between looks at whether the file is still the one that is open
IN_ONE_QUERY = 400  # row numbers in one IN (...); SQLite takes 999

Row = dict[str, Any]


class JournalTail:
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
        (version,) = self._query("PRAGMA user_version").fetchone()
        if version != VERSION:
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

    # -- what is new --------------------------------------------------------------------------------------------------

    def newest(self, table: str) -> int:
        with self._told():
            return int(self._query(f"SELECT max(id) FROM {table}").fetchone()[0] or 0)

    def oldest(self, table: str) -> int:
        """The first row that retention has left; 0 in an empty table."""
        with self._told():
            return int(self._query(f"SELECT min(id) FROM {table}").fetchone()[0] or 0)

    def after(self, table: str, row: int, limit: int) -> list[Row]:
        """The next rows of `run`, `event` or `loss`."""
        return self._rows(f"SELECT * FROM {table} WHERE id > ? ORDER BY id LIMIT ?", (row, limit))

    def parts(self, first: int, last: int, limit: int) -> list[Row]:
        """The next parts from row `first` to row `last`, with the names of view `ledger`."""
        return self._rows("SELECT * FROM ledger WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?", (first, last, limit))

    def pruned(self, table: str, first: int, last: int) -> int:
        """How many of these row numbers retention took."""
        with self._told():
            if self._db is None:
                self._open()
            assert self._db is not None
            return count_pruned(self._db, table, first, last)

    # -- is it still what was read ------------------------------------------------------------------------------------

    def given(self) -> dict[str, int]:
        """The highest row number that each table ever gave, whatever retention took since."""
        with self._told():
            return {str(name): int(seq) for name, seq in self._query("SELECT name, seq FROM sqlite_sequence")}

    def prints(self, table: str, rows: Sequence[int]) -> dict[int, str]:
        """What identifies these rows; without those that are not there."""
        found = self._of(f"SELECT id, {', '.join(COLUMNS[table])} FROM {table}", rows)
        return {row["id"]: print_of(table, row) for row in found}

    def told_of(self, journal: str) -> Row | None:
        """What the journal's own event says of the one of that name, which it replaced or was before it went back."""
        query = "SELECT detail FROM event WHERE kind IN ('journal.set_aside', 'journal.went_back') ORDER BY id DESC"
        for row in self._rows(f"{query} LIMIT 20", ()):
            with suppress(ValueError, TypeError, AttributeError):
                detail = json.loads(row["detail"])
                if detail.get("journal") == journal:
                    return dict(detail)
        return None

    # -- what became of it --------------------------------------------------------------------------------------------

    def part_states(self, rows: Sequence[int]) -> list[Row]:
        """id, verdict, cause, recovered, outcome, evidence: enough to see whether a part has changed."""
        return self._of("SELECT id, verdict, cause, recovered, outcome, evidence FROM part", rows)

    def whole_parts(self, rows: Sequence[int]) -> list[Row]:
        return self._of("SELECT * FROM ledger", rows)

    def run_states(self, rows: Sequence[int]) -> list[Row]:
        return self._of("SELECT id, ended FROM run", rows)

    def runs(self, rows: Sequence[int]) -> list[Row]:
        return self._of("SELECT * FROM run", rows)

    def part_named(self, boot_id: int, part_id: int) -> Row | None:
        """The newest part to which the controller gave this name."""
        query = "SELECT * FROM ledger WHERE boot_id = ? AND part_id = ? ORDER BY run DESC LIMIT 1"
        return next(iter(self._rows(query, (boot_id, part_id))), None)

    def _of(self, select: str, rows: Sequence[int]) -> list[Row]:
        found = []
        for at in range(0, len(rows), IN_ONE_QUERY):
            some = rows[at : at + IN_ONE_QUERY]
            found += self._rows(f"{select} WHERE id IN ({','.join('?' * len(some))})", some)
        return found

    # -- SQLite -------------------------------------------------------------------------------------------------------

    def _rows(self, query: str, values: Sequence[Any]) -> list[Row]:
        with self._told():
            cursor = self._query(query, values)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def _name(self) -> str:
        if self._db is None:
            self._open()
        assert self._db is not None
        return journal_identity(self._db)

    def _query(self, query: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        if self._db is None:
            self._open()
        assert self._db is not None
        return self._db.execute(query, values)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as err:
            if not self.is_former:  # of that, other rows may still be readable
                self.close()
            raise StorageError(f"cannot read the journal {self.path}: {err}") from err
