"""`io plc` on the simulated line, in both protocols and roles, and beside a running box."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge_runtime.cli.main import main
from edge_runtime.core.state import State
from edge_runtime.core.status import Status
from tests.support.real_box import RealBox, running_box, telling

SMALL = ["--config", "embedded", "--set", "camera.width=160", "--set", "camera.height=90"]
HOLD = """
import fcntl, sys
port = open(sys.argv[1], "rb+", buffering=0)
fcntl.flock(port, fcntl.LOCK_EX)
print("open", flush=True)
sys.stdin.read()
"""


def edge(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([*words])
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


@pytest.fixture
def small(tmp_path: Path) -> list[str]:
    return [*SMALL, "--set", f"recording.state_dir={tmp_path}"]


@pytest.fixture
def silent_port() -> Iterator[str]:
    master, slave = os.openpty()
    yield os.ttyname(slave)
    os.close(master)
    os.close(slave)


def test_the_firmware_is_told_with_version_flags_and_round_trip(
    capsys: pytest.CaptureFixture[str], small: list[str]
) -> None:
    code, out, _ = edge(capsys, "io", "plc", "--once", *small)
    assert code == 0, out
    for word in ("ok", "reject", "boot_id", "next_part", "encoder", "clock_drift_ppm", "answers in", "bad_crc 0"):
        assert word in out, word


@pytest.mark.parametrize("role", ["client", "server"])
def test_registers_are_told_by_name_in_both_roles(
    capsys: pytest.CaptureFixture[str], small: list[str], role: str
) -> None:
    words = ["--set", "controller.protocol=modbus", "--set", f"controller.role={role}"]
    code, out, _ = edge(capsys, "io", "plc", "--once", "--json", *small, *words)
    document = json.loads(out)
    assert code == 0, document
    assert (document["protocol"], document["role"], document["problem"]) == ("modbus", role, "")
    assert document["blocks"]["PLC"]["map_id"] == 17746
    assert document["blocks"]["PLC"]["map_version"] == int(document["release_version"], 16)
    code, out, _ = edge(capsys, "io", "plc", "--seconds", "0.5", *small, *words)
    assert "PLC block" in out and "outcome_seq" in out


@pytest.mark.parametrize("role", ["client", "server"])
def test_an_adapter_that_is_not_as_set_is_exit_code_1_and_named(
    capsys: pytest.CaptureFixture[str], small: list[str], role: str
) -> None:
    words = ["--set", "controller.protocol=modbus", "--set", f"controller.role={role}"]
    words += ["--set", "controller.rs485_echo=true", "--seconds", "1.5"]
    named = "the adapter does not echo: set controller.rs485_echo = false"
    code, out, _ = edge(capsys, "io", "plc", "--json", *small, *words)
    document = json.loads(out)
    assert code == 1 and (document["problem"], document["adapter_problem"]) == ("", named)
    code, out, err = edge(capsys, "io", "plc", *small, *words)
    assert code == 1 and named in out + err


def test_a_silent_port_is_exit_code_1_and_says_what_to_check(
    capsys: pytest.CaptureFixture[str], small: list[str], silent_port: str
) -> None:
    words = ["--set", "controller.driver=serial", "--set", f"controller.port={silent_port}"]
    code, out, _ = edge(capsys, "io", "plc", "--seconds", "2.2", *small, *words)
    assert code == 1 and "no controller answers" in out and "controller.baud" in out
    words += ["--set", "controller.protocol=modbus"]
    code, out, _ = edge(capsys, "io", "plc", "--seconds", "0.5", "--json", *small, *words)
    assert code == 1 and "unit 1 does not answer" in json.loads(out)["problem"]


def test_a_port_of_another_process_is_refused_with_its_name(
    capsys: pytest.CaptureFixture[str], small: list[str], silent_port: str
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, silent_port], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin and holder.stdout and holder.stdout.readline() == b"open\n"
        words = ["--set", "controller.driver=serial", "--set", f"controller.port={silent_port}"]
        code, _, err = edge(capsys, "io", "plc", "--once", *small, *words)
        holder.stdin.close()
        holder.wait(20)
    assert code == 1 and f"stop {holder.pid} " in err


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealBox]:
    with running_box(tmp_path_factory.mktemp("box") / "state") as running:
        yield running


def beside(box: RealBox) -> list[str]:
    return [*SMALL, "--set", f"recording.state_dir={box.state}"]


def test_a_running_box_is_asked_for_its_report_and_keeps_its_port(
    capsys: pytest.CaptureFixture[str], box: RealBox
) -> None:
    code, out, _ = edge(capsys, "io", "plc", *beside(box))
    assert code == 0 and f"process {box.process.pid}" in out
    assert out.splitlines()[1].split() == ["ok", "armed"] and "phase" in out and "frames_in" in out
    code, out, _ = edge(capsys, "io", "plc", "--json", *beside(box))
    document = json.loads(out)
    assert (document["source"], document["pid"]) == ("box", box.process.pid)
    assert (document["health"]["state"], document["health"]["detail"]) == ("ok", "armed")
    assert document["report"]["phase"] == "up" and document["report"]["boot_id"] == box.look().report.controller.boot_id
    code, _, err = edge(capsys, "io", "gate", "--yes", *beside(box))
    assert code == 1 and f"process {box.process.pid}) owns the controller; stop it first" in err


def test_what_stands_in_the_way_of_rejects_is_told_beside_a_running_box(
    capsys: pytest.CaptureFixture[str], small: list[str], tmp_path: Path, real_status: Status
) -> None:
    full = replace(real_status.health["controller"], state=State.DEGRADED, detail="reject bin full: empty it")
    with telling(tmp_path / "control.sock", replace(real_status, health={**real_status.health, "controller": full})):
        code, out, _ = edge(capsys, "io", "plc", *small)
    assert code == 0 and "degraded reject bin full: empty it" in out


@pytest.mark.parametrize("command", [["plc"], ["gate", "--yes"]], ids=" ".join)
def test_a_box_that_hangs_still_owns_its_controller(
    capsys: pytest.CaptureFixture[str], box: RealBox, command: list[str]
) -> None:
    with box.hung():
        code, out, err = edge(capsys, "io", *command, *beside(box))
    assert (code, out) == (1, "") and "does not answer" in err and "may hang" in err
