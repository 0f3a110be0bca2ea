"""What stands in the way of a reject, or of following parts: wired inputs, a lost encoder, a belt that runs back."""

from __future__ import annotations

import pytest

from firmware_bridge.reject.controller import PART_SLOTS
from firmware_bridge.reject.frames import encode_frame
from firmware_bridge.reject.messages import (
    BLOCKING,
    WIRED,
    Answer,
    Arm,
    Beat,
    Config,
    EvAck,
    EventKind,
    Flags,
    Status,
    Verdict,
    VerdictMsg,
)
from tests.firmware_bridge.core_bench import BOOT, CONFIG, A, Bench, R

WIRED_CONFIG = Config(BOOT, 900, 1000, 40, 0, 10_000, 1000, R, int(WIRED), 4)
STANDS_MS = 10  # a level is believed after it


def wired(**kwargs):
    """An armed bench with both inputs wired and good."""
    bench = Bench(WIRED_CONFIG, armed=False, **kwargs)
    levels(bench)
    bench.log.clear()
    bench.ask(Arm(BOOT, True))
    assert bench.ctl.is_armed
    return bench


def levels(bench, ms=STANDS_MS + 1, *, bin_ok=True, air_ok=True):
    for _ in range(ms):
        bench.us += 1000
        bench.ctl.on_inputs(bench.us % 2**32, bin_ok=bin_ok, air_ok=air_ok)


def inputs(bench):
    return [Flags(e.part_id) & BLOCKING for e in bench.log if e.event is EventKind.INPUT]


@pytest.mark.parametrize(
    ("fault", "flag"), [({"bin_ok": False}, Flags.BIN_FULL), ({"air_ok": False}, Flags.AIR_LOW)], ids=str
)
def test_a_wired_input_trips_and_keeps_it_disarmed_until_it_is_good(fault, flag):
    bench = wired()
    part = bench.eye()
    bench.verdict(part, A)
    levels(bench, **fault)
    assert bench.ctl.is_tripped and not bench.ctl.is_healthy and bench.ctl.counts.trips == 1
    assert inputs(bench) == [flag]
    (done,) = bench.ask(Arm(BOOT, True))
    assert done.status is Status.BLOCKED and flag in done.flags and Flags.ARMED not in done.flags
    assert bench.verdict(part, A) == (Answer.LATE, R)
    levels(bench)
    assert inputs(bench) == [flag, Flags(0)]
    (done,) = bench.ask(Arm(BOOT, True))
    assert done.status is Status.OK and bench.ctl.is_healthy
    bench.move(1001)
    assert bench.kinds(part) == ["TRIGGER", "DEFAULTED"]


def test_an_input_that_is_not_wired_is_ignored():
    bench = Bench()
    levels(bench, bin_ok=False, air_ok=False)
    assert bench.ctl.is_healthy and inputs(bench) == []
    bench = Bench(Config(BOOT, 900, 1000, 40, 0, 500, 1000, R, int(Flags.AIR_LOW)), armed=False)
    levels(bench, bin_ok=False)
    assert bench.ask(Arm(BOOT, True))[0].status is Status.OK


def test_a_level_that_flickers_is_not_believed():
    bench = wired()
    for _ in range(20):
        levels(bench, STANDS_MS - 1, air_ok=False)
        levels(bench, 1)
    assert bench.ctl.is_healthy and inputs(bench) == []


def test_inputs_that_nobody_has_read_are_faults():
    bench = Bench(WIRED_CONFIG, armed=False)
    (done,) = bench.ask(Arm(BOOT, True))
    assert done.status is Status.BLOCKED and done.flags & WIRED == WIRED
    restarted = Bench(None, armed=False, saved=WIRED_CONFIG)
    assert restarted.ctl.flags & WIRED == WIRED


def test_an_input_while_disarmed_is_logged_and_is_no_trip():
    bench = wired()
    bench.ask(Arm(BOOT, False))
    levels(bench, bin_ok=False)
    assert inputs(bench) == [Flags.BIN_FULL] and not bench.ctl.is_tripped and bench.ctl.counts.trips == 0


def test_a_mask_of_inputs_that_do_not_exist_is_refused():
    bench = Bench(armed=False)
    (done,) = bench.ask(Config(BOOT, 900, 1000, 40, 0, 500, 1000, R, int(Flags.ENCODER_LOST)))
    assert done.status is Status.BAD_VALUE


