"""The microphone protocol.

    microphone = open_microphone(cfg.microphone, clock)
    microphone.start()
    while running:
        try:
            chunk = microphone.read(0.2)
        except MicrophoneLost:
            voice.flush(), model.reset()  # what follows does not join on to what was
            continue
        for utterance in voice(chunk) if chunk else ():
            ...

A microphone that is missing, hangs or goes mad costs voice and nothing else: `start` does not wait for the device,
`read` gives up at its timeout, and the driver brings the device back by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from edge_runtime.core.errors import DeviceError
from edge_runtime.core.messages import AudioChunk
from edge_runtime.flow.components import Health


class MicrophoneLost(DeviceError):
    """Sound has broken off. Drop the state that streams over chunks and read on: the driver brings the device back.

    Raised once for each break, behind the last chunk that was heard; a file that has ended raises it at every read.
    """


class Microphone(Protocol):
    """One source of sound. `read` is called by one thread; `health` and `report` by others."""

    @property
    def name(self) -> str: ...

    def start(self) -> None:
        """Begin to listen. Raises DeviceError for what only the station file can mend: no such file, no such package.

        A device that is absent or hangs is no error here: it may be plugged in later. `health` tells.
        """

    def stop(self) -> None: ...
    def health(self) -> Health: ...
    def report(self) -> Mapping[str, Any]:
        """At least: driver, chunks, overruns, overwritten, clipped_chunks, silent_chunks, restarts."""

    def read(self, timeout_s: float) -> AudioChunk | None:
        """The next chunk, None on timeout. Raises MicrophoneLost where sound broke off."""


@dataclass(frozen=True, slots=True)
class MicrophoneDevice:
    """A device that can record, as the sound system names it."""

    name: str
    host_api: str  # "ALSA", "JACK Audio Connection Kit", "OSS"
    channels: int
    rate_hz: int  # its own; others may work too
    is_default: bool
