"""The camera protocol and the table of drivers. A driver is one file; its library is imported in that file only."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

from edge_runtime.config.schema import CameraConfig, WorldConfig
from edge_runtime.core.clock import Clock
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


# driver name -> (module, factory); factory(cfg: CameraConfig, world: WorldConfig, clock: Clock) -> Camera
DRIVERS: Mapping[str, tuple[str, str]] = {
    "sim": ("edge_runtime.simulation.camera", "open_sim"),
    "folder": ("edge_runtime.capture.cameras.folder", "open_folder"),
    "video": ("edge_runtime.capture.cameras.video", "open_video"),
    "v4l2": ("edge_runtime.capture.cameras.v4l2", "open_v4l2"),
}


def open_camera(cfg: CameraConfig, world: WorldConfig, clock: Clock) -> Camera:
    """The camera that the station file names, not yet started."""
    module, factory = DRIVERS[cfg.driver]
    try:
        make = getattr(import_module(module), factory)
    except ImportError as err:
        raise DeviceError(f"camera driver '{cfg.driver}' needs a package that is not installed: {err.name}") from err
    camera: Camera = make(cfg, world, clock)
    return camera
