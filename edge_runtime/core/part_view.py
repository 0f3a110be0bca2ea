"""One part as a person at a screen sees it: what was decided, and the picture it was decided from.

`edge-runtime run` answers it as JSON on its control socket when a viewer asks (station/preview.py); the page reads it.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.core.messages import Region


@dataclass(frozen=True, slots=True)
class PartView:
    """picture: JPEG in base64, `width` x `height`; empty where no frame came. heat: grey PNG in base64, or empty."""

    seq: int  # counts decisions of this run
    part: str  # the controller's name for it, `boot-part`
    verdict: str
    cause: str
    reason: str
    score: float | None
    ms: float  # photo-eye to verdict
    model: str
    regions: tuple[Region, ...]
    width: int
    height: int
    picture: str
    heat: str


@dataclass(frozen=True, slots=True)
class WaitingView:
    """The part that waits for a person, with what is held of it. picture: as of PartView; empty: the viewer has it."""

    part: str
    waiting: int  # parts that wait, this one with them
    left_ms: int  # until nobody may decide it any more
    reason: str  # why it waits
    regions: tuple[Region, ...]
    width: int
    height: int
    picture: str
