"""Stepping back is a state of the whole process, so each test has a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SAY = """
import json, os, subprocess, sys, threading
from edge_runtime.process.step_back import {what}
go, tell = threading.Event(), []
older = threading.Thread(target=lambda: (go.wait(20), tell.append(os.sched_getscheduler(0))))
older.start()
{call}
younger = threading.Thread(target=lambda: tell.append(os.sched_getscheduler(0)))
younger.start(); younger.join(); go.set(); older.join()
child = subprocess.run([sys.executable, "-c", "import os; print(os.sched_getscheduler(0), os.nice(0))"],
                       capture_output=True, text=True)
import cv2
print(json.dumps(dict(policy=os.sched_getscheduler(0), threads=tell, child=child.stdout.split(), nice=os.nice(0),
                      oom=open("/proc/self/oom_score_adj").read().strip(),
                      pool=cv2.getNumThreads(), session=open("/proc/self/autogroup").read().split()
                      if os.path.exists("/proc/self/autogroup") else None)))
"""


def said(what: str, call: str, prefix: tuple[str, ...] = ()) -> dict:
    script = SAY.format(what=what, call=call)
    done = subprocess.run(
        [*prefix, sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True,
        start_new_session=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_the_process_its_threads_and_its_children_run_when_nobody_else_wants_to():
    found = said("step_back", "step_back()")
    assert found["policy"] == os.SCHED_IDLE
    assert found["threads"] == [os.SCHED_IDLE, os.SCHED_IDLE]
    assert found["child"][0] == str(os.SCHED_IDLE)
    assert (found["pool"], found["oom"]) == (1, "800")


def test_a_look_is_nice_and_still_gets_its_turn():
    found = said("step_aside", "step_aside()")
    assert (found["policy"], found["nice"]) == (os.SCHED_OTHER, max(10, os.nice(0)))


def test_a_daemon_is_as_nice_as_its_unit_says_and_not_nicer():
    assert said("run_later", "run_later()")["nice"] == max(5, os.nice(0))
    assert said("run_later", "run_later()", ("nice", "-n", "7"))["nice"] == 7 + os.nice(0)


@pytest.mark.parametrize(("what", "nice"), [("step_back", 19), ("step_aside", 10)])
def test_the_share_of_another_session_than_the_lines_is_lowered_too(what, nice):
    found = said(what, f"{what}(os.getppid())")
    if found["session"] is None:
        pytest.skip("this kernel keeps no autogroups")
    assert found["session"][1:] == ["nice", str(nice)]


def test_the_session_that_the_line_is_in_keeps_its_share():
    found = said("step_back", "step_back(os.getpid())")
    if found["session"] is None:
        pytest.skip("this kernel keeps no autogroups")
    assert found["session"][1:] == ["nice", "0"]
