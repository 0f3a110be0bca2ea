"""The host's link, message by message, against answers written by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.reject.far_side import Phase
from firmware_bridge.reject.frames import Deframer, encode_frame
from firmware_bridge.reject.gate_setup import GateSetup
from firmware_bridge.reject.link import Link
from firmware_bridge.reject.link_events import (
    ControllerReset,
    EventsLost,
    GateConfirmed,
    InputChanged,
    LinkBlocked,
    LinkLost,
    LinkRefused,
    LinkUp,
    Outcome,
    PartsMissed,
    Settled,
    Triggered,
    Tripped,
    VerdictAnswered,
)
from firmware_bridge.reject.messages import (
    PROTOCOL_VERSION,
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
    unpack,
)
from firmware_bridge.reject.part_book import MAX_MISSED
from firmware_bridge.reject.times import LOST_AFTER_NS, MS

BOOT = 500
SETUP = GateSetup(decide_counts=900, fire_counts=1000, pulse_counts=40, watchdog_ms=500)
DIGEST = SETUP.message(0).digest()
NO_FLAGS = Flags(0)


class Desk:
    """A link with its far end in the hands of the test."""

    def __init__(self, **kwargs):
        self.now = 10**12
        self.link = Link(SETUP, **kwargs)
        self.link.set_armed(True, self.now)
        self.link.opened(self.now)
        self.seq = 0

    def sent(self):
        return [unpack(p) for p in Deframer().feed(self.link.take_output())]

    def hear(self, *messages):
        for message in messages:
            self.link.feed(encode_frame(message.pack()), self.now)
        return self.link.take_events()

    def wait(self, ms):
        for _ in range(ms):
            self.now += MS
            self.link.tick(self.now)
        return self.link.take_events()

    def hello(self, boot=BOOT, oldest=0, following=None, flags=NO_FLAGS, digest=0, next_part=1):
        nonce = [m for m in self.sent() if isinstance(m, Hello)][-1].nonce
        following = oldest if following is None else following
        return self.hear(HelloR(PROTOCOL_VERSION, boot, nonce, 0, next_part, oldest, following, digest, flags))

    def up(self, **kwargs):
        events = self.hello(flags=Flags.ARMED | Flags.HEALTHY, digest=DIGEST, **kwargs)
        assert self.link.phase is Phase.UP
        self.seq = kwargs.get("oldest", 0)
        self.sent()
        return events

    def event(self, kind, part_id, encoder=0, time_us=0, boot=BOOT, seq=None):
        seq = self.seq if seq is None else seq
        self.seq = (seq + 1) & 0xFFFF
        return self.hear(EventMsg(boot, seq, kind, part_id, encoder, time_us))

    def beat(self, **kwargs):
        """Answer the newest beat."""
        self.wait(100)
        nonce = [m for m in self.sent() if isinstance(m, Beat)][-1].nonce
        fields = {"time_us": 0, "encoder": 0, "next_part": 1, "oldest_event": self.seq, "next_event": self.seq,
                  "flags": Flags.ARMED} | kwargs  # fmt: skip
        return self.hear(BeatR(BOOT, nonce, **fields))


def test_the_way_up_is_hello_config_arm_beat():
    desk = Desk()
    assert desk.hello() == []
    assert [m for m in desk.sent() if isinstance(m, Config)] == [SETUP.message(BOOT)]
    desk.hear(Done(BOOT, Config.KIND, Status.OK, Flags(0)))
    assert [m for m in desk.sent() if isinstance(m, Arm)] == [Arm(BOOT, True)]
    assert desk.hear(Done(BOOT, Arm.KIND, Status.OK, Flags.ARMED | Flags.HEALTHY)) == [LinkUp(BOOT)]
    desk.wait(1)
    assert [m.boot_id for m in desk.sent()] == [BOOT]
    assert desk.link.is_armed


def test_it_stays_disarmed_until_the_line_is_ready():
    desk = Desk()
    desk.link.set_armed(False, desk.now)
    desk.hello()
    desk.hear(Done(BOOT, Config.KIND, Status.OK, Flags(0)))
    assert desk.link.phase is Phase.READY
    desk.link.set_armed(True, desk.now)
    assert Arm(BOOT, True) in desk.sent()


def test_every_request_is_sent_again_until_answered():
    desk = Desk()
    desk.wait(220)
    assert len([m for m in desk.sent() if isinstance(m, Hello)]) == 5
    desk.wait(50)
    desk.hello()
    desk.wait(120)
    assert len([m for m in desk.sent() if isinstance(m, Config)]) == 3
    desk.hear(Done(BOOT, Config.KIND, Status.OK, Flags(0)))
    desk.wait(120)
    assert len([m for m in desk.sent() if isinstance(m, Arm)]) == 3


def test_a_running_line_with_our_values_is_not_disarmed():
    desk = Desk()
    assert desk.up() == [LinkUp(BOOT)]


def test_a_running_line_with_other_values_is_disarmed_first():
    desk = Desk()
    desk.hello(flags=Flags.ARMED, digest=DIGEST ^ 1)
    assert [m for m in desk.sent() if isinstance(m, Arm | Config)] == [Arm(BOOT, False), SETUP.message(BOOT)]


def test_another_protocol_is_refused_with_what_to_do():
    desk = Desk()
    (event,) = desk.hear(HelloR(PROTOCOL_VERSION ^ 1, BOOT, 0, 0, 1, 0, 0, 0, Flags(0)))
    assert isinstance(event, LinkRefused) and "reflash" in event.reason
    assert desk.link.phase is Phase.REFUSED
    desk.sent()
    desk.wait(1100)
    assert len([m for m in desk.sent() if isinstance(m, Hello)]) <= 2  # slowly: it may be being flashed
    desk.link._way_up._ask(desk.now)
    desk.hello()
    assert desk.link.phase is Phase.CONFIG


def test_values_the_controller_refuses_are_told():
    desk = Desk()
    desk.hello()
    (event,) = desk.hear(Done(BOOT, Config.KIND, Status.BAD_VALUE, Flags(0)))
    assert isinstance(event, LinkRefused) and "fire_counts=1000" in event.reason


def test_a_verdict_goes_out_at_once_and_again_each_30_ms_until_answered():
    desk = Desk()
    desk.up()
    desk.event(EventKind.TRIGGER, 1)
    desk.sent()
    desk.link.submit(BOOT, 1, True, desk.now)
    assert desk.sent() == [VerdictMsg(BOOT, 1, Verdict.REJECT)]
    desk.wait(95)
    assert len([m for m in desk.sent() if isinstance(m, VerdictMsg)]) == 3
    events = desk.hear(VerdictR(BOOT, 1, Answer.DUP, Verdict.REJECT))
    assert events == [VerdictAnswered(BOOT, 1, Answer.DUP, Verdict.REJECT, 95 * MS)]
    desk.wait(100)
    assert not [m for m in desk.sent() if isinstance(m, VerdictMsg)]


def test_the_first_verdict_for_a_part_wins_on_this_side_too():
    desk = Desk()
    desk.up()
    desk.event(EventKind.TRIGGER, 1)
    desk.sent()
    desk.link.submit(BOOT, 1, True, desk.now)
    desk.link.submit(BOOT, 1, False, desk.now)
    desk.hear(VerdictR(BOOT, 1, Answer.STORED, Verdict.REJECT))
    desk.link.submit(BOOT, 1, False, desk.now)
    assert [m for m in desk.sent() if isinstance(m, VerdictMsg)] == [VerdictMsg(BOOT, 1, Verdict.REJECT)]
    assert desk.link.counts["verdict_repeats"] == 2


def test_a_verdict_for_a_settled_part_or_another_boot_is_not_sent():
    desk = Desk()
    desk.up()
    desk.event(EventKind.TRIGGER, 1)
    desk.event(EventKind.DEFAULTED, 1)
    desk.sent()
    desk.link.submit(BOOT, 1, False, desk.now)
    desk.link.submit(BOOT + 1, 2, False, desk.now)
    assert desk.sent() == [] and desk.link.pending_verdicts == 0
    assert desk.link.counts["verdicts_hopeless"] == 2


def test_an_outcome_ends_the_retries():
    desk = Desk()
    desk.up()
    desk.event(EventKind.TRIGGER, 1)
    desk.link.submit(BOOT, 1, False, desk.now)
    events = desk.event(EventKind.DEFAULTED, 1)
    assert [type(e) for e in events] == [Settled] and desk.link.pending_verdicts == 0


def test_events_are_taken_once_in_order_and_acknowledged():
    desk = Desk()
    desk.up(oldest=0xFFFE)
    first = EventMsg(BOOT, 0xFFFE, EventKind.TRIGGER, 1, 10, 0)
    second = EventMsg(BOOT, 0xFFFF, EventKind.TRIGGER, 2, 20, 0)
    third = EventMsg(BOOT, 0, EventKind.TRIGGER, 3, 30, 0)
    assert desk.hear(third) == []
    assert desk.sent() == [EvAck(BOOT, 0xFFFD)]
    assert [e.part_id for e in desk.hear(first, first)] == [1]
    assert [e.part_id for e in desk.hear(second)] == [2, 3]
    assert desk.sent()[-1] == EvAck(BOOT, 0)
    assert desk.hear(third, second) == [] and desk.sent()[-1] == EvAck(BOOT, 0)
    assert desk.link.counts["events_again"] == 3


def test_a_reset_makes_open_parts_unknown_and_comes_up_again():
    desk = Desk()
    desk.up()
    desk.event(EventKind.TRIGGER, 1, encoder=5)
    desk.link.submit(BOOT, 1, False, desk.now)
    desk.wait(60)
    assert desk.hear(EventMsg(BOOT + 1, 0, EventKind.TRIGGER, 1, 0, 0)) == []
    events = desk.hello(boot=BOOT + 1)
    assert events == [ControllerReset(BOOT, BOOT + 1), Settled(BOOT, 1, Outcome.UNKNOWN, 5, desk.now)]
    assert desk.link.pending_verdicts == 0 and desk.link.phase is Phase.CONFIG


def test_a_beat_answered_by_another_boot_starts_over():
    desk = Desk()
    desk.up()
    desk.wait(60)
    desk.sent()
    desk.hear(BeatR(BOOT + 1, 9, 0, 0, 1, 0, 0, Flags(0)))
    assert desk.link.phase is Phase.HELLO and isinstance(desk.sent()[-1], Hello)


def test_silence_is_a_lost_link_and_beats_are_repeated_before():
    desk = Desk()
    desk.up()
    events = desk.wait(LOST_AFTER_NS // MS)
    assert [type(e) for e in events] == [LinkLost]
    assert len([m for m in desk.sent() if isinstance(m, Beat)]) >= 15
    desk.wait(60)
    desk.event(EventKind.TRIGGER, 1)  # ignored: nothing is known before HELLO is answered
    assert desk.up() == [LinkUp(BOOT)]


def test_a_trip_is_told_and_armed_again():
    desk = Desk()
    desk.up()
    assert desk.event(EventKind.WATCHDOG, 0) == [Tripped("watchdog", desk.now)]
    assert Arm(BOOT, True) in desk.sent()
    assert desk.hear(Done(BOOT, Arm.KIND, Status.OK, Flags.ARMED)) == [LinkUp(BOOT)]
    desk.wait(1)
    assert desk.beat(flags=Flags.TRIPPED) == [Tripped("disarmed", desk.now)]


def test_overwritten_events_are_counted_and_their_parts_unknown():
    desk = Desk()
    desk.up()
    desk.event(EventKind.TRIGGER, 1, encoder=100)
    assert desk.beat(oldest_event=7, next_event=9, next_part=5) == [EventsLost(6)]
    events = desk.event(EventKind.TRIGGER, 4, encoder=900, seq=7)
    assert events[0] == PartsMissed(BOOT, 2, 3, 0, events[0].before_ns)
    assert isinstance(events[1], Triggered) and events[1].part_id == 4
    events = desk.event(EventKind.DEFAULTED, 3, encoder=1500)
    assert [(e.part_id, e.outcome) for e in events] == [
        (1, Outcome.UNKNOWN), (2, Outcome.UNKNOWN), (3, Outcome.DEFAULTED),
    ]  # fmt: skip


def test_a_part_past_the_gate_without_an_outcome_is_given_up_when_no_event_is_outstanding():
    desk = Desk()
    desk.up()
    desk.event(EventKind.TRIGGER, 1, encoder=2**32 - 10)
    assert desk.beat(encoder=900, next_part=2, next_event=2) == []  # its event is on the way
    assert desk.beat(encoder=1000, next_part=2) == []  # not far enough
    (event,) = desk.beat(encoder=1100, next_part=2)
    assert isinstance(event, Settled) and event.outcome is Outcome.UNKNOWN


def test_a_missed_last_part_is_found_by_the_next_beat():
    desk = Desk()
    desk.up()
    desk.event(EventKind.TRIGGER, 1, encoder=0)
    desk.event(EventKind.PASSED, 1, encoder=1000)
    (event,) = desk.beat(encoder=3000, next_part=3)
    assert isinstance(event, PartsMissed) and (event.first, event.last) == (2, 2)
    (event,) = desk.beat(encoder=4100, next_part=3)
    assert isinstance(event, Settled) and event.part_id == 2


def test_a_fresh_host_tells_no_part_of_the_past_as_missed():
    desk = Desk()
    desk.up(oldest=40, next_part=900)
    events = desk.event(EventKind.TRIGGER, 899)
    assert [type(e) for e in events] == [Triggered]


def test_a_host_that_resumes_tells_what_it_missed():
    desk = Desk(resume=(BOOT, 850))
    desk.up(oldest=40, next_part=900)
    events = desk.event(EventKind.TRIGGER, 899)
    assert (events[0].first, events[0].last, events[0].untold) == (851, 898, 0)


def test_too_many_missed_parts_are_not_told_one_by_one():
    desk = Desk(resume=(BOOT, 1))
    desk.up(oldest=40)
    events = desk.event(EventKind.TRIGGER, 50_000)
    assert events[0].last - events[0].first + 1 == MAX_MISSED
    assert events[0].untold == 49_998 - MAX_MISSED
    assert desk.link.counts["parts_missed"] == 49_998


def test_overflow_is_a_part_with_the_default_and_does_not_settle_those_before():
    desk = Desk()
    desk.up()
    desk.event(EventKind.TRIGGER, 1)
    events = desk.event(EventKind.OVERFLOW, 2)
    assert [type(e) for e in events] == [Triggered, Settled, Tripped]
    assert events[1].outcome is Outcome.DEFAULTED and desk.link.open_parts == 1


def test_the_confirm_sensor_is_passed_on():
    desk = Desk()
    desk.up()
    assert desk.event(EventKind.UNCONFIRMED, 3) == [GateConfirmed(BOOT, 3, False)]


def test_triggers_are_stamped_by_the_related_clocks():
    desk = Desk()
    desk.up()
    start, us = desk.now, 0
    for _ in range(30):  # a controller clock 2000 ppm fast
        us = round((desk.now + 100 * MS - start) / 1000 * 1.002)
        desk.beat(time_us=us, next_part=1)
    desk.now += 250 * MS  # the event was 200 ms on its way
    at_eye = desk.now - 200 * MS
    (event,) = desk.event(EventKind.TRIGGER, 1, time_us=round((at_eye - start) / 1000 * 1.002))
    assert event.is_related and abs(event.at_ns - at_eye) < 0.3 * MS


def test_our_own_echo_is_ignored():
    desk = Desk()
    desk.up()
    before = desk.link.phase
    assert desk.hear(Hello(PROTOCOL_VERSION, 1), VerdictMsg(BOOT, 1, Verdict.ACCEPT)) == []
    assert desk.link.phase is before and desk.link.counts["not_ours"] == 2


@pytest.mark.parametrize("is_up", [False, True])
@settings(max_examples=150, deadline=None)
@given(data=st.lists(st.binary(max_size=40), max_size=6))
def test_any_bytes_leave_it_working(is_up, data):
    desk = Desk()
    if is_up:
        desk.up()
    for piece in data:
        desk.link.feed(piece, desk.now)
        if piece:
            desk.link.feed(b"\0" + encode_frame(piece[:32]), desk.now)
    desk.wait(700)
    desk.link.closed("test", desk.now)
    desk.link.opened(desk.now)
    desk.link.take_output()
    desk.wait(60)
    desk.hello(boot=BOOT + 7, digest=DIGEST, flags=Flags.ARMED)
    assert desk.link.phase is Phase.UP


def test_a_blocked_controller_is_asked_on_and_says_once_what_to_do():
    desk = Desk()
    desk.hello(digest=DIGEST)
    blocked = Done(BOOT, Arm.KIND, Status.BLOCKED, Flags.BIN_FULL | Flags.AIR_LOW)
    (event,) = desk.hear(blocked)
    assert event == LinkBlocked(
        "reject bin full: empty it; air pressure low: check the supply and the valve of the gate"
    )
    assert desk.link.detail == event.reason and not desk.link.is_armed
    desk.sent()
    assert desk.wait(60) == [] and Arm(BOOT, True) in desk.sent()
    assert desk.hear(blocked) == []
    (event,) = desk.hear(Done(BOOT, Arm.KIND, Status.BLOCKED, Flags.BIN_FULL))
    assert event == LinkBlocked("reject bin full: empty it")
    assert desk.hear(Done(BOOT, Arm.KIND, Status.OK, Flags.ARMED | Flags.HEALTHY)) == [LinkUp(BOOT)]


def test_an_input_is_told_as_it_comes_and_goes():
    desk = Desk()
    desk.hello(digest=DIGEST)
    flags = Flags.TRIPPED | Flags.ENCODER_LOST
    (event,) = desk.hear(EventMsg(BOOT, 0, EventKind.INPUT, int(flags), 7, 0))
    assert isinstance(event, InputChanged)
    assert (event.bin_full, event.air_low, event.encoder_lost, event.belt_reversed) == (False, False, True, False)