def breaks(bench, us=30_000):
    """A break of the eye some time later, the belt not moving."""
    bench.us += us
    bench.ctl.on_eye(bench.encoder % 2**32, bench.us % 2**32)


def test_two_parts_without_a_count_between_them_are_a_lost_encoder():
    bench = wired()
    part = bench.eye()
    bench.verdict(part, A)
    breaks(bench)
    assert inputs(bench) == [Flags.ENCODER_LOST] and bench.ctl.is_tripped
    assert bench.ctl.next_part == part + 1  # where the second one is nobody knows: it is swept, not followed
    assert bench.ask(Arm(BOOT, True))[0].status is Status.BLOCKED
    bench.move(1)
    assert inputs(bench) == [Flags.ENCODER_LOST, Flags(0)]
    assert bench.pulses() == [(0, bench.encoder)]
    assert bench.ask(Arm(BOOT, True))[0].status is Status.OK
    bench.move(1040)
    assert [e.encoder for e in bench.edges if not e.is_on] == [1040]
    assert bench.kinds(part) == ["TRIGGER", "DEFAULTED"]


def test_a_lost_encoder_does_not_lock_out_a_belt_that_our_healthy_output_stops():
    bench = wired()
    bench.eye()
    breaks(bench)
    assert bench.ask(Arm(BOOT, True))[0].status is Status.BLOCKED
    assert bench.ask(Arm(BOOT, False))[0].status is Status.OK  # somebody has stopped and started the line
    assert inputs(bench) == [Flags.ENCODER_LOST, Flags(0)]
    assert bench.ask(Arm(BOOT, True))[0].status is Status.OK
    bench.move(1)
    assert bench.pulses() == [(0, 1)]  # and what lies between eye and gate is swept all the same


def test_an_eye_that_trembles_is_no_lost_encoder():
    bench = wired()
    part = bench.eye()
    for _ in range(100):
        breaks(bench, 15_000)
    assert bench.ctl.is_healthy and bench.ctl.next_part == part + 1 and bench.ctl.counts.bounces == 100


def test_a_belt_that_is_not_armed_may_stand():
    bench = wired()
    bench.ask(Arm(BOOT, False))
    bench.eye()
    for _ in range(3):
        breaks(bench)
    assert inputs(bench) == []


def test_an_eye_that_bounces_is_one_part_and_the_next_is_another():
    bench = wired()
    first = bench.eye()
    for _ in range(3):
        bench.move(1)
        bench.eye()
    assert bench.ctl.next_part == first + 1 and bench.ctl.counts.bounces == 3
    bench.move(1)
    second = bench.eye()
    assert second == first + 1 and bench.kinds(second) == ["TRIGGER"]
    bench.verdict(first, R)
    bench.verdict(second, R)
    bench.move(1100)
    assert [(e.is_on, e.encoder) for e in bench.edges] == [(True, 1000), (True, 1004), (False, 1044)]


def test_two_parts_within_one_pulse_are_both_handled():
    bench = wired()
    first = bench.eye()
    bench.move(39)
    second = bench.eye()
    bench.verdict(first, R)
    bench.verdict(second, R)
    bench.move(1100)
    assert bench.kinds(first) == bench.kinds(second) == ["TRIGGER", "FIRED"]
    assert [e.encoder for e in bench.edges if not e.is_on] == [39 + 1000 + 40]


def go(bench, counts):
    """Move to either side."""
    for _ in range(abs(counts)):
        bench.encoder += 1 if counts > 0 else -1
        bench.us += 500
        bench.ctl.on_encoder(bench.encoder % 2**32, bench.us % 2**32)
        bench.edges += bench.ctl.edges
        bench.ctl.edges.clear()


