"""Whether the journal's files are still those that are open: database, write-ahead log and shared memory.

SQLite writes on happily into files that a backup tool, a clean-up or a restore has deleted or replaced under it; what
it commits there is gone at the next start. Only the journal's writer changes these files, and only within its turns, so
between two turns nothing may differ: not the file under the name, not its size, not when it was last written. Three
stat calls, 5 us. Nothing is opened: closing any descriptor of a database drops SQLite's locks on it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

Look = tuple[int, int, int, int] | None  # device, inode, size, last written; None: no such file


class Kind(Enum):
    COMPANIONS = "companions"  # the database is ours and whole, its log or shared memory is not
    FILE = "file"  # another database lies there, or none
    CONTENT = "content"  # the same files, written by somebody else


@dataclass(frozen=True, slots=True)
class Disturbance:
    kind: Kind
    what: str  # "journal.db-wal was removed"


class FileWatch:
    """Used by the writer's thread. `stamp` after it wrote, `look` before it writes again."""

    def __init__(self, journal: Path) -> None:
        self._names = [journal.name + end for end in ("", "-wal", "-shm")]
        self._paths = [str(journal.with_name(name)) for name in self._names]
        self._seen: list[Look] = [None, None, None]
        self._found: list[Look] = [None, None, None]

    def stamp(self) -> None:
        self._seen = [_look(path) for path in self._paths]

    def look(self) -> Disturbance | None:
        """What somebody else did to the files since `stamp`."""
        now = self._found = [_look(path) for path in self._paths]
        found = self._swapped(now) or self._shrunk(now)
        if found is None:
            found = next(
                (f"{self._names[at]} was written by somebody else" for at in (0, 1) if now[at] != self._seen[at]), None
            )
            return Disturbance(Kind.CONTENT, found) if found else None
        is_ours = _is_same(now[0], self._seen[0]) and now[0] == self._seen[0]
        return Disturbance(Kind.COMPANIONS if is_ours else Kind.FILE, found)

    def accept(self) -> None:
        """What the last `look` found is harmless; what was done since then is not accepted with it."""
        self._seen = self._found

    def look_for_swap(self) -> Disturbance | None:
        """After a commit: sizes and times have changed, but the files must be the same. Stamps them if so."""
        now = [_look(path) for path in self._paths]
        found = self._swapped(now)
        if found is None:
            self._seen = now
            return None
        return Disturbance(Kind.COMPANIONS if _is_same(now[0], self._seen[0]) else Kind.FILE, found)

    def _shrunk(self, now: list[Look]) -> str | None:
        """A database that never gives pages back is shorter. SQLite takes an empty one for new and deletes its log."""
        seen, there = self._seen[0], now[0]
        return f"{self._names[0]} was cut" if seen and there and there[2] < seen[2] else None

    def strays(self) -> list[Path]:
        """Companions under our names that are not ours."""
        pairs = list(zip(self._paths, self._seen, strict=True))[1:]
        return [Path(path) for path, seen in pairs if not _is_same(seen, _look(path))]

    def is_replaced(self) -> bool:
        """Whether another database lies under the name."""
        return not _is_same(self._seen[0], _look(self._paths[0]))

    def _swapped(self, now: list[Look]) -> str | None:
        for name, seen, there in zip(self._names, self._seen, now, strict=True):
            if not _is_same(seen, there):
                return f"{name} was {'removed' if there is None else 'replaced' if seen else 'put there'}"
        return None


def _is_same(one: Look, other: Look) -> bool:
    return (one[:2] if one else None) == (other[:2] if other else None)


def _look(path: str) -> Look:
    try:
        stat = os.stat(path)  # noqa: PTH116 - a third of the time that Path.stat takes
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
