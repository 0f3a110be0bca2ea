"""Commands at a real line with a scripted camera are in tests/lines; here is who does what."""

from collections import deque
from dataclasses import replace
from types import SimpleNamespace

import pytest

from edge_runtime.core.events import EventKind
from edge_runtime.core.messages import Cause, Command, Decision, Event, HumanLabel, Label, PartKey, Verdict, Where
from edge_runtime.decision.dialog import Act
from edge_runtime.station.operator_desk import OperatorDesk

KEY = PartKey(1, 7)
PASSED = Decision(KEY, Verdict.ACCEPT, Cause.MODEL, "scratch 0.10", 0.1, 1, 2, 3, "scratch@1")


class Line:
    def __init__(self):
        self.people = SimpleNamespace(decide=self.decide)
        self.recent = deque([PASSED])
        self.waiting = None
        self.decided, self.labels, self.events = [], [], []

    def decide(self, verdict, where):
        self.decided.append(verdict)
        return self.waiting

    def label(self, label):
        self.labels.append(label)

    def on_event(self, event):
        self.events.append(event)


@pytest.fixture
def desk():
    line, holds = Line(), []
    desk = OperatorDesk(line, holds.append, lambda: 5)
    return desk, line, holds


def test_a_verdict_decides_the_part_that_waits(desk):
    desk, line, _ = desk
    line.waiting = KEY
    desk.carry_out(Act(Command.REJECT))
    assert (line.decided, line.labels) == ([Verdict.REJECT], [])


def test_a_verdict_without_a_part_that_waits_is_a_label_on_the_last_one(desk):
    desk, line, _ = desk
    desk.carry_out(Act(Command.ACCEPT))
    saw = ("scratch@1", Verdict.ACCEPT)
    assert line.labels == [HumanLabel(KEY, Label.ACCEPT, 5, "operator", Where.VOICE, "", "", *saw)]


def test_a_verdict_that_is_only_a_label_decides_nothing(desk):
    desk, line, _ = desk
    desk.carry_out(Act(Command.REJECT, as_label=True))
    assert (line.decided, [label.label for label in line.labels]) == ([], [Label.REJECT])


def test_who_labels_a_part_that_no_model_judged_saw_no_verdict_of_one(desk):
    desk, line, _ = desk
    line.recent.append(replace(PASSED, cause=Cause.DEADLINE, verdict=Verdict.UNSURE))
    desk.carry_out(Act(Command.REJECT, as_label=True))
    assert (line.labels[0].saw_model, line.labels[0].saw_verdict) == ("", None)


def test_rescan_is_told_with_its_part_and_says_nothing_about_what_it_is(desk):
    desk, line, _ = desk
    desk.carry_out(Act(Command.RESCAN))
    assert (line.labels, line.events) == ([], [Event(EventKind.OPERATOR_RESCAN, 5, {"by": "voice", "part": "0001-7"})])


def test_a_label_before_the_first_part_is_told_not_lost(desk):
    desk, line, _ = desk
    line.recent.clear()
    desk.carry_out(Act(Command.RESCAN))
    assert line.events == [Event(EventKind.OPERATOR_NO_PART, 5, {"by": "voice", "said": "rescan"})]


def test_next_ends_a_pause(desk):
    desk, _, holds = desk
    desk.carry_out(Act(Command.PAUSE))
    assert desk.held_by == "pause"
    desk.carry_out(Act(Command.NEXT))
    assert (holds, desk.held_by) == ([True, False], "")


def test_a_stopped_line_goes_on_only_by_resume(desk):
    desk, line, holds = desk
    desk.carry_out(Act(Command.STOP_LINE))
    desk.carry_out(Act(Command.PAUSE))
    desk.carry_out(Act(Command.NEXT))
    assert desk.held_by == "stop line"
    assert False not in holds
    assert desk.resume("cli")
    assert holds[-1] is False
    assert line.events[-1].kind == "operator.resumed"
    assert not desk.resume("cli")
