"""A speech server that can be asked, whichever protocol it speaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_runtime.serve.deadline import Deadline

MOST_ANSWER_BYTES = 1 << 20


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
