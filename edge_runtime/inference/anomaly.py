"""Is this part like the good ones? Feature maps of a frozen backbone against statistics of good parts, place by place.

For each view of the maps (see `View`), cell by cell:

    z        = (feature - mean of good parts here) / spread of good parts here
    distance = mean of z^2 over the channels      (with `whiten`: after decorrelating the channels, Mahalanobis)

the position-wise Gaussian of PaDiM (Defard et al. 2020, arXiv:2011.08785) with a diagonal covariance, which 20 parts
suffice to estimate. A view's number is the logarithm of its hottest cells' mean, in standard deviations of held-back
good parts; the picture's raw score is their weighted mean, and

    score = 1 / (1 + exp(-slope * (raw - limit)))      0.5 at the limit, 0.1 for the middle good part

What decided, in AUROC on ground tiles (35 good ones taught, never the same tile in the test, 4 to 12 splits): the
nearest of 1500 remembered good patches, as in PatchCore, 0.65 to 0.81 by map, and 0.78 to 0.80 when it only looks near
the same place; one Gaussian for all places 0.60 to 0.76; one for each place 0.84 (0.78 at half the resolution); two
depths of the net 0.85; with the coarse views, which see the grain of a surface change, 0.88 to 0.91. Mirrored, shifted
and brighter variants among the taught gave 0.03, even light 0.03, a net trained on painted defects beside it nothing.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.errors import ModelError
from edge_runtime.core.strict_json import parse_json

Floats = NDArray[np.float32]
FeatureMaps = tuple[NDArray[Any], ...]  # (rows, columns, channels) each, real values, any float type

SCHEMA = 1
MAX_FILE_BYTES = 64 << 20  # four views of a 448 px backbone are 1.4 MB
MOST_VIEWS = 16
MOST_PARTS_KEPT = 10_000
TINY = 1e-6  # keeps the logarithm of a perfect match finite
GOOD_SCORE = 0.1  # what the middle good part scores


@dataclass(frozen=True, slots=True)
class View:
    """One way of looking at a backbone's maps.

    tap: which map. pool: cells of the map in one cell of the view, along each side. centre: take the picture's own mean
    off each channel first, so that a change of the whole picture does not count. whiten: decorrelate channels.
    blur_cells: sigma over the distances. hottest: how many cells make the view's number. weight: its part in the score.
    """

    name: str
    tap: int
    pool: int = 1
    centre: bool = True
    whiten: bool = False
    blur_cells: float = 0.0
    hottest: int = 5
    weight: float = 1.0

    def __call__(self, maps: FeatureMaps) -> Floats:
        """Cells of this view, float32 (rows, columns, channels). Raises ModelError when the maps do not have it."""
        if self.tap >= len(maps):
            raise ModelError(f"view {self.name!r} looks at map {self.tap}, the backbone has {len(maps)}")
        cells = np.asarray(maps[self.tap], np.float32)
        if cells.ndim != 3 or cells.shape[0] % self.pool or cells.shape[1] % self.pool:
            raise ModelError(f"view {self.name!r} pools by {self.pool}, which map {cells.shape} does not divide by")
        if self.pool > 1:
            rows, columns, channels = cells.shape
            side = self.pool
            cells = cells.reshape(rows // side, side, columns // side, side, channels).mean((1, 3))
        return cells - cells.mean((0, 1)) if self.centre else cells


@dataclass(frozen=True, slots=True)
class FittedView:
    """A view with what it learnt. mean, per_spread (one over the spread): (rows, columns, channels); mix: (channels,
    channels) for views that whiten. log_mean and log_std: of the view's number over held-back good parts."""

    view: View
    mean: Floats
    per_spread: Floats
    mix: Floats | None
    log_mean: float = 0.0
    log_std: float = 1.0

    def distances(self, maps: FeatureMaps) -> Floats:
        """How far each cell is from the good parts, float32 (rows, columns), about 1 on good parts."""
        cells = self.view(maps)
        if cells.shape != self.mean.shape:
            raise ModelError(f"view {self.view.name!r} has cells {cells.shape}, it was taught with {self.mean.shape}")
        z = (cells - self.mean) * self.per_spread
        if self.mix is not None:
            z = z @ self.mix
        squares: Floats = np.einsum("hwc,hwc->hw", z, z) / np.float32(z.shape[2])
        return blur(squares, self.view.blur_cells)

    def number(self, distances: Floats) -> float:
        """The view's number before it is set in relation to good parts."""
        flat = distances.ravel()
        count = min(self.view.hottest, flat.size)
        return float(np.log(np.partition(flat, flat.size - count)[-count:].mean(dtype=np.float64) + TINY))

    def relative(self, number: float) -> float:
        return (number - self.log_mean) / self.log_std


