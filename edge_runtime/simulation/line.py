"""The simulated line: a controller behind a pty, a camera behind a socket, one belt for both, and the truth.

Two child processes, so that nothing simulated holds the daemon's interpreter lock: the controller's double
(`firmware_bridge.sim.controller`) and the drawing of frames (`renderer`). They share the belt's switch and
compute everything else from the same configuration. The line stands still until the controller is armed for the first
time.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.core.errors import DeviceError, InstallError
from edge_runtime.simulation.child import SimChild, remove
from edge_runtime.simulation.renderer import Renderer
from edge_runtime.simulation.world import Belt, BeltSwitch, World
from firmware_bridge.reject.controller import Controller
from firmware_bridge.sim.belt import BeltFaults
from firmware_bridge.sim.controller import ControllerSim
from firmware_bridge.sim.plc import make_plc
from firmware_bridge.sim.wire import WireFaults

if TYPE_CHECKING:
    from edge_runtime.config.schema import CameraConfig, ControllerConfig, LineFaults, WorldConfig
    from firmware_bridge.sim.truth import Truth as GateTruth

WIDTH, HEIGHT = 1280, 720


class SimLine:
    """One line. `start`, then open `controller_port` as a serial port and attach a camera to `camera_socket`."""

    def __init__(
        self,
        world: WorldConfig,
        controller: ControllerConfig,
        parts: int | None = None,
        *,
        width: int = WIDTH,
        height: int = HEIGHT,
        folder: Path | None = None,
    ) -> None:
        """folder: where to put `camera.sock` and the link `controller`; must exist. None makes one and removes it."""
        self.world = World.from_config(world, parts, BeltSwitch())
        self._gate_counts = controller.fire_counts + controller.pulse_counts
        self._folder, self._owns_folder = folder, folder is None
        self._size = (width, height)
        self._bad = world.bad_days
        self._plc = (controller.role, controller.unit) if controller.protocol == "modbus" else None
        self._controller: SimChild | None = None
        self._renderer: Renderer | None = None
        self.controller_port = ""
        self.camera_socket = ""

    def seen_by(self, camera: CameraConfig) -> CameraConfig:
        """The same camera, over this line."""
        return camera.model_copy(update={"sim": camera.sim.model_copy(update={"attach": self.camera_socket})})

    @property
    def belt(self) -> Belt:
        return self.world.belt

    @property
    def pids(self) -> tuple[int, ...]:
        children = (self._controller, self._renderer)
        return tuple(child.pid for child in children if child is not None and child.pid is not None)

    @property
    def is_over(self) -> bool:
        """Whether every part has passed the gate. Never, on an endless belt whose feeder runs."""
        return self.belt.is_clear(time.monotonic_ns(), self._gate_counts)

    def start(self) -> None:
        """Return when both can be opened. The camera still draws its first part; its greeting waits for it.

        Raises InstallError, DeviceError.
        """
        require_core()
        folder = self._folder = self._folder or Path(tempfile.mkdtemp(prefix="edge-line-"))
        try:
            socket_path = folder / "camera.sock"
            socket_path.unlink(missing_ok=True)  # of a line that was killed
            self._renderer = Renderer(self.world, *self._size, socket_path, self._owns_folder)
            self._renderer.start()
            faults = _faults(self._bad, has_frames=self._plc is None)
            self._controller = SimChild(
                "the simulated controller",
                _control,
                (self.belt, faults, self._plc, str(folder / "controller"), self._owns_folder),
            )
            self._controller.start()
            self.controller_port = self._controller.wait_ready()
            self._renderer.wait_ready()
            self.camera_socket = str(socket_path)
        except OSError as err:
            self.stop()
            raise DeviceError(f"cannot start the simulated line in {folder}: {err.strerror or err}") from err
        except BaseException:
            self.stop()
            raise

    def close(self) -> None:
        """Lay no more parts on the belt; those that have passed the eye go on to the gate."""
        self.belt.switch.end_feed(time.monotonic_ns())

    def stop(self) -> None:
        for child in (self._controller, self._renderer):
            if child is not None:
                child.stop()
        self._controller = self._renderer = None
        if self._folder is not None:
            remove(self._folder / "controller", self._owns_folder)  # the children do it too, for a parent that died
        if self._owns_folder:
            self._folder = None

    def truth_report(self) -> dict[str, Any]:
        """What really happened to each part that has reached the eye, and what went wrong, by the gate's own movements.

        missed: defective parts that the gate let pass; false: good parts that it took, by a verdict or by default;
        stray: pulses with no part at the gate. Parts that are not at the gate yet have `"fired": null` and count
        nowhere.
        """
        if self._controller is None or self._renderer is None:
            raise DeviceError("the simulated line is not running")
        gate: GateTruth = self._controller.ask("truth")
        seen = 1 + max((part.index for part in gate.parts), default=-1)
        truths = self._renderer.truth(seen)
        rows = [
            {
                "index": part.index,
                "boot_id": part.boot_id,
                "part_id": part.part_id,
                "defect": truths[part.index][0],
                "kind": truths[part.index][1],
                "severity": truths[part.index][2],
                "outcome": part.outcome,
                "fired": part.is_removed,
            }
            for part in gate.parts
        ]
        return {**_count(rows), "stray": gate.stray, "sweeps": gate.sweeps, "stuck": gate.stuck, "parts": rows}


def controller_beside(camera_socket: str) -> str:
    """The controller's port of a line that keeps the link `controller` beside its camera's socket."""
    return str(Path(camera_socket).parent / "controller")


def require_core() -> None:
    """The simulated controller is the firmware's own core, compiled. Raises InstallError when it cannot be had."""
    from firmware_bridge.reject import core

    try:
        core.load()
    except core.CoreError as err:
        raise InstallError(f"no simulated controller: {err}") from err


