"""The controller's core at its edges: one count, one microsecond, one byte, one place of a ring to either side."""

from __future__ import annotations

import ctypes
from random import Random

import pytest

from firmware_bridge.reject.controller import EVENT_SLOTS, EVENT_WINDOW, PART_SLOTS, Controller
from firmware_bridge.reject.frames import MAX_BODY, MAX_PAYLOAD, Deframer, cobs_encode, crc16, encode_frame
from firmware_bridge.reject.messages import (
    BLOCKING,
    PROTOCOL_VERSION,
    TABLE,
    Answer,
    Arm,
    Beat,
    BeatR,
    Config,
    Done,
    EvAck,
    EventKind,
    EventMsg,
    Flags,
    Hello,
    HelloR,
    Status,
    Verdict,
    VerdictMsg,
    VerdictR,
    layout_of,
)
from tests.firmware_bridge.core_bench import BOOT, CONFIG, A, Bench, R

FRAME_MAX_BYTES = MAX_BODY + 1
HOST_BYTES = 4096  # what the library holds for its caller
WRAPS = [0, 2**31 - 500, 2**32 - 950, 2**32 - 20]


def config(**changed):
    values = {name: getattr(CONFIG, name) for name in Config.__slots__}
    return Config(**{**values, **changed})


def at(bench, encoder, us=None):
    """The belt stands at this count, without those in between."""
    bench.encoder = encoder
    bench.us = bench.us if us is None else us
    bench.ctl.on_encoder(encoder % 2**32, bench.us % 2**32)
    bench.edges += bench.ctl.edges
    bench.ctl.edges.clear()


def clock(bench, us):
    """It is now this time."""
    bench.us = us
    bench.ctl.on_time(us % 2**32)
    bench.edges += bench.ctl.edges
    bench.ctl.edges.clear()


def judged(bench, verdict):
    part = bench.eye()
    assert bench.verdict(part, verdict) == (Answer.STORED, verdict)
    return part


def hidden(bench):
    told = (ctypes.c_uint32 * 4)()
    bench.ctl._core.host_hidden(ctypes.c_void_p(bench.ctl._host), told)
    return list(told)


# Frames


def test_the_core_cuts_frames_as_the_host_does_whatever_comes():
    rng = Random(11)
    wire = bytearray()
    for _ in range(600):
        payload = bytes(rng.choice((0, 0, 1, 7, 255, rng.randrange(256))) for _ in range(rng.randrange(1, 33)))
        frame = bytearray(encode_frame(payload))
        kind = rng.randrange(5)
        if kind == 1:
            frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
        elif kind == 2:
            frame = frame[: rng.randrange(len(frame))] + b"\0"
        elif kind == 3:
            frame = bytearray(rng.randrange(256) for _ in range(rng.randrange(60)))
        wire += frame
    mine, theirs = Bench(None, armed=False), Deframer()
    for byte in wire:
        mine.ctl.on_bytes(bytes([byte]), 0)
        theirs.feed(bytes([byte]))
    said = theirs.counts
    assert mine.ctl.wire_counts == {"frames": said.frames, "bad_crc": said.bad_crc, "malformed": said.malformed,
                                    "oversize": said.oversize}  # fmt: skip
    assert min(said.frames, said.bad_crc, said.malformed, said.oversize) > 10


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (cobs_encode(b"\x99" * MAX_PAYLOAD + crc16(b"\x99" * MAX_PAYLOAD).to_bytes(2, "little")), "frames"),
        (cobs_encode(b"\x99" + crc16(b"\x99").to_bytes(2, "little")), "frames"),
        (cobs_encode(crc16(b"").to_bytes(2, "little")), "malformed"),  # a checksum of nothing
        (cobs_encode(b"\x99"), "malformed"),
        (b"\x01", "malformed"),
        (b"\x02", "malformed"),
        (b"\x05\x01\x02\x03", "malformed"),
        (b"\x04\x01\x02\x03", "bad_crc"),
        (b"\xff" * MAX_BODY, "malformed"),
        (b"\x01" * MAX_BODY, "bad_crc"),
        (b"\x01" * (MAX_BODY + 1), "oversize"),
        (b"\x01" * 300, "oversize"),
    ],
)
def test_a_body_counts_once_for_what_it_is(body, count):
    bench = Bench(None, armed=False)
    bench.ctl.on_bytes(b"\0\0" + body + b"\0\0", 0)
    expected = dict.fromkeys(("frames", "bad_crc", "malformed", "oversize"), 0) | {count: 1}
    assert bench.ctl.wire_counts == expected and bench.ctl.counts.not_ours == expected["frames"]
    assert bench.ask(Beat(BOOT, 1)) and bench.ctl.wire_counts["frames"] == expected["frames"] + 1


def test_the_longest_frame_comes_in_whole_behind_a_longer_one():
    bench = Bench(None, armed=False)
    bench.ctl.on_bytes(b"\x11" * (MAX_BODY + 1) + b"\0" + encode_frame(bytes(range(100, 132))), 0)
    assert bench.ctl.wire_counts == {"frames": 1, "bad_crc": 0, "malformed": 0, "oversize": 1}


def test_every_number_of_zeros_comes_out_of_the_core_as_it_went_in():
    for nonce in (0, 1, 0x0100, 0x00FF, 0xFFFF):
        for encoder in (0, 0x01000000, 0x00010000, 0xFF00FF00, 2**32 - 1):
            bench = Bench(None, armed=False, encoder=encoder)
            assert bench.ask(Beat(BOOT, nonce)) == [BeatR(BOOT, nonce, 0, encoder, 1, 0, 0, Flags(0))]


# Messages


