"""What this box has seen of its repository: the latest time, the newest versions, the newest release of each model.

Kept apart from the cache of metadata, which may be thrown away: without this an old repository could be played back to
a box whose cache was lost. Written in one step and flushed.

The time floor stands in where nobody keeps the clock right. It only goes forward: with a clock that is synced, and with
the moment at which accepted metadata was signed. A box without a battery that believes in 1970 cannot be made to take
metadata that has expired; one that believes in 2099 takes what is good.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from edge_runtime.core.custody import custody_of
from edge_runtime.core.errors import StorageError
from edge_runtime.core.files import write_atomic
from edge_runtime.core.strict_json import parse_json
from edge_runtime.recording.wall_clock import TimeQuality, time_quality

log = logging.getLogger(__name__)

Utc = Callable[[], datetime | None]  # None: nobody keeps the clock right

FILE = "seen.json"
EARLIEST = datetime(2026, 11, 1, tzinfo=UTC)  # no box ran this code before it was written
SLACK = timedelta(days=1)  # by which a synced clock may be behind what was seen: time zones set wrong, a wrong server


@dataclass(frozen=True, slots=True)
class Release:
    """The newest release of a model that was taken: its number only grows. digest: of the bundle."""

    number: int
    digest: str


@dataclass(frozen=True, slots=True)
class Seen:
    """repository: SHA-256 of the trusted root that `versions` (timestamp, snapshot) belong to."""

    floor: datetime = EARLIEST
    repository: str = ""
    versions: Mapping[str, int] = field(default_factory=dict)
    releases: Mapping[str, Release] = field(default_factory=dict)

    def later(self, moment: datetime | None) -> Seen:
        return replace(self, floor=max(self.floor, moment)) if moment else self

    def with_release(self, name: str, release: Release) -> Seen:
        return replace(self, releases={**self.releases, name: release})


@dataclass(frozen=True, slots=True)
class Now:
    """The time by which expiry is judged. by: `clock` (synced) or `floor`."""

    at: datetime
    by: str

    def __str__(self) -> str:
        how = (
            "the synced clock"
            if self.by == "clock"
            else "the latest time this box knows for sure, its clock is not synced"
        )
        return f"{self.at:%Y-%m-%d %H:%M} UTC by {how}"


def synced_utc() -> datetime | None:
    """The wall clock, where somebody keeps it right."""
    return datetime.now(UTC) if time_quality() is TimeQuality.SYNCED else None


def judge_now(clock: datetime | None, floor: datetime) -> Now:
    """A synced clock counts, unless it is behind what was seen for sure: then somebody turned it back."""
    if clock is not None and clock >= floor - SLACK:
        return Now(clock, "clock")
    return Now(floor, "floor")


class SeenFile:
    """The file in the folder of updates. One writer at a time: the caller holds the lock of updates."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def read(self) -> Seen:
        """A damaged file is set aside and told: then the floor is that of this code, and metadata starts anew."""
        try:
            return _seen(parse_json(self.path.read_text("utf-8")))
        except FileNotFoundError:
            return Seen()
        except OSError as err:
            raise StorageError(f"cannot read {self.path}: {err.strerror or err}", "mend its owner and mode") from err
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as err:
            aside = self.path.with_suffix(".damaged")
            log.error("updates.seen_damaged %s was damaged (%s); it lies in %s now", self.path, err, aside)
            try:
                self.path.replace(aside)
            except OSError as os_err:
                raise StorageError(f"{self.path} is damaged and cannot be set aside: {os_err}", "remove it") from err
            return Seen()

    def write(self, seen: Seen) -> None:
        table = asdict(seen) | {"floor": seen.floor.isoformat()}
        try:
            write_atomic(self.path, json.dumps(table, indent=1), custody=custody_of(self.path.parent))
        except OSError as err:
            raise StorageError(f"cannot write {self.path}: {err.strerror or err}", "make room, or become root") from err


def _seen(table: Any) -> Seen:
    floor = datetime.fromisoformat(table["floor"])
    if floor.tzinfo is None:
        raise ValueError(f"{floor} has no time zone")
    return Seen(
        max(floor, EARLIEST),
        str(table["repository"]),
        {str(role): int(version) for role, version in table["versions"].items()},
        {str(name): Release(int(row["number"]), str(row["digest"])) for name, row in table["releases"].items()},
    )
