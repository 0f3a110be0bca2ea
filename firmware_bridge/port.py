"""The one thread that owns the serial port, and the link on it.

Whoever sends a verdict writes it to the port itself, under the lock that guards the link: handing it to the port's
thread would cost a wake-up. Reading waits in `select` on the port and on a pipe, so that stopping and arming do not
wait for a timeout.

A port that is lost is opened again until it is back. `/dev/serial/by-id/` names stay the same when it comes back
elsewhere: the name is resolved anew at each opening, and while nobody answers it is looked whether it has moved.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from firmware_bridge.host_link import HostLink
from firmware_bridge.port_hints import Hearing
from firmware_bridge.reject.far_side import Phase
from firmware_bridge.reject.link_events import LinkEvent, LinkRefused, VerdictAnswered
from firmware_bridge.serial_device import READ_BYTES, OpenPort, PortError, open_serial, say_latency
from firmware_bridge.wake_pipe import WakePipe

log = logging.getLogger(__name__)

MAX_WAIT_S = 0.02  # shorter than the link's first retry of a verdict, so that sending one need not wake the thread
REOPEN_S = 0.2  # an adapter that was pulled takes a second to come back anyway
STOP_S = 1.0
TRIPS_KEPT = 512


class BridgePort:
    """A link on a serial port. `on_event` is called on the port's thread and must be quick."""

    def __init__(
        self,
        path: str,
        link: HostLink,
        on_event: Callable[[LinkEvent], None],
        *,
        baud: int = 115_200,
        parity: str = "none",
        stop_bits: int = 1,
        rs485: bool = False,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.path = path
        self._framing: dict[str, Any] = {"parity": parity, "stop_bits": stop_bits, "rs485": rs485}
        self.progress_ns: int | None = None  # when the loop last turned
        self._baud = baud
        self._link = link
        self._on_event = on_event
        self._clock = clock
        self._lock = threading.RLock()
        self._quiet = threading.Condition(self._lock)  # told after every turn
        self._port: OpenPort | None = None
        self._counts = {"opened": 0, "open_failed": 0, "dropped_bytes": 0, "crashes": 0}
        self._trips_ms: deque[float] = deque(maxlen=TRIPS_KEPT)
        self._hearing = Hearing()
        self._latency_ms: int | None = None  # of the adapter's timer
        self._told = ""  # the complaint logged last
        self._told_adapter = ""
        self._is_stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._waker = WakePipe()

    # Running

    def start(self, wait_s: float = 2.0, must_open: bool = True) -> None:
        """Open the port and return when a controller is configured (armed is later), or after `wait_s` without one.

        Raises PortError when the controller cannot be worked with, and when the port cannot be opened. With
        `must_open=False` a port that cannot be opened is tried again until it can: an adapter may be plugged in late.
        """
        if self._thread is not None:
            return
        self._is_stopping.clear()
        try:
            self._open()
        except PortError as err:
            if must_open:
                raise
            self._complain(str(err))
        self._waker.open()
        self._thread = threading.Thread(target=self._run, name="bridge-port", daemon=True)
        self._thread.start()
        if self._port is None:
            return
        self._wait(lambda: self._link.phase in (Phase.READY, Phase.ARM, Phase.UP, Phase.REFUSED), wait_s)
        if self._link.phase is Phase.REFUSED:
            detail = self._link.detail
            self.stop()
            raise PortError(detail)

    def stop(self) -> None:
        """End the thread and close the port, within a second. A controller still armed then trips by its watchdog."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._is_stopping.set()
        with self._lock:
            self._waker.wake()
        if thread is not threading.current_thread():
            thread.join(STOP_S)
        with self._lock:
            self._close("stopped")
            self._link.take_events()  # that we went is no news
            self._waker.close()

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    # From any thread

    def send_verdict(self, boot_id: int, part_id: int, reject: bool, *, reason: int = 0, confidence: int = 0) -> None:
        """Tell one verdict; on the wire when this returns, if the link is up. Sent again until answered.

        reason (`registers.Reason`) and confidence (0..1000) are for a PLC's display; frames have no room for them.
        """
        with self._lock:
            self._link.submit(boot_id, part_id, reject, self._clock(), reason=reason, confidence=confidence)
            self._write()

    def set_armed(self, wanted: bool) -> None:
        """Arm as soon as the controller is there, and keep it so; or disarm."""
        with self._lock:
            self._link.set_armed(wanted, self._clock())
            self._write()
            self._waker.wake()

    def set_hold(self, wanted: bool) -> None:
        """Ask the machine for a controlled hold of the feed, or let it go on."""
        with self._lock:
            self._link.set_hold(wanted, self._clock())
            self._write()
            self._waker.wake()

    def wait_armed(self, timeout_s: float) -> bool:
        return self._wait(lambda: self._link.is_armed, timeout_s)

    def wait_disarmed(self, timeout_s: float) -> bool:
        """True when the controller said it is disarmed, or nobody is there to say so."""
        return self._wait(lambda: self._link.phase not in (Phase.ARM, Phase.UP), timeout_s)

    def drain(self, timeout_s: float, is_done: Callable[[], bool] | None = None) -> bool:
        """Wait until every verdict is answered and every part heard of is settled, or until `is_done`."""
        link = self._link
        return self._wait(is_done or (lambda: not link.open_parts and not link.pending_verdicts), timeout_s)

    def state(self) -> tuple[Phase, str]:
        """Phase of the link and what to tell a person about it."""
        link = self._link
        phase, detail = link.phase, link.detail
        if phase is Phase.HELLO and not link.explains_silence:
            hint = self._hearing.hint(self._clock())
            detail = f"{detail}: {hint}" if hint else detail
        return phase, detail

    @property
    def adapter_problem(self) -> str:
        """What to set when the RS-485 adapter is not as the station says. Frames are never taken for their own echo."""
        return self._link.adapter_problem

    def report(self) -> dict[str, Any]:
        """Counters and round trips; JSON types only."""
        with self._lock:
            trips = sorted(self._trips_ms)
            link = self._link
            best_ns = link.clocks.best_round_trip_ns
            return {
                **self._counts,
                **link.wire_counts,
                **link.counts,
                "port": os.path.realpath(self.path),
                "latency_timer_ms": self._latency_ms,
                "adapter_problem": self.adapter_problem,
                "phase": link.phase.value,
                "boot_id": link.boot_id,
                "open_parts": link.open_parts,
                "pending_verdicts": link.pending_verdicts,
                "clock_drift_ppm": round(link.clocks.drift_ppm, 1),
                "beat_ms": None if best_ns is None else round(best_ns / 1e6, 3),
                "verdict_ms_p50": round(trips[len(trips) // 2], 3) if trips else None,
                "verdict_ms_p99": round(trips[len(trips) * 99 // 100], 3) if trips else None,
            }

    # The thread

    def _run(self) -> None:
        while not self._is_stopping.is_set():
            try:
                if self._port is None:
                    self._reopen()
                else:
                    self._turn(self._port)
            except Exception:  # the thread's outermost loop: nothing may end it but `stop`
                self._counts["crashes"] += 1
                log.exception("port thread failed path=%s; goes on", self.path)
                self._is_stopping.wait(REOPEN_S)

    def _turn(self, port: OpenPort) -> None:
        """Wait for bytes, a wake-up or a due time; then everything that follows from it."""
        with self._lock:
            due_s = (self._link.next_due_ns() - self._clock()) / 1e9
        fd, wake_fd = port.fd, self._waker.fd
        try:
            readable, _, _ = select.select(
                [fd, wake_fd], [fd] if port.has_backlog else [], [], min(MAX_WAIT_S, max(0.0, due_s))
            )
            data = os.read(fd, READ_BYTES) if fd in readable else None
        except BlockingIOError:
            data = None
        except (OSError, ValueError) as err:
            self._lose(f"port {self.path} is gone: {err}")
            return
        if data == b"":  # end of file: the adapter was pulled
            self._lose(f"port {self.path} is gone: check the cable")
            return
        if wake_fd in readable:
            self._waker.drain()
        now_ns = self._clock()
        if self._link.phase is Phase.HELLO and port.has_moved(now_ns):
            self._lose(f"{self.path} is another device now")
            return
        with self._lock:
            if data:
                self._link.feed(data, now_ns)
                self._hearing.heard(len(data), self._good_frames, now_ns)
            self._link.tick(now_ns)
            self._write()
        self._say_adapter()
        self._tell()

    def _say_adapter(self) -> None:
        problem = self.adapter_problem
        if problem and problem != self._told_adapter:
            log.warning("adapter not as set path=%s problem=%s", self.path, problem)
        self._told_adapter = problem

    def _tell(self) -> None:
        """Pass events on, outside the lock; then let those know who wait for something."""
        with self._lock:
            events = self._link.take_events()
        for event in events:
            if isinstance(event, VerdictAnswered):
                self._trips_ms.append(event.round_trip_ns / 1e6)
            elif isinstance(event, LinkRefused):
                log.error("controller refused path=%s reason=%s", self.path, event.reason)
            try:
                self._on_event(event)
            except Exception:  # a listener's fault must not cost the others their events
                self._counts["crashes"] += 1
                log.exception("listener failed event=%s", type(event).__name__)
        with self._quiet:
            self.progress_ns = self._clock()
            self._quiet.notify_all()

    def _open(self) -> None:
        port = open_serial(self.path, self._baud, **self._framing)
        now_ns = self._clock()
        with self._lock:
            self._port = OpenPort(self.path, port, now_ns)
            self._counts["opened"] += 1
            self._link.opened(now_ns)
            self._hearing.opened(self._good_frames, now_ns)
            self._write()
        self._told = ""
        self._latency_ms = say_latency(self.path)

    def _reopen(self) -> None:
        try:
            self._open()
        except PortError as err:
            self._counts["open_failed"] += 1
            self._complain(str(err))
            self._tell()
            self._is_stopping.wait(REOPEN_S)

    def _complain(self, text: str) -> None:
        """Why the port cannot be opened, for whoever asks; logged once."""
        with self._lock:
            self._link.closed(text, self._clock())
        if text != self._told:
            self._told = text
            log.warning("port not there path=%s error=%s", self.path, text)

    @property
    def _good_frames(self) -> int:
        return self._link.wire_counts.get("frames_in", 0)

    def _lose(self, reason: str) -> None:
        log.warning("port lost path=%s reason=%s", self.path, reason)
        with self._lock:
            self._close(reason)
        self._tell()

    def _close(self, reason: str) -> None:
        port, self._port = self._port, None
        self._link.closed(reason, self._clock())
        if port is not None:
            port.close()

    def _write(self) -> None:
        """Hand the link's output to the port as far as it takes it. Holds the lock; never blocks."""
        data = self._link.take_output()
        if self._port is not None:
            self._counts["dropped_bytes"] += self._port.write(data)

    def _wait(self, is_true: Callable[[], bool], timeout_s: float) -> bool:
        with self._quiet:
            return self._quiet.wait_for(is_true, timeout_s)
