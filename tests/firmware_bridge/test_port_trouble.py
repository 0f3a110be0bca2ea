"""What goes wrong with a port, on real ptys, and what a technician is told of it."""

from __future__ import annotations

import functools
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from firmware_bridge import port_hints, serial_device
from firmware_bridge.adapters import latency_ms
from firmware_bridge.modbus.link import PlcLink
from firmware_bridge.modbus.registers import PLC
from firmware_bridge.modbus.rtu import Line, read_reply, read_request
from firmware_bridge.modbus.server import RtuServer
from firmware_bridge.port import BridgePort
from firmware_bridge.reject.far_side import Phase
from firmware_bridge.reject.gate_setup import GateSetup
from firmware_bridge.reject.link import Link
from firmware_bridge.serial_device import PortError
from firmware_bridge.sim.belt import Laid
from firmware_bridge.sim.controller import ControllerSim
from tests.support.waiting import until

PATIENCE_S = 20.0
SETUP = GateSetup(decide_counts=900, fire_counts=1000, pulse_counts=20, watchdog_ms=500)
HOLDER = """
import fcntl, sys
port = open(sys.argv[1], "rb+", buffering=0)
fcntl.flock(port, fcntl.LOCK_EX)
print("open", flush=True)
sys.stdin.read()
"""


class Pty:
    """Two ends; `far` is what a controller would hold."""

    def __init__(self):
        self.far, self.near = os.openpty()
        os.set_blocking(self.far, False)
        self.name = os.ttyname(self.near)

    def close(self):
        for fd in (self.far, self.near):
            os.close(fd)


@pytest.fixture
def make_pty():
    made = []

    def make():
        made.append(Pty())
        return made[-1]

    yield make
    for pty in made:
        pty.close()


@pytest.fixture
def open_port():
    opened = []

    def open_one(path, link, **options):
        port = BridgePort(str(path), link, lambda event: None, **options)
        opened.append(port)
        port.start(wait_s=0.01, must_open=False)
        return port

    yield open_one
    for port in opened:
        port.stop()


class Controller:
    """A simulated controller on a thread, until it is closed."""

    def __init__(self):
        self.sim = ControllerSim(Laid(0))
        self.path = self.sim.path
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._is_over.is_set():
            self.sim.step()

    def close(self):
        if not self._is_over.is_set():
            self._is_over.set()
            self._thread.join(PATIENCE_S)
            self.sim.close()


def test_garbage_alone_is_told_as_a_wrong_baud_rate(make_pty, open_port, monkeypatch):
    monkeypatch.setattr(port_hints, "SILENT_NS", 100_000_000)
    pty = make_pty()
    port = open_port(pty.name, Link(SETUP))

    def is_told():
        os.write(pty.far, b"\xf8\x80\x00\x9e\xe6")
        return "check controller.baud" in port.state()[1]

    until(is_told)
    phase, detail = port.state()
    assert phase is Phase.HELLO and "frames are damaged" in detail


def test_silence_is_told_as_silence(make_pty, open_port, monkeypatch):
    monkeypatch.setattr(port_hints, "SILENT_NS", 50_000_000)
    port = open_port(make_pty().name, Link(SETUP))
    until(lambda: "check its power and cable" in port.state()[1])
    assert "damaged" not in port.state()[1]


def test_a_good_frame_takes_the_complaint_back():
    hearing = port_hints.Hearing()
    hearing.opened(7, 0)
    hearing.heard(100, 7, 1)
    assert hearing.hint(1) == "" and "damaged" in hearing.hint(port_hints.SILENT_NS)
    hearing.heard(20, 8, port_hints.SILENT_NS)
    assert hearing.hint(port_hints.SILENT_NS + 1) == ""
    assert hearing.hint(2 * port_hints.SILENT_NS) == port_hints.SILENCE


def test_a_name_that_leads_elsewhere_is_followed_while_nobody_answers(tmp_path, make_pty, open_port, monkeypatch):
    monkeypatch.setattr(serial_device, "LOOK_NS", 10_000_000)
    first, second, name = make_pty(), make_pty(), tmp_path / "by-id"
    name.symlink_to(first.name)
    port = open_port(name, Link(SETUP))
    until(lambda: port.report()["port"] == first.name)
    fresh = tmp_path / "new"
    fresh.symlink_to(second.name)
    fresh.replace(name)  # the old device is still open and silent
    until(lambda: port.report()["opened"] == 2)
    assert port.report()["port"] == second.name