@pytest.mark.parametrize("start", [100, 2**32 - 450, 2**32 - 520])
def test_a_belt_that_runs_back_trips_and_mints_nothing_until_it_is_where_it_was(start):
    bench = wired(encoder=start)
    part = bench.eye()
    bench.verdict(part, A)
    go(bench, 500)
    go(bench, -16)
    assert bench.ctl.is_healthy  # the spring of a belt that stops
    go(bench, -1)
    assert inputs(bench) == [Flags.BELT_REVERSED] and bench.ctl.is_tripped
    go(bench, -480)
    bench.ctl.on_eye(bench.encoder % 2**32, bench.us)
    go(bench, 3)
    bench.ctl.on_eye(bench.encoder % 2**32, bench.us)
    assert bench.ctl.next_part == part + 1
    assert bench.ask(Arm(BOOT, True))[0].status is Status.BLOCKED
    go(bench, 493)
    assert Flags.BELT_REVERSED in bench.ctl.flags
    go(bench, 1)
    assert inputs(bench) == [Flags.BELT_REVERSED, Flags(0)]
    assert bench.ask(Arm(BOOT, True))[0].status is Status.OK
    assert bench.eye() == part + 1
    go(bench, 600)
    assert bench.kinds(part) == ["TRIGGER", "DEFAULTED"]
    assert bench.pulses() == [(part, (start + 1000) % 2**32)]


def test_what_was_done_at_a_count_is_not_done_again():
    bench = wired()
    part = bench.eye()
    bench.verdict(part, R)
    go(bench, 1010)
    go(bench, -15)
    go(bench, 60)
    assert bench.kinds(part) == ["TRIGGER", "FIRED"] and len(bench.pulses()) == 1
    assert not bench.ctl.gate


def test_a_trembling_encoder_still_sees_parts():
    bench = wired()
    go(bench, 10)
    go(bench, -2)
    assert bench.eye() == 1 and bench.ctl.next_part == 2


def test_a_trembling_encoder_makes_no_second_part_of_the_first():
    bench = wired()
    go(bench, 10)
    assert bench.eye() == 1
    go(bench, -2)
    bench.eye()
    assert bench.ctl.next_part == 2 and bench.ctl.counts.bounces == 1


def test_the_clock_wraps_without_notice():
    bench = Bench(WIRED_CONFIG, armed=False)
    bench.us = 2**32 - 5_000_000
    levels(bench)
    bench.ask(Arm(BOOT, True))
    part = bench.eye()
    bench.us = 2**32 - 5_000
    levels(bench, air_ok=False)
    assert bench.ctl.is_tripped
    levels(bench)
    bench.ask(Arm(BOOT, True))
    bench.us = 2**32 + 9_900_000
    bench.ctl.on_time(bench.us % 2**32)
    assert bench.ctl.is_armed
    bench.us = 2**32 + 10_100_000
    bench.ctl.on_time(bench.us % 2**32)
    assert bench.ctl.is_tripped and bench.kinds(0)[-1] == "WATCHDOG"
    assert bench.kinds(part) == ["TRIGGER"]


def test_part_49_between_eye_and_gate_is_swept_and_the_48_others_are_followed():
    bench = wired()
    for _ in range(PART_SLOTS):
        bench.verdict(bench.eye(), A)
        bench.move(5)
    assert bench.ctl.is_healthy and bench.ctl.counts.overflows == 0
    lost = [bench.eye()]
    at = bench.encoder
    bench.move(5)
    lost.append(bench.eye())
    assert bench.ctl.counts.overflows == 2 and [bench.kinds(part) for part in lost] == [["OVERFLOW"]] * 2
    bench.move(1100)
    assert (0, at + 1000) in bench.pulses()
    assert [e.encoder for e in bench.edges if not e.is_on][-1] == at + 5 + 1000 + 40
    assert all(bench.kinds(part) == ["TRIGGER", "DEFAULTED"] for part in range(1, PART_SLOTS + 1))


def test_an_eye_that_never_rests_mints_no_more_ids_than_can_be_told_apart():
    bench = Bench(armed=False)
    bench.eye()
    for _ in range(33_000):
        bench.ctl.on_eye(0, 0)
    assert bench.ctl.next_part == 1 + 2**15 and bench.ctl.counts.bounces == 33_001 - 2**15
    bench.move(1001)
    assert bench.kinds(1) == ["TRIGGER", "DEFAULTED"]


def test_nothing_is_swept_where_the_default_is_to_accept():
    config = Config(BOOT, 900, 1000, 40, 0, 500, 1000, A)
    bench = Bench(None, armed=False, encoder=5000, saved=config)
    bench.move(1100)
    assert bench.edges == []


