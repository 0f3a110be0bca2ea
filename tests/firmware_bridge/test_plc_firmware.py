"""The register map as firmware serves it: the compiled core by registers, by RTU frames, and with the box on top."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections import deque
from ctypes import c_uint32, c_void_p
from functools import partial
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import firmware_bridge
from firmware_bridge.mcu.build import HERE, BuildError, build_avr
from firmware_bridge.modbus.link import PlcLink, setup_block
from firmware_bridge.modbus.registers import (
    BOX,
    MAP_VERSION,
    PLC,
    RING,
    SETUP,
    BoxBlock,
    BoxStatus,
    OutcomeCode,
    PlcBlock,
    PlcControl,
    ResultAnswer,
    SetupBlock,
    VerdictCode,
)
from firmware_bridge.modbus.rtu import MS, Request, exception_reply, read_reply, read_request, with_crc, write_request
from firmware_bridge.port import BridgePort
from firmware_bridge.reject import controller as reject_controller
from firmware_bridge.reject.controller import Transport
from firmware_bridge.reject.far_side import Phase
from firmware_bridge.reject.gate_setup import GateSetup
from firmware_bridge.reject.link_events import (
    ControllerReset,
    GateConfirmed,
    Settled,
    Triggered,
    Tripped,
    VerdictAnswered,
)
from firmware_bridge.reject.messages import Answer, Flags, Verdict
from firmware_bridge.sim.avr import why_missing
from firmware_bridge.sim.belt import Laid
from firmware_bridge.sim.plc import PlcSim

TOOL = Path(firmware_bridge.__file__).parents[1] / "tools" / "sim" / "plc"
TOOL_ENV = {**os.environ, "PYTHONPATH": str(TOOL.parents[2])}
PATIENCE_S = 30.0
UNIT = 3
SPEED = 5000  # counts a second
FIRST_COUNT = 2**32 - 3000  # the encoder wraps early in every run
GATE = GateSetup(decide_counts=900, fire_counts=1000, pulse_counts=20, watchdog_ms=500)
SETUP_WORDS = setup_block(GATE).pack()

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc missing: apt-get install gcc libc6-dev")


class Controller:
    """The core, spoken to by registers; a millisecond is the unit of time."""

    def __init__(self, *, setup=SETUP_WORDS):
        self.core = reject_controller.Controller(77, transport=Transport.MODBUS, unit=UNIT)
        self.now_us = 0
        self.count = 0
        self.box = BoxBlock()
        if setup is not None:
            assert self.core.write(SETUP.base, setup, 0) == 0

    def run(self, for_ms, counts=0):
        for _ in range(for_ms):
            self.now_us += 1000
            self.core.on_time(self.now_us)
        self.move(counts)

    def move(self, counts):
        for _ in range(counts):
            self.count += 1
            self.core.on_encoder(self.count, self.now_us)

    def part(self):
        self.now_us += 30_000  # an eye that breaks again sooner bounces
        self.core.on_eye(self.count, self.now_us)

    def tell(self, **values):
        """Write the box block, changed like this, with the next heartbeat."""
        words = dict(heartbeat=self.box.heartbeat + 1 & 0xFFFF, **values)
        self.box = BoxBlock(**{**{name: getattr(self.box, name) for name in BoxBlock.__slots__}, **words})
        return self.core.write(BOX.base, self.box.pack(), self.now_us)

    def arm(self):
        self.tell(status=0)
        self.tell(status=BoxStatus.ARMED)
        assert self.plc.control & PlcControl.ENABLE
        return self

    def judge(self, part_id, verdict):
        self.tell(result_seq=self.box.result_seq + 1, part_id=part_id, verdict=verdict)
        return self.plc.result_answer

    @property
    def plc(self):
        code, words = self.core.read(PLC.base, PLC.size)
        assert code == 0
        return PlcBlock.unpack(words)

    @property
    def outcomes(self):
        """Newest last: part id low, outcome, encoder low."""
        block = self.plc
        count = min(RING, block.outcome_seq)
        return [block.outcomes[seq % RING] for seq in range(block.outcome_seq - count + 1, block.outcome_seq + 1)]

    def hidden(self):
        """Frames of a bad CRC, torn blocks."""
        told = (c_uint32 * 4)()
        self.core._core.host_hidden(c_void_p(self.core._host), told)
        return {"bad_crc": told[0], "torn": told[1]}


@pytest.fixture
def make():
    return Controller


@pytest.fixture
def controller():
    return Controller()


# By registers


def test_the_plc_block_says_who_it_is_and_beats(controller):
    block = controller.plc
    assert (block.boot_id, block.map_version, block.part_id, block.trigger_seq) == (77, MAP_VERSION, 0, 0)
    assert block.control == PlcControl.TRIPPED
    controller.run(1050)
    assert controller.plc.heartbeat == 10


def test_a_setup_is_read_back_and_written_in_parts(make):
    controller = make(setup=None)
    assert controller.core.read(SETUP.base, SETUP.size)[1][2:-1] == [0] * (SETUP.size - 3)
    assert controller.core.write(SETUP.base, SETUP_WORDS, 0) == 0
    assert controller.core.read(SETUP.base, SETUP.size) == (0, SETUP_WORDS)
    assert controller.core.write(SETUP.address("pulse_counts"), [33], 0) == 0
    assert SetupBlock.unpack(controller.core.read(SETUP.base, SETUP.size)[1]).pulse_counts == 33
    assert controller.core.write(SETUP.address("default_verdict"), [VerdictCode.ACCEPT], 0) == 0
    assert controller.core.read(SETUP.address("default_verdict"), 1) == (0, [VerdictCode.ACCEPT])


@pytest.mark.parametrize(
    ("name", "value"),
    [("decide_counts", 0), ("decide_counts", 1001), ("watchdog_ms", 1), ("default_verdict", 0), ("default_verdict", 3),
     ("map_id", 0), ("map_id_end", 1), ("map_version", MAP_VERSION ^ 1), ("inputs_mask", 0x130)],
)  # fmt: skip
def test_a_setup_that_makes_no_sense_is_refused_and_the_old_one_kept(controller, name, value):
    words = list(SETUP_WORDS)
    words[SETUP.offsets[name]] = value
    assert controller.core.write(SETUP.base, words, 0) == 3
    assert controller.core.read(SETUP.base, SETUP.size) == (0, SETUP_WORDS)


def test_a_setup_is_not_changed_while_armed(controller):
    controller.arm()
    assert controller.core.write(SETUP.base, SETUP_WORDS, 0) == 0  # the same one is no change
    assert controller.core.write(SETUP.address("fire_counts"), [1001], 0) == 6
    controller.tell(status=0)
    assert controller.core.write(SETUP.address("fire_counts"), [1001], 0) == 0


def test_arming_wants_armed_to_be_0_first(controller):
    controller.tell(status=BoxStatus.ARMED)
    assert controller.plc.control == PlcControl.TRIPPED
    controller.tell(status=0)
    assert controller.plc.control == 0
    controller.tell(status=BoxStatus.ARMED)
    assert controller.plc.control == PlcControl.ENABLE | PlcControl.HEALTHY


def test_arming_without_a_setup_waits_for_one(make):
    controller = make(setup=None)
    controller.tell(status=0)
    controller.tell(status=BoxStatus.ARMED)
    assert controller.plc.control == 0
    assert controller.core.write(SETUP.base, SETUP_WORDS, 0) == 0
    controller.tell()
    assert controller.plc.control & PlcControl.ENABLE


def test_a_verdict_is_taken_once_and_the_first_one_wins(controller):
    controller.arm()
    controller.part()
    controller.move(50)
    controller.part()
    assert controller.judge(1, VerdictCode.ACCEPT) == ResultAnswer.STORED
    assert controller.plc.result_ack == controller.box.result_seq
    controller.tell()  # the same result again is no news
    assert controller.plc.result_answer == ResultAnswer.STORED
    assert controller.judge(1, VerdictCode.ACCEPT) == ResultAnswer.DUP
    assert controller.judge(1, VerdictCode.REJECT) == ResultAnswer.CONFLICT
    assert controller.judge(2, VerdictCode.REJECT) == ResultAnswer.STORED
    assert controller.judge(9, VerdictCode.REJECT) == ResultAnswer.UNKNOWN
    assert controller.judge(2, VerdictCode.UNSURE) == ResultAnswer.NOT_TOLD  # no verdict: acknowledged all the same
    assert controller.plc.result_ack == controller.box.result_seq
    controller.run(10, counts=1100)
    assert [entry[:2] for entry in controller.outcomes] == [(1, OutcomeCode.PASSED), (2, OutcomeCode.FIRED)]
    assert controller.judge(2, VerdictCode.ACCEPT) in (ResultAnswer.CONFLICT, ResultAnswer.LATE)


def test_a_verdict_while_not_armed_waits_and_is_not_acknowledged(controller):
    controller.tell(result_seq=5, status=0)  # the first sequence after a start is done with
    controller.part()
    controller.tell(result_seq=6, part_id=1, verdict=VerdictCode.ACCEPT)
    assert controller.plc.result_ack == 5
    controller.tell(status=BoxStatus.ARMED)
    assert controller.plc.result_ack == 6 and controller.plc.result_answer == ResultAnswer.STORED


def test_a_result_from_before_the_start_reaches_nobody(controller):
    controller.part()
    controller.tell(status=0, result_seq=41, part_id=1, verdict=VerdictCode.ACCEPT)
    controller.arm()
    assert controller.plc.result_ack == 41 and controller.plc.result_answer == ResultAnswer.NOT_TOLD
    controller.run(10, counts=1100)
    assert controller.outcomes == [(1, OutcomeCode.DEFAULTED, 1000)]


def test_a_silent_box_trips_it_and_parts_get_the_default(controller):
    controller.arm()
    controller.part()
    controller.judge(1, VerdictCode.ACCEPT)
    controller.run(520)
    assert controller.plc.control & PlcControl.TRIPPED and not controller.plc.control & PlcControl.ENABLE
    controller.move(1100)
    assert [entry[:2] for entry in controller.outcomes] == [(0, OutcomeCode.WATCHDOG), (1, OutcomeCode.DEFAULTED)]
    controller.tell(status=BoxStatus.ARMED)
    assert not controller.plc.control & PlcControl.ENABLE  # the box has not taken notice yet
    controller.arm()


def test_a_block_written_again_without_a_new_heartbeat_does_not_keep_it_alive(controller):
    controller.arm()
    words = controller.box.pack()
    for _ in range(6):
        controller.run(100)
        controller.core.write(BOX.base, words, controller.now_us)
    assert controller.plc.control & PlcControl.TRIPPED


def test_a_torn_block_does_nothing_and_is_counted(controller):
    controller.arm()
    controller.part()
    for at in (0, 1, BOX.size - 1):
        words = BoxBlock(heartbeat=99, status=0, result_seq=9, part_id=1, verdict=VerdictCode.ACCEPT).pack()
        words[at] ^= 1
        assert controller.core.write(BOX.base, words, 0) == 0
    assert controller.plc.control & PlcControl.ENABLE and controller.hidden()["torn"] == 3


def test_a_block_may_come_register_by_register(controller):
    """The first map id is taken away before and given back after, as REGISTERS.md has it."""
    controller.arm()
    controller.part()
    words = BoxBlock(heartbeat=7, status=BoxStatus.ARMED, result_seq=9, part_id=1, verdict=VerdictCode.REJECT).pack()
    controller.core.write(BOX.base, [0], 0)
    for at in range(1, BOX.size):
        controller.core.write(BOX.base + at, [words[at]], 0)
        assert controller.plc.result_ack == 0
    controller.core.write(BOX.base, words[:1], 0)
    assert controller.plc.result_ack == 9 and controller.plc.result_answer == ResultAnswer.STORED


def test_the_rings_hold_the_newest_of_many(controller):
    controller.arm()
    counts = []
    for _ in range(20):
        counts.append(controller.count)
        controller.part()
        controller.move(130)
        controller.tell()
    block = controller.plc
    assert (block.trigger_seq, block.part_id, block.encoder) == (20, 20, counts[-1])
    for seq in range(13, 21):
        assert block.triggers[seq % RING] == (seq, counts[seq - 1])
    assert block.outcome_seq == len([count for count in counts if count + 1000 <= controller.count])
    for seq in range(block.outcome_seq - RING + 1, block.outcome_seq + 1):
        assert block.outcomes[seq % RING] == (seq, OutcomeCode.DEFAULTED, counts[seq - 1] + 1000)


def test_inputs_show_and_trip(make):
    words = list(SETUP_WORDS)
    words[SETUP.offsets["inputs_mask"]] = Flags.BIN_FULL | Flags.AIR_LOW
    controller = make(setup=words)

    def levels(faults):
        for _ in range(30):
            controller.now_us += 1000
            is_full, is_low = faults & Flags.BIN_FULL, faults & Flags.AIR_LOW
            controller.core.on_inputs(controller.now_us, bin_ok=not is_full, air_ok=not is_low)
            controller.core.on_time(controller.now_us)

    levels(0)
    controller.arm()
    levels(int(Flags.BIN_FULL))
    control = controller.plc.control
    assert control & PlcControl.BIN_FULL and control & PlcControl.TRIPPED and not control & PlcControl.ENABLE
    assert OutcomeCode.INPUT in [entry[1] for entry in controller.outcomes]
    controller.tell(status=0)
    controller.tell(status=BoxStatus.ARMED)
    assert not controller.plc.control & PlcControl.ENABLE  # as long as the bin is full
    levels(0)
    controller.tell()
    assert controller.plc.control & PlcControl.ENABLE


def test_the_confirm_sensor_tells_through_the_ring(make):
    words = setup_block(GateSetup(900, 1000, 20, 500, confirm_counts=100)).pack()
    controller = make(setup=words).arm()
    controller.part()
    controller.move(40)
    controller.part()
    controller.judge(1, VerdictCode.REJECT)
    controller.judge(2, VerdictCode.REJECT)
    controller.move(980)
    controller.core.on_confirm(controller.count, controller.now_us)
    controller.move(200)
    assert {entry[:2] for entry in controller.outcomes} == {
        (1, OutcomeCode.FIRED), (2, OutcomeCode.FIRED), (1, OutcomeCode.CONFIRMED), (2, OutcomeCode.UNCONFIRMED),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("address", "count"),
    [(BOX.base + BOX.size - 1, 2), (PLC.base - 1, 1), (PLC.base, PLC.size + 1), (SETUP.base + SETUP.size, 1),
     (0xFFFF, 1), (50, 1), (99, 125)],
)  # fmt: skip
def test_registers_that_are_none_have_their_exception(controller, address, count):
    assert controller.core.read(address, count) == (2, [])
    assert controller.core.write(address, [0] * min(count, PLC.size), 0) == 2


def test_the_plc_block_cannot_be_written(controller):
    assert controller.core.write(PLC.base, [1], 0) == 2


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_any_part_of_a_block_reads_as_in_the_whole(data):
    controller = Controller().arm()
    controller.part()
    block = data.draw(st.sampled_from([BOX, PLC, SETUP]))
    first = data.draw(st.integers(0, block.size - 1))
    count = data.draw(st.integers(1, block.size - first))
    _, whole = controller.core.read(block.base, block.size)
    assert controller.core.read(block.base + first, count) == (0, whole[first : first + count])


# By frames


class Line:
    """Frames to the core's RTU server, byte times as at 115200."""

    def __init__(self, controller):
        self.controller = controller
        self.core = controller.core

    def ask(self, frame, *, pause_us=2000, byte_us=87):
        controller = self.controller
        for at in range(len(frame)):
            controller.now_us += byte_us
            self.core.on_bytes(frame[at : at + 1], controller.now_us)
            self.core.on_time(controller.now_us)
        controller.now_us += pause_us
        self.core.on_time(controller.now_us)
        self.core.on_time(controller.now_us)
        return self.take()

    def take(self):
        return b"".join(self.core.take_frames())


