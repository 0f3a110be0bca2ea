"""The line's way to the controller: what the link says becomes what the line understands, exactly once."""

from __future__ import annotations

import threading

import pytest

from edge_runtime.actuation.rejecter import Rejecter
from edge_runtime.config.schema import ControllerConfig, SafeAction
from edge_runtime.core.clock import monotonic_ns
from edge_runtime.core.messages import Cause, Decision, Outcome, PartKey, Verdict
from edge_runtime.flow.components import State
from firmware_bridge.modbus.registers import BoxBlock, Reason
from firmware_bridge.reject import link_events as wire
from firmware_bridge.reject.controller import Controller
from firmware_bridge.reject.messages import Answer, Flags
from firmware_bridge.reject.messages import Verdict as WireVerdict
from firmware_bridge.sim.belt import Act, Laid
from firmware_bridge.sim.controller import ControllerSim
from firmware_bridge.sim.plc import make_plc
from tests.support.waiting import until

PATIENCE_S = 20.0
CONFIG = ControllerConfig(decide_counts=2400, fire_counts=2500, pulse_counts=20)  # half a second to decide


def decision(key, verdict):
    return Decision(key, verdict, Cause.MODEL, "test", 0.5, 0, None, 0, "scratch@1")


class Hall:
    """A simulated controller on a thread, a rejecter at its pty, and a line that decides by `verdicts`."""

    def __init__(self, parts, verdicts, safe_action=SafeAction.REJECT, config=CONFIG, script=(), pitch=100):
        plc = make_plc("client" if config.role == "server" else "server", config.unit)
        make = plc if config.protocol == "modbus" else Controller
        self.sim = ControllerSim(Laid(parts, 5000, (pitch, pitch)), script=script, make=make)
        self.verdicts = verdicts
        self.triggers, self.reports, self.events = [], {}, []
        self.rejecter = Rejecter(
            config, self.sim.path, safe_action, monotonic_ns,
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
        until(is_true, why=lambda: (self.rejecter.report(), self.events))

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


@pytest.mark.parametrize("role", ["client", "server"])
def test_an_adapter_that_does_not_echo_as_set_is_named_in_health(make_hall, role):
    config = CONFIG.model_copy(update={"protocol": "modbus", "role": role, "rs485_echo": True})
    hall = make_hall(2, [Verdict.ACCEPT], config=config)
    hall.rejecter.start()
    assert hall.rejecter.arm(PATIENCE_S)
    named = "the adapter does not echo: set controller.rs485_echo = false"
    hall.until(lambda: hall.rejecter.health().detail == f"armed; {named}")
    assert hall.rejecter.health().state is State.DEGRADED and hall.rejecter.report()["adapter_problem"] == named
    hall.until(lambda: len(hall.reports) == 2)
    assert {report.outcome for report in hall.reports.values()} == {Outcome.PASSED}


@pytest.mark.parametrize("role", ["client", "server"])
def test_a_plc_carries_verdicts_out_in_both_roles(make_hall, role):
    config = CONFIG.model_copy(update={"protocol": "modbus", "role": role})
    hall = make_hall(8, [Verdict.ACCEPT, Verdict.REJECT, Verdict.UNSURE, None], config=config)
    hall.rejecter.start()
    assert hall.rejecter.arm(PATIENCE_S)
    hall.until(lambda: len(hall.reports) == 8)
    wanted = [Outcome.PASSED, Outcome.FIRED, Outcome.FIRED, Outcome.DEFAULTED] * 2
    assert [hall.reports[trigger.key].outcome for trigger in hall.triggers] == wanted
    assert hall.kinds() == ["link.up"]


def test_cause_and_score_are_shown_to_the_plc():
    rejecter = _idle(config=CONFIG.model_copy(update={"protocol": "modbus"}))
    link, shown = rejecter._link, []
    link.submit = lambda *key, **words: shown.append((key[:3], words))
    for cause, score in ((Cause.RULE, 0.876), (Cause.NO_FRAME, None)):
        rejecter.write(Decision(PartKey(1, len(shown) + 1), Verdict.REJECT, cause, "test", score, 0, None, 0, "m@1"))
    assert shown == [
        ((1, 1, True), {"reason": Reason.RULE, "confidence": 876}),
        ((1, 2, True), {"reason": Reason.NO_FRAME, "confidence": 0}),
    ]
    assert BoxBlock(reason=Reason.RULE, confidence=876).pack()


def test_every_cause_has_a_number_at_the_plc():
    assert {cause.name for cause in Cause} == {reason.name for reason in Reason} - {"NOT_TOLD"}


@pytest.mark.parametrize("protocol", ["reject", "modbus"])
def test_a_full_bin_stops_the_line_is_told_and_ends_by_itself(make_hall, protocol):
    config = CONFIG.model_copy(update={"protocol": protocol, "inputs": ("bin_full",)})
    script = (Act(3, 0, "bin", 0), Act(3, 600, "bin", 1))
    hall = make_hall(400, [Verdict.ACCEPT], config=config, script=script, pitch=500)  # ten parts a second
    hall.rejecter.start()
    assert hall.rejecter.arm(PATIENCE_S)
    hall.until(lambda: "input.bin_full" in hall.kinds())
    health = hall.rejecter.health()
    assert (health.state, health.detail) == (State.DEGRADED, "reject bin full: empty it")
    assert hall.rejecter.report()["inputs"] == ["bin_full"]
    hall.until(lambda: hall.kinds().count("input.bin_full") == 2 and hall.rejecter.health().state is State.OK)
    first, second = [event.detail for event in hall.events if event.kind == "input.bin_full"]
    assert first == {"on": True, "what": "reject bin full: empty it"} and second["on"] is False
    hall.until(lambda: hall.kinds().count("link.up") == 2)  # told a moment after it is in health
    assert "controller.tripped" in hall.kinds()


def test_an_input_whose_event_was_lost_is_found_by_its_level():
    events = []
    rejecter = _idle(events=events)
    rejecter._link.far.flags = Flags.BIN_FULL | Flags.HEALTHY
    rejecter._take(wire.EventsLost(8))
    rejecter._take(wire.InputChanged(True, False, False, False, 3))  # no news any more
    assert [event.kind for event in events] == ["controller.events_lost", "input.bin_full"]
    assert rejecter.report()["inputs"] == ["bin_full"]


def test_a_hold_is_asked_for_and_reported(make_hall):
    hall = make_hall(1, [Verdict.ACCEPT])
    hall.rejecter.start()
    for wanted in (True, False):
        hall.rejecter.hold(wanted)
        hall.until(lambda wanted=wanted: hall.sim.is_holding == wanted)
        assert hall.rejecter.report()["is_hold_asked"] is wanted


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


def _idle(port="", triggers=None, reports=None, events=None, config=CONFIG):
    """A rejecter that is not started, to feed link events to."""
    return Rejecter(
        config, port, SafeAction.REJECT, lambda: 7,
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
        (wire.LinkBlocked("reject bin full: empty it"), "link.blocked"),
        (wire.InputChanged(False, True, False, False, 3), "input.air_low"),
        (wire.InputChanged(False, False, True, False, 3), "input.encoder_lost"),
        (wire.InputChanged(False, False, False, True, 3), "input.belt_reversed"),
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