def test_parts_before_the_first_configuration_are_numbered_and_forgotten():
    bench = Bench(None, armed=False)
    for _ in range(PART_SLOTS + 5):
        bench.eye()
        bench.move(1)
    assert bench.ctl.counts.overflows == 0 and bench.ctl.next_part == PART_SLOTS + 6
    assert bench.ctl.next_encoder() is None and bench.edges == []
    assert bench.ask(Arm(BOOT, False))[0].status is Status.OK


def test_a_saved_configuration_that_is_not_sane_is_none():
    bench = Bench(None, armed=False, saved=Config(BOOT, 0, 1000, 40, 0, 500, 1000, R))
    assert bench.ctl.config is None


@pytest.mark.parametrize("payload", [b"\x02", bytes(19), b"\x07abc", b"\x81\x01\x02\x03", b"\xff"])
def test_what_is_no_message_is_counted(payload):
    bench = Bench()
    bench.ctl.on_bytes(encode_frame(payload), 0)
    assert bench.ctl.counts.not_ours == 1 and bench.sent() == []


def test_verdict_codes_that_are_none_are_not_taken():
    bench = Bench()
    part = bench.eye()
    for payload in (CONFIG.pack(), VerdictMsg(BOOT, part, A).pack()):
        bench.ctl.on_bytes(encode_frame(payload.replace(b"\xa5", b"\x5b").replace(b"\x5a", b"\x5b")), 0)
    assert bench.ctl.counts.not_ours == 2
    assert bench.verdict(part, Verdict.NONE) == (Answer.NOT_ARMED, Verdict.NONE)


def test_an_ack_from_another_age_lets_nothing_go():
    bench = Bench(next_event=5)
    bench.eye()
    bench.sent()
    bench.ask(EvAck(BOOT, 3))
    bench.us += 31_000
    bench.ctl.on_time(bench.us)
    assert [event.seq for event in bench.sent()] == [5]
    bench.ask(EvAck(BOOT, 900))
    bench.us += 31_000
    bench.ctl.on_time(bench.us)
    assert bench.sent() == []


def test_answers_that_find_no_room_in_the_port_are_dropped_and_asked_for_again():
    bench = Bench()
    beat = encode_frame(Beat(BOOT, 7).pack())
    for _ in range(300):  # nobody takes them
        bench.ctl._core.host_on_bytes(bench.ctl._host, beat, len(beat), 0)
    assert bench.ctl.counts.dropped > 100
    bench.ctl.on_time(0)
    assert len(bench.sent()) + bench.ctl.counts.dropped == 300
    (answer,) = bench.ask(Beat(BOOT, 8))
    assert answer.nonce == 8


def test_the_plan_for_an_interrupt_is_the_next_opening_and_the_end_of_this_one():
    bench = Bench()
    assert bench.ctl.plan() == (None, None)
    first = bench.eye()
    bench.verdict(first, R)
    bench.move(20)
    second = bench.eye()
    bench.verdict(second, R)
    assert bench.ctl.plan() == (None, None)  # a verdict may still come
    bench.move(899)
    assert bench.ctl.plan() == (1000, None)
    bench.move(81)
    assert bench.ctl.plan() == (1020, 1040)
    bench.move(20)
    assert bench.ctl.plan() == (None, 1060)
    bench.move(40)
    assert bench.ctl.plan() == (None, None)


def test_a_planned_sweep_comes_before_the_parts_behind_it():
    bench = Bench(None, armed=False, encoder=100, saved=CONFIG)
    assert bench.ctl.plan() == (101, None)


def test_the_feed_is_held_as_long_as_the_beats_say_so():
    bench = Bench()
    assert not bench.ctl.is_holding
    bench.ask(Beat(BOOT, 1, hold=True))
    bench.ask(Beat(BOOT, 2, hold=True))
    assert bench.ctl.is_holding
    assert bench.ctl.is_healthy  # a hold is no trip: parts on the belt are seen through
    part = bench.eye()
    assert bench.verdict(part, A)[0] is Answer.STORED
    bench.ask(Beat(BOOT, 3))
    assert not bench.ctl.is_holding


def test_another_boots_host_does_not_hold_the_feed():
    bench = Bench()
    bench.ask(Beat(BOOT + 1, 1, hold=True))
    assert not bench.ctl.is_holding
