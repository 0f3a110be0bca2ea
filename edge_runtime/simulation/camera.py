"""Driver "sim": a camera over the simulated belt, with an encoder input, exposed by the photo-eye.

Frames are drawn ahead by another process (`renderer`), received by a thread of this driver and held until the
moment at which a real camera would have them: the part at the eye, plus `camera.delay_ms`, plus the exposure. Each
carries the encoder count latched at the eye, so a part whose frame is missing leaves a hole and never borrows a
neighbour's picture.

With `world.attach` the driver joins a simulated line that already runs and sees the parts that pass from then on;
without it, it starts a belt of its own, which moves at once and has no controller (`io capture`).
"""

from __future__ import annotations

import logging
import socket
import tempfile
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edge_runtime.capture.cameras.camera import CameraLost
from edge_runtime.config.schema import CameraConfig, WorldConfig
from edge_runtime.core.clock import MS, SECOND, Clock
from edge_runtime.core.errors import DeviceError
from edge_runtime.core.messages import Frame, Trigger
from edge_runtime.flow.components import Health, State
from edge_runtime.simulation.renderer import Renderer
from edge_runtime.simulation.wire import CREDIT, Header, Kind, receive_header, receive_into
from edge_runtime.simulation.world import World

log = logging.getLogger(__name__)

PREFETCH = 3  # frames held ahead, 2.8 MB each at 1280x720: 50 ms of slack at 60 parts/s
EXPOSURE_US = 500  # where the station file leaves it to the driver
HELLO_WITHIN_S = 30.0  # drawing the phones takes 0.6 s; the rest is a box that starts everything at once


class _Held(NamedTuple):
    """A picture that waits for its moment."""

    part: int  # index, from 0
    encoder: int
    offset_ns: int  # of the eye, from the start of the belt
    image: np.ndarray[Any, np.dtype[np.uint8]]


def open_sim(cfg: CameraConfig, world: WorldConfig, clock: Clock) -> SimCamera:
    return SimCamera(cfg, world, clock)


