"""A hold that the box asks for stops the simulated belt, and costs no part."""

from __future__ import annotations

import time

import pytest

from edge_runtime.actuation.rejecter import Rejecter
from edge_runtime.config.schema import ControllerConfig, SafeAction, WorldConfig
from edge_runtime.core.clock import monotonic_ns
from edge_runtime.core.messages import Cause, Decision, GateReport, Outcome, PartKey, Trigger, Verdict
from edge_runtime.flow.components import State
from edge_runtime.simulation.line import SimLine
from tests.support.waiting import until

PATIENCE_S = 20.0
PARTS = 12
WIRES = {"frames": {}, "client": {"protocol": "modbus"}, "server": {"protocol": "modbus", "role": "server"}}


@pytest.mark.parametrize("wire", WIRES)
def test_the_belt_stands_while_held_and_every_part_is_accounted_for(wire: str) -> None:
    controller = ControllerConfig(**{**WIRES[wire], "watchdog_ms": 5000, "decide_counts": 1900, "fire_counts": 2000})
    line = SimLine(WorldConfig(parts_per_s=20.0), controller, PARTS, width=64, height=48)
    triggers: dict[PartKey, Trigger] = {}
    reports: dict[PartKey, GateReport] = {}

    def judge(trigger: Trigger) -> None:
        triggers[trigger.key] = trigger
        rejecter.write(Decision(trigger.key, Verdict.ACCEPT, Cause.RULE, "", 0.0, 0, None, 0, ""))

    line.start()
    rejecter = Rejecter(
        controller, line.controller_port, SafeAction.REJECT, monotonic_ns, on_trigger=judge,
        on_report=lambda report: reports.update({report.key: report}), on_event=lambda _: None,
    )  # fmt: skip
    try:
        rejecter.start()
        assert rejecter.arm(PATIENCE_S)
        until(lambda: len(triggers) >= 3)
        rejecter.hold(True)
        until(lambda: bool(line.belt.switch.held_since_ns))
        seen, at = len(triggers), line.belt.encoder_at(time.monotonic_ns())
        time.sleep(0.2)  # four parts' time
        assert line.belt.encoder_at(time.monotonic_ns()) == at and len(triggers) <= seen + 1 < PARTS
        assert rejecter.health().state is State.OK  # a hold is no trip
        rejecter.hold(False)
        until(lambda: len(reports) == PARTS)
        assert {report.outcome for report in reports.values()} == {Outcome.PASSED}
        assert [part["fired"] for part in line.truth_report()["parts"]] == [False] * PARTS
    finally:
        rejecter.stop()
        line.stop()
