"""The process that draws what the simulated camera sees, ahead of time, and serves it over a unix socket.

Drawing inside the daemon would hold the interpreter lock for milliseconds a part, so it lives in a process of its own.
A part takes 2.6 ms median and the copy through the socket 1 ms, so one core serves well over 60 parts/s. What cannot be
drawn in time is skipped and counted: that part has no frame, as with a camera that is too slow.
"""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.simulation.child import SimChild, remove
from edge_runtime.simulation.wire import Header, Kind
from edge_runtime.simulation.world import World, wire_count

if TYPE_CHECKING:
    from edge_runtime.config.schema import CameraConfig, WorldConfig
    from edge_runtime.simulation.phone_ink import U8
    from edge_runtime.simulation.phone_scene import SceneConfig

Truth = tuple[bool, str, str]  # defect, kind, severity
POLL_STILL_S = 0.002  # while a camera waits for the belt to start: the first part is LEAD_S away
POLL_S = 0.05  # how late a hold of the belt is noticed when no picture is asked for
HELD_START_NS = 2**62  # told as the belt's start while it is held: no part comes to the eye
SEND_TIMEOUT_S = 5.0  # a camera that takes no bytes for so long is hung: let it go, so that another can connect
LATE_MIN_NS = 20_000_000
HORIZON_PARTS = 1000
TRUTHS_AT_ONCE = 200  # 0.5 s when none of them was drawn; frames wait meanwhile


class Renderer:
    """The parent's handle on the drawing process."""

    def __init__(self, world: World, width: int, height: int, socket_path: Path, owns_folder: bool = False) -> None:
        """owns_folder: remove the socket's folder at the end, also after a parent that could not."""
        self._socket_path, self._owns_folder = socket_path, owns_folder
        self._child = SimChild(
            "the simulated camera", serve_frames, (world, width, height, str(socket_path), owns_folder)
        )

    @property
    def pid(self) -> int | None:
        return self._child.pid

    def start(self) -> None:
        """Start the process and return at once."""
        self._child.start()

    def wait_ready(self) -> None:
        """Return when the camera can connect; it is greeted when the first part is drawn. Raises DeviceError."""
        self._child.wait_ready()

    def truth(self, parts: int) -> Sequence[Truth]:
        """What is really on the first `parts` parts. Draws those that nobody has looked at: 2.6 ms each."""
        truths: list[Truth] = []
        while len(truths) < parts:
            truths += self._child.ask((len(truths), min(parts, len(truths) + TRUTHS_AT_ONCE)))
        return truths

    def stop(self) -> None:
        self._child.stop()
        remove(self._socket_path, self._owns_folder)


@contextmanager
def lone_belt(world: WorldConfig, camera: CameraConfig) -> Iterator[CameraConfig]:
    """A belt without a controller, which moves at once, for as long as it takes; the camera that sees it."""
    the_world = World.from_config(world)
    path = Path(tempfile.mkdtemp(prefix="edge-camera-")) / "camera.sock"
    renderer = Renderer(the_world, camera.width, camera.height, path, owns_folder=True)
    try:
        renderer.start()
        renderer.wait_ready()
        the_world.belt.begin(time.monotonic_ns())
        yield camera.model_copy(update={"sim": camera.sim.model_copy(update={"attach": str(path)})})
    finally:
        renderer.stop()


def serve_frames(
    world: World, width: int, height: int, socket_path: str, owns_folder: bool, control: Connection
) -> None:
    """Main function of the drawing process."""
    server = _FrameServer(world, width, height, socket_path, control)
    try:
        server.run()
    finally:
        server.close()
        remove(Path(socket_path), owns_folder)


