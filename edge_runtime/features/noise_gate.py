"""Is this frame louder than the room? A noise-floor gate in the band of speech, and the filters in front of it.

WebRTC's voice detector takes steady factory noise for speech and stays open (always, at 5 dB). What a machine cannot do
is what speech does all the time: fall silent. So the gate looks at the power between 300 and 3400 Hz and asks whether
it stands above the quiet moments of the last seconds.

The floor is a low quantile of those seconds (minimum statistics after Martin, IEEE Trans. Speech Audio Process. 9(5),
2001, with a quantile for the minimum, so that no bias has to be corrected). It follows both ways by itself: a new
machine is part of the floor once it fills (1 - FLOOR_QUANTILE) of the window, so the gate cannot latch.

Both filters are linear-phase FIRs by the same FFT (overlap-save): state is kept between frames, and a 30 ms frame
costs one transform forth and two back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

HIGH_PASS_HZ = 200.0  # rumble and most of mains hum lie under it, no formant does
BAND_HZ = (300.0, 3400.0)  # telephone band
FILTER_MS = 34  # length of the FIRs: 97 Hz from pass to stop (Hamming: 3.3 / length), 17 ms of delay
WINDOW_MS = 6000  # the floor is learnt from so much sound: longer than a sentence, shorter than patience
LEARN_MS = 300  # no decision before: what is heard first is the room
FLOOR_QUANTILE = 0.2  # speech has more pauses than that
HOLD_DB = 1.0
LOWEST_FLOOR_DBFS = -75.0  # quieter than any microphone: digital silence must not make its dither a voice


class Filtered(NamedTuple):
    """One frame after the filters, 17 ms late."""

    high_passed: NDArray[np.float64]  # shape (n,), scale of int16
    band_dbfs: float  # power in the band of speech


class SpeechFilters:
    """High-pass at 200 Hz and band-pass 300-3400 Hz, streaming over frames of one length."""

    def __init__(self, rate_hz: int, frame: int) -> None:
        taps = rate_hz * FILTER_MS // 1000 | 1  # odd: a high-pass of even length has a zero at the top
        self._frame = frame
        self._size = 1 << (frame + taps - 2).bit_length()  # of the transform
        self._past = np.zeros(self._size)
        top = min(BAND_HZ[1], 0.45 * rate_hz)
        responses = [_pass_above(HIGH_PASS_HZ, taps, rate_hz), _pass_between(BAND_HZ[0], top, taps, rate_hz)]
        self._responses = np.fft.rfft(responses, self._size, axis=1)

    def __call__(self, pcm: NDArray[np.int16]) -> Filtered:
        """pcm: int16, shape (frame,)."""
        n = self._frame
        self._past[:-n] = self._past[n:]
        self._past[-n:] = pcm
        spectrum = np.fft.rfft(self._past)
        high_passed, band = np.fft.irfft(spectrum * self._responses, self._size, axis=1)[:, -n:]
        power = float(band @ band) / n / 32768.0**2
        return Filtered(high_passed, 10.0 * math.log10(power + 1e-20))

    def reset(self) -> None:
        """Forget what was heard: what comes next does not join on to it."""
        self._past[:] = 0.0


class NoiseGate:
    """Open while the power in the band stands `over_db` above the floor of the last seconds. One value a frame.

    While somebody is speaking already, HOLD_DB less is enough: a word that is weak in its middle stays in one piece.
    """

    def __init__(self, frame_ms: int, over_db: float) -> None:
        self._levels = np.zeros(max(2, WINDOW_MS // frame_ms))
        self._learn = max(1, LEARN_MS // frame_ms)
        self._over_db = over_db
        self._seen = 0
        self.floor_dbfs = LOWEST_FLOOR_DBFS

    def learn(self, bands_dbfs: Sequence[float]) -> None:
        """Fill the window with these levels, over and over where they are few. At least one."""
        self._levels = np.resize(np.asarray(bands_dbfs, np.float64), self._levels.size)
        self._seen = self._levels.size

    def __call__(self, band_dbfs: float, is_speaking: bool = False) -> bool:
        self._levels[self._seen % self._levels.size] = band_dbfs
        self._seen += 1
        known = self._levels[: self._seen]
        rank = int(FLOOR_QUANTILE * (known.size - 1))
        self.floor_dbfs = max(float(np.partition(known, rank)[rank]), LOWEST_FLOOR_DBFS)
        over_db = self._over_db - HOLD_DB if is_speaking else self._over_db
        return self._seen > self._learn and band_dbfs > self.floor_dbfs + over_db


def _pass_below(cut_hz: float, taps: int, rate_hz: int) -> NDArray[np.float64]:
    """Windowed-sinc low-pass (Hamming: -53 dB outside), gain 1 at 0 Hz."""
    n = np.arange(taps) - (taps - 1) / 2
    response = np.sinc(2.0 * cut_hz / rate_hz * n) * np.hamming(taps)
    return np.asarray(response / response.sum())


def _pass_above(cut_hz: float, taps: int, rate_hz: int) -> NDArray[np.float64]:
    response = -_pass_below(cut_hz, taps, rate_hz)
    response[taps // 2] += 1.0
    return response


def _pass_between(low_hz: float, high_hz: float, taps: int, rate_hz: int) -> NDArray[np.float64]:
    return _pass_below(high_hz, taps, rate_hz) - _pass_below(low_hz, taps, rate_hz)
