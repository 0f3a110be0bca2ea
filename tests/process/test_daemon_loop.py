"""The loop of every daemon: what systemd hears, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from edge_runtime.flow.components import Health, State
from edge_runtime.process.daemon_loop import DaemonLoop, hung
from edge_runtime.process.sd_notify import Notifier

WAIT_S = 30.0


class Systemd:
    """The far end of the notification socket."""

    def __init__(self, path, watchdog_s=0.04):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(WAIT_S)
        self.env = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": str(round(watchdog_s * 1e6))}

    def hears(self):
        return self.socket.recv(4096).decode()

    def hears_until(self, word):
        said = [self.hears()]
        while word not in said[-1]:
            said.append(self.hears())
        return said


@pytest.fixture
def systemd(tmp_path):
    one = Systemd(tmp_path / "notify")
    yield one
    one.socket.close()


def running(loop, **turn):
    def run():
        with loop:
            loop.ready()
            loop.turn(**turn)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_systemd_hears_ready_alive_and_stopping_and_is_told_how_it_is(systemd):
    loop = DaemonLoop(lambda: "3 parts", list, notifier=Notifier(systemd.env))
    thread = running(loop)
    assert systemd.hears() == "READY=1\nSTATUS=3 parts"
    assert systemd.hears() == "WATCHDOG=1\nSTATUS=3 parts"
    loop.stop()
    assert systemd.hears_until("STOPPING=1")[-1] == "STOPPING=1"
    thread.join(WAIT_S)
    assert not thread.is_alive()


def test_the_watchdog_is_withheld_while_something_hangs_and_its_name_is_told_and_logged_once(systemd, caplog):
    stuck = ["camera", "model"]
    loop = DaemonLoop(lambda: "well", lambda: list(stuck), notifier=Notifier(systemd.env))
    thread = running(loop)
    said = [systemd.hears() for _ in range(4)]
    assert said[1:] == ["STATUS=hung: camera, model"] * 3
    stuck.clear()
    systemd.hears_until("WATCHDOG=1")
    loop.stop()
    thread.join(WAIT_S)
    assert [record.getMessage() for record in caplog.records] == ["watchdog.withheld camera model"]


def test_it_is_over_when_the_work_is_and_is_looked_after_meanwhile(systemd):
    looks = []
    loop = DaemonLoop(lambda: "", list, notifier=Notifier(systemd.env))
    thread = running(loop, look_after=lambda: looks.append(1), is_over=lambda: len(looks) >= 3)
    thread.join(WAIT_S)
    assert (thread.is_alive(), len(looks), loop.is_stopping) == (False, 3, False)
    assert systemd.hears_until("STOPPING=1")


def test_who_was_asked_to_stop_while_it_started_ends_at_once(systemd):
    loop = DaemonLoop(lambda: "", lambda: ["everything"], notifier=Notifier(systemd.env))
    loop.stop()
    running(loop).join(WAIT_S)
    assert [systemd.hears(), systemd.hears()] == ["READY=1\nSTATUS=", "STOPPING=1"]


def test_systemd_hears_that_it_ends_also_when_it_fails(systemd):
    def fail():
        raise RuntimeError("oh")

    loop = DaemonLoop(lambda: "", list, notifier=Notifier(systemd.env))
    with pytest.raises(RuntimeError), loop:
        loop.turn(look_after=fail)
    assert systemd.hears_until("STOPPING=1")


def test_signals_are_given_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    loop = DaemonLoop(lambda: "", list)
    with loop:
        os.kill(os.getpid(), signal.SIGTERM)
        loop.turn()
    assert loop.is_stopping
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_process_that_hangs_says_where_each_thread_stands():
    words = "from edge_runtime.process.daemon_loop import begin_daemon; import os; begin_daemon('info'); os.abort()"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=False, timeout=WAIT_S)
    assert done.returncode == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in done.stderr and 'File "<string>", line 1' in done.stderr


def test_what_hangs_is_what_has_not_turned_for_too_long():
    healths = {
        "camera": Health(State.FAILED, "gone", 0),
        "link": Health(State.OK, "", 11),
        "model": Health(State.FAILED),
    }
    assert hung(healths, now_ns=21, stale_ns=10) == ["camera"]