@dataclass(frozen=True, slots=True)
class AnomalyScore:
    """score: 0..1, 0.5 at the limit. heat: float32 (rows, columns) 0..1, the same scale for a single place."""

    score: float
    heat: Floats


@dataclass(frozen=True, slots=True)
class Limit:
    """Where good ends on a raw scale: `at` scores 0.5, and `middle`, the middle good part, GOOD_SCORE."""

    at: float
    middle: float

    def squash(self, raw: NDArray[Any] | float) -> NDArray[np.float64]:
        slope = np.log(1.0 / GOOD_SCORE - 1.0) / (self.at - self.middle)
        scores: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-np.clip(slope * (np.asarray(raw) - self.at), -60.0, 60.0)))
        return scores


@dataclass(frozen=True, slots=True)
class AnomalyModel:
    """What was learnt from good parts. `score` and the heat map; saved as `memory.npz` of a bundle.

    held_back: scores 0..1 of the taught parts, each under a model that had not seen it. interval: 95 % interval of the
    limit, on the score's scale (the limit itself is 0.5). over_reject: the share of good parts the limit was set for.
    """

    views: tuple[FittedView, ...]
    picture_limit: Limit
    cell_limit: Limit
    over_reject: float
    held_back: Floats
    interval: tuple[float, float]

    def score(self, maps: FeatureMaps) -> AnomalyScore:
        """maps: the backbone's outputs for one picture. Raises ModelError when they are unlike those that taught it."""
        distances = [fitted.distances(maps) for fitted in self.views]
        raw = raw_score(self.views, distances)
        if not np.isfinite(raw):
            raise ModelError("the feature maps hold values that are no numbers (NaN or infinite)")
        heat = self.cell_limit.squash(raw_heat(self.views, distances)).astype(np.float32)
        return AnomalyScore(float(self.picture_limit.squash(raw)), heat)

    def save(self, path: str | Path) -> None:
        """Write `memory.npz`: the same bytes for the same model."""
        about = {
            "schema": SCHEMA,
            "over_reject": self.over_reject,
            "interval": self.interval,
            "picture_limit": asdict(self.picture_limit),
            "cell_limit": asdict(self.cell_limit),
            "views": [
                {**asdict(fitted.view), "log_mean": fitted.log_mean, "log_std": fitted.log_std} for fitted in self.views
            ],
        }
        arrays: dict[str, NDArray[Any]] = {"about": np.array(json.dumps(about)), "held_back": self.held_back}
        for index, fitted in enumerate(self.views):
            arrays[f"mean_{index}"] = fitted.mean
            arrays[f"per_spread_{index}"] = fitted.per_spread
            if fitted.mix is not None:
                arrays[f"mix_{index}"] = fitted.mix
        with Path(path).open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> AnomalyModel:
        """Read `memory.npz`. Raises ModelError when it is damaged, too large, or not such a file."""
        try:
            _check_size(Path(path))
            with np.load(path, allow_pickle=False) as archive:
                return _from_arrays(cls, {name: archive[name] for name in archive.files})
        except FileNotFoundError as err:
            raise ModelError(f"{path}: no such file") from err
        except ModelError as err:
            raise ModelError(f"{path}: {err}") from err
        except Exception as err:  # zipfile, numpy and json raise a dozen kinds on damaged files
            raise ModelError(f"{path}: damaged, or not what was learnt from good parts ({err})") from err


def raw_score(views: Sequence[FittedView], distances: Sequence[Floats]) -> float:
    """Weighted mean over the views of their number, in standard deviations of held-back good parts."""
    numbers = [fitted.relative(fitted.number(cells)) for fitted, cells in zip(views, distances, strict=True)]
    return float(np.average(numbers, weights=[fitted.view.weight for fitted in views]))


def raw_heat(views: Sequence[FittedView], distances: Sequence[Floats]) -> Floats:
    """The worst that any view says about each place, in the same unit as its number; the grid of the finest view."""
    rows, columns = max((cells.shape for cells in distances), key=lambda shape: shape[0] * shape[1])
    heat = np.full((rows, columns), -np.inf, np.float32)
    for fitted, cells in zip(views, distances, strict=True):
        raw = (np.log(cells + np.float32(TINY)) - np.float32(fitted.log_mean)) / np.float32(fitted.log_std)
        down = np.arange(rows) * raw.shape[0] // rows
        across = np.arange(columns) * raw.shape[1] // columns
        np.maximum(heat, raw[down[:, None], across], out=heat)
    return heat


