"""The line's way to the controller: what the link says becomes what the line understands, exactly once."""

from __future__ import annotations

import threading
import time

import pytest

from edge_runtime.actuation.rejecter import Rejecter
from edge_runtime.core.clock import monotonic_ns
from edge_runtime.core.config import ControllerConfig, SafeAction
from edge_runtime.core.messages import Cause, Decision, Outcome, PartKey, Verdict
from edge_runtime.flow.components import State
from firmware_bridge import link_events as wire
from firmware_bridge.messages import Answer
from firmware_bridge.messages import Verdict as WireVerdict
from firmware_bridge.simulator import ControllerSim

PATIENCE_S = 20.0
CONFIG = ControllerConfig(decide_counts=2400, fire_counts=2500, pulse_counts=20)  # half a second to decide


def decision(key, verdict):
    return Decision(key, verdict, Cause.MODEL, "test", 0.5, 0, None, 0, "scratch@1")


class Belt:
    """Parts each 20 ms on a belt of 5000 counts a second."""

    def __init__(self, parts):
        self.parts, self.start_ns = parts, 0

    def begin(self, now_ns):
        self.start_ns = self.start_ns or now_ns

    def encoder_at(self, now_ns):
        return (now_ns - self.start_ns) * 5 // 1_000_000 if self.start_ns else 0

    def has_part(self, index):
        return index < self.parts

    def eye_counts(self, index):
        return 100 + 100 * index


class Hall:
    """A simulated controller on a thread, a rejecter at its pty, and a line that decides by `verdicts`."""

    def __init__(self, parts, verdicts, safe_action=SafeAction.REJECT):
        self.sim = ControllerSim(Belt(parts))
        self.verdicts = verdicts
        self.triggers, self.reports, self.events = [], {}, []
        self.rejecter = Rejecter(
            CONFIG, self.sim.path, safe_action, monotonic_ns,
            on_trigger=self.on_trigger, on_report=self.on_report, on_event=self.events.append,
        )  # fmt: skip
        self.is_stopping = threading.Event()
        self.thread = threading.Thread(target=self._simulate)
        self.thread.start()

    def _simulate(self):
        while not self.is_stopping.is_set():
            self.sim.step()

    def on_trigger(self, trigger):
        self.triggers.append(trigger)
        verdict = self.verdicts[(trigger.key.part_id - 1) % len(self.verdicts)]
        if verdict is not None:
            self.rejecter.write(decision(trigger.key, verdict))

    def on_report(self, report):
        assert report.key not in self.reports
        self.reports[report.key] = report

    def kinds(self):
        return [event.kind for event in self.events]

    def until(self, is_true):
        end = time.monotonic() + PATIENCE_S
        while not is_true():
            assert time.monotonic() < end, (self.rejecter.report(), self.events)
            time.sleep(0.002)

    def close(self):
        self.rejecter.stop()
        self.is_stopping.set()
        self.thread.join(PATIENCE_S)
        self.sim.close()


@pytest.fixture
def make_hall():
    halls = []

    def make(*args, **kwargs):
        halls.append(Hall(*args, **kwargs))
        return halls[-1]

    yield make
    for hall in halls:
        hall.close()


def test_verdicts_become_outcomes_and_drain_waits_for_them(make_hall):
    hall = make_hall(12, [Verdict.ACCEPT, Verdict.REJECT, Verdict.UNSURE, None])
    hall.rejecter.start()
    assert hall.rejecter.health().state is State.DEGRADED and hall.triggers == []
    assert hall.rejecter.arm(PATIENCE_S)
    assert hall.rejecter.health().state is State.OK
    hall.until(lambda: len(hall.triggers) == 12)
    assert hall.rejecter.drain(PATIENCE_S)
    hall.until(lambda: len(hall.reports) == 12)
    wanted = [Outcome.PASSED, Outcome.FIRED, Outcome.FIRED, Outcome.DEFAULTED] * 3
    assert [hall.reports[trigger.key].outcome for trigger in hall.triggers] == wanted
    assert [trigger.encoder for trigger in hall.triggers] == [100 + 100 * index for index in range(12)]
    assert hall.kinds() == ["link.up"]
    hall.rejecter.disarm()
    hall.until(lambda: not hall.sim.controller.is_armed)


def test_unsure_is_accepted_where_the_station_says_so(make_hall):
    hall = make_hall(4, [Verdict.UNSURE, None], SafeAction.ACCEPT)
    hall.rejecter.start()
    hall.rejecter.arm(PATIENCE_S)
    hall.until(lambda: len(hall.reports) == 4)
    outcomes = [report.outcome for report in hall.reports.values()]
    assert outcomes == [Outcome.PASSED, Outcome.DEFAULTED] * 2
    assert hall.sim.truth().pulses == 0


