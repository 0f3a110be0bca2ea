"""Wall time for what leaves the box. Monotonic time means nothing after a reboot, so records carry UTC as well.

`synced` needs a witness: systemd-timesyncd's flag file, or a kernel that does not answer adjtimex(2) with TIME_ERROR
(chrony, ntpd and PTP clear it). Everything else is `free_running`, and a reader may distrust its date.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from edge_runtime.core.clock import Clock

TIMESYNC_FLAG = Path("/run/systemd/timesync/synchronized")
MACHINE_BOOT = Path("/proc/sys/kernel/random/boot_id")
_TIME_ERROR = 5  # adjtimex(2): not synchronised to a reliable source
_TIMEX_BYTES = 512  # struct timex is 208 bytes on 64-bit Linux; zeroed, it only asks (modes = 0)


class TimeQuality(StrEnum):
    SYNCED = "synced"
    FREE_RUNNING = "free_running"


def machine_boot() -> str:
    """Identity of this boot of the machine: monotonic times compare only within one."""
    try:
        return MACHINE_BOOT.read_text().strip()
    except OSError:
        return "unknown"


def time_quality() -> TimeQuality:
    """Whether somebody keeps the wall clock right."""
    if TIMESYNC_FLAG.exists() or _kernel_is_synced():
        return TimeQuality.SYNCED
    return TimeQuality.FREE_RUNNING


def _kernel_is_synced() -> bool:
    try:
        state: int = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return False
    return 0 <= state < _TIME_ERROR


class WallClock:
    """Turns monotonic nanoseconds of this process into UTC nanoseconds. Used by one thread.

    The offset and the quality are read anew by `refresh`, because the wall clock may be stepped while the box runs.
    """

    def __init__(self, clock: Clock, utc_ns: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._utc_ns = utc_ns
        self.quality = TimeQuality.FREE_RUNNING
        self._offset_ns = 0
        self.refresh()

    def refresh(self) -> None:
        self._offset_ns = self._utc_ns() - self._clock()
        self.quality = time_quality()

    def utc(self, monotonic_ns: int) -> int:
        return monotonic_ns + self._offset_ns

    def now(self) -> int:
        return self._utc_ns()

    def monotonic(self) -> int:
        return self._clock()
