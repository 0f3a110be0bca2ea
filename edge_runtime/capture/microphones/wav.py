"""Driver "wav": recordings as a microphone, one file or a folder of them, in real time or as fast as they are read."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from edge_runtime.capture.microphones.paced import PacedMicrophone
from edge_runtime.config.schema import MicrophoneConfig
from edge_runtime.core.clock import Clock
from edge_runtime.core.errors import DeviceError
from edge_runtime.media.wav_file import find_wavs, read_wav

log = logging.getLogger(__name__)


def open_wav(cfg: MicrophoneConfig, clock: Clock) -> PacedMicrophone:
    return PacedMicrophone("wav", cfg, clock, lambda: Recordings(cfg))


class Recordings:
    """The files one after the other, with a gap after each. A file of a folder that cannot be read is passed over."""

    def __init__(self, cfg: MicrophoneConfig) -> None:
        self._cfg = cfg
        self._files = find_wavs(cfg.file)
        self._next_file = self._unreadable = 0
        self._gap = np.zeros(cfg.rate_hz * cfg.gap_ms // 1000, np.int16)
        self._now = np.empty(0, np.int16)
        if not self._load():
            raise DeviceError(f"no WAV file in '{cfg.file}' can be read; the log says why")

    def next(self, samples: int) -> NDArray[np.int16] | None:
        pieces: list[NDArray[np.int16]] = []
        missing = samples
        while missing:
            if not self._now.size and not self._load():
                break
            pieces.append(self._now[:missing])
            self._now = self._now[missing:]
            missing -= pieces[-1].size
        if missing == samples:
            return None
        return np.concatenate([*pieces, np.zeros(missing, np.int16)])

    def describe(self) -> str:
        bad = f", {self._unreadable} unreadable" if self._unreadable else ""
        return f"{len(self._files)} recordings of {self._cfg.file}{bad}"

    def _load(self) -> bool:
        """The next file with sound into `_now`; False at the end, or when a whole round of them gave none."""
        for _ in self._files:
            if self._next_file >= len(self._files):
                if not self._cfg.loops:
                    return False
                self._next_file = 0
            file = self._files[self._next_file]
            self._next_file += 1
            try:
                pcm = read_wav(file, self._cfg.rate_hz)
            except DeviceError as err:
                if len(self._files) == 1:
                    raise
                log.warning("recording unreadable why=%s", err)
                self._unreadable += 1
                continue
            self._now = np.concatenate((pcm, self._gap))
            if pcm.size:
                return True
        return False
