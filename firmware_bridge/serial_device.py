"""A serial port of this machine: how it is opened, and what one that is open does. pyserial is imported here alone."""

from __future__ import annotations

import errno
import logging
import os
import termios

import serial
import serial.rs485

from firmware_bridge.adapters import SLOW_MS, latency_ms, user_of

log = logging.getLogger(__name__)

LOW_LATENCY_FIX = "install systemd/99-edge-runtime.rules, or: echo 1 > /sys/class/tty/{name}/device/latency_timer"

LOOK_NS = 500_000_000  # while nobody answers: has the name of the port moved?
CONTROL_MODES = 2  # c_cflag in the list of tcgetattr
READ_BYTES = 4096
MAX_BACKLOG = 4096  # bytes not taken by the port: 0.35 s at 115200; what is dropped is sent again by the link


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


def say_latency(path: str) -> int | None:
    """Note in the log how long the adapter holds bytes back, in ms; None where it has no such timer."""
    device = os.path.realpath(path)
    timer_ms = latency_ms(device)
    if timer_ms is not None and timer_ms > SLOW_MS:
        fix = LOW_LATENCY_FIX.format(name=os.path.basename(device))  # noqa: PTH119
        log.warning("port slow path=%s latency_timer_ms=%d fix=%s", path, timer_ms, fix)
    else:
        log.info("port open path=%s device=%s latency_timer_ms=%s", path, device, timer_ms or "none")
    return timer_ms


class OpenPort:
    """A port that is open, with the bytes that it has not taken yet. Nothing here blocks; its owner has a lock."""

    def __init__(self, path: str, port: serial.Serial, now_ns: int) -> None:
        self._path = path
        self._port = port
        self._backlog = bytearray()
        self._looked_ns = now_ns

    @property
    def fd(self) -> int:
        return int(self._port.fileno())

    @property
    def has_backlog(self) -> bool:
        return bool(self._backlog)

    def write(self, data: bytes) -> int:
        """Hand on what waits and `data`, as far as the port takes it. How many bytes were dropped for want of room."""
        self._backlog += data
        if not self._backlog:
            return 0
        try:
            sent = os.write(self.fd, self._backlog)
            del self._backlog[:sent]
        except BlockingIOError:
            pass
        except (OSError, serial.SerialException) as err:  # the thread finds out by reading, and opens it again
            log.warning("write failed path=%s error=%s", self._path, err)
            self._backlog.clear()
        dropped = len(self._backlog) if len(self._backlog) > MAX_BACKLOG else 0
        if dropped:
            self._backlog.clear()
        return dropped

    def has_moved(self, now_ns: int) -> bool:
        """Whether the name leads to another device than this one by now. Looks now and then, and says no between."""
        if now_ns - self._looked_ns < LOOK_NS:
            return False
        self._looked_ns = now_ns
        try:
            return os.stat(self._path).st_rdev != os.fstat(self.fd).st_rdev  # noqa: PTH116
        except OSError:  # the name is gone: so is the adapter, and reading will tell
            return False

    def close(self) -> None:
        try:
            self._port.close()
        except (OSError, serial.SerialException):
            pass
