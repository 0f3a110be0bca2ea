"""Recordings that stand in for a microphone: which files, and each as 16-bit mono of a set rate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.errors import DeviceError
from edge_runtime.media.sound_file import SUFFIXES, SoundError, read_sound


def find_wavs(path: str) -> list[Path]:
    """The file, or the sound files of the folder in order of name. Raises DeviceError in words that name the key."""
    if not path:
        raise DeviceError("microphone.file is empty", "set it to a WAV file or a folder of them")
    at = Path(path).expanduser()
    try:
        if at.is_file():
            return [at]
        if not at.is_dir():
            raise DeviceError(f"microphone.file = '{path}' does not exist", "set it to a WAV file or a folder of them")
        found = sorted(file for file in at.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    except OSError as err:
        raise DeviceError(f"microphone.file = '{path}' cannot be read: {err.strerror}") from err
    if not found:
        raise DeviceError(f"no sound files in '{path}' ({', '.join(SUFFIXES)})", "set microphone.file")
    return found


def read_wav(path: Path, rate_hz: int) -> NDArray[np.int16]:
    """The first channel of a recording of at most an hour. Shape (n,), read-only. Raises DeviceError."""
    try:
        sound = read_sound(path, rate_hz)
    except SoundError as err:
        raise DeviceError(f"recording {err}") from err
    pcm: NDArray[np.int16] = np.rint(sound.pcm * 32768.0).clip(-32768, 32767).astype(np.int16)
    pcm.flags.writeable = False
    return pcm
