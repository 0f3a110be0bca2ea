"""`edge-runtime run`: opens a box, keeps it running, feeds systemd's watchdog by progress, ends it in flow order."""

from __future__ import annotations

import ctypes
import fcntl
import gc
import logging
import os
import signal
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
from edge_runtime.process.sd_notify import Notifier
from edge_runtime.process.unix_socket import is_answering
from edge_runtime.station.requests import box_requests
from edge_runtime.station.snapshot import overall, snapshot, summary
from edge_runtime.station.wiring import Box, open_box

log = logging.getLogger(__name__)

TICK_S = 0.05
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
        notifier: Notifier | None = None,
        clock: Clock = monotonic_ns,
    ) -> None:
        self._loaded = loaded
        self._parts = parts
        self._seconds = seconds
        self._notifier = notifier or Notifier()
        self._clock = clock
        self._asked_to_stop = threading.Event()
        self._started_ns = clock()
        self._box: Box | None = None

    def run(self) -> dict[str, Any]:
        """Run until a bound or a signal; the summary. Raises EdgeError when the box cannot start."""
        _keep_memory_low()
        with _Signals(self._asked_to_stop), _OnlyOne(state_dir(self._loaded.config)) as folder:
            while True:
                box = self._box = open_box(self._loaded, self._parts, self._clock)
                control = ControlServer(
                    socket_path(self._loaded.config),
                    {"stop": self._stop_asked, **box_requests(box)},
                    {"status": SharedAnswer(lambda _: self._snapshot())},
                )
                try:
                    self._open_control(control)
                    if not self._start(box):
                        continue
                    self._watch(box, folder, control)
                    self._notifier.stopping()
                    self._drain(box)
                    box.line.stop()
                    document = self._summary(box)
                    box.stop()  # only a closed journal knows what it could not write
                    return {**document, "unwritten": box.journal.unwritten}
                finally:
                    box.stop()
                    control.stop()

    def _start(self, box: Box) -> bool:
        """False when the model could not be loaded and another one is to be tried. Raises where there is none."""
        try:
            box.start()
        except (ModelError, NotReady) as err:
            if not box.give_way(err):
                raise
            return False
        self._started_ns = self._clock()
        gc.collect()
        gc.freeze()  # what is alive now stays: full collections no longer walk the libraries
        if not box.line.arm():
            log.warning("controller.silent %s: %s", self._loaded.config.controller.port, box.controller_detail)
        self._notifier.ready(self._line())
        log.info("ready station=%s model=%s", self._loaded.config.station.name, box.model_label)
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

    def _watch(self, box: Box, folder: _OnlyOne, control: ControlServer) -> None:
        """Until a bound is reached or somebody asks to stop."""
        feed_ns = round((self._notifier.watchdog_s or 2.0) * SECOND / 4)
        fed_ns = 0
        while not self._asked_to_stop.wait(TICK_S):
            now = self._clock()
            if now - fed_ns >= feed_ns:
                self._feed(box, now)
                fed_ns = now
                box.tell_changes()  # somebody may have staged another model
                if folder.was_removed():  # with all in it: take it again, and be reachable again
                    log.error("state.gone %s was removed: made anew", folder.path)
                    folder.take()
                    control.stop()
                    self._open_control(control)
            if self._parts is not None and box.line.ledger.counts().triggers >= self._parts:
                return
            if self._seconds is not None and now - self._started_ns >= self._seconds * SECOND:
                return
            if box.sim is not None and box.sim.is_over:
                return

    def _feed(self, box: Box, now_ns: int) -> None:
        """Tell systemd that we live, if every required component turned lately."""
        stuck = stuck_components(box.required(), now_ns)
        if stuck:
            log.critical("watchdog.withheld %s", " ".join(stuck))
            self._notifier.status(f"hung: {', '.join(stuck)}")
        else:
            self._notifier.alive(self._line())

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
        station = self._loaded.config.station
        identity = {
            "station": station.name,
            "site": station.site,
            "line": station.line,
            "model": box.model_label,
            "model_digest": box.bundle.digest,
            "config": self._loaded.origin,
            "config_digest": self._loaded.digest,
            "run": box.run_id,
            "parts_asked": self._parts,
            "automation": box.line.automation.value,
            "held_by": box.desk.held_by,
            "voice": dict(box.voice.report()) if box.voice else None,
            "retention": box.journal.retention.report(),
        }
        return snapshot(
            line=box.line,
            healths=box.healths(),
            identity=identity,
            started_ns=self._started_ns,
            now_ns=self._clock(),
        )

    def _stop_asked(self, _: Mapping[str, Any]) -> str:
        self._asked_to_stop.set()
        return "stopping"

    def _summary(self, box: Box) -> dict[str, Any]:
        truth = self._truth(box)
        counted = {name: truth[name] for name in ("missed", "false", "stray", "defects")} if truth else None
        world_parts = self._parts if box.sim and not self._asked_to_stop.is_set() and self._seconds is None else None
        return summary(
            line=box.line,
            model=box.model_label,
            config_digest=self._loaded.digest,
            truth=counted,
            world_parts=world_parts,
        )

    @staticmethod
    def _truth(box: Box) -> dict[str, Any] | None:
        try:
            return box.sim.truth_report() if box.sim else None
        except DeviceError as err:
            log.error("sim.truth %s", err)
            return None


def stuck_components(required: Mapping[str, Health], now_ns: int) -> list[str]:
    """Names of components that are hung: no turn of their loop for STALE_NS, or a model past repair.

    A lost camera or link is not hung: its thread turns and tries again, and a restart would not bring the cable back.
    """
    stuck = []
    for name, health in required.items():
        is_stale = health.progress_ns is not None and now_ns - health.progress_ns > STALE_NS
        if name == "camera" and health.state is State.FAILED:
            continue  # a driver may take its time to open
        if is_stale or (name == "model" and health.state is State.FAILED):
            stuck.append(name)
    return stuck


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
                f"cannot use state folder {self.path}: {err.strerror}; mend permissions or set recording.state_dir"
            ) from err
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            self._release()
            raise DeviceError(
                f"state folder {self.path} is in use by a running edge-runtime; stop it (systemctl stop "
                "edge-runtime-run), or set recording.state_dir"
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


class _Signals:
    """SIGTERM and SIGINT set the event; outside the main thread (tests) nothing is installed."""

    def __init__(self, event: threading.Event) -> None:
        self._event = event
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, lambda *_: self._event.set())

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
