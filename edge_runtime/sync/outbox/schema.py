"""The outbox file: its tables, and how it is opened.

One file of its own beside the journal, because the writer of the journal must never wait for us. WAL and
synchronous=FULL: a sequence number that was seen outside must never be given to another record, so a record is on the
medium before it is sent.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

OUTBOX = "outbox.db"  # in the state folder
BUSY_WAIT_S = 2.0
WAL_LIMIT_BYTES = 16 * 1024 * 1024

# One script per version; a file at version n gets scripts n, n+1, ... Never edit one that was released.
MIGRATIONS = (
    """
    CREATE TABLE meta (
        epoch TEXT NOT NULL,                  -- drawn when this file was made: sequence numbers count within it
        journal TEXT NOT NULL DEFAULT '',     -- which journal the positions below belong to
        waiting INTEGER NOT NULL DEFAULT 0    -- rows in `record`: counting them would read the whole file
    );
    CREATE TABLE record (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,-- never given twice, even when the table was empty in between
        lane INTEGER NOT NULL,                -- 0 as it happened, 1 from long ago
        kind TEXT NOT NULL,
        source INTEGER,                       -- row of the journal's table for this kind; NULL: made here
        crc INTEGER NOT NULL,                 -- CRC-32 of payload: SQLite does not notice a flipped bit in a value
        payload BLOB NOT NULL                 -- the JSON as it is sent
    );
    CREATE INDEX record_live ON record (seq) WHERE lane = 0;
    CREATE INDEX record_metrics ON record (seq) WHERE kind = 'metrics';
    CREATE TABLE position (                   -- how far each table of the journal was read
        name TEXT PRIMARY KEY,
        row INTEGER NOT NULL
    );
    CREATE TABLE behind (                     -- parts that are read when there is time: first to last row
        first INTEGER PRIMARY KEY,
        last INTEGER NOT NULL
    );
    CREATE TABLE open_row (                   -- rows of the journal that may still change, and what was told of them
        name TEXT NOT NULL,                   -- part | run
        row INTEGER NOT NULL,
        told TEXT NOT NULL,
        PRIMARY KEY (name, row)
    ) WITHOUT ROWID;
    CREATE TABLE upload (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        file TEXT NOT NULL UNIQUE,            -- relative to the state folder
        part TEXT NOT NULL,
        verdict TEXT NOT NULL,
        asked INTEGER NOT NULL DEFAULT 0,     -- 1: somebody waits for it, neither quota nor hours hold it back
        size INTEGER NOT NULL DEFAULT 0,      -- 0: not looked at yet
        sha256 TEXT NOT NULL DEFAULT '',
        acked INTEGER NOT NULL DEFAULT 0,     -- bytes the far side has
        attempts INTEGER NOT NULL DEFAULT 0
    );
    INSERT INTO meta (epoch) VALUES ('{epoch}');
    """,
    """
    ALTER TABLE meta ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;         -- change time of outbox.seal; 0: never sealed
    ALTER TABLE meta ADD COLUMN machine TEXT NOT NULL DEFAULT '{}';      -- where it was written: JSON, core/machine.py
    ALTER TABLE meta ADD COLUMN made TEXT NOT NULL DEFAULT '{}';         -- JSON: records made here, numbered, by kind
    ALTER TABLE meta ADD COLUMN journal_again INTEGER NOT NULL DEFAULT 0;-- how often that journal went back
    CREATE TABLE seen (                       -- rows of the journal that were read, to know it by when it went back
        name TEXT NOT NULL,
        row INTEGER NOT NULL,
        print TEXT NOT NULL,
        PRIMARY KEY (name, row)
    ) WITHOUT ROWID;
    CREATE TABLE aside (                      -- records that are neither delivered nor waiting
        seq INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        source INTEGER,
        crc INTEGER NOT NULL,
        payload BLOB NOT NULL,                -- all as in `record`
        why TEXT NOT NULL,                    -- refused | unproven
        reason TEXT NOT NULL,                 -- in words
        at_utc_ns INTEGER NOT NULL
    );
    CREATE INDEX aside_why ON aside (why, seq);
    CREATE TABLE aside_gone (                 -- how many of them were given up for want of room
        why TEXT PRIMARY KEY,
        count INTEGER NOT NULL
    );
    """,
)
VERSION = len(MIGRATIONS)


class DamagedRecord(sqlite3.DatabaseError):
    """A record is not what was written: the file cannot be trusted."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


class NewerOutbox(Exception):
    """The file was written by a newer version of the product; this one must not touch it."""


def open_outbox(path: Path, epoch: str) -> sqlite3.Connection:
    """The outbox at `path`; a new file gets `epoch`, hex digits. Raises sqlite3.Error or NewerOutbox."""
    connection = sqlite3.connect(path, timeout=BUSY_WAIT_S, isolation_level=None)
    try:
        _prepare(connection, epoch)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, epoch: str) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    _refuse_newer(version)
    if version == 0:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # room is given back after weeks without a network
    connection.execute("PRAGMA journal_mode = WAL").fetchone()
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        tables = script.replace("{epoch}", epoch)
        try:
            connection.executescript(f"BEGIN IMMEDIATE; {tables}; PRAGMA user_version = {number}; COMMIT;")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _refuse_newer(version: int) -> None:
    if version > VERSION:
        raise NewerOutbox(f"schema version {version}, this program knows {VERSION}")


def open_for_reading(path: Path) -> sqlite3.Connection | None:
    """A view that cannot write, for the command line; None while the file has no tables yet.

    Raises sqlite3.Error or NewerOutbox.
    """
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_WAIT_S, isolation_level=None)
    try:
        version, tables = db.execute(
            "SELECT (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema)"
        ).fetchone()
        _refuse_newer(version)
    except BaseException:
        db.close()
        raise
    if not tables:
        db.close()
        return None
    return db
