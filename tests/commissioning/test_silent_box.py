"""A box that hangs, one that refuses, one of another version, none: doctor and the tools beside it tell them apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.commissioning.doctor import examine
from edge_runtime.commissioning.far_side import far_side, running_box
from edge_runtime.config.load import Loaded, load
from edge_runtime.core.errors import DeviceError
from edge_runtime.process.control import ControlServer, NoAnswer, Refused
from tests.support.real_box import RealBox
from tests.support.real_box import running_box as real_running_box

Findings = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealBox]:
    listens = ['microphone.driver="sim"', 'voice.wake=""', 'voice.grammar="off"']
    with real_running_box(tmp_path_factory.mktemp("box") / "state", *listens) as box:
        yield box


def findings(loaded: Loaded) -> Findings:
    return {finding["name"]: finding for finding in examine(loaded)}


@contextmanager
def answering(state: Path, answer: Callable[[Any], Any]) -> Iterator[Loaded]:
    server = ControlServer(state / "control.sock", {"status": answer})
    server.start()
    try:
        yield load(None, [f"recording.state_dir={state}", "microphone.driver=sim", "voice.wake=''"])
    finally:
        server.stop()


def refuse(_: Any) -> None:
    raise DeviceError("not you; become root")


def test_a_box_that_runs_is_told_with_each_component(box: RealBox) -> None:
    loaded = load(None, box.settings)
    assert running_box(loaded.config) is not None
    found = findings(loaded)
    assert found["daemon"]["state"] == "ok" and f"process {box.process.pid} is ok" in found["daemon"]["detail"]
    assert f"process {box.process.pid} listens: sim" in found["microphone"]["detail"]
    assert "scheduling" in found and not [name for name in found if name.startswith("daemon.")]


def test_a_box_that_hangs_is_a_failure_and_nothing_is_looked_at_beside_it(box: RealBox) -> None:
    loaded = load(None, box.settings)
    with box.hung():
        with pytest.raises(NoAnswer, match="may hang"):
            running_box(loaded.config)
        found = findings(loaded)
    assert found["daemon"]["state"] == "fail" and "may hang" in found["daemon"]["detail"]
    assert "systemctl restart edge-runtime-run" in found["daemon"]["fix"]
    for name in ("model.speed", "microphone"):
        assert found[name]["state"] == "warn" and "not looked at beside a line" in found[name]["detail"]


def test_a_box_that_refuses_is_named_as_that(tmp_path: Path) -> None:
    with answering(tmp_path, refuse) as loaded:
        with pytest.raises(Refused), far_side(loaded.config):
            pass
        found = findings(loaded)
    assert found["daemon"]["state"] == "warn" and "not you" in found["daemon"]["detail"]
    assert found["daemon"]["fix"] == "ask as root, or as a member of the service's group"
    assert found["microphone"]["state"] == found["model.speed"]["state"] == "warn"


def test_a_box_of_another_version_is_to_be_restarted(tmp_path: Path) -> None:
    with answering(tmp_path, lambda _: {"parts": 3}) as loaded:
        found = findings(loaded)
    assert found["daemon"]["state"] == "warn" and "another version" in found["daemon"]["detail"]
    assert "systemctl restart edge-runtime-run" in found["daemon"]["fix"]


def test_no_box_is_none_and_the_devices_are_looked_at(tmp_path: Path) -> None:
    loaded = load(None, [f"recording.state_dir={tmp_path}", "microphone.driver=sim", "voice.wake=''"])
    assert running_box(loaded.config) is None
    found = findings(loaded)
    assert found["daemon"]["state"] == "warn" and "no edge-runtime is running here" in found["daemon"]["detail"]
    assert found["daemon"]["fix"].startswith("systemctl start edge-runtime-run")
    assert found["microphone"]["detail"] == "simulated"
    assert "delegated" in found["model.speed"]["detail"]  # it was timed here, however busy the machine is
