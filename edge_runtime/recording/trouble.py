"""What can be wrong with a disk, in words that say what to mend."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path

FULL_BYTES = 1 << 20
_NO_ROOM = "no room for {what} in {folder}: free some space"
_NO_WRITING = "{what} in {folder} cannot be written: check permissions and that the disk is mounted read-write"
_LOCKED = "another program holds {what} in {folder}: close it"
_BROKEN = "the disk under {folder} reports errors ({error}): check the storage medium"
_SENTENCES: Mapping[int, str] = {
    sqlite3.SQLITE_FULL: _NO_ROOM,
    sqlite3.SQLITE_READONLY: _NO_WRITING,
    sqlite3.SQLITE_CANTOPEN: _NO_WRITING,
    sqlite3.SQLITE_PERM: _NO_WRITING,
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
}
_OS_SENTENCES: Mapping[int, str] = {
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EACCES: _NO_WRITING,
    errno.EPERM: _NO_WRITING,
    errno.EROFS: _NO_WRITING,
    errno.ENOTDIR: _NO_WRITING,
    errno.EEXIST: _NO_WRITING,
    errno.EAGAIN: _LOCKED,
}


def explain(error: Exception, what: str, folder: Path) -> str:
    """Why `what` cannot be written into `folder`, and what to do about it."""
    if isinstance(error, OSError):
        sentence = _OS_SENTENCES.get(error.errno or 0, _BROKEN)
    else:
        sentence = _SENTENCES.get(_code(error), _BROKEN)
        if _code(error) == sqlite3.SQLITE_IOERR and _is_full(folder):
            sentence = _NO_ROOM  # SQLite says so of its shared-memory file on a full disk
    return sentence.format(what=what, folder=folder, error=error)


def _is_full(folder: Path) -> bool:
    try:
        status = os.statvfs(folder)
    except OSError:
        return False
    return status.f_bavail * status.f_frsize < FULL_BYTES


def _code(error: Exception) -> int:
    code: int = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the extended codes keep the primary one in the low byte
    return code


def is_of_the_place(error: Exception) -> bool:
    """Room, rights, another program or the disk are the matter, and nothing that lies in the file."""
    return isinstance(error, OSError) or _code(error) in (*_SENTENCES, sqlite3.SQLITE_IOERR)


def is_damage(error: Exception) -> bool:
    """The file's content is wrong: trying again cannot help."""
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