def test_hello_says_everything():
    bench = Bench(None, armed=False, encoder=5, next_part=0x12345678, next_event=0x1234)
    bench.us = 0x0A0B0C0D
    assert bench.ask(Hello(PROTOCOL_VERSION, 0xBEEF)) == [
        HelloR(PROTOCOL_VERSION, BOOT, 0xBEEF, 0x0A0B0C0D, 0x12345678, 0x1234, 0x1234, 0, Flags(0))
    ]
    chosen = config(inputs=int(Flags.AIR_LOW), debounce_counts=0x203)
    bench.ask(chosen)
    bench.eye()
    (hello,) = bench.ask(Hello(PROTOCOL_VERSION, 1))
    assert hello.config_digest == chosen.digest() != 0 and hello.flags == Flags.AIR_LOW
    assert (hello.next_part, hello.oldest_event, hello.next_event) == (0x12345679, 0x1234, 0x1236)


def test_hello_has_all_events_sent_again_from_the_oldest():
    bench = Bench()
    for _ in range(3):
        bench.eye()
    assert [event.seq for event in bench.sent()] == [0, 1, 2]
    bench.ctl.on_bytes(encode_frame(Hello(PROTOCOL_VERSION, 1).pack()), 0)
    assert [event.seq for event in bench.sent()[1:]] == [0, 1, 2]
    assert bench.ctl.counts.resends == 0


def test_a_hello_of_another_release_is_answered_from_its_first_three_bytes():
    bench = Bench()
    other = (PROTOCOL_VERSION ^ 0x0100).to_bytes(2, "little")
    for payload in (b"\x01" + other, b"\x01" + other + b"\x07\x08", b"\x01" + other + bytes(20)):
        bench.ctl.on_bytes(encode_frame(payload), 0)
        (reply,) = bench.sent()
        assert (reply.version, reply.nonce) == (PROTOCOL_VERSION, 0) and bench.ctl.counts.not_ours == 0
    ours = PROTOCOL_VERSION.to_bytes(2, "little")
    for count, payload in enumerate((b"\x01", b"\x01" + other[:1], b"\x01" + ours, b"\x01" + ours + bytes(3)), 1):
        bench.ctl.on_bytes(encode_frame(payload), 0)
        assert bench.sent() == [] and bench.ctl.counts.not_ours == count


@pytest.mark.parametrize("kind", [kind for kind in TABLE if kind.KIND < 0x80], ids=lambda kind: kind.__name__)
def test_a_message_has_its_length_and_no_other(kind):
    bench = Bench()
    whole = layout_of(kind).size
    head = bytes((kind.KIND,)) + (PROTOCOL_VERSION if kind is Hello else BOOT).to_bytes(2, "little")
    payload = head + bytes(whole - 3)
    for count, wrong in enumerate((payload[:-1], payload + b"\0"), 1):
        bench.ctl.on_bytes(encode_frame(wrong), 0)
        assert bench.sent() == [] and bench.ctl.counts.not_ours == count
    bench.ctl.on_bytes(encode_frame(payload), 0)
    assert bench.ctl.counts.not_ours == 2


@pytest.mark.parametrize("kind", [0, 7, 8, 0x41, 0x80, 0x86, 0xFF])
def test_a_kind_that_is_none_is_counted_whatever_its_length(kind):
    bench = Bench()
    for length in range(1, MAX_PAYLOAD + 1):
        payload = (bytes((kind,)) + BOOT.to_bytes(2, "little") + bytes(30))[:length]
        bench.ctl.on_bytes(encode_frame(payload), 0)
    assert bench.ctl.counts.not_ours == MAX_PAYLOAD and bench.sent() == []


def test_a_kind_that_is_none_is_not_obeyed_when_its_checksum_looks_like_our_boot():
    for kind in (b"\x00", b"\x07", b"\x99"):
        controller = Controller(crc16(kind))
        controller.on_bytes(encode_frame(kind), 0)
        assert controller.counts.not_ours == 1


def test_the_answer_to_a_verdict_says_all():
    bench = Bench(next_part=0x01020304)
    part = bench.eye()
    assert bench.ask(VerdictMsg(BOOT, part, A)) == [VerdictR(BOOT, part, Answer.STORED, A)]
    assert bench.ask(VerdictMsg(BOOT, part, R)) == [VerdictR(BOOT, part, Answer.CONFLICT, A)]


def test_messages_of_another_boot_do_nothing():
    bench = Bench()
    part = bench.eye()
    bench.sent()
    for message in (Arm(BOOT + 256, False), EvAck(BOOT + 1, 0), VerdictMsg(BOOT - 1, part, A), config(boot_id=1)):
        assert bench.ask(message) == []
    assert bench.ctl.counts.not_ours == 4 and bench.ctl.is_armed
    clock(bench, 30_000)
    assert [event.seq for event in bench.sent()] == [0]


def test_done_says_what_was_asked_and_how_it_stands():
    bench = Bench(None, armed=False)
    assert bench.ask(Arm(BOOT, True)) == [Done(BOOT, Arm.KIND, Status.NOT_CONFIGURED, Flags(0))]
    assert bench.ask(CONFIG) == [Done(BOOT, Config.KIND, Status.OK, Flags(0))]
    assert bench.ask(Arm(BOOT, True)) == [Done(BOOT, Arm.KIND, Status.OK, Flags.ARMED | Flags.HEALTHY)]
    assert bench.ask(Arm(BOOT, False)) == [Done(BOOT, Arm.KIND, Status.OK, Flags(0))]


def test_an_event_on_the_wire_is_the_event():
    bench = Bench(encoder=0x89ABCDEF, next_part=0x01020304, next_event=0xFFFE)
    bench.us = 0x0A0B0C0D
    for _ in range(3):
        bench.eye()
    assert bench.sent() == bench.log == [
        EventMsg(BOOT, seq, EventKind.TRIGGER, 0x01020304 + n, 0x89ABCDEF, 0x0A0B0C0D)
        for n, seq in enumerate((0xFFFE, 0xFFFF, 0))
    ]  # fmt: skip