class SimCamera:
    """The simulated camera. See the module's own words for what it promises."""

    pairs_by = "encoder"

    def __init__(self, cfg: CameraConfig, world: WorldConfig, clock: Clock) -> None:
        self.name = cfg.name
        self._cfg, self._clock, self._attach = cfg, clock, world.attach
        self._world = None if world.attach else World.from_config(world)
        self._exposure_us = cfg.exposure_us or EXPOSURE_US
        self._delay_ns = round(cfg.delay_ms * MS)
        self._changed = threading.Condition()
        self._held: deque[_Held] = deque()
        self._start_ns = 0
        self._lost = ""
        self._is_running = False
        self._sock: socket.socket | None = None
        self._receiver: threading.Thread | None = None
        self._renderer: Renderer | None = None
        self._seq_base = 0
        self._last_seq = -1
        self._progress_ns: int | None = None
        self._delivered = self._connects = self._skipped_before = self._skipped = 0

    def start(self) -> None:
        if self._is_running:
            return
        try:
            path = self._attach or self._start_own_belt()
            self._sock = self._connect(path)
        except BaseException:
            self.stop()
            raise
        if self._world is not None:
            self._world.belt.begin(self._clock())
        self._held.clear()
        self._start_ns, self._lost, self._is_running = 0, "", True
        self._connects += 1
        self._progress_ns = self._clock()
        self._receiver = threading.Thread(
            target=self._receive, args=(self._sock,), name=f"{self.name}-receive", daemon=True
        )
        self._receiver.start()
        self._grant(PREFETCH)

    def stop(self) -> None:
        with self._changed:
            self._is_running = False
            sock, receiver, self._sock, self._receiver = self._sock, self._receiver, None, None
            self._changed.notify_all()
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)  # wakes the receiver; close alone does not
            except OSError:
                pass  # the far side was faster
        if receiver is not None:
            receiver.join()
        if sock is not None:
            sock.close()
        self._end_own_belt()
        with self._changed:
            self._held.clear()
            self._skipped_before, self._skipped = self._skipped_before + self._skipped, 0

    def health(self) -> Health:
        if self._lost:
            return Health(State.FAILED, self._lost, self._progress_ns)
        if not self._is_running:
            return Health(State.STOPPED)
        return Health(State.OK, f"simulated, {self._delivered} frames", self._progress_ns)

    def report(self) -> Mapping[str, Any]:
        return {
            "driver": "sim",
            "frames": self._delivered,
            "skipped": self._skipped_before + self._skipped,  # parts whose picture was not drawn in time
            "prefetched": len(self._held),
            "connects": self._connects,
        }

    def trigger(self, trigger: Trigger) -> None:
        """The eye is wired to this camera: nothing to do."""

    def read(self, timeout_s: float) -> Frame | None:
        give_up_ns = self._clock() + round(timeout_s * SECOND)
        with self._changed:
            while True:
                self._progress_ns = now_ns = self._clock()
                if not self._is_running:
                    return None
                due_ns = self._due_ns()
                if self._lost and due_ns is None:  # what is held and has its moment is still shown
                    raise CameraLost(self._lost)
                if due_ns is not None and due_ns <= now_ns:
                    frame = self._develop(self._held.popleft())
                    break
                if now_ns >= give_up_ns:
                    return None
                wake_ns = give_up_ns if due_ns is None else min(due_ns, give_up_ns)
                self._changed.wait((wake_ns - now_ns) / SECOND)
        self._grant(1)
        return frame

    def _due_ns(self) -> int | None:
        if not self._held or not self._start_ns:
            return None
        return self._exposed_ns(self._held[0]) + self._exposure_us * 1000

    def _exposed_ns(self, held: _Held) -> int:
        return self._start_ns + held.offset_ns + self._delay_ns

    def _develop(self, held: _Held) -> Frame:
        if held.part + self._seq_base <= self._last_seq:  # another line, or the same one from its start
            self._seq_base = self._last_seq + 1 - held.part
        self._last_seq = held.part + self._seq_base
        self._delivered += 1
        return Frame(
            camera=self.name,
            seq=self._last_seq,
            captured_ns=self._exposed_ns(held),
            exposure_us=self._exposure_us,
            image=held.image,
            encoder=held.encoder,
        )

    def _connect(self, path: str) -> socket.socket:
        """Connect and wait for the greeting, which comes when the first picture is drawn."""
        hint = "start one with tools/sim/line, or clear world.attach" if self._attach else "see the log"
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(HELLO_WITHIN_S)
            sock.connect(path)
            hello = receive_header(sock)
            if hello is None or hello.kind is not Kind.HELLO:
                raise DeviceError(f"the simulated line at '{path}' hung up without a greeting; {hint}")
            sock.settimeout(None)
        except (OSError, ValueError) as err:
            sock.close()
            raise DeviceError(f"no simulated line at '{path}' ({err}); {hint}") from err
        except DeviceError:
            sock.close()
            raise
        return sock

    def _start_own_belt(self) -> str:
        assert self._world is not None
        path = Path(tempfile.mkdtemp(prefix="edge-camera-")) / "camera.sock"
        self._renderer = Renderer(self._world, self._cfg.width, self._cfg.height, path, owns_folder=True)
        self._renderer.start()
        self._renderer.wait_ready()
        return str(path)

    def _end_own_belt(self) -> None:
        renderer, self._renderer = self._renderer, None
        if renderer is not None:
            renderer.stop()

    def _grant(self, frames: int) -> None:
        sock = self._sock
        if sock is not None:
            try:
                sock.send(CREDIT * frames)
            except OSError:
                pass  # the receiver notices, and says so

    def _receive(self, sock: socket.socket) -> None:
        """Outermost loop of the receiving thread."""
        why = "the simulated line has ended"
        try:
            while (header := receive_header(sock)) is not None:
                if not self._take(sock, header):
                    break
        except (OSError, ValueError) as err:
            why = f"the simulated line broke off: {err}"
        except Exception:
            why = "the receiving thread failed, see the log"
            log.exception("receiver failed camera=%s", self.name)
        with self._changed:
            if self._is_running:
                self._lost = f"camera '{self.name}': {why}"
                self._changed.notify_all()

    def _take(self, sock: socket.socket, header: Header) -> bool:
        held: _Held | None = None
        if header.kind is Kind.FRAME:
            image = np.empty((header.height, header.width, 3), np.uint8)
            if not receive_into(sock, image.data.cast("B")):
                return False
            image.flags.writeable = False
            held = _Held(header.part, header.encoder, header.at_ns, image)
        with self._changed:
            if held is not None:
                self._held.append(held)
                self._skipped = header.skipped
            elif header.kind is Kind.START:
                self._start_ns = header.at_ns
            self._changed.notify_all()
        return True