@pytest.fixture
def line(controller):
    return Line(controller)


def test_reads_are_answered_like_the_registers(line):
    for function in (3, 4):
        request = Request(UNIT, function, PLC.base, PLC.size)
        assert line.ask(request.encode()) == read_reply(request, line.core.read(PLC.base, PLC.size)[1])
    request = read_request(UNIT, PLC.address("boot_id"), 1)
    assert line.ask(request.encode()) == read_reply(request, [77])


def test_writes_are_obeyed_once_each_and_answered(line):
    request = write_request(UNIT, BOX.base, BoxBlock(heartbeat=3).pack())
    assert line.ask(request.encode()) == with_crc(request.reply_head())
    one = Request(UNIT, 6, BOX.address("reason"), 1, (9,))
    assert line.ask(one.encode()) == one.encode()
    assert line.core.read(BOX.address("reason"), 1) == (0, [9])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (bytes((UNIT, 1, 0, 0, 0, 1)), 1),
        (bytes((UNIT, 43, 14, 1, 0)), 1),
        (bytes((UNIT, 3, 0x13, 0x88, 0, 1)), 2),
        (bytes((UNIT, 3, 0, 0, 0, 0)), 3),
        (bytes((UNIT, 3, 0, 0, 0, 126)), 3),
        (bytes((UNIT, 3, 0, 0, 0, 1, 0)), 3),
        (bytes((UNIT, 6, 0, 50, 0, 1)), 2),
        (bytes((UNIT, 16, 0, 0, 0, 1, 4, 0, 1)), 3),
        (bytes((UNIT, 16, 0, 0, 0, 1)), 3),
        (bytes((UNIT, 16, 0, 0, 0, 2, 4, 0, 1)), 3),
        (bytes((UNIT, 16, 0, 0, 0, 100, 200)) + bytes(200), 2),
    ],
)
def test_what_cannot_be_done_gets_its_exception(line, body, code):
    assert line.ask(with_crc(body)) == exception_reply(UNIT, body[1], code)
    assert line.ask(read_request(UNIT, 0, 1).encode())


