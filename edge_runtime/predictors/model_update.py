"""A signed update from its source to the candidate: looked for, fetched, landed, tried in a child process, staged.

It never comes to work by itself. A model that kills its child process, or does not say what its golden set says, is put
in quarantine with the reason: it is not fetched and not staged again.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.errors import EdgeError, StorageError
from edge_runtime.modelstore.slots import Slots
from edge_runtime.modelstore.store import ModelStore
from edge_runtime.modelstore.updates.download import Told
from edge_runtime.modelstore.updates.trust import Offer, UpdateRefused
from edge_runtime.modelstore.updates.update import Look, Updates
from edge_runtime.predictors.quarantine import try_or_quarantine

log = logging.getLogger(__name__)

MOST_WHY = 500  # characters of a reason that go into the journal


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """What came of it. state: `candidate` (it waits for promote), `at_work`, `previous`,
    `available`, `taken` (and in no slot any more), `none`."""

    model: str
    state: str
    release: int | None
    digest: str
    source: str
    signed_until: str
    time_by: str  # what expiry was judged by: clock or floor

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def update_model(
    cfg: EdgeConfig, store: ModelStore, updates: Updates, name: str, by: str, told: Told, *, only_look: bool = False
) -> UpdateReport:
    """Bring the release of one model to its candidate slot. Raises EdgeError: the slots are as they were."""
    with updates.locked():
        look = updates.look(name)
        if look.offer is None or only_look or not look.is_new:
            return _report(updates, name, look, _state(store, look))
        offer = look.offer
        if why := store.notes.quarantined(offer.digest):
            raise UpdateRefused(
                f"{offer.label} is in quarantine: {why}", "ask its maker for another release", "quarantine"
            )
        bundle = updates.land(offer, updates.fetch(offer, told), store, by)
        try_or_quarantine(bundle, store, cfg, by)
        if _standing(store, offer) == "available":
            Slots(store).stage(bundle.label, by, f"release {offer.release} of {updates.where}")
        updates.taken(offer)
        return _report(updates, name, look, _standing(store, offer))


def note_refusal(store: ModelStore, name: str, by: str, where: str, err: EdgeError) -> None:
    """For the journal: that an update was refused, and why. What only failed to arrive is no refusal."""
    if isinstance(err, UpdateRefused):
        try:
            Slots(store).note(name, "update_refused", "", "", by, f"{where}: {err.what}"[:MOST_WHY])
        except StorageError as told:
            log.error("update.refused not noted: %s", told)


def _state(store: ModelStore, look: Look) -> str:
    if look.offer is None:
        return "none"
    standing = _standing(store, look.offer)
    return "taken" if standing == "available" and not look.is_new else standing


def _standing(store: ModelStore, offer: Offer) -> str:
    slot = Slots(store).of(offer.name)
    for state, held in (("at_work", slot.active), ("candidate", slot.candidate), ("previous", slot.previous)):
        if held is not None and (held.version, held.digest) == (offer.version, offer.digest):
            return state
    return "available"


def _report(updates: Updates, name: str, look: Look, state: str) -> UpdateReport:
    offer = look.offer
    return UpdateReport(
        offer.label if offer else name,
        state,
        offer.release if offer else None,
        offer.digest if offer else "",
        updates.where,
        look.expires.isoformat(),
        look.judged_by,
    )
