"""Files that are whole or not there, and whether a name still leads to the file that was opened.

A file that is written over in place is half old and half new for whoever reads it meanwhile, and after a power cut. So
it is written beside, synced and renamed. What the box writes every second (marks, seals) has reasons of its own to be
written in place, and says so where it is.
"""

from __future__ import annotations

import codecs
import contextlib
import os
from pathlib import Path

from edge_runtime.core.custody import Custody

Identity = tuple[int, int]  # device and inode: which file it is, whatever its name


def write_atomic(
    path: Path,
    content: bytes | str,
    *,
    beside: Path | None = None,
    custody: Custody | None = None,
    sync_folder: bool = True,
) -> None:
    """Put a file in the place of `path` in one step. Raises OSError, and what was there is there as before.

    For one writer of that path at a time. beside: the unfinished file, on the same disk; `path` with `.new` unless
    given. custody: owner and mode, where it is not the user's own. sync_folder: the new name survives a power cut, for
    a second sync; without it a power cut may bring the old file back, whole.
    """
    unfinished = beside or path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)  # of somebody who died, and perhaps another user's
    try:
        with unfinished.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            if custody:
                custody.take_open(file.fileno())
            os.fsync(file.fileno())  # else a power cut leaves an empty file under the final name
        unfinished.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
    if sync_folder:
        sync(path.parent)


def sync(path: Path) -> None:
    """A file's content, or a folder's names, onto the medium. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def identity_of(path: Path) -> Identity | None:
    """None where there is no file. Raises OSError where it may not be looked at."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return None
    return there.st_dev, there.st_ino


def is_still_at(path: Path, fd: int) -> bool:
    """Whether the file under that name is the one that is open: not removed, not replaced, and to be looked at."""
    ours = os.fstat(fd)
    try:
        there = os.stat(path)  # noqa: PTH116 - asked once a commit, and a third of the time that Path.stat takes
    except OSError:
        return False
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)


def as_text(raw: bytes) -> str:
    """What a person saved with an editor of any system: the mark at its start (UTF-8, or UTF-16 as Windows' editors
    have it) and the line ends of that system are taken away. Raises UnicodeDecodeError."""
    is_utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = raw.decode("utf-16" if is_utf16 else "utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")
