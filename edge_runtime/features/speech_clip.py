"""One spoken word as a model wants it: cut out, in the middle of a clip of fixed length, at one loudness.

Training and box call the same `fit_clip`; what a model was trained on is what it is asked. The word is found by level
alone: frames well above the quietest tenth. In steady noise at 5 dB that is still the word; in silence it is all of it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.manifest import AudioInput

F32 = NDArray[np.float32]

FRAME_MS = 10
SMOOTH_FRAMES = 5  # 50 ms: the stop in "accept" does not end the word
QUIET_SHARE = 0.10  # of all frames is taken for what the room sounds like
RISE_SHARE = 0.35  # of the way from quiet to loudest, in dB: above it is speech
MOST_FALL_DB = 30.0  # below the loudest frame nothing counts as speech, however silent the rest
LEAST_RMS = 1e-4  # -80 dBFS: digital silence and the last bits of a converter are not made loud
PEAK = 0.99


def as_float(pcm: NDArray[np.int16] | F32) -> F32:
    """Samples with full scale 1.0. Raises ValueError on anything but one row of int16 or float32."""
    if pcm.ndim != 1 or pcm.dtype not in (np.int16, np.float32):
        raise ValueError(f"speech is one row of int16 or float32, not {pcm.dtype} {pcm.shape}")
    if pcm.dtype == np.int16:
        return pcm.astype(np.float32) / np.float32(32768.0)
    return np.asarray(pcm, np.float32)


def frame_levels_db(sound: F32, rate_hz: int) -> F32:
    """Level of each 10 ms in dB relative to full scale, smoothed over 50 ms; -100 for digital silence."""
    step = rate_hz * FRAME_MS // 1000
    frames = sound[: len(sound) // step * step].reshape(-1, step)
    power = np.square(frames, dtype=np.float32).mean(axis=1) if len(frames) else np.zeros(1, np.float32)
    smooth = np.convolve(power, np.full(SMOOTH_FRAMES, 1.0 / SMOOTH_FRAMES), "same")
    return np.asarray(10.0 * np.log10(smooth[: len(power)] + 1e-10), np.float32)


def speech_level_db(levels: F32) -> float:
    """From which level a frame of these counts as speech."""
    loudest, quiet = float(levels.max()), float(np.quantile(levels, QUIET_SHARE))
    return max(quiet + RISE_SHARE * (loudest - quiet), loudest - MOST_FALL_DB)


def speech_span(sound: F32, rate_hz: int) -> tuple[int, int]:
    """First sample of speech and the one behind its last."""
    levels = frame_levels_db(sound, rate_hz)
    loud = np.flatnonzero(levels >= speech_level_db(levels))
    step = rate_hz * FRAME_MS // 1000
    return int(loud[0]) * step, min(int(loud[-1] + 1) * step, max(len(sound), 1))


def fit_clip(pcm: NDArray[np.int16] | F32, spec: AudioInput) -> F32:
    """The spoken part of `pcm` in the middle of `spec.clip_ms`, its RMS at `spec.loudness_dbfs`.

    Returns float32, full scale 1.0, always `spec.clip_ms` long: silence is added around what is short, and of what is
    long the middle is kept. Peaks that do not fit are clipped, as a microphone would.
    """
    sound = as_float(pcm)
    length = spec.rate_hz * spec.clip_ms // 1000
    first, last = speech_span(sound, spec.rate_hz)
    start = (first + last - length) // 2
    clip = np.zeros(length, np.float32)
    kept = sound[max(start, 0) : max(start + length, 0)]
    clip[max(-start, 0) : max(-start, 0) + len(kept)] = kept
    if spec.loudness_dbfs is None:
        return clip
    speech = sound[first:last]
    rms = float(np.sqrt(np.mean(np.square(speech, dtype=np.float64)))) if len(speech) else 0.0
    clip *= np.float32(10.0 ** (spec.loudness_dbfs / 20.0) / max(rms, LEAST_RMS))
    return np.clip(clip, -PEAK, PEAK, out=clip)
