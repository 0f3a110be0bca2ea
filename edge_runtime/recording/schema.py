"""The journal's tables and their versions.

Times named `*_ns` are monotonic and mean something within one `run`; `*_utc_ns` are nanoseconds since 1970.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from edge_runtime.recording import database
from edge_runtime.recording.pruned import TABLE as PRUNED

# The view `saying` over a file of version 2, which knew one label of a part, by voice, and neither by whom nor when.
_SAYINGS_OF_2 = """
    SELECT id, run, id AS part, boot_id, part_id, label, NULL AS undoes, '' AS defect,
           'carried over: who said it and when was not kept, the time is that of the part' AS comment,
           'operator' AS "by", 'voice' AS "where", coalesce(decided_ns, trigger_ns) AS at_ns,
           trigger_utc_ns AS at_utc_ns, time_quality, NULL AS saw_model, NULL AS saw_digest, NULL AS saw_verdict,
           0 AS is_undone
    FROM part WHERE label IN ('accept', 'reject')"""

_LEDGER_WITHOUT_ORIGIN = "CREATE TEMP VIEW ledger AS SELECT *, NULL AS origin, NULL AS file FROM main.ledger;"

_NO_BOX = ", NULL AS ref, NULL AS box"
_SAYING_WITHOUT_BOX = f"CREATE TEMP VIEW saying AS SELECT *{_NO_BOX} FROM main.saying;"

# What a reader adds for itself, and no file has, to see a file of an earlier version as one of the present.
SEEN_AS_PRESENT = {
    2: f"CREATE TEMP VIEW saying AS SELECT *{_NO_BOX} FROM ({_SAYINGS_OF_2}); {_LEDGER_WITHOUT_ORIGIN}",
    3: f"{_SAYING_WITHOUT_BOX} {_LEDGER_WITHOUT_ORIGIN}",
    4: f"{_SAYING_WITHOUT_BOX} CREATE TEMP VIEW ledger AS SELECT *, NULL AS file FROM main.ledger;",
    5: _SAYING_WITHOUT_BOX,
}

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
    """
    CREATE TABLE label (                      -- what people said about parts, see recording/labels.py
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        run INTEGER NOT NULL,                 -- that was going on, or had ended last
        part INTEGER,                         -- row of the part; NULL: the journal did not know it
        boot_id INTEGER NOT NULL,
        part_id INTEGER NOT NULL,
        label TEXT CHECK (label IN ('accept', 'reject', 'cannot_tell')),
        undoes INTEGER,                       -- row of the label that this one takes back
        defect TEXT NOT NULL,                 -- class; empty: none was named
        comment TEXT NOT NULL,
        "by" TEXT NOT NULL,
        "where" TEXT NOT NULL CHECK ("where" IN ('page', 'cli', 'voice', 'import')),
        at_ns INTEGER,                        -- NULL: said while no run went on
        at_utc_ns INTEGER NOT NULL,
        time_quality TEXT NOT NULL,
        saw_model INTEGER,                    -- row of the model whose verdict they saw; NULL: nobody's
        saw_verdict TEXT,
        CHECK ((label IS NULL) = (undoes IS NOT NULL))
    );
    CREATE INDEX label_of_part ON label (part);
    CREATE INDEX label_of_name ON label (boot_id, part_id);
    CREATE INDEX label_undone ON label (undoes) WHERE undoes IS NOT NULL;
    CREATE VIEW saying AS
        SELECT label.id, label.run, label.part, label.boot_id, label.part_id, label.label, label.undoes, label.defect,
               label.comment, label."by", label."where", label.at_ns, label.at_utc_ns, label.time_quality,
               model.label AS saw_model, model.digest AS saw_digest, label.saw_verdict,
               EXISTS (SELECT 1 FROM label AS undo WHERE undo.undoes = label.id) AS is_undone
        FROM label LEFT JOIN model ON model.id = label.saw_model;

    -- What was said before there was a history. `part.label` is read no more; dropping it would rewrite the table.
    INSERT INTO label (run, part, boot_id, part_id, label, undoes, defect, comment, "by", "where", at_ns, at_utc_ns,
                       time_quality, saw_model, saw_verdict)
        SELECT run, part, boot_id, part_id, label, undoes, defect, comment, "by", "where", at_ns, at_utc_ns,
               time_quality, NULL, NULL
        FROM ("""
    + _SAYINGS_OF_2
    + """) ORDER BY part;
    INSERT INTO event (run, kind, detail, at_ns, at_utc_ns, time_quality)
        SELECT run, 'operator.rescan', printf('{"by": "voice", "part": "%04x-%d"}', boot_id, part_id),
               coalesce(decided_ns, trigger_ns), trigger_utc_ns, time_quality
        FROM part WHERE label = 'rescan' ORDER BY id;

    DROP VIEW ledger;
    CREATE VIEW ledger AS
        SELECT part.id, part.run, part.boot_id, part.part_id, part.encoder,
               part.trigger_ns, part.trigger_utc_ns, part.time_quality, part.captured_ns, part.decided_ns,
               part.verdict, part.cause, part.reason, part.score, model.label AS model, model.digest AS model_digest,
               run.config_digest, part.recovered, part.outcome, part.outcome_encoder, part.outcome_ns,
               (part.decided_ns - part.trigger_ns) / 1e6 AS trigger_to_verdict_ms,
               (part.decided_ns - part.captured_ns) / 1e6 AS capture_to_verdict_ms,
               part.timings_ms, part.regions, part.evidence,
               (SELECT saying.label FROM saying WHERE saying.part = part.id AND saying.label IS NOT NULL
                AND NOT saying.is_undone ORDER BY saying.id DESC LIMIT 1) AS label
        FROM part JOIN run ON run.id = part.run LEFT JOIN model ON model.id = part.model;
    """,
    """
    ALTER TABLE part ADD COLUMN origin TEXT;  -- whose answer: local, remote:NAME/VERSION@HOST:PORT; NULL: no model's
    DROP VIEW ledger;
    CREATE VIEW ledger AS
        SELECT part.id, part.run, part.boot_id, part.part_id, part.encoder,
               part.trigger_ns, part.trigger_utc_ns, part.time_quality, part.captured_ns, part.decided_ns,
               part.verdict, part.cause, part.reason, part.score, model.label AS model, model.digest AS model_digest,
               run.config_digest, part.recovered, part.outcome, part.outcome_encoder, part.outcome_ns,
               (part.decided_ns - part.trigger_ns) / 1e6 AS trigger_to_verdict_ms,
               (part.decided_ns - part.captured_ns) / 1e6 AS capture_to_verdict_ms,
               part.timings_ms, part.regions, part.evidence,
               (SELECT saying.label FROM saying WHERE saying.part = part.id AND saying.label IS NOT NULL
                AND NOT saying.is_undone ORDER BY saying.id DESC LIMIT 1) AS label, part.origin
        FROM part JOIN run ON run.id = part.run LEFT JOIN model ON model.id = part.model;
    """,
    """
    ALTER TABLE part ADD COLUMN file TEXT;    -- name of the file that the picture was read from; NULL: it was taken
    DROP VIEW ledger;
    CREATE VIEW ledger AS
        SELECT part.id, part.run, part.boot_id, part.part_id, part.encoder,
               part.trigger_ns, part.trigger_utc_ns, part.time_quality, part.captured_ns, part.decided_ns,
               part.verdict, part.cause, part.reason, part.score, model.label AS model, model.digest AS model_digest,
               run.config_digest, part.recovered, part.outcome, part.outcome_encoder, part.outcome_ns,
               (part.decided_ns - part.trigger_ns) / 1e6 AS trigger_to_verdict_ms,
               (part.decided_ns - part.captured_ns) / 1e6 AS capture_to_verdict_ms,
               part.timings_ms, part.regions, part.evidence,
               (SELECT saying.label FROM saying WHERE saying.part = part.id AND saying.label IS NOT NULL
                AND NOT saying.is_undone ORDER BY saying.id DESC LIMIT 1) AS label, part.origin, part.file
        FROM part JOIN run ON run.id = part.run LEFT JOIN model ON model.id = part.model;
    """,
    """
    ALTER TABLE label ADD COLUMN ref TEXT;    -- the name that whoever said it gave it: a repeat is not written again
    ALTER TABLE label ADD COLUMN box TEXT;    -- JSON: [x, y, w, h] in fractions of the picture; NULL: none was drawn
    CREATE UNIQUE INDEX label_by_ref ON label (ref) WHERE ref IS NOT NULL;
    DROP VIEW saying;
    CREATE VIEW saying AS
        SELECT label.id, label.run, label.part, label.boot_id, label.part_id, label.label, label.undoes, label.defect,
               label.comment, label."by", label."where", label.at_ns, label.at_utc_ns, label.time_quality,
               model.label AS saw_model, model.digest AS saw_digest, label.saw_verdict,
               EXISTS (SELECT 1 FROM label AS undo WHERE undo.undoes = label.id) AS is_undone, label.ref, label.box
        FROM label LEFT JOIN model ON model.id = label.saw_model;
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
