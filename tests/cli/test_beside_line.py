"""What is asked and computed beside a line: real commands beside a real running line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from edge_runtime.commissioning.doctor import examine
from edge_runtime.commissioning.line_speed import of_running_line
from edge_runtime.config.load import load
from edge_runtime.core.glance import Latencies, Percentiles
from edge_runtime.process.ask_status import ask_status

LIMIT_S = 120.0
SCRIPT = """
import json, os, subprocess, sys
from edge_runtime.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
child = subprocess.run([sys.executable, "-c", "import os; print(os.sched_getscheduler(0))"], capture_output=True)
print("\\n" + json.dumps([os.sched_getscheduler(0), int(child.stdout), os.nice(0)]))
"""


class Line:
    def __init__(self, folder: Path) -> None:
        self.folder, self.socket = folder, folder / "c.sock"
        self.settings = [f"recording.state_dir={folder}", f"service.socket={self.socket}", "world.parts_per_s=5"]
        self.settings += ["camera.width=320", "camera.height=180"]
        self.options = ["--config", "embedded", *(word for one in self.settings for word in ("--set", one))]

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edge_runtime", *self.options, "run"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        too_late = threading.Timer(LIMIT_S, self.process.kill)
        too_late.start()
        try:
            while "ready station=" not in (line := self.process.stderr.readline()):
                assert line, "the line did not get ready"
        finally:
            too_late.cancel()
        self._reader = threading.Thread(target=self.process.stderr.read, daemon=True)
        self._reader.start()

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(LIMIT_S)
        self._reader.join(LIMIT_S)
        self.process.stderr.close()

    def run_command(self, *words: str) -> tuple[list[int], str]:
        """Policy of the command's process, of a child of it, and its nice value; and what it said."""
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, *self.options, *words],
            capture_output=True, text=True, timeout=LIMIT_S, check=True,
        )  # fmt: skip
        out, _, policies = done.stdout.rstrip().rpartition("\n")
        return json.loads(policies), out


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    running = Line(tmp_path_factory.mktemp("line"))
    running.start()
    yield running
    running.end()


@pytest.mark.parametrize(
    "words",
    [["predict", "none.jpg"], ["models", "verify", "none"], ["models", "probe", "none.tflite"], ["parts", "replay"],
     ["models", "teach", ".", "--name", "x"], ["data", "learn-sound", ".", "--name", "x"],
     ["listen", "--file", "none.wav"], ["bench", "--json"]],
    ids=lambda words: " ".join(words[:2]),
)  # fmt: skip
def test_what_computes_runs_on_what_the_line_leaves(line, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    policies, _ = line.run_command(*words)
    assert policies[:2] == [os.SCHED_IDLE, os.SCHED_IDLE]


@pytest.mark.parametrize("words", [["status"], ["parts", "list"], ["spool", "status"], ["top", "--once"]])
def test_what_only_looks_is_nice(line, words):
    policies, _ = line.run_command(*words)
    assert policies == [os.SCHED_OTHER, os.SCHED_OTHER, max(10, os.nice(0))]


def test_without_a_line_a_command_runs_as_it_was_started(tmp_path):
    policies, _ = Line(tmp_path).run_command("predict", "none.jpg")
    assert policies == [os.SCHED_OTHER, os.SCHED_OTHER, os.nice(0)]


def test_doctor_and_bench_tell_the_lines_own_figures_and_measure_nothing(line):
    bounds = [ask_status(line.socket)]
    found = {one["name"]: one for one in examine(load(None, line.settings))}
    _, out = line.run_command("bench", "--json")
    bounds.append(ask_status(line.socket))
    speed = found["model.speed"]
    assert "as the running line measured" in speed["detail"]
    parts = int(speed["detail"].split(" parts (")[0].rsplit(" ", 1)[1])
    document = json.loads(out)
    assert set(document) == {"box", "running"}
    for count in (parts, document["running"]["parts"]):
        assert bounds[0].parts <= count <= bounds[1].parts
    assert document["running"]["pid"] == line.process.pid
    assert not list(line.folder.glob("bench-*"))


def test_doctor_judges_what_a_real_line_told(line):
    shot, figures = ask_status(line.socket), Percentiles(3.0, 4.0, 5.0, 9.0)
    quick, none = Latencies(figures, figures, figures), dict.fromkeys(shot.causes, 0)
    well = replace(shot, parts=1000, late=0, latency_ms=quick, causes=none)
    assert of_running_line(well, 300.0).state == "ok"
    assert of_running_line(replace(well, causes=none | {"deadline": 11}), 300.0).state == "warn"
    assert of_running_line(replace(well, causes=none | {"no_frame": 500}), 300.0).state == "ok"  # the camera's fault
    assert of_running_line(replace(well, late=11), 300.0).state == "warn"
    slow = replace(quick, invoke=replace(figures, p99=151.0))
    assert of_running_line(replace(well, latency_ms=slow), 300.0).state == "warn"
    assert "no part yet" in of_running_line(replace(well, parts=0), 300.0).detail
