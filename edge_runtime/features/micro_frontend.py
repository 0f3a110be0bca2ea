"""The 40 features per 10 ms that microWakeWord models listen to, from the TFLite Micro audio front end.

It keeps a noise estimate and a gain of its own, so a stream has to be fed whole and in order, and `reset` between two.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.errors import DeviceError

RATE_HZ = 16_000
STEP_SAMPLES = 160  # 10 ms
FEATURES = 40


class MicroFrontEnd:
    """int16 sound at 16 kHz in, in pieces of any length; rows of features out. Not for two threads."""

    def __init__(self) -> None:
        """Raises DeviceError when the library is not there."""
        try:
            from pymicro_features import MicroFrontend
        except ImportError as err:
            raise DeviceError(
                f"wake words need the package pymicro-features ({err})", "pip install 'edge-runtime[voice]'"
            ) from err
        self._front_end = MicroFrontend()
        self._rest: NDArray[np.int16] = np.empty(0, np.int16)

    def __call__(self, pcm: NDArray[np.int16]) -> NDArray[np.float32]:
        """The rows that this piece completed, float32 (0 or more, 40). The first row needs 30 ms."""
        if pcm.ndim != 1 or pcm.dtype != np.int16:
            raise ValueError(f"sound must be int16, shape (n,), not {pcm.dtype} {pcm.shape}")
        sound = np.concatenate([self._rest, pcm])
        rows, at = [], 0
        while len(sound) - at >= STEP_SAMPLES:
            said = self._front_end.process_samples(sound[at : at + STEP_SAMPLES].tobytes())
            at += said.samples_read
            if said.features:
                rows.append(said.features)
        self._rest = sound[at:].copy()
        return np.asarray(rows, np.float32).reshape(-1, FEATURES)

    def reset(self) -> None:
        """Forget what came before: the next piece starts a new stream."""
        self._front_end.reset()
        self._rest = np.empty(0, np.int16)
