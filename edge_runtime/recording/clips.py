"""Sound of operators' requests, kept only where the station says so, and only for as long as it says.

WAV files in folders by day under the state folder. A disk that refuses costs the clip, never the request.
"""

from __future__ import annotations

import logging
import shutil
import wave
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from edge_runtime.core.messages import Utterance

log = logging.getLogger(__name__)

FOLDER = "clips"


class ClipShelf:
    """state: the state folder. keep_days: whole days after the day of the clip."""

    def __init__(self, state: Path, keep_days: int, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._state = state
        self._keep_days = keep_days
        self._now = now
        self._pruned_on = ""
        self._counts: Counter[str] = Counter()

    def keep(self, utterance: Utterance) -> str:
        """Write one; its name relative to the state folder, or empty when the disk refused."""
        now = self._now()
        day = now.strftime("%Y-%m-%d")
        name = f"{FOLDER}/{day}/{now.strftime('%H%M%S')}-{utterance.start_ns}.wav"
        path = self._state / name
        partial = path.with_suffix(".partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with wave.open(str(partial), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(utterance.rate_hz)
                file.writeframes(utterance.pcm.astype("<i2").tobytes())
            partial.rename(path)
            self._prune(day)
        except OSError as err:
            log.error("clips.refused %s: %s", path, err)
            self._counts["refused"] += 1
            return ""
        self._counts["kept"] += 1
        return name

    def report(self) -> Mapping[str, Any]:
        return dict(self._counts)

    def _prune(self, today: str) -> None:
        """Once a day. Names of folders are dates, so order is age; a clock that jumps ahead deletes at most once."""
        if today == self._pruned_on:
            return
        self._pruned_on = today
        oldest = (self._now() - timedelta(days=self._keep_days)).strftime("%Y-%m-%d")
        for folder in sorted((self._state / FOLDER).iterdir()):
            if folder.is_dir() and folder.name < oldest:
                shutil.rmtree(folder, ignore_errors=True)
                self._counts["days_removed"] += 1
