"""Driver "v4l2": a USB or CSI camera through Linux's video devices, by OpenCV.

The kernel stamps each picture at the start of exposure with the same monotonic clock the box uses; OpenCV hands the
stamp out as CAP_PROP_POS_MSEC, and it is believed when it lies in the last half second. MJPG is asked for, because
uncompressed 1280x720 fills USB 2 at 10 frames/s. Two kernel buffers: with one, cameras drop every other picture; with
the default four, a slow reader sees the past. A picture that came damaged is left out and counted.

A camera that falls silent without going away keeps OpenCV waiting for up to 10 s. Its thread is left behind with the
device; opening it again fails as busy until then, and the line tries again by itself.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2

from edge_runtime.capture.cameras.camera import CameraLost
from edge_runtime.capture.cameras.opencv_capture import GrabbingCamera, Picture, to_rgb
from edge_runtime.capture.cameras.v4l2_devices import list_devices
from edge_runtime.config.schema import CameraConfig
from edge_runtime.core.clock import MS, Clock, monotonic_ns
from edge_runtime.core.errors import DeviceError

BUFFERS = 2
MAX_STAMP_AGE_NS = 500 * MS
MANUAL_EXPOSURE = 1  # V4L2_EXPOSURE_MANUAL
MOST_DAMAGED = 10  # pictures in a row: interference spoils one or two, a loose cable all of them
EXPOSURE_UNIT_US = 100  # of V4L2_CID_EXPOSURE_ABSOLUTE

OpenCapture = Callable[[str], Any]  # path -> cv2.VideoCapture or what looks like one


def open_camera(cfg: CameraConfig, clock: Clock) -> GrabbingCamera:
    return GrabbingCamera("v4l2", cfg, clock, lambda: V4l2Device(cfg, clock))


def find_camera(cfg: CameraConfig) -> str:
    return V4l2Device(cfg, monotonic_ns).find()


def open_capture(path: str) -> Any:
    return cv2.VideoCapture(path, cv2.CAP_V4L2)


class V4l2Device:
    """One video device. Without `camera.v4l2.path` it takes the first that takes pictures."""

    settles = True

    def __init__(self, cfg: CameraConfig, clock: Clock, open_device: OpenCapture = open_capture) -> None:
        self._cfg, self._clock, self._open_device = cfg, clock, open_device
        self._path = cfg.v4l2.path
        self._capture: Any = None
        self._damaged_run = 0
        self.damaged = 0

    def open(self) -> str:
        self._path = self.find()
        capture = self._open_device(self._path)
        if not capture.isOpened():
            capture.release()
            raise DeviceError(
                f"camera '{self._path}' does not open: another process uses it (`fuser {self._path}` names it), or it "
                "takes no pictures",
                "`edge-runtime io cameras` lists those that do",
            )
        self._capture = capture
        self._set_up(capture)
        width, height = (capture.get(p) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        return f"{self._path} {width:.0f}x{height:.0f} at {capture.get(cv2.CAP_PROP_FPS):g} frames/s"

    def take(self, stop: threading.Event) -> Picture | None:
        good = self._capture.grab()
        now_ns = self._clock()
        if stop.is_set():
            return None
        stamp_ns = round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * MS)
        _, image = self._capture.retrieve() if good else (False, None)
        if not good:
            raise CameraLost(f"camera '{self._path}' delivers no more pictures; check the cable")
        if image is None:
            self._leave_out()
            return None
        self._damaged_run = 0
        is_sane = 0 <= now_ns - stamp_ns <= MAX_STAMP_AGE_NS
        return Picture(to_rgb(image), stamp_ns if is_sane else now_ns - self._cfg.exposure_us * 1000)

    def _leave_out(self) -> None:
        """The picture that was grabbed could not be decoded."""
        self.damaged, self._damaged_run = self.damaged + 1, self._damaged_run + 1
        if self._damaged_run >= MOST_DAMAGED:
            raise CameraLost(
                f"camera '{self._path}' delivers only damaged pictures; check the cable and what runs beside it"
            )

    def close(self) -> None:
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()

    def find(self) -> str:
        """The device to open. Raises DeviceError in words that name what there is."""
        devices = [device for device in list_devices() if device.takes_pictures]
        found = ", ".join(map(str, devices)) or "none"
        path = self._cfg.v4l2.path or (devices[0].path if devices else "/dev/video0")
        node = Path(path)
        if not node.exists():
            raise DeviceError(f"no camera '{path}' (found: {found})", "check the cable or set camera.v4l2.path")
        if self._open_device is open_capture and not stat.S_ISCHR(node.stat().st_mode):
            raise DeviceError(
                f"camera.v4l2.path = '{path}' is no video device (found: {found})",
                "for a file use driver 'video'",
            )
        if not os.access(node, os.R_OK | os.W_OK):
            raise DeviceError(f"may not open camera '{path}'", "add the user to group video (usermod -aG video USER)")
        return path

    def _set_up(self, capture: Any) -> None:
        cfg = self._cfg
        wanted = [
            (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")),
            (cv2.CAP_PROP_FRAME_WIDTH, cfg.width),
            (cv2.CAP_PROP_FRAME_HEIGHT, cfg.height),
            (cv2.CAP_PROP_FPS, cfg.fps),
            (cv2.CAP_PROP_BUFFERSIZE, BUFFERS),
        ]
        if cfg.exposure_us:
            wanted += [
                (cv2.CAP_PROP_AUTO_EXPOSURE, MANUAL_EXPOSURE),
                (cv2.CAP_PROP_EXPOSURE, max(1, cfg.exposure_us // EXPOSURE_UNIT_US)),
            ]
        for key, value in wanted:
            capture.set(key, value)  # a camera that cannot says what it does instead in the status line
