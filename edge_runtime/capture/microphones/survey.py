"""Is the station's microphone there? Judged without opening it, for `io microphones` and `doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_runtime.capture.microphones import drivers
from edge_runtime.capture.microphones.microphone import MicrophoneDevice
from edge_runtime.config.schema import MicrophoneConfig
from edge_runtime.core.errors import DeviceError
from edge_runtime.media.wav_file import find_wavs


@dataclass(frozen=True, slots=True)
class Survey:
    """What the station takes: device or file; or what is wrong, and the fix."""

    used: MicrophoneDevice | None
    is_ready: bool
    detail: str
    fix: str = ""


def ask_devices() -> tuple[list[MicrophoneDevice], DeviceError | None]:
    """Devices that can record, and why the sound system could not be asked."""
    try:
        return drivers.list_microphones(), None
    except DeviceError as err:
        return [], err


def judge(cfg: MicrophoneConfig, devices: Sequence[MicrophoneDevice], trouble: DeviceError | None) -> Survey:
    """The station's microphone among the devices; those count for driver `pyaudio` alone."""
    if cfg.driver == "off":
        return Survey(None, True, "the station has none (microphone.driver is off)")
    if cfg.driver == "pyaudio":
        return _device(cfg, devices, trouble)
    if cfg.driver == "sim" and not cfg.file:
        return Survey(None, True, "simulated")
    try:
        find_wavs(cfg.file)
    except DeviceError as err:
        return Survey(None, False, err.what, err.fix)
    return Survey(None, True, cfg.file)


def _device(cfg: MicrophoneConfig, devices: Sequence[MicrophoneDevice], trouble: DeviceError | None) -> Survey:
    """The device of that name, else the first whose name contains it; without a name the default one."""
    wanted = cfg.device.casefold()
    ranked = [device for device in devices if device.is_default and not wanted]
    ranked += [device for device in devices if device.name.casefold() == wanted]
    ranked += [device for device in devices if wanted in device.name.casefold()]
    if ranked:
        return Survey(ranked[0], True, ranked[0].name)
    if trouble:
        return Survey(None, False, trouble.what, trouble.fix)
    found = ", ".join(device.name for device in devices) or "none"
    named = f"'{cfg.device}'" if cfg.device else "that can record"
    return Survey(None, False, f"no microphone {named} (found: {found})", "check the cable or set microphone.device")
