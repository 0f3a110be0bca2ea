"""Which version of a model runs, which one waits, and which one ran before: three slots for each name.

`active` runs; `candidate` was staged and waits; `previous` is what a rollback, or a start that fails, goes back to.
Each names a version and the digest of its manifest, so that other files under the same version are not mistaken for it.
What was changed, by whom and why stands in the same file until the running box has journalled it, and for ever in
`activations.jsonl` beside it.

A change is read, decided and written under one lock: without it three programs that staged at once lost one of their
changes in 61 of 100 rounds. The file is replaced in one step and flushed: a power cut leaves the old choice or the new.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal

from edge_runtime.core.errors import ModelError
from edge_runtime.modelstore.activations import append, last_number
from edge_runtime.modelstore.bundle import Bundle
from edge_runtime.modelstore.slots_file import Change, Held, Slot, SlotsFile, Table
from edge_runtime.modelstore.store import ModelStore

log = logging.getLogger(__name__)

Verb = Literal["staged", "promoted", "rolled_back", "fell_back", "set", "undone"]
Note = Literal["installed", "quarantined", "update_refused"]  # about a bundle, while no slot changes
Edit = Callable[[Slot], Slot]  # what a slot becomes; raises EdgeError: nothing changes

MOST_CHANGES = 200  # the oldest go first; the journal has them all


class Slots:
    """The slots of one store."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store
        self._file = SlotsFile(store.own)

    def of(self, name: str) -> Slot:
        """The slot of one name; an empty one where there is none. Raises StorageError when it cannot be known."""
        return self._file.read().slots.get(name, Slot())

    def every(self) -> dict[str, Slot]:
        """All slots by name. Raises StorageError when they cannot be known."""
        return self._file.read().slots

    def waiting(self) -> list[str]:
        """Every candidate, as NAME@VERSION."""
        slots = self._file.read().slots
        return [f"{name}@{slot.candidate.version}" for name, slot in slots.items() if slot.candidate]

    def stage(self, reference: str, by: str = "", why: str = "") -> Slot:
        """Put an installed bundle into `candidate`. Its digests are compared first; see ModelStore.refuse_unfit."""
        bundle = self._store.resolve(reference)
        self._store.refuse_unfit(bundle)
        held = held_of(bundle)
        return self.change(bundle.manifest.name, "staged", lambda slot: replace(slot, candidate=held), by, why)

    def change(self, name: str, verb: Verb, edit: Edit, by: str = "", why: str = "") -> Slot:
        """One change of one slot, under the lock and durable when this returns. Raises EdgeError: nothing changed."""
        with self._file.locked() as table:
            before = table.slots.get(name, Slot())
            after = edit(before)
            if after != before:
                table.slots[name] = after
                self._append(table, _change_of(name, verb, before, after, by, why))
                self._file.write(table)
                self._log(table)
        return after

    def amend(self, name: str, edit: Edit) -> Slot:
        """The same for what the box keeps for itself in a slot: no choice is changed, nothing is journalled."""
        with self._file.locked() as table:
            before = table.slots.get(name, Slot())
            after = edit(before)
            if after != before:
                table.slots[name] = after
                self._file.write(table)
        return after

    def note(self, name: str, about: Note, label: str, digest: str, by: str = "", why: str = "") -> None:
        """Something about a bundle that the journal should have, though no slot changes."""
        with self._file.locked() as table:
            self._append(table, Change(0, "", name, about, "", label, digest, by, why))
            self._file.write(table)
            self._log(table)

    # -- what was changed ---------------------------------------------------------------------------------------------

    def changed_at(self) -> tuple[int, int] | None:
        """Which file it is, to see cheaply whether there is anything new. None: there is none."""
        return self._file.identity()

    def untold(self) -> list[Change]:
        """Changes that no journal has yet, the oldest first."""
        table = self._file.read()
        return [change for change in table.changes if change.number > table.told]

    def told(self, number: int) -> None:
        """All changes up to this one are in the journal."""
        with self._file.locked() as table:
            if number > table.told:
                table.told = number
                self._file.write(table)

    def _append(self, table: Table, change: Change) -> None:
        """With its number and the time. A number is never used again, also where slots.json was removed."""
        number = max([table.told, last_number(self._store.own), *(one.number for one in table.changes)]) + 1
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        table.changes.append(replace(change, number=number, at=at))
        del table.changes[:-MOST_CHANGES]

    def _log(self, table: Table) -> None:
        """The choice is made and stays made: a log that cannot be written now gets the line with the next change."""
        try:
            append(self._store.own, table.changes)
        except OSError as err:
            log.error("slots.log %s: %s", self._store.own, err)


def held_of(bundle: Bundle) -> Held:
    """A bundle as a slot names it."""
    return Held(bundle.manifest.version, bundle.digest)


def candidate_of(name: str, slot: Slot) -> Held:
    """What `promote` would put to work. Raises ModelError with what to do first."""
    if slot.candidate is None:
        raise ModelError(f"{name} has no candidate", f"stage one first: edge-runtime models stage {name}@VERSION")
    return slot.candidate


def previous_of(name: str, slot: Slot) -> Held:
    """What `rollback` would go back to. Raises ModelError when there is nothing."""
    if slot.previous is None:
        raise ModelError(f"{name} has no previous version to go back to")
    return slot.previous


def _change_of(name: str, verb: str, before: Slot, after: Slot, by: str, why: str) -> Change:
    gone = before.active or (after.previous if verb == "promoted" else None)  # what ran before any slot was written
    seen = (before.candidate, after.candidate) if verb == "staged" else (gone, after.active)
    labels = [f"{name}@{held.version}" if held else "" for held in seen]
    digest = seen[1].digest if seen[1] else ""
    return Change(0, "", name, verb, labels[0], labels[1], digest, by, why)
