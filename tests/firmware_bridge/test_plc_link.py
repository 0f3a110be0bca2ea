"""The box and a PLC program that follows REGISTERS.md, on a simulated wire, with the box as client and as server."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.modbus.client import Answered, RtuClient
from firmware_bridge.modbus.link import PlcLink, setup_block
from firmware_bridge.modbus.news import BeltRelation
from firmware_bridge.modbus.registers import (
    BOX,
    EMPTY_OUTCOMES,
    EMPTY_TRIGGERS,
    PLC,
    RING,
    SETUP,
    BoxBlock,
    BoxStatus,
    MapError,
    OutcomeCode,
    PlcBlock,
    PlcControl,
    ResultAnswer,
    VerdictCode,
)
from firmware_bridge.modbus.rtu import MS, ExceptionCode, Line, read_request, write_request
from firmware_bridge.modbus.server import Refused, RtuServer
from firmware_bridge.reject.far_side import Phase
from firmware_bridge.reject.gate_setup import GateSetup
from firmware_bridge.reject.link_events import (
    ControllerReset,
    EventsLost,
    LinkBlocked,
    LinkLost,
    LinkRefused,
    LinkUp,
    PartsMissed,
    Settled,
    Triggered,
    Tripped,
    VerdictAnswered,
)
from firmware_bridge.reject.messages import Answer, Flags, Verdict

SETUP_VALUES = GateSetup(decide_counts=900, fire_counts=1000, pulse_counts=20, watchdog_ms=500)
UNIT = 5
ROLES = ("client", "server")
FIRST_COUNT = 2**32 - 3000  # the encoder wraps soon
COUNTS_PER_MS = 5


class Program:
    """What a PLC programmer makes of REGISTERS.md: it numbers parts, takes verdicts, fires, and fails safe."""

    def __init__(self, boot_id=100):
        self.boot_id = boot_id
        self.words = PlcBlock().pack()
        self.box = BoxBlock()
        self.setup = None  # its own
        self.is_running = True
        self.is_enabled, self.is_tripped = False, True
        self.has_result = False
        self.beat = self.trigger_seq = self.outcome_seq = self.result_ack = self.answer = self.part_id = 0
        self.encoder = self.encoder_now = 0
        self.triggers, self.outcomes = list(EMPTY_TRIGGERS), list(EMPTY_OUTCOMES)
        self.verdicts, self.settled, self.to_gate = {}, {}, {}
        self.verdict_writes = Counter()
        self.beat_ns = self.box_beat_ns = 0
        self.acknowledges = True
        self.faults = PlcControl(0)

    def block(self):
        control = self.faults | PlcControl.ENABLE * self.is_enabled | PlcControl.TRIPPED * self.is_tripped
        return PlcBlock(
            self.beat, control, self.trigger_seq, self.part_id, self.encoder, self.result_ack, self.answer,
            self.boot_id, self.encoder_now, self.outcome_seq, tuple(self.triggers), tuple(self.outcomes),
        )  # fmt: skip

    def trigger(self, encoder):
        self.part_id += 1
        self.encoder = encoder % 2**32
        self.triggers[(self.trigger_seq + 1) % RING] = (self.part_id & 0xFFFF, encoder & 0xFFFF)
        self.trigger_seq = (self.trigger_seq + 1) & 0xFFFF
        self.to_gate[self.part_id] = encoder + SETUP_VALUES.fire_counts

    def outcome(self, part_id, code, encoder):
        self.settled[part_id] = code
        self.outcomes[(self.outcome_seq + 1) % RING] = (part_id & 0xFFFF, int(code), encoder & 0xFFFF)
        self.outcome_seq = (self.outcome_seq + 1) & 0xFFFF

    def scan(self, now_ns, count):
        """One cycle of the program."""
        if not self.is_running:
            return
        self.encoder_now = count % 2**32
        if now_ns - self.beat_ns >= 100 * MS:
            self.beat, self.beat_ns = (self.beat + 1) & 0xFFFF, now_ns
        if self.is_enabled and now_ns - self.box_beat_ns > SETUP_VALUES.watchdog_ms * MS:
            self.trip()
            self.outcome(0, OutcomeCode.WATCHDOG, count)
        for part_id, at in list(self.to_gate.items()):
            if count >= at:
                del self.to_gate[part_id]
                verdict = self.verdicts.get(part_id)
                code = {None: OutcomeCode.DEFAULTED, 1: OutcomeCode.PASSED, 2: OutcomeCode.FIRED}[verdict]
                self.outcome(part_id, code, at)

    def trip(self):
        self.is_enabled, self.is_tripped = False, True
        for part_id in self.to_gate:
            self.verdicts[part_id] = None

    def take_box(self, words, now_ns):
        try:
            box = BoxBlock.unpack(words)
        except MapError:
            return
        if box.heartbeat != self.box.heartbeat:
            self.box_beat_ns = now_ns
        self.box = box
        if not box.status & BoxStatus.ARMED:
            self.is_tripped = self.is_enabled = False
        elif not self.is_tripped and not self.faults:
            self.is_enabled = True
        if box.result_seq != self.result_ack or not self.has_result:
            self.take_result(box)

    def take_result(self, box):
        self.answer = 0
        if self.has_result and box.verdict:
            if not self.is_enabled:
                return
            self.verdict_writes[box.part_id] += 1
            if box.part_id in self.verdicts or box.part_id not in self.to_gate:
                self.answer = ResultAnswer.LATE
            else:
                self.verdicts[box.part_id] = box.verdict
                self.answer = ResultAnswer.STORED
        if self.acknowledges:
            self.has_result = True
            self.result_ack = box.result_seq


class ServedProgram:
    """The registers of a PLC that the box polls."""

    def __init__(self, world):
        self.world = world
        self.box = [0] * BOX.size

    def read(self, address, count):
        program = self.world.program
        if address in PLC and address + count - 1 in PLC:
            words = self.world.spoil_block(program.block().pack())
            return words[address - PLC.base :][:count]
        if (address, count) == (SETUP.base, SETUP.size) and program.setup is not None:
            return program.setup
        raise Refused(ExceptionCode.ILLEGAL_ADDRESS)

    def write(self, address, values):
        program = self.world.program
        if address == SETUP.base and program.setup is not None:
            if program.is_enabled:
                raise Refused(ExceptionCode.BUSY)
            program.setup = list(values)
            return
        if address not in BOX:
            raise Refused(ExceptionCode.ILLEGAL_ADDRESS)
        self.box[address : address + len(values)] = values
        program.take_box(self.box, self.world.now_ns)


class World:
    """Link, wire and program, moved a millisecond at a time. `wire` may spoil what travels.

    echo: both adapters hear themselves and are set so. hears: the box's does, whatever is set.
    """

    def __init__(self, role, *, echo=False, hears=None, resume=None, unit=UNIT, program=None, baud=115_200):
        self.role, self.echo = role, echo
        self.hears = echo if hears is None else hears
        self.now_ns = 5_000 * MS
        self.program = program or Program()
        self.link = PlcLink(SETUP_VALUES, role=role, unit=UNIT, rs485_echo=echo, resume=resume, baud=baud)
        self.server = RtuServer(unit, Line(), ServedProgram(self), echo=echo)
        self.client = RtuClient(Line(), echo=echo)
        self.polled_unit = unit
        self.polls = 0
        self.events = []
        self.wire = lambda data: data
        self.spoil_block = lambda words: words
        self.is_judging = True
        self.link.opened(self.now_ns)

    @property
    def count(self):
        return FIRST_COUNT + (self.now_ns - 5_000 * MS) // MS * COUNTS_PER_MS

    def step(self):
        self.now_ns += MS
        self.program.scan(self.now_ns, self.count)
        self.link.tick(self.now_ns)
        if self.role == "client":
            self.serve()
        else:
            self.poll()
        for event in self.link.take_events():
            self.events.append(event)
            if isinstance(event, Triggered) and self.is_judging:
                self.link.submit(event.boot_id, event.part_id, event.part_id % 3 == 0, self.now_ns)

    def serve(self):
        self.server.feed(self.wire(self.far(self.link.take_output(), self.link)), self.now_ns)
        out = self.server.take_output()
        if self.echo and out:
            self.server.feed(out, self.now_ns)
        self.link.feed(self.wire(out), self.now_ns)

    def far(self, data, sender):
        if (self.hears if sender is self.link else self.echo) and data:
            sender.feed(data, self.now_ns)
        return data

    def poll(self):
        client = self.client
        client.tick(self.now_ns)
        answer = client.take_answer()
        if isinstance(answer, Answered) and answer.values:
            self.program.take_box(answer.values, self.now_ns)
        if client.is_free(self.now_ns) and self.program.is_running:
            self.polls += 1
            words = self.spoil_block(self.program.block().pack())
            write = write_request(self.polled_unit, PLC.base, words)
            client.ask(write if self.polls % 2 else read_request(self.polled_unit, BOX.base, BOX.size), self.now_ns)
        data = self.far(client.take_output(), client)
        self.link.feed(self.wire(data), self.now_ns)
        out = self.far(self.link.take_output(), self.link)
        client.feed(self.wire(out), self.now_ns)

    def run(self, for_ms):
        for _ in range(for_ms):
            self.step()

    def until(self, is_true, within_ms=5000):
        for _ in range(within_ms):
            if is_true():
                return
            self.step()
        raise AssertionError((self.link.phase, self.link.detail, self.link.counts, self.link.wire_counts))

    def arm(self):
        self.link.set_armed(True, self.now_ns)
        self.until(lambda: self.link.is_armed)
        return self

    def belt(self, parts, each_ms=60):
        """Parts at the eye at a steady pace, then time for all to pass the gate."""
        for _ in range(parts):
            self.program.trigger(self.count)
            self.run(each_ms)
        self.run(500)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture(params=ROLES)
def world(request):
    return World(request.param)


def check_all_judged(world, parts):
    program = world.program
    assert [event.part_id for event in world.of(Triggered)] == list(range(1, parts + 1))
    assert {event.part_id: event.outcome for event in world.of(Settled)} == {
        part: "fired" if part % 3 == 0 else "passed" for part in range(1, parts + 1)
    }
    assert program.verdict_writes == dict.fromkeys(range(1, parts + 1), 1)


def test_every_part_is_told_judged_and_settled_once(world):
    world.arm().belt(30)
    check_all_judged(world, 30)
    answers = world.of(VerdictAnswered)
    assert len(answers) == 30 and all(event.answer is Answer.STORED for event in answers)
    assert all(event.in_force is (Verdict.REJECT if event.part_id % 3 == 0 else Verdict.ACCEPT) for event in answers)
    assert world.link.open_parts == world.link.pending_verdicts == 0
    assert not world.of(LinkLost) and not world.of(Tripped)


def test_triggers_are_stamped_by_the_belt(world):
    world.arm()
    stamps = {}
    for part in range(1, 21):
        stamps[part] = (world.now_ns, world.count % 2**32)
        world.program.trigger(world.count)
        world.run(60)
    for event in world.of(Triggered):
        at_ns, count = stamps[event.part_id]
        assert event.encoder == count and event.is_related
        assert abs(event.at_ns - at_ns) < 5 * MS
    settled = world.of(Settled)
    assert settled and all(event.encoder == (stamps[event.part_id][1] + 1000) % 2**32 for event in settled)


def test_parts_between_two_polls_come_from_the_ring(world):
    world.arm()
    counts = []
    for _ in range(3):
        for _ in range(RING):
            counts.append(world.count % 2**32)
            world.program.trigger(world.count)
            world.now_ns += MS
        world.run(700)
    assert [event.encoder for event in world.of(Triggered)] == counts
    check_all_judged(world, 3 * RING)


def test_more_triggers_than_the_ring_holds_are_told_as_missed(world):
    world.arm()
    world.is_judging = False
    for _ in range(RING + 3):
        world.program.trigger(world.count)
    world.run(500)
    (missed,) = world.of(PartsMissed)
    assert (missed.first, missed.last) == (1, 3)
    assert [event.part_id for event in world.of(Triggered)] == list(range(4, RING + 4))


def test_more_outcomes_than_the_ring_holds_are_counted_and_their_parts_settled_as_unknown(world):
    world.arm()
    world.is_judging = False
    for _ in range(12):
        world.program.trigger(world.count)
        world.run(10)
    outcomes = []
    world.program.outcome, keep = lambda *args: outcomes.append(args), world.program.outcome
    world.run(210)
    for args in outcomes:
        keep(*args)
    world.run(100)
    assert world.of(EventsLost) == [EventsLost(4)]
    assert sorted(event.part_id for event in world.of(Settled)) == list(range(1, 13))
    assert Counter(event.outcome for event in world.of(Settled)) == {"unknown": 4, "defaulted": 8}


def test_a_plc_without_rings_works_at_one_part_a_poll(world):
    world.spoil_block = lambda words: replace(
        PlcBlock.unpack(words), triggers=EMPTY_TRIGGERS, outcomes=EMPTY_OUTCOMES, outcome_seq=0
    ).pack()
    world.arm().belt(10)
    world.run(300)
    assert [event.part_id for event in world.of(Triggered)] == list(range(1, 11))
    assert world.program.settled == {
        part: OutcomeCode.FIRED if part % 3 == 0 else OutcomeCode.PASSED for part in range(1, 11)
    }
    assert {event.outcome for event in world.of(Settled)} == {"unknown"}  # nobody says more
    assert world.link.open_parts == 0


def test_a_repeated_block_is_no_news(world):
    world.arm()
    world.program.trigger(world.count)
    world.run(2000)
    assert len(world.of(Triggered)) == len(world.of(Settled)) == 1
    assert world.program.verdict_writes == {1: 1}


def test_a_stopped_program_is_noticed_although_its_port_still_answers():
    world = World("client").arm()
    world.program.is_running = False
    world.until(lambda: world.of(LinkLost))
    assert "heartbeat of the PLC stands still" in world.of(LinkLost)[0].reason
    world.run(300)
    assert not world.link.is_armed and "program running" in world.link.detail
    world.program.is_running = True
    world.until(lambda: world.link.is_armed)


def test_a_silent_plc_is_lost_and_found_again(world):
    world.arm()
    world.wire = lambda data: b""
    world.until(lambda: world.of(LinkLost))
    assert not world.link.is_armed
    world.run(1000)
    assert world.program.is_tripped and not world.program.is_enabled
    world.wire = lambda data: data
    world.until(lambda: world.link.is_armed)
    assert any(event.reason == "watchdog" for event in world.of(Tripped))
    world.events.clear()
    world.program.trigger(world.count)
    world.run(500)
    assert world.program.settled[1] is OutcomeCode.PASSED


def test_a_trip_is_told_and_taken_back(world):
    world.arm()
    world.program.trigger(world.count)
    world.program.trip()
    world.until(lambda: world.of(Tripped))
    world.until(lambda: world.link.is_armed)
    assert world.of(Tripped)[0].reason == "disarmed"
    world.run(500)
    assert world.program.settled[1] is OutcomeCode.DEFAULTED


def test_a_restarted_plc_takes_no_verdict_of_the_parts_before(world):
    world.arm()
    world.is_judging = False
    for _ in range(4):
        world.program.trigger(world.count)
        world.run(30)
    world.link.submit(100, 3, False, world.now_ns)
    world.program = Program(boot_id=101)
    world.program.beat = 50
    world.link.submit(100, 4, False, world.now_ns)
    world.until(lambda: world.of(ControllerReset))
    assert {event.part_id for event in world.of(Settled)} == {1, 2, 3, 4}
    world.until(lambda: world.link.is_armed)
    for _ in range(4):
        world.program.trigger(world.count)
        world.run(30)
    world.run(500)
    assert world.program.verdicts == {} and set(world.program.settled.values()) == {OutcomeCode.DEFAULTED}
    assert [event.part_id for event in world.of(Triggered) if event.boot_id == 101] == [1, 2, 3, 4]


def test_a_plc_that_restarts_without_saying_so_is_refused(world):
    world.arm().belt(5)
    world.program = Program(boot_id=100)
    world.until(lambda: world.of(LinkRefused))
    assert "set another boot_id" in world.of(LinkRefused)[0].reason
    assert not world.link.is_armed


def test_the_first_verdict_wins_and_a_repeat_is_counted(world):
    world.arm()
    world.is_judging = False
    world.program.trigger(world.count)
    world.run(50)
    world.link.submit(100, 1, True, world.now_ns)
    world.link.submit(100, 1, False, world.now_ns)
    world.run(100)
    world.link.submit(100, 1, False, world.now_ns)
    world.run(500)
    assert world.program.settled == {1: OutcomeCode.FIRED}
    assert world.link.counts["verdict_repeats"] == 2


def test_a_verdict_for_a_settled_part_or_another_boot_is_not_shown(world):
    world.arm()
    world.is_judging = False
    world.program.trigger(world.count)
    world.run(500)
    world.link.submit(100, 1, False, world.now_ns)
    world.link.submit(99, 2, False, world.now_ns)
    world.run(100)
    assert world.program.verdict_writes == {} and world.link.counts["verdicts_hopeless"] == 2


def test_a_plc_that_never_acknowledges_is_named_and_does_not_hold_up_the_rest(world):
    world.program.acknowledges = False
    world.arm()
    world.program.has_result = True
    for _ in range(3):
        world.program.trigger(world.count)
    world.run(2500)
    assert world.link.counts["verdicts_unacknowledged"] >= 1
    assert "must copy result_seq" in world.link.detail


def test_a_new_box_goes_on_behind_the_old_one(world):
    world.arm().belt(5)
    after = World(world.role, program=world.program, resume=(100, 3))
    after.now_ns = world.now_ns
    after.arm()
    assert [event.part_id for event in after.of(Triggered)] == [4, 5]  # still in the ring
    assert not after.of(ControllerReset)
    after.program.trigger(after.count)
    after.run(500)
    assert after.program.settled[6] is OutcomeCode.FIRED


def test_another_map_version_is_refused_with_what_to_do(world):
    world.spoil_block = lambda words: replace(PlcBlock.unpack(words), map_version=0xBEEF).pack()
    world.until(lambda: world.of(LinkRefused))
    assert "beef" in world.of(LinkRefused)[0].reason and "reflash" in world.of(LinkRefused)[0].reason
    world.run(2500)
    assert len(world.of(LinkRefused)) == 1 and world.link.phase is Phase.REFUSED
    world.spoil_block = lambda words: words
    world.arm()


def test_a_torn_block_is_dropped_and_counted(world):
    world.arm()
    world.is_judging = False
    torn = lambda words: [*words[:20], *[0] * (len(words) - 20)]  # noqa: E731
    world.program.trigger(world.count)
    world.spoil_block = torn
    world.run(60)
    assert world.link.counts["torn_blocks"] >= 1 and not world.of(Triggered)
    world.spoil_block = lambda words: words
    world.run(60)
    assert len(world.of(Triggered)) == 1 and not world.of(LinkLost)


def test_a_plc_without_the_map_is_told_what_to_lay_out():
    world = World("client")
    world.spoil_block = lambda words: (_ for _ in ()).throw(Refused(ExceptionCode.ILLEGAL_ADDRESS))
    world.until(lambda: world.of(LinkRefused))
    reason = world.of(LinkRefused)[0].reason
    assert "exception 2" in reason and "REGISTERS.md" in reason and "PLC block at 100" in reason


def test_another_unit_id_is_named():
    world = World("server", unit=9)
    world.run(300)
    assert "requests for unit 9 are heard, this box is unit 5" in world.link.detail
    world = World("client", unit=9)
    world.run(300)
    assert "unit 5 does not answer" in world.link.detail


def test_garbage_is_counted_and_lived_through(world):
    world.wire = lambda data: bytes(byte ^ 0x5A for byte in data)
    world.run(600)
    assert not world.link.is_armed and "baud rate and parity" in world.link.detail
    world.wire = lambda data: data
    world.arm().belt(5)
    check_all_judged(world, 5)


@pytest.mark.parametrize("role", ROLES)
def test_rs485_echo_disturbs_nothing(role):
    world = World(role, echo=True).arm()
    world.belt(10)
    check_all_judged(world, 10)
    assert world.link.wire_counts["echo_bytes"] > 100 and world.link.wire_counts["echo_broken"] == 0


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("is_set", [True, False])
def test_an_adapter_that_is_not_as_set_is_named_and_costs_no_part(role, is_set):
    world = World(role, echo=is_set, hears=not is_set).arm()
    world.belt(10)
    check_all_judged(world, 10)
    does, value = ("does not echo", "false") if is_set else ("echoes", "true")
    assert world.link.adapter_problem == f"the adapter {does}: set controller.rs485_echo = {value}"
    world.hears = is_set  # the other adapter is plugged in
    world.run(200)
    assert world.link.adapter_problem == "" and world.link.is_armed and not world.of(LinkLost)


def test_an_echo_is_named_while_nobody_is_there():
    world = World("client", hears=True)
    world.serve = lambda: world.far(world.link.take_output(), world.link)
    world.run(500)
    assert world.link.phase is Phase.HELLO and "unit 5 does not answer" in world.link.detail
    assert "the adapter echoes" in world.link.adapter_problem


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(ROLES), st.booleans(), st.integers(0, 2**32 - 1))
def test_with_a_wrong_echo_setting_on_a_bad_wire_a_part_gets_its_own_verdict_or_the_default(role, is_set, seed):
    from random import Random

    rng = Random(seed)
    world = World(role, echo=is_set, hears=not is_set).arm()
    world.wire = lambda data: bytes(byte ^ (1 << rng.randrange(8)) if rng.random() < 0.002 else byte for byte in data)
    world.belt(6)
    world.wire = lambda data: data
    world.run(3000)
    for part, code in world.program.settled.items():
        assert part == 0 or code in (OutcomeCode.DEFAULTED, OutcomeCode.FIRED if part % 3 == 0 else OutcomeCode.PASSED)
    assert sorted(event.part_id for event in world.of(Settled)) == list(range(1, 7))
    assert world.link.is_armed


def test_firmware_is_given_its_setup_and_keeps_it():
    world = World("client")
    world.program.setup = [0] * SETUP.size
    world.arm()
    assert world.program.setup == setup_block(SETUP_VALUES).pack()
    writes = world.link.wire_counts["requests"]
    assert writes
    again = World("client", program=world.program)  # a new box does not disarm what is set up already
    again.now_ns = world.now_ns
    again.link.set_armed(True, again.now_ns)
    was_disarmed = []
    for _ in range(400):
        again.step()
        was_disarmed.append(not again.program.is_enabled)
    assert again.link.is_armed and not any(was_disarmed)


def test_a_setup_that_the_controller_does_not_keep_is_refused():
    world = World("client")
    world.program.setup = [0] * SETUP.size
    registers = world.server._registers
    keep = registers.write
    registers.write = lambda address, values: None if address == SETUP.base else keep(address, values)
    world.until(lambda: world.of(LinkRefused))
    assert "another setup" in world.of(LinkRefused)[0].reason


def test_a_setup_out_of_range_is_refused():
    world = World("client")
    world.program.setup = [0] * SETUP.size
    registers = world.server._registers
    keep = registers.write

    def write(address, values):
        if address == SETUP.base:
            raise Refused(ExceptionCode.ILLEGAL_VALUE)
        keep(address, values)

    registers.write = write
    world.until(lambda: world.of(LinkRefused))
    assert "mend [controller]" in world.of(LinkRefused)[0].reason


def test_disarming_takes_enable_away(world):
    world.arm()
    world.link.set_armed(False, world.now_ns)
    world.until(lambda: world.link.phase is Phase.READY)
    assert not world.program.is_enabled and not world.of(Tripped)


def test_a_hold_of_the_feed_is_asked_for_and_taken_back(world):
    world.arm()
    world.link.set_hold(True, world.now_ns)
    world.until(lambda: world.program.box.status & BoxStatus.HOLD, within_ms=60)
    assert world.link.is_armed
    world.link.set_hold(False, world.now_ns)
    world.until(lambda: not world.program.box.status & BoxStatus.HOLD, within_ms=60)


def test_a_full_bin_is_told_once_and_armed_again_when_it_is_empty(world):
    world.arm()
    world.program.faults = PlcControl.BIN_FULL
    world.program.trip()
    world.until(lambda: world.of(LinkBlocked))
    world.run(500)
    assert world.of(LinkBlocked) == [LinkBlocked("reject bin full: empty it")] and len(world.of(Tripped)) == 1
    assert "empty it" in world.link.detail and Flags.BIN_FULL in world.link.flags
    world.program.faults = PlcControl(0)
    world.until(lambda: world.link.is_armed)


def test_a_lost_encoder_waits_for_somebody_to_stop_and_start_the_line(world):
    world.arm()
    world.program.faults = PlcControl.ENCODER_LOST
    world.program.trip()
    world.run(500)
    assert world.program.is_tripped and "check the encoder" in world.link.detail
    world.link.set_armed(False, world.now_ns)
    world.until(lambda: not world.program.is_tripped)
    world.program.faults = PlcControl(0)
    world.arm()


def test_closing_the_port_is_a_loss_and_opening_it_goes_on(world):
    world.arm()
    world.link.closed("port pulled", world.now_ns)
    assert world.link.take_events() == [LinkLost("port pulled")] and world.link.phase is Phase.CLOSED
    world.link.opened(world.now_ns)
    world.until(lambda: world.link.is_armed)
    assert len(world.of(LinkUp)) >= 1


def test_the_box_block_says_what_is_going_on(world):
    world.arm()
    assert world.program.box.status & BoxStatus.READY and world.program.box.status & BoxStatus.ARMED
    beat = world.program.box.heartbeat
    world.run(1000)
    assert 9 <= (world.program.box.heartbeat - beat) & 0xFFFF <= 11
    world.is_judging = False
    world.program.trigger(world.count)
    world.run(50)
    world.link.submit(100, 1, True, world.now_ns, reason=4, confidence=930)
    world.run(120)
    box = world.program.box
    assert (box.part_id, box.verdict, box.reason, box.confidence) == (1, VerdictCode.REJECT, 4, 930)
    assert box.ack_echo == box.result_seq and box.host_echo == 1


def test_a_verdict_is_acknowledged_within_a_few_polls(world):
    world.arm().belt(20, each_ms=40)
    trips_ms = [event.round_trip_ns / MS for event in world.of(VerdictAnswered)]
    assert max(trips_ms) < 30


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(ROLES), st.integers(0, 2**32 - 1), st.sampled_from([0.0005, 0.002]))
def test_on_any_bad_wire_no_part_gets_anothers_verdict(role, seed, share):
    from random import Random

    rng = Random(seed)
    world = World(role)
    world.arm()
    world.wire = lambda data: bytes(byte ^ (1 << rng.randrange(8)) if rng.random() < share else byte for byte in data)
    world.belt(12)
    world.wire = lambda data: data
    world.run(3000)
    program = world.program
    for part, code in program.settled.items():
        assert part == 0 or code in (OutcomeCode.DEFAULTED, OutcomeCode.FIRED if part % 3 == 0 else OutcomeCode.PASSED)
    settled = [event.part_id for event in world.of(Settled)]
    assert sorted(settled) == list(range(1, 13))
    assert all(times == 1 for times in program.verdict_writes.values())


@settings(deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=8), st.sampled_from(ROLES))
def test_no_bytes_break_the_link(chunks, role):
    link = PlcLink(SETUP_VALUES, role=role)
    link.opened(0)
    for at, chunk in enumerate(chunks):
        link.feed(chunk, at * 10 * MS)
        link.tick(at * 10 * MS)
        link.take_output()
    assert not link.is_armed and link.next_due_ns() >= 0


@settings(deadline=None)
@given(st.lists(st.integers(0, 0xFFFF), min_size=PLC.size, max_size=PLC.size), st.lists(st.booleans(), max_size=6))
def test_no_values_of_a_plc_break_the_link(words, ids):
    link = PlcLink(SETUP_VALUES, role="server")
    link.opened(0)
    link.set_armed(True, 0)
    good = PlcBlock().pack()
    for at, is_good in enumerate(ids):
        block = [*good] if is_good else [good[0], *words[1:10], good[10], *words[11:-1], good[-1]]
        block[1] = at
        link.desk.on_plc_block(block, at * MS, at * MS)
        link.take_events()
    assert link.open_parts >= 0


def test_a_role_that_is_none_is_named():
    with pytest.raises(ValueError, match="one of client, server"):
        PlcLink(SETUP_VALUES, role="slave")


def test_the_belt_relation_places_a_count_between_two_polls_and_leaves_slow_ones_out():
    belt = BeltRelation()
    assert belt.host_ns(5, 0) is None
    for at in range(20):
        belt.add(2**32 - 50 + 10 * at & 0xFFFF_FFFF, at * 10 * MS, at * 10 * MS + 2 * MS)
    assert belt.host_ns(2**32 - 45, 10**9) == 6 * MS
    assert belt.host_ns(5, 10**9) == 56 * MS
    belt.add(2**32 - 50 + 200 & 0xFFFF_FFFF, 200 * MS, 300 * MS)  # asked late, or answered late
    assert belt.host_ns(145, 10**9) is None
    assert belt.best_round_trip_ns == 2 * MS and len(belt) == 20
    assert belt.host_ns(5, 40 * MS) == 40 * MS  # never after now
