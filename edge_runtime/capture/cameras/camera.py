"""The camera protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from edge_runtime.core.errors import DeviceError
from edge_runtime.core.messages import Frame, Trigger
from edge_runtime.flow.components import Health


class CameraLost(DeviceError):
    """The camera is gone. The line closes it and opens it again; parts meanwhile have no frame."""


class Camera(Protocol):
    """One picture source. `read` is called by one thread; `trigger`, `health`, `report` by others."""

    @property
    def name(self) -> str: ...
    @property
    def pairs_by(self) -> str:
        """What this driver stamps: "part" (triggered per part by `trigger`), "encoder" or "time"."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def health(self) -> Health: ...
    def report(self) -> Mapping[str, Any]: ...

    def read(self, timeout_s: float) -> Frame | None:
        """The next frame, None on timeout. Raises CameraLost when there will be no more."""

    def trigger(self, trigger: Trigger) -> None:
        """Software trigger for `pairs_by == "part"`; a no-op elsewhere. Never blocks."""
