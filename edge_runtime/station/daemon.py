"""`edge-runtime run`: opens a box, keeps it running, feeds systemd's watchdog by progress, ends it in flow order."""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_runtime.config.load import Loaded
from edge_runtime.config.paths import socket_path, state_dir
from edge_runtime.core.clock import SECOND, Clock, monotonic_ns
from edge_runtime.core.errors import DeviceError, ModelError, StorageError
from edge_runtime.core.files import is_still_at
from edge_runtime.flow.components import Health, State
from edge_runtime.flow.stage_runner import NotReady
from edge_runtime.process.control import ControlServer, SharedAnswer
from edge_runtime.process.daemon_loop import TICK_S, DaemonLoop, hung, settle_memory
from edge_runtime.process.unix_socket import is_answering
from edge_runtime.station.requests import box_requests
from edge_runtime.station.snapshot import overall, snapshot, summary
from edge_runtime.station.wiring import Box, open_box

log = logging.getLogger(__name__)

STALE_NS = 5 * SECOND  # a required loop that has not turned for so long is hung, whatever its state says
DRAIN_S = 3.0  # what is between photo-eye and gate has this long after the last trigger; SIGTERM must end within 5 s
M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8
FRAMES_FROM_BYTES = 1 << 20  # blocks from this size are pictures


class Daemon:
    """One run of one station, from READY to the summary."""

    def __init__(
        self,
        loaded: Loaded,
        parts: int | None = None,
        seconds: float | None = None,
        clock: Clock = monotonic_ns,
    ) -> None:
        self._loaded = loaded
        self._parts = parts
        self._seconds = seconds
        self._clock = clock
        self._loop = DaemonLoop(self._line, self._stuck)
        self._started_ns = clock()
        self._box: Box | None = None

    def run(self) -> dict[str, Any]:
        """Run until a bound or a signal; the summary. Raises EdgeError when the box cannot start."""
        _keep_memory_low()
        with self._loop, _OnlyOne(state_dir(self._loaded.config)) as folder:
            while True:
                box = self._box = open_box(self._loaded, self._parts, self._clock)
                control = ControlServer(
                    socket_path(self._loaded.config),
                    {"stop": self._stop_asked, **box_requests(box)},
                    {"status": SharedAnswer(lambda _: self._snapshot())},
                )
                try:
                    self._open_control(control)
                    if self._start(box):
                        return self._inspect(box, folder, control)
                finally:
                    box.stop()
                    control.stop()

    def _start(self, box: Box) -> bool:
        """False when the model could not be loaded and another one is to be tried. Raises where there is none."""
        try:
            box.start()
        except (ModelError, NotReady) as err:
            if not box.model.give_way(err):
                raise
            return False
        self._started_ns = self._clock()
        settle_memory()
        if not box.line.arm():
            log.warning("controller.silent %s: %s", self._loaded.config.controller.port, box.controller_detail)
        self._loop.ready()
        log.info("ready station=%s model=%s", self._loaded.config.station.name, box.model.label)
        return True

    def _open_control(self, control: ControlServer) -> None:
        """A box that cannot be asked inspects all the same; two boxes on one socket are a mistake."""
        try:
            control.start()
        except DeviceError as err:
            if is_answering(control.path):
                raise
            log.error("control.closed %s", err)

    # -- running ---------------------------------------------------------------------------------------------------

    def _inspect(self, box: Box, folder: _OnlyOne, control: ControlServer) -> dict[str, Any]:
        """Until a bound is reached or somebody asks to stop; the summary."""
        self._loop.turn(lambda: self._look_after(box, folder, control), lambda: self._is_over(box))
        self._drain(box)
        box.line.stop()
        document = self._summary(box)
        box.stop()  # only a closed journal knows what it could not write
        return {**document, "unwritten": box.journal.unwritten}

    def _look_after(self, box: Box, folder: _OnlyOne, control: ControlServer) -> None:
        box.model.tell_changes()  # somebody may have staged another model
        if folder.was_removed():  # with all in it: take it again, and be reachable again
            log.error("state.gone %s was removed: made anew", folder.path)
            folder.take()
            control.stop()
            self._open_control(control)

    def _is_over(self, box: Box) -> bool:
        if self._parts is not None and box.line.ledger.counts().triggers >= self._parts:
            return True
        if self._seconds is not None and self._clock() - self._started_ns >= self._seconds * SECOND:
            return True
        return box.sim is not None and box.sim.is_over

    def _stuck(self) -> list[str]:
        return stuck_components(self._box.required(), self._clock()) if self._box else []

    def _drain(self, box: Box) -> None:
        """See the parts on the belt through to the gate."""
        if box.sim:
            box.sim.close()  # no further part is laid on the simulated belt
        else:
            box.line.close()
        limit = self._clock() + round(DRAIN_S * SECOND)
        while not self._is_drained(box) and self._clock() < limit:
            threading.Event().wait(TICK_S / 5)
        if not box.line.is_drained:
            log.warning("drain.timeout parts=%d", box.line.ledger.open_parts)

    @staticmethod
    def _is_drained(box: Box) -> bool:
        return box.line.is_drained and (box.sim is None or box.sim.is_over)

    # -- what it tells ---------------------------------------------------------------------------------------------

    def _line(self) -> str:
        box = self._box
        if box is None:
            return "starting"
        counts = box.line.ledger.counts()
        verdicts = ", ".join(f"{name} {count}" for name, count in counts.verdicts.items())
        return f"{overall(box.healths())}: {counts.triggers} parts, {verdicts}"

    def _snapshot(self) -> Mapping[str, Any]:
        box = self._box
        if box is None:
            raise DeviceError("the box is still starting")
        now_ns = self._clock()
        shot = snapshot(box, self._loaded, parts_asked=self._parts, started_ns=self._started_ns, now_ns=now_ns)
        return shot.to_json()

    def _stop_asked(self, _: Mapping[str, Any]) -> str:
        self._loop.stop()
        return "stopping"

    def _summary(self, box: Box) -> dict[str, Any]:
        truth = self._truth(box)
        counted = {name: truth[name] for name in ("missed", "false", "stray", "defects")} if truth else None
        world_parts = self._parts if box.sim and not self._loop.is_stopping and self._seconds is None else None
        return summary(
            line=box.line,
            model=box.model.label,
            config_digest=self._loaded.digest,
            truth=counted,
            world_parts=world_parts,
        )

    def _truth(self, box: Box) -> dict[str, Any] | None:
        """What the simulated world knows of its parts: nothing where another camera's pictures were judged."""
        if self._loaded.config.camera.driver != "sim":
            return None
        try:
            return box.sim.truth_report() if box.sim else None
        except DeviceError as err:
            log.error("sim.truth %s", err)
            return None