def test_a_broadcast_is_obeyed_and_not_answered(line):
    assert line.ask(write_request(0, BOX.base, BoxBlock(reason=8).pack()).encode()) == b""
    assert line.ask(read_request(0, BOX.base, 1).encode()) == b""
    assert line.core.read(BOX.address("reason"), 1) == (0, [8])


def test_other_units_their_replies_and_garbage_are_not_answered(line):
    frames = [
        read_request(9, 0, 1).encode(), read_reply(read_request(9, 0, 3), [1, 2, 3]), exception_reply(UNIT, 3, 2),
        b"\x00", b"\xff" * 300, read_request(UNIT, 0, 1).encode()[:-1] + b"\x00",
    ]  # fmt: skip
    for frame in frames:
        assert line.ask(frame) == b"", frame
    assert line.controller.hidden()["bad_crc"] == 3
    assert line.ask(read_request(UNIT, 0, 1).encode())


def test_a_frame_broken_by_silence_is_dropped(line):
    frame = write_request(UNIT, BOX.base, BoxBlock(reason=8).pack()).encode()
    assert line.ask(frame[:10]) == b"" and line.ask(frame[10:]) == b""
    assert line.core.read(BOX.address("reason"), 1) == (0, [0])


def test_a_frame_that_nobody_polled_for_in_time_is_not_answered_late(line):
    controller, request = line.controller, read_request(UNIT, BOX.base, 1)
    line.core.on_bytes(write_request(UNIT, BOX.base, BoxBlock(reason=8).pack()).encode(), controller.now_us)
    controller.now_us += 5000  # the main loop was busy elsewhere; the box has given up and asks again
    assert line.ask(request.encode()) == read_reply(request, [0])
    assert line.core.read(BOX.address("reason"), 1) == (0, [0]) and line.controller.hidden()["bad_crc"] == 1


