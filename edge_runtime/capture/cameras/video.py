"""Driver "video": a recorded video as a free-running camera, played at the rate it was recorded with, over and over."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import cv2

from edge_runtime.capture.cameras.camera import CameraLost
from edge_runtime.capture.cameras.opencv_capture import GrabbingCamera, Picture, to_rgb
from edge_runtime.config.schema import CameraConfig
from edge_runtime.core.clock import SECOND, Clock
from edge_runtime.core.errors import DeviceError

MAX_FPS = 1000.0  # more is a broken header


def open_camera(cfg: CameraConfig, clock: Clock) -> GrabbingCamera:
    return GrabbingCamera("video", cfg, clock, lambda: VideoFile(cfg, clock))


def find_camera(cfg: CameraConfig) -> str:
    return f"video {_find_file(cfg)}"


def _find_file(cfg: CameraConfig) -> Path:
    if not cfg.video.path:
        raise DeviceError("camera.video.path is empty", "set it to a video file")
    path = Path(cfg.video.path).expanduser()
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise DeviceError(f"camera.video.path = '{path}' {what}", "set it to a video file")
    return path


class VideoFile:
    """Frames of a file, each at its time. A file whose header tells no rate plays at `camera.fps`."""

    settles = False  # it was recorded when it was
    damaged = 0  # OpenCV passes over what it cannot decode

    def __init__(self, cfg: CameraConfig, clock: Clock, loops: bool = True) -> None:
        self._cfg, self._clock, self._loops = cfg, clock, loops
        self._capture: Any = None
        self._period_ns = 0
        self._due_ns = 0

    def open(self) -> str:
        path = _find_file(self._cfg)
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_ANY)
        if not self._capture.isOpened():
            self.close()
            raise DeviceError(f"'{path}' is no video that OpenCV can play", "convert it, or set camera.video.path")
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        fps = fps if 0 < fps <= MAX_FPS else self._cfg.fps
        self._period_ns = round(SECOND / fps)
        self._due_ns = self._clock()
        return f"video {path} at {fps:g} frames/s"

    def take(self, stop: threading.Event) -> Picture | None:
        image = self._next()
        late_ns = self._clock() - self._due_ns
        if late_ns < 0:
            stop.wait(-late_ns / SECOND)
        elif late_ns > self._period_ns:
            self._due_ns += late_ns  # decoding cannot keep up: play slower than recorded, never in bursts
        picture = Picture(to_rgb(image), self._due_ns)
        self._due_ns += self._period_ns
        return None if stop.is_set() else picture

    def close(self) -> None:
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()

    def _next(self) -> Any:
        good, image = self._capture.read()
        if not good and self._loops:
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
            good, image = self._capture.read()
        if not good:
            raise CameraLost(f"camera '{self._cfg.name}': the video '{self._cfg.video.path}' is over")
        return image
