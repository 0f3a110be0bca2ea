PRAGMA user_version = 2;
PRAGMA application_id = 0;
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
INSERT INTO "event" VALUES(1,1,'link.up','{"boot_id": 58646}',14558127452790,1796069519344316570,'free_running');
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
INSERT INTO "model" VALUES(1,'scratch@1','81be867f4c7b5ab0aacb93b610faadbb2af49f5e74c50e01d4ea5d3596de72fe');
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
INSERT INTO "part" VALUES(1,1,58646,1,4294958532,14558744145321,1796069519961009101,'free_running',14558743933366,14558773096410,'accept','model','score 0.00 < 0.41',3.00230163949288407412e-04,1,0,'passed',4294959532,14559244208607,'{"prepare": 0.98, "invoke": 18.203, "decode": 0.657}',NULL,NULL,NULL);
INSERT INTO "part" VALUES(2,1,58646,2,4294958716,14558836119757,1796069520052983537,'free_running',14558835933366,14558856107251,'accept','model','score 0.00 < 0.41',0.000798208610778045,1,0,'passed',4294959716,14559336095403,'{"prepare": 0.224, "invoke": 18.376, "decode": 0.4}',NULL,NULL,NULL);
INSERT INTO "part" VALUES(3,1,58646,3,4294958926,14558940954530,1796069520157818310,'free_running',14558940933366,14558965855572,'accept','model','score 0.00 < 0.41',1.04685311219793728866e-03,1,0,'passed',4294959926,14559441209327,'{"prepare": 0.232, "invoke": 21.258, "decode": 0.535}',NULL,NULL,NULL);
INSERT INTO "part" VALUES(4,1,58646,4,4294959109,14559032500530,1796069520249364310,'free_running',14559032433366,14559055497375,'unsure','model','scratch 0.96 between 0.41 and 0.96',9.55715372710124633215e-01,1,0,'fired',4294960109,14559532659078,'{"prepare": 0.294, "invoke": 19.202, "decode": 1.271}','[[0.05, 0.38889, 0.05, 0.17778, 0.91047, "scratch"]]','evidence/2026/11/30/201200.249-e516-4-unsure.jpg',NULL);
INSERT INTO "part" VALUES(5,1,58646,5,4294959330,14559143228530,1796069520360092310,'free_running',14559142933366,14559164189247,'accept','model','score 0.07 < 0.41',6.51906837739503752793e-02,1,0,'passed',4294960330,14559643251033,'{"prepare": 0.18, "invoke": 19.123, "decode": 0.546}',NULL,NULL,NULL);
INSERT INTO "part" VALUES(6,1,58646,6,4294959470,14559212892607,1796069520429756387,'free_running',14559212933366,14559232614411,'accept','model','score 0.00 < 0.41',2.79033993934788221782e-03,1,0,'passed',4294960470,14559713127196,'{"prepare": 0.183, "invoke": 18.185, "decode": 0.388}',NULL,NULL,NULL);
INSERT INTO "part" VALUES(7,1,58646,7,4294959717,14559336674448,1796069520553538228,'free_running',14559336433366,14559360671228,'accept','model','scratch 0.13 < 0.41',1.2760618580621954643e-01,1,0,'passed',4294960717,14559836691761,'{"prepare": 0.26, "invoke": 21.637, "decode": 0.815}','[[0.925, 0.52222, 0.025, 0.04444, 0.67926, "scratch"]]',NULL,NULL);
INSERT INTO "part" VALUES(8,1,58646,8,4294959894,14559425253323,1796069520642117103,'free_running',14559424933366,14559449799122,'accept','model','score 0.00 < 0.41',4.65683116363853821448e-04,1,0,'passed',4294960894,14559925329598,'{"prepare": 0.32, "invoke": 21.159, "decode": 0.567}',NULL,NULL,NULL);
INSERT INTO "part" VALUES(9,1,58646,9,4294960077,14559516756078,1796069520733619858,'free_running',14559516433366,14559540242842,'reject','model','scratch 0.98 >= 0.96',0.984124579730834,1,0,'fired',4294961077,14560016574140,'{"prepare": 0.233, "invoke": 20.845, "decode": 0.799}','[[0.25, 0.78889, 0.1, 0.08889, 0.99042, "scratch"], [0.9, 0.43333, 0.025, 0.17778, 0.89233, "scratch"]]','evidence/2026/11/30/201200.733-e516-9-reject.jpg',NULL);
INSERT INTO "part" VALUES(10,1,58646,10,4294960292,14559624289841,1796069520841153621,'free_running',14559623933366,14559648099660,'accept','model','score 0.01 < 0.41',1.38787069602168723625e-02,1,0,'passed',4294961292,14560123966339,'{"prepare": 0.211, "invoke": 21.371, "decode": 0.453}',NULL,NULL,NULL);
INSERT INTO "part" VALUES(11,1,58646,11,4294960491,14559723682887,1796069520940546667,'free_running',14559723433366,14559743857412,'accept','model','score 0.00 < 0.41',3.43078210488425813014e-04,1,0,'passed',4294961491,14560223609097,'{"prepare": 0.205, "invoke": 18.374, "decode": 0.354}',NULL,NULL,NULL);
INSERT INTO "part" VALUES(12,1,58646,12,4294960711,14559833582556,1796069521050446336,'free_running',14559833433366,14559853210347,'accept','model','score 0.00 < 0.41',2.45371022097524591962e-03,1,0,'passed',4294961711,14560333672874,'{"prepare": 0.18, "invoke": 18.111, "decode": 0.374}',NULL,NULL,NULL);
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
INSERT INTO "run" VALUES(1,14557140409538,1796069518357273318,'free_running','08ebe764-4c3e-4798-ba85-c628642ae1a5',1796069522021448983,'clean','{"station": {"name": "box-7", "site": "north", "line": "line-2"}, "camera": {"driver": "sim", "name": "cam0", "path": "", "width": 320, "height": 180, "fps": 30.0, "exposure_us": 0, "pair_by": "auto", "delay_ms": 0.0, "tolerance_ms": 20.0, "tolerance_counts": 40, "lost_after_s": 2.0}, "controller": {"driver": "sim", "protocol": "reject", "role": "client", "unit": 1, "port": "", "baud": 115200, "parity": "none", "rs485_echo": false, "decide_counts": 900, "fire_counts": 1000, "pulse_counts": 40, "confirm_counts": 0, "watchdog_ms": 500, "debounce_counts": 0, "inputs": []}, "model": {"name": "scratch", "store": "", "runtime": "auto", "threads": 1, "delegate": "", "warm_up": 3}, "decision": {"accept_below": null, "reject_at": null, "deadline_ms": 300.0, "automation": "full", "safe_action": "reject", "queue_parts": 8, "stage_budget_ms": 150.0}, "voice": {"model": "commands-embed", "wake": "hey_jarvis", "wake_at": 0.9, "window_s": 3.0, "cancel_s": 1.5, "show_s": 30.0, "speaker": "", "talk_gpio": "", "keep_audio": false, "keep_days_audio": 7, "grammar": "auto", "remote": {"url": "", "model": "asr", "share_ms": 400.0, "may_leave": false}}, "recording": {"state_dir": "/srv/box/state", "evidence": true, "good_share": 0.02, "format": "jpeg", "jpeg_quality": 85, "quota_mb": 2000, "keep_days_reject": 90, "keep_days_good": 7, "keep_days_journal": 365}, "sync": {"enabled": true, "host": "127.0.0.1", "port": 1, "protocol": "auto", "client_id": "", "keepalive_s": 30, "username": "", "password_file": "", "tls": false, "ca_file": "", "cert_file": "", "key_file": "", "window": 100, "ack": "puback", "ack_timeout_s": 20.0, "resend_after_s": 60.0, "reconnect_max_s": 60.0, "quota_mb": 1000, "metrics_every_s": 60.0, "evidence": "off", "evidence_url": "", "evidence_verdicts": ["reject", "unsure"], "evidence_kb_s": 200.0, "evidence_hours": "", "metered": false, "commands": "off", "keys": "/etc/edge-runtime/keys", "sparkplug": {"enabled": true, "group": "", "primary_host": "", "commands": false, "servers": []}}, "sound": {"model": "", "alarm_at": 0.5, "normal_below": 0.4, "smooth_s": 10.0, "alarm_after_s": 30.0, "normal_after_s": 30.0, "refractory_s": 600.0, "reject": false}, "service": {"socket": "", "log_level": "info"}, "world": {"seed": 3, "parts_per_s": 10.0, "counts_per_s": 2000, "defect_share": 0.15, "oil_share": 0.05, "stain_share": 0.05, "light": 1.0, "attach": "", "bad_days": {"drop_frames": 0.0, "late_trigger_ms": 0.0, "lose_acks": 0.0, "flip_bytes": 0.0, "light_drift": 0.0, "focus_drift_px": 0.0, "camera_stops_at": 0, "camera_stops_for": 0, "engine": "", "engine_fault_every": 20, "engine_slow_ms": 200.0, "stuck_gate": 0.0}}, "microphone": {"driver": "off", "name": "mic0", "device": "", "rate_hz": 16000, "frame_ms": 30, "file": "", "paced": true, "loops": true, "gap_ms": 500, "silent_after_s": 4.0, "retry_max_s": 10.0, "sim": {"seed": 1, "words_per_min": 20.0, "speech_dbfs": -20.0, "noise": "white", "noise_dbfs": -60.0, "bad_days": {"fault": "", "at_s": 5.0, "for_s": 5.0}}}}','495dc1c3199257778f7db1e720d0c1c43e73a81462c1b18faad4bbf9744e2612','scratch@1','81be867f4c7b5ab0aacb93b610faadbb2af49f5e74c50e01d4ea5d3596de72fe','{"edge_runtime": "0.1.0", "tflite": "ai-edge-litert 2.3.0"}');
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
INSERT INTO "sqlite_sequence" VALUES('event',1);
INSERT INTO "sqlite_sequence" VALUES('part',12);
COMMIT;
