"""Sound of operators' requests, kept only where the station says so, and only for as long as it says.

WAV files in folders by day under the state folder. A disk that refuses costs the clip, never the request. Whether one
is past its days is `retention`'s to say, and when to look: the name of a folder is only what a clock showed.
"""

from __future__ import annotations

import contextlib
import logging
import wave
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_runtime.core.clock import SECOND
from edge_runtime.core.messages import Utterance
from edge_runtime.recording.clock_watch import DAY_NS
from edge_runtime.recording.retention import Retention

log = logging.getLogger(__name__)

FOLDER = "clips"


class ClipShelf:
    """state: the state folder. keep_days: whole days after the day of the clip."""

    def __init__(
        self, state: Path, keep_days: int, retention: Retention, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._state = state
        self._keep_ns = keep_days * DAY_NS
        self._retention = retention
        self._now = now
        retention.sweepers.append(self.expire)
        self._counts: Counter[str] = Counter()

    def keep(self, utterance: Utterance) -> str:
        """Write one; its name relative to the state folder, or empty when the disk refused."""
        now = self._now()
        folder = f"{FOLDER}/{now.strftime('%Y-%m-%d')}"
        name = f"{folder}/{now.strftime('%H%M%S')}-{utterance.start_ns}.wav"
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
            self._retention.on_time.wrote(folder)
        except OSError as err:
            log.error("clips.refused %s: %s", path, err)
            self._counts["refused"] += 1
            return ""
        self._counts["kept"] += 1
        return name

    def report(self) -> Mapping[str, Any]:
        return dict(self._counts)

    def expire(self) -> None:
        """Remove a few that are past their days, as far as `retention` lets."""
        try:
            self._expire()
        except OSError as err:
            log.error("clips.expire error=%s", err)

    def _expire(self) -> None:
        stock = sum(1 for _ in (self._state / FOLDER).glob("*/*.wav"))
        may = self._retention.grant(FOLDER, stock, self._keep_ns)
        gone = 0
        for clip in self._old() if may > 0 else ():
            clip.unlink(missing_ok=True)
            gone += 1
            with contextlib.suppress(OSError):  # not empty yet
                clip.parent.rmdir()
                self._retention.on_time.forget(f"{FOLDER}/{clip.parent.name}")
            if gone >= may:
                break
        self._counts["removed"] += gone
        self._retention.note_removed(FOLDER, gone)

    def _old(self) -> Iterator[Path]:
        for folder in sorted((self._state / FOLDER).iterdir()):
            try:
                day = datetime.strptime(folder.name, "%Y-%m-%d").replace(tzinfo=UTC)
            except ValueError:  # somebody else's
                continue
            written_on = self._retention.on_time.of_folder(f"{FOLDER}/{folder.name}")
            if self._retention.is_old(written_on, int(day.timestamp()) * SECOND + DAY_NS, self._keep_ns):
                yield from sorted(folder.glob("*.wav"))
