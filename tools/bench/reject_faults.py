"""Faults injected into the reject path, as scripts: what is done to wire, belt, controller and host, and when.

Each lasts for at least 150 parts. `shows` is what must be seen besides "nothing missed, false or stray": a fault that
left no trace did not happen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from firmware_bridge.sim.belt import Act
from firmware_bridge.sim.wire import WireFaults

Row = Mapping[str, Any]
PULSE_COUNTS = 1  # a pulse begins within so many counts of where it should


def nothing(row: Row) -> bool:
    return bool(row["defaulted"] == 0 and row["trips"] == 0 and row["healthy_drops"] == 0)


def some_default(row: Row) -> bool:
    return bool(row["defaulted"] > 0 and row["healthy_drops"] > 0)


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    script: tuple[Act, ...] = ()
    wire: WireFaults = field(default_factory=WireFaults)
    bounces: bool = False
    pairs: bool = False
    shows: Callable[[Row], bool] = lambda row: True

    def holds(self, row: Row) -> bool:
        """No part went wrong, every pulse was at its count, and the fault left its trace."""
        wrong = row["missed"] + row["false"] + row["stray"] + row["slipped"]
        return bool(not wrong and row["pulse_error_counts"] <= PULSE_COUNTS and self.shows(row))

    def sooner(self, times: int) -> Fault:
        """The same, so many times earlier in the run, for a short one."""
        return replace(self, script=tuple(replace(act, at_part=act.at_part // times) for act in self.script))


def host_away(at_part: int, verb: str, back: Act) -> tuple[Act, ...]:
    return (Act(at_part, 0, "host", verb), back)


FAULTS = (
    Fault("clean wire", shows=nothing),
    Fault("0.2 % byte errors", wire=WireFaults(byte_errors=0.002), shows=lambda row: row["passed"] and row["fired"]),
    Fault("1 % byte errors", wire=WireFaults(byte_errors=0.01), shows=lambda row: row["passed"] and row["fired"]),
    Fault("one byte at a time", wire=WireFaults(is_bytewise=True), shows=lambda row: row["passed"] and row["fired"]),
    Fault("reordered delay", wire=WireFaults(delay_ms=(0.0, 30.0)), shows=lambda row: row["passed"] and row["fired"]),
    Fault("host SIGSTOP 3 s", host_away(50, "stop", Act(50, 3000, "host", "cont")), shows=some_default),
    Fault("host SIGKILL, restart", host_away(50, "kill", Act(50, 1000, "host", "start")), shows=some_default),
    Fault("controller reset", (Act(50, 20, "reset"), Act(100, 35, "reset")),
          shows=lambda row: row["resets"] == 2 and row["defaulted"] > 0),
    Fault("cable pull, return", (Act(50, 0, "cable", "out"), Act(50, 1500, "cable", "in")),
          shows=lambda row: some_default(row) and row["port_lost"] > 0),
    Fault("event ring overwritten", host_away(40, "kill", Act(100, 0, "host", "start")),
          shows=lambda row: some_default(row) and row["parts_missed"] > 0),
    Fault("bouncing eye", bounces=True, shows=lambda row: row["defaulted"] == 0),
    Fault("two parts in one pulse", pairs=True, shows=lambda row: row["beside"] > 0),
    Fault("belt stop and reverse", (Act(50, 0, "speed", 0), Act(50, 400, "speed", -1), Act(50, 480, "speed", 1),
                                    Act(100, 30, "speed", 0), Act(100, 1500, "speed", 1)),
          shows=lambda row: row["passed"] and row["fired"]),
    Fault("stuck gate", (Act(50, 0, "stuck", 1), Act(75, 0, "stuck", 0)),
          shows=lambda row: row["stuck"] > 0 and row["unconfirmed"] >= row["stuck"]),
    Fault("air low, bin full", (Act(50, 0, "air", 0), Act(50, 700, "air", 1), Act(100, 0, "bin", 0),
                                Act(100, 700, "bin", 1)), shows=some_default),
)  # fmt: skip

BY_NAME = {fault.name: fault for fault in FAULTS}
