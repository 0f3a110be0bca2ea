"""Listens for the wake word, and does not take one that a model finds in sound which shows nothing."""

from __future__ import annotations

import logging
from collections import Counter, deque
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.messages import AudioChunk
from edge_runtime.features.sound_validity import REASON, SPEECH, why_invalid

log = logging.getLogger(__name__)

WAKE_CHUNKS = 33  # that a wake word is heard in: a second


class WakeWord(Protocol):
    """Listens to everything and keeps nothing but its own state."""

    def __call__(self, chunk: AudioChunk) -> float:
        """How sure it is, 0..1, that its word has just ended; 0 while it rests after a detection."""

    def reset(self) -> None: ...


class WakeEar:
    """One wake word, taken where its score is at least `wake_at`. One thread calls it."""

    def __init__(self, wake: WakeWord, wake_at: float) -> None:
        self.score = 0.0
        self.counts: Counter[str] = Counter()
        self._wake = wake
        self._wake_at = wake_at
        self._newest: deque[NDArray[np.int16]] = deque(maxlen=WAKE_CHUNKS)

    def hears_it(self, chunk: AudioChunk) -> bool:
        """Whether the word has just been said."""
        self.score = self._wake(chunk)
        self._newest.append(chunk.pcm)
        return self.score >= self._wake_at and self._is_a_voice(chunk.rate_hz)

    def start_anew(self) -> None:
        """What comes now does not join on to what was."""
        self._newest.clear()
        self._wake.reset()

    def _is_a_voice(self, rate_hz: int) -> bool:
        """Not what a model hears in a dead, stuck or overdriven channel."""
        flaw = why_invalid(np.concatenate(self._newest), rate_hz, SPEECH)
        if flaw:
            self.counts["invalid_wakes"] += 1
            log.warning("voice.invalid wake word not taken: %s: %s", REASON, flaw)
        return not flaw
