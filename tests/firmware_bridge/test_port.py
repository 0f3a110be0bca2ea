"""The real thing: a port thread on a real pty, and the simulated controller in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import termios
import threading
import time
from collections import Counter
from dataclasses import dataclass

import pytest

from firmware_bridge.port import BridgePort
from firmware_bridge.reject.gate_setup import GateSetup
from firmware_bridge.reject.link import Link
from firmware_bridge.reject.link_events import ControllerReset, LinkLost, PartsMissed, Settled, Triggered
from firmware_bridge.serial_device import PortError, open_serial
from firmware_bridge.sim.controller import ControllerSim
from firmware_bridge.sim.wire import WireFaults
from tests.support.waiting import until

PATIENCE_S = 20.0
SETUP = GateSetup(decide_counts=900, fire_counts=1000, pulse_counts=20, watchdog_ms=500)


@dataclass
class Belt:
    """Parts each 20 ms on a belt of 5000 counts a second; the encoder wraps after 0.4 s."""

    parts: int
    start: object  # multiprocessing value, ns
    first_count: int = 2**32 - 2000
    counts_per_s: int = 5000

    def begin(self, now_ns):
        if not self.start.value:
            self.start.value = now_ns

    def encoder_at(self, now_ns):
        start_ns = self.start.value
        return self.first_count + (max(0, now_ns - start_ns) * 5 // 1_000_000 if start_ns else 0)

    def has_part(self, index):
        return index < self.parts

    def eye_counts(self, index):
        return self.first_count + 250 + 100 * index


def _process(belt, wire, pipe):
    sim = ControllerSim(belt, drive=belt, seed=1, wire=wire)
    pipe.send(sim.path)
    while True:
        sim.step()
        if not pipe.poll():
            continue
        order = pipe.recv()
        if order == "stop":
            break
        if order == "reset":
            sim.reset()
        pipe.send(sim.truth())
    sim.close()


class Line:
    """One simulated controller and the host that judges every part at once: each third is rejected."""

    def __init__(self, parts, wire=None):
        context = multiprocessing.get_context("fork")  # the tests' process has no threads to be afraid of here
        self.belt = Belt(parts, context.RawValue("q", 0))
        self.pipe, far = context.Pipe()
        self.process = context.Process(target=_process, args=(self.belt, wire, far), daemon=True)
        self.process.start()
        assert self.pipe.poll(PATIENCE_S)
        self.path = self.pipe.recv()
        self.events, self.triggered, self.settled = [], {}, {}
        self.news = threading.Condition()
        self.is_judging = True
        self.port = None

    def connect(self, resume=None):
        self.port = BridgePort(self.path, Link(SETUP, resume=resume), self.hear)
        self.port.start()
        self.port.set_armed(True)
        assert self.port.wait_armed(PATIENCE_S)

    def hear(self, event):
        with self.news:
            self.events.append(event)
            match event:
                case Triggered(boot, part):
                    self.triggered[boot, part] = event
                    if self.is_judging:
                        self.port.send_verdict(boot, part, part % 3 == 0)
                case PartsMissed(boot, first, last):
                    self.triggered |= {(boot, part): event for part in range(first, last + 1)}
                case Settled(boot, part, outcome):
                    assert (boot, part) not in self.settled
                    self.settled[boot, part] = outcome.value
            self.news.notify_all()

    def wait(self, is_true):
        with self.news:
            assert self.news.wait_for(is_true, PATIENCE_S), (len(self.triggered), len(self.settled), self.port.report())

    def ask(self, order):
        self.pipe.send(order)
        assert self.pipe.poll(PATIENCE_S)
        return self.pipe.recv()

    def close(self):
        if self.port is not None:
            self.port.stop()
        self.pipe.send("stop")
        self.process.join(PATIENCE_S)
        assert self.process.exitcode == 0


@pytest.fixture
def make_line():
    lines = []

    def make(*args, **kwargs):
        lines.append(Line(*args, **kwargs))
        return lines[-1]

    yield make
    for line in lines:
        line.close()


def test_every_part_is_judged_and_stamped_over_a_real_pty(make_line):
    line = make_line(30)
    line.connect()
    line.wait(lambda: len(line.settled) == 30)
    assert line.port.drain(PATIENCE_S)
    truth = line.ask("truth")
    told = {key: outcome for key, outcome in line.settled.items() if outcome != "defaulted"}
    assert {(part.boot_id, part.part_id): part.outcome for part in truth.parts} == line.settled
    assert len(told) >= 25  # a busy machine may be late for some
    assert told == {key: "fired" if key[1] % 3 == 0 else "passed" for key in told}
    assert all(part.is_removed == (part.outcome != "passed") for part in truth.parts)
    assert truth.stray == 0 and truth.sweeps == 0

    for (_, part), event in line.triggered.items():
        counts = line.belt.eye_counts(part - 1)
        assert event.encoder == counts % 2**32
    start_ns, first = line.belt.start.value, line.belt.first_count
    errors = sorted(
        abs(event.at_ns - (start_ns + (line.belt.eye_counts(part - 1) - first) * 200_000))
        for (_, part), event in line.triggered.items()
    )
    assert errors[len(errors) // 2] < 5_000_000


def test_a_bad_wire_loses_nothing(make_line):
    line = make_line(40, WireFaults(byte_errors=0.01, lose_answers=0.2, late_events_ms=10))
    line.connect()
    line.wait(lambda: len(line.settled) == 40)
    truth = line.ask("truth")
    for part in truth.parts:
        assert line.settled[part.boot_id, part.part_id] == part.outcome
        assert part.outcome != "passed" or part.part_id % 3
    assert Counter(line.settled.values())["defaulted"] < 40


def test_a_host_that_dies_is_followed_by_another_which_accounts_for_all(make_line):
    line = make_line(80)
    line.connect()
    line.wait(lambda: len(line.settled) >= 10)
    line.port.stop()  # no disarm: as a killed process leaves the port
    assert not line.port.is_running
    known = max(line.triggered)
    until(lambda: line.ask("truth").counts["trips"])
    line.connect(resume=known)
    everyone = {(known[0], part) for part in range(1, 81)}
    line.wait(lambda: everyone == set(line.triggered) and {key for key in everyone if key > known} <= set(line.settled))
    truth = line.ask("truth")
    assert len(truth.parts) == 80 and truth.counts["trips"] >= 1
    for part in truth.parts:
        # what was between eye and gate when the first host died, only its journal knows, if the log was overwritten
        key = (part.boot_id, part.part_id)
        assert line.settled.get(key, "unknown") in (part.outcome, "unknown")
        assert part.outcome != "passed" or part.part_id % 3
    assert Counter(part.outcome for part in truth.parts)["defaulted"] >= 3


def test_a_controller_reset_is_lived_through(make_line):
    line = make_line(400)
    line.connect()
    line.wait(lambda: len(line.settled) >= 8)
    before = line.ask("reset").parts[-1].boot_id
    line.wait(lambda: any(isinstance(event, ControllerReset) for event in line.events))
    line.wait(lambda: any(boot != before and outcome == "passed" for (boot, _), outcome in line.settled.items()))
    truth = line.ask("truth")
    forgotten = [part for part in truth.parts if part.boot_id == before and part.outcome is None]
    assert forgotten and all(part.is_removed for part in forgotten)
    assert all(line.settled[part.boot_id, part.part_id] == "unknown"
               for part in forgotten if (part.boot_id, part.part_id) in line.triggered)  # fmt: skip


def test_a_silent_host_gets_the_default(make_line):
    line = make_line(12)
    line.is_judging = False
    line.connect()
    line.wait(lambda: len(line.settled) == 12)
    assert set(line.settled.values()) == {"defaulted"}
    assert all(part.is_removed for part in line.ask("truth").parts)


def test_stopping_does_not_hang_and_twice_is_fine(make_line):
    line = make_line(1)
    line.connect()
    began = time.monotonic()
    line.port.stop()
    line.port.stop()
    assert time.monotonic() - began < 5.0 and not line.port.is_running


def test_the_same_port_object_starts_again(make_line):
    line = make_line(1)
    line.connect()
    line.port.stop()
    line.port.start()
    assert line.port.wait_armed(PATIENCE_S)


def test_a_port_that_goes_and_comes_back_is_opened_again(tmp_path):
    link_name = tmp_path / "adapter"
    master, slave = os.openpty()
    link_name.symlink_to(os.ttyname(slave))
    events = []
    lost = threading.Event()
    port = BridgePort(str(link_name), Link(SETUP), lambda event: (events.append(event), lost.set()))
    port.start(wait_s=0.05)
    link_name.unlink()
    os.close(slave)
    os.close(master)  # the adapter is pulled
    until(lambda: port.state()[0].value == "closed")
    assert "gone" in port.state()[1] or "no serial port" in port.state()[1]
    master, slave = os.openpty()
    link_name.symlink_to(os.ttyname(slave))
    until(lambda: port.state()[0].value == "hello")
    assert port.report()["opened"] == 2 and port.is_running
    port.stop()
    os.close(slave)
    os.close(master)
    assert not any(isinstance(event, LinkLost) for event in events)  # nobody had answered yet


def test_a_missing_port_says_what_to_do(tmp_path):
    with pytest.raises(PortError, match="check the cable"):
        BridgePort(str(tmp_path / "none"), Link(SETUP), lambda event: None).start()


def test_a_port_in_use_says_so():
    master, slave = os.openpty()
    first = open_serial(os.ttyname(slave), 115_200)
    with pytest.raises(PortError, match="in use by another process"):
        open_serial(os.ttyname(slave), 115_200)
    first.close()
    os.close(slave)
    os.close(master)


@pytest.mark.parametrize("parity", ["none", "even"])
def test_the_modem_lines_stay_up_when_the_port_is_closed(parity):
    """With HUPCL the kernel drops DTR at the last close, and the edge resets many a board."""
    master, slave = os.openpty()
    modes = termios.tcgetattr(slave)
    modes[2] |= termios.HUPCL
    termios.tcsetattr(slave, termios.TCSANOW, modes)
    port = open_serial(os.ttyname(slave), 115_200, parity=parity)
    port.baudrate = 9_600  # pyserial sets the modes anew
    assert not termios.tcgetattr(slave)[2] & termios.HUPCL
    port.close()
    assert not termios.tcgetattr(slave)[2] & termios.HUPCL
    os.close(slave)
    os.close(master)


def test_a_file_is_no_port(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(PortError, match="cannot open"):
        open_serial(str(path), 115_200)
