"""One microphone, several listeners: voice and machine sound hear the same chunks, each at its own pace.

Each listener holds a view that is a microphone of its own. The device starts with the first view and stops with the
last one. A view that is not read overwrites its oldest chunks: one listener that hangs costs the others nothing.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

from edge_runtime.capture.microphones.microphone import Microphone, MicrophoneLost
from edge_runtime.core.errors import DeviceError
from edge_runtime.core.messages import AudioChunk
from edge_runtime.flow.components import Health

log = logging.getLogger(__name__)

KEPT = 200  # chunks of a view that nobody reads: 6 s
READ_TIMEOUT_S = 0.2
STOP_WAIT_S = 2.0


class SharedMicrophone:
    """See the module. `view` before the first start, one for each listener."""

    def __init__(self, microphone: Microphone) -> None:
        self.microphone = microphone
        self._views: list[MicrophoneView] = []
        self._open: set[MicrophoneView] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def view(self) -> MicrophoneView:
        made = MicrophoneView(self)
        self._views.append(made)
        return made

    def _join(self, view: MicrophoneView) -> None:
        """Raises DeviceError as the microphone's own start does."""
        with self._lock:
            if not self._open:
                self.microphone.start()
                self._stop.clear()
                self._thread = threading.Thread(target=self._pump, name="microphone", daemon=True)
                self._thread.start()
            self._open.add(view)

    def _leave(self, view: MicrophoneView) -> None:
        with self._lock:
            self._open.discard(view)
            thread, self._thread = (self._thread, None) if not self._open else (None, self._thread)
            if thread is not None:
                self._stop.set()
                thread.join(STOP_WAIT_S)
                self.microphone.stop()

    def _pump(self) -> None:
        while not self._stop.is_set():
            try:
                chunk = self.microphone.read(READ_TIMEOUT_S)
            except MicrophoneLost as err:
                self._hand_on(err)
                self._stop.wait(READ_TIMEOUT_S)  # a file that has ended says so at every read
                continue
            except Exception as err:  # the thread's outermost loop: every listener hangs on it
                log.error("microphone.failed %s", err, exc_info=not isinstance(err, DeviceError))
                self._hand_on(MicrophoneLost(str(err)))
                self._stop.wait(READ_TIMEOUT_S)
                continue
            if chunk is not None:
                self._hand_on(chunk)

    def _hand_on(self, item: AudioChunk | MicrophoneLost) -> None:
        for view in self._views:
            if view in self._open:
                view.put(item)


class MicrophoneView:
    """A microphone as one listener has it."""

    def __init__(self, shared: SharedMicrophone) -> None:
        self._shared = shared
        self._items: deque[AudioChunk | MicrophoneLost] = deque()
        self._ready = threading.Condition()
        self._overwritten = 0

    @property
    def name(self) -> str:
        return self._shared.microphone.name

    def start(self) -> None:
        self._shared._join(self)

    def stop(self) -> None:
        self._shared._leave(self)
        with self._ready:
            self._items.clear()

    def health(self) -> Health:
        return self._shared.microphone.health()

    def report(self) -> Mapping[str, Any]:
        return {**self._shared.microphone.report(), "view_overwritten": self._overwritten}

    def read(self, timeout_s: float) -> AudioChunk | None:
        with self._ready:
            if not self._ready.wait_for(lambda: bool(self._items), timeout_s):
                return None
            item = self._items.popleft()
        if isinstance(item, MicrophoneLost):
            raise item
        return item

    def put(self, item: AudioChunk | MicrophoneLost) -> None:
        """From the pump. Returns at once."""
        with self._ready:
            if len(self._items) >= KEPT:
                self._items.popleft()
                self._overwritten += 1
            self._items.append(item)
            self._ready.notify()
