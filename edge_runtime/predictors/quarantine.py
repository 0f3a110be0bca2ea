"""A bundle that kills its child process, or does not say what its golden set says, stays out, with the reason.

`models verify` tries it again, and lets it out when it passes: a golden test may also fail for want of memory.
"""

from __future__ import annotations

import logging

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.errors import ModelError, StorageError
from edge_runtime.modelstore.bundle import Bundle
from edge_runtime.modelstore.slots import Slots
from edge_runtime.modelstore.store import ModelStore
from edge_runtime.predictors.model_choice import refuse_untested

log = logging.getLogger(__name__)


def try_or_quarantine(bundle: Bundle, store: ModelStore, cfg: EdgeConfig, by: str) -> None:
    """Its golden test in a child process. Raises ModelError, and the bundle is in quarantine with the reason.

    What the product brought is refused and no more: there is nobody to bring another.
    """
    try:
        refuse_untested(bundle, cfg.model)
    except ModelError as err:
        if not store.is_shipped(bundle):
            _put_in(bundle, store, str(err), by)
        raise


def _put_in(bundle: Bundle, store: ModelStore, why: str, by: str) -> None:
    """Noted beside the store and for the journal. A disk that takes no note must not hide why it was refused."""
    try:
        store.notes.quarantine(bundle.digest, bundle.label, why)
        Slots(store).note(bundle.manifest.name, "quarantined", bundle.label, bundle.digest, by, why)
    except (OSError, StorageError) as err:
        log.error("model.quarantine %s could not be noted: %s", bundle.label, err)
