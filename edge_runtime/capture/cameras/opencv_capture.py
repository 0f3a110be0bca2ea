"""What the drivers on `cv2.VideoCapture` have in common: a thread that takes pictures and a short queue to who reads.

A source takes one picture after the other and may block; only its thread touches it. The queue holds the last few
frames: who reads too slowly loses the oldest ones, counted, and never sees stale pictures for ever. A source that hangs
inside the driver is abandoned with its thread when the camera is stopped.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.capture.cameras.camera import CameraLost
from edge_runtime.capture.cameras.settling import Settling
from edge_runtime.config.schema import CameraConfig
from edge_runtime.core.clock import SECOND, Clock
from edge_runtime.core.errors import DeviceError
from edge_runtime.core.messages import Frame, Trigger
from edge_runtime.flow.components import Health, State

log = logging.getLogger(__name__)

QUEUED = 4
FIRST_PICTURE_WITHIN_S = 8.0  # USB cameras take a second or two for the first grab, and up to three to settle
END_WITHIN_S = 1.0

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what it prints is said here, as a sentence


class Picture(NamedTuple):
    image: NDArray[np.uint8]  # (height, width, 3) RGB, read-only; handed over
    captured_ns: int


class PictureSource(Protocol):
    """A blocking device. Every method is called by one thread at a time."""

    @property
    def settles(self) -> bool:
        """Whether its first pictures are dark or badly exposed, and belong to no part."""

    @property
    def damaged(self) -> int:
        """Pictures that came and could not be read."""

    def open(self) -> str:
        """Open it and say what it is. Raises DeviceError, with nothing left open."""

    def take(self, stop: threading.Event) -> Picture | None:
        """The next picture; None when it was damaged, or `stop` was set meanwhile.

        Raises CameraLost when there are no more.
        """

    def close(self) -> None: ...


def to_rgb(image: NDArray[Any]) -> NDArray[np.uint8]:
    """OpenCV's BGR or grey as read-only RGB; in place where it can."""
    code = cv2.COLOR_BGR2RGB if image.ndim == 3 and image.shape[2] == 3 else cv2.COLOR_GRAY2RGB
    rgb = np.asarray(cv2.cvtColor(image, code), np.uint8)
    rgb.flags.writeable = False
    return rgb


class GrabbingCamera:
    """A free-running camera over a blocking source. Its frames pair by time."""

    pairs_by = "time"

    def __init__(self, driver: str, cfg: CameraConfig, clock: Clock, make_source: Callable[[], PictureSource]) -> None:
        self.name = cfg.name
        self._driver, self._exposure_us, self._clock = driver, cfg.exposure_us, clock
        self._make_source = make_source  # one for each start: a thread left behind must not close its successor's
        self._changed = threading.Condition()
        self._frames: deque[Frame] = deque(maxlen=QUEUED)
        self._stop: threading.Event | None = None  # of the running thread; None when stopped
        self._thread: threading.Thread | None = None
        self._what = ""
        self._lost = ""
        self._seq = -1
        self._last_ns = 0
        self._delivered = self._overrun = self._unsettled = self._damaged = 0
        self._progress_ns: int | None = None

    def start(self) -> None:
        if self._stop is not None:
            return
        source = self._make_source()
        self._what = source.open()
        self._frames.clear()
        self._lost, self._stop = "", threading.Event()
        self._progress_ns = self._clock()
        self._thread = threading.Thread(
            target=self._grab, args=(source, self._stop), name=f"{self.name}-grab", daemon=True
        )
        self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._lost or self._stop is None, FIRST_PICTURE_WITHIN_S)
            has_picture = bool(self._frames) or self._stop is None
        if not has_picture:
            why = self._lost or f"{self._what} opens but delivers no picture within {FIRST_PICTURE_WITHIN_S:.0f} s"
            self.stop()
            raise DeviceError(why)

    def stop(self) -> None:
        with self._changed:
            stop, thread, self._stop, self._thread = self._stop, self._thread, None, None
            if stop is not None:
                stop.set()
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(END_WITHIN_S)  # it closes the source; one that hangs in the driver is left behind
            if thread.is_alive():
                log.warning("camera thread left behind camera=%s what=%s", self.name, self._what)
        self._frames.clear()

    def health(self) -> Health:
        if self._stop is None:
            return Health(State.STOPPED)
        if self._lost:
            return Health(State.FAILED, self._lost, self._progress_ns)
        return Health(State.OK, self._what, self._progress_ns)

    def report(self) -> Mapping[str, Any]:
        return {
            "driver": self._driver,
            "frames": self._delivered,
            "overrun": self._overrun,
            "device": self._what,
            "unsettled": self._unsettled,
            "damaged": self._damaged,
        }

    def trigger(self, trigger: Trigger) -> None:
        """It runs freely: nothing to do."""

    def read(self, timeout_s: float) -> Frame | None:
        give_up_ns = self._clock() + round(timeout_s * SECOND)
        with self._changed:
            while True:
                self._progress_ns = now_ns = self._clock()
                if self._stop is None:
                    return None
                if self._frames:
                    self._delivered += 1
                    return self._frames.popleft()
                if self._lost:
                    raise CameraLost(self._lost)
                if now_ns >= give_up_ns:
                    return None
                self._changed.wait((give_up_ns - now_ns) / SECOND)

    def _grab(self, source: PictureSource, stop: threading.Event) -> None:
        """Outermost loop of the camera's thread."""
        why, settling = "", Settling() if source.settles else None
        try:
            while not stop.is_set():
                before, picture = source.damaged, source.take(stop)
                self._damaged += source.damaged - before
                if picture is None:
                    continue
                if settling is None or settling.is_done(picture.image, self._clock()):
                    settling = None
                    self._queue(stop, picture)
                else:
                    self._unsettled += 1
        except CameraLost as err:
            why = str(err)
        except Exception as err:
            log.exception("camera thread failed camera=%s", self.name)
            why = f"camera '{self.name}' failed: {err}"
        finally:
            source.close()
        with self._changed:
            if not stop.is_set():
                self._lost = why
            self._changed.notify_all()

    def _queue(self, stop: threading.Event, picture: Picture) -> None:
        with self._changed:
            if stop.is_set():
                return
            self._seq += 1
            self._last_ns = max(self._last_ns + 1, picture.captured_ns)
            self._overrun += len(self._frames) == QUEUED
            self._frames.append(Frame(self.name, self._seq, self._last_ns, self._exposure_us, picture.image))
            self._changed.notify_all()
