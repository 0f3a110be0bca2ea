"""The microphone protocol and the table of drivers. A driver is one file; its library is imported in that file only.

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
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

from edge_runtime.config.schema import MicrophoneConfig
from edge_runtime.core.clock import Clock
from edge_runtime.core.errors import DeviceError
from edge_runtime.core.messages import AudioChunk
from edge_runtime.flow.components import Health

LIST_WITHIN_S = 10.0  # PortAudio asks every plugin of every sound system; a dead one holds it up for ever


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


# driver name -> (module, factory, packages it needs); factory(cfg: MicrophoneConfig, clock: Clock) -> Microphone
DRIVERS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "sim": ("edge_runtime.simulation.microphone", "open_sim", ()),
    "wav": ("edge_runtime.capture.microphones.wav", "open_wav", ()),
    "pyaudio": ("edge_runtime.capture.microphones.pyaudio_microphone", "open_pyaudio", ("pyaudio",)),
}


def open_microphone(cfg: MicrophoneConfig, clock: Clock) -> Microphone:
    """The microphone that the station file names, not yet started. Raises DeviceError when it names none."""
    if cfg.driver == "off":
        raise DeviceError("microphone.driver is 'off'; set it to " + ", ".join(f"'{name}'" for name in DRIVERS))
    module, factory, packages = DRIVERS[cfg.driver]
    _need(cfg.driver, packages)
    microphone: Microphone = getattr(import_module(module), factory)(cfg, clock)
    return microphone


def list_microphones(timeout_s: float = LIST_WITHIN_S) -> list[MicrophoneDevice]:
    """Devices that can record, asked for in a child process. Raises DeviceError when there is no answer in time."""
    _need("pyaudio", DRIVERS["pyaudio"][2])
    from edge_runtime.capture.microphones.pyaudio_microphone import list_devices

    return list_devices(timeout_s)


def _need(driver: str, packages: tuple[str, ...]) -> None:
    for package in packages:
        if find_spec(package) is None:  # not imported here: it belongs to the child
            raise DeviceError(
                f"microphone driver '{driver}' needs the package '{package}', which is not installed",
                "apt install portaudio19-dev gcc python3-dev, then pip install 'edge-runtime[voice]'",
            )
