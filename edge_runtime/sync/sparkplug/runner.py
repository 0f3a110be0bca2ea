"""Runs a Sparkplug node: one thread that feeds it time, samples and what the link heard, and does what it says.

link --turn()--> heard --> node --> actions --> link, bdSeq file, command handler, journal
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edge_runtime.core.clock import SECOND, Clock, monotonic_ns
from edge_runtime.core.errors import EdgeError, StorageError
from edge_runtime.core.events import EventKind
from edge_runtime.core.files import write_atomic
from edge_runtime.flow.components import Health, State
from edge_runtime.sync.sparkplug.actions import (
    Action,
    Command,
    Connect,
    Disconnect,
    Moment,
    Note,
    Publish,
    Remember,
    Sample,
)
from edge_runtime.sync.sparkplug.node import Phase, SparkplugNode

log = logging.getLogger(__name__)

TURN_S = 0.1  # at most, between two looks at the clock
STOP_WAIT_S = 4.0  # for NDEATH to be acknowledged, DISCONNECT to leave and the thread to end; a dial may take 3 s


@dataclass(frozen=True, slots=True)
class Connected:
    """CONNACK with success, and SUBACK for every filter."""


@dataclass(frozen=True, slots=True)
class Received:
    topic: str
    payload: bytes
    is_retained: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection ended or was refused, for whatever reason."""

    reason: str


Heard = Connected | Received | Lost


class Link(Protocol):
    """One MQTT connection at a time, for this node alone, used by the runner's thread only (but for `wake`)."""

    def open(self, connect: Connect) -> None:
        """Start a clean session. Raises EdgeError only when no CONNECT packet left the box."""

    def turn(self, timeout_s: float) -> Sequence[Heard]:
        """Move bytes, waiting at most so long; what was heard, in order. Nothing of an earlier connection."""

    def publish(self, publish: Publish) -> None:
        """Send at once, or drop where there is no connection: never kept for a later one."""

    def close(self) -> None:
        """DISCONNECT behind what was published, then close. Nothing is heard of it any more. Safe any time."""

    def wake(self) -> None:
        """End the waiting of `turn` now. From any thread."""


class NotYet(EdgeError):
    """Whoever is asked for a sample has just been started: a birth would tell what is over in a moment."""


