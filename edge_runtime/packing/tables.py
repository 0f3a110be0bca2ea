"""The manifest's table of a packed bundle: what holds before any sample was judged, and what the samples say."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.manifest import Kind, Thresholds
from edge_runtime.features.image import brightness
from edge_runtime.features.picture_validity import picture_reference
from edge_runtime.media.picture import decode_picture
from edge_runtime.packing.answers import Desk, Question, Told
from edge_runtime.packing.facts import Facts
from edge_runtime.packing.judging import Judged
from edge_runtime.packing.limits import Limit
from edge_runtime.packing.plan import Plan

FEWEST_OF_REFERENCE, MOST_OF_REFERENCE = 20, 100  # good samples that say how pictures look; more add nothing
HISTOGRAM_BINS = 20
USUAL_CONFIDENCE = 0.25  # of a detector's boxes where no limit was chosen


def first_table(name: str, version: str, told: Told, facts: Facts, plan: Plan, desk: Desk) -> dict[str, Any]:
    """What holds before any sample was judged."""
    question = Question("--licence", "licence", "under which the model may be used", "not stated", is_convention=True)
    licence = desk.settle(question, told.licence, " ".join(facts.notes.licence.split())[:200])
    return {
        "name": name,
        "version": version,
        "kind": plan.kind,
        "title": " ".join((told.title or facts.notes.title or f"Packed {plan.kind}").split())[:200],
        "licence": licence,
        "input": plan.input.model_dump(),
        "signature": plan.signature,
        "output": plan.output.model_dump() | {"confidence": _confidence(told, USUAL_CONFIDENCE)},
    }


def _confidence(told: Told, otherwise: float) -> float:
    return otherwise if told.confidence is None else told.confidence


def measured_table(
    plan: Plan, told: Told, judged: Sequence[Judged], limit: Limit | None, thresholds: Thresholds
) -> dict[str, Any]:
    """What the samples say. A detector's boxes are reported from the limit on: a box that rejects a part is shown."""
    output = plan.output.model_dump()
    if plan.kind is Kind.DETECTION:
        output["confidence"] = _confidence(told, thresholds.accept_below if limit else USUAL_CONFIDENCE)
    return {
        "output": output,
        "thresholds": thresholds.model_dump(exclude_none=True),
        "reference": _reference(judged, plan),
        "metrics": _metrics(limit),
    }


def _reference(judged: Sequence[Judged], plan: Plan) -> dict[str, Any]:
    """How clean pictures look, where enough of them were given; else only what holds for every camera is asked."""
    good = [one for one in judged if one.sample.truth == "good" and not one.fault]
    if len(good) < FEWEST_OF_REFERENCE:
        return {}
    taken = [good[number * len(good) // MOST_OF_REFERENCE] for number in range(MOST_OF_REFERENCE)]
    pictures = _Pictures([one.sample.path for one in (taken if len(good) > MOST_OF_REFERENCE else good)])
    levels = [brightness(picture) for picture in pictures]
    counts, _ = np.histogram([one.score for one in good], HISTOGRAM_BINS, (0.0, 1.0))
    return {
        "score_histogram": tuple(round(float(count) / len(good), 5) for count in counts),
        "brightness_mean": round(statistics.fmean(levels), 2),
        "brightness_std": round(statistics.stdev(levels), 2),
        "picture": picture_reference(pictures, plan.input).model_dump(),
    }


class _Pictures(Sequence[NDArray[np.uint8]]):
    """Pictures that are decoded when they are looked at: a hundred of a large camera do not fit into a small box."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: Any) -> Any:
        return decode_picture(self._paths[index].read_bytes())


def _metrics(limit: Limit | None) -> dict[str, float]:
    if limit is None:
        return {}
    low, high = limit.over_interval
    found = {"samples.good": float(limit.good), "samples.over_reject": round(limit.over / limit.good, 4)}
    found |= {"samples.over_reject_low": round(low, 4), "samples.over_reject_high": round(high, 4)}
    if limit.bad:
        low, high = limit.missed_interval
        found |= {"samples.bad": float(limit.bad), "samples.missed": round(limit.missed / limit.bad, 4)}
        found |= {"samples.missed_low": round(low, 4), "samples.missed_high": round(high, 4)}
    return found
