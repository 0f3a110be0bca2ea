"""The journal's tables and their versions.

Times named `*_ns` are monotonic and mean something within one `run`; `*_utc_ns` are nanoseconds since 1970.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from edge_runtime.recording import database
from edge_runtime.recording.pruned import TABLE as PRUNED

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


def open_for_writing(path: Path) -> sqlite3.Connection:
    """The journal at `path`, made or brought to the present version. Raises sqlite3.Error or NewerSchema."""
    connection = database.open_for_writing(path, MIGRATIONS)
    try:
        connection.execute(PRUNED)
    except BaseException:
        connection.close()
        raise
    return connection
