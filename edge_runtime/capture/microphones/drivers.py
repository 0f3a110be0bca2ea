"""The table of microphone drivers. A driver is one file; its library is imported in that file only."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec

from edge_runtime.capture.microphones.microphone import Microphone, MicrophoneDevice
from edge_runtime.config.schema import MicrophoneConfig
from edge_runtime.core.clock import Clock
from edge_runtime.core.errors import DeviceError

LIST_WITHIN_S = 10.0  # PortAudio asks every plugin of every sound system; a dead one holds it up for ever

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
    module, _, packages = DRIVERS["pyaudio"]
    _need("pyaudio", packages)
    devices: list[MicrophoneDevice] = import_module(module).list_devices(timeout_s)
    return devices


def _need(driver: str, packages: tuple[str, ...]) -> None:
    for package in packages:
        if find_spec(package) is None:  # not imported here: it belongs to the child
            raise DeviceError(
                f"microphone driver '{driver}' needs the package '{package}', which is not installed",
                "apt install portaudio19-dev gcc python3-dev, then pip install 'edge-runtime[voice]'",
            )