def stuck_components(required: Mapping[str, Health], now_ns: int) -> list[str]:
    """Names of components that are hung: no turn of their loop for STALE_NS, or a model past repair.

    A lost camera or link is not hung: its thread turns and tries again, and a restart would not bring the cable back.
    """
    failed = {name for name, health in required.items() if health.state is State.FAILED}
    stuck = set(hung(required, now_ns, STALE_NS)) - ({"camera"} & failed)  # a driver may take its time to open
    stuck |= {"model"} & failed
    return [name for name in required if name in stuck]


class _OnlyOne:
    """The state folder belongs to one daemon: a lock that the kernel drops when the process dies, however it dies.

    The lock is on the folder itself, so that a folder that has become read-only can still be inspected with.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def __enter__(self) -> _OnlyOne:
        self.take()
        return self

    def was_removed(self) -> bool:
        """Somebody deleted the folder under us, or put another one there."""
        return not is_still_at(self.path, self._fd)

    def take(self) -> None:
        """Raises StorageError when the folder cannot be had, DeviceError when it is another's."""
        self._release()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as err:
            raise StorageError(
                f"cannot use state folder {self.path}: {err.strerror}", "mend permissions or set recording.state_dir"
            ) from err
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            self._release()
            raise DeviceError(
                f"state folder {self.path} is in use by a running edge-runtime",
                "stop it (systemctl stop edge-runtime-run), or set recording.state_dir",
            ) from err

    def __exit__(self, *_: object) -> None:
        self._release()

    def _release(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _keep_memory_low() -> None:
    """Give the memory of finished frames and finished threads back to the system. Does nothing where there is no glibc.

    glibc raises its mmap threshold with every large block that is freed, so that frames (2.8 MB) end up in heaps that
    never shrink: a fixed threshold saves 6-8 MB. It also keeps a heap for each thread that ended, 23 MB for a replaced
    worker: with two heaps for all, 93 MB stay 93 over replacements that took it to 168. Numbers as in mallopt(3).
    """
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, FRAMES_FROM_BYTES)
        libc.mallopt(M_ARENA_MAX, 2)
    except (OSError, AttributeError):
        pass
