"""Thresholds: a score becomes a verdict and a sentence that says why."""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.config.schema import DecisionConfig
from edge_runtime.core.manifest import Thresholds
from edge_runtime.core.messages import Prediction, Verdict


@dataclass(frozen=True, slots=True)
class Policy:
    """score < accept_below: accept; score >= reject_at: reject; between them nobody is sure. Both in 0..1."""

    accept_below: float
    reject_at: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.accept_below <= self.reject_at <= 1.0:
            raise ValueError(f"need 0 <= accept_below <= reject_at <= 1, not {self.accept_below}, {self.reject_at}")

    def judge(self, prediction: Prediction) -> tuple[Verdict, str]:
        """The verdict and its reason, such as `scratch 0.93 >= 0.80`. A score that is not a number is not accepted."""
        what = max(prediction.regions, key=lambda region: region.score).label if prediction.regions else "score"
        score = prediction.score
        if score < self.accept_below:
            return Verdict.ACCEPT, f"{what} {score:.2f} < {self.accept_below:.2f}"
        if score >= self.reject_at:
            return Verdict.REJECT, f"{what} {score:.2f} >= {self.reject_at:.2f}"
        return Verdict.UNSURE, f"{what} {score:.2f} between {self.accept_below:.2f} and {self.reject_at:.2f}"


def station_policy(cfg: DecisionConfig, bundle: Thresholds) -> Policy:
    """The station's thresholds where it sets them, else the bundle's."""
    accept_below = bundle.accept_below if cfg.accept_below is None else cfg.accept_below
    reject_at = bundle.reject_at if cfg.reject_at is None else cfg.reject_at
    return Policy(min(accept_below, reject_at), reject_at)