@pytest.mark.parametrize("answer_fits", [True, False])
def test_an_answer_wants_room_for_the_longest_frame(answer_fits):
    bench = Bench()
    frame = encode_frame(Beat(BOOT, 7).pack())
    bench.ctl._news.byte_count = HOST_BYTES - FRAME_MAX_BYTES + (0 if answer_fits else 1)
    before = bench.ctl._news.byte_count
    bench.ctl._core.host_on_bytes(bench.ctl._host, frame, len(frame), 0)
    assert (bench.ctl._news.byte_count > before) == answer_fits
    assert bench.ctl.counts.dropped == (0 if answer_fits else 1)
    bench.ctl._news.byte_count = 0


@pytest.mark.parametrize("event_fits", [True, False])
def test_events_leave_room_for_an_answer(event_fits):
    bench = Bench()
    bench.ctl._news.byte_count = HOST_BYTES - 2 * FRAME_MAX_BYTES + (0 if event_fits else 1)
    before = bench.ctl._news.byte_count
    bench.ctl._core.host_on_eye(bench.ctl._host, 0, 0)
    assert (bench.ctl._news.byte_count > before) == event_fits
    bench.ctl._news.byte_count = 0
    bench.ctl.on_time(0)
    assert len(bench.sent()) == (0 if event_fits else 1)  # what found no room goes out with the next turn


# Resending


@pytest.mark.parametrize("start", [0, 2**32 - 10_000])
def test_events_are_resent_when_the_oldest_has_waited_30_ms(start):
    bench = Bench()
    clock(bench, start)
    bench.ask(Beat(BOOT, 0))
    bench.eye()
    bench.us = start + 20_000
    bench.eye()
    assert [event.seq for event in bench.sent()] == [0, 1]
    clock(bench, start + 29_999)
    assert bench.sent() == [] and bench.ctl.counts.resends == 0
    clock(bench, start + 30_000)
    assert [event.seq for event in bench.sent()] == [0, 1] and bench.ctl.counts.resends == 2
    clock(bench, start + 59_999)
    assert bench.sent() == []
    clock(bench, start + 60_000)
    assert len(bench.sent()) == 2 and bench.ctl.counts.resends == 4


def test_an_ack_that_makes_progress_gives_the_rest_its_full_time():
    bench = Bench()
    for _ in range(3):
        bench.eye()
    bench.sent()
    bench.us = 25_000
    bench.ask(EvAck(BOOT, 0))
    clock(bench, 54_999)
    assert bench.sent() == []
    clock(bench, 55_000)
    assert [event.seq for event in bench.sent()] == [1, 2]


def test_an_ack_that_stands_still_has_events_resent_after_6_ms():
    bench = Bench()
    for _ in range(3):
        bench.eye()
    bench.ask(EvAck(BOOT, 0))
    bench.sent()
    bench.us = 5_999
    bench.ctl.on_bytes(encode_frame(EvAck(BOOT, 0).pack()), bench.us)
    assert bench.sent() == [] and bench.ctl.counts.resends == 0
    bench.us = 6_000
    bench.ctl.on_bytes(encode_frame(EvAck(BOOT, 0).pack()), bench.us)
    assert [event.seq for event in bench.sent()] == [1, 2] and bench.ctl.counts.resends == 2


def test_an_ack_lets_go_all_up_to_it_and_no_more():
    bench = Bench(next_event=0xFFFE)
    for _ in range(6):
        bench.eye()
    bench.sent()

    def held():
        hello = bench.ctl
        hello.on_bytes(encode_frame(Beat(BOOT, 0).pack()), 0)
        beat = next(m for m in bench.sent() if isinstance(m, BeatR))
        return beat.oldest_event, beat.next_event

    assert held() == (0xFFFE, 4)
    for seq, oldest in ((0xFFFD, 0xFFFE), (0xFFFE, 0xFFFF), (0xFFFE, 0xFFFF), (0, 1), (2, 3), (3, 4), (3, 4), (9, 4)):
        bench.ask(EvAck(BOOT, seq))
        assert held() == (oldest, 4), seq


def test_an_ack_of_more_than_was_ever_logged_lets_go_what_there_is():
    for ahead in (1, 2, 40, 60, 300):
        bench = Bench()
        for _ in range(5):
            bench.eye()
        bench.ask(EvAck(BOOT, 4 + ahead))
        (beat,) = bench.ask(Beat(BOOT, 0))
        assert (beat.oldest_event, beat.next_event) == (5, 5)


def test_after_an_ack_of_some_the_others_are_still_themselves():
    bench = Bench()
    for _ in range(6):
        bench.eye()
        bench.move(1)
    bench.sent()
    bench.ask(EvAck(BOOT, 2))
    clock(bench, bench.us + 31_000)
    assert bench.sent() == bench.log[3:] and len(bench.log) == 6


def test_no_more_than_a_window_is_on_the_wire():
    bench = Bench()
    for _ in range(EVENT_WINDOW + 2):
        bench.eye()
    assert len(bench.sent()) == EVENT_WINDOW
    bench.ctl.on_bytes(encode_frame(EvAck(BOOT, 0).pack()), 0)
    assert [event.seq for event in bench.sent()] == [EVENT_WINDOW]


@pytest.mark.parametrize("start", [0, 0xFFF0])
def test_events_that_were_overwritten_before_their_ack_are_left_out(start):
    bench = Bench(next_event=start)
    for _ in range(EVENT_SLOTS):
        bench.eye()
    assert bench.ctl.counts.overwritten == 0
    bench.sent()
    for _ in range(EVENT_WINDOW + 2):
        bench.eye()
    assert bench.ctl.counts.overwritten == EVENT_WINDOW + 2
    oldest = start + EVENT_WINDOW + 2
    assert [event.seq for event in bench.sent()] == [(oldest + n) % 2**16 for n in range(-2, EVENT_WINDOW)]
    clock(bench, 31_000)
    assert [event.seq for event in bench.sent()] == [(oldest + n) % 2**16 for n in range(EVENT_WINDOW)]
    (beat,) = bench.ask(Beat(BOOT, 0))
    assert (beat.oldest_event, beat.next_event) == (oldest % 2**16, (oldest + EVENT_SLOTS) % 2**16)


