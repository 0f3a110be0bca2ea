"""Driver "sim": a microphone in a simulated hall, faults included. No hardware, no files, seeded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_runtime.capture.microphones.paced import PacedMicrophone
from edge_runtime.config.schema import MicrophoneConfig, SoundFaults
from edge_runtime.core.clock import SECOND, Clock
from edge_runtime.simulation.sound import SimSound

FREE_RUN = 400  # times too fast, as PortAudio reads when its source has ended
OVERDRIVE = 50.0


def open_sim(cfg: MicrophoneConfig, clock: Clock) -> PacedMicrophone:
    return PacedMicrophone(
        "sim", cfg, clock, lambda: SimSound(cfg.sim, cfg.file, cfg.rate_hz), FaultInjector(cfg.sim.bad_days)
    )


class FaultInjector:
    """The fault of the station file, from `at_s` on for `for_s`; nothing without one."""

    def __init__(self, cfg: SoundFaults) -> None:
        self._fault = cfg.fault
        self._from_ns = round(cfg.at_s * SECOND)
        self._until_ns = self._from_ns + round(cfg.for_s * SECOND)

    def lost(self, at_ns: int) -> str:
        return "simulated: the device was unplugged" if self._is_on("disconnect", at_ns) else ""

    def due_ns(self, end_ns: int) -> int:
        if self._is_on("hang", end_ns):
            return self._until_ns
        if self._is_on("free_run", end_ns):
            return self._from_ns + (end_ns - self._from_ns) // FREE_RUN
        return end_ns

    def bend(self, pcm: NDArray[np.int16], at_ns: int) -> NDArray[np.int16]:
        if self._is_on("silence", at_ns):
            return np.zeros_like(pcm)
        if self._is_on("clipping", at_ns):
            return np.asarray(np.rint(pcm * OVERDRIVE).clip(-32768, 32767), np.int16)
        return pcm

    def _is_on(self, fault: str, at_ns: int) -> bool:
        return self._fault == fault and self._from_ns <= at_ns < self._until_ns
