"""What a station file promises together, in sentences."""

from __future__ import annotations

import pytest

from edge_runtime.commissioning.station_check import carried_parts_per_s, remarks
from edge_runtime.config.load import load
from edge_runtime.core.errors import ConfigError


def notes(*settings: str) -> str:
    return "\n".join(remarks(load(None, settings).config))


def test_the_demo_station_has_nothing_to_remark():
    assert notes() == ""
    assert notes("controller.protocol=modbus") == ""


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["controller.protocol=modbus", "controller.baud=9600"], "carries the verdicts of 5 parts/s"),
        (["controller.protocol=modbus", "controller.baud=9600"], "watchdog_ms = 500 is shorter than 4 polls of 190 ms"),
        (["world.parts_per_s=60", "controller.protocol=modbus", "decision.deadline_ms=100"], "carries the verdicts of"),
        (["model.predictor=remote", "model.remote.url=http://gpu:8000"], "pictures stay in the box"),
        (["controller.baud=2400", "world.parts_per_s=5"], "raise the baud rate"),
    ],
)
def test_a_line_that_does_not_carry_the_parts_is_named(settings, says):
    assert says in notes(*settings)


def test_parity_costs_a_tenth_and_modbus_more_than_frames():
    def carried(*settings: str) -> float:
        return carried_parts_per_s(load(None, settings).config.controller)

    plain, even = carried("controller.protocol=modbus"), carried("controller.protocol=modbus", "controller.parity=even")
    assert 0.88 < even / plain < 0.95
    assert carried() > 3 * plain
    assert carried("controller.confirm_counts=60") < carried()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["controller.parity=even"], "parity 'even' is for protocol 'modbus'"),
        (["controller.protocol=modbus", "controller.unit=7"], "the simulated PLC is unit 1"),
        (["controller.protocol=profibus"], "reject"),
        (["controller.unit=248"], "unit"),
    ],
)
def test_keys_that_do_not_fit_together_are_refused(settings, says):
    with pytest.raises(ConfigError, match=says):
        load(None, settings)