def test_events_that_were_overwritten_before_they_were_sent_are_left_out():
    bench = Bench()
    bench.eye()
    bench.sent()
    bench.ctl._news.byte_count = HOST_BYTES - 10  # the port is stuck
    for _ in range(EVENT_SLOTS + 4):
        bench.ctl._core.host_on_eye(bench.ctl._host, 0, 0)
    bench.ctl._news.byte_count = 0
    bench.ctl.on_time(0)
    assert [event.seq for event in bench.sent()] == [bench.ctl.counts.overwritten + n for n in range(EVENT_WINDOW)]
    assert bench.ctl.counts.overwritten > 2 and bench.ctl.counts.resends == 0


def test_the_ring_goes_round_many_times_and_each_event_is_itself():
    bench = Bench(armed=False)
    heard = []
    for count in range(5 * EVENT_SLOTS):
        bench.encoder = 10 * count
        bench.eye()
        heard += [event for event in bench.sent() if isinstance(event, EventMsg)]
        if count % 3 == 2:
            bench.ctl.on_bytes(encode_frame(EvAck(BOOT, heard[-1].seq).pack()), 0)
            heard += [event for event in bench.sent() if isinstance(event, EventMsg)]
    assert heard == bench.log[: len(heard)] and len(heard) > 4 * EVENT_SLOTS


# Counts of the belt


@pytest.mark.parametrize("start", WRAPS)
def test_a_part_is_decided_and_fired_at_the_count_and_not_one_before(start):
    bench = Bench(encoder=start)
    part = judged(bench, R)
    assert bench.ctl.next_encoder() == (start + 900) % 2**32
    at(bench, start + 899)
    assert bench.ctl.plan() == (None, None)
    at(bench, start + 900)
    assert bench.ctl.plan() == ((start + 1000) % 2**32, None)
    assert bench.ctl.next_encoder() == (start + 1000) % 2**32
    at(bench, start + 999)
    assert not bench.ctl.gate
    at(bench, start + 1000)
    assert bench.ctl.gate and bench.kinds(part) == ["TRIGGER", "FIRED"]
    assert bench.ctl.plan() == (None, (start + 1040) % 2**32)
    at(bench, start + 1039)
    assert bench.ctl.gate
    at(bench, start + 1040)
    assert not bench.ctl.gate and bench.ctl.next_encoder() is None
    assert [edge.part_id for edge in bench.edges] == [part, 0]


@pytest.mark.parametrize("start", WRAPS)
def test_a_verdict_counts_up_to_the_count_before_the_decide_point(start):
    for counts, answer in ((899, (Answer.STORED, A)), (900, (Answer.LATE, R))):
        bench = Bench(encoder=start)
        part = bench.eye()
        at(bench, start + counts)
        assert bench.verdict(part, A) == answer


def test_a_belt_that_jumps_does_everything_it_jumped_over():
    bench = Bench(config(confirm_counts=200))
    bad, good = judged(bench, R), None
    bench.encoder = 300
    good = judged(bench, A)
    at(bench, 5000)
    assert bench.kinds(bad) == ["TRIGGER", "FIRED", "UNCONFIRMED"]
    assert bench.kinds(good) == ["TRIGGER", "DEFAULTED", "UNCONFIRMED"]  # the gate stood open when it was there
    assert bench.edges[0].part_id == bad and bench.edges[0].encoder == 5000


@pytest.mark.parametrize("far", [2**31 - 1000, 2**31 - 1])
def test_a_part_far_behind_is_still_behind(far):
    bench = Bench()
    part = judged(bench, A)
    at(bench, far)
    assert bench.kinds(part) == ["TRIGGER", "PASSED"]


def test_decide_and_fire_may_be_at_the_same_count():
    bench = Bench(config(decide_counts=1000))
    part = judged(bench, A)
    other_bench = Bench(config(decide_counts=1000))
    silent = other_bench.eye()
    for one in (bench, other_bench):
        at(one, 999)
        assert len(one.log) == 1
        at(one, 1000)
    assert bench.kinds(part) == ["TRIGGER", "PASSED"] and other_bench.kinds(silent) == ["TRIGGER", "DEFAULTED"]


def test_the_confirm_window_ends_on_its_count():
    for counts, heard in ((1199, "CONFIRMED"), (1200, "UNCONFIRMED")):
        bench = Bench(config(confirm_counts=200))
        part = judged(bench, R)
        at(bench, 900)
        at(bench, 1000)
        at(bench, counts)
        bench.ctl.on_confirm(counts, 0)
        assert bench.kinds(part) == ["TRIGGER", "FIRED", heard]
        at(bench, 1300)
        assert len(bench.kinds(part)) == 3


def test_a_confirmation_belongs_to_the_oldest_pulse_and_to_one_only():
    bench = Bench(config(confirm_counts=200))
    parts = []
    for encoder in (0, 50, 100):
        bench.encoder = encoder
        parts.append(judged(bench, R if encoder != 50 else A))
    bench.ctl.on_confirm(100, 0)  # nothing was fired yet
    for encoder in (1000, 1050, 1100):
        at(bench, encoder)
    assert bench.kinds(parts[0])[1:] == ["FIRED"] and bench.kinds(parts[1])[1:] == ["PASSED"]
    assert bench.kinds(parts[2])[1:] == ["FIRED"]
    bench.ctl.on_confirm(1110, 0)
    assert bench.kinds(parts[0])[1:] == ["FIRED", "CONFIRMED"] and bench.kinds(parts[2])[1:] == ["FIRED"]
    bench.ctl.on_confirm(1120, 0)
    assert bench.kinds(parts[2])[1:] == ["FIRED", "CONFIRMED"]
    count = len(bench.log)
    bench.ctl.on_confirm(1121, 0)
    assert len(bench.log) == count and bench.log[-1].encoder == 1120


