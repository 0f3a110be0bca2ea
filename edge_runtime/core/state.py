"""How a component is, and the box as a whole: one word."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    STARTING = "starting"
    OK = "ok"
    DEGRADED = "degraded"  # works, with something to tell
    FAILED = "failed"  # does not do its work; somebody tries to bring it back
    STOPPED = "stopped"
