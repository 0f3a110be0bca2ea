"""How loud a piece of sound is, and bringing it to a set loudness.

Full scale is a square wave at 32768, as `sox stats` has it: a full-scale sine reads -3.01 dBFS,
digital silence -inf.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FULL_SCALE = 32768.0
CLIPPED = 32767  # converters stop at one of the two ends; |-32768| is above it
PEAK_LIMIT_DBFS = -1.0  # the lossy codecs behind some recorders overshoot by less
MOST_GAIN_DB = 40.0  # past it the noise of the microphone itself is what is heard
SHORT_MS = 30  # loudness is judged over pieces of this length
SPEECH_RANGE_DB = 20.0  # pieces so much under the loudest are pauses and do not count


class AudioLevel(NamedTuple):
    """One chunk's level, for meters and metrics."""

    rms_dbfs: float  # -inf for digital silence
    peak_dbfs: float  # -inf for digital silence
    clipped_share: float  # of the samples, 0..1


def measure(pcm: NDArray[np.int16]) -> AudioLevel:
    """Level of one chunk. pcm: int16, shape (n,), mono, n >= 1. Raises ValueError on an empty chunk."""
    return AudioLevel(rms_dbfs(pcm), peak_dbfs(pcm), clipped_share(pcm))


def rms_dbfs(pcm: NDArray[np.int16]) -> float:
    """Loudness of one chunk, in dB relative to full scale; digital silence is -inf.

    pcm: int16, shape (n,), mono, n >= 1. Raises ValueError on an empty chunk.
    """
    _check(pcm)
    samples = pcm.astype(np.float64)
    return _db(math.sqrt(float(samples @ samples) / samples.size))


def peak_dbfs(pcm: NDArray[np.int16]) -> float:
    """The largest sample, in dB relative to full scale; -inf for digital silence. Raises ValueError if empty."""
    _check(pcm)
    return _db(float(_peak(pcm)))


def clipped_share(pcm: NDArray[np.int16]) -> float:
    """Share of samples at either end of the range, 0..1. Raises ValueError on an empty chunk."""
    _check(pcm)
    return float(np.count_nonzero((pcm >= CLIPPED) | (pcm <= -CLIPPED))) / pcm.size


def speech_gain_db(pcm: NDArray[np.int16], rate_hz: int, target_dbfs: float) -> float:
    """Gain that brings the loud part of a piece of speech to `target_dbfs`; 0 for digital silence.

    The loud part is what lies within SPEECH_RANGE_DB of the loudest 30 ms, so that padding and pauses do not count. The
    gain stops short of clipping and at MOST_GAIN_DB.
    """
    _check(pcm)
    peak = _peak(pcm)
    if peak == 0:
        return 0.0
    wanted = target_dbfs - _loud_dbfs(pcm, max(1, rate_hz * SHORT_MS // 1000))
    return min(wanted, PEAK_LIMIT_DBFS - _db(float(peak)), MOST_GAIN_DB)


def amplify(pcm: NDArray[np.int16], gain_db: float) -> NDArray[np.int16]:
    """A read-only copy, louder by `gain_db`; what does not fit is clipped."""
    scaled: NDArray[np.float64] = pcm * 10.0 ** (gain_db / 20.0)
    louder: NDArray[np.int16] = np.rint(scaled).clip(-32768, 32767).astype(np.int16)
    louder.flags.writeable = False
    return louder


def _loud_dbfs(pcm: NDArray[np.int16], piece: int) -> float:
    samples = np.square(pcm, dtype=np.float64)
    whole = samples.size // piece * piece
    powers = samples[:whole].reshape(-1, piece).mean(axis=1) if whole else samples.mean(keepdims=True)
    loudest = powers.max()
    if loudest == 0.0:  # all of it is in the last, broken piece
        powers = samples.mean(keepdims=True)
        loudest = powers.max()
    return _db(math.sqrt(float(powers[powers >= loudest * 10.0 ** (-SPEECH_RANGE_DB / 10.0)].mean())))


def _check(pcm: NDArray[np.int16]) -> None:
    if pcm.size == 0:
        raise ValueError("empty audio chunk")


def _peak(pcm: NDArray[np.int16]) -> int:
    return max(int(pcm.max()), -int(pcm.min()))  # not abs: int16 has no +32768


def _db(amplitude: float) -> float:
    return 20.0 * math.log10(amplitude / FULL_SCALE) if amplitude > 0.0 else -math.inf
