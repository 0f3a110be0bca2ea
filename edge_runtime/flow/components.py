"""The verbs that everything that runs has, and the health it tells.

A component is started sinks first and stopped sources first. `health` is read by the status snapshot, by the page
and by the watchdog feeder ten times a second, from other threads: it returns what is known and never waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from edge_runtime.core.state import State

__all__ = ["Component", "Health", "State"]


@dataclass(frozen=True, slots=True)
class Health:
    """One component's state in one line. `progress_ns` is when its loop last turned, the proof that it is alive."""

    state: State
    detail: str = ""
    progress_ns: int | None = None

    @property
    def is_working(self) -> bool:
        return self.state in (State.OK, State.DEGRADED)


class Component(Protocol):
    @property
    def name(self) -> str: ...

    def start(self) -> None:
        """Return when ready. Raises DeviceError (or another EdgeError), never half started."""

    def stop(self) -> None:
        """Safe to call twice, and after a failed start."""

    def health(self) -> Health: ...

    def report(self) -> Mapping[str, Any]:
        """Numbers for the page and the post-mortem dump; JSON types only."""
