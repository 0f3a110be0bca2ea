"""The simulated line as a host sees it: a real port, a real socket, and a truth that agrees with both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from edge_runtime.actuation.rejecter import Rejecter
from edge_runtime.capture.cameras.camera import CameraLost
from edge_runtime.capture.pairing import Pairing
from edge_runtime.config.schema import CameraConfig, ControllerConfig, SafeAction, WorldConfig
from edge_runtime.core.clock import monotonic_ns
from edge_runtime.core.messages import Cause, Decision, Frame, GateReport, PartKey, Trigger, Verdict
from edge_runtime.simulation.camera import SimCamera
from edge_runtime.simulation.line import SimLine
from tests.support.waiting import until

SIZE = {"width": 160, "height": 90}
# A second from eye to gate and a patient watchdog: these tests are about the line, not about a busy machine.
QUICK = {"parts_per_s": 15.0, "counts_per_s": 3000}
CONTROLLER = ControllerConfig(decide_counts=2700, fire_counts=3000, pulse_counts=20, watchdog_ms=10_000)
TOOL = Path(__file__).parents[2] / "tools" / "sim" / "line"


class Host:
    """The smallest box: pairs, and decides each part by a rule of the test; without one it says nothing."""

    def __init__(self, port: str, socket_path: str, decide: Callable[[Trigger], Verdict | None]) -> None:
        self.triggers: dict[PartKey, Trigger] = {}
        self.pairs: list[tuple[Trigger, Frame]] = []
        self.reports: dict[PartKey, GateReport] = {}
        self._decide = decide
        camera = CameraConfig.model_validate({**SIZE, "sim": {"attach": socket_path}})
        self.camera = SimCamera(camera, monotonic_ns)
        self._pairing = Pairing("encoder", camera, monotonic_ns)
        self._rejecter = Rejecter(
            CONTROLLER,
            port=port,
            safe_action=SafeAction.REJECT,
            clock=monotonic_ns,
            on_trigger=self._on_trigger,
            on_report=self._on_report,
            on_event=lambda _: None,
        )
        self._is_over = threading.Event()
        self._reader = threading.Thread(target=self._read)

    def __enter__(self) -> Host:
        self.camera.start()
        self._reader.start()
        self._rejecter.start()
        assert self._rejecter.arm(10.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.camera.stop()
        self._reader.join()
        self._rejecter.stop()

    def _read(self) -> None:
        try:
            while not self._is_over.is_set():
                frame = self.camera.read(0.1)
                if frame is not None:
                    self.pairs += self._pairing.on_frame(frame)
        except CameraLost:
            pass

    def _on_trigger(self, trigger: Trigger) -> None:
        self.triggers[trigger.key] = trigger
        self.pairs += self._pairing.on_trigger(trigger)
        verdict = self._decide(trigger)
        if verdict is not None:
            now = monotonic_ns()
            self._rejecter.write(Decision(trigger.key, verdict, Cause.RULE, "", None, trigger.at_ns, None, now, "test"))

    def _on_report(self, report: GateReport) -> None:
        self.reports[report.key] = report


@contextmanager
def line(parts: int | None, **world: Any) -> Iterator[SimLine]:
    sim = SimLine(WorldConfig.model_validate({**QUICK, "seed": 3, **world}), CONTROLLER, parts, **SIZE)
    sim.start()
    try:
        yield sim
    finally:
        sim.stop()


def host_on(sim: SimLine, decide: Callable[[Trigger], Verdict | None]) -> Host:
    return Host(sim.controller_port, sim.camera_socket, decide)


def test_every_part_has_trigger_frame_and_outcome_and_accepted_defects_are_missed() -> None:
    with line(15, defect_share=0.4) as sim:
        with host_on(sim, lambda _: Verdict.ACCEPT) as host:
            until(lambda: sim.is_over and len(host.reports) == 15)
        truth = sim.truth_report()
    assert [t.key.part_id for t in host.triggers.values()] == list(range(1, 16))
    assert len(host.pairs) == 15
    assert all(frame.seq == t.key.part_id - 1 and frame.encoder == t.encoder for t, frame in host.pairs)
    assert len(truth["parts"]) == 15 and truth["defects"] > 2
    assert truth["missed"] == truth["defects"]
    assert truth["false"] == truth["stray"] == 0
    assert all(row["outcome"] == "passed" and row["fired"] is False for row in truth["parts"])


def test_rejected_good_parts_and_parts_without_a_verdict_are_false_rejects() -> None:
    def decide(trigger: Trigger) -> Verdict | None:
        return Verdict.REJECT if trigger.key.part_id % 2 else None

    with line(12, defect_share=0.0) as sim:
        with host_on(sim, decide) as host:
            until(lambda: sim.is_over and len(host.reports) == 12)
        truth = sim.truth_report()
    assert truth["false"] == 12 and truth["missed"] == 0
    assert [row["outcome"] for row in truth["parts"]] == ["fired", "defaulted"] * 6


def test_stuck_gate_lets_rejected_defects_pass() -> None:
    with line(10, defect_share=1.0, bad_days={"stuck_gate": 1.0}) as sim:
        with host_on(sim, lambda _: Verdict.REJECT) as host:
            until(lambda: sim.is_over and len(host.reports) == 10)
        truth = sim.truth_report()
    assert truth["stuck"] == 10
    assert truth["missed"] == truth["defects"] > 7


def test_same_seed_gives_the_same_parts_and_pictures() -> None:
    runs = []
    for _ in range(2):
        with line(6) as sim:
            with host_on(sim, lambda _: Verdict.ACCEPT) as host:
                until(lambda sim=sim, host=host: sim.is_over and len(host.pairs) == 6)  # type: ignore[misc]
            kinds = [row["kind"] for row in sim.truth_report()["parts"]]
        runs.append((kinds, [(t.encoder, frame.image.tobytes()) for t, frame in host.pairs]))
    assert runs[0] == runs[1]


def test_feeder_that_ends_leaves_whole_parts_only() -> None:
    with line(None, defect_share=0.0) as sim:
        with host_on(sim, lambda _: Verdict.ACCEPT) as host:
            until(lambda: len(host.triggers) >= 5)
            assert not sim.is_over
            sim.close()
            until(lambda: sim.is_over and len(host.reports) == len(host.triggers))
        truth = sim.truth_report()
    assert len(truth["parts"]) == len(host.triggers)
    assert truth["false"] == truth["missed"] == 0


def test_belt_stands_until_the_controller_is_armed() -> None:
    with line(3) as sim:
        assert sim.belt.switch.start_ns == 0 and not sim.is_over
        assert sim.truth_report()["parts"] == []


def test_camera_attaches_again_and_sees_later_parts() -> None:
    with line(None) as sim, host_on(sim, lambda _: Verdict.ACCEPT) as host:
        until(lambda: len(host.pairs) >= 3)
        host.camera.stop()
        seen = len(host.pairs)
        host.camera.start()
        until(lambda: len(host.pairs) >= seen + 3)
        assert host.pairs[-1][1].seq > host.pairs[seen - 1][1].seq


def test_stop_leaves_no_process_and_no_file() -> None:
    sim = SimLine(WorldConfig(), CONTROLLER, 3, **SIZE)
    sim.start()
    pids, folder = sim.pids, Path(sim.camera_socket).parent
    assert len(pids) == 2 and folder.exists()
    sim.stop()
    sim.stop()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not folder.exists()


PARENT = """
import sys
from edge_runtime.config.schema import ControllerConfig, WorldConfig
from edge_runtime.simulation.line import SimLine
if __name__ == "__main__":
    sim = SimLine(WorldConfig(), ControllerConfig(), 3, width=160, height=90)
    sim.start()
    print(*sim.pids, sim.camera_socket, flush=True)
    {then}
