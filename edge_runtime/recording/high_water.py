"""The mark beside the journal: how far it had come, and what an earlier run could not write any more.

A database that lost its newest rows (a damaged or deleted log, an older copy brought back) is valid: nothing in it says
that there was more. `journal.mark` does. It is written after each commit, so it never claims what is not durable, in
place and in turn into two slots, so that a torn write leaves the other; 20 us a commit, because it is synced only about
once a second and not by the writer. A power cut therefore costs at most the last second of the mark, never of the
journal. The third slot holds the last words of a run whose disk was full. The file is as long as it will ever be from
the start: writing it needs no room.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edge_runtime.core.files import is_still_at

SLOT_BYTES = 1024  # one slot lies within one block of every disk; a mark takes some 400
WORDS_SLOT = 2
SLOTS = 3


@dataclass(frozen=True, slots=True)
class HighWater:
    """`first` and `last`: the oldest and the newest row of each table that the journal of this name held. `given`: the
    highest number it ever gave, which retention does not lower. `counted`: what its table `loss` said was missing, by
    what it is about. `boot`: of the machine; a mark of this boot is exact, because no power cut came after it."""

    journal: str
    last: Mapping[str, int] = field(default_factory=dict)
    first: Mapping[str, int] = field(default_factory=dict)
    given: Mapping[str, int] = field(default_factory=dict)
    at_utc_ns: int = 0
    counted: Mapping[str, int] = field(default_factory=dict)
    boot: str = ""


_FIELDS = HighWater.__match_args__  # dataclasses.asdict copies what it finds: 20 us


@dataclass(frozen=True, slots=True)
class LastWords:
    """What a run had in memory and could not write. records: how many of each kind; parts: how many they are about."""

    run: int
    parts: int
    records: Mapping[str, int]
    first_utc_ns: int
    last_utc_ns: int


def mark_file(journal: Path) -> Path:
    return journal.with_suffix(".mark")


def read_high_water(journal: Path) -> HighWater | None:
    """None where there is no mark, or none that makes sense: then nothing is known of before."""
    return _newest(_slots(mark_file(journal)))[1]


class MarkFile:
    """The mark of one journal, held open by its writer. Raises OSError; without a mark the journal goes on."""

    def __init__(self, journal: Path) -> None:
        self.path = mark_file(journal)
        self._fd: int | None = None
        self._count = 0
        self._is_synced = True

    def open(self) -> tuple[HighWater | None, LastWords | None]:
        """What the file says; it is made when it is not there."""
        self.close()
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        slots = _slots(self.path)
        if os.fstat(self._fd).st_size < SLOTS * SLOT_BYTES:
            os.pwrite(self._fd, b" " * (SLOTS * SLOT_BYTES), 0)  # bytes, not a hole: a hole needs room later
            os.fsync(self._fd)
        self._count, mark = _newest(slots)
        return mark, _words(slots[WORDS_SLOT])

    def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def is_there(self) -> bool:
        """Whether the file under its name is the one that is open."""
        return self._fd is not None and is_still_at(self.path, self._fd)

    def write(self, mark: HighWater) -> None:
        self._count += 1
        self._put(self._count % WORDS_SLOT, {"count": self._count} | {name: getattr(mark, name) for name in _FIELDS})

    def sync(self) -> None:
        """Onto the medium. May be called from another thread than the one that writes."""
        fd = self._fd
        if fd is not None and not self._is_synced:
            self._is_synced = True
            os.fdatasync(fd)

    def speak(self, words: LastWords | None) -> None:
        """Leave last words, durably; None takes them back."""
        self._put(WORDS_SLOT, asdict(words) if words else None)
        self.sync()

    def _put(self, slot: int, value: Mapping[str, Any] | None) -> None:
        if self._fd is None:
            return
        text = b"" if value is None else json.dumps(value, separators=(",", ":")).encode()
        line = b"%08x %s\n" % (zlib.crc32(text), text) if text else b"\n"
        os.pwrite(self._fd, line.ljust(SLOT_BYTES)[:SLOT_BYTES], slot * SLOT_BYTES)
        self._is_synced = False


def _slots(path: Path) -> list[dict[str, Any]]:
    """What each slot holds; nothing for one that is empty, torn or damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    return [_slot(content[at * SLOT_BYTES : (at + 1) * SLOT_BYTES]) for at in range(SLOTS)]


def _slot(line: bytes) -> dict[str, Any]:
    digits, _, text = line.partition(b"\n")[0].partition(b" ")
    try:
        value = json.loads(text) if int(digits, 16) == zlib.crc32(text) else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _newest(slots: list[dict[str, Any]]) -> tuple[int, HighWater | None]:
    marks = [slot for slot in slots[:WORDS_SLOT] if isinstance(slot.get("count"), int)]
    if not marks:
        return 0, None
    newest = max(marks, key=lambda slot: slot["count"])
    try:
        last, first, given, counted = (_rows(newest[name]) for name in ("last", "first", "given", "counted"))
        at_utc_ns, boot = int(newest["at_utc_ns"]), str(newest["boot"])
        mark = HighWater(str(newest["journal"]), last, first, given, at_utc_ns, counted, boot)
    except (KeyError, ValueError, TypeError, AttributeError):
        return 0, None
    return newest["count"], mark


def _words(slot: dict[str, Any]) -> LastWords | None:
    try:
        return LastWords(
            int(slot["run"]),
            int(slot["parts"]),
            _rows(slot["records"]),
            int(slot["first_utc_ns"]),
            int(slot["last_utc_ns"]),
        )
    except (KeyError, ValueError, TypeError, AttributeError):
        return None


def _rows(found: Mapping[str, Any]) -> dict[str, int]:
    return {str(name): int(row) for name, row in found.items()}