# What lies in an open gate


@pytest.mark.parametrize(("gap", "kind"), [(1, "DEFAULTED"), (39, "DEFAULTED"), (40, "PASSED"), (41, "PASSED")])
def test_a_good_part_inside_the_pulse_for_another_is_not_called_passed(gap, kind):
    bench = Bench()
    bad = judged(bench, R)
    bench.move(gap)
    good = judged(bench, A)
    bench.move(1100)
    assert bench.kinds(bad) == ["TRIGGER", "FIRED"] and bench.kinds(good) == ["TRIGGER", kind]
    assert [(edge.is_on, edge.encoder) for edge in bench.edges] == [(True, 1000), (False, 1040)]  # and it is no longer
    assert bench.verdict(good, A) == ((Answer.LATE, R) if kind == "DEFAULTED" else (Answer.DUP, A))


def test_a_good_part_just_before_a_bad_one_has_passed():
    bench = Bench()
    good = judged(bench, A)
    bench.move(1)
    bad = judged(bench, R)
    bench.move(1100)
    assert bench.kinds(good) == ["TRIGGER", "PASSED"] and bench.kinds(bad) == ["TRIGGER", "FIRED"]


def test_a_good_part_that_the_gate_took_is_awaited_at_the_confirm_sensor():
    bench = Bench(config(confirm_counts=200))
    bad = judged(bench, R)
    bench.move(20)
    good = judged(bench, A)
    bench.move(1030)
    bench.ctl.on_confirm(bench.encoder, bench.us)
    bench.move(200)
    assert bench.kinds(bad) == ["TRIGGER", "FIRED", "CONFIRMED"]
    assert bench.kinds(good) == ["TRIGGER", "DEFAULTED", "UNCONFIRMED"]  # one of the two did not come out


def test_a_good_part_after_the_gate_was_let_go_for_its_on_time_has_passed():
    bench = Bench(config(pulse_counts=2000, max_on_ms=100, watchdog_ms=10_000))
    bad = judged(bench, R)
    bench.move(500)
    good = judged(bench, A)
    bench.move(1000)
    assert bench.kinds(bad) == ["TRIGGER", "FIRED"] and bench.kinds(good) == ["TRIGGER", "PASSED"]


def test_a_bad_part_under_a_sweep_has_its_own_pulse():
    bench = Bench(None, armed=False, encoder=5000, saved=CONFIG)
    bench.move(1)
    bench.ask(Arm(BOOT, True))
    part = judged(bench, R)
    bench.move(1045)
    assert bench.kinds(part) == ["TRIGGER", "FIRED"]
    assert bench.pulses() == [(0, 5001), (part, 6001)]
    assert [edge.encoder for edge in bench.edges if not edge.is_on] == [6041]


# Sweeps


@pytest.mark.parametrize("start", WRAPS)
def test_a_sweep_after_a_restart_goes_from_the_first_count_to_the_last_part_and_its_pulse(start):
    bench = Bench(None, armed=False, encoder=start, saved=config(max_on_ms=60_000))
    assert bench.ctl.next_encoder() == (start + 1) % 2**32 and bench.ctl.plan() == ((start + 1) % 2**32, None)
    bench.move(2)
    assert bench.ctl.plan() == (None, (start + 1040) % 2**32) and bench.ctl.gate
    assert bench.ctl.next_encoder() == (start + 1040) % 2**32
    bench.move(1037)
    assert bench.ctl.gate
    bench.move(1)
    assert not bench.ctl.gate
    assert [(edge.is_on, edge.part_id, edge.encoder) for edge in bench.edges] == [
        (True, 0, (start + 1) % 2**32), (False, 0, (start + 1040) % 2**32)]  # fmt: skip
    bench.move(2000)
    assert len(bench.edges) == 2


def test_a_sweep_that_is_planned_anew_keeps_its_beginning_and_grows_at_its_end():
    bench = Bench(config(debounce_counts=1, watchdog_ms=10_000, max_on_ms=60_000))
    for _ in range(PART_SLOTS):
        bench.eye()
        bench.move(2)
    bench.eye()
    first = bench.encoder
    bench.move(100)
    bench.eye()
    last = bench.encoder
    bench.move(2500)
    assert (0, first + 1000) in bench.pulses()
    assert [edge.encoder for edge in bench.edges if not edge.is_on][-1] == last + 1040


def test_a_part_that_is_due_before_a_sweep_is_planned_before_it():
    bench = Bench(config(watchdog_ms=10_000))
    bad = judged(bench, R)
    for _ in range(PART_SLOTS):
        bench.move(3)
        bench.eye()
    assert bench.ctl.counts.overflows == 1
    at(bench, 900)
    assert bench.ctl.plan() == (1000, None)
    at(bench, 1000)
    assert bench.pulses() == [(bad, 1000)] and bench.ctl.plan()[1] == 1040


# Times


@pytest.mark.parametrize("start", [0, 2**32 - 100_000, 2**31 - 100_000])
def test_the_watchdog_bites_one_microsecond_after_its_time(start):
    bench = Bench(CONFIG, armed=False)
    clock(bench, start)
    bench.ask(Arm(BOOT, True))  # counts as a beat
    clock(bench, start + 500_000)
    assert bench.ctl.is_armed
    clock(bench, start + 500_001)
    assert bench.ctl.is_tripped and not bench.ctl.is_healthy and bench.ctl.counts.trips == 1
    assert bench.kinds(0) == ["WATCHDOG"]
    clock(bench, start + 900_000)
    assert bench.ctl.counts.trips == 1 and bench.kinds(0) == ["WATCHDOG"]
    bench.ask(Arm(BOOT, True))
    assert bench.ctl.is_armed and not bench.ctl.is_tripped
    bench.us += 400_000
    bench.ask(Beat(BOOT, 1))
    clock(bench, bench.us + 500_000)
    assert bench.ctl.is_armed


