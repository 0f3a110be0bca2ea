"""Reading back what was written, as somebody who opens the file now finds it: now and then, beside the writer.

The writer's own connection works from its cache and sees neither damage on the disk nor rows that are gone for
everybody else. A thread at the lowest priority opens the journal anew every few seconds, compares its numbers with the
mark, reads the newest parts and events through their indexes, and a further stretch of the older ones. The whole file
is gone over at the start and once an hour, for a limited time. SQLite works outside the interpreter's lock: nothing
here holds it for longer than a fraction of a millisecond.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from edge_runtime.recording.database import open_for_reading
from edge_runtime.recording.going_back import behind_mark, given_numbers, journal_identity
from edge_runtime.recording.high_water import HighWater
from edge_runtime.recording.trouble import is_damage

log = logging.getLogger(__name__)

SYNC_S = 1.0  # between syncs of the mark: what a power cut may take from it
EXAMINE_S = 5.0
WHOLE_S = 3600.0
WHOLE_LIMIT_S = 3.0  # some 64 MB from a warm cache; what is longer is read in stretches
STEPS = 20_000  # of SQLite's machine between looks at the time: about 1 ms
NEWEST_ROWS = 256
STRETCH_ROWS = 2000  # 3-10 ms
LOWEST = 19
_WORDS = "sum(length(coalesce({}, '')))"
_PARTS = _WORDS.format("timings_ms") + ", " + _WORDS.format("regions") + ", " + _WORDS.format("reason")


def examine(
    journal: Path,
    mark: HighWater | None,
    from_row: int = 0,
    whole_limit_s: float = 0.0,
    is_over: Callable[[], bool] = lambda: False,
) -> str:
    """What is wrong with the file, in words; empty when nothing is, or when it cannot be opened just now.

    mark: taken before. from_row: the older parts that are read this time begin here. whole_limit_s: look at every page,
    as far as the time goes, or until is_over.
    """
    try:
        if journal.stat().st_size == 0:
            return "it is empty"  # not to be opened: SQLite takes it for new and deletes its log
        connection = open_for_reading(journal)
    except OSError:
        return ""
    except sqlite3.Error as err:
        return str(err) if _is_damaged(err) else ""
    try:
        return _behind(connection, mark) or _unreadable(connection, from_row, whole_limit_s, is_over)
    except sqlite3.Error as err:
        return str(err) if _is_damaged(err) else ""
    finally:
        connection.close()


def _behind(connection: sqlite3.Connection, mark: HighWater | None) -> str:
    if mark is None:
        return ""
    if journal_identity(connection) != mark.journal:
        return "another journal lies there"
    return behind_mark(given_numbers(connection), mark)


def _unreadable(
    connection: sqlite3.Connection, from_row: int, whole_limit_s: float, is_over: Callable[[], bool]
) -> str:
    newest = given_numbers(connection)
    for first in (newest.get("part", 0) - NEWEST_ROWS, from_row):
        query = f"SELECT count(*), {_PARTS} FROM part WHERE id BETWEEN ? AND ?"
        connection.execute(query, (first, first + STRETCH_ROWS)).fetchone()
    query = f"SELECT count(*), {_WORDS.format('detail')} FROM event WHERE id > ?"
    connection.execute(query, (newest.get("event", 0) - NEWEST_ROWS,)).fetchone()
    connection.execute(
        "SELECT sum(boot_id) FROM (SELECT boot_id FROM part INDEXED BY part_by_run"
        " WHERE run = (SELECT max(id) FROM run) ORDER BY id DESC LIMIT ?)",
        (NEWEST_ROWS,),
    ).fetchone()
    return check_whole(connection, whole_limit_s, is_over)


def check_whole(
    connection: sqlite3.Connection, limit_s: float = WHOLE_LIMIT_S, is_over: Callable[[], bool] = lambda: False
) -> str:
    """Every page, and that indexes agree with their tables; what is wrong, as far as the time goes."""
    if not limit_s:
        return ""
    until = time.monotonic() + limit_s
    connection.set_progress_handler(lambda: int(time.monotonic() > until or is_over()), STEPS)
    try:
        (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.OperationalError as err:
        if err.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return ""
    finally:
        connection.set_progress_handler(None, 0)
    return "" if found == "ok" else str(found).replace("\n", " ")


def _is_damaged(error: sqlite3.Error) -> bool:
    return is_damage(error) or getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_SHORT_READ


class ReadBack:
    """A thread of its own. mark: the newest; sync: brings the mark's file onto the disk; found: called with the words.

    `files` is held while the journal is open here: who removes or renames its files takes it first, because SQLite
    shares one view of the shared memory among all connections of a process.
    """

    def __init__(
        self,
        journal: Path,
        mark: Callable[[], HighWater | None],
        sync: Callable[[], None],
        found: Callable[[str], None],
    ) -> None:
        self._journal = journal
        self._mark = mark
        self._sync = sync
        self._found = found
        self._from_row = 0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.files = threading.Lock()

    def start(self) -> None:
        self._stopping.clear()
        self._thread = threading.Thread(target=self._loop, name="journal-check", daemon=True)
        self._thread.start()

    def stop(self, wait_s: float) -> None:
        thread, self._thread = self._thread, None
        self._stopping.set()
        if thread:
            thread.join(wait_s)

    def _loop(self) -> None:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)
        examined_s = whole_s = float("-inf")
        while not self._stopping.wait(SYNC_S):
            try:
                self._sync()
                now_s = time.monotonic()
                if now_s - examined_s >= EXAMINE_S:
                    is_whole = now_s - whole_s >= WHOLE_S
                    examined_s, whole_s = now_s, now_s if is_whole else whole_s
                    self._examine(WHOLE_LIMIT_S if is_whole else 0.0)
            except OSError as err:
                log.warning("journal.mark is not on the disk: %s", err)
            except Exception:  # the check is never a reason not to write
                log.exception("journal.check failed")

    def _examine(self, whole_limit_s: float) -> None:
        with self.files:
            mark = self._mark()
            if mark is None:
                return
            words = examine(self._journal, mark, self._from_row, whole_limit_s, self._stopping.is_set)
            self._from_row += STRETCH_ROWS
            if self._from_row > mark.last.get("part", 0):
                self._from_row = mark.first.get("part", 0)
        if words:
            self._found(words)
