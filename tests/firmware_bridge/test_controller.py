"""The controller's rules, one by one, driven by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.reject.controller import EVENT_SLOTS, EVENT_WINDOW, PART_SLOTS
from firmware_bridge.reject.frames import encode_frame
from firmware_bridge.reject.messages import (
    PROTOCOL_VERSION,
    Answer,
    Arm,
    Beat,
    BeatR,
    Config,
    EvAck,
    EventKind,
    Flags,
    Hello,
    HelloR,
    Status,
    Verdict,
    VerdictMsg,
)
from tests.firmware_bridge.core_bench import BOOT, CONFIG, A, Bench, R


def test_accepted_passes_and_rejected_fires_at_the_exact_count():
    bench = Bench()
    good = bench.eye()
    bench.move(100)
    bad = bench.eye()
    assert bench.verdict(good, A) == (Answer.STORED, A)
    assert bench.verdict(bad, R) == (Answer.STORED, R)
    bench.move(1100)
    assert bench.kinds(good) == ["TRIGGER", "PASSED"]
    assert bench.kinds(bad) == ["TRIGGER", "FIRED"]
    assert [(e.is_on, e.encoder) for e in bench.edges] == [(True, 1100), (False, 1140)]


def test_no_verdict_by_the_decide_point_is_the_default():
    bench = Bench()
    part = bench.eye()
    bench.move(900)
    assert bench.verdict(part, A) == (Answer.LATE, R)
    bench.move(100)
    assert bench.kinds(part) == ["TRIGGER", "DEFAULTED"]
    assert bench.pulses() == [(part, 1000)]


def test_the_default_may_be_to_accept():
    bench = Bench(Config(BOOT, 900, 1000, 40, 0, 500, 1000, A))
    part = bench.eye()
    bench.move(1001)
    assert bench.kinds(part) == ["TRIGGER", "DEFAULTED"] and bench.pulses() == []


def test_first_verdict_wins_and_every_repeat_is_answered_truly():
    bench = Bench()
    part = bench.eye()
    assert bench.verdict(part, R) == (Answer.STORED, R)
    assert bench.verdict(part, R) == (Answer.DUP, R)
    assert bench.verdict(part, A) == (Answer.CONFLICT, R)
    bench.move(1001)
    assert bench.verdict(part, R) == (Answer.DUP, R)
    assert bench.verdict(part, A) == (Answer.CONFLICT, R)
    assert bench.kinds(part) == ["TRIGGER", "FIRED"] and len(bench.pulses()) == 1


def test_unknown_forgotten_and_foreign_parts():
    bench = Bench()
    assert bench.verdict(1, A) == (Answer.UNKNOWN, Verdict.NONE)
    first = bench.eye()
    bench.move(1001)
    for _ in range(PART_SLOTS):
        bench.eye()
    assert bench.verdict(first, A) == (Answer.LATE, Verdict.NONE)
    assert bench.verdict(0, A) == (Answer.UNKNOWN, Verdict.NONE)
    assert bench.ask(VerdictMsg(BOOT + 1, first, A)) == []
    assert bench.ctl.counts.not_ours == 1
    assert bench.verdict(first, R) == (Answer.LATE, Verdict.NONE)


def test_parts_seen_while_not_armed_are_numbered_and_default():
    bench = Bench(armed=False)
    part = bench.eye()
    assert bench.verdict(part, A) == (Answer.NOT_ARMED, Verdict.NONE)
    bench.move(1001)
    assert bench.kinds(part) == ["TRIGGER", "DEFAULTED"] and not bench.ctl.is_healthy


def test_a_part_seen_just_before_arming_can_still_be_judged():
    bench = Bench(armed=False)
    part = bench.eye()
    bench.ask(Arm(BOOT, True))
    assert bench.verdict(part, A) == (Answer.STORED, A)
    bench.move(1001)
    assert bench.kinds(part) == ["TRIGGER", "PASSED"]


def test_a_silent_host_trips_and_its_verdicts_are_not_believed():
    bench = Bench()
    part = bench.eye()
    bench.verdict(part, A)
    assert bench.ctl.is_healthy
    bench.move(1003, beats=False)
    assert bench.ctl.is_tripped and not bench.ctl.is_healthy
    assert bench.kinds(0) == ["WATCHDOG"]
    later = bench.eye()
    bench.move(1001)
    assert bench.kinds(part) == ["TRIGGER", "PASSED"]  # it was past the gate before the trip: 1000 counts are 500 ms
    assert bench.kinds(later) == ["TRIGGER", "DEFAULTED"]


def test_a_trip_makes_the_default_of_open_parts_for_good():
    bench = Bench()
    bench.move(600, beats=False)
    part = bench.eye()
    bench.verdict(part, A)
    bench.move(500, beats=False)
    assert bench.ctl.is_tripped
    bench.ask(Arm(BOOT, True))
    assert bench.ctl.is_healthy
    assert bench.verdict(part, A) == (Answer.LATE, R)
    bench.move(600)
    assert bench.kinds(part) == ["TRIGGER", "DEFAULTED"]


def test_disarming_makes_the_default_of_open_parts():
    bench = Bench()
    part = bench.eye()
    bench.verdict(part, A)
    (done,) = bench.ask(Arm(BOOT, False))
    assert done.status is Status.OK and Flags.ARMED not in done.flags
    bench.move(1001)
    assert bench.kinds(part) == ["TRIGGER", "DEFAULTED"]


def test_a_beat_of_another_boot_is_answered_but_does_not_count():
    bench = Bench()
    bench.us = 499_000
    (reply,) = bench.ask(Beat(BOOT + 1, 5))
    assert isinstance(reply, BeatR) and reply.boot_id == BOOT and reply.nonce == 5
    bench.us = 501_000
    bench.ctl.on_time(bench.us)
    assert bench.ctl.is_tripped


def test_config_only_while_disarmed_and_only_sane():
    bench = Bench()
    other = Config(BOOT, 500, 600, 40, 0, 500, 1000, R)
    (done,) = bench.ask(other)
    assert done.status is Status.ARMED and bench.ctl.config == CONFIG
    (done,) = bench.ask(CONFIG)
    assert done.status is Status.OK
    bench.ask(Arm(BOOT, False))
    for bad in (
        Config(BOOT, 1001, 1000, 40, 0, 500, 1000, R),
        Config(BOOT, 0, 1000, 40, 0, 500, 1000, R),
        Config(BOOT, 900, 1000, 0, 0, 500, 1000, R),
        Config(BOOT, 900, 1000, 40, 0, 49, 1000, R),
        Config(BOOT, 900, 1000, 40, 0, 500, 0, R),
        Config(BOOT, 900, 40_000, 40, 0, 500, 1000, R),
        Config(BOOT, 900, 1000, 40, 0, 500, 1000, Verdict.NONE),
    ):
        (done,) = bench.ask(bad)
        assert done.status is Status.BAD_VALUE
    (done,) = bench.ask(other)
    assert done.status is Status.OK and bench.ctl.config == other


def test_it_is_not_armed_before_it_is_configured():
    bench = Bench(None, armed=False)
    (done,) = bench.ask(Arm(BOOT, True))
    assert done.status is Status.NOT_CONFIGURED and not bench.ctl.is_armed


def test_another_release_is_told_our_version_and_nothing_else_happens():
    bench = Bench()
    (reply,) = bench.ask(Hello(PROTOCOL_VERSION ^ 1, 3))
    assert isinstance(reply, HelloR) and reply.version == PROTOCOL_VERSION


def test_the_solenoid_is_never_on_for_longer_than_allowed():
    bench = Bench(Config(BOOT, 900, 1000, 40, 0, 10_000, 300, R))
    bench.eye()
    bench.move(1000)
    assert bench.ctl.gate
    for _ in range(400):  # the belt stands
        bench.us += 1000
        bench.ctl.on_time(bench.us)
    assert not bench.ctl.gate
    (edge,) = bench.ctl.edges
    assert edge.time_us == 500_000 + 300_000


def test_overlapping_pulses_are_one_opening_to_the_end_of_the_last():
    bench = Bench()
    bench.eye()
    bench.move(30)
    bench.eye()
    bench.move(1100)
    assert [(e.is_on, e.encoder) for e in bench.edges] == [(True, 1000), (True, 1030), (False, 1070)]


def test_a_full_table_trips_and_sweeps_what_it_cannot_follow():
    bench = Bench()
    for _ in range(PART_SLOTS):
        bench.verdict(bench.eye(), A)
        bench.move(2)
    assert bench.ctl.is_healthy
    lost = bench.eye()
    assert bench.kinds(lost) == ["OVERFLOW"] and not bench.ctl.is_healthy
    at_eye = bench.encoder
    bench.move(1200)
    assert (0, at_eye + 1000) in bench.pulses()
    assert all(bench.kinds(part) == ["TRIGGER", "DEFAULTED"] for part in range(1, PART_SLOTS + 1))


def test_a_restart_in_mid_run_sweeps_what_was_between_eye_and_gate():
    bench = Bench(None, armed=False, encoder=5000, saved=CONFIG)
    assert bench.edges == []  # nothing moves while the belt stands
    bench.move(10)
    assert bench.pulses() == [(0, 5001)]
    bench.ask(Arm(BOOT, True))
    early = bench.eye()
    bench.verdict(early, A)
    bench.move(200)
    later = bench.eye()
    bench.verdict(later, A)
    bench.move(1100)
    assert [e.encoder for e in bench.edges if not e.is_on] == [6040]
    assert bench.kinds(early) == ["TRIGGER", "DEFAULTED"]  # the gate was still open: not called passed
    assert bench.kinds(later) == ["TRIGGER", "PASSED"]


def test_the_confirm_sensor_is_awaited():
    bench = Bench(Config(BOOT, 900, 1000, 40, 200, 500, 1000, R))
    seen = bench.eye()
    bench.move(500)
    unseen = bench.eye()
    bench.move(525)
    bench.ctl.on_confirm(bench.encoder, bench.us)
    bench.move(700)
    assert bench.kinds(seen) == ["TRIGGER", "DEFAULTED", "CONFIRMED"]
    assert bench.kinds(unseen) == ["TRIGGER", "DEFAULTED", "UNCONFIRMED"]
    assert bench.log[-1].encoder == 500 + 1000 + 200


@pytest.mark.parametrize("start", [2**32 - 1, 2**32 - 500, 2**32 - 950, 2**32 - 1020, 2**31 - 500])
def test_counters_wrap_without_notice(start):
    bench = Bench(encoder=start, next_event=0xFFFF, next_part=2**32 - 1)
    good = bench.eye()
    bench.verdict(good, A)
    bench.move(60)
    bad = bench.eye()
    bench.verdict(bad, R)
    bench.move(1100)
    assert bench.kinds(good) == ["TRIGGER", "PASSED"] and bench.kinds(bad) == ["TRIGGER", "FIRED"]
    assert bench.pulses() == [(bad, (start + 1060) % 2**32)]
    assert (good, bad) == (2**32 - 1, 1)  # no part is number 0
    assert [event.seq for event in bench.log] == [0xFFFF, 0, 1, 2]


def test_a_belt_that_runs_backwards_decides_nothing():
    bench = Bench(encoder=5000)
    part = bench.eye()
    for back in range(1, 3000):
        bench.ctl.on_encoder((5000 - back) % 2**32, back)
    assert bench.kinds(part) == ["TRIGGER"] and bench.ctl.edges == []


def test_events_are_sent_again_until_acknowledged_in_a_window():
    bench = Bench()
    for _ in range(EVENT_WINDOW + 3):
        bench.eye()
    first = [m.seq for m in bench.sent()]
    assert first == list(range(EVENT_WINDOW))
    bench.us += 30_000
    bench.ctl.on_time(bench.us)
    assert [m.seq for m in bench.sent()] == first
    bench.ctl.on_bytes(encode_frame(EvAck(BOOT, 4).pack()), bench.us)
    assert [m.seq for m in bench.sent()] == [8, 9, 10]
    bench.us += 7_000  # an ack that stands still says there is a hole
    bench.ctl.on_bytes(encode_frame(EvAck(BOOT, 4).pack()), bench.us)
    assert [m.seq for m in bench.sent()] == [5, 6, 7, 8, 9, 10]


def test_overwritten_events_show_in_hello():
    bench = Bench(armed=False)
    for _ in range(EVENT_SLOTS):
        bench.eye()
        bench.move(1100)
    (hello,) = bench.ask(Hello(PROTOCOL_VERSION, 1))
    assert hello.next_event == 2 * EVENT_SLOTS and hello.oldest_event == EVENT_SLOTS
    assert bench.ctl.counts.overwritten == EVENT_SLOTS
    assert hello.next_part == EVENT_SLOTS + 1


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 300), st.sampled_from(["a", "r", "-", "late"])), min_size=1, max_size=12),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 150]),
)
def test_stepping_only_where_something_is_due_is_the_same_as_every_count(parts, start, confirm):
    """And every part ends in exactly one outcome, PASSED only by an accept in time before a gate that is shut."""
    config = Config(BOOT, 400, 500, 40, confirm, 10_000, 5000, R)
    eyes, count = [], 0
    for gap, what in parts:
        count += gap
        eyes.append((count, what))
    runs = []
    for every in (True, False):
        bench = Bench(config, encoder=start)
        _drive(bench, eyes, count + 800, start, every)
        edges = [(e.is_on, e.part_id, e.encoder) for e in bench.ctl.edges]
        runs.append(([(e.event, e.part_id, e.encoder) for e in bench.log], edges))
    assert runs[0] == runs[1]
    for part_id, (at, what) in enumerate(eyes, 1):
        ends = [e.name for e, pid, _ in runs[0][0] if pid == part_id and e.name in ("PASSED", "FIRED", "DEFAULTED")]
        is_taken = any(other != "a" and 0 < at - count < config.pulse_counts for count, other in eyes)
        passed = "DEFAULTED" if is_taken else "PASSED"  # in the open gate of another
        assert ends == [{"a": passed, "r": "FIRED", "-": "DEFAULTED", "late": "DEFAULTED"}[what]]


def _drive(bench, eyes, last, start, every):
    at = 0
    todo = sorted(
        [(c, 0, i) for i, (c, _) in enumerate(eyes)]
        + [(c + (300 if w != "late" else 450), 1, i) for i, (c, w) in enumerate(eyes) if w != "-"]
    )
    while at < last:
        due = bench.ctl.next_encoder()
        due_in = last - at if due is None else (due - (start + at) + 2**31) % 2**32 - 2**31
        step = 1 if every else max(0, min([due_in, last - at] + [c - at for c, _, _ in todo[:1]]))
        at += step
        bench.ctl.on_encoder((start + at) % 2**32, at)
        while todo and todo[0][0] == at:
            _, is_verdict, index = todo.pop(0)
            if is_verdict:
                verdict = {"a": A, "r": R, "late": A}[eyes[index][1]]
                bench.ctl.on_bytes(encode_frame(VerdictMsg(BOOT, index + 1, verdict).pack()), at)
            else:
                bench.ctl.on_eye((start + at) % 2**32, at)


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=40), max_size=5))
def test_any_bytes_leave_it_working(pieces):
    bench = Bench()
    for piece in pieces:
        bench.ctl.on_bytes(piece, 0)
        bench.ctl.on_bytes(encode_frame(piece[:32]) if piece else b"\0", 0)
    bench.ctl.on_bytes(b"\0", 0)
    bench.sent()
    (reply,) = bench.ask(Beat(BOOT, 9))
    assert reply.nonce == 9


def test_events_carry_the_codes_of_the_contract():
    assert [kind.name for kind in EventKind] == [
        "TRIGGER", "PASSED", "FIRED", "DEFAULTED", "CONFIRMED", "UNCONFIRMED", "WATCHDOG", "OVERFLOW",
        "INPUT",
    ]  # fmt: skip
