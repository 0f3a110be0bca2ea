"""How well a scratch model sorts parts, and which scores mean accept and reject: calibration, thresholds, error rates.

What counts at the gate: a part whose score reaches `accept_below` does not pass by itself (unsure is rejected or
looked at), so a defect below it is `missed` and a good part at or above it is a `false` reject. Oil and stains are
good parts here: they wipe off."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_runtime.inference.heatmap import hottest_mean
from edge_runtime.simulation.phone_scene import PartTruth

U8 = NDArray[np.uint8]
Heat = Callable[[U8], NDArray[np.float32]]
Floats = NDArray[np.float64]

TOP_K = 3  # at 1 single noisy cells rule, from 6 on short scratches are lost: missed 0.4 % at 3, 1.3 % at 6
STOP_SHARE = 0.02  # of good parts: the over-reject that accept_below is chosen for; a line may cost 3 %
SURE_SHARE = 0.003  # of good parts that would be called a scratch without doubt: chooses reject_at


@dataclass(frozen=True, slots=True)
class Judged:
    """Raw scores of one model on many parts, and what is true of them; all arrays of one length."""

    raw: Floats
    defect: NDArray[np.bool_]
    kind: NDArray[np.str_]
    severity: NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class Limits:
    """raw: heat-map statistic; score = 1 / (1 + exp(-(a * raw + b)))."""

    a: float
    b: float
    accept_below: float
    reject_at: float
    region_at: float

    def score(self, raw: Floats) -> Floats:
        out: Floats = 1.0 / (1.0 + np.exp(-(self.a * raw + self.b)))
        return out


def judge(models: dict[str, Heat], parts: Iterable[tuple[U8, PartTruth]]) -> dict[str, Judged]:
    """Let several models look at the same parts, each part drawn once."""
    raws: dict[str, list[float]] = {name: [] for name in models}
    truths = []
    for picture, truth in parts:
        truths.append(truth)
        for name, heat in models.items():
            raws[name].append(hottest_mean(heat(picture), TOP_K))
    defect = np.array([t.defect for t in truths], bool)
    kind, severity = np.array([t.kind for t in truths]), np.array([t.severity for t in truths])
    return {name: Judged(np.array(raw), defect, kind, severity) for name, raw in raws.items()}


def auroc(scores: Floats, defect: NDArray[np.bool_]) -> float:
    """Chance that a random defect scores above a random good part; ties count half."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    n = int(defect.sum())
    return float((ranks[defect].sum() - n * (n + 1) / 2.0) / (n * (len(scores) - n)))


def choose_limits(judged: Judged) -> Limits:
    """Calibration and thresholds from held-back parts that are neither trained nor tested on."""
    good = judged.raw[~judged.defect]
    stop, sure = np.quantile(good, (1.0 - STOP_SHARE, 1.0 - SURE_SHARE))
    a, b = fit_logistic(judged.raw, judged.defect)
    limits = Limits(a, b, 0.0, 1.0, round(float(stop), 3))
    accept, reject = (round(float(limits.score(np.array(x))), 4) for x in (stop, sure))
    return Limits(a, b, accept, max(reject, accept), limits.region_at)


def error_rates(judged: Judged, limits: Limits) -> dict[str, float]:
    """Shares, each of its own kind of part: `missed`, `false`, `unsure`, `missed_<severity>`, `false_<kind>`,
    `sure_false`."""
    score = limits.score(judged.raw)
    passes, good = score < limits.accept_below, ~judged.defect
    rates = {
        "missed": _share(passes, judged.defect),
        "false": _share(~passes, good),
        "sure_false": _share(score >= limits.reject_at, good),
        "unsure": float(np.mean(~passes & (score < limits.reject_at))),
    }
    for severity in ("hairline", "light", "medium", "deep"):
        rates[f"missed_{severity}"] = _share(passes, judged.severity == severity)
    for kind in ("good", "oil", "stain"):
        rates[f"false_{kind}"] = _share(~passes, judged.kind == kind)
    return rates


def fit_logistic(raw: Floats, defect: NDArray[np.bool_]) -> tuple[float, float]:
    """(a, b) of Platt's sigmoid, both classes weighted alike, rounded to 3 digits.

    Targets are Platt's (n + 1) / (n + 2) rather than 0 and 1, and the slope carries a small penalty: classes that
    separate cleanly would drive it to infinity and every score to 0 or 1."""
    n1, n0 = int(defect.sum()), int((~defect).sum())
    target = np.where(defect, (n1 + 1.0) / (n1 + 2.0), 1.0 / (n0 + 2.0))
    weight = np.where(defect, 0.5 / n1, 0.5 / n0)
    x = np.column_stack((raw, np.ones_like(raw)))
    w = np.zeros(2)
    penalty = np.diag((1e-4, 0.0))
    for _ in range(50):  # Newton's method
        p = 1.0 / (1.0 + np.exp(-np.clip(x @ w, -30.0, 30.0)))
        gradient = x.T @ (weight * (p - target)) + penalty @ w
        curvature = (x * (weight * np.maximum(p * (1.0 - p), 1e-6))[:, None]).T @ x + penalty
        step = np.linalg.solve(curvature, gradient)
        w -= step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-9))
        if float(np.abs(step).max()) < 1e-8:
            break
    return round(float(w[0]), 3), round(float(w[1]), 3)


def _share(hit: NDArray[np.bool_], of: NDArray[np.bool_]) -> float:
    return float(np.mean(hit[of])) if of.any() else math.nan
