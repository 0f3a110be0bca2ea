"""The journal's file: tables, their versions, and how to open it for writing and for reading.

SQLite in WAL mode: readers never block the writer, and a power cut costs at most the transaction in flight.
synchronous=FULL syncs at each commit; a commit that returned is on the medium. Times named `*_ns` are monotonic and
mean something within one `run`; `*_utc_ns` are nanoseconds since 1970.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from edge_runtime.recording.pruned import TABLE as PRUNED

BUSY_WAIT_S = 2.0  # for another program's short write, such as a label; longer is told in health and retried
WAL_LIMIT_BYTES = 16 * 1024 * 1024  # a reader that holds an old view makes the log grow; cut back to this

# One script per version; a file at version n gets scripts n, n+1, ... Never edit one that was released.
MIGRATIONS = (
    """
    CREATE TABLE run (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        started_ns INTEGER NOT NULL,
        started_utc_ns INTEGER NOT NULL,
        time_quality TEXT NOT NULL,
        machine_boot TEXT NOT NULL,           -- kernel's boot id: *_ns compare between runs of one boot
        stopped_utc_ns INTEGER,
        ended TEXT NOT NULL DEFAULT 'open',   -- open | clean | crashed
        config TEXT NOT NULL,                 -- effective configuration, JSON
        config_digest TEXT NOT NULL,
        model TEXT NOT NULL,
        model_digest TEXT NOT NULL,
        versions TEXT NOT NULL                -- JSON: runtime, python, libraries
    );
    CREATE TABLE model (
        id INTEGER PRIMARY KEY,
        label TEXT NOT NULL,                  -- name@version
        digest TEXT NOT NULL,
        UNIQUE (label, digest)
    );
    CREATE TABLE part (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        run INTEGER NOT NULL,
        boot_id INTEGER NOT NULL,
        part_id INTEGER NOT NULL,
        encoder INTEGER,                      -- NULL: the trigger itself was lost
        trigger_ns INTEGER NOT NULL,
        trigger_utc_ns INTEGER NOT NULL,
        time_quality TEXT NOT NULL,
        captured_ns INTEGER,
        decided_ns INTEGER,
        verdict TEXT,                         -- NULL only while the part is on its way
        cause TEXT,
        reason TEXT,
        score REAL,
        model INTEGER,
        recovered INTEGER NOT NULL DEFAULT 0, -- 1: closed by the next start, nobody decided
        outcome TEXT NOT NULL DEFAULT 'unknown',
        outcome_encoder INTEGER,
        outcome_ns INTEGER,
        timings_ms TEXT,                      -- JSON: stage -> ms
        regions TEXT,                         -- JSON: [[x, y, w, h, score, label], ...] in fractions of the frame
        evidence TEXT,                        -- file of the picture, relative to the state folder
        label TEXT,                           -- what a person said
        UNIQUE (boot_id, part_id, run)
    );
    CREATE INDEX part_by_run ON part (run);
    CREATE INDEX part_by_time ON part (trigger_utc_ns);
    CREATE INDEX part_undecided ON part (id) WHERE verdict IS NULL;
    CREATE TABLE event (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        run INTEGER NOT NULL,
        kind TEXT NOT NULL,
        detail TEXT NOT NULL,
        at_ns INTEGER NOT NULL,
        at_utc_ns INTEGER NOT NULL,
        time_quality TEXT NOT NULL
    );
    CREATE TABLE loss (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        run INTEGER NOT NULL,
        what TEXT NOT NULL,                   -- trigger | decision | outcome | event | evidence
        why TEXT NOT NULL,                    -- backlog_full | malformed
        count INTEGER NOT NULL,
        first_utc_ns INTEGER NOT NULL,
        last_utc_ns INTEGER NOT NULL
    );
    CREATE VIEW ledger AS
        SELECT part.id, part.run, part.boot_id, part.part_id, part.encoder,
               part.trigger_ns, part.trigger_utc_ns, part.time_quality, part.captured_ns, part.decided_ns,
               part.verdict, part.cause, part.reason, part.score, model.label AS model, model.digest AS model_digest,
               run.config_digest, part.recovered, part.outcome, part.outcome_encoder, part.outcome_ns,
               (part.decided_ns - part.trigger_ns) / 1e6 AS trigger_to_verdict_ms,
               (part.decided_ns - part.captured_ns) / 1e6 AS capture_to_verdict_ms,
               part.timings_ms, part.regions, part.evidence, part.label
        FROM part JOIN run ON run.id = part.run LEFT JOIN model ON model.id = part.model;
    """,
    """
    CREATE TABLE request (                    -- what operators asked, by voice, key or keyboard
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        run INTEGER NOT NULL,
        source TEXT NOT NULL,                 -- wake | button | typed
        opened_ns INTEGER NOT NULL,
        opened_utc_ns INTEGER NOT NULL,
        time_quality TEXT NOT NULL,
        start_ns INTEGER,                     -- of the speech; NULL: nobody spoke, or it was typed
        end_ns INTEGER,
        transcript TEXT NOT NULL,
        confidence REAL NOT NULL,
        command TEXT,
        results TEXT NOT NULL,                -- JSON: codes, the best first
        redo INTEGER NOT NULL,                -- requests just before it that came to nothing
        choice TEXT,                          -- the code that was taken
        outcome TEXT NOT NULL,                -- see core.messages.OperatorRequest
        reason TEXT NOT NULL,
        origin TEXT NOT NULL,                 -- which recogniser
        audio TEXT NOT NULL                   -- clip, relative to the state folder; empty: none was kept
    );
    CREATE INDEX request_by_time ON request (opened_utc_ns);
    """,
)
VERSION = len(MIGRATIONS)


class NewerSchema(Exception):
    """The file was written by a newer version of the product; this one must not touch it."""


def open_for_writing(path: Path) -> sqlite3.Connection:
    """The journal at `path`, made or brought to the present version. Raises sqlite3.Error or NewerSchema."""
    connection = sqlite3.connect(path, timeout=BUSY_WAIT_S, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
        migrate(connection)
        connection.execute(PRUNED)
    except BaseException:
        connection.close()
        raise
    return connection


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the tables to the present version. The connection is in autocommit mode."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise NewerSchema(f"schema version {version}, this program knows {VERSION}")
    for script in MIGRATIONS[version:]:
        version += 1
        try:
            connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {version}; COMMIT;")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A view that cannot write. Raises sqlite3.Error when there is no readable journal.

    A closed journal in a folder that is not ours to write needs `immutable`, because WAL wants a shared-memory file.
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
