"""Looking at the far side changes nothing there, and says by name what is there."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.modbus.client import Answered, RtuClient
from firmware_bridge.modbus.link import PlcLink, setup_block
from firmware_bridge.modbus.registers import BOX, MAP_VERSION, PLC, SETUP, PlcBlock, PlcControl, Reason
from firmware_bridge.modbus.rtu import Line, read_request, write_request
from firmware_bridge.port import BridgePort
from firmware_bridge.reject.gate_setup import GateSetup
from firmware_bridge.reject.link import Link
from firmware_bridge.reject.link_events import Settled, Triggered
from firmware_bridge.reject.messages import Flags
from firmware_bridge.serial_device import PortError
from firmware_bridge.sim.belt import Laid
from firmware_bridge.sim.controller import ControllerSim
from firmware_bridge.sim.plc import make_plc
from firmware_bridge.watch import FramesWatch
from firmware_bridge.watch_plc import BoxWatch, PlcWatch, decoded
from firmware_bridge.watch_port import look
from tests.support.waiting import until

PATIENCE_S = 20.0
GATE = GateSetup(decide_counts=900, fire_counts=1000, pulse_counts=20, watchdog_ms=300)
LINE = Line()


def lay(parts):
    """Parts each 20 ms on a belt of 5000 counts a second."""
    return Laid(parts, 5000, (100, 100))


def plc_with(parts, role):
    """A PLC for a box in this role."""
    return ControllerSim(parts, make=make_plc("client" if role == "server" else "server"))


class Machine:
    def __init__(self, sim):
        self.sim, self.path = sim, sim.path
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._is_over.is_set():
            self.sim.step()

    def close(self):
        self._is_over.set()
        self._thread.join(PATIENCE_S)
        self.sim.close()


@pytest.fixture
def start():
    machines = []

    def make(sim):
        machines.append(Machine(sim))
        return machines[-1]

    yield make
    for machine in machines:
        machine.close()


def run_host(path, link, is_over, **verdict):
    """A host that arms, rejects all, and then goes without a word."""

    def hear(event):
        if isinstance(event, Triggered):
            port.send_verdict(event.boot_id, event.part_id, True, **verdict)

    port = BridgePort(path, link, hear)
    port.start()
    port.set_armed(True)
    assert port.wait_armed(PATIENCE_S)
    until(is_over, why=port.report)
    port.stop()


def test_frames_are_watched_and_the_watchdog_is_not_fed(start):
    machine = start(ControllerSim(lay(10_000)))
    run_host(machine.path, Link(GATE), lambda: machine.sim.truth().pulses >= 2)
    assert machine.sim.controller.is_armed  # the host went without disarming
    watch, news = FramesWatch(GATE, beat_every_ns=0), []

    def is_enough():
        return any(item.what == "event.watchdog" for item in news) and len(watch.trips_ns) > 20

    look(machine.path, watch, PATIENCE_S, baud=115_200, on_news=news.append, is_enough=is_enough)
    state = watch.state()
    assert state["problem"] == "" and state["is_our_config"] and "tripped" in state["flags"]
    assert state["boot_id"] == machine.sim.controller.boot_id
    assert state["counts_per_s"] == pytest.approx(5000, rel=0.5)
    kinds = {item.what for item in news}
    assert {"event.watchdog", "event.trigger"} <= kinds
    seqs = [int(item.text.split("seq ")[1]) for item in news if item.what.startswith("event.")]
    assert seqs == sorted(set(seqs))  # each once, though the controller sends them again


def test_events_that_a_watch_has_seen_still_go_to_the_host(start):
    machine = start(ControllerSim(lay(4)))
    run_host(machine.path, Link(GATE), lambda: machine.sim.truth().pulses >= 1)
    look(machine.path, FramesWatch(GATE), 0.3, baud=115_200)
    settled = []
    port = BridgePort(machine.path, Link(GATE, resume=(machine.sim.controller.boot_id, 0)), settled.append)
    port.start()
    until(lambda: sum(isinstance(event, Settled) for event in settled) >= 4, why=lambda: settled)
    port.stop()


def test_a_controller_restart_is_news(start):
    machine = start(ControllerSim(lay(0)))
    watch, news = FramesWatch(GATE, beat_every_ns=0), []

    def tell(item):
        news.append(item)

    def is_enough():
        if len(watch.trips_ns) == 5:
            machine.sim.reset(boot_id=4242)
        return any(item.what == "reset" for item in news) and watch.state().get("boot_id") == 4242

    look(machine.path, watch, PATIENCE_S, baud=115_200, on_news=tell, is_enough=is_enough)
    assert "4242" in next(item.text for item in news if item.what == "reset")


def test_firmware_of_another_release_is_told_to_be_flashed(start):
    machine = start(ControllerSim(lay(0)))
    watch = FramesWatch(GATE, version=0x1234)
    look(machine.path, watch, PATIENCE_S, baud=115_200, is_enough=lambda: watch.is_complete)
    assert "reflash" in watch.problem and "1234" in watch.problem


@pytest.mark.parametrize("role", ["client", "server"])
def test_registers_are_shown_by_name_and_changes_are_told(start, role):
    machine = start(plc_with(lay(6), role))
    link = PlcLink(GATE, role=role)
    run_host(machine.path, link, lambda: machine.sim.truth().pulses >= 6, reason=Reason.RULE, confidence=876)
    watch = PlcWatch(LINE, 1) if role == "client" else BoxWatch(LINE, 1, setup_block(GATE))
    news = []

    def is_enough():  # as server the idle box may have disarmed it before the first block came
        return watch.is_complete and (role == "server" or any(item.what == "PLC.control" for item in news))

    look(machine.path, watch, PATIENCE_S, baud=115_200, on_news=news.append, is_enough=is_enough)
    plc = watch.state()["blocks"]["PLC"]
    assert plc["part_id"] == 6 and plc["map_version"] == MAP_VERSION and watch.problem == ""
    if role == "client":
        box = watch.state()["blocks"]["box"]
        assert (box["verdict"], box["reason"], box["confidence"]) == ("REJECT", "RULE", 876)
        assert watch.state()["blocks"]["setup"]["fire_counts"] == 1000
        assert "TRIPPED" in next(item.text for item in news if item.what == "PLC.control")
    else:
        assert watch.state()["blocks"]["box"]["status"] == []


def test_a_hold_reaches_the_feed_output_over_every_wire(start):
    for role in ("", "client", "server"):
        machine = start(plc_with(lay(0), role) if role else ControllerSim(lay(0)))
        link = PlcLink(GATE, role=role) if role else Link(GATE)
        port = BridgePort(machine.path, link, lambda event: None)
        port.start()
        for wanted in (True, False):
            port.set_hold(wanted)
            until(lambda sim=machine.sim, wanted=wanted: sim.is_holding == wanted)
        port.stop()


def test_a_foreign_map_version_and_a_torn_block_are_named():
    good = PlcBlock(map_version=MAP_VERSION ^ 1).pack()
    watch = BoxWatch(LINE, 1, setup_block(GATE))
    watch.write(PLC.base, [*good[:-1], 0])
    assert "begins with 0x4552 and ends with 0x0000" in watch.problem and "REGISTERS.md" in watch.problem
    watch.write(PLC.base, good)
    assert "reflash" not in watch.problem.split(":")[0] and "this release" in watch.problem


def test_codes_are_shown_by_name():
    block = PlcBlock(control=int(PlcControl.ENABLE | PlcControl.BIN_FULL), result_answer=2)
    values = decoded(PLC, block.pack())
    assert values["control"] == ["ENABLE", "BIN_FULL"] and values["result_answer"] == "DUP"
    odd = PlcBlock(result_answer=77)
    assert decoded(PLC, odd.pack())["result_answer"] == 77


def test_an_idle_box_answers_the_plc_and_is_not_armed():
    watch, client = BoxWatch(LINE, 3, setup_block(GATE)), RtuClient(LINE)
    now = 10**9
    for request in (read_request(3, BOX.base, BOX.size), read_request(3, SETUP.base, SETUP.size),
                    write_request(3, PLC.base, PlcBlock(part_id=9).pack())):  # fmt: skip
        now += 10**9
        client.ask(request, now)
        watch.feed(client.take_output(), now)
        client.feed(watch.take_output(), now)
        answer = client.take_answer()
        assert isinstance(answer, Answered)
        if request.address == BOX.base:
            assert decoded(BOX, answer.values)["status"] == []
    assert watch.state()["blocks"]["PLC"]["part_id"] == 9 and watch.is_complete


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=80), max_size=12))
def test_any_bytes_leave_every_watch_whole(chunks):
    watches = [FramesWatch(GATE), PlcWatch(LINE, 1), BoxWatch(LINE, 1, setup_block(GATE))]
    for watch in watches:
        watch.opened(0)
        for at, chunk in enumerate(chunks, 1):
            watch.feed(chunk, at * 50_000_000)
            watch.tick(at * 50_000_000)
            watch.take_output()
            watch.take_news()
        assert watch.problem and watch.state()["problem"]


def test_a_watched_port_that_is_not_there_says_so(tmp_path):
    with pytest.raises(PortError, match="check the cable"):
        look(str(tmp_path / "none"), FramesWatch(GATE), 1.0, baud=115_200)


def test_flags_are_named():
    from firmware_bridge.watch import flag_names

    assert flag_names(Flags.ARMED | Flags.AIR_LOW) == ["armed", "air_low"]
