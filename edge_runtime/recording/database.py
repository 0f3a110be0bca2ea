"""An SQLite file of the box: opened for writing or for reading, locked, brought to its present version, set aside.

WAL mode: readers never block the writer, and a power cut costs at most the transaction in flight. synchronous=FULL
syncs at each commit: a commit that returned is on the medium. What a file holds is its owner's: a tuple of scripts, one
per version; a file at version n gets scripts n, n+1, ... and a script that was released is never edited.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from edge_runtime.core.clock import SECOND
from edge_runtime.core.custody import custody_of

BUSY_WAIT_S = 2.0  # for another program's short write; longer is told in health and retried
WAL_LIMIT_BYTES = 16 * 1024 * 1024  # a reader that holds an old view makes the log grow; cut back to this
COMPANIONS = ("-wal", "-shm")


class NewerSchema(Exception):
    """The file was written by a newer version of the product; this one must not touch it."""


# -- open --------------------------------------------------------------------------------------------------------------


def connect(path: Path, *, in_any_thread: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode; the file is made if need be. in_any_thread: its user takes turns by itself.

    Raises sqlite3.Error.
    """
    return sqlite3.connect(path, timeout=BUSY_WAIT_S, isolation_level=None, check_same_thread=not in_any_thread)


def open_for_writing(path: Path, migrations: Sequence[str]) -> sqlite3.Connection:
    """The file at `path`, made or brought to the present version, in autocommit mode.

    Raises sqlite3.Error or NewerSchema.
    """
    connection = connect(path)
    try:
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
        migrate(connection, migrations)
    except BaseException:
        connection.close()
        raise
    return connection


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A view that cannot write. Raises sqlite3.Error when there is nothing that can be read.

    A closed file in a folder that is not ours to write needs `immutable`, because WAL wants a shared-memory file.
    That is safe only while nobody writes, and then there is no `-wal` file.
    """
    uri = path.absolute().as_uri()
    connection = sqlite3.connect(f"{uri}?mode=ro", uri=True, timeout=BUSY_WAIT_S, isolation_level=None)
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        if not path.is_file() or path.with_name(path.name + "-wal").exists():
            raise
        connection = sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True, isolation_level=None)
    return connection


# -- migrate -----------------------------------------------------------------------------------------------------------


def version_of(connection: sqlite3.Connection) -> int:
    """Of the tables in the file; 0 where there are none yet."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: sqlite3.Connection, migrations: Sequence[str]) -> None:
    """Bring the tables to the present version, one transaction a version. The connection is in autocommit mode."""
    version = version_of(connection)
    if version > len(migrations):
        raise NewerSchema(f"schema version {version}, this program knows {len(migrations)}")
    for number, script in enumerate(migrations[version:], version + 1):
        try:
            connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


# -- lock --------------------------------------------------------------------------------------------------------------


class FileLock:
    """One writer of one file: a lock in a file beside it, which the system frees when its holder dies."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_suffix(".lock")
        self._descriptor: int | None = None

    def take(self) -> None:
        """Harmless when it is held here already. Raises BlockingIOError while somebody else has it, OSError."""
        if self._descriptor is not None:
            return
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            with suppress(OSError):  # root's lock would keep the service out; some file systems know no owners
                custody_of(self._path.parent).take_open(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def free(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


# -- set aside ---------------------------------------------------------------------------------------------------------


def set_aside(path: Path, what: str, now_utc_ns: int) -> str:
    """Rename a database and its companions, and answer the new name. Raises OSError."""
    stamp = datetime.fromtimestamp(now_utc_ns // SECOND, UTC).strftime("%Y%m%dT%H%M%SZ")
    aside = free_name(path.with_name(f"{path.stem}.{what}-{stamp}{path.suffix}"))
    for suffix in (*COMPANIONS, ""):
        source = path.with_name(path.name + suffix)
        if source.exists():
            source.rename(aside.with_name(aside.name + suffix))
    return aside.name


def free_name(path: Path) -> Path:
    """`path`, or with a number where that is taken: what was set aside before is not overwritten."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free
