"""`activations.jsonl` beside the slots: every change of a slot, for ever; nothing in it is ever rewritten.

Each line is one change with its number, when (UTC), who, why, the digest, and what was there before. A change is
durable in `slots.json` first, which keeps the newest 200 until they are here: whoever is killed in between leaves
lines that the next change, or the next who reads, appends. A line that a power cut tore is left and written again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from edge_runtime.core.custody import custody_of
from edge_runtime.core.errors import StorageError
from edge_runtime.core.strict_json import parse_json
from edge_runtime.modelstore.slots_file import Change, SlotsFile

FILE = "activations.jsonl"
TAIL_BYTES = 1 << 16  # the last whole line is in it: a line has at most some hundred bytes


class Activations:
    """The log of a store, by its folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def rows(self) -> list[dict[str, Any]]:
        """Oldest first, with those that are not in the file yet. Raises StorageError when it cannot be read."""
        path = self._folder / FILE
        try:
            rows = list(_whole_lines(path.read_bytes()))
        except FileNotFoundError:
            rows = []
        except OSError as err:
            raise StorageError(f"cannot read {path}: {err.strerror or err}", "become root") from err
        last = max((row["number"] for row in rows), default=0)
        return rows + [asdict(change) for change in SlotsFile(self._folder).read().changes if change.number > last]


def last_number(folder: Path) -> int:
    """Of the newest line; 0 where there is none, or it may not be read."""
    try:
        with (folder / FILE).open("rb") as file:
            return _last(_tail(file))
    except OSError:
        return 0


def append(folder: Path, changes: list[Change]) -> None:
    """Bring what is missing into the log. Under the lock of the slots. Raises OSError; the next change tries again."""
    path = folder / FILE
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with os.fdopen(fd, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        tail = _tail(file)
        last = _last(tail)
        missing = [change for change in changes if change.number > last]
        if not missing:
            return
        torn = b"" if tail.endswith(b"\n") or not tail else b"\n"
        file.write(torn + b"".join(json.dumps(asdict(change)).encode() + b"\n" for change in missing))
        file.flush()
        os.fsync(file.fileno())
        custody_of(folder).take_open(file.fileno())


def _tail(file: IO[bytes]) -> bytes:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - TAIL_BYTES))
    return file.read()


def _last(content: bytes) -> int:
    return max((row["number"] for row in _whole_lines(content)), default=0)


def _whole_lines(content: bytes) -> Iterator[dict[str, Any]]:
    for line in content.split(b"\n")[:-1]:
        try:
            row = parse_json(line.decode())
        except (ValueError, RecursionError):
            continue  # torn by a power cut, or the beginning of the tail
        if isinstance(row, dict) and isinstance(row.get("number"), int):
            yield row
