"""Log-mel pictures of sound: the one computation that training and the box share.

Frames start at sample 0 and are never padded: n samples give 1 + (n - window) // hop rows, none when n < window. The
FFT is the smallest power of two that holds the window. Filters have peak 1; a filter's weight for an FFT bin is the
mean of the triangle over that bin's width, not its value in the middle. With 128 bands at 16 kHz the lowest triangles
are narrower than one bin, and sampling them leaves bands that hear nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.errors import ModelError
from edge_runtime.core.manifest import MelSpec

FULL_SCALE_I16 = 32768.0
ROWS_AT_ONCE = 4096  # one rfft call for 40 s at a hop of 10 ms, 25 MB; an hour of sound in one call would need 1.5 GB

Pcm = NDArray[np.int16] | NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MelBank:
    """What a spec means at one sample rate. All arrays are read-only."""

    window: int  # samples
    hop: int  # samples
    fft: int  # samples
    hann: NDArray[np.float32]  # (window,)
    filters: NDArray[np.float32]  # (fft // 2 + 1, bands)


def log_mel(pcm: Pcm, rate_hz: int, spec: MelSpec) -> NDArray[np.float32]:
    """Natural logarithm of mel power, shape (frames, bands).

    pcm: mono, shape (n,), int16 or float32 with full scale 1.0. Raises ModelError where the spec does not fit the rate,
    ValueError on other arrays.
    """
    bank = mel_bank(rate_hz, spec)
    signal = as_float(pcm)
    rows = frame_count(len(signal), bank)
    picture = np.empty((rows, spec.bands), np.float32)
    if rows == 0:
        return picture
    frames = np.lib.stride_tricks.sliding_window_view(signal, bank.window)[:: bank.hop]
    for start in range(0, rows, ROWS_AT_ONCE):
        part = slice(start, min(start + ROWS_AT_ONCE, rows))
        spectrum = np.fft.rfft(frames[part] * bank.hann, bank.fft)
        power = np.square(spectrum.real, dtype=np.float32) + np.square(spectrum.imag, dtype=np.float32)
        picture[part] = np.log(power @ bank.filters + np.float32(spec.floor))
    return picture


def frame_count(samples: int, bank: MelBank) -> int:
    return 1 + (samples - bank.window) // bank.hop if samples >= bank.window else 0


def as_float(pcm: Pcm) -> NDArray[np.float32]:
    """Sound as float32 with full scale 1.0; int16 is divided by 32768."""
    if pcm.ndim != 1:
        raise ValueError(f"sound must be mono, shape (n,), not {pcm.shape}")
    if pcm.dtype == np.int16:
        return pcm.astype(np.float32) / np.float32(FULL_SCALE_I16)
    if pcm.dtype == np.float32:
        return np.asarray(pcm, np.float32)
    raise ValueError(f"sound must be int16 or float32, not {pcm.dtype}")


@lru_cache(maxsize=32)
def mel_bank(rate_hz: int, spec: MelSpec) -> MelBank:
    """Window, hop and filters of a spec at one sample rate. Raises ModelError when they cannot be."""
    window, hop = round(spec.window_ms * rate_hz / 1000), round(spec.hop_ms * rate_hz / 1000)
    if spec.high_hz > rate_hz / 2:
        raise ModelError(
            f"mel.high_hz {spec.high_hz:g} is above {rate_hz / 2:g} Hz, half the rate of the sound", "lower it"
        )
    if spec.low_hz >= spec.high_hz:
        raise ModelError(f"mel.low_hz {spec.low_hz:g} is not below mel.high_hz {spec.high_hz:g}")
    if window < 2 or hop < 1:
        raise ModelError(f"a mel window of {window} and a hop of {hop} samples at {rate_hz} Hz", "make them longer")
    fft = 1 << (window - 1).bit_length()
    hann = np.hanning(window + 1)[:-1].astype(np.float32)  # periodic, as in every spectrogram library
    filters = _filters(rate_hz, fft, spec)
    hann.flags.writeable = filters.flags.writeable = False
    return MelBank(window, hop, fft, hann, filters)


def mel_edges_hz(spec: MelSpec) -> NDArray[np.float64]:
    """Where each band begins, Hz, and where the last one ends: (bands + 2,). Neighbours overlap by half."""
    return _edges_hz(spec)


def mel_centres_hz(spec: MelSpec) -> NDArray[np.float64]:
    """The peak of each band, Hz, shape (bands,)."""
    return _edges_hz(spec)[1:-1]


class MelStream:
    """The same rows as `log_mel` of the whole sound, from chunks of any length. Not for two threads."""

    def __init__(self, rate_hz: int, spec: MelSpec) -> None:
        self._rate_hz, self._spec = rate_hz, spec
        self._bank = mel_bank(rate_hz, spec)
        self._rest = np.empty(0, np.float32)
        self._skip = 0

    def __call__(self, pcm: Pcm) -> NDArray[np.float32]:
        """The rows that this chunk completed, shape (0 or more, bands)."""
        self._rest = np.concatenate([self._rest, as_float(pcm)])
        skipped = min(self._skip, len(self._rest))  # only where the hop is longer than the window
        self._rest, self._skip = self._rest[skipped:], self._skip - skipped
        picture = log_mel(self._rest, self._rate_hz, self._spec)
        used = len(picture) * self._bank.hop
        self._skip += max(0, used - len(self._rest))
        self._rest = self._rest[used:].copy()
        return picture

    def reset(self) -> None:
        """Forget what came before: the next chunk starts a new sound."""
        self._rest = np.empty(0, np.float32)
        self._skip = 0


def _edges_hz(spec: MelSpec) -> NDArray[np.float64]:
    """bands + 2 points, equally far from each other on the HTK scale, mel = 2595 log10(1 + f / 700)."""
    low, high = (2595.0 * np.log10(1.0 + hz / 700.0) for hz in (spec.low_hz, spec.high_hz))
    return np.asarray(700.0 * (10.0 ** (np.linspace(low, high, spec.bands + 2) / 2595.0) - 1.0))


def _filters(rate_hz: int, fft: int, spec: MelSpec) -> NDArray[np.float32]:
    edges = _edges_hz(spec)
    left, peak, right = edges[:-2], edges[1:-1], edges[2:]
    bin_hz = rate_hz / fft
    borders = (np.arange(fft // 2 + 2) - 0.5)[:, None] * bin_hz
    rise, fall = np.clip(borders, left, peak) - left, np.clip(borders, peak, right)
    area = rise**2 / (2 * (peak - left)) + ((right - peak) ** 2 - (right - fall) ** 2) / (2 * (right - peak))
    return np.asarray(np.diff(area, axis=0) / bin_hz, np.float32)
