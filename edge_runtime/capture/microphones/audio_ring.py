"""The newest seconds of sound, between the thread that hears and the one that listens."""

from __future__ import annotations

import threading
import time
from collections import deque

from edge_runtime.core.messages import AudioChunk

RING_S = 5.0  # longer than the longest utterance and its padding: a hiccup of the listener costs nothing


class AudioRing:
    """One writer, one reader. What the reader does not fetch in time is overwritten; the hole shows in `seq`."""

    def __init__(self, seconds: float = RING_S) -> None:
        self._seconds = seconds
        self._changed = threading.Condition()
        self._chunks: deque[AudioChunk] = deque()
        self._samples = 0
        self._break: Exception | None = None
        self._is_open = False
        self.overwritten = 0  # chunks that nobody read

    def open(self) -> None:
        """Empty, and ready to take."""
        with self._changed:
            self._chunks.clear()
            self._samples, self._break, self._is_open = 0, None, True

    def close(self) -> None:
        """Ends a waiting `take`; later ones return None at once."""
        with self._changed:
            self._is_open = False
            self._changed.notify_all()

    def put(self, chunk: AudioChunk) -> None:
        with self._changed:
            self._chunks.append(chunk)
            self._samples += chunk.pcm.size
            while self._samples > self._seconds * chunk.rate_hz and len(self._chunks) > 1:
                self._samples -= self._chunks.popleft().pcm.size
                self.overwritten += 1
            self._changed.notify_all()

    def break_off(self, why: Exception) -> None:
        """Raised by `take` once, behind what was heard before."""
        with self._changed:
            self._break = why
            self._changed.notify_all()

    def take(self, timeout_s: float) -> AudioChunk | None:
        """The oldest chunk that was not read yet, or None after `timeout_s`. Raises what `break_off` was given."""
        until = time.monotonic() + timeout_s
        with self._changed:
            while self._is_open:
                if self._chunks:
                    chunk = self._chunks.popleft()
                    self._samples -= chunk.pcm.size
                    return chunk
                if self._break is not None:
                    why, self._break = self._break, None
                    raise why
                left_s = until - time.monotonic()
                if left_s <= 0:
                    return None
                self._changed.wait(left_s)
        return None

    def __len__(self) -> int:
        return len(self._chunks)
