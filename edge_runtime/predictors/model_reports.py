"""What `models` says: all bundles, one in full, and whether they are whole and still say the same."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.errors import ModelError, UsageError
from edge_runtime.core.manifest import Manifest
from edge_runtime.modelstore.bundle import CARD, MANIFEST, Bundle, file_digest, load_bundle
from edge_runtime.modelstore.manifest_toml import read_manifest
from edge_runtime.modelstore.slots import Slots
from edge_runtime.modelstore.slots_file import Slot
from edge_runtime.modelstore.store import ModelStore, Stored, open_bundle
from edge_runtime.predictors.model_choice import would_run

log = logging.getLogger(__name__)


def list_models(cfg: EdgeConfig, store: ModelStore) -> list[dict[str, Any]]:
    """One row for each bundle. Manifests are read, digests are not compared."""
    slots = Slots(store)
    return [_row(stored, cfg, store, slots.of(stored.name)) for stored in store.list()]


def show_model(reference: str, store: ModelStore) -> dict[str, Any]:
    """Everything that the manifest says, where it is and its card. Raises UsageError for an unknown name."""
    bundle = find(reference, store)
    card = bundle.folder / CARD
    return {
        "model": bundle.label,
        "folder": str(bundle.folder),
        "digest": bundle.digest,
        **bundle.manifest.model_dump(mode="json", exclude_none=True),
        "card": card.read_text(encoding="utf-8", errors="replace") if card.exists() else "",
    }


def verify_models(reference: str, cfg: EdgeConfig, store: ModelStore) -> list[dict[str, Any]]:
    """Digests compared, the model loaded and its golden pictures asked in a child process. All bundles, or one."""
    if reference:
        folders = [reference if "/" in reference else str(_find(reference, store).folder)]
    else:
        folders = [str(stored.folder) for stored in store.list()]
    rows = [_verify(folder, cfg) for folder in folders]
    for row in rows:
        if row["ok"] and store.release(row["digest"]):
            log.info("model.released %s passed its test and is out of quarantine", row["model"])
    return rows


def find(reference: str, store: ModelStore) -> Bundle:
    """A bundle by name or path. Raises UsageError when there is none of that name, ModelError when it is broken."""
    if "/" not in reference:
        _find(reference, store)
    return open_bundle(reference, store)


def _find(reference: str, store: ModelStore) -> Stored:
    try:
        return store.find(reference)
    except ModelError as err:
        raise UsageError(str(err)) from err


def _row(stored: Stored, cfg: EdgeConfig, store: ModelStore, slot: Slot) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": stored.name,
        "version": stored.version,
        "model": stored.label,
        "folder": str(stored.folder),
        "shipped": stored.is_shipped,
        "origin": str(store.provenance(stored).origin),
        "station": stored.name == cfg.model.name.partition("@")[0] and _would_run(cfg, store) == stored,
        "slot": next((key for key, version in slot.versions().items() if version == stored.version), None),
    }
    try:
        manifest = read_manifest(stored.folder / MANIFEST)
    except ModelError as err:
        return row | {"kind": None, "title": "", "problem": str(err)}
    return row | {
        "kind": str(manifest.kind),
        "title": manifest.title,
        "licence": manifest.licence,
        "thresholds": manifest.thresholds.model_dump(mode="json"),
        "bytes": sum(
            (stored.folder / name).stat().st_size for name in manifest.files if (stored.folder / name).exists()
        ),
        "problem": _mismatch(manifest, stored) or _quarantine(stored, store),
    }


def _would_run(cfg: EdgeConfig, store: ModelStore) -> Stored | None:
    try:
        return would_run(cfg.model.name, store)
    except ModelError:
        return None  # it names what is not there


def _quarantine(stored: Stored, store: ModelStore) -> str:
    why = "" if stored.is_shipped else store.notes.quarantined(file_digest(stored.folder / MANIFEST))
    return f"in quarantine: {why}" if why else ""


def _mismatch(manifest: Manifest, stored: Stored) -> str:
    return "" if manifest.label == stored.label else f"the manifest calls itself {manifest.label}"


def _verify(folder: str, cfg: EdgeConfig) -> dict[str, Any]:
    from edge_runtime.predictors.golden import check_golden  # 0.5 s of numpy and OpenCV that a listing does not need

    row: dict[str, Any] = {"model": "", "folder": folder, "ok": False, "problem": ""}
    try:
        bundle = load_bundle(folder)
    except ModelError as err:
        return row | {"problem": str(err)}
    golden = asdict(check_golden(bundle, cfg.model))
    row |= {"model": bundle.label, "digest": bundle.digest, "files": len(bundle.manifest.files)}
    return row | {"ok": not golden["problem"], "problem": golden.pop("problem"), "golden": golden}
