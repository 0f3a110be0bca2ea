"""Doctor on the reject controller: each finding names its fix."""

from __future__ import annotations

import fcntl
import functools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge_runtime.commissioning import doctor_controller
from edge_runtime.commissioning.doctor_controller import controller_findings
from edge_runtime.commissioning.finding import Finding
from edge_runtime.config.load import load
from edge_runtime.core.status import Status
from firmware_bridge import watch
from firmware_bridge.adapters import latency_ms
from firmware_bridge.modbus.registers import MAP_VERSION
from firmware_bridge.reject.controller import Controller
from firmware_bridge.reject.messages import PROTOCOL_VERSION
from firmware_bridge.sim.belt import Laid
from firmware_bridge.sim.controller import ControllerSim
from firmware_bridge.sim.plc import make_plc
from tests.support.real_box import telling


@pytest.fixture
def controller(request: pytest.FixtureRequest) -> Iterator[str]:
    sim = ControllerSim(Laid(0), make=getattr(request, "param", Controller))
    is_over = threading.Event()

    def run() -> None:
        while not is_over.is_set():
            sim.step()

    thread = threading.Thread(target=run)
    thread.start()
    yield sim.path
    is_over.set()
    thread.join(20)
    sim.close()


@pytest.fixture
def silent() -> Iterator[str]:
    master, slave = os.openpty()
    yield os.ttyname(slave)
    os.close(master)
    os.close(slave)


def findings(tmp_path: Path, port: str, *settings: str) -> dict[str, Finding]:
    words = ["controller.driver=serial", f"controller.port={port}", f"recording.state_dir={tmp_path}", *settings]
    return {finding.name: finding for finding in controller_findings(load(None, words))}


def test_a_simulated_controller_needs_nothing() -> None:
    (finding,) = controller_findings(load(None, []))
    assert (finding.state, finding.detail) == ("ok", "simulated")


@pytest.mark.parametrize("settings", [[], ["controller.driver=serial", "controller.port=/dev/null"]])
def test_a_simulated_line_without_its_compiled_core_is_a_failure_with_its_fix(settings, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("EDGE_REJECT_CORE", str(tmp_path / "none.so"))
    found = {finding.name: finding for finding in controller_findings(load(None, settings))}
    assert found["controller.core"].state == "fail"
    assert "apt-get install gcc libc6-dev" in found["controller.core"].fix


def test_a_real_line_needs_no_compiled_core(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("EDGE_REJECT_CORE", str(tmp_path / "none.so"))
    assert "controller.core" not in findings(
        tmp_path, "/dev/null", "camera.driver=folder", f"camera.folder.path={tmp_path}"
    )


def test_a_port_that_is_not_there_names_the_cable(tmp_path: Path) -> None:
    found = findings(tmp_path, str(tmp_path / "none"))
    assert found["controller"].state == "fail" and "check the cable" in found["controller"].fix
    assert list(found) == ["controller"]


def test_a_file_is_no_port(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is not a serial port" in findings(tmp_path, str(tmp_path / "file"))["controller"].detail


def test_firmware_of_this_release_is_good(tmp_path: Path, controller: str) -> None:
    found = findings(tmp_path, controller)
    assert {finding.state for finding in found.values()} == {"ok"}
    assert f"protocol {PROTOCOL_VERSION:04x} as this release" in found["controller.link"].detail
    assert found["controller.inputs"].detail == "nothing stands in the way of a reject"


@pytest.mark.parametrize("controller", [make_plc("server")], indirect=True)
def test_registers_of_this_release_are_good(tmp_path: Path, controller: str) -> None:
    found = findings(tmp_path, controller, "controller.protocol=modbus")
    assert f"register map {MAP_VERSION:04x} as this release" in found["controller.link"].detail
    assert found["controller.inputs"].state == "ok"


@pytest.mark.parametrize("controller", [make_plc("server")], indirect=True)
def test_an_adapter_that_is_not_as_set_is_named(tmp_path: Path, controller: str) -> None:
    found = findings(tmp_path, controller, "controller.protocol=modbus", "controller.rs485_echo=true")
    adapter = found["controller.adapter"]
    assert (adapter.state, adapter.detail) == ("warn", "the adapter does not echo")
    assert adapter.fix == "set controller.rs485_echo = false"
    assert found["controller.link"].state == "ok"


def test_firmware_of_another_release_is_to_be_flashed(
    tmp_path: Path, controller: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = watch.FramesWatch
    monkeypatch.setattr("edge_runtime.commissioning.far_side.FramesWatch", functools.partial(real, version=0x1111))
    found = findings(tmp_path, controller)
    assert found["controller.link"].state == "fail" and "reflash" in found["controller.link"].detail


def test_nobody_at_the_port_is_a_failure(tmp_path: Path, silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_controller, "ANSWER_WITHIN_S", 0.2)
    found = findings(tmp_path, silent)
    assert found["controller.link"].state == "fail" and "no controller answers" in found["controller.link"].detail


def test_a_port_in_use_names_the_process(tmp_path: Path, silent: str) -> None:
    script = (
        "import fcntl, sys; p = open(sys.argv[1], 'rb+', buffering=0); fcntl.flock(p, 2); print(); sys.stdin.read()"
    )
    assert fcntl.LOCK_EX == 2
    with subprocess.Popen(
        [sys.executable, "-uc", script, silent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin and holder.stdout and holder.stdout.readline() == b"\n"
        found = findings(tmp_path, silent)
        holder.stdin.close()
        holder.wait(20)
    assert found["controller.port"].state == "fail" and f"stop {holder.pid} " in found["controller.port"].detail


def test_a_slow_adapter_is_a_warning_with_the_rule(
    tmp_path: Path, controller: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = tmp_path / Path(controller).name / "device"
    device.mkdir(parents=True)
    monkeypatch.setattr(doctor_controller, "latency_ms", functools.partial(latency_ms, sys_tty=tmp_path))
    for timer_ms, state in ((16, "warn"), (1, "ok")):
        (device / "latency_timer").write_text(f"{timer_ms}\n")
        finding = findings(tmp_path, controller)["controller.latency"]
        assert finding.state == state and f"{timer_ms} ms" in finding.detail
        assert ("99-edge-runtime.rules" in finding.fix) == (state == "warn")


def test_a_running_box_is_asked_and_its_port_left_alone(tmp_path: Path, silent: str, real_status: Status) -> None:
    words = ["controller.driver=serial", f"controller.port={silent}", f"recording.state_dir={tmp_path}"]
    with telling(tmp_path / "control.sock", real_status):
        well = {finding.name: finding for finding in controller_findings(load(None, words))}
    assert well["controller.inputs"].state == "ok" and "controller.adapter" not in well
    assert well["controller.link"].detail == f"process {real_status.pid} owns the port, up"
    controller = replace(
        real_status.report.controller,
        phase="arm",
        inputs=("bin_full", "air_low"),
        adapter_problem="the adapter echoes: set controller.rs485_echo = true",
    )
    blocked = replace(real_status, pid=99, report=replace(real_status.report, controller=controller))
    with telling(tmp_path / "control.sock", blocked):
        every = list(controller_findings(load(None, words)))
    faults = [(finding.detail, finding.fix) for finding in every if finding.state == "fail"]
    assert faults[0] == ("reject bin full", "empty it") and faults[1][0] == "air pressure low"
    assert any("process 99 owns the port" in finding.detail for finding in every)
    assert Finding("controller.adapter", "warn", "the adapter echoes", "set controller.rs485_echo = true") in every