class _FrameServer:
    """One camera at a time; a new connection takes over from an old one, as after a restart of the daemon."""

    def __init__(self, world: World, width: int, height: int, socket_path: str, control: Connection) -> None:
        self._world, self._belt, self._size = world, world.belt, (width, height)
        self._path, self._control = socket_path, control
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._client: socket.socket | None = None
        self._credits = 0
        self._client_start_ns = 0  # as the camera was told last
        self._next = 0
        self._ready: tuple[int, U8] | None = None
        self._truths: dict[int, Truth] = {}
        self._last_image: U8 | None = None  # what a frozen camera goes on showing
        self._skipped = 0
        self._draw_ns = 5_000_000  # decaying maximum of the time one part takes
        self._allowed_late_ns = max(LATE_MIN_NS, int(1e9 / world.belt.parts_per_s))

    def run(self) -> None:
        self._listener.bind(self._path)
        self._listener.listen(1)
        self._control.send("listening")
        from edge_runtime.simulation.phone_scene import warm_up  # 0.2 s, while the camera connects

        warm_up(self._belt.seed, self._scene(0))
        self._draw_next()
        while True:
            worked = self._serve_client()
            waiting_for_start = self._client is not None and self._client_start_ns in (0, HELD_START_NS)
            timeout_s = 0.0 if worked else POLL_STILL_S if waiting_for_start else POLL_S
            self._listen(timeout_s)

    def close(self) -> None:
        for sock in (self._client, self._listener):
            if sock is not None:
                sock.close()

    def _listen(self, timeout_s: float) -> None:
        sources = [s for s in (self._control, self._listener, self._client) if s is not None]
        for source in wait(sources, timeout_s):
            if source is self._control:
                self._control.send(self._truth_of(self._control.recv()))
            elif source is self._listener:
                self._welcome(self._listener.accept()[0])
            elif source is self._client:
                self._take_credit(self._client)

    def _serve_client(self) -> bool:
        """One step of work for the camera; False when there is nothing to do before something happens."""
        if self._client is None:
            return False
        try:
            start_ns = HELD_START_NS if self._belt.switch.held_since_ns else self._belt.switch.start_ns
            if start_ns != self._client_start_ns:  # it began to move, is held, or goes on
                self._client.sendall(Header(Kind.START, at_ns=start_ns).pack())
                self._client_start_ns = start_ns
            if self._ready is None:
                return self._draw_next()
            return self._send_ready(self._client)
        except OSError:
            self._hang_up()
            return True

    def _welcome(self, client: socket.socket) -> None:
        self._hang_up()
        client.settimeout(SEND_TIMEOUT_S)
        self._client, self._credits, self._client_start_ns = client, 0, 0
        first = self._first_in_time(late_ns=0)
        if self._ready is None or self._ready[0] != first:
            self._ready, self._next = None, first
        try:
            client.sendall(Header(Kind.HELLO, first, 0, 0, *self._size, self._skipped).pack())
        except OSError:
            self._hang_up()

    def _take_credit(self, client: socket.socket) -> None:
        try:
            got = client.recv(64)
        except OSError:
            got = b""
        if got:
            self._credits += len(got)
        else:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _first_in_time(self, late_ns: int) -> int:
        """The first part whose picture can be there at most `late_ns` after its moment."""
        return self._belt.index_at(time.monotonic_ns() + self._draw_ns - late_ns)

    def _draw_next(self) -> bool:
        in_time = self._first_in_time(self._allowed_late_ns)
        horizon = max(self._next, in_time) + HORIZON_PARTS  # ends the search on a day on which every frame is dropped
        while self._next < horizon:
            index, self._next = self._next, self._next + 1
            if not self._belt.has_part(index):
                self._next = index
                return False
            if not self._world.has_frame(index):
                continue
            if index >= in_time:
                self._ready = (index, self._draw(index))
                return True
            self._skipped += 1
        return False

    def _send_ready(self, client: socket.socket) -> bool:
        if self._credits == 0 or self._ready is None:
            return False
        index, image = self._ready
        self._ready = None
        if self._belt.index_at(time.monotonic_ns() - self._allowed_late_ns) > index:
            self._skipped += 1  # the camera gave no credit in time
            return True
        self._credits -= 1
        count, offset_ns = self._belt.eye_counts(index), self._belt.eye_offset_ns(index)
        client.sendall(Header(Kind.FRAME, index, wire_count(count), offset_ns, *self._size, self._skipped).pack())
        client.sendall(image.data.cast("B"))
        return True

    def _draw(self, index: int) -> U8:
        from edge_runtime.simulation.phone_scene import render_phone

        began_ns = time.monotonic_ns()
        scene = render_phone(self._belt.seed, index, self._scene(index))
        self._truths[index] = (scene.truth.defect, scene.truth.kind, scene.truth.severity)
        took_ns = time.monotonic_ns() - began_ns
        self._draw_ns = max(took_ns, self._draw_ns - (self._draw_ns - took_ns) // 8)
        if self._last_image is None or not self._world.is_frozen(index):
            self._last_image = scene.image
        return self._last_image

    def _scene(self, index: int) -> SceneConfig:
        from edge_runtime.simulation.phone_scene import SceneConfig

        world = self._world
        return SceneConfig(
            width=self._size[0],
            height=self._size[1],
            scratch_share=world.defect_share,
            oil_share=world.oil_share,
            stain_share=world.stain_share,
            light=world.light_at(index),
            focus_blur_px=world.focus_px_at(index),
        )

    def _truth_of(self, span: tuple[int, int]) -> list[Truth]:
        for index in range(*span):
            if index not in self._truths:
                self._draw(index)
        return [self._truths[index] for index in range(*span)]
