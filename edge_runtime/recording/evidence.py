"""Pictures of parts, written beside the flow: all rejected and unsure ones and a share of the accepted.

`decided` only hands a reference over (2 us, 30 us when it wakes the writer). A thread of low priority encodes and
writes; when it falls behind, the few waiting places go to rejects and unsure parts first, and what is not kept is
counted by class. Which accepted parts are kept follows from their identity, so that a replay keeps the same ones.

The heat map lies beside the picture as a grey PNG: in a JPEG comment other programs lose it when they save the file.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import simplejpeg

from edge_runtime.config.schema import RecordingConfig
from edge_runtime.core.clock import SECOND, Clock, monotonic_ns
from edge_runtime.core.messages import (
    Decision,
    Event,
    Frame,
    GateReport,
    HumanLabel,
    PartKey,
    Prediction,
    Trigger,
    Verdict,
)
from edge_runtime.flow.components import Health, State
from edge_runtime.flow.timing import Latency
from edge_runtime.recording.retention import Retention
from edge_runtime.recording.shelf import Labels, QuotaFull, Shelf, nobody_labels
from edge_runtime.recording.trouble import explain
from edge_runtime.recording.wall_clock import WallClock

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

WAITING_PICTURES = 6  # 720p frames are 2.8 MB each, held in memory while they wait
NICENESS = 10
IDLE_S = 0.5
STOP_WAIT_S = 5.0
EXPIRE_EVERY_NS = 600 * SECOND
LOOK_EVERY_NS = 10 * SECOND
RESERVE_BYTES = 64 * 2**20  # of the disk, left to the journal: about 200 000 parts
MB = 2**20


class _Job(NamedTuple):
    decision: Decision
    frame: Frame
    heat: NDArray[np.float32] | None


class Evidence:
    """A tap of the line and a component. `kept(key, file)` is called when a picture is on the disk."""

    name = "evidence"

    def __init__(
        self,
        state: Path,
        cfg: RecordingConfig,
        kept: Callable[[PartKey, str], None],
        clock: Clock = monotonic_ns,
        *,
        labelled: Labels = nobody_labels,
        utc_ns: Callable[[], int] = time.time_ns,
        reserve_bytes: int = RESERVE_BYTES,
        retention: Retention | None = None,
    ) -> None:
        self._cfg = cfg
        self._on_kept = kept
        self._clock = clock
        self._wall = WallClock(clock, utc_ns)
        keep_days = {
            Verdict.ACCEPT: cfg.keep_days_good,
            Verdict.UNSURE: cfg.keep_days_reject,
            Verdict.REJECT: cfg.keep_days_reject,
        }
        self._retention = retention or Retention(state, clock, utc_ns)
        self._shelf = Shelf(state, cfg.quota_mb * MB, keep_days, reserve_bytes, self._retention, labelled)
        self._waiting = _Waiting(WAITING_PICTURES)
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._is_ready = False
        self._expire_ns = self._look_ns = 0
        self._trouble = ""
        self._progress_ns = clock()
        self.kept: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()  # "reject.busy", "accept.quota", "unsure.disk"
        self.encode_ms = Latency()
        self.write_ms = Latency()

    # -- what the line calls: never waits, never raises ----------------------------------------------------------------

    def triggered(self, trigger: Trigger) -> None: ...
    def ended(self, report: GateReport) -> None: ...
    def labelled(self, label: HumanLabel) -> None: ...
    def happened(self, event: Event) -> None: ...

    def decided(self, decision: Decision, frame: Frame | None, prediction: Prediction | None) -> None:
        if frame is None or not is_wanted(decision, self._cfg.good_share):
            return
        crowded_out = self._waiting.put(_Job(decision, frame, prediction.heat if prediction else None))
        if crowded_out:
            self.missed[f"{crowded_out.decision.verdict}.busy"] += 1

    # -- component -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin at once; the folder is looked through on the writer's thread."""
        if self._thread:
            return
        self._stopping.clear()
        self._thread = threading.Thread(target=self._loop, name="evidence", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write the pictures that wait, then end."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stopping.set()
        self._waiting.wake()
        thread.join(STOP_WAIT_S)
        if thread.is_alive():
            log.error("evidence.stop the disk does not answer; waiting=%d", len(self._waiting))

    def health(self) -> Health:
        if self._thread is None:
            return Health(State.STOPPED)
        return Health(State.DEGRADED if self._trouble else State.OK, self._trouble, self._progress_ns)

    def report(self) -> Mapping[str, Any]:
        return {
            "kept": dict(self.kept),
            "missed": dict(self.missed),
            "removed": dict(self._shelf.removed),
            "waiting": len(self._waiting),
            "used_mb": round(self._shelf.used_bytes / MB, 1),
            "quota_mb": self._cfg.quota_mb,
            "encode_ms": self.encode_ms.summary(),
            "write_ms": self.write_ms.summary(),
        }

    # -- the writer's thread -------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while True:
            self._progress_ns = self._clock()
            job = None
            try:
                self._tidy()
                job = self._waiting.take(0.0 if self._stopping.is_set() else IDLE_S)
                if job:
                    self._keep(job)
            except QuotaFull:  # as configured, and no trouble
                self.missed[f"{job.decision.verdict}.quota" if job else "quota"] += 1
            except OSError as err:
                self._miss(job, "disk", explain(err, "pictures", self._shelf.root))
            except Exception as err:
                log.exception("evidence.fault")
                self._miss(job, "fault", f"pictures cannot be kept: {err}")
            if job is None and self._stopping.is_set():
                break

    def _tidy(self) -> None:
        if not self._is_ready:
            self._shelf.scan()
            self._is_ready = True
        now = self._clock()
        if now >= self._look_ns:  # soon after a step, so that pictures lie under the date of their part
            self._look_ns = now + LOOK_EVERY_NS
            self._wall.refresh()
        if now >= self._expire_ns:
            self._expire_ns = now + EXPIRE_EVERY_NS
            if self._retention.look():
                self._shelf.expire()

    def _keep(self, job: _Job) -> None:
        decision = job.decision
        begun = time.perf_counter()
        picture, suffix = self._encode(job.frame.image)
        heat = None if job.heat is None else encode_heat(job.heat)
        encoded = time.perf_counter()
        file = self._shelf.place(decision.key, decision.verdict, self._wall.utc(decision.trigger_ns), suffix)
        self._shelf.put(file, decision.verdict, picture, heat)
        self.encode_ms.add((encoded - begun) * 1e3)
        self.write_ms.add((time.perf_counter() - encoded) * 1e3)
        self.kept[decision.verdict] += 1
        self._trouble = ""
        self._on_kept(decision.key, file)

    def _encode(self, image: NDArray[np.uint8]) -> tuple[bytes, str]:
        if self._cfg.format == "png":
            return encode_png(image), ".png"
        jpeg = simplejpeg.encode_jpeg(
            np.ascontiguousarray(image), quality=self._cfg.jpeg_quality, colorspace="RGB", colorsubsampling="420"
        )
        return bytes(jpeg), ".jpg"

    def _miss(self, job: _Job | None, why: str, trouble: str) -> None:
        if trouble != self._trouble:
            log.warning("evidence.trouble %s", trouble)
        self._trouble = trouble
        if job:
            self.missed[f"{job.decision.verdict}.{why}"] += 1
        else:
            self._stopping.wait(IDLE_S)  # the folder itself is out of reach: look again in a while


class _Waiting:
    """A few places for pictures. Rejected and unsure parts go first, and take the place of an accepted one."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._precious: deque[_Job] = deque()
        self._plain: deque[_Job] = deque()
        self._changed = threading.Condition()

    def put(self, job: _Job) -> _Job | None:
        """Answers whoever found no place, the job itself or one that had to leave."""
        is_plain = job.decision.verdict is Verdict.ACCEPT
        crowded_out = None
        with self._changed:
            if len(self) >= self._places:
                if is_plain or not self._plain:
                    return job
                crowded_out = self._plain.popleft()
            (self._plain if is_plain else self._precious).append(job)
            self._changed.notify()
        return crowded_out

    def take(self, timeout_s: float) -> _Job | None:
        with self._changed:
            if not len(self) and timeout_s > 0:
                self._changed.wait(timeout_s)
            if self._precious:
                return self._precious.popleft()
            return self._plain.popleft() if self._plain else None

    def wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def __len__(self) -> int:
        return len(self._precious) + len(self._plain)


def is_wanted(decision: Decision, good_share: float) -> bool:
    """Whether a picture of this part is kept: always unless accepted, then by a fair draw from its identity."""
    if decision.verdict is not Verdict.ACCEPT or good_share >= 1.0:
        return True
    drawn = hashlib.blake2b(b"%d:%d" % decision.key, digest_size=4).digest()
    return int.from_bytes(drawn, "big") < good_share * 2**32


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Lossless, RGB in and in the file. OpenCV's own defaults: 25 ms CPU and 0.96 MB for a 720p frame.

    Telling it level 1 makes it try every filter (41 ms, 0.98 MB); lossless WebP takes 282 ms for 0.66 MB.
    """
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", bgr)[1].tobytes()


def encode_heat(heat: NDArray[np.float32]) -> bytes:
    grey = np.clip(np.rint(heat * 255.0), 0, 255).astype(np.uint8)
    return cv2.imencode(".png", grey)[1].tobytes()


def load_picture(path: Path) -> NDArray[np.uint8]:
    """A kept picture as (height, width, 3) RGB. Raises OSError when it is gone or cannot be decoded."""
    content = np.frombuffer(path.read_bytes(), np.uint8)
    bgr = cv2.imdecode(content, cv2.IMREAD_COLOR)
    if bgr is None:
        raise OSError(f"picture {path} cannot be decoded")
    rgb: NDArray[np.uint8] = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return rgb


def load_heat(path: Path) -> NDArray[np.float32] | None:
    """The heat map beside a picture, 0..1; None where there is none."""
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except FileNotFoundError:
        return None
    grey = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)
    return None if grey is None else np.asarray(grey, np.float32) / np.float32(255.0)
