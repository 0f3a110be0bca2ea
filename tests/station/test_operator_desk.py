"""Commands at a real line with a scripted camera are in tests/lines; here is who does what."""

from collections import deque
from types import SimpleNamespace

import pytest

from edge_runtime.core.messages import Command, PartKey, Verdict
from edge_runtime.decision.dialog import Act
from edge_runtime.station.operator_desk import OperatorDesk

KEY = PartKey(1, 7)


class Line:
    def __init__(self):
        self.people = SimpleNamespace(decide=self.decide)
        self.recent = deque([SimpleNamespace(key=KEY)])
        self.waiting = None
        self.decided, self.labels, self.events = [], [], []

    def decide(self, verdict, by):
        self.decided.append(verdict)
        return self.waiting

    def label(self, label):
        self.labels.append((label.key, label.label, label.by))

    def on_event(self, event):
        self.events.append(event.kind)


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
    assert line.labels == [(KEY, "accept", "voice")]


def test_a_verdict_that_is_only_a_label_decides_nothing(desk):
    desk, line, _ = desk
    desk.carry_out(Act(Command.REJECT, as_label=True))
    assert (line.decided, line.labels) == ([], [(KEY, "reject", "voice")])


def test_a_label_before_the_first_part_is_told_not_lost(desk):
    desk, line, _ = desk
    line.recent.clear()
    desk.carry_out(Act(Command.RESCAN))
    assert line.events == ["operator.no_part"]


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
    assert line.events[-1] == "operator.resumed"
    assert not desk.resume("cli")
