"""Another sample rate, chunk by chunk: a polyphase low-pass with its state kept (files: `media/sound_file.py`).

For devices that know 48 kHz only. Kaiser window, -60 dB from the lower Nyquist frequency on; flat up to 0.85 of it. One
30 ms chunk from 48 to 16 kHz is one small matrix product.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

CROSSINGS = 24  # zero crossings of the sinc on either side: transition of 0.15 of the lower Nyquist frequency
KAISER_BETA = 5.65  # -60 dB (Kaiser & Schafer 1980: 0.1102 * (60 - 8.7))
CUT = 0.925  # of the lower Nyquist frequency: the middle of the transition


class Resampler:
    """From one rate to another. Late by CROSSINGS / the lower rate (1.5 ms at 16 kHz)."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        common = math.gcd(from_hz, to_hz)
        self._up, self._down = to_hz // common, from_hz // common
        self._taps = _polyphase(self._up, self._down)  # (up, taps of one phase), newest sample last
        self._past = np.zeros(self._taps.shape[1] - 1)
        self._position = 0  # of the next output, in steps of 1/up of an input sample, from the start of the next chunk

    def __call__(self, pcm: NDArray[np.int16]) -> NDArray[np.int16]:
        """pcm: int16, shape (n,). The outputs that n more inputs allow: n * to / from of them on average."""
        samples = np.concatenate((self._past, pcm))
        at = np.arange(self._position, pcm.size * self._up, self._down)
        self._position = int(self._position + at.size * self._down - pcm.size * self._up)
        self._past = samples[pcm.size :]
        windows = np.lib.stride_tricks.sliding_window_view(samples, self._taps.shape[1])
        out = np.einsum("ij,ij->i", windows[at // self._up], self._taps[at % self._up])
        return np.asarray(np.rint(out).clip(-32768, 32767), np.int16)


def _polyphase(up: int, down: int) -> NDArray[np.float64]:
    """Low-pass at the lower of the two Nyquist frequencies, gain 1 in each phase."""
    wide = max(up, down)
    per_phase = -(-2 * CROSSINGS * wide // up) + 1
    n = np.arange(per_phase * up) - (per_phase * up - 1) / 2
    low_pass = np.sinc(CUT * n / wide) * np.kaiser(n.size, KAISER_BETA)
    phases = low_pass.reshape(per_phase, up).T[:, ::-1]
    return np.ascontiguousarray(phases / phases.sum(axis=1, keepdims=True))
