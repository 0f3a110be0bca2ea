"""Where each bundle of a store came from, and which ones must not run: a small file for each, named by its digest.

    .provenance/DIGEST.json    signed, made here, or unsigned; by whom, when, out of which repository
    .quarantine/DIGEST.json    why it stays out: it killed its child process, or does not say what its golden set says

One file a bundle, replaced in one step: programs that install at once cannot lose each other's notes. A bundle without
a file was copied in by hand: unsigned.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from edge_runtime.core.custody import custody_of
from edge_runtime.core.files import write_atomic
from edge_runtime.core.strict_json import parse_json

log = logging.getLogger(__name__)

NOTES = ".provenance"
QUARANTINE = ".quarantine"


class Origin(StrEnum):
    SIGNED = "signed"  # out of an update repository whose signatures were checked
    SHIPPED = "shipped"  # came with the product
    MADE_HERE = "made here"  # taught on this box
    UNSIGNED = "unsigned"  # a file or folder that somebody brought


@dataclass(frozen=True, slots=True)
class Provenance:
    """How one bundle came. source: the repository; release: its number there; at: UTC."""

    origin: Origin = Origin.UNSIGNED
    by: str = ""
    source: str = ""
    release: int = 0
    at: str = ""


MADE_HERE = Provenance(Origin.MADE_HERE)
SHIPPED = Provenance(Origin.SHIPPED)
UNSIGNED = Provenance(Origin.UNSIGNED)


class ProvenanceNotes:
    """The notes in the folder of a store."""

    def __init__(self, store: Path) -> None:
        self._store = store

    def of(self, digest: str) -> Provenance:
        """UNSIGNED where there is no note, or one that cannot be read."""
        row = self._read(NOTES, digest)
        try:
            return Provenance(
                Origin(str(row["origin"])), str(row["by"]), str(row["source"]), int(str(row["release"])), str(row["at"])
            )
        except (KeyError, ValueError):
            return UNSIGNED

    def note(self, digest: str, came: Provenance) -> None:
        """Raises OSError. What is known to be signed stays so when somebody brings the same bundle as a file."""
        if came.origin is Origin.UNSIGNED and self.of(digest).origin is not Origin.UNSIGNED:
            return
        row = asdict(came) | {"at": came.at or datetime.now(UTC).isoformat(timespec="seconds")}
        self._write(NOTES, digest, row)

    def quarantine(self, digest: str, label: str, why: str) -> None:
        """Raises OSError."""
        log.error("model.quarantined %s digest=%s: %s", label, digest[:12], why)
        self._write(
            QUARANTINE, digest, {"model": label, "why": why, "at": datetime.now(UTC).isoformat(timespec="seconds")}
        )

    def quarantined(self, digest: str) -> str:
        """Why that bundle must not run; empty: it may."""
        return str(self._read(QUARANTINE, digest).get("why", ""))

    def release(self, digest: str) -> bool:
        """It passed its test after all. False where it was not in quarantine. Raises OSError."""
        path = self._store / QUARANTINE / f"{digest}.json"
        was_there = path.exists()
        path.unlink(missing_ok=True)
        return was_there

    def _read(self, folder: str, digest: str) -> dict[str, object]:
        try:
            row = parse_json((self._store / folder / f"{digest}.json").read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return row if isinstance(row, dict) else {}

    def _write(self, folder: str, digest: str, row: dict[str, object]) -> None:
        custody = custody_of(self._store)
        custody.make_folder(self._store / folder)
        path = self._store / folder / f"{digest}.json"
        write_atomic(path, json.dumps(row, indent=1), custody=custody)
