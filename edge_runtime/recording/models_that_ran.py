"""Which models the runs of a journal began with, whatever version of the product wrote it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from edge_runtime.recording.database import open_for_reading

RUNS_LOOKED_AT = 500


def models_that_ran(journal: Path) -> list[tuple[str, str]]:
    """(NAME@VERSION, digest) of the last runs, the newest first. Empty where there is no journal that can be read.

    Asked before the journal is opened for writing, so an older schema must do: `run` has these columns in all of them.
    """
    if not journal.is_file():
        return []
    try:
        db = open_for_reading(journal)
        try:
            rows = db.execute("SELECT model, model_digest FROM run ORDER BY id DESC LIMIT ?", (RUNS_LOOKED_AT,))
            return [(str(label), str(digest)) for label, digest in rows]
        finally:
            db.close()
    except (sqlite3.Error, OSError):
        return []
