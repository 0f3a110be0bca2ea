"""Child processes: real ones, and every way in which they and their parents end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from edge_runtime.process.child import ChildEnded, ChildProcess
from edge_runtime.process.json_lines import Lines, as_line

LONG_S = 60.0
CHILD = """
import os, signal, subprocess, sys, time
from edge_runtime.process.child import outlive_interrupts, parents_channel
from edge_runtime.process.json_lines import as_line
import json

channel = parents_channel().makefile("rwb")
outlive_interrupts()
for line in channel:
    request = json.loads(line)
    answer = {"pid": os.getpid(), "words": sys.argv[1:], "stdin": sys.stdin.read(), "sid": os.getsid(0)}
    print("noise")
    match request["do"]:
        case "signal": os.kill(os.getpid(), request["number"])
        case "exit": os._exit(3)
        case "hang": time.sleep(600)
        case "start": answer["started"] = subprocess.Popen(["sleep", "600"]).pid
        case "terminate": os.kill(os.getpid(), signal.SIGTERM)
    channel.write(as_line(answer))
    channel.flush()
"""
PARENT = """
import sys, time
from edge_runtime.process.child import ChildProcess
from edge_runtime.process.json_lines import Lines, as_line
child = ChildProcess("some_child")
child.send(as_line({"do": "tell"}), 60.0)
print(Lines(child.channel, 60.0).line()["pid"], flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "some_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.fixture
def start():
    children = []

    def one(*words, **options):
        children.append(ChildProcess("some_child", *words, **options))
        return children[-1]

    yield one
    for child in children:
        child.end()


def ask(child, do, **words):
    child.send(as_line({"do": do, **words}), LONG_S)
    return Lines(child.channel, LONG_S).line()


def is_there(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_gone(pid):
    until = time.monotonic() + LONG_S
    while is_there(pid):
        assert time.monotonic() < until, f"process {pid} is still there"
        time.sleep(0.01)


def test_a_child_answers_over_one_channel_and_what_it_prints_goes_nowhere(start):
    child = start("one", "two words")
    answer = ask(child, "tell")
    assert (answer["pid"], answer["words"], answer["stdin"]) == (child.pid, ["one", "two words"], "")
    assert answer["sid"] == os.getsid(0)
    assert child.hear(0.0) == b""


@pytest.mark.parametrize(
    ("do", "how"),
    [({"do": "signal", "number": int(signal.SIGSEGV)}, "ended by signal 11"), ({"do": "exit"}, "with exit code 3")],
)
def test_how_a_child_ended_is_said(start, do, how):
    child = start()
    child.send(as_line(do), LONG_S)
    with pytest.raises(ChildEnded, match=how):
        child.hear(LONG_S)


def test_a_child_that_hangs_is_silent_and_is_ended_at_once(start):
    child = start()
    ask(child, "terminate")  # it outlives what reaches a whole control group
    child.send(as_line({"do": "hang"}), LONG_S)
    assert child.hear(0.01) == b""
    began = time.monotonic()
    child.end()
    child.end()
    assert time.monotonic() - began < 5.0
    assert not is_there(child.pid) and child.exit_code(0.0) == -signal.SIGKILL


def test_a_child_is_given_time_to_end_by_itself(start):
    child = start()
    ask(child, "tell")
    child.end(within_s=LONG_S)
    assert child.exit_code(0.0) == 0


def test_what_a_child_of_its_own_session_started_is_killed_with_it(start):
    child = start(own_session=True)
    answer = ask(child, "start")
    assert answer["sid"] == child.pid
    child.end()
    wait_until_gone(answer["started"])


def test_a_child_ends_with_its_parent_however_that_ends(tmp_path):
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        assert is_there(child)
        parent.kill()
    wait_until_gone(child)


def test_a_child_that_cannot_be_started_leaves_nothing_open(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    before = psutil.Process().num_fds()
    with pytest.raises(FileNotFoundError):
        ChildProcess("some_child")
    assert psutil.Process().num_fds() == before