def test_a_part_is_decided_once(make_hall):
    hall = make_hall(1, [Verdict.REJECT])
    hall.rejecter.start()
    hall.rejecter.arm(PATIENCE_S)
    hall.until(lambda: hall.triggers)
    hall.rejecter.write(decision(hall.triggers[0].key, Verdict.ACCEPT))
    hall.until(lambda: hall.reports)
    assert hall.reports[hall.triggers[0].key].outcome is Outcome.FIRED
    assert hall.rejecter.report()["write_repeats"] == 1


def test_a_lost_controller_is_degraded_told_and_never_raises(make_hall):
    hall = make_hall(3, [Verdict.ACCEPT])
    hall.rejecter.start()
    hall.rejecter.arm(PATIENCE_S)
    hall.is_stopping.set()  # the controller loses power
    hall.thread.join(PATIENCE_S)
    hall.until(lambda: "link.lost" in hall.kinds())
    health = hall.rejecter.health()
    assert health.state is State.DEGRADED and "no controller answers" in health.detail
    hall.rejecter.write(decision(PartKey(1, 1), Verdict.ACCEPT))
    assert not hall.rejecter.drain(0.01) or hall.rejecter.report()["verdicts_hopeless"] == 1


def test_a_controller_that_comes_later_is_taken_up(make_hall):
    hall = make_hall(1, [Verdict.ACCEPT])
    hall.is_stopping.set()
    hall.thread.join(PATIENCE_S)
    hall.rejecter._port.start(wait_s=0.01)  # as `start`, with less patience
    hall.rejecter._is_started = True
    hall.rejecter.arm(0.0)
    assert hall.rejecter.health().state is State.DEGRADED
    hall.is_stopping.clear()
    hall.thread = threading.Thread(target=hall._simulate)
    hall.thread.start()
    hall.until(lambda: hall.rejecter.health().state is State.OK)


def test_a_missing_port_is_told_and_waited_for_and_stop_is_safe(tmp_path):
    rejecter = _idle(str(tmp_path / "none"))
    rejecter.start()
    health = rejecter.health()
    assert health.state is State.DEGRADED and "check the cable" in health.detail
    assert not rejecter.arm(0.0)
    rejecter.stop()
    rejecter.stop()


def _idle(port="", triggers=None, reports=None, events=None):
    """A rejecter that is not started, to feed link events to."""
    return Rejecter(
        CONFIG, port, SafeAction.REJECT, lambda: 7,
        on_trigger=([] if triggers is None else triggers).append,
        on_report=([] if reports is None else reports).append,
        on_event=([] if events is None else events).append,
    )  # fmt: skip


def test_missed_parts_get_rows_but_no_verdict():
    triggers, events = [], []
    rejecter = _idle(triggers=triggers, events=events)
    rejecter._take(wire.PartsMissed(9, 4, 6, 0, 123))
    assert [(t.key, t.at_ns, t.missed) for t in triggers] == [(PartKey(9, part), 123, True) for part in (4, 5, 6)]
    for trigger in triggers:
        rejecter.write(decision(trigger.key, Verdict.ACCEPT))
    report = rejecter.report()
    assert report["unjudgeable"] == 3 and report["pending_verdicts"] == 0
    assert rejecter.drain(0.0)


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (wire.LinkUp(9), "link.up"),
        (wire.LinkLost("silence"), "link.lost"),
        (wire.LinkRefused("reflash"), "link.refused"),
        (wire.Tripped("watchdog", 3), "controller.tripped"),
        (wire.EventsLost(3), "controller.events_lost"),
        (wire.ControllerReset(8, 9), "controller.reset"),
        (wire.GateConfirmed(9, 1, False), "gate.unconfirmed"),
        (wire.VerdictAnswered(9, 1, Answer.LATE, WireVerdict.REJECT, 5), "verdict.late"),
        (wire.VerdictAnswered(9, 1, Answer.CONFLICT, WireVerdict.REJECT, 5), "verdict.conflict"),
    ],
)
def test_what_happens_to_the_link_is_told(event, kind):
    events = []
    rejecter = _idle(events=events)
    rejecter._take(event)
    assert [told.kind for told in events] == [kind] and events[0].at_ns == 7
    assert rejecter.report()[kind] == 1


def test_a_verdict_stored_or_confirmed_is_no_news():
    events = []
    rejecter = _idle(events=events)
    rejecter._take(wire.VerdictAnswered(9, 1, Answer.STORED, WireVerdict.ACCEPT, 5))
    rejecter._take(wire.GateConfirmed(9, 1, True))
    assert events == []


def test_outcomes_are_reported_as_the_core_names_them():
    reports = []
    rejecter = _idle(reports=reports)
    for outcome in wire.Outcome:
        rejecter._take(wire.Settled(9, 1, outcome, 77, 88))
    assert [report.outcome for report in reports] == list(Outcome)
    assert reports[0].key == PartKey(9, 1) and reports[0].encoder == 77 and reports[0].at_ns == 88