def _count(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {
        "defects": sum(row["defect"] for row in rows),
        "missed": sum(row["defect"] and row["fired"] is False for row in rows),
        "false": sum(not row["defect"] and row["fired"] is True for row in rows),
    }


def _control(
    belt: Belt,
    faults: tuple[WireFaults, BeltFaults],
    plc: tuple[str, int] | None,
    link: str,
    owns_folder: bool,
    pipe: Connection,
) -> None:
    """Main function of the controller's process. plc: role and unit of the box, for a controller on Modbus."""
    sim = open_controller(belt, *faults, plc=plc)
    name = Path(link)
    try:
        name.unlink(missing_ok=True)  # of a line that was killed
        name.symlink_to(sim.path)
        pipe.send(sim.path)
        while True:
            sim.step()
            _follow_hold(sim, belt.switch)
            if pipe.poll():
                pipe.recv()  # raises EOFError when the parent is gone
                pipe.send(sim.truth())
    finally:
        sim.close()
        remove(name, owns_folder)


def _faults(bad: LineFaults, *, has_frames: bool) -> tuple[WireFaults, BeltFaults]:
    """Plain values, so that the controller's process does without pydantic."""
    return (
        WireFaults(
            bad.flip_bytes, lose_answers=bad.lose_acks, late_events_ms=bad.late_trigger_ms, has_frames=has_frames
        ),
        BeltFaults(stuck_gate=bad.stuck_gate),
    )


def open_controller(
    belt: Belt, wire: WireFaults | None = None, faults: BeltFaults | None = None, *, plc: tuple[str, int] | None = None
) -> ControllerSim:
    """The controller of a belt that others see too. plc: role and unit of a box that meets a PLC instead."""
    make: Callable[..., Controller] = Controller
    if plc is not None:
        role, unit = plc
        make = make_plc("client", unit) if role == "server" else make_plc("server")
    return ControllerSim(belt, drive=belt, seed=belt.seed, wire=wire, faults=faults, make=make)


def _follow_hold(sim: ControllerSim, switch: BeltSwitch) -> None:
    """The belt obeys the controller's feed output, as a drive with a stop input does."""
    wanted = sim.is_holding
    if wanted != bool(switch.held_since_ns):
        (switch.hold if wanted else switch.resume)(time.monotonic_ns())
