"""What a recogniser in another process answers for an utterance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from edge_runtime.core.messages import Command


class SpeechAnswer(NamedTuple):
    text: str  # empty is an answer too: nothing that it knows
    confidence: float  # 0..1
    origin: str  # who said so


@dataclass(frozen=True, slots=True)
class Transcript:
    """What a recogniser made of an utterance. An empty text is speech that is neither command nor code."""

    text: str
    confidence: float  # 0..1
    command: Command | None
    origin: str  # "commands-embed@1", "remote:asr@server"
