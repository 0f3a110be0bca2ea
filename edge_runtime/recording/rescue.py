"""Keep what was written when the files were taken from under the open journal.

The open connection still has every row: its descriptors outlive the names. Where only the log or the shared memory was
taken, the log is brought into the database file, which takes milliseconds whatever its size, and both companions are
made anew. Where the database itself was removed, replaced or written over, the whole of it is copied beside, checked
and renamed into place; what lay there is set aside, never overwritten.

At each step a power cut leaves either the old state or the new one: the copy is synced and checked before the name
changes, and a copy that is found without a journal becomes the journal at the next start (`finish_copy`).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from edge_runtime.core.files import sync
from edge_runtime.recording.database import COMPANIONS, free_name, set_aside
from edge_runtime.recording.trouble import is_damage

WHOLE_CHECK_BYTES = 64 << 20  # up to here indexes are compared with their tables as well: 64 MB take a second or two
SPARE_BYTES = 1 << 20  # that a copy must leave free


class Unrescued(Exception):
    """The open connection cannot give the rows back either: set the file aside and count what is missing."""


def secure_log(connection: sqlite3.Connection) -> bool:
    """Bring the whole log into the database file, synced. False when a reader held it up, or not all went."""
    is_busy, in_log, done = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
    return not is_busy and in_log == done


def remove_companions(journal: Path, strays: Iterable[Path] = ()) -> None:
    """After `secure_log`, or a copy: nothing in them is needed. A log of somebody else is kept under another name."""
    strays = set(strays)
    for end in COMPANIONS:
        path = journal.with_name(journal.name + end)
        if end == "-wal" and path in strays and path.exists() and path.stat().st_size:
            path.rename(free_name(path.with_name(f"{journal.stem}.stray{journal.suffix}{end}")))
        path.unlink(missing_ok=True)


def copy_whole(connection: sqlite3.Connection, journal: Path) -> Path:
    """A checked copy of all that the connection sees, beside the journal. Raises Unrescued, OSError, sqlite3.Error."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    unfinished, copy = _unfinished(journal), _copy(journal)
    (pages,), (page_bytes,) = (connection.execute(f"PRAGMA {ask}").fetchone() for ask in ("page_count", "page_size"))
    _make_room(journal, pages * page_bytes)
    target = sqlite3.connect(unfinished, isolation_level=None)
    try:
        target.execute("PRAGMA synchronous = OFF")  # it is synced as a whole below
        connection.backup(target)
        target.execute("PRAGMA journal_mode = DELETE").fetchone()  # one file, without companions
        check = "integrity_check" if pages * page_bytes <= WHOLE_CHECK_BYTES else "quick_check"
        (found,) = target.execute(f"PRAGMA {check}(1)").fetchone()
        if found != "ok":
            raise Unrescued(found)
    except sqlite3.Error as err:
        if is_damage(err):
            raise Unrescued(str(err)) from err
        raise
    finally:
        target.close()
    sync(unfinished)
    unfinished.rename(copy)
    sync(journal.parent)
    return copy


def put_in_place(copy: Path, journal: Path, why: str, now_utc_ns: int, strays: Iterable[Path]) -> str:
    """The copy becomes the journal; the name under which what lay there is kept, or an empty one. Raises OSError."""
    aside = set_aside(journal, why, now_utc_ns) if journal.exists() else ""
    remove_companions(journal, strays)
    copy.rename(journal)
    sync(journal.parent)
    return aside


def refuse_emptied(journal: Path) -> None:
    """SQLite takes an empty database for a new one and deletes its log. Raises Unrescued while there is one."""
    log = journal.with_name(journal.name + "-wal")
    if journal.exists() and not journal.stat().st_size and log.exists() and log.stat().st_size:
        raise Unrescued("the database is empty, and its log is not")


def finish_copy(journal: Path) -> None:
    """A power cut came between the copy and its name."""
    copy = _copy(journal)
    if copy.exists() and not journal.exists():
        remove_companions(journal)
        copy.rename(journal)


def _make_room(journal: Path, need_bytes: int) -> None:
    for left in (_unfinished(journal), _copy(journal)):
        for end in ("", "-journal"):
            left.with_name(left.name + end).unlink(missing_ok=True)
    disk = os.statvfs(journal.parent)
    free_bytes = disk.f_bavail * disk.f_frsize
    if free_bytes < need_bytes + SPARE_BYTES:
        raise Unrescued(f"no room for a copy: {need_bytes >> 10} kB are needed, {free_bytes >> 10} kB are free")


def _copy(journal: Path) -> Path:
    return journal.with_name(f"{journal.stem}.rescued{journal.suffix}")


def _unfinished(journal: Path) -> Path:
    return journal.with_name(f"{journal.stem}.rescued{journal.suffix}-new")