"""


def is_running(pid: int) -> bool:
    """A zombie has ended; where process 1 does not collect orphans it stays listed."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("end", ["killed", "forgetful"])
def test_children_end_with_their_parent(tmp_path: Path, end: str) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT.replace("{then}", "sys.stdin.read()" if end == "killed" else "pass"))
    parent = subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert parent.stdout and parent.stdin
    *words, path = parent.stdout.readline().split()
    pids = [int(word) for word in words]
    assert len(pids) == 2
    if end == "killed":
        parent.kill()
    parent.wait(timeout=60)
    parent.stdin.close()
    parent.stdout.close()
    until(lambda: not any(is_running(pid) for pid in pids))
    assert not Path(path).parent.exists()


@pytest.mark.parametrize("end", ["all parts", "SIGTERM"])
def test_line_on_its_own_survives_its_host_and_tells_the_truth(tmp_path: Path, end: str) -> None:
    parts = ["--parts", "45"] if end == "all parts" else []
    words = [*parts, "--seed", "5", "--set", "parts_per_s=15", "--set", "counts_per_s=3000", "--set", "defect_share=0"]
    size = ["--width", "160", "--height", "90", "--controller", "fire_counts=3000"]
    tool = subprocess.Popen(
        [sys.executable, TOOL, "--dir", tmp_path, *words, *size, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert tool.stderr and "camera" in tool.stderr.readline()
        with Host(str(tmp_path / "controller"), str(tmp_path / "camera.sock"), lambda _: Verdict.ACCEPT) as first:
            until(lambda: len(first.pairs) >= 2)
        with Host(str(tmp_path / "controller"), str(tmp_path / "camera.sock"), lambda _: Verdict.ACCEPT) as second:
            until(lambda: len(second.reports) >= 2)
            if end == "SIGTERM":
                tool.send_signal(signal.SIGTERM)
            out, _ = tool.communicate(timeout=60)
    finally:
        tool.kill()
        tool.wait()
    report = json.loads(out)
    assert report["missed"] == 0
    assert {"index", "part_id", "boot_id", "defect", "kind", "fired"} <= report["parts"][0].keys()
    assert end == "SIGTERM" or len(report["parts"]) == 45
    assert list(tmp_path.iterdir()) == []


def test_without_the_compiled_core_the_daemon_says_so_once_and_no_restart_is_asked_for(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "edge_runtime", "--config", "embedded", "--set", f"recording.state_dir={tmp_path}"]
    env = {**os.environ, "EDGE_REJECT_CORE": "", "CC": str(tmp_path / "cc"), "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [*words, "run", "--parts", "1"], capture_output=True, text=True, timeout=60, env=env, check=False
    )
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    assert done.returncode == 2
    assert len(errors) == 1 and "apt-get install gcc libc6-dev" in errors[0]
    assert "Traceback" not in done.stderr
