"""The table of camera drivers. A driver is one file; its library is imported in that file only.

The file has two functions. `open_camera(cfg: CameraConfig, clock: Clock) -> Camera` makes the camera, not yet started.
`find_camera(cfg: CameraConfig) -> str` says what it will be, without opening it, or raises DeviceError in words that
name the fix. What the driver alone understands it reads from its own section, `cfg.NAME`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from edge_runtime.core.errors import DeviceError

if TYPE_CHECKING:  # the command line reads the table, and does without pydantic and numpy
    from edge_runtime.capture.cameras.camera import Camera
    from edge_runtime.config.schema import CameraConfig
    from edge_runtime.core.clock import Clock


class Driver(NamedTuple):
    module: str
    about: str


DRIVERS: Mapping[str, Driver] = {
    "sim": Driver("edge_runtime.simulation.camera", "simulated parts on a simulated belt; needs nothing"),
    "folder": Driver(
        "edge_runtime.capture.cameras.folder", "pictures of a folder, one for each part; needs camera.folder.path"
    ),
    "video": Driver(
        "edge_runtime.capture.cameras.video", "a video file as a free-running camera; needs camera.video.path"
    ),
    "v4l2": Driver("edge_runtime.capture.cameras.v4l2", "USB and CSI cameras"),
}


def open_camera(cfg: CameraConfig, clock: Clock) -> Camera:
    """The camera that the station file names, not yet started."""
    camera: Camera = _module(cfg).open_camera(cfg, clock)
    return camera


def find_camera(cfg: CameraConfig) -> str:
    """What that camera is, judged without opening it. Raises DeviceError in words that say what to do."""
    found: str = _module(cfg).find_camera(cfg)
    return found


def _module(cfg: CameraConfig) -> ModuleType:
    try:
        return import_module(DRIVERS[cfg.driver].module)
    except ImportError as err:
        raise DeviceError(f"camera driver '{cfg.driver}' needs a package that is not installed: {err.name}") from err