def blur(values: Floats, sigma: float) -> Floats:
    """Gaussian mean over rows and columns (the first two axes), edges repeated. sigma in cells; 0 changes nothing."""
    if sigma <= 0.0:
        return values
    reach = max(1, round(3.0 * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        size = values.shape[axis]
        places = np.arange(size)
        values = sum(
            (np.float32(weight) * values.take(np.clip(places + shift, 0, size - 1), axis=axis)
             for shift, weight in zip(range(-reach, reach + 1), weights, strict=True)),
            start=np.zeros_like(values),
        )  # fmt: skip
    return values


def _check_size(path: Path) -> None:
    """Refuse before anything is unpacked: an archive may hold far more than its own size."""
    with zipfile.ZipFile(path) as archive:
        total = sum(member.file_size for member in archive.infolist())
    if total > MAX_FILE_BYTES:
        raise ModelError(f"unpacks to {total >> 20} MB, at most {MAX_FILE_BYTES >> 20} MB are read")


def _from_arrays(cls: type[AnomalyModel], arrays: Mapping[str, NDArray[Any]]) -> AnomalyModel:
    about = parse_json(str(arrays["about"]))
    if about["schema"] != SCHEMA:
        raise ModelError(
            f"written by another version (schema {about['schema']}, this one reads {SCHEMA})", "teach again"
        )
    if not 1 <= len(about["views"]) <= MOST_VIEWS:
        raise ModelError(f"{len(about['views'])} views, 1 to {MOST_VIEWS} are possible")
    held_back = _floats(arrays, "held_back", 1)
    if held_back.size > MOST_PARTS_KEPT:
        raise ModelError(f"{held_back.size} held-back scores, at most {MOST_PARTS_KEPT} are kept")
    low, high = (float(end) for end in about["interval"])
    limits = [
        Limit(at=float(one["at"]), middle=float(one["middle"])) for one in (about["picture_limit"], about["cell_limit"])
    ]
    if not all(np.isfinite([limit.at, limit.middle]).all() and limit.at > limit.middle for limit in limits):
        raise ModelError("a limit is not above the middle good part")
    if not np.isfinite([low, high, float(about["over_reject"])]).all():
        raise ModelError("its interval or its share of good parts is no number")
    return cls(
        views=tuple([_fitted_view(arrays, index, row) for index, row in enumerate(about["views"])]),
        picture_limit=limits[0],
        cell_limit=limits[1],
        over_reject=float(about["over_reject"]),
        held_back=held_back,
        interval=(low, high),
    )


def _fitted_view(arrays: Mapping[str, NDArray[Any]], index: int, row: dict[str, Any]) -> FittedView:
    log_mean, log_std = float(row.pop("log_mean")), float(row.pop("log_std"))
    view = View(**row)
    if (
        view.tap < 0
        or view.pool < 1
        or view.hottest < 1
        or not (view.weight > 0.0 and log_std > 0.0 and view.blur_cells >= 0.0)
        or not np.isfinite([view.weight, view.blur_cells, log_mean, log_std]).all()
    ):
        raise ModelError(f"view {view.name!r} is not possible: {row}")
    mean, per_spread = _floats(arrays, f"mean_{index}", 3), _floats(arrays, f"per_spread_{index}", 3)
    mix = _floats(arrays, f"mix_{index}", 2) if view.whiten else None
    channels = mean.shape[2]
    if per_spread.shape != mean.shape or (mix is not None and mix.shape != (channels, channels)):
        raise ModelError(f"the arrays of view {view.name!r} do not fit each other")
    if (per_spread <= 0.0).any():
        raise ModelError(f"view {view.name!r} has spreads that are not positive")
    return FittedView(view, mean, per_spread, mix, log_mean, log_std)


def _floats(arrays: Mapping[str, NDArray[Any]], name: str, ndim: int) -> Floats:
    values = arrays[name]
    if values.dtype != np.float32 or values.ndim != ndim or values.size == 0 or not np.isfinite(values).all():
        raise ModelError(f"{name} is {values.dtype} {values.shape}, wanted finite float32 of {ndim} dimensions")
    return values
