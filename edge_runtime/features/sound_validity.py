"""Does this sound show anything? Asked before any model: what is not heard must never become "nothing abnormal".

Not valid are a dead channel (digital silence, one value, the last bit of a muted converter), sound at the stop of its
converter, and one buffer again and again. All of it is judged within the piece: no state, no clock, no model.

What a real microphone gives is never so still: the quietest rooms leave some counts of its own noise. A clap that
touches the stop clips some 50 samples of a second; what a person calls overdriven clips one in ten.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_runtime.media.sound_file import PIECE_S, STILL

Samples = NDArray[np.int16] | NDArray[np.float32]

REASON = "invalid_sound"
STILL_COUNTS = STILL * 32768  # peak to peak of a piece
FULL_SCALE = 32735.0  # 0.1 % below the end: 24 bit converters stop short of it
LEAST_PEAK = 1000.0  # counts; quieter sound has no flat top that could be told from its steps
BAND = 0.002  # of the peak: how flat the top of clipped sound is
COARSE = 0.02  # of the peak: steps as large as this are of an 8 bit file, or the sound is almost square
COARSE_CLIPPED = 0.6  # a tone of a quarter of the rate has half of its samples at its ends
STEEPER = 4.0  # samples at the stop against those just below; a sine has 2.4
SHORTEST_PERIOD_S = 0.01  # of a buffer that is stuck; the longest is half of the piece
SEED = 48  # samples that must come again before the whole is compared
TONE_BINS, TONE_SHARE = 3, 0.995  # a test tone repeats, too: all of its power is in so few bins; hum in a room has 0.92
PURE = 0.98  # its few samples a period may look like a stop; a square wave has 0.93
BLOCK_S = 1.0


class Bounds(NamedTuple):
    """How much of a piece may show nothing, as shares."""

    still: float  # of its pieces of 20 ms
    clipped: float  # of its samples


MACHINE = Bounds(still=0.5, clipped=0.05)  # it never pauses; a gap between two recordings is shorter than half a second

SPEECH = Bounds(still=0.99, clipped=0.1)
"""Noise gates leave digital silence between words. Measured on six words of the shipped bundle: 6 dB over the stop clip
2 % (3 % at most) and all are understood as before; 12 dB over clip 9 % and the first is not; 24 dB over, 35 % and a
third of them."""


def why_invalid(sound: Samples, rate_hz: int, bounds: Bounds = MACHINE) -> str:
    """Why this piece of sound shows nothing, in words for a person; empty where it does.

    sound: mono, int16, or float32 with full scale 1.0, shape (n,); best at the rate at which it was converted, because
    resampling rounds flat tops. Some 0.2 ms for a second at 16 kHz.
    """
    counts = _counts(sound)
    if not counts.size:
        return "no sound at all"
    if still := _still(counts, rate_hz, bounds.still):
        return still
    clipped = flat_share(counts)
    if clipped > bounds.clipped:
        return f"clipped {100 * clipped:.0f} % of samples, turn the microphone down"
    return _repeated(counts, rate_hz)


def flat_share(counts: NDArray[np.float32]) -> float:
    """Share of samples at a stop, 0..1: at full scale, or at a flat top of the sound itself (an amplifier's stop)."""
    at_end = float(np.mean(np.abs(counts) >= FULL_SCALE))
    swing = counts - counts.mean()  # a converter's zero may be far from 0
    flat = _flat_top(swing) + _flat_top(-swing)
    return at_end if flat <= at_end or _is_tone(counts, PURE) else flat


class SoundCheck:
    """A recording, block by block: which of its seconds show nothing. What is shorter than one is judged as it is."""

    def __init__(self, bounds: Bounds = MACHINE) -> None:
        self._bounds = bounds
        self._rest = np.empty(0, np.float32)
        self._rate_hz = 1
        self._first = ""  # reason of the first second that shows nothing
        self._spans: list[tuple[int, int]] = []  # in seconds from the start
        self._seconds = 0

    def __call__(self, block: NDArray[np.float32], rate_hz: int) -> None:
        """block: float32, full scale 1.0, at the file's own rate."""
        sound, self._rate_hz = np.concatenate([self._rest, block]), rate_hz
        each = round(BLOCK_S * rate_hz)
        whole = len(sound) // each * each
        for start in range(0, whole, each):
            self._judge(sound[start : start + each], rate_hz)
        self._rest = sound[whole:]

    @property
    def why_all(self) -> str:
        """Why nothing in all of it shows anything; empty where some of it does."""
        if not self._seconds:
            return why_invalid(self._rest, self._rate_hz, self._bounds)
        return self._first if self._spans == [(0, self._seconds)] else ""

    @property
    def why(self) -> str:
        """Why the recording shows nothing, or where it does not; empty where all of it is well."""
        if (why := self.why_all) or not self._spans:
            return why
        where = ", ".join(f"{begin} to {end} s" for begin, end in self._spans[:3])
        return f"{self._first} (from {where}{' and more' if len(self._spans) > 3 else ''})"

    def _judge(self, second: NDArray[np.float32], rate_hz: int) -> None:
        why, at = why_invalid(second, rate_hz, self._bounds), self._seconds
        self._seconds += 1
        if not why:
            return
        self._first = self._first or why
        if self._spans and self._spans[-1][1] == at:
            self._spans[-1] = (self._spans[-1][0], at + 1)
        else:
            self._spans.append((at, at + 1))


def _counts(sound: Samples) -> NDArray[np.float32]:
    """As counts of a 16 bit converter."""
    if sound.dtype == np.int16:
        return sound.astype(np.float32)
    return np.asarray(sound.clip(-2.0, 2.0) * 32768.0, np.float32)  # a float file may go beyond full scale


def _still(counts: NDArray[np.float32], rate_hz: int, most: float) -> str:
    piece = max(1, min(len(counts), round(PIECE_S * rate_hz)))
    pieces = counts[: len(counts) // piece * piece].reshape(-1, piece)
    still = float(np.mean(np.ptp(pieces, axis=1) <= STILL_COUNTS))
    if still <= most:
        return ""
    if still < 1.0:
        return f"dead for {100 * still:.0f} % of the time: look at cable and plug"
    if np.ptp(counts) > 0.0:
        return "only the converter's last bit moves: the microphone is muted or not connected"
    value = round(float(counts[0]))
    what = "digital silence" if value == 0 else f"one value, {value}"
    return f"{what}: the microphone is dead, muted or not connected"


def _flat_top(counts: NDArray[np.float32]) -> float:
    """Share of samples at the upper stop; 0 where the top is no stop."""
    top = float(counts.max())
    if top < LEAST_PEAK:
        return 0.0
    high = counts[counts >= (1.0 - 2 * COARSE) * top]
    below = high[high < top]
    step = top - float(below.max()) if below.size else np.inf
    if step > COARSE * top:
        share = float(np.mean(counts == top))
        return share if share > COARSE_CLIPPED / 2 else 0.0
    band = max(1.0, BAND * top, 1.01 * step)
    at_top = int(np.count_nonzero(high >= top - band))
    just_below = int(np.count_nonzero(high >= top - 2 * band)) - at_top
    return at_top / counts.size if at_top > STEEPER * just_below else 0.0


def _repeated(counts: NDArray[np.float32], rate_hz: int) -> str:
    """One buffer again and again, sample for sample: noise never does that."""
    shortest, longest = round(SHORTEST_PERIOD_S * rate_hz), len(counts) // 2
    if longest <= shortest or len(counts) < longest + SEED:
        return ""
    at = shortest + np.flatnonzero(counts[shortest : longest + 1] == counts[0])
    for offset in range(1, SEED):
        at = at[counts[at + offset] == counts[offset]]
    for period in at[:4]:
        if np.array_equal(counts[period:], counts[:-period]) and not _is_tone(counts[:period], TONE_SHARE):
            return f"the same {1000 * period / rate_hz:.0f} ms again and again: the device is stuck"
    return ""


def _is_tone(sound: NDArray[np.float32], share: float) -> bool:
    power = np.abs(np.fft.rfft(sound - sound.mean())) ** 2
    return bool(np.sort(power)[-TONE_BINS:].sum() >= share * power.sum())
