"""Which version of a model runs, which one waits, and which one ran before: three slots for each name.

`active` runs; `candidate` was staged and waits; `previous` is what a rollback goes back to. A station that names a
model without a version gets the active one. Kept in one small file beside the bundles, replaced in one step and
flushed, so that a power cut leaves the old choice or the new one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from edge_runtime.core.errors import ModelError, StorageError
from edge_runtime.modelstore.store import ModelStore

FILE = "slots.json"


@dataclass(frozen=True, slots=True)
class Slot:
    """Versions of one model; None: empty."""

    active: str | None = None
    candidate: str | None = None
    previous: str | None = None


class Slots:
    """The slots of one store. Every change is read, checked against the store and written whole."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store
        self._path = store.own / FILE

    def all(self) -> Mapping[str, Slot]:
        """By model name. Raises StorageError when the file is there and cannot be understood."""
        try:
            read = json.loads(self._path.read_text("utf-8"))
            return {
                str(name): Slot(**{key: _version(value) for key, value in slot.items()}) for name, slot in read.items()
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as err:
            raise StorageError(
                f"cannot read {self._path}: {err}; remove it, and every model runs in its newest version"
            ) from err

    def of(self, name: str) -> Slot:
        return self.all().get(name, Slot())

    def reference(self, wanted: str) -> str:
        """What a station's `model.name` means now: NAME becomes NAME@ACTIVE where one is active."""
        name, at, _ = wanted.partition("@")
        active = None if at else self.of(name).active
        return f"{name}@{active}" if active else wanted

    def stage(self, reference: str) -> Slot:
        """Put an installed bundle into `candidate`. Its digests are compared first."""
        bundle = self._store.resolve(reference)
        name = bundle.manifest.name
        return self._write(name, replace(self.of(name), candidate=bundle.manifest.version))

    def promote(self, name: str, running: str) -> Slot:
        """The candidate becomes active; `running`, the version that ran until now, becomes previous."""
        slot = self.of(name)
        if slot.candidate is None:
            raise ModelError(f"{name} has no candidate; stage one first: edge-runtime models stage {name}@VERSION")
        if slot.candidate == running:
            raise ModelError(f"{name}@{running} is at work already; stage another version")
        self._store.resolve(f"{name}@{slot.candidate}")
        return self._write(name, Slot(active=slot.candidate, candidate=None, previous=running))

    def rollback(self, name: str, running: str) -> Slot:
        """Back to what ran before. What ran until now stays as candidate."""
        slot = self.of(name)
        if slot.previous is None:
            raise ModelError(f"{name} has no previous version to go back to")
        self._store.resolve(f"{name}@{slot.previous}")
        return self._write(name, Slot(active=slot.previous, candidate=running, previous=None))

    def _write(self, name: str, slot: Slot) -> Slot:
        slots = {**self.all(), name: slot}
        partial = self._path.with_suffix(f".{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("w", encoding="utf-8") as file:
                json.dump({one: asdict(its) for one, its in slots.items()}, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as err:
            partial.unlink(missing_ok=True)
            raise StorageError(f"cannot write {self._path}: {err.strerror or err}") from err
        return slot


def _version(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{value!r} is no version")
    return value
