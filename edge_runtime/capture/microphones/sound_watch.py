"""Is this still a microphone? Judges a stream by what comes and when; no I/O, no clock.

A device that died does not say so. Measured with PortAudio: a feeder that ended lets reads return at once, 71 525
frames in 6 s; one that is stuck blocks for ever; a source that was unplugged goes on as digital silence, or repeats
its last buffer. So sound must come at its rate, within half and one and a half of it over two seconds, and must vary.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.clock import SECOND
from edge_runtime.flow.components import Health, State

WINDOW_NS = 2 * SECOND
SLOWEST, FASTEST = 0.5, 1.5  # of the nominal rate
WELL_AFTER_S = 1.0  # of good sound before a fault is forgotten
OVERDRIVEN_SHARE = 0.25  # of the chunks in the window with clipped samples


class _Heard(NamedTuple):
    at_ns: int
    samples: int
    is_clipped: bool


class SoundWatch:
    """`heard` for each chunk, `waited` when none came; both answer what is wrong with this stream, "" when well.

    `complaint` is what health tells: it stays after a fault until a second of good sound came, over restarts too.
    """

    def __init__(self, rate_hz: int, silent_after_s: float, is_paced: bool = True) -> None:
        self._rate_hz, self._silent_after_s, self._is_paced = rate_hz, silent_after_s, is_paced
        self._window: deque[_Heard] = deque()
        self._samples = self._clipped = 0  # in the window
        self._first_ns: int | None = None
        self._last: NDArray[np.int16] | None = None
        self._stuck = self._good = 0  # samples
        self._last_ns: int | None = None
        self.complaint = ""
        self.chunks = self.clipped_chunks = self.silent_chunks = 0

    def opened(self) -> None:
        """A new stream begins."""
        self._window.clear()
        self._samples = self._clipped = self._stuck = self._good = 0
        self._first_ns = self._last_ns = self._last = None

    def failed(self, why: str) -> None:
        """The stream broke off for a reason of its own."""
        self.complaint = why
        self.opened()

    def heard(self, pcm: NDArray[np.int16], at_ns: int) -> str:
        """pcm: int16, shape (n,); at_ns: when it came from the device."""
        self._first_ns = at_ns if self._first_ns is None else self._first_ns
        self._last_ns = at_ns
        is_clipped = bool(pcm.max() == 32767 or pcm.min() == -32768)
        is_stuck = self._is_stuck(pcm)
        self.chunks += 1
        self.clipped_chunks += is_clipped
        self.silent_chunks += is_stuck
        self._stuck = self._stuck + pcm.size if is_stuck else 0
        self._good = 0 if is_stuck else self._good + pcm.size
        self._window.append(_Heard(at_ns, pcm.size, is_clipped))
        self._samples += pcm.size
        self._clipped += is_clipped
        fault = self._judge(at_ns)
        if not fault and self._good >= WELL_AFTER_S * self._rate_hz:
            self.complaint = ""
        return fault

    def waited(self, now_ns: int) -> str:
        """Nothing came up to now."""
        return self._judge(now_ns)

    def health(self, doing: str) -> Health:
        """doing: what the driver says of itself when all is well."""
        if self.complaint:
            return Health(State.FAILED, self.complaint, self._last_ns)
        if self._first_ns is None:
            return Health(State.STARTING, f"waits for sound; {doing}", self._last_ns)
        if self._clipped > OVERDRIVEN_SHARE * len(self._window):
            return Health(State.DEGRADED, f"overdriven, turn the input down; {doing}", self._last_ns)
        return Health(State.OK, doing, self._last_ns)

    def _is_stuck(self, pcm: NDArray[np.int16]) -> bool:
        last, self._last = self._last, pcm
        if pcm.max() == pcm.min():
            return True
        return last is not None and last.size == pcm.size and bool(np.array_equal(last, pcm))

    def _judge(self, now_ns: int) -> str:
        fault = (self._judge_rate(now_ns) if self._is_paced else "") or self._judge_content()
        if fault:
            self.complaint = fault
        return fault

    def _judge_rate(self, now_ns: int) -> str:
        while self._window and self._window[0].at_ns <= now_ns - WINDOW_NS:
            old = self._window.popleft()
            self._samples -= old.samples
            self._clipped -= old.is_clipped
        nominal = self._rate_hz * WINDOW_NS // SECOND
        if self._samples > FASTEST * nominal:
            return "sound comes faster than time: the device has lost its source"
        is_full = self._first_ns is not None and now_ns - self._first_ns >= WINDOW_NS
        if is_full and self._samples < SLOWEST * nominal:
            return f"{self._samples / self._rate_hz:.1f} s of sound in 2 s: the device hangs or is overloaded"
        return ""

    def _judge_content(self) -> str:
        stuck_s = self._stuck / self._rate_hz
        if not self._silent_after_s or stuck_s < self._silent_after_s or self._last is None:
            return ""
        if self._last.max() != self._last.min():
            return f"the same {self._last.size} samples again and again for {stuck_s:.0f} s: the device is stuck"
        value = int(self._last[0])
        what = "digital silence" if value == 0 else f"one value, {value},"
        return f"{what} for {stuck_s:.0f} s: is the microphone muted or unplugged?"