def test_a_disarmed_controller_has_no_watchdog():
    bench = Bench(armed=False)
    clock(bench, 60_000_000)
    assert bench.log == [] and not bench.ctl.is_tripped


@pytest.mark.parametrize("start", [0, 2**32 - 700_000])
def test_the_solenoid_is_let_go_on_the_microsecond_however_many_pulses_it_had(start):
    bench = Bench(config(watchdog_ms=10_000, max_on_ms=300, pulse_counts=200))
    clock(bench, start)
    bench.ask(Beat(BOOT, 0))
    bench.eye()
    bench.encoder = 100
    bench.eye()
    at(bench, 1000, start + 500_000)
    at(bench, 1100, start + 700_000)
    assert [edge.is_on for edge in bench.edges] == [True, True]
    clock(bench, start + 799_999)
    assert bench.ctl.gate
    clock(bench, start + 800_000)
    assert not bench.ctl.gate and bench.edges[-1].time_us == (start + 800_000) % 2**32
    assert bench.ctl.plan() == (None, None) and bench.ctl.next_encoder() is None


def wired(bench, us, **good):
    bench.us = us
    bench.ctl.on_inputs(us % 2**32, **good)
    return bench.ctl.flags & BLOCKING


@pytest.mark.parametrize("start", [0, 60_000, 2**32 - 5_000])
def test_a_level_is_believed_after_10_ms_and_not_a_microsecond_before(start):
    bench = Bench(config(inputs=int(Flags.AIR_LOW | Flags.BIN_FULL)), armed=False)
    both = Flags.AIR_LOW | Flags.BIN_FULL
    assert wired(bench, start, bin_ok=True, air_ok=True) == both
    assert wired(bench, start + 9_999, bin_ok=True, air_ok=True) == both
    assert wired(bench, start + 10_000, bin_ok=True, air_ok=True) == Flags(0)
    assert wired(bench, start + 20_000, bin_ok=False, air_ok=True) == Flags(0)
    assert wired(bench, start + 29_000, bin_ok=True, air_ok=True) == Flags(0)
    assert wired(bench, start + 30_000, bin_ok=False, air_ok=True) == Flags(0)
    assert wired(bench, start + 39_999, bin_ok=False, air_ok=True) == Flags(0)
    assert wired(bench, start + 40_000, bin_ok=False, air_ok=True) == Flags.BIN_FULL
    assert wired(bench, start + 50_000, bin_ok=False, air_ok=False) == Flags.BIN_FULL
    assert wired(bench, start + 60_000, bin_ok=False, air_ok=False) == both
    logged = [Flags(event.part_id) & BLOCKING for event in bench.log if event.event is EventKind.INPUT]
    assert logged[-2:] == [Flags.BIN_FULL, both]


def test_a_level_that_changes_to_another_fault_stands_anew():
    bench = Bench(config(inputs=int(Flags.AIR_LOW | Flags.BIN_FULL)), armed=False)
    for us in (0, 10_000):
        wired(bench, us, bin_ok=True, air_ok=True)
    wired(bench, 20_000, bin_ok=False, air_ok=True)
    wired(bench, 28_000, bin_ok=True, air_ok=False)
    assert wired(bench, 37_999, bin_ok=True, air_ok=False) == Flags(0)
    assert wired(bench, 38_000, bin_ok=True, air_ok=False) == Flags.AIR_LOW


def test_lines_that_are_no_input_disturb_none():
    bench = Bench(config(inputs=int(Flags.AIR_LOW)), armed=False)
    for us, levels in ((0, 0), (9_000, 0xCF), (10_000, 0)):
        bench.ctl._core.host_on_inputs(bench.ctl._host, levels, us)
    assert not bench.ctl.flags & BLOCKING


def test_a_level_counts_from_the_start_until_the_wires_have_been_read():
    bench = Bench(config(inputs=int(Flags.AIR_LOW)), armed=False)
    assert wired(bench, 20_000, bin_ok=True, air_ok=False) == Flags.AIR_LOW
    assert wired(bench, 40_000, bin_ok=True, air_ok=True) == Flags.AIR_LOW


# The eye


@pytest.mark.parametrize(("us", "is_lost"), [(20_000, False), (20_001, True)])
@pytest.mark.parametrize("start", [0, 2**32 - 10_000])
def test_a_break_without_a_count_is_chatter_for_20_ms(us, is_lost, start):
    bench = Bench()
    clock(bench, start)
    bench.ask(Beat(BOOT, 0))
    bench.encoder = 50
    bench.eye()
    bench.us += us
    bench.eye()
    assert (Flags.ENCODER_LOST in bench.ctl.flags) == is_lost == bench.ctl.is_tripped
    assert bench.ctl.next_part == (2 if is_lost else 3)  # nothing is debounced here


def test_chatter_counts_from_the_last_break_not_from_the_first():
    bench = Bench(config(debounce_counts=4))
    for _ in range(10):
        bench.us += 15_000
        bench.eye()
    assert bench.ctl.is_healthy and bench.ctl.counts.bounces == 9


def test_a_belt_that_moves_is_no_lost_encoder_however_long_it_takes():
    bench = Bench(config(debounce_counts=4))
    bench.eye()
    bench.us += 400_000
    bench.encoder = 1
    bench.eye()
    assert bench.ctl.is_healthy and bench.ctl.counts.bounces == 1


def test_the_sweep_for_a_lost_encoder_begins_at_the_next_count():
    bench = Bench(config(max_on_ms=60_000))
    bench.eye()
    bench.us += 30_000
    bench.eye()
    assert bench.ctl.next_encoder() == 1 and bench.ctl.plan() == (1, None)
    bench.us += 30_000
    bench.eye()
    bench.move(1)
    assert bench.pulses() == [(0, 1)] and bench.ctl.plan() == (1000, 1040)  # the part gets its own pulse, too


