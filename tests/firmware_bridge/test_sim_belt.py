"""The simulated line on its bad days: the C core behind a pty, a belt that stumbles, sensors that lie."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.reject.gate_setup import GateSetup
from firmware_bridge.reject.link import Link
from firmware_bridge.reject.link_events import InputChanged, LinkBlocked, Settled, Triggered
from firmware_bridge.reject.messages import WIRED
from firmware_bridge.sim.belt import BadBelt, Drive
from firmware_bridge.sim.controller import ControllerSim

MS = 1_000_000
COUNTS_PER_S = 2000
SETUP = GateSetup(400, 500, 40, 500, debounce_counts=4, inputs=WIRED)


class Belt:
    """Parts 120 counts apart on a belt that starts when told."""

    def __init__(self, parts):
        self.parts = parts
        self.begun_ns = None

    def begin(self, now_ns):
        self.begun_ns = self.begun_ns or now_ns

    def encoder_at(self, now_ns):
        return 0 if self.begun_ns is None else (now_ns - self.begun_ns) * COUNTS_PER_S // 10**9

    def has_part(self, index):
        return index < self.parts

    def eye_counts(self, index):
        return 100 + 120 * index


class Line:
    """A simulated controller and a link on its pty, on one fake clock. Every third part is rejected."""

    def __init__(self, bad, parts=20):
        self.now = 10**12
        self.sim = ControllerSim(Belt(parts), bad_belt=bad, boot_id=9, clock=lambda: self.now)
        self.link = Link(SETUP)
        self.link.opened(self.now)
        self.link.set_armed(True, self.now)
        self.news = []
        self.port = os.open(self.sim.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

    def run(self, ms):
        for _ in range(ms):
            self.now += MS
            self.link.tick(self.now)
            if output := self.link.take_output():
                os.write(self.port, output)
            self.sim.step(0)
            try:
                self.link.feed(os.read(self.port, 4096), self.now)
            except BlockingIOError:
                pass
            for event in self.link.take_events():
                self.news.append(event)
                if isinstance(event, Triggered):
                    self.link.submit(event.boot_id, event.part_id, event.part_id % 3 == 0, self.now)
        return self.sim.truth()

    def of(self, kind):
        return [event for event in self.news if isinstance(event, kind)]

    def close(self):
        os.close(self.port)
        self.sim.close()


@pytest.fixture
def line():
    made = []

    def make(bad, parts=20):
        made.append(Line(bad, parts))
        return made[-1]

    yield make
    for each in made:
        each.close()


def nothing_passed_unjudged(truth):
    for part in truth.parts:
        if part.is_removed is False:
            assert part.outcome == "passed" and part.part_id % 3 != 0, part


def test_a_bouncing_eye_makes_no_extra_parts(line):
    run = line(BadBelt(bounce=1.0))
    truth = run.run(2500)
    assert [part.part_id for part in truth.parts] == list(range(1, 21))
    assert {part.outcome for part in truth.parts} == {"passed", "fired"}
    assert truth.counts["bounces"] == 60 and truth.stray == 0
    nothing_passed_unjudged(truth)


def test_a_belt_that_stops_is_waited_for(line):
    run = line(BadBelt(stumble_every=700, stop_counts=300))
    truth = run.run(3500)
    assert len(run.of(Settled)) == 20 and {part.outcome for part in truth.parts} == {"passed", "fired"}
    assert [part.is_removed for part in truth.parts] == [part.part_id % 3 == 0 for part in truth.parts]


def test_a_belt_that_runs_back_counts_no_part_twice(line):
    run = line(BadBelt(stumble_every=900, reverse_counts=250))
    truth = run.run(4500)
    assert [part.part_id for part in truth.parts] == list(range(1, 21))
    assert any(event.belt_reversed for event in run.of(InputChanged))
    assert any("ran backwards" in event.reason for event in run.of(LinkBlocked))
    assert {part.outcome for part in truth.parts} <= {"passed", "fired", "defaulted"}
    assert truth.stray == 0 and run.link.is_armed
    nothing_passed_unjudged(truth)


@pytest.mark.parametrize(
    ("bad", "words"),
    [(BadBelt(air_low=(0.4, 0.8)), "air pressure low"), (BadBelt(bin_full=(0.4, 0.8)), "reject bin full: empty it")],
    ids=["air", "bin"],
)
def test_an_input_disarms_the_line_and_it_comes_back_by_itself(line, bad, words):
    run = line(bad)
    truth = run.run(2500)
    assert [words in event.reason for event in run.of(LinkBlocked)] == [True]
    assert run.link.is_armed and truth.counts["trips"] == 1
    assert sum(part.outcome == "defaulted" for part in truth.parts) >= 2
    nothing_passed_unjudged(truth)


def test_a_lost_encoder_is_noticed_and_what_cannot_be_followed_is_swept(line):
    run = line(BadBelt(encoder_lost=(0.5, 0.9)))
    truth = run.run(3000)
    assert any("encoder gives no counts" in event.reason for event in run.of(LinkBlocked))
    assert truth.sweeps == 1 and run.link.is_armed
    assert [part.part_id for part in truth.parts].count(0) >= 2


@given(st.integers(0, 500), st.integers(0, 300), st.integers(0, 300), st.lists(st.integers(0, 200), max_size=40))
def test_a_drive_ends_where_its_legs_lead_and_never_leaps(every, stop, back, moves):
    drive, raw, count = Drive(BadBelt(stumble_every=every, stop_counts=stop, reverse_counts=back), 7), 7, 7
    for move in moves:
        at = raw
        raw += move
        for leg in drive.to(raw):
            assert abs(leg.count - count) <= leg.raw - at
            at, count = leg.raw, leg.count
        assert at == raw
    if not every:
        assert count == raw
