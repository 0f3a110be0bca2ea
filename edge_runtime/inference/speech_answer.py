"""What a recogniser in another process answers for an utterance."""

from __future__ import annotations

from typing import NamedTuple


class SpeechAnswer(NamedTuple):
    text: str  # empty is an answer too: nothing that it knows
    confidence: float  # 0..1
    origin: str  # who said so
