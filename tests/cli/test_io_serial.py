"""`io serial`: what a technician sees of the ports, and what a script gets."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from edge_runtime.cli import io_serial
from edge_runtime.cli.main import main
from edge_runtime.config.schema import ControllerConfig
from firmware_bridge import adapters


def edge(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([*words])
    out, err = capsys.readouterr()
    assert isinstance(end.value.code, int)
    return end.value.code, out, err


@pytest.fixture
def pty() -> Iterator[str]:
    master, slave = os.openpty()
    yield os.ttyname(slave)
    os.close(master)
    os.close(slave)


def adapter(**facts: object) -> adapters.Adapter:
    plain = {"path": "/dev/ttyUSB7", "by_id": "/dev/serial/by-id/usb-FTDI-A1", "driver": "ftdi_sio",
             "product": "FT232R", "latency_ms": 16, "is_permitted": True, "used_by": ""}  # fmt: skip
    return adapters.Adapter(**{**plain, **facts})


def test_the_simulated_controller_is_always_there(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = edge(capsys, "io", "serial", "--config", "embedded")
    assert code == 0 and "driver sim, protocol reject, simulated" in out


def test_a_port_that_is_not_there_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--set", "controller.driver=serial", "--set", "controller.port=/dev/serial/by-id/none"]
    code, out, _ = edge(capsys, "io", "serial", "--json", "--config", "embedded", *words)
    document = json.loads(out)
    assert code == 1
    assert document["configured"]["ready"] is False
    assert "check the cable" in document["configured"]["detail"]


def test_a_link_to_a_port_is_followed(capsys: pytest.CaptureFixture[str], pty: str, tmp_path: Path) -> None:
    (tmp_path / "by-id").symlink_to(pty)
    words = ["--set", "controller.driver=serial", "--set", f"controller.port={tmp_path / 'by-id'}"]
    code, out, _ = edge(capsys, "io", "serial", "--config", "embedded", *words)
    assert code == 0 and pty in out


def test_a_file_is_no_port(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words = ["--set", "controller.driver=serial", "--set", f"controller.port={tmp_path / 'file'}"]
    code, out, _ = edge(capsys, "io", "serial", "--config", "embedded", *words)
    assert code == 1 and "is not a serial port" in out


def test_a_slow_adapter_its_user_and_its_owner_are_told() -> None:
    cfg = ControllerConfig(driver="serial", port="/dev/ttyUSB7")
    slow = io_serial.survey(cfg, [adapter(used_by="812 minicom", is_permitted=False)])
    text = click.unstyle("\n".join(io_serial._lines(slow)))
    assert slow["ports"][0]["used"] and slow["ports"][0]["is_slow"]
    for word in ("by-id/usb-FTDI-A1  used by this station", "latency timer 16 ms", "in use by 812 minicom",
                 "99-edge-runtime.rules", "/sys/class/tty/ttyUSB7/device/latency_timer", "dialout"):  # fmt: skip
        assert word in text, word
    assert "usb-FTDI-A1" in slow["configured"]["detail"]  # what was found instead


def test_a_quick_adapter_is_no_complaint() -> None:
    survey = io_serial.survey(ControllerConfig(), [adapter(latency_ms=1)])
    text = "\n".join(io_serial._lines(survey))
    assert "slow" not in text and not survey["ports"][0]["used"]
    assert "no serial ports found" in "\n".join(io_serial._lines(io_serial.survey(ControllerConfig(), [])))
