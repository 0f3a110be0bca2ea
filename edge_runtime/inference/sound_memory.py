"""What was learnt from normal sound, and how a window is judged by it.

    row      = log-mel, averaged over a quarter of a second, each band in units of its own mean and spread
    residual = of the window's mean: row - usual mean (mahalanobis), row - rebuilt row (autoencoder)
    number   = see inference/mahalanobis.py, in standard deviations of held-back normal windows
    raw      = mean of the two numbers
    score    = 1 / (1 + exp(-slope * (raw - limit)))    0.5 at the limit, 0.1 for the middle normal window

What decided, AUC on 8 normal and 6 abnormal recordings of one fan, 12 to 19 splits with 5 taught (mean, worst split):
mahalanobis 0.997 and 0.94, autoencoder 0.994 and 0.89, their mean 1.000 and 1.00, the larger of them 0.991 and 0.89.
With everything 3 dB quieter than taught: 0.75, 0.94, 0.90, 0.77. The autoencoder takes off what the hall does and
changes of gain, the plain distance sees what the autoencoder can rebuild.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.errors import ModelError
from edge_runtime.core.strict_json import parse_json
from edge_runtime.inference.anomaly import Limit
from edge_runtime.inference.mahalanobis import distances, hottest_number, window_means

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

SCHEMA = 1
SCORERS = ("mahalanobis", "autoencoder")
RANGE = 12.0  # spreads; further out is held there. The int8 network's step is then 0.09 spreads
MAX_FILE_BYTES = 4 << 20
MOST_BANDS, MOST_WINDOW_ROWS = 256, 10_000


@dataclass(frozen=True, slots=True)
class Scorer:
    """variance: (bands,), of mean residuals of held-back normal windows; number_mean, number_std: of their numbers.
    limit: for this score alone, which is told and does not decide."""

    name: str
    variance: F64
    number_mean: float
    number_std: float
    limit: Limit

    def relative(self, squares: F64) -> F64:
        """Distances (windows, bands) to numbers in standard deviations of normal windows."""
        return (hottest_number(squares) - self.number_mean) / self.number_std


@dataclass(frozen=True, slots=True)
class Judgement:
    """Of each window in turn. starts: its first row. score: (windows,), 0..1. by_scorer: the same of each score alone.
    distances: (windows, bands), mean of the scorers."""

    starts: NDArray[np.intp]
    score: F64
    by_scorer: Mapping[str, F64]
    distances: F64


@dataclass(frozen=True, slots=True)
class SoundMemory:
    """Saved as `memory.npz` of a bundle of kind `sound_anomaly`.

    row_hops: log-mel frames in a row. window_rows: rows in a window. mean, spread: (bands,). held_back: scores 0..1 of
    the taught windows, each under a model that had not heard its recording. interval: 95 % interval of the limit as
    scores. over_alarm: share of normal windows that the limit can promise.
    """

    row_hops: int
    window_rows: int
    mean: F32
    spread: F32
    scorers: tuple[Scorer, ...]
    limit: Limit
    over_alarm: float
    held_back: F32
    interval: tuple[float, float]

    def rows(self, frames: F32) -> F32:
        """log-mel frames (n, bands) to rows; what does not fill a row is left out."""
        return mean_rows(frames, self.row_hops)

    def in_spreads(self, rows: F32) -> F32:
        return in_spreads(rows, self.mean, self.spread)

    def judge(self, units: F32, rebuilt: F32, hop: int, shortest: int) -> Judgement:
        """Rows in units of spread, and what the network makes of them, in windows `hop` rows after each other.

        Sound between `shortest` rows and a window is one window. Raises ModelError when there are fewer rows, other
        bands, or values that are no numbers.
        """
        if units.ndim != 2 or units.shape[1] != len(self.mean) or rebuilt.shape != units.shape:
            raise ModelError(f"rows of sound {units.shape} and {rebuilt.shape}, taught with {len(self.mean)} bands")
        if len(units) < shortest:
            raise ModelError(f"{len(units)} rows of sound, at least {shortest} are judged")
        if not (np.isfinite(units).all() and np.isfinite(rebuilt).all()):
            raise ModelError("the sound or the model gave values that are no numbers (NaN or infinite)")
        count = min(self.window_rows, len(units))
        squares = {
            one.name: distances(window_means(residuals(one.name, units, rebuilt), count, hop), one.variance)
            for one in self.scorers
        }
        numbers = {one.name: one.relative(squares[one.name]) for one in self.scorers}
        return Judgement(
            starts=np.arange(0, len(units) - count + 1, hop),
            score=self.limit.squash(np.mean(list(numbers.values()), axis=0)),
            by_scorer={one.name: one.limit.squash(numbers[one.name]) for one in self.scorers},
            distances=np.mean(list(squares.values()), axis=0),
        )

    def save(self, path: str | Path) -> None:
        """The same bytes for the same memory."""
        about = {
            "schema": SCHEMA,
            "row_hops": self.row_hops,
            "window_rows": self.window_rows,
            "limit": asdict(self.limit),
            "over_alarm": self.over_alarm,
            "interval": self.interval,
            "scorers": [
                {"name": one.name, "number_mean": one.number_mean, "number_std": one.number_std, **asdict(one.limit)}
                for one in self.scorers
            ],
        }
        arrays: dict[str, NDArray[Any]] = {
            "about": np.array(json.dumps(about)),
            "mean": self.mean,
            "spread": self.spread,
            "held_back": self.held_back,
            **{f"variance_{one.name}": one.variance for one in self.scorers},
        }
        with Path(path).open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> SoundMemory:
        """Read `memory.npz`. Raises ModelError when it is damaged, too large, or not such a file."""
        try:
            with zipfile.ZipFile(path) as archive:  # an archive may hold far more than its own size
                if sum(member.file_size for member in archive.infolist()) > MAX_FILE_BYTES:
                    raise ModelError(f"unpacks to more than {MAX_FILE_BYTES >> 20} MB")
            with np.load(path, allow_pickle=False) as loaded:
                return _from_arrays({name: loaded[name] for name in loaded.files})
        except FileNotFoundError as err:
            raise ModelError(f"{path}: no such file") from err
        except ModelError as err:
            raise ModelError(f"{path}: {err}") from err
        except Exception as err:  # zipfile, numpy and json raise a dozen kinds on damaged files
            raise ModelError(f"{path}: damaged, or not what was learnt from normal sound ({err})") from err


def residuals(scorer: str, units: F32, rebuilt: F32) -> F32:
    """What is left of each row when what was expected is taken off; the usual mean is 0 in units of spread."""
    return units if scorer == "mahalanobis" else units - rebuilt


def mean_rows(frames: F32, row_hops: int) -> F32:
    """Means of each `row_hops` frames: (n, bands) to (n // row_hops, bands)."""
    count = len(frames) // row_hops
    rows: F32 = frames[: count * row_hops].reshape(count, row_hops, frames.shape[1]).mean(axis=1)
    return rows


def in_spreads(rows: F32, mean: F32, spread: F32) -> F32:
    """Rows in units of each band's own spread, held within RANGE."""
    return np.asarray(np.clip((rows - mean) / spread, -RANGE, RANGE), np.float32)


def _from_arrays(arrays: Mapping[str, NDArray[Any]]) -> SoundMemory:
    about = parse_json(str(arrays["about"]))
    if about["schema"] != SCHEMA:
        raise ModelError(
            f"written by another version (schema {about['schema']}, this one reads {SCHEMA})", "learn again"
        )
    mean, spread = _vector(arrays, "mean", np.float32), _vector(arrays, "spread", np.float32)
    scorers = tuple([_scorer(row, _vector(arrays, f"variance_{row['name']}", np.float64)) for row in about["scorers"]])
    low, high = (float(end) for end in about["interval"])
    memory = SoundMemory(
        row_hops=int(about["row_hops"]),
        window_rows=int(about["window_rows"]),
        mean=mean,
        spread=spread,
        scorers=scorers,
        limit=_limit(about["limit"]),
        over_alarm=float(about["over_alarm"]),
        held_back=_vector(arrays, "held_back", np.float32),
        interval=(low, high),
    )
    sizes = {len(mean), len(spread), *(len(one.variance) for one in scorers)}
    if len(sizes) != 1 or len(mean) > MOST_BANDS or (spread <= 0).any():
        raise ModelError("its arrays do not fit each other")
    if not np.isfinite([low, high, memory.over_alarm]).all():
        raise ModelError("its interval or its share of normal windows is no number")
    if tuple(one.name for one in scorers) != SCORERS:
        raise ModelError(f"scores {[one.name for one in scorers]}, this version knows {list(SCORERS)}")
    if not (1 <= memory.row_hops <= 1000 and 1 <= memory.window_rows <= MOST_WINDOW_ROWS):
        raise ModelError(f"windows of {memory.window_rows} rows of {memory.row_hops} frames are not possible")
    return memory


def _scorer(row: Mapping[str, Any], variance: NDArray[Any]) -> Scorer:
    mean, std = float(row["number_mean"]), float(row["number_std"])
    if not (np.isfinite([mean, std]).all() and std > 0) or (variance <= 0).any():
        raise ModelError(f"the variance or the numbers of {row['name']!r} are not possible")
    return Scorer(str(row["name"]), variance, mean, std, _limit(row))


def _limit(row: Mapping[str, Any]) -> Limit:
    limit = Limit(at=float(row["at"]), middle=float(row["middle"]))
    if not (np.isfinite([limit.at, limit.middle]).all() and limit.at > limit.middle):
        raise ModelError("a limit is not above the middle normal window")
    return limit


def _vector(arrays: Mapping[str, NDArray[Any]], name: str, dtype: type) -> NDArray[Any]:
    values = arrays[name]
    if values.dtype != dtype or values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ModelError(f"{name} is {values.dtype} {values.shape}, wanted finite {np.dtype(dtype)} of one dimension")
    return values
