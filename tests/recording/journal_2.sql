-- A journal of schema version 2, dumped as the release before the history of labels wrote it.
BEGIN TRANSACTION;
CREATE TABLE event (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        run INTEGER NOT NULL,
        kind TEXT NOT NULL,
        detail TEXT NOT NULL,
        at_ns INTEGER NOT NULL,
        at_utc_ns INTEGER NOT NULL,
        time_quality TEXT NOT NULL
    );
INSERT INTO "event" VALUES(1,1,'belt.stopped','{"by": "plc"}',2250000000,1772352932250000000,'free_running');
CREATE TABLE loss (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        run INTEGER NOT NULL,
        what TEXT NOT NULL,                   -- trigger | decision | outcome | event | evidence
        why TEXT NOT NULL,                    -- backlog_full | malformed
        count INTEGER NOT NULL,
        first_utc_ns INTEGER NOT NULL,
        last_utc_ns INTEGER NOT NULL
    );
CREATE TABLE model (
        id INTEGER PRIMARY KEY,
        label TEXT NOT NULL,                  -- name@version
        digest TEXT NOT NULL,
        UNIQUE (label, digest)
    );
INSERT INTO "model" VALUES(1,'scratch@1','d1');
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
INSERT INTO "part" VALUES(1,1,32570,1,200,1250000000,1772352931250000000,'free_running',1255000000,1259000000,'accept','model','scratch 0.93',0.1,1,0,'passed',1200,2250000000,'{"invoke": 1.25}','[[0.1, 0.2, 0.3, 0.4, 0.93, "scratch"]]','evidence/2026/03/01/081531.000-7f3a-1-accept.jpg','reject');
INSERT INTO "part" VALUES(2,1,32570,2,400,1500000000,1772352931500000000,'free_running',1505000000,1509000000,'accept','model','scratch 0.93',0.1,1,0,'passed',1400,2500000000,'{"invoke": 1.25}','[[0.1, 0.2, 0.3, 0.4, 0.93, "scratch"]]','evidence/2026/03/01/081532.000-7f3a-2-accept.jpg',NULL);
INSERT INTO "part" VALUES(3,1,32570,3,600,1750000000,1772352931750000000,'free_running',1755000000,1759000000,'reject','model','scratch 0.93',0.93,1,0,'fired',1600,2750000000,'{"invoke": 1.25}','[[0.1, 0.2, 0.3, 0.4, 0.93, "scratch"]]','evidence/2026/03/01/081533.000-7f3a-3-reject.jpg','accept');
INSERT INTO "part" VALUES(4,1,32570,4,800,2000000000,1772352932000000000,'free_running',2005000000,2009000000,'reject','model','scratch 0.93',0.93,1,0,'fired',1800,3000000000,'{"invoke": 1.25}','[[0.1, 0.2, 0.3, 0.4, 0.93, "scratch"]]','evidence/2026/03/01/081534.000-7f3a-4-reject.jpg','rescan');
INSERT INTO "part" VALUES(5,1,32570,5,1000,2250000000,1772352932250000000,'free_running',2255000000,2259000000,'reject','model','scratch 0.93',0.93,1,0,'unknown',NULL,NULL,'{"invoke": 1.25}','[[0.1, 0.2, 0.3, 0.4, 0.93, "scratch"]]','evidence/2026/03/01/081535.000-7f3a-5-reject.jpg',NULL);
CREATE TABLE pruned (
        name TEXT NOT NULL,                   -- of the table
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        PRIMARY KEY (name, first)
    ) WITHOUT ROWID
;
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
INSERT INTO "request" VALUES(1,1,'wake',2250000000,1772352932250000000,'free_running',2250000000,3250000000,'reject',0.91,'reject','[]',0,NULL,'noted','decision.automation is full: kept as a label','commands-embed@1','');
INSERT INTO "request" VALUES(2,1,'typed',2250000000,1772352932250000000,'free_running',NULL,NULL,'oil filter',1.0,NULL,'["D02", "A741"]',1,'D02','answered','','','');
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
INSERT INTO "run" VALUES(1,1000000000,1772352931000000000,'free_running','f2a9d1c0-5b7e-4a83-9d64-3c1e0b7f8a52',1772352932250000000,'clean','{"station": {"name": "box-7"}}','c0ffee','scratch@1','d1','{"python": "3.11"}');
CREATE INDEX part_by_run ON part (run);
CREATE INDEX part_by_time ON part (trigger_utc_ns);
CREATE INDEX part_undecided ON part (id) WHERE verdict IS NULL;
CREATE VIEW ledger AS
        SELECT part.id, part.run, part.boot_id, part.part_id, part.encoder,
               part.trigger_ns, part.trigger_utc_ns, part.time_quality, part.captured_ns, part.decided_ns,
               part.verdict, part.cause, part.reason, part.score, model.label AS model, model.digest AS model_digest,
               run.config_digest, part.recovered, part.outcome, part.outcome_encoder, part.outcome_ns,
               (part.decided_ns - part.trigger_ns) / 1e6 AS trigger_to_verdict_ms,
               (part.decided_ns - part.captured_ns) / 1e6 AS capture_to_verdict_ms,
               part.timings_ms, part.regions, part.evidence, part.label
        FROM part JOIN run ON run.id = part.run LEFT JOIN model ON model.id = part.model;
CREATE INDEX request_by_time ON request (opened_utc_ns);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('run',1);
INSERT INTO "sqlite_sequence" VALUES('part',5);
INSERT INTO "sqlite_sequence" VALUES('event',1);
INSERT INTO "sqlite_sequence" VALUES('request',2);
COMMIT;
PRAGMA user_version = 2;
