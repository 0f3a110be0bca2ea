"""Who runs last: a command that computes beside a running line takes only what the line leaves.

SCHED_IDLE gets a core when nobody else wants it, and its I/O falls into the idle class with it (sched(7),
ioprio_set(2)). One thread of each library, because what shares the memory bus slows the line's model down, whatever its
priority. When memory runs out, this process ends and not the line. Children and threads inherit all of it.

Not bound to a core: on the one that it was bound to it starved while the other had time.

A session whose tasks the kernel groups (`sched_autogroup_enabled`) has a share of its own, which the policy inside does
not touch: where the line runs in another session, the share of this one is lowered too, until this process ends.
Control groups of units are not ours to change; there the line has its real-time threads.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
from pathlib import Path

OOM_SCORE_ADJ = 800  # of 1000; `run` has -500, `sync` 300
LOOK_NICE = 10  # a tenth of a core against whoever wants it: a look at a box that hangs is still answered
DAEMON_NICE = 5  # as the unit of `sync` says
SESSION_NICE = 19
POOLS = (  # read by the libraries when they are imported
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)
PROC = Path("/proc")
AUTOGROUP_TRIES, AUTOGROUP_WAIT_S = 4, 0.11


def step_back(line_pid: int = 0) -> None:
    """Run on what the rest of the box leaves, from now until this process ends. Does what the system allows.

    line_pid: process of the line; 0 where it is not known. Call it before numpy and OpenCV are imported.
    """
    one_thread_each()
    for thread in map(int, os.listdir(PROC / "self" / "task")):  # noqa: PTH208 - names, not paths
        with contextlib.suppress(OSError):
            os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
    with contextlib.suppress(OSError):
        (PROC / "self" / "oom_score_adj").write_text(str(OOM_SCORE_ADJ))
    _lower_session(line_pid, SESSION_NICE)


def run_last() -> None:
    """This thread alone, from now on: a core when nobody else wants it. Does what the system allows."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))


def one_thread_each() -> None:
    """One thread of each library, from when it is imported."""
    os.environ.update(dict.fromkeys(POOLS, "1"))


def step_aside(line_pid: int = 0) -> None:
    """Let the line go first, and still be answered on a box that has no time: for commands that only look."""
    run_later(LOOK_NICE)
    _lower_session(line_pid, LOOK_NICE)


def run_later(least_nice: int = DAEMON_NICE) -> None:
    """Be at least so nice; nothing where the unit has said so already."""
    with contextlib.suppress(OSError):
        os.nice(max(0, least_nice - os.nice(0)))


def _lower_session(line_pid: int, nice: int) -> None:
    ours = _session(os.getpid())
    if ours is None or line_pid == 0:
        return
    line = _session(line_pid)
    if line is not None and line[0] == ours[0]:
        return  # priorities count between the two as they are
    if ours[1] < nice and _set_session(nice):
        atexit.register(_set_session, ours[1])


def _session(pid: int) -> tuple[str, int] | None:
    """Name and nice value of a process's autogroup; None where the kernel keeps none, or does not tell."""
    try:
        name, _, nice = (PROC / str(pid) / "autogroup").read_text().split()
        return name, int(nice)
    except (OSError, ValueError):
        return None


def _set_session(nice: int) -> bool:
    for _ in range(AUTOGROUP_TRIES):
        try:
            (PROC / "self" / "autogroup").write_text(str(nice))
        except BlockingIOError:  # somebody on this machine set one less than 0.1 s ago (kernel/sched/autogroup.c)
            time.sleep(AUTOGROUP_WAIT_S)
        except OSError:
            return False
        else:
            return True
    return False
