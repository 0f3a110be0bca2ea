"""What can be said about a picture without knowing what is on it: light, contrast, sharpness, blank lines.

Measured on the model's region at about the model's own size, because what the model cannot see there it cannot judge,
and because figures of cameras with other resolutions are then alike. The picture is shrunk once for this and the model
(`image.shrunk`), and nearly all of the rest is cv2 on 8-bit pictures, which lets the interpreter go; what it costs
beside the model is printed by tools/bench/hot_path.

Why these measures: percentiles and not the mean, since a dark phone on a dark belt and a white one have means of 33 and
90 under the same lamp. Sharpness is the differences of neighbours over the differences eight pixels apart, both as
power means so high that the strongest edges decide: near 0.65 in focus whatever the contrast, 0.125 on a ramp, where
the variance of a Laplacian goes with contrast and noise, and percentiles of blurred and sharp pictures overlap.

What moves during the exposure is blurred one way and sharp the other, so the less sharp direction is measured by
itself: 0.40 at least on 3000 parts in focus, 0.2 behind a motion of 15 pixels, where half of the scratches are missed.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.manifest import InputSpec
from edge_runtime.features.image import plan_input, shrunk

LEVELS_AT = (5.0, 25.0, 50.0, 75.0, 95.0)  # percentiles
WHOLE = InputSpec(width=640, height=360)  # where no model says how it looks at pictures
MOST_SIDE = 640  # pixels of the longer side that is measured
NEAR_PX, FAR_PX = 1, 8
LEAST_STEP = 8.0  # levels; smaller steps may be noise and say nothing about focus
POWER = 8  # of the means: 4 tells a blur of 2 pixels little more than half as often
CELL_PX = 8  # cells whose mean is free of noise
BLANK_RANGE = 2  # a line of pixels this alike never came from a sensor
BLANK_DARK = 8  # nor one where nothing is brighter
EVERY = 4  # rows and columns for blank lines: the range of 160 pixels shows noise as well as that of 640
EVERY_FAR = 4  # rows for differences FAR_PX apart, whose edges are as wide
FOLDS = 4  # halvings of what the power means are taken from
LEVEL_ROWS, NOISE_ROWS = 45, 6  # enough for percentiles, and for a median

_LEVELS = np.arange(256.0)
_POWERS = (_LEVELS**POWER).astype(np.float32)
_LEVELS_AT = np.asarray((0.1, 0.5, *LEVELS_AT, 99.5, 99.9))
_ENDS_AT, _MEDIAN = np.asarray((0.1, 99.9)), np.asarray((50.0,))


@dataclass(frozen=True, slots=True)
class Measures:
    """Grey levels are 0..255, shares 0..1."""

    width: int  # of the picture that was measured
    mean: float
    levels: tuple[float, ...]  # at LEVELS_AT
    darkest: float  # 0.1st percentile
    brightest: float  # 99.9th percentile
    contrast: float  # between the 0.5th and the 99.5th percentile
    structure: float  # the same between cells, which have no noise
    noise: float  # median difference of neighbours
    edge: float  # difference of neighbours, power mean
    step: float  # difference FAR_PX apart, power mean
    one_way: float  # sharpness along rows or along columns, whichever is less; low where one direction has no edges
    blank: float  # share of rows or of columns, whichever is more, on which there is nothing, or nothing new
    colours: tuple[tuple[int, int], ...]  # least and most of red, green and blue; empty for a grey picture

    @property
    def sharpness(self) -> float:
        """About 0.65 in focus, 0.125 on a ramp; 0 where nothing differs."""
        return self.edge / max(1.0, self.step)

    @property
    def crispness(self) -> float:
        """The strongest edges as a share of the contrast: falls with blur even where noise passes for sharpness."""
        return self.edge / max(1.0, self.contrast)


def measure(image: NDArray[np.uint8], spec: InputSpec | None = None) -> Measures:
    """image: uint8 RGB (height, width, 3) or grey (height, width), any size from 1x1. Not changed."""
    seen = _look(image, spec or WHOLE)
    grey = seen if seen.ndim == 2 else np.asarray(cv2.cvtColor(seen, cv2.COLOR_RGB2GRAY))
    histogram = _histogram(_some(grey, LEVEL_ROWS))
    levels = _percentiles(histogram, _LEVELS_AT)
    cells = _percentiles(_histogram(_cells(grey)), _ENDS_AT)
    near, far = _edges(grey, NEAR_PX), _edges(grey, FAR_PX, EVERY_FAR)
    return Measures(
        width=grey.shape[1],
        mean=float(histogram @ _LEVELS / histogram.sum()),
        levels=tuple(levels[2:-2]),
        darkest=levels[0],
        brightest=levels[-1],
        contrast=levels[-2] - levels[1],
        structure=cells[1] - cells[0],
        noise=_noise(grey),
        edge=_power_mean(*near),
        step=_power_mean(*far),
        one_way=min(
            _power_mean(one) / max(LEAST_STEP, _power_mean(other)) for one, other in zip(near, far, strict=True)
        ),
        blank=_blank(grey),
        colours=_colours(seen),
    )


def _look(image: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """Region of interest, its longer side as the model's or MOST_SIDE; in its own shape, never enlarged."""
    plan = plan_input(spec, image.shape[1], image.shape[0])
    rows, columns = image[plan.crop].shape[:2]
    factor = min(1.0, min(MOST_SIDE, max(plan.size)) / max(rows, columns))
    size = max(1, round(columns * factor)), max(1, round(rows * factor))
    return np.ascontiguousarray(shrunk(image, plan.crop, size))


