"""Learn what good parts look like from the feature maps of 20 to 150 of them. No bad part is needed.

Every part is judged once by a model that has not seen it: the parts are dealt into folds, and each fold is scored by
what the others teach. Those held-back scores set the unit of each view, the limit and its interval, so that no part has
to be given up for it.

The limit is the upper prediction limit for one more good part (Hahn and Meeker, Statistical Intervals, 1991, ch. 4):

    limit = mean + t(n - 1, 1 - over_reject) * std * sqrt(1 + 1 / n)

over the held-back raw scores, which are means of logarithms and close to normal. An empirical quantile knows nothing
beyond 1 / n: with 30 parts 1 % is out of its reach. The interval is the 95 % percentile bootstrap of the same formula.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.errors import ModelError
from edge_runtime.inference.anomaly import (
    AnomalyModel,
    FeatureMaps,
    FittedView,
    Floats,
    Limit,
    View,
    blur,
    raw_heat,
    raw_score,
)

FEWEST_PARTS = 20
FOLDS = 5
RESAMPLES = 1000  # of the bootstrap: the ends of a 95 % interval then wander by about 3 % of its width
MEAN_BLUR, SPREAD_BLUR = 0.7, 1.0  # cells; neighbours share what a few dozen parts cannot tell apart
POOLED_MEAN_BLUR, POOLED_SPREAD_BLUR = 0.4, 0.6
SPREAD_FLOOR = 0.2  # of a channel's mean variance: 0.05 to 1 cost less than 0.01 AUROC
WHITEN_FLOOR = 0.1  # of the mean eigenvalue
WHITEN_SAMPLES = 20_000
LEAST_OVER_REJECT = 0.0005  # as far out as the expansion of Student's t was checked
SAME_QUANTILE = 0.9

VIEWS = (
    View("detail", tap=1, blur_cells=1.0),
    View("form", tap=2, weight=0.5),
    View("grain", tap=0, pool=4, centre=False, hottest=2),
    View("texture", tap=1, pool=4, whiten=True, hottest=2),
)


@dataclass(frozen=True, slots=True)
class AnomalySpec:
    """How to learn. over_reject: the share of good parts that the limit may cost, LEAST_OVER_REJECT to 0.5."""

    views: tuple[View, ...] = VIEWS
    over_reject: float = 0.01


def fit_anomaly(
    features: Iterable[FeatureMaps],
    spec: AnomalySpec,
    rng: np.random.Generator,
    parts: Sequence[int] | None = None,
) -> AnomalyModel:
    """Learn from the feature maps of good parts.

    features: read once and not kept, so that they may come from a generator. parts: which part each of them shows; the
    first of a part is the picture as it was taken, later ones are variants of it (mirrored, shifted, brighter), which
    teach but are not judged. None: each its own part. The same features, spec and generator state give the same model.
    Raises ModelError for fewer than FEWEST_PARTS parts, and when the maps do not fit the views.
    """
    if parts is None:
        features = list(features)
        parts = range(len(features))
    if not LEAST_OVER_REJECT <= spec.over_reject <= 0.5:
        raise ModelError(f"over-reject {spec.over_reject:g} is not possible", f"take {LEAST_OVER_REJECT:g} to 0.5")
    names, owners = np.unique(np.asarray(parts, np.intp), return_inverse=True)
    if len(names) < FEWEST_PARTS:
        raise ModelError(
            f"{len(names)} good parts are too few to know what is usual", f"take pictures of at least {FEWEST_PARTS}"
        )
    folds = rng.permutation(len(names)) % FOLDS
    sums = [_Sums(view) for view in spec.views]
    judged: dict[int, FeatureMaps] = {}
    for owner, maps in zip(owners, features, strict=True):
        for one in sums:
            one.add(maps, int(folds[owner]))
        if int(owner) not in judged:
            judged[int(owner)] = tuple([grid.astype(np.float16) for grid in maps])
    distances = [_held_back(one, judged, folds) for one in sums]
    views = tuple([_in_units(one.fit(), cells) for one, cells in zip(sums, distances, strict=True)])
    per_part = [list(cells) for cells in zip(*distances, strict=True)]
    raw = np.array([raw_score(views, cells) for cells in per_part])
    hottest = np.array([float(raw_heat(views, cells).max()) for cells in per_part])
    picture_limit = _limit(raw, spec.over_reject)
    return AnomalyModel(
        views=views,
        picture_limit=picture_limit,
        cell_limit=_limit(hottest, spec.over_reject),
        over_reject=spec.over_reject,
        held_back=picture_limit.squash(raw).astype(np.float32),
        interval=_interval(raw, picture_limit, spec.over_reject, rng),
    )


def looks_the_same(
    plain: Sequence[FeatureMaps],
    changed: Sequence[FeatureMaps],
    rng: np.random.Generator,
    views: Sequence[View] = VIEWS,
) -> bool:
    """Would parts changed in one way (mirrored, say) pass for good ones? Then such variants may be taught as well.

    plain and changed: the same parts in the same order. Each is judged by a model of other parts as they were taken;
    the middle changed one must look no worse than the worst tenth of those, to every view.
    """
    folds = rng.permutation(len(plain)) % FOLDS
    for view in views:
        sums = _Sums(view)
        for maps, fold in zip(plain, folds, strict=True):
            sums.add(maps, int(fold))
        fitted = [sums.fit(without=fold) for fold in range(FOLDS)]
        said = [
            [fitted[fold].number(fitted[fold].distances(maps)) for maps, fold in zip(which, folds, strict=True)]
            for which in (plain, changed)
        ]
        if np.median(said[1]) > np.quantile(said[0], SAME_QUANTILE):
            return False
    return True


def upper_limit(raw: NDArray[np.float64], over_reject: float) -> float:
    """Prediction limit that one more value of the same normal population exceeds with probability `over_reject`."""
    n = len(raw)
    spread = max(float(raw.std(ddof=1)), 1e-6)
    return float(raw.mean()) + student_quantile(n - 1, 1.0 - over_reject) * spread * math.sqrt(1.0 + 1.0 / n)


def student_quantile(freedom: int, probability: float) -> float:
    """Quantile of Student's t by its expansion around the normal one (Abramowitz and Stegun 26.7.5).

    Within 0.002 % for 19 degrees of freedom, the fewest that are used here, up to probability 0.9995.
    """
    x = NormalDist().inv_cdf(probability)
    terms = (
        (x**3 + x) / 4.0,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96.0,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384.0,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160.0,
    )
    for power, term in enumerate(terms, start=1):
        x += term / freedom**power
    return x


class _Sums:
    """What is needed of the features to fit one view on any choice of folds: sums for each fold, not the maps."""

    def __init__(self, view: View) -> None:
        self.view = view
        self._count = np.zeros(FOLDS)
        self._sum = self._squares = np.zeros(0)
        self._cells: list[tuple[int, Floats]] = []  # only for views that whiten, which are coarse

    def add(self, maps: FeatureMaps, fold: int) -> None:
        cells = self.view(maps)
        if not self._sum.size:
            self._sum, self._squares = np.zeros((FOLDS, *cells.shape)), np.zeros((FOLDS, *cells.shape))
        if cells.shape != self._sum.shape[1:] or not np.isfinite(cells).all():
            raise ModelError(f"view {self.view.name!r}: maps differ in shape, or hold values that are no numbers")
        self._count[fold] += 1
        self._sum[fold] += cells
        self._squares[fold] += np.square(cells, dtype=np.float64)
        if self.view.whiten:
            self._cells.append((fold, cells))

    def fit(self, without: int | None = None) -> FittedView:
        """The view learnt from all folds, or from all but one."""
        used = np.array([fold != without for fold in range(FOLDS)])
        count = self._count[used].sum()
        first, second = self._sum[used].sum(0) / count, self._squares[used].sum(0) / count
        is_pooled = self.view.pool > 1
        mean = blur(first.astype(np.float32), POOLED_MEAN_BLUR if is_pooled else MEAN_BLUR)
        variance = np.maximum(second - 2.0 * mean * first + np.square(mean, dtype=np.float64), 0.0).astype(np.float32)
        variance = blur(variance, POOLED_SPREAD_BLUR if is_pooled else SPREAD_BLUR)
        usual = variance.mean((0, 1))
        per_spread = 1.0 / np.sqrt(variance + SPREAD_FLOOR * usual + 1e-4 * usual.mean() + 1e-9)
        mix = self._mix(mean, per_spread, without) if self.view.whiten else None
        return FittedView(self.view, mean, per_spread.astype(np.float32), mix)

    def _mix(self, mean: Floats, per_spread: Floats, without: int | None) -> Floats:
        """Matrix that makes the channels of z uncorrelated: inverse square root of their covariance, floored."""
        taken = [cells for fold, cells in self._cells if fold != without]
        z = ((np.stack(taken) - mean) * per_spread).reshape(-1, mean.shape[2])
        z = z[:: -(-len(z) // WHITEN_SAMPLES)]
        values, vectors = np.linalg.eigh((z.T @ z / np.float32(len(z))).astype(np.float64))
        return np.asarray(vectors / np.sqrt(values.clip(0.0) + WHITEN_FLOOR * values.mean() + 1e-9), np.float32)


def _held_back(sums: _Sums, judged: Mapping[int, FeatureMaps], folds: NDArray[np.intp]) -> list[Floats]:
    """Distances of each part, in their order, by the view learnt from the other folds."""
    fitted = [sums.fit(without=fold) for fold in range(FOLDS)]
    return [fitted[fold].distances(judged[part]) for part, fold in enumerate(folds)]


def _in_units(fitted: FittedView, held_back: Sequence[Floats]) -> FittedView:
    numbers = np.array([fitted.number(cells) for cells in held_back])
    return replace(fitted, log_mean=float(numbers.mean()), log_std=max(float(numbers.std(ddof=1)), 1e-3))


def _limit(raw: NDArray[np.float64], over_reject: float) -> Limit:
    middle = float(np.median(raw))
    return Limit(at=max(upper_limit(raw, over_reject), middle + 1e-3), middle=middle)


def _interval(
    raw: NDArray[np.float64], limit: Limit, over_reject: float, rng: np.random.Generator
) -> tuple[float, float]:
    """95 % bootstrap interval of the limit, as scores."""
    again = [upper_limit(rng.choice(raw, len(raw)), over_reject) for _ in range(RESAMPLES)]
    low, high = limit.squash(np.quantile(again, (0.025, 0.975)))
    return float(low), float(high)
