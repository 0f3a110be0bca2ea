"""`slots.json`: the slots of a store on the disk, with the lock that every change holds.

    {"scratch": {"active": "2", "active_digest": "...", "candidate": null, "previous": "1", ...}, "_changes": [...]}

A model's name cannot begin with an underscore, so what does is the file's own. Files of earlier versions, without
digests and changes, are read as they are.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edge_runtime.core.custody import custody_of, rights_fix
from edge_runtime.core.errors import StorageError
from edge_runtime.core.files import sync, write_atomic
from edge_runtime.core.strict_json import parse_json

log = logging.getLogger(__name__)

FILE = "slots.json"
LOCK = "slots.lock"
LOCK_WAIT_S = 10.0  # a change takes two syncs of the disk: 10 ms, a second on a worn card
LOCK_NAP_S = 0.005
CHANGES, TOLD = "_changes", "_told"


@dataclass(frozen=True, slots=True)
class Held:
    """One version of a model. digest: of its manifest; empty where an earlier version of the product noted none."""

    version: str
    digest: str = ""

    def is_same(self, other: Held | None) -> bool:
        """The same bundle, as far as both are known."""
        if other is None or self.version != other.version:
            return False
        return not (self.digest and other.digest) or self.digest == other.digest


@dataclass(frozen=True, slots=True)
class Slot:
    """What is chosen of one model; None: empty.

    is_default: nobody chose `active`, it is what the product brought. failed, fault: what the last start could not run,
    and why; until a person chooses again. starts, boot: starts of `active` under way or ended by a death of the
    process, in this boot of the machine. proven: digest and runtime whose golden test was passed.
    """

    active: Held | None = None
    candidate: Held | None = None
    previous: Held | None = None
    is_default: bool = False
    failed: Held | None = None
    fault: str = ""
    starts: int = 0
    boot: str = ""
    proven: str = ""

    def versions(self) -> dict[str, str | None]:
        """As people are told it."""
        held = {"active": self.active, "candidate": self.candidate, "previous": self.previous}
        return {slot: one.version if one else None for slot, one in held.items()}


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a slot: who, when (UTC), why; `before` and `now` as NAME@VERSION, empty for none."""

    number: int
    at: str
    name: str
    verb: str
    before: str
    now: str
    digest: str
    by: str
    why: str


@dataclass(slots=True)
class Table:
    """The whole file. told: number of the last change that a journal has."""

    slots: dict[str, Slot] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    told: int = 0


class SlotsFile:
    """The file in the folder of a store. Reading needs no lock: it is replaced in one step."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._folder = folder

    def read(self) -> Table:
        """Raises StorageError when the file is there and cannot be read or understood."""
        try:
            return _table(parse_json(self.path.read_text("utf-8")))
        except FileNotFoundError:
            return Table()
        except PermissionError as err:
            raise StorageError(f"may not read {self.path}", rights_fix(self._folder, to_write=False)) from err
        except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as err:
            raise StorageError(
                f"cannot read {self.path}: {err}", "remove it, and the model that ran last is kept"
            ) from err

    def identity(self) -> tuple[int, int] | None:
        try:
            about = self.path.stat()
        except OSError:
            return None
        return about.st_ino, about.st_mtime_ns

    @contextmanager
    def locked(self) -> Iterator[Table]:
        """The table, while nobody else may change it. Raises StorageError after LOCK_WAIT_S."""
        try:
            custody = custody_of(self._folder)
            custody.make_folder(self._folder)
            custody.mend(self._folder)
            lock = os.open(self._folder / LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as err:
            raise self._cannot_write(err) from err
        try:
            self._wait_for(lock)
            custody.take_open(lock)
            yield self.read()
        finally:
            os.close(lock)

    def write(self, table: Table) -> None:
        """Replace the file; on the disk when this returns. Raises StorageError, and the old one is still there."""
        rows: dict[str, Any] = {name: _row(slot) for name, slot in table.slots.items()}
        rows |= {CHANGES: [asdict(change) for change in table.changes], TOLD: table.told}
        try:
            text = json.dumps(rows, indent=1)
            write_atomic(self.path, text, custody=custody_of(self._folder), sync_folder=False)
        except OSError as err:
            raise self._cannot_write(err) from err
        try:
            sync(self._folder)
        except OSError as err:  # the choice is made; a power cut now may bring back the one before, whole
            log.error("slots.flush %s: %s", self._folder, err)

    def _wait_for(self, lock: int) -> None:
        until = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as err:
                if time.monotonic() > until:
                    raise StorageError(
                        f"{self._folder / LOCK} is held by another program for {LOCK_WAIT_S:.0f} s",
                        "end it (fuser -v names it), then ask again",
                    ) from err
                time.sleep(LOCK_NAP_S)
            except OSError as err:
                raise self._cannot_write(err) from err

    def _cannot_write(self, err: OSError) -> StorageError:
        fix = rights_fix(self._folder, to_write=True) if isinstance(err, PermissionError) else ""
        return StorageError(f"cannot write {self.path}: {err.strerror or err}", fix)


def _row(slot: Slot) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key in _HELD:
        held: Held | None = getattr(slot, key)
        row[key] = held.version if held else None
        row[f"{key}_digest"] = held.digest if held else ""
    return row | {key: getattr(slot, key) for key in _PLAIN}


_PLAIN: Mapping[str, type] = {"is_default": bool, "fault": str, "starts": int, "boot": str, "proven": str}
_HELD = ("active", "candidate", "previous", "failed")


def _table(read: Any) -> Table:
    slots = {name: _slot(row) for name, row in read.items() if not name.startswith("_")}
    changes = [
        Change(**{key: _typed(row[key], kind) for key, kind in _CHANGE.items()}) for row in read.get(CHANGES, [])
    ]
    return Table(slots, changes, _typed(read.get(TOLD, 0), int))


_CHANGE: Mapping[str, type] = {
    "number": int, "at": str, "name": str, "verb": str, "before": str, "now": str, "digest": str, "by": str, "why": str,
}  # fmt: skip


def _slot(row: Mapping[str, Any]) -> Slot:
    known = {*_HELD, *(f"{key}_digest" for key in _HELD), *_PLAIN}
    if unknown := sorted(set(row) - known):
        raise ValueError(f"{unknown[0]!r} is none of a slot's keys")
    given: dict[str, Any] = {
        key: Held(_typed(row[key], str), _typed(row.get(f"{key}_digest", ""), str))
        for key in _HELD
        if row.get(key) is not None
    }
    given |= {key: _typed(row[key], kind) for key, kind in _PLAIN.items() if key in row}
    return Slot(**given)


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{value!r} is no {kind.__name__}")
    return value