def test_the_sweep_for_a_lost_encoder_is_due_at_once_on_an_empty_belt():
    bench = Bench(config(debounce_counts=5000, watchdog_ms=10_000))
    bench.eye()
    bench.move(2000)
    bench.eye()
    assert bench.ctl.next_encoder() is None
    bench.us += 30_000
    bench.eye()
    assert Flags.ENCODER_LOST in bench.ctl.flags and bench.ctl.next_encoder() == 2001


@pytest.mark.parametrize(("gap", "count"), [(3, 1), (4, 2), (5, 2)])
@pytest.mark.parametrize("start", [0, 2**32 - 2])
def test_a_break_within_the_debounce_is_the_same_part(gap, count, start):
    bench = Bench(config(debounce_counts=4), encoder=start)
    first = bench.eye()
    bench.move(gap)
    bench.eye()
    assert bench.ctl.next_part == first + count and bench.ctl.counts.bounces == 2 - count


@pytest.mark.parametrize(("back", "is_part"), [(1, True), (2, True), (3, False)])
def test_an_encoder_at_rest_trembles_by_two_counts(back, is_part):
    bench = Bench(encoder=2**32 - 100)
    bench.move(101)
    at(bench, bench.encoder - back)
    bench.eye()
    assert bench.ctl.next_part == (2 if is_part else 1) and bench.ctl.counts.bounces == (0 if is_part else 1)


def test_a_trembling_encoder_is_as_far_from_the_last_part_on_either_side():
    bench = Bench(config(debounce_counts=2))
    bench.move(10)
    bench.eye()
    at(bench, 9)
    bench.eye()
    assert bench.ctl.next_part == 2
    at(bench, 8)
    bench.eye()
    assert bench.ctl.next_part == 3


def test_the_first_part_is_one_wherever_the_encoder_starts():
    for start in (0, 1, 2**30, 2**31, 2**32 - 1):
        bench = Bench(config(debounce_counts=0xFFFF), encoder=start)
        bench.eye()
        assert bench.ctl.next_part == 2


def test_a_part_half_the_range_from_the_last_one_is_another():
    bench = Bench(config(debounce_counts=0xFFFF))
    bench.eye()
    at(bench, 2**31 - 1)
    at(bench, 2**31)
    bench.eye()
    assert bench.ctl.next_part == 3


@pytest.mark.parametrize("start", [1000, 5, 2**31 + 5])
def test_a_belt_springs_back_by_16_counts_and_reverses_by_17(start):
    bench = Bench(encoder=start)
    bench.move(3)
    at(bench, start + 3 - 16)
    assert bench.ctl.is_healthy
    at(bench, start + 3 - 17)
    assert Flags.BELT_REVERSED in bench.ctl.flags and bench.ctl.is_tripped
    at(bench, start + 2)
    assert Flags.BELT_REVERSED in bench.ctl.flags
    at(bench, start + 3)
    assert Flags.BELT_REVERSED not in bench.ctl.flags
    assert bench.ask(Arm(BOOT, True))[0].status is Status.OK


# Table and log when they are full


def test_the_table_takes_48_parts_and_no_more():
    bench = Bench()
    for _ in range(PART_SLOTS):
        bench.eye()
    assert bench.ctl.counts.overflows == 0 and bench.ctl.is_healthy
    lost = bench.eye()
    assert bench.ctl.counts.overflows == 1 and bench.ctl.counts.trips == 1 and bench.ctl.is_tripped
    assert bench.verdict(lost, A) == (Answer.LATE, Verdict.NONE)  # it was numbered, and is swept
    bench.eye()
    assert bench.ctl.counts.overflows == 2 and bench.ctl.counts.trips == 1


def test_a_settled_part_makes_room_and_an_open_one_does_not():
    bench = Bench(config(watchdog_ms=10_000))
    bench.eye()
    bench.move(1041)
    for _ in range(PART_SLOTS):
        bench.eye()
        bench.move(1)
    assert bench.ctl.counts.overflows == 0
    bench.eye()
    assert bench.ctl.counts.overflows == 1


def test_parts_go_round_the_table_and_each_keeps_its_own_verdict():
    bench = Bench(config(decide_counts=90, fire_counts=100, pulse_counts=2))
    wanted = {}
    for count in range(4 * PART_SLOTS):
        verdict = (A, R, None)[count % 3]
        part = bench.eye()
        if verdict is not None:
            assert bench.verdict(part, verdict) == (Answer.STORED, verdict)
        wanted[part] = {A: "PASSED", R: "FIRED", None: "DEFAULTED"}[verdict]
        bench.move(4)
    bench.move(110)
    assert {part: bench.kinds(part) for part in wanted} == {part: ["TRIGGER", end] for part, end in wanted.items()}
    ons = [edge.encoder for edge in bench.edges if edge.is_on]
    assert ons == [4 * count + 100 for count in range(4 * PART_SLOTS) if count % 3]


def test_what_is_forgotten_was_late_and_what_never_was_is_unknown():
    bench = Bench(next_part=100)
    part = bench.eye()
    bench.move(1041)
    for _ in range(PART_SLOTS):
        bench.eye()
    assert bench.verdict(part, R) == (Answer.LATE, Verdict.NONE)
    assert bench.verdict(bench.ctl.next_part, R) == (Answer.UNKNOWN, Verdict.NONE)
    assert bench.verdict(bench.ctl.next_part - 1, R) == (Answer.STORED, R)
    assert bench.verdict(0, R) == (Answer.UNKNOWN, Verdict.NONE)


def test_parts_are_told_apart_by_all_of_their_number():
    bench = Bench(next_part=0x0003_FFFF)
    first, second = bench.eye(), bench.eye()
    for other in (0xFFFF, 0x0002_FFFF, 0x0004_FFFF, 0x0003_0000, 0):
        assert bench.verdict(other, A)[0] in (Answer.LATE, Answer.UNKNOWN)
    assert bench.verdict(first, A) == (Answer.STORED, A) and bench.verdict(second, R) == (Answer.STORED, R)
    assert [event.part_id for event in bench.log] == [0x0003_FFFF, 0x0004_0000]


