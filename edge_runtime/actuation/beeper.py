"""Short sounds for an operator who looks at the part and not at the screen.

Played by `aplay` (alsa-utils), which is handed a few hundred milliseconds of tone and left alone: nothing here waits,
and a speaker that is missing costs the sound and nothing else.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Mapping
from typing import Any

import numpy as np

log = logging.getLogger(__name__)

RATE_HZ = 16_000
LEVEL = 0.3  # of full scale
RAMP_S = 0.005  # up and down, so that it does not click
# name -> (Hz, seconds), one after the other: rising asks, falling says no
TONES: Mapping[str, tuple[tuple[float, float], ...]] = {
    "open": ((660.0, 0.08), (880.0, 0.12)),
    "taken": ((880.0, 0.10),),
    "done": ((880.0, 0.08), (1320.0, 0.14)),
    "sorry": ((440.0, 0.12), (330.0, 0.20)),
}


class Beeper:
    """device: ALSA name, such as `plughw:1`; empty is silent. One sound at a time, the newest cuts an older one off."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._player: subprocess.Popen[bytes] | None = None
        self._counts = {"played": 0, "failed": 0}

    def play(self, sound: str) -> None:
        """Returns at once and never raises. An unknown name is silent."""
        if not self._device or sound not in TONES:
            return
        self.stop()
        try:
            self._player = subprocess.Popen(
                ["aplay", "-q", "-D", self._device, "-t", "raw", "-f", "S16_LE", "-r", str(RATE_HZ), "-c", "1"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            assert self._player.stdin is not None
            self._player.stdin.write(tone(sound))  # less than a pipe holds
            self._player.stdin.close()
            self._counts["played"] += 1
        except OSError as err:
            if not self._counts["failed"]:
                log.error("speaker.silent device=%s %s; install alsa-utils or clear voice.speaker", self._device, err)
            self._counts["failed"] += 1

    def stop(self) -> None:
        player, self._player = self._player, None
        if player is None:
            return
        if player.poll() is None:
            player.kill()
        elif player.returncode:
            self._counts["failed"] += 1
        player.wait()

    def report(self) -> Mapping[str, Any]:
        return dict(self._counts)


def tone(sound: str) -> bytes:
    """One sound as raw 16-bit samples."""
    pieces = []
    for hertz, seconds in TONES[sound]:
        at = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
        shape = np.clip(np.minimum(at, seconds - at) / RAMP_S, 0.0, 1.0)
        pieces.append(LEVEL * shape * np.sin(2.0 * np.pi * hertz * at))
    return (np.concatenate(pieces) * 32767.0).astype("<i2").tobytes()
