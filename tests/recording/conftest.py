"""A line in small: parts that pass, with everything that is reported about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from edge_runtime.core.clock import MS, SECOND
from edge_runtime.core.messages import (
    Cause,
    Decision,
    GateReport,
    Outcome,
    PartKey,
    Prediction,
    Region,
    Trigger,
    Verdict,
)

BOOT = 0x7F3A


@dataclass(frozen=True)
class Passing:
    """One part's messages."""

    key: PartKey
    trigger: Trigger
    decision: Decision
    report: GateReport
    prediction: Prediction


def passing(
    number: int, verdict: Verdict = Verdict.ACCEPT, boot: int = BOOT, at_ns: int | None = None, score: float = 0.125
) -> Passing:
    key = PartKey(boot, number)
    at_ns = SECOND + number * 100 * MS if at_ns is None else at_ns
    region = Region(0.1, 0.2, 0.3, 0.4, score, "scratch")
    return Passing(
        key,
        Trigger(key, number * 200, at_ns),
        Decision(
            key,
            verdict,
            Cause.MODEL,
            f"scratch {score:.2f}",
            score,
            at_ns,
            at_ns + 5 * MS,
            at_ns + 9 * MS,
            "scratch@1",
        ),
        GateReport(
            key, Outcome.PASSED if verdict is Verdict.ACCEPT else Outcome.FIRED, number * 200 + 1000, at_ns + SECOND
        ),
        Prediction("scratch@1", score, {"scratch": score}, (region,), None, {"prepare": 0.5, "invoke": 1.25}),
    )


@pytest.fixture
def make_part() -> Callable[..., Passing]:
    return passing
