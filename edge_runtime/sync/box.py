"""What the uplink knows of the box it runs on: the running line, the machine, and how old what waits is."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_runtime.core.errors import EdgeError, StorageError
from edge_runtime.core.status import Status
from edge_runtime.core.typed_json import to_json
from edge_runtime.process.ask_status import Silence, ask_status, silence_of
from edge_runtime.sync.outbox.status import spool_status

STATUS_WAIT_S = 0.9  # a metrics record may take a second
STATUS_FRESH_S = 0.5
OLDEST_EVERY_S = 10.0
THERMAL = Path("/sys/class/thermal/thermal_zone0/temp")


@dataclass(frozen=True, slots=True)
class Silent:
    """`edge-runtime run` does not say how it is: one word for records and tags, and the sentence."""

    state: Silence
    detail: str

    def to_json(self) -> dict[str, Any]:
        return to_json(self)


class RunWatch:
    """What `edge-runtime run` says of itself, asked at most twice a second for all who want it. From any thread."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._lock = threading.Lock()
        self._seen: Status | Silent = Silent(Silence.STOPPED, "not asked yet")
        self._until_s = 0.0

    def look(self) -> Status | Silent:
        """Silent when it is not there, refuses, hangs, or is of a version that is not understood."""
        with self._lock:
            if time.monotonic() >= self._until_s:
                try:
                    self._seen = ask_status(self.socket, STATUS_WAIT_S)
                except EdgeError as err:
                    self._seen = Silent(silence_of(err), str(err))
                self._until_s = time.monotonic() + STATUS_FRESH_S
            return self._seen


class OldestRecord:
    """Age of the oldest record that waits, looked at every few seconds. One thread."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._next_s = 0.0
        self._age_s: float | None = None

    def age_s(self) -> float | None:
        """None where the outbox cannot be read."""
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + OLDEST_EVERY_S
            self._age_s = None
            with suppress(StorageError, ValueError):
                made = spool_status(self._state)["oldest"]
                age = datetime.now(UTC) - datetime.fromisoformat(made) if made else None
                self._age_s = max(0.0, age.total_seconds()) if age else 0.0
        return self._age_s


class Allowance:
    """So many a minute."""

    def __init__(self, a_minute: int) -> None:
        self._most = self._left = float(a_minute)
        self._at_s = time.monotonic()
        self._lock = threading.Lock()

    def take(self) -> bool:
        with self._lock:
            now = time.monotonic()
            self._left = min(self._most, self._left + (now - self._at_s) * self._most / 60)
            self._at_s = now
            if self._left < 1:
                return False
            self._left -= 1
            return True


def machine(state: Path) -> dict[str, Any]:
    return {"temperature_c": _temperature_c(), "disk_free_mb": _disk_free_mb(state)}


def metrics(run: RunWatch, state: Path) -> dict[str, Any]:
    """What a metrics record says of the box. `run.state` is a word of Silence where `run` does not say."""
    shot = run.look()
    return {"run": shot.to_json() if isinstance(shot, Silent) else _figures(shot), **machine(state)}


def _figures(shot: Status) -> dict[str, Any]:
    return {
        "state": shot.state,
        "uptime_s": shot.uptime_s,
        "parts": shot.parts,
        "verdicts": shot.verdicts,
        "causes": shot.causes,
        "outcomes": shot.outcomes,
        "late": shot.late,
        "on_belt": shot.on_belt,
        "latency_ms": to_json(shot.latency_ms),
        "rss_mb": shot.rss_mb,
        "cpu_s": shot.cpu_s,
        "model": shot.model,
        "automation": shot.automation,
        "health": {name: health.state for name, health in shot.health.items()},
    }


def rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def _temperature_c() -> float | None:
    """Of the processor; None on a machine that does not tell."""
    try:
        return int(THERMAL.read_text()) / 1000
    except (OSError, ValueError):
        return None


def _disk_free_mb(folder: Path) -> float | None:
    try:
        room = os.statvfs(folder)
    except OSError:
        return None
    return round(room.f_bavail * room.f_frsize / 1e6, 1)
