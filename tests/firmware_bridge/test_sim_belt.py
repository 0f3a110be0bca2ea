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
from firmware_bridge.sim.belt import Act, BeltFaults, Laid
from firmware_bridge.sim.board import Beam
from firmware_bridge.sim.controller import ControllerSim
from firmware_bridge.sim.host_board import HostBoard

MS = 1_000_000
COUNTS_PER_S = 2000
PARTS = 20
SETUP = GateSetup(400, 500, 40, 500, debounce_counts=4, inputs=WIRED)


class Line:
    """A simulated controller and a link on its pty, on one fake clock. Every third part is rejected."""

    def __init__(self, *script, faults=None):
        self.now = 10**12
        self.sim = ControllerSim(
            Laid(PARTS, COUNTS_PER_S, (120, 120)), script=script, faults=faults, boot_id=9, clock=lambda: self.now
        )
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

    def make(*script, **words):
        made.append(Line(*script, **words))
        return made[-1]

    yield make
    for each in made:
        each.close()


def nothing_passed_unjudged(truth):
    for part in truth.parts:
        if part.is_removed is False:
            assert part.outcome == "passed" and part.part_id % 3 != 0, part


def test_a_bouncing_eye_makes_no_extra_parts(line):
    run = line(faults=BeltFaults(bounce=1.0))
    truth = run.run(2500)
    assert [part.part_id for part in truth.parts] == list(range(1, 21))
    assert {part.outcome for part in truth.parts} == {"passed", "fired"}
    assert truth.counts["bounces"] == 4 * PARTS and truth.stray == 0
    nothing_passed_unjudged(truth)


def test_a_belt_that_stops_is_waited_for(line):
    run = line(Act(3, 0, "speed", 0), Act(3, 300, "speed", 1), Act(9, 20, "speed", 0), Act(9, 170, "speed", 1))
    truth = run.run(3500)
    assert len(run.of(Settled)) == 20 and {part.outcome for part in truth.parts} == {"passed", "fired"}
    assert [part.is_removed for part in truth.parts] == [part.part_id % 3 == 0 for part in truth.parts]


def test_a_belt_that_runs_back_counts_no_part_twice(line):
    run = line(Act(6, 10, "speed", -1), Act(6, 135, "speed", 1), Act(12, 10, "speed", -1), Act(12, 135, "speed", 1))
    truth = run.run(4500)
    assert [part.part_id for part in truth.parts] == list(range(1, 21))
    assert any(event.belt_reversed for event in run.of(InputChanged))
    assert any("ran backwards" in event.reason for event in run.of(LinkBlocked))
    assert {part.outcome for part in truth.parts} <= {"passed", "fired", "defaulted"}
    assert truth.stray == 0 and run.link.is_armed
    nothing_passed_unjudged(truth)


@pytest.mark.parametrize(
    ("verb", "words"),
    [("air", "air pressure low"), ("bin", "reject bin full: empty it")],
    ids=["air", "bin"],
)
def test_an_input_disarms_the_line_and_it_comes_back_by_itself(line, verb, words):
    run = line(Act(5, 0, verb, 0), Act(5, 400, verb, 1))
    truth = run.run(2500)
    assert [words in event.reason for event in run.of(LinkBlocked)] == [True]
    assert run.link.is_armed and truth.counts["trips"] == 1
    assert sum(part.outcome == "defaulted" for part in truth.parts) >= 2
    nothing_passed_unjudged(truth)


def test_a_lost_encoder_is_noticed_and_what_cannot_be_followed_is_swept(line):
    run = line(Act(7, 0, "encoder", 0), Act(7, 400, "encoder", 1))
    truth = run.run(3000)
    assert any("encoder gives no counts" in event.reason for event in run.of(LinkBlocked))
    assert truth.sweeps == 1 and run.link.is_armed
    assert [part.part_id for part in truth.parts].count(0) >= 2


@given(st.lists(st.floats(0, 5000), max_size=30), st.integers(0, 20_000), st.integers(0, 20_000))
def test_a_board_run_in_pieces_is_where_one_run_at_once_is(pieces, quarters_per_s, then):
    """Places, and what was seen on the way, do not depend on how often a world looks."""
    seen = []
    for steps in (pieces, [sum(pieces)]):
        board = HostBoard(boot_id=1)
        board.shadow(Beam.EYE, 40, 47)
        board.shadow(Beam.CONFIRM, 60, 61)
        board.speed(quarters_per_s)
        for us in steps:
            board.run(us)
        board.speed(-then)
        board.run(3000)
        seen.append((board.quarter, [(note.what, note.level, note.quarter) for note in board.notes()]))
    assert seen[0] == seen[1]
