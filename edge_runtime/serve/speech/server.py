"""The speech servers that can be asked, behind one verb. Which one is told by the scheme of `voice.remote.url`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.errors import ConfigError

MOST_ANSWER_BYTES = 1 << 20
WYOMING_PORT = 10300  # of wyoming-faster-whisper, the usual one


@dataclass(frozen=True, slots=True)
class Speech:
    pcm: NDArray[np.int16]  # shape (n,), mono
    rate_hz: int


@dataclass(frozen=True, slots=True)
class Said:
    text: str
    confidence: float  # 0..1; 1 where the server tells none


class SpeechServer(Protocol):
    origin: str  # "remote:asr@speech.example:10300"

    def recognise(self, speech: Speech, until: Deadline) -> Said:
        """Raises DeviceError when there is no answer in time, ProtocolError when it is none."""


class Deadline:
    """A point in time that a whole exchange has to keep."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def left_s(self) -> float:
        """Raises TimeoutError when none is left."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time is over")
        return left


def open_speech_server(url: str, model: str) -> SpeechServer:
    """url: tcp://HOST[:PORT] is Wyoming, http(s)://HOST[:PORT][/PATH] the Open Inference Protocol.

    Raises ConfigError when it is neither.
    """
    from edge_runtime.serve.speech.inference import InferenceSpeech
    from edge_runtime.serve.speech.wyoming import WyomingSpeech

    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError as err:
        raise ConfigError(f"voice.remote.url = '{url}': {err}") from err
    if not host or parts.scheme not in ("tcp", "http", "https"):
        raise ConfigError(f"voice.remote.url = '{url}' must be tcp://HOST:PORT or http://HOST:PORT")
    if parts.scheme == "tcp":
        return WyomingSpeech(host, port or WYOMING_PORT, model)
    return InferenceSpeech(url, model)