def test_an_adapter_that_comes_back_under_another_name_is_armed_again(tmp_path, open_port):
    first, name = Controller(), tmp_path / "by-id"
    name.symlink_to(first.path)
    port = open_port(name, Link(SETUP))
    port.set_armed(True)
    assert port.wait_armed(PATIENCE_S)
    name.unlink()
    first.close()  # the cable is pulled
    until(lambda: port.state()[0] is Phase.CLOSED)
    second = Controller()
    try:
        name.symlink_to(second.path)
        assert port.wait_armed(PATIENCE_S)
        assert port.report()["port"] == second.path
    finally:
        second.close()


def test_a_port_of_another_process_names_it_and_is_taken_when_free(make_pty, open_port, caplog):
    pty = make_pty()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, pty.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"open\n"
        with caplog.at_level(logging.WARNING):
            port = open_port(pty.name, Link(SETUP))
            until(lambda: port.report()["open_failed"] >= 2)
        detail = port.state()[1]
        assert "in use by another process" in detail
        assert f"stop {holder.pid} " in detail and "python" in detail
        told = [record for record in caplog.records if "port not there" in record.getMessage()]
        assert len(told) == 1  # not with each attempt
        with pytest.raises(PortError, match=f"stop {holder.pid} "):
            BridgePort(pty.name, Link(SETUP), lambda event: None).start()
        holder.stdin.close()
        holder.wait(PATIENCE_S)
    until(lambda: port.report()["opened"] == 1)


def test_a_slow_adapter_is_told_with_the_fix(make_pty, open_port, tmp_path, monkeypatch, caplog):
    pty = make_pty()
    device = tmp_path / Path(pty.name).name / "device"
    device.mkdir(parents=True)
    (device / "latency_timer").write_text("16\n")
    monkeypatch.setattr(serial_device, "latency_ms", functools.partial(latency_ms, sys_tty=tmp_path))
    with caplog.at_level(logging.WARNING):
        port = open_port(pty.name, Link(SETUP))
    assert port.report()["latency_timer_ms"] == 16
    assert "99-edge-runtime.rules" in caplog.text and "latency_timer_ms=16" in caplog.text


def test_a_port_without_a_timer_is_no_complaint(make_pty, open_port, caplog):
    with caplog.at_level(logging.WARNING):
        port = open_port(make_pty().name, Link(SETUP))
    assert port.report()["latency_timer_ms"] is None and not caplog.records


def test_a_plc_that_answers_as_another_unit_is_named(make_pty, open_port):
    pty = make_pty()
    port = open_port(pty.name, PlcLink(SETUP, unit=1))

    def is_told():
        try:
            os.read(pty.far, 4096)
            os.write(pty.far, read_reply(read_request(5, PLC.base, PLC.size), [0] * PLC.size))
        except BlockingIOError:
            pass
        return "unit 5 answers instead of unit 1" in port.state()[1]

    until(is_told)


def test_a_plc_that_asks_another_unit_is_told_its_number(make_pty, open_port):
    pty = make_pty()
    port = open_port(pty.name, PlcLink(SETUP, role="server", unit=1))

    def is_told():
        os.write(pty.far, read_request(9, 0, 4).encode())
        return "requests for unit 9" in port.state()[1]

    until(is_told)


@pytest.mark.parametrize("parity", ["none", "even", "odd"])
def test_a_line_with_parity_is_opened(make_pty, open_port, parity):
    pty = make_pty()
    port = open_port(pty.name, PlcLink(SETUP, baud=19_200, parity=parity), baud=19_200, parity=parity)

    class Zeros:
        def read(self, address, count):
            return [0] * count

        def write(self, address, values):
            pass

    server = RtuServer(1, Line(19_200, parity), Zeros())

    def is_told():
        try:
            server.feed(os.read(pty.far, 4096), time.monotonic_ns())
            os.write(pty.far, server.take_output())
        except BlockingIOError:
            pass
        return "begins with 0x0000" in port.state()[1]

    until(is_told)
