"""Learn what a machine sounds like when all is well. No abnormal sound is needed, and none is used.

Every window is judged once by a model that has not heard its recording (recordings are dealt into folds; of fewer than
MOST_FILES_CUT recordings, stretches of them are). Those held-back numbers set the variances, the units and the limit:

    limit = the smaller of  the upper prediction limit of learning/anomaly_fit.py  and  the largest held-back number

One more window exceeds the largest of n with probability 1 / (n + 1), so with few windows that is the share that the
limit can promise; a normal distribution's tail drawn from 7 numbers lies beyond every fault (found of the abnormal fan
recordings at a promised 1 %: none, at 10 %: half). Windows of one recording resemble each other: the promise holds for
recordings like those that taught, no wider.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.errors import ModelError
from edge_runtime.inference.anomaly import Limit
from edge_runtime.inference.mahalanobis import distances, hottest_number, usual_variance
from edge_runtime.inference.sound_memory import F32, F64, SCORERS, Scorer, SoundMemory, in_spreads, residuals
from edge_runtime.learning.anomaly_fit import LEAST_OVER_REJECT, RESAMPLES, upper_limit
from edge_runtime.learning.autoencoder import Network, run_network, train_autoencoder

FEWEST_WINDOWS = 6  # Student's t with four degrees of freedom or fewer puts the limit out of any fault's reach
FOLDS = 8
MOST_FILES_CUT = 4
MOST_ROWS = 20_000  # that teach: 85 minutes; evenly spaced ones of a longer recording are taken
LEAST_STD = 0.05  # of numbers: seven alike windows are luck
LEAST_SPREAD = 0.02  # nepers of power, 0.09 dB: steadier than any microphone

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class SoundLesson:
    """units: (n, bands) float32, rows that taught in units of spread, for the int8 network's scales. folds: how many
    models judged held-back windows."""

    memory: SoundMemory
    network: Network
    units: F32
    windows: int
    folds: int

    @property
    def over(self) -> int:
        """Held-back normal windows that are over the limit."""
        return int((self.memory.held_back >= 0.5).sum())


def fit_sound(
    recordings: Sequence[F32],
    *,
    row_hops: int,
    window_rows: int,
    over_alarm: float = 0.01,
    seed: int = 1,
    progress: Progress | None = None,
) -> SoundLesson:
    """recordings: rows (n, bands) of each normal recording, in order of time. The same ones give the same lesson.

    Raises ModelError for less sound than FEWEST_WINDOWS windows.
    """
    if not LEAST_OVER_REJECT <= over_alarm <= 0.5:
        raise ModelError(f"a share of alarms of {over_alarm:g} is not possible", f"take {LEAST_OVER_REJECT:g} to 0.5")
    windows, owners = _windows(recordings, window_rows)
    if len(windows) < FEWEST_WINDOWS:
        raise ModelError(f"{len(windows)} whole windows of normal sound, at least {FEWEST_WINDOWS} are needed")
    groups = _groups(owners, len(windows))
    count = int(groups.max()) + 1
    residual = {name: np.empty((len(windows), windows.shape[2])) for name in SCORERS}
    for group in range(count):
        if progress:
            progress("learning", group, count + 1)
        for name, means in _held_back(windows, groups == group, seed).items():
            residual[name][groups == group] = means
    if progress:
        progress("learning", count, count + 1)
    mean, spread, units = _units(windows)
    network = train_autoencoder(units, np.float32(1.0) / spread, seed)
    judged = [_scorer(name, residual[name], groups, over_alarm) for name in SCORERS]
    raw = np.mean([relative for _, relative in judged], axis=0)
    limit = _limit(raw, over_alarm)
    memory = SoundMemory(
        row_hops=row_hops,
        window_rows=window_rows,
        mean=mean,
        spread=spread,
        scorers=tuple([scorer for scorer, _ in judged]),
        limit=limit,
        over_alarm=max(over_alarm, 1.0 / (len(windows) + 1)),
        held_back=limit.squash(raw).astype(np.float32),
        interval=_interval(raw, limit, over_alarm, seed),
    )
    return SoundLesson(memory, network, units, len(windows), count)


def rank_auc(normal: Sequence[float] | NDArray[Any], abnormal: Sequence[float] | NDArray[Any]) -> float:
    """Probability that an abnormal one scores higher than a normal one; ties count half."""
    a, b = np.sort(np.asarray(normal, np.float64)), np.asarray(abnormal, np.float64)
    below = np.searchsorted(a, b, "left") + np.searchsorted(a, b, "right")
    return float(below.mean() / (2.0 * len(a)))


def _windows(recordings: Sequence[F32], window_rows: int) -> tuple[F32, NDArray[np.intp]]:
    """Whole windows side by side, (n, window_rows, bands), and the recording that each is from."""
    found, owners = [], []
    for number, rows in enumerate(recordings):
        if rows.ndim != 2 or not np.isfinite(rows).all():
            raise ModelError(f"recording {number}: rows {rows.shape}, wanted finite numbers (n, bands)")
        count = len(rows) // window_rows
        found.append(rows[: count * window_rows].reshape(count, window_rows, rows.shape[1]))
        owners += [number] * count
    if not owners:
        return np.empty((0, window_rows, 1), np.float32), np.empty(0, np.intp)
    return np.concatenate([part for part in found if len(part)]), np.asarray(owners, np.intp)


def _groups(owners: NDArray[np.intp], windows: int) -> NDArray[np.intp]:
    """Fold of each window: neighbours in time together, a recording never in two folds where there are enough."""
    names, index = np.unique(owners, return_inverse=True)
    if len(names) < MOST_FILES_CUT:
        names, index = np.arange(windows), np.arange(windows)
    return np.asarray(index * min(FOLDS, len(names)) // len(names), np.intp)


def _units(windows: F32) -> tuple[F32, F32, F32]:
    """Mean and spread of each band, and the rows in those units."""
    rows = windows.reshape(-1, windows.shape[2])
    rows = rows[:: -(-len(rows) // MOST_ROWS)]
    mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = np.maximum(rows.std(axis=0, dtype=np.float64), LEAST_SPREAD).astype(np.float32)
    return mean, spread, in_spreads(rows, mean, spread)


def _held_back(windows: F32, is_out: NDArray[np.bool_], seed: int) -> dict[str, F64]:
    """Mean residuals (windows, bands) of the windows that are out, by models that were taught with the others."""
    mean, spread, units = _units(windows[~is_out])
    network = train_autoencoder(units, np.float32(1.0) / spread, seed)
    judged = in_spreads(windows[is_out], mean, spread)
    rebuilt = run_network(network, judged.reshape(-1, judged.shape[2]))[-1].reshape(judged.shape)
    return {name: residuals(name, judged, rebuilt).mean(axis=1, dtype=np.float64) for name in SCORERS}


def _scorer(name: str, residual: F64, groups: NDArray[np.intp], over_alarm: float) -> tuple[Scorer, F64]:
    """The scorer, and the held-back numbers in its units.

    A fold's own residuals are not in the variance that judges it: with eight windows, one of them makes an eighth of it
    and hides behind itself.
    """
    squares, numbers = np.square(residual), np.empty(len(residual))
    for group in np.unique(groups):
        is_out = groups == group
        numbers[is_out] = hottest_number(distances(residual[is_out], usual_variance(squares[~is_out])))
    mean, std = float(numbers.mean()), max(float(numbers.std(ddof=1)), LEAST_STD)
    relative = (numbers - mean) / std
    return Scorer(name, usual_variance(squares), mean, std, _limit(relative, over_alarm)), relative


def _limit(raw: F64, over_alarm: float) -> Limit:
    middle = float(np.median(raw))
    return Limit(at=max(_limit_at(raw, over_alarm), middle + 1e-3), middle=middle)


def _limit_at(raw: F64, over_alarm: float) -> float:
    return min(upper_limit(raw, over_alarm), float(raw.max()) + 1e-3)


def _interval(raw: F64, limit: Limit, over_alarm: float, seed: int) -> tuple[float, float]:
    """95 % percentile bootstrap of the limit, as scores."""
    rng = np.random.default_rng(seed)
    again = [_limit_at(rng.choice(raw, len(raw)), over_alarm) for _ in range(RESAMPLES)]
    low, high = limit.squash(np.quantile(again, (0.025, 0.975)))
    return float(low), float(high)
