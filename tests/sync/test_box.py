"""What the uplink knows of the run beside it: a real one, one that hangs, one that refuses, none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.core.errors import DeviceError
from edge_runtime.core.state import State
from edge_runtime.core.status import Status
from edge_runtime.process.ask_status import Silence
from edge_runtime.process.control import ControlServer
from edge_runtime.sync.box import RunWatch, Silent, metrics
from edge_runtime.sync.sparkplug.metrics import StatusReader
from tests.support.real_box import RealBox, running_box, telling


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealBox]:
    with running_box(tmp_path_factory.mktemp("box") / "state") as running:
        yield running


def refuse(_: Any) -> None:
    raise DeviceError("not you")


def test_a_metrics_record_has_the_figures_of_the_run(box: RealBox) -> None:
    shot = box.look()
    told = metrics(RunWatch(box.socket), box.state)
    run = told["run"]
    assert run["state"] == "ok" and run["parts"] >= shot.parts and run["model"] == shot.model
    assert set(run["health"]) == set(shot.health) and set(run["health"].values()) == {State.OK}
    assert run["latency_ms"]["trigger_to_verdict"]["p99"] > 0
    assert told["disk_free_mb"] > 0
    assert set(run) == {
        "state", "uptime_s", "parts", "verdicts", "causes", "outcomes", "late", "on_belt", "latency_ms", "rss_mb",
        "cpu_s", "model", "automation", "health",
    }  # fmt: skip


def test_a_run_that_hangs_is_not_called_stopped(box: RealBox) -> None:
    with box.hung():
        seen = RunWatch(box.socket).look()
        told = metrics(RunWatch(box.socket), box.state)
    assert isinstance(seen, Silent) and seen.state is Silence.NO_ANSWER
    assert told["run"]["state"] == "no_answer" and "may hang" in told["run"]["detail"]
    assert isinstance(RunWatch(box.socket).look(), Status)


def test_a_run_that_is_absent_one_that_refuses_and_one_of_another_version_are_three_things(tmp_path: Path) -> None:
    socket = tmp_path / "control.sock"
    assert metrics(RunWatch(socket), tmp_path)["run"]["state"] == "stopped"
    for answer, state, words in ((refuse, "refused", "not you"), (lambda _: {}, "unreadable", "status has no")):
        server = ControlServer(socket, {"status": answer})
        server.start()
        try:
            told = metrics(RunWatch(socket), tmp_path)["run"]
        finally:
            server.stop()
        assert told["state"] == state and words in told["detail"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_somebody_who_may_not_ask_is_refused_and_not_told_that_nobody_runs(box: RealBox) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            seen = RunWatch(box.socket).look()
            os.write(write, seen.state.encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as told:
        assert told.read() == "refused"


def test_each_silence_stands_in_the_live_tags(box: RealBox, tmp_path: Path, real_status: Status) -> None:
    reader = StatusReader(has_microphone=True)
    for silence in Silence:
        sample = reader.read(silence, {})
        assert sample.node["Runtime/State"] == silence.value and set(sample.devices.values()) == {None}
    with telling(tmp_path / "c.sock", replace(real_status, station="box-7")):
        seen = RunWatch(tmp_path / "c.sock").look()
    assert isinstance(seen, Status) and reader.read(seen, {}).node["Properties/Station"] == "box-7"