def test_parts_begin_with_1_and_the_log_with_0():
    controller = Controller(BOOT, next_part=0)
    assert controller.next_part == 1


def test_counts_stop_when_they_are_full():
    bench = Bench(config(debounce_counts=9))
    bench.eye()
    call, host = bench.ctl._core.host_on_eye, bench.ctl._host
    for _ in range(65_534):
        call(host, 0, 0)
    assert bench.ctl.counts.bounces == 65_534
    for _ in range(3):
        call(host, 0, 0)
    assert bench.ctl.counts.bounces == 65_535


# Configuration and arming


@pytest.mark.parametrize(
    ("changed", "is_good"),
    [
        ({"decide_counts": 1}, True), ({"decide_counts": 0}, False),
        ({"decide_counts": 1000}, True), ({"decide_counts": 1001}, False),
        ({"fire_counts": 0x8000}, True), ({"fire_counts": 0x8001}, False),
        ({"pulse_counts": 1}, True), ({"pulse_counts": 0}, False), ({"pulse_counts": 0xFFFF}, True),
        ({"confirm_counts": 0x8000}, True), ({"confirm_counts": 0x8001}, False),
        ({"watchdog_ms": 50}, True), ({"watchdog_ms": 49}, False),
        ({"watchdog_ms": 10_000}, True), ({"watchdog_ms": 10_001}, False),
        ({"max_on_ms": 1}, True), ({"max_on_ms": 0}, False), ({"max_on_ms": 0xFFFF}, True),
        ({"default": A}, True), ({"default": Verdict.NONE}, False),
        ({"inputs": 0x30}, True), ({"inputs": 0x31}, False), ({"inputs": 0x70}, False), ({"inputs": 0x80}, False),
    ],
    ids=str,
)  # fmt: skip
def test_a_value_is_good_up_to_its_limit(changed, is_good):
    bench = Bench(armed=False)
    wanted = config(**changed)
    (done,) = bench.ask(wanted)
    assert done.status is (Status.OK if is_good else Status.BAD_VALUE)
    assert bench.ctl.config == (wanted if is_good else CONFIG)
    restarted = Bench(None, armed=False, saved=wanted)
    assert restarted.ctl.config == (wanted if is_good else None)


def test_a_configuration_is_kept_for_a_restart_when_it_is_new():
    bench = Bench(None, armed=False)
    assert hidden(bench)[2:3] == [0]
    bench.ask(CONFIG)
    assert hidden(bench)[2:] == [1, 1000]
    bench.ask(CONFIG)
    bench.ask(config(decide_counts=0))
    assert hidden(bench)[2] == 1  # an EEPROM wears out
    bench.ask(config(fire_counts=1001))
    assert hidden(bench)[2:] == [2, 1001]


def test_a_new_configuration_moves_what_is_due():
    bench = Bench(armed=False)
    bench.eye()
    assert bench.ctl.next_encoder() == 900
    bench.ask(config(decide_counts=500))
    assert bench.ctl.next_encoder() == 500


@pytest.mark.parametrize("flag", [Flags.BIN_FULL, Flags.AIR_LOW])
def test_a_new_configuration_wires_and_unwires_inputs_at_once(flag):
    bench = Bench(armed=False)
    assert not bench.ctl.flags & BLOCKING
    bench.ask(config(inputs=int(flag)))
    assert bench.ctl.flags & BLOCKING == flag  # unread wires are faults
    assert bench.ask(Arm(BOOT, True))[0].status is Status.BLOCKED and not bench.ctl.is_armed
    bench.ask(config(inputs=0))
    assert not bench.ctl.flags & BLOCKING and bench.ask(Arm(BOOT, True))[0].status is Status.OK


def test_a_restart_begins_with_the_faults_of_the_inputs_that_are_wired():
    for inputs in (Flags.BIN_FULL, Flags.AIR_LOW, Flags.BIN_FULL | Flags.AIR_LOW, Flags(0)):
        bench = Bench(None, armed=False, saved=config(inputs=int(inputs)))
        assert bench.ctl.flags == inputs


def test_disarming_leaves_what_was_decided_and_defaults_what_was_open():
    bench = Bench(config(watchdog_ms=10_000))
    decided = judged(bench, A)
    bench.encoder = 300
    first, second = judged(bench, A), judged(bench, A)
    at(bench, 900)
    bench.ask(Arm(BOOT, False))
    assert not bench.ctl.is_healthy and not bench.ctl.is_tripped and bench.ctl.counts.trips == 0
    assert bench.verdict(first, A) == (Answer.LATE, R) and bench.verdict(second, A) == (Answer.LATE, R)
    at(bench, 1000)
    at(bench, 1300)
    assert bench.kinds(decided)[1:] == ["PASSED"]
    assert bench.kinds(first)[1:] == bench.kinds(second)[1:] == ["DEFAULTED"]


def test_a_hold_is_given_and_taken_back_by_beats_of_this_boot_alone():
    bench = Bench()
    for nonce, hold in enumerate((False, True, True, False, False, True)):
        bench.ask(Beat(BOOT, nonce, hold=hold))
        assert bench.ctl.is_holding == hold
    bench.ask(Beat(BOOT + 1, 9, hold=False))
    assert bench.ctl.is_holding


def test_healthy_falls_with_the_trip_and_comes_back_with_arming():
    bench = Bench()
    clock(bench, 500_001)
    assert bench.ctl.flags == Flags.TRIPPED and not bench.ctl.is_healthy
    bench.ask(Arm(BOOT, False))
    assert bench.ctl.flags == Flags.TRIPPED
    bench.ask(Arm(BOOT, True))
    assert bench.ctl.flags == Flags.ARMED | Flags.HEALTHY and bench.ctl.is_healthy
