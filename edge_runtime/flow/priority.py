"""Who runs first: SCHED_FIFO 1 for the threads a part waits for, where the system allows it (unit file: LimitRTPRIO=1).

Measured at load 9 on two cores: hand-off from thread to thread p99 12 ms without, 0.17 ms with it; nice -10 changes
nothing. A thread asks for itself, and nothing that it starts inherits it (SCHED_RESET_ON_FORK): neither a child nor a
library's pool. Call it after the slow part of a thread's start, because the unit file ends a process of which one such
thread runs for longer than LimitRTTIME without waiting.
"""

from __future__ import annotations

import os
import resource
import sys

PRIORITY = 1  # above everything ordinary, below what drives the hardware (threaded interrupts run at 50)

SWITCH_S = 0.0005  # a thread that wants the interpreter from one that computes in Python gets it after so long


def share_interpreter() -> None:
    """Let no thread of this process keep the interpreter for Python's 5 ms while a part waits.

    Measured at load 4-6, camera to worker: p99 1.5-2.7 ms with 5 ms, 0.1 ms with this.
    """
    sys.setswitchinterval(SWITCH_S)


def run_promptly(longest_ns: int = 0) -> str:
    """Let the calling thread run as soon as it can. The policy it has from now on: "fifo", or why it has not.

    longest_ns: how long it may compute without waiting; it stays ordinary where the system would end it for that.
    """
    limit_us, _ = resource.getrlimit(resource.RLIMIT_RTTIME)
    if 0 <= limit_us < longest_ns / 1000:
        return f"other: it may compute for {longest_ns / 1e6:.0f} ms, LimitRTTIME is {limit_us / 1000:.0f} ms"
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))
    except OSError as err:
        return f"other: {err.strerror}; LimitRTPRIO=1 in the unit, or rtprio in limits.conf, allows it"
    return "fifo"


def run_plainly(native_id: int) -> None:
    """Make a thread of this process ordinary again: an abandoned one must not hold a core against those who work."""
    try:
        # The flag stays: taking it back would need a privilege that the unit does not give.
        os.sched_setscheduler(native_id, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
    except OSError:
        pass  # it has ended, or never was anything else
