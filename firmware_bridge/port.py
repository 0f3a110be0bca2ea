"""The one thread that owns the serial port. pyserial is imported here and nowhere else.

Whoever sends a verdict writes it to the port itself, under the lock that guards the link: handing it to the port's
thread would cost a wake-up. Reading waits in `select` on the port and on a pipe, so that stopping and arming do not
wait for a timeout.

A port that is lost is opened again until it is back. `/dev/serial/by-id/` names stay the same when it comes back
elsewhere: the name is resolved anew at each opening, and while nobody answers it is looked whether it has moved.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import termios
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import serial
import serial.rs485

from firmware_bridge.adapters import SLOW_MS, latency_ms, user_of
from firmware_bridge.host_link import HostLink
from firmware_bridge.port_hints import Hearing
from firmware_bridge.reject.far_side import Phase
from firmware_bridge.reject.link_events import LinkEvent, LinkRefused, VerdictAnswered

log = logging.getLogger(__name__)

LOW_LATENCY_FIX = "install systemd/99-edge-runtime.rules, or: echo 1 > /sys/class/tty/{name}/device/latency_timer"

MAX_WAIT_S = 0.02  # shorter than the link's first retry of a verdict, so that sending one need not wake the thread
REOPEN_S = 0.2  # an adapter that was pulled takes a second to come back anyway
LOOK_NS = 500_000_000  # while nobody answers: has the name of the port moved?
STOP_S = 1.0
CONTROL_MODES = 2  # c_cflag in the list of tcgetattr
READ_BYTES = 4096
MAX_BACKLOG = 4096  # bytes not taken by the port: 0.35 s at 115200; what is dropped is sent again by the link
TRIPS_KEPT = 512


class PortError(Exception):
    """The port cannot be opened, or is gone. The text says what to do."""


PARITIES = {"none": serial.PARITY_NONE, "even": serial.PARITY_EVEN, "odd": serial.PARITY_ODD}


def open_serial(
    path: str, baud: int, *, parity: str = "none", stop_bits: int = 1, rs485: bool = False
) -> serial.Serial:
    """A raw port of eight data bits that never blocks, owned by us alone. Raises PortError with the fix in its text.

    rs485: the UART's driver switches the direction of the line; adapters that do it by themselves need nothing.
    """
    try:
        port = serial.Serial(
            path, baud, parity=PARITIES[parity], stopbits=stop_bits, timeout=0, write_timeout=0, exclusive=True
        )
    except (serial.SerialException, OSError, ValueError) as err:
        raise PortError(_why(path, err)) from err
    if rs485:
        try:
            port.rs485_mode = serial.rs485.RS485Settings()
        except (OSError, ValueError) as err:
            port.close()
            raise PortError(f"{path} cannot switch an RS-485 line: use an adapter that does it by itself") from err
    _keep_lines_up(port)
    try:
        port.set_low_latency_mode(True)  # FTDI adapters hold bytes back for 16 ms otherwise
    except (AttributeError, OSError, ValueError, NotImplementedError):
        pass  # a pty, or an adapter without it
    return port


def _keep_lines_up(port: serial.Serial) -> None:
    """Leave DTR up when the port is closed: on many boards its edge resets the chip, at each restart of ours."""
    try:
        modes = termios.tcgetattr(port.fileno())
        modes[CONTROL_MODES] &= ~termios.HUPCL
        termios.tcsetattr(port.fileno(), termios.TCSANOW, modes)
    except (OSError, termios.error):
        pass  # no modem lines to keep


def _why(path: str, err: Exception) -> str:
    code = getattr(err, "errno", None)
    text = str(err).lower()
    if code == errno.ENOENT or not os.path.exists(path):  # noqa: PTH110, a path may be a dangling by-id link
        return f"no serial port {path}: check the cable, and [controller] port (see `ls /dev/serial/by-id`)"
    if code == errno.EACCES:
        return f"no permission for {path}: add the user to the group of the device (dialout)"
    if code in (errno.EBUSY, errno.EAGAIN) or "exclusively lock" in text:
        who = user_of(path)
        return f"{path} is in use by another process: stop " + (
            f"{who}" if who else f"it (`fuser {path}` as root names it)"
        )
    return f"cannot open {path}: {err}"


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
        self._port: serial.Serial | None = None
        self._backlog = bytearray()
        self._counts = {"opened": 0, "open_failed": 0, "dropped_bytes": 0, "crashes": 0}
        self._trips_ms: deque[float] = deque(maxlen=TRIPS_KEPT)
        self._hearing = Hearing()
        self._latency_ms: int | None = None  # of the adapter's timer
        self._looked_ns = 0
        self._told = ""  # the complaint logged last
        self._told_adapter = ""
        self._is_stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._wake_r = self._wake_w = -1

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
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
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
            self._wake()
        if thread is not threading.current_thread():
            thread.join(STOP_S)
        with self._lock:
            self._close("stopped")
            self._link.take_events()  # that we went is no news
            for fd in (self._wake_r, self._wake_w):
                os.close(fd)
            self._wake_r = self._wake_w = -1

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
            self._wake()

    def set_hold(self, wanted: bool) -> None:
        """Ask the machine for a controlled hold of the feed, or let it go on."""
        with self._lock:
            self._link.set_hold(wanted, self._clock())
            self._write()
            self._wake()

    def wait_armed(self, timeout_s: float) -> bool:
        return self._wait(lambda: self._link.is_armed, timeout_s)

    def wait_disarmed(self, timeout_s: float) -> bool:
        """True when the controller said it is disarmed, or nobody is there to say so."""
        return self._wait(lambda: self._link.phase not in (Phase.ARM, Phase.UP), timeout_s)

    def drain(self, timeout_s: float, is_done: Callable[[], bool] | None = None) -> bool:
        """Wait until every verdict is answered and every part heard of is settled, or until `is_done`."""
        return self._wait(is_done or self._is_drained, timeout_s)

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

    def _turn(self, port: serial.Serial) -> None:
        """Wait for bytes, a wake-up or a due time; then everything that follows from it."""
        with self._lock:
            due_s = (self._link.next_due_ns() - self._clock()) / 1e9
        fd = port.fileno()
        try:
            readable, _, _ = select.select(
                [fd, self._wake_r], [fd] if self._backlog else [], [], min(MAX_WAIT_S, max(0.0, due_s))
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
        if self._wake_r in readable:
            _drain_pipe(self._wake_r)
        now_ns = self._clock()
        if self._has_moved(port, now_ns):
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
            self._port = port
            self._backlog.clear()
            self._counts["opened"] += 1
            self._link.opened(now_ns)
            self._hearing.opened(self._good_frames, now_ns)
            self._write()
        self._looked_ns = now_ns
        self._told = ""
        self._say_latency()

    def _say_latency(self) -> None:
        device = os.path.realpath(self.path)
        self._latency_ms = latency_ms(device)
        if self._latency_ms is not None and self._latency_ms > SLOW_MS:
            fix = LOW_LATENCY_FIX.format(name=os.path.basename(device))  # noqa: PTH119
            log.warning("port slow path=%s latency_timer_ms=%d fix=%s", self.path, self._latency_ms, fix)
        else:
            log.info("port open path=%s device=%s latency_timer_ms=%s", self.path, device, self._latency_ms or "none")

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

    def _has_moved(self, port: serial.Serial, now_ns: int) -> bool:
        """Whether the name leads to another device than the open one, on which nobody answers."""
        if self._link.phase is not Phase.HELLO or now_ns - self._looked_ns < LOOK_NS:
            return False
        self._looked_ns = now_ns
        try:
            return os.stat(self.path).st_rdev != os.fstat(port.fileno()).st_rdev  # noqa: PTH116
        except OSError:  # the name is gone: so is the adapter, and reading will tell
            return False

    def _lose(self, reason: str) -> None:
        log.warning("port lost path=%s reason=%s", self.path, reason)
        with self._lock:
            self._close(reason)
        self._tell()

    def _close(self, reason: str) -> None:
        port, self._port = self._port, None
        self._link.closed(reason, self._clock())
        if port is not None:
            try:
                port.close()
            except (OSError, serial.SerialException):
                pass

    def _write(self) -> None:
        """Hand the link's output to the port as far as it takes it. Holds the lock; never blocks."""
        self._backlog += self._link.take_output()
        port = self._port
        if port is None or not self._backlog:
            return
        try:
            sent = os.write(port.fileno(), self._backlog)
            del self._backlog[:sent]
        except BlockingIOError:
            pass
        except (OSError, serial.SerialException) as err:  # the thread finds out by reading, and opens it again
            log.warning("write failed path=%s error=%s", self.path, err)
            self._backlog.clear()
        if len(self._backlog) > MAX_BACKLOG:
            self._counts["dropped_bytes"] += len(self._backlog)
            self._backlog.clear()

    def _wake(self) -> None:
        if self._wake_w >= 0:
            try:
                os.write(self._wake_w, b"!")
            except OSError:
                pass  # stopping

    def _wait(self, is_true: Callable[[], bool], timeout_s: float) -> bool:
        with self._quiet:
            return self._quiet.wait_for(is_true, timeout_s)

    def _is_drained(self) -> bool:
        return not self._link.open_parts and not self._link.pending_verdicts


def _drain_pipe(fd: int) -> None:
    try:
        os.read(fd, READ_BYTES)
    except BlockingIOError:
        pass
