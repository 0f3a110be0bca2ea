"""Thresholds: a score becomes a verdict and a sentence that says why."""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.config.schema import DecisionConfig
from edge_runtime.core.manifest import Manifest
from edge_runtime.core.messages import Prediction, Verdict

FEWEST_DIGITS, MOST_DIGITS = 2, 4


@dataclass(frozen=True, slots=True)
class Policy:
    """score < accept_below: accept; score >= reject_at: reject; between them nobody is sure. Both in 0..1.

    defects: labels that count as defective; empty: each one that was found.
    """

    accept_below: float
    reject_at: float
    defects: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 <= self.accept_below <= self.reject_at <= 1.0:
            raise ValueError(f"need 0 <= accept_below <= reject_at <= 1, not {self.accept_below}, {self.reject_at}")

    def judge(self, prediction: Prediction) -> tuple[Verdict, str]:
        """The verdict and its reason, such as `scratch 0.93 >= 0.80`. A score that is not a number is not accepted."""
        what, score = self._decided_by(prediction), prediction.score
        if score < self.accept_below:
            figure, limit = _told_apart(score, self.accept_below)
            return Verdict.ACCEPT, f"{what} {figure} < {limit}"
        if score >= self.reject_at:
            figure, limit = _told_apart(score, self.reject_at)
            return Verdict.REJECT, f"{what} {figure} >= {limit}"
        figure, low, high = _told_apart(score, self.accept_below, self.reject_at)
        return Verdict.UNSURE, f"{what} {figure} between {low} and {high}"

    def _decided_by(self, prediction: Prediction) -> str:
        """The label whose score is that of the part, where one of its places was found: "score" where none was.

        The score of a place says nothing here: that of a heat map's is its hottest cell, that of its label a mean.
        """
        deciding = [
            region
            for region in prediction.regions
            if (not self.defects or region.label in self.defects)
            and prediction.scores.get(region.label) == prediction.score
        ]
        return max(deciding, key=lambda region: region.score).label if deciding else "score"


def _told_apart(score: float, *limits: float) -> list[str]:
    """With two digits, or as many more as it takes to see which is larger: a limit of 0.002 is not told as 0.00."""
    figures = (score, *limits)
    for digits in range(FEWEST_DIGITS, MOST_DIGITS):
        told = [f"{figure:.{digits}f}" for figure in figures]
        is_told = all(float(limit) or not real for limit, real in zip(told[1:], limits, strict=True))
        if is_told and len(set(told)) >= len(set(figures)):
            return told
    return [f"{figure:.{MOST_DIGITS}f}" for figure in figures]


def bundle_policy(bundle: Manifest) -> Policy:
    """What the bundle itself says."""
    return station_policy(DecisionConfig(), bundle)


def station_policy(cfg: DecisionConfig, bundle: Manifest) -> Policy:
    """The station's thresholds where it sets them, else the bundle's."""
    own = bundle.thresholds
    accept_below = own.accept_below if cfg.accept_below is None else cfg.accept_below
    reject_at = own.reject_at if cfg.reject_at is None else cfg.reject_at
    return Policy(min(accept_below, reject_at), reject_at, bundle.output.defect_labels if bundle.output else ())