def test_what_is_heard_before_a_reply_is_out_is_an_echo_or_a_collision(line):
    controller, request = line.controller, read_request(UNIT, BOX.base, 1)
    line.core.on_bytes(request.encode(), controller.now_us)
    controller.now_us += 2000
    line.core.on_time(controller.now_us)  # obeyed, not sent yet
    line.core.on_bytes(request.encode(), controller.now_us)
    line.core.on_time(controller.now_us)
    assert line.take() == read_reply(request, [0])
    assert line.ask(request.encode()) == read_reply(request, [0])


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_no_bytes_break_the_server_and_it_answers_the_next_request(data):
    controller = Controller()
    line = Line(controller)
    before = controller.core.read(SETUP.base, SETUP.size)
    line.ask(data)
    if with_crc(data[:-2]) != data:
        assert controller.core.read(SETUP.base, SETUP.size) == before
    request = read_request(UNIT, PLC.base, PLC.size)
    assert line.ask(request.encode())[:3] == bytes((UNIT, 3, 2 * PLC.size))


# With the box on top


class Run:
    """Belt, core, wire and link, a millisecond at a time; each third part is a reject."""

    def __init__(self, role, *, rate_hz=15.0, parts=60, wire=None, wire_delay_ms=0, seed=1):
        self.role = role
        spacing = round(SPEED / rate_hz)
        self.words = (SPEED, (spacing * 7 // 10, spacing * 13 // 10))
        self.lay = partial(Laid, first_count=FIRST_COUNT, lead_counts=spacing, seed=seed)
        self.sim = self.new_sim(parts)
        self.link = self.new_link()
        self.wire = wire or (lambda data: data)
        self.delay_ms = wire_delay_ms
        self.to_box, self.to_plc = deque(), deque()
        self.now_ns = 10**9
        self.events = []
        self.is_host_stopped = False
        self.link.opened(self.now_ns)
        self.link.set_armed(True, self.now_ns)

    def new_sim(self, parts, boot_id=1):
        setup = setup_block(GATE) if self.role == "server" else None
        role = "client" if self.role == "server" else "server"
        return PlcSim(self.lay(parts, *self.words), role, UNIT, setup=setup, boot_id=boot_id)

    def new_link(self, resume=None):
        return PlcLink(GATE, role=self.role, unit=UNIT, resume=resume)

    def step(self):
        self.now_ns += MS
        if not self.is_host_stopped:
            self.link.tick(self.now_ns)
        self._send(self.to_plc, self.link.take_output())
        self._send(self.to_box, self.sim.turn(self._take(self.to_plc), self.now_ns))
        if not self.is_host_stopped:
            data = self._take(self.to_box)
            if data:
                self.link.feed(data, self.now_ns)
            self._hear()

    def _send(self, way, data):
        if data:
            way.append((self.now_ns + self.delay_ms * MS, self.wire(data)))

    def _take(self, way):
        data = b""
        while way and way[0][0] <= self.now_ns:
            data += way.popleft()[1]
        return data

    def _hear(self):
        for event in self.link.take_events():
            self.events.append(event)
            if isinstance(event, Triggered):
                self.link.submit(event.boot_id, event.part_id, event.part_id % 3 == 0, self.now_ns)

    def until(self, is_true, within_ms=60_000):
        for _ in range(within_ms):
            if is_true():
                return
            self.step()
        raise AssertionError((self.link.phase, self.link.detail, self.sim.truth(), self.link.counts))

    def finish(self):
        self.until(lambda: self.sim.is_over)
        for _ in range(300):
            self.step()
        return self.sim.truth()

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


ROLES = ("client", "server")


def nothing_wrong(truth):
    assert (truth["missed"], truth["false"], truth["stray"]) == (0, 0, 0), truth
    assert truth["pulse_error_counts"] <= 1


@pytest.mark.parametrize("role", ROLES)
def test_every_part_gets_its_own_verdict(role):
    run = Run(role)
    truth = run.finish()
    nothing_wrong(truth)
    assert (truth["parts"], truth["defaulted"]) == (60, 0)
    assert truth["rejected"] == 20 and truth["accepted"] == 40
    assert len(run.of(Triggered)) == len(run.of(VerdictAnswered)) == 60
    assert len(run.of(Settled)) == 60 and run.link.open_parts == 0
    assert all(event.answer is Answer.STORED for event in run.of(VerdictAnswered))


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("share", [0.0005, 0.002, 0.01])
def test_byte_errors_miss_nothing(role, share):
    rng = Random(7)

    def wire(data):
        return bytes(byte ^ 1 << rng.randrange(8) if rng.random() < share else byte for byte in data)

    run = Run(role)
    run.until(lambda: run.link.is_armed)
    run.wire = wire
    truth = run.finish()
    nothing_wrong(truth)
    assert truth["parts"] == 60
    assert truth["defaulted"] < 40 or share > 0.005  # most blocks of 121 bytes do not get through then


@pytest.mark.parametrize("role", ROLES)
def test_a_box_that_stops_for_three_seconds_lets_nothing_pass(role):
    run = Run(role, parts=90)
    run.until(lambda: len(run.of(Settled)) > 10)
    run.is_host_stopped = True
    for _ in range(3000):
        run.step()
    run.is_host_stopped = False
    truth = run.finish()
    nothing_wrong(truth)
    assert truth["parts"] == 90 and truth["defaulted"] >= 30
    assert len(run.of(Tripped)) == 1  # by its event, or, when the ring has been overwritten, by what the block shows
    assert truth["accepted"] + truth["rejected"] >= 30


@pytest.mark.parametrize("role", ROLES)
def test_a_box_that_dies_is_followed_by_another(role):
    run = Run(role, parts=90)
    run.until(lambda: len(run.of(Settled)) > 10)
    run.link, last = run.new_link(resume=(1, run.of(Triggered)[-1].part_id)), run.of(Triggered)[-1].part_id
    run.to_box.clear()
    for _ in range(1500):
        run.step()  # nobody there yet: the new link is closed
    run.link.opened(run.now_ns)
    run.link.set_armed(True, run.now_ns)
    truth = run.finish()
    nothing_wrong(truth)
    assert truth["parts"] == 90 and truth["defaulted"] >= 10
    assert not run.of(ControllerReset) and max(event.part_id for event in run.of(Triggered)) == 90 > last


@pytest.mark.parametrize("role", ROLES)
def test_a_controller_reset_takes_no_verdict_over(role):
    run = Run(role, parts=30)
    run.until(lambda: len(run.of(Settled)) > 10)
    run.sim = run.new_sim(30, boot_id=2)
    truth = run.finish()
    nothing_wrong(truth)
    assert len(run.of(ControllerReset)) == 1
    assert truth["parts"] == 30 and truth["accepted"] + truth["rejected"] >= 25
    assert all(event.boot_id == 2 for event in run.events[-20:] if isinstance(event, Settled))


@pytest.mark.parametrize("role", ROLES)
def test_a_pulled_cable_lets_nothing_pass_and_comes_back(role):
    run = Run(role, parts=90)
    run.until(lambda: len(run.of(Settled)) > 10)
    run.wire = lambda data: b""
    for _ in range(2000):
        run.step()
    assert not run.link.is_armed
    run.wire = lambda data: data
    truth = run.finish()
    nothing_wrong(truth)
    assert truth["parts"] == 90 and 20 <= truth["defaulted"] <= 60


@pytest.mark.parametrize("role", ROLES)
def test_a_slow_wire_is_late_and_never_wrong(role):
    run = Run(role, rate_hz=8.0, wire_delay_ms=15)
    truth = run.finish()
    nothing_wrong(truth)
    assert truth["defaulted"] == 0


def test_more_verdicts_than_the_line_carries_default_and_shift_nothing():
    truth = Run("client", rate_hz=90.0, parts=250, wire_delay_ms=8).finish()
    nothing_wrong(truth)
    assert truth["parts"] == 250 and truth["defaulted"] > 0


def test_confirm_news_reach_the_box():
    link = PlcLink(GATE, role="server")
    link.opened(0)
    block = PlcBlock(heartbeat=1, boot_id=1).pack()
    link.desk.on_plc_block(block, 0, 0)
    entry = [(0, 0, 0)] * RING
    entry[1] = (1, OutcomeCode.FIRED, 0)
    entry[2] = (1, OutcomeCode.UNCONFIRMED, 50)
    seen = PlcBlock(heartbeat=2, boot_id=1, part_id=1, trigger_seq=1, outcome_seq=2, outcomes=tuple(entry),
                    triggers=((0, 0), (1, 0), *((0, 0),) * 6))  # fmt: skip
    link.desk.on_plc_block(seen.pack(), MS, MS)
    assert [event for event in link.take_events() if isinstance(event, GateConfirmed)] == [GateConfirmed(1, 1, False)]
    assert link.phase in (Phase.READY, Phase.CONFIG) and link.setup.default is Verdict.REJECT


# On a real pty, as a process of its own


@pytest.mark.parametrize("role", ROLES)
def test_the_fake_plc_tool_is_judged_over_a_pty(tmp_path, role):
    name = tmp_path / "plc"
    words = [sys.executable, str(TOOL), "--json", "--role", "client" if role == "server" else "server",
             "--unit", str(UNIT), "--link", str(name), "--parts", "20", "--rate", "20"]  # fmt: skip
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=TOOL_ENV) as plc:
        assert json.loads(plc.stdout.readline())["port"].startswith("/dev/")
        settled, news = [], threading.Condition()

        def hear(event):
            if isinstance(event, Triggered):
                port.send_verdict(event.boot_id, event.part_id, event.part_id % 3 == 0)
            if isinstance(event, Settled):
                with news:
                    settled.append(event)
                    news.notify_all()

        port = BridgePort(str(name), PlcLink(GATE, role=role, unit=UNIT), hear)
        port.start()
        try:
            port.set_armed(True)
            with news:
                assert news.wait_for(lambda: len(settled) == 20, PATIENCE_S), port.report()
        finally:
            truth = json.loads(plc.stdout.readline())
            port.stop()
        assert plc.wait(PATIENCE_S) == 0
    nothing_wrong(truth)
    assert truth["parts"] == 20 and truth["defaulted"] < 10


def test_the_real_image_speaks_the_map_under_simavr(tmp_path):
    """Every instruction of the AVR, its UART with the time of bits; the strap chooses Modbus RTU."""
    if (missing := why_missing()) is not None:
        pytest.skip(missing)
    elf = tmp_path / "reject-modbus.elf"
    try:
        build_avr(tmp_path, "reject-modbus")
    except BuildError:
        if not elf.exists():  # over the limits is another test's business
            raise
    name, log = tmp_path / "port", tmp_path / "log"
    plan = {"parts": 16, "counts_per_s": 2000, "fire_counts": GATE.fire_counts}
    words = [sys.executable, "-m", "firmware_bridge.sim.pty_line", "--core", "avr", "--elf", str(elf), "--modbus",
             "--link", str(name), "--log", str(log), "--plan", json.dumps(plan)]  # fmt: skip
    events, news = [], threading.Condition()

    def hear(event):
        if isinstance(event, Triggered):
            port.send_verdict(event.boot_id, event.part_id, event.part_id % 3 == 0)
        with news:
            events.append(event)
            news.notify_all()

    def settled():
        return {event.part_id: event.outcome.value for event in events if isinstance(event, Settled)}

    port = BridgePort(str(name), PlcLink(GATE, role="client", unit=1), hear)
    with subprocess.Popen(words, stdin=subprocess.PIPE, env=TOOL_ENV) as line:
        try:
            port.start(must_open=False)
            port.set_armed(True)
            with news:
                assert news.wait_for(lambda: 16 in settled(), PATIENCE_S), port.report()
        finally:
            port.stop()
            line.stdin.close()
    told = settled()
    first = min(told)  # parts that passed before the box was there are nobody's business
    assert first <= 8 and sorted(told) == list(range(first, 17))
    assert all(outcome in ("fired" if part % 3 == 0 else "passed", "defaulted") for part, outcome in told.items())
    assert sum(outcome != "defaulted" for outcome in told.values()) >= len(told) // 2


def test_the_fake_plc_says_what_is_wrong_with_a_port(tmp_path):
    words = [sys.executable, str(TOOL), "--port", str(tmp_path / "none")]
    done = subprocess.run(words, capture_output=True, text=True, env=TOOL_ENV, timeout=PATIENCE_S, check=False)
    assert done.returncode == 2 and "no serial port" in done.stderr


@pytest.mark.parametrize("name", ["modbus_map.c", "modbus_rtu.c"])
def test_the_firmware_side_compiles_without_a_warning(tmp_path, name):
    words = ["-std=c99", "-Os", "-Wall", "-Wextra", "-Wconversion", "-Werror", f"-I{HERE}", "-c", str(HERE / name)]
    subprocess.run(["gcc", *words, "-o", str(tmp_path / "host.o")], check=True)
    if shutil.which("avr-gcc") is None:
        pytest.skip("avr-gcc missing: apt-get install gcc-avr avr-libc")
    subprocess.run(["avr-gcc", "-mmcu=atmega328p", *words, "-o", str(tmp_path / "avr.o")], check=True)
