"""Keeps one camera handing out frames: opens it, notices when it is lost, and opens it again for ever.

Lost is a camera that says so, and one that is silent while parts pass. Whether a picture shows anything is not asked
here but on the model's thread, see `picture_watch`: a blind camera is there and need not be opened again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from edge_runtime.capture.cameras.camera import Camera
from edge_runtime.core.clock import SECOND, Clock
from edge_runtime.core.errors import DeviceError
from edge_runtime.core.events import EventKind
from edge_runtime.core.messages import Event, Frame, Trigger
from edge_runtime.flow.components import Health, State

log = logging.getLogger(__name__)

READ_TIMEOUT_S = 0.2  # how long the camera thread waits before it shows that it is alive
REOPEN_WAIT_S = (0.25, 0.5, 1.0, 2.0, 5.0)  # between attempts to bring a camera back
SILENT_PARTS = 2  # parts without a frame before silence is called a lost camera: one may just be a dropped frame
SHOWS_LIFE_NS = 2 * SECOND  # a camera thread without a turn for so long hangs, which is worse than what it shows


class CameraWatch:
    """See the module. `watch` is the body of the camera's thread; `trigger` is called by the bridge's, the rest by any.

    blindness: what is wrong with what the camera shows; None: nothing.
    """

    name = "camera"

    def __init__(
        self,
        camera: Camera,
        lost_after_s: float,
        *,
        on_frame: Callable[[Frame], None],
        tell: Callable[[Event], None],
        blindness: Callable[[], Health | None],
        clock: Clock,
    ) -> None:
        self._camera = camera
        self._lost_after_ns = round(lost_after_s * SECOND)
        self._on_frame = on_frame
        self._tell = tell
        self._blindness = blindness
        self._clock = clock
        self._stop = threading.Event()
        self._state = Health(State.STOPPED)
        self._progress_ns = clock()
        self._last_frame_ns = clock()
        self._parts_since_frame = 0
        self.last_trouble = ""  # why it was lost the last time

    def start(self) -> None:
        """Open it. One that is not there yet is no reason to stay down: parts are rejected until it comes."""
        self._stop.clear()
        try:
            self._camera.start()
        except DeviceError as err:
            self._state = Health(State.FAILED, str(err))
        else:
            self._state = Health(State.OK)

    def stop(self) -> None:
        self._stop.set()
        self._camera.stop()

    def health(self) -> Health:
        if self._stop.is_set():
            return Health(State.STOPPED, "", self._progress_ns)
        health = self._camera.health() if self._state.state is State.OK else self._state
        if health.state is State.OK and self._clock() - self._progress_ns < SHOWS_LIFE_NS:
            health = self._blindness() or health
        return Health(health.state, health.detail, self._progress_ns)

    def report(self) -> Mapping[str, Any]:
        return self._camera.report()

    def trigger(self, trigger: Trigger) -> None:
        """A part passes: a camera that takes a picture of each is told of it."""
        self._parts_since_frame += 1
        self._camera.trigger(trigger)

    # -- camera thread -----------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Hand on frames until `stop`."""
        if not self._state.is_working:
            self._reopen(self._state.detail)
        while not self._stop.is_set():
            self._progress_ns = self._clock()
            try:
                frame = self._camera.read(READ_TIMEOUT_S)
            except DeviceError as err:
                self._reopen(str(err))
                continue
            if frame is not None:
                self._last_frame_ns = self._clock()
                self._parts_since_frame = 0
                self._on_frame(frame)
            elif self._is_silent():
                self._reopen(f"{self._parts_since_frame} parts without a frame")

    def _is_silent(self) -> bool:
        silent_ns = self._clock() - self._last_frame_ns
        return self._parts_since_frame >= SILENT_PARTS and silent_ns > self._lost_after_ns

    def _reopen(self, why: str) -> None:
        if self._stop.is_set():
            return
        self._state = Health(State.FAILED, f"camera '{self._camera.name}' lost: {why}")
        self.last_trouble = self._state.detail
        log.error("camera.lost camera=%s why=%s", self._camera.name, why)
        self._tell(Event(EventKind.CAMERA_LOST, self._clock(), {"camera": self._camera.name, "why": why}))
        attempt = 0
        while not self._stop.is_set():
            self._camera.stop()
            try:
                self._camera.start()
            except DeviceError as err:
                self._state = Health(State.FAILED, str(err))
                self._progress_ns = self._clock()
                self._stop.wait(REOPEN_WAIT_S[min(attempt, len(REOPEN_WAIT_S) - 1)])
                attempt += 1
            else:
                break
        self._state = Health(State.OK)
        self._last_frame_ns, self._parts_since_frame = self._clock(), 0
        self._tell(
            Event(EventKind.CAMERA_REOPENED, self._clock(), {"camera": self._camera.name, "attempts": attempt + 1})
        )