def _cells(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """By halves where they go up: cv2 has a quick way for these, which takes a fifth of the time of one step."""
    rows, columns = (max(1, side // CELL_PX) for side in grey.shape)
    while grey.shape[0] >= 2 * rows and not (grey.shape[0] % 2 or grey.shape[1] % 2):
        half = (grey.shape[1] // 2, grey.shape[0] // 2)
        grey = np.asarray(cv2.resize(grey, half, interpolation=cv2.INTER_AREA))
    return np.asarray(cv2.resize(grey, (columns, rows), interpolation=cv2.INTER_AREA))


def _edges(grey: NDArray[np.uint8], apart: int, every: int = 1) -> tuple[tuple[float, int], tuple[float, int]]:
    """`_powers` of the differences of pixels so far apart, along rows and along columns, on each so many-th row.

    One after the other, so that the memory of the first is used again while the cache has it.
    """
    rows, columns = grey.shape
    along = across = (0.0, 0)
    if columns > apart:
        along = _powers(cv2.absdiff(grey[::every, apart:], grey[::every, :-apart]))
    if rows > apart:
        across = _powers(cv2.absdiff(grey[apart::every], grey[:-apart:every]))
    return along, across


def _powers(differences: cv2.typing.MatLike) -> tuple[float, int]:
    """Sum of the strongest to POWER, and of how many differences: of upper and lower half the larger, FOLDS times.

    A power mean hangs on the strongest edges, and these stay: a sixteenth of the numbers tells as much as all of them,
    where a quarter of the rows tells less, since it has a quarter of the edges.
    """
    strongest = differences
    for _ in range(FOLDS):
        half = (len(strongest) + 1) // 2
        strongest = cv2.max(strongest[:half], strongest[-half:])
    return float(cv2.sumElems(cv2.LUT(strongest, _POWERS))[0]), differences.size


def _power_mean(*sums: tuple[float, int]) -> float:
    total, count = (sum(column) for column in zip(*sums, strict=True))
    return float((total / max(1, count)) ** (1.0 / POWER))


def _noise(grey: NDArray[np.uint8]) -> float:
    """Median difference of neighbours, along rows and along columns."""
    if 1 in grey.shape:
        return 0.0
    here, below = _some(grey[:-1], NOISE_ROWS), _some(grey[1:], NOISE_ROWS)
    along, across = cv2.absdiff(here[:, 1:], here[:, :-1]), cv2.absdiff(here[:, 1:], below[:, 1:])
    return _percentiles(_histogram(np.concatenate((along, across))), _MEDIAN)[0]


def _some(grey: NDArray[np.uint8], rows: int) -> NDArray[np.uint8]:
    """About so many rows of all heights, at least."""
    return grey[:: max(1, len(grey) // rows)]


def _blank(grey: NDArray[np.uint8]) -> float:
    grid = np.ascontiguousarray(grey[::EVERY, ::EVERY])
    return max(_blank_columns(grid), _blank_columns(np.asarray(cv2.transpose(grid))))


def _blank_columns(grid: NDArray[np.uint8]) -> float:
    most, least = grid.max(axis=0), grid.min(axis=0)
    blank = (most - least <= BLANK_RANGE) | (most <= BLANK_DARK)
    if len(blank) > 1:
        blank[1:] |= cv2.absdiff(grid[:, 1:], grid[:, :-1]).max(axis=0) == 0  # the one before again
    return np.count_nonzero(blank) / len(blank)


def _colours(seen: NDArray[np.uint8]) -> tuple[tuple[int, int], ...]:
    if seen.ndim == 2:
        return ()
    ranges = [cv2.minMaxLoc(colour)[:2] for colour in cv2.split(seen[:: 4 * EVERY])]
    return tuple((int(least), int(most)) for least, most in ranges)


def _histogram(grey: NDArray[np.uint8] | cv2.typing.MatLike) -> NDArray[np.float64]:
    return np.asarray(cv2.calcHist([np.asarray(grey)], [0], None, [256], [0, 256]).ravel(), np.float64)


def _percentiles(histogram: NDArray[np.float64], at: NDArray[np.float64]) -> list[float]:
    """Levels at or under which so many per cent of the counted pixels are."""
    summed = np.cumsum(histogram)
    wanted = at * (float(summed[-1]) * (1 - 1e-12) / 100.0)
    return [float(level) for level in np.searchsorted(summed, wanted)]