class BdSeqFile:
    """The number of the next session, kept over restarts and power cuts."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> int:
        """0 on a new box, and when the file is not a number from 0 to 255."""
        try:
            value = int(self._path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return 0
        return value if 0 <= value <= 255 else 0

    def write(self, bd_seq: int) -> None:
        """Raises StorageError when it cannot be kept."""
        try:
            write_atomic(self._path, f"{bd_seq}\n")
        except OSError as err:
            raise StorageError(f"cannot keep the session number in {self._path}: {err.strerror or err}") from err


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


class SparkplugRunner:
    """One node on one thread, from `start` to `stop`. While a callable takes its time, nothing is heard.

    read: the present sample, asked for once a period; when it raises EdgeError this period is left out, and NotYet
    keeps the node from connecting.
    command: carries out what a host wrote; refusals are its own business.
    note: told of births, losses and refused commands, for the journal.
    """

    name = "sparkplug"

    def __init__(
        self,
        node: SparkplugNode,
        link: Link,
        *,
        bd_seq: BdSeqFile,
        read: Callable[[], Sample],
        command: Callable[[Command], None] = lambda command: None,
        note: Callable[[Note], None] = lambda note: None,
        period_s: float = 1.0,
        clock: Clock = monotonic_ns,
        wall: Callable[[], int] = wall_ms,
    ) -> None:
        self.node = node
        self._link = link
        self._bd_seq = bd_seq
        self._read, self._command, self._note = read, command, note
        self._period_ns = round(period_s * SECOND)
        self._clock, self._wall = clock, wall
        self._thread: threading.Thread | None = None
        self._must_stop = threading.Event()
        self._must_rebirth = threading.Event()
        self._next_sample_ns = 0
        self._progress_ns: int | None = None
        self._trouble = ""
        self._is_early = False
        self._counts = {"published": 0, "commands": 0, "refused": 0, "lost": 0, "crashes": 0}

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="sparkplug", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Tell the hosts (NDEATH), disconnect and end. Safe to call twice."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._must_stop.set()
        self._link.wake()
        thread.join(STOP_WAIT_S)
        if thread.is_alive():
            log.warning("sparkplug.stop thread still busy after %.0f s", STOP_WAIT_S)

    def rebirth(self) -> None:
        """Publish every birth again. From any thread."""
        self._must_rebirth.set()
        self._link.wake()

    def health(self) -> Health:
        if self._thread is None:
            return Health(State.STOPPED)
        phase = self.node.phase
        watch = self.node.watch
        if watch and phase is not Phase.BORN and (old := watch.old_host()):
            return Health(State.DEGRADED, f"{phase.value}: {old}", self._progress_ns)
        is_well = phase in (Phase.BORN, Phase.WAITING)
        detail = phase.value if is_well or not self._trouble else f"{phase.value}: {self._trouble}"
        return Health(State.OK if is_well else State.DEGRADED, detail, self._progress_ns)

    def report(self) -> Mapping[str, Any]:
        return {"phase": self.node.phase.value, "server": self.node.server, "births": self.node.births, **self._counts}

    def turn(self) -> None:
        """One look at the link, the clock and, when it is time, the box. What the thread does until it is stopped."""
        for heard in self._link.turn(TURN_S):
            self._do(self._tell(heard))
        now = self._now()
        self._progress_ns = now.ns
        self._take_sample(now)
        if not self._is_early:
            self._do(self.node.tick(now))
        if self._must_rebirth.is_set():
            self._must_rebirth.clear()
            self._do(self.node.rebirth(now))

    def _take_sample(self, now: Moment) -> None:
        """Once a period."""
        if now.ns < self._next_sample_ns:
            return
        self._next_sample_ns = now.ns + self._period_ns
        try:
            sample = self._read()
        except NotYet:
            self._is_early = True
            return
        except EdgeError as err:
            log.warning("sparkplug.sample %s", err)
        else:
            self._do(self.node.sample(sample, self._now()))
        self._is_early = False

    def _run(self) -> None:
        while not self._must_stop.is_set():
            try:
                self.turn()
            except Exception:
                self._counts["crashes"] += 1
                log.exception("sparkplug.turn failed")
                self._must_stop.wait(1.0)
        try:
            self._do(self.node.stop(self._now()))
        except Exception:
            log.exception("sparkplug.stop failed")

    def _tell(self, heard: Heard) -> list[Action]:
        now = self._now()
        match heard:
            case Connected():
                return self.node.connected(now)
            case Received(topic, payload, is_retained):
                return self.node.received(topic, payload, now, retained=is_retained)
            case Lost(reason):
                self._counts["lost"] += 1
                self._trouble = reason
                return self.node.disconnected(now, reason)

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Publish():
                    self._counts["published"] += 1
                    self._link.publish(action)
                case Connect():
                    self._open(action)
                case Remember(bd_seq):
                    self._keep(bd_seq)
                case Disconnect():
                    self._link.close()
                    self._do(self.node.disconnected(self._now(), "left"))
                case Command():
                    self._counts["commands"] += 1
                    self._command(action)
                case Note():
                    self._pass_on(action)

    def _open(self, action: Connect) -> None:
        try:
            self._link.open(action)
        except EdgeError as err:
            self._trouble = str(err)
            self._do(self.node.connect_failed(self._now(), str(err)))

    def _keep(self, bd_seq: int) -> None:
        try:
            self._bd_seq.write(bd_seq)
        except StorageError as err:
            log.warning("sparkplug.bd_seq %s; live tags go on", err)  # a full disk must not take the live tags away

    def _pass_on(self, note: Note) -> None:
        if note.kind == EventKind.SPARKPLUG_COMMAND_REFUSED:
            self._counts["refused"] += 1
        log.info("%s %s", note.kind, " ".join(f"{key}={value}" for key, value in note.detail.items()))
        self._note(note)

    def _now(self) -> Moment:
        return Moment(self._clock(), self._wall())
