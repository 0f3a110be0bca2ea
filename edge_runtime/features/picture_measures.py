"""What can be said about a picture without knowing what is on it: light, contrast, sharpness, blank lines.

Measured on the model's region at about the model's own size, because what the model cannot see there it cannot judge,
and because figures of cameras with other resolutions are then alike. Everything is taken from histograms of 8-bit
pictures by cv2, which lets the interpreter go. The picture is shrunk once for this and the model (`image.shrunk`);
what it costs beside the model is printed by tools/bench/hot_path.

Why these measures: percentiles and not the mean, since a dark phone on a dark belt and a white one have means of 33 and
90 under the same lamp. Sharpness is the differences of neighbours over the differences eight pixels apart, both as
power means so high that the strongest edges decide: near 0.65 in focus whatever the contrast, 0.125 on a ramp, where
the variance of a Laplacian goes with contrast and noise, and percentiles of blurred and sharp pictures overlap.

What moves during the exposure is blurred one way and sharp the other, so the less sharp direction is measured by
itself: 0.36 at least on 3000 parts in focus, 0.2 behind a motion of 15 pixels, where half of the scratches are missed.
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
POWER = 8  # of the means: 4 tells a blur of 2 pixels half as often
CELL_PX = 8  # cells whose mean is free of noise
BLANK_RANGE = 2  # a line of pixels this alike never came from a sensor
BLANK_DARK = 8  # nor one where nothing is brighter
EVERY = 4  # rows, and columns for blank lines: the range of 160 pixels shows noise as well as that of 640

_POWERS = np.arange(256.0) ** POWER


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
    histogram = _histogram(grey[::EVERY])
    levels = _percentiles(histogram, (0.1, 0.5, *LEVELS_AT, 99.5, 99.9))
    cells = _percentiles(_histogram(_cells(grey)), (0.1, 99.9))
    near_ways, far_ways = _differences(grey, NEAR_PX, 2), _differences(grey, FAR_PX, EVERY)
    near, far = near_ways[0] + near_ways[1], far_ways[0] + far_ways[1]
    return Measures(
        width=grey.shape[1],
        mean=float(histogram @ np.arange(256) / histogram.sum()),
        levels=tuple(levels[2:-2]),
        darkest=levels[0],
        brightest=levels[-1],
        contrast=levels[-2] - levels[1],
        structure=cells[1] - cells[0],
        noise=_percentiles(near, (50.0,))[0],
        edge=_power_mean(near),
        step=_power_mean(far),
        one_way=min(
            _power_mean(one) / max(LEAST_STEP, _power_mean(other))
            for one, other in zip(near_ways, far_ways, strict=True)
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


def _differences(grey: NDArray[np.uint8], apart: int, every: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Histograms of differences of pixels so far apart, along rows and along columns, on each so many-th row."""
    rows, columns = grey.shape
    along, across = np.zeros(256), np.zeros(256)
    if columns > apart:
        along = _histogram(cv2.absdiff(grey[::every, apart:], grey[::every, :-apart]))
    if rows > apart:
        across = _histogram(cv2.absdiff(grey[apart::every], grey[:-apart:every]))
    return along, across


def _power_mean(differences: NDArray[np.float64]) -> float:
    summed = float(differences @ _POWERS)
    return float((summed / max(1.0, float(differences.sum()))) ** (1.0 / POWER))


def _blank(grey: NDArray[np.uint8]) -> float:
    grid, shares = np.ascontiguousarray(grey[::EVERY, ::EVERY]), []
    for axis in (0, 1):
        most, least = grid.max(axis=axis), grid.min(axis=axis)
        nothing = (most - least <= BLANK_RANGE) | (most <= BLANK_DARK)
        lines = grid.T if axis == 0 else grid
        is_same = (lines[1:, ::16] == lines[:-1, ::16]).all(axis=1)  # as far as a few pixels say
        if is_same.any():
            is_same = (lines[1:] == lines[:-1]).all(axis=1)
        nothing[1:] |= is_same
        shares.append(float(nothing.mean()))
    return max(shares)


def _colours(seen: NDArray[np.uint8]) -> tuple[tuple[int, int], ...]:
    if seen.ndim == 2:
        return ()
    ranges = [cv2.minMaxLoc(colour)[:2] for colour in cv2.split(seen[:: 4 * EVERY])]
    return tuple((int(least), int(most)) for least, most in ranges)


def _histogram(grey: NDArray[np.uint8] | cv2.typing.MatLike) -> NDArray[np.float64]:
    return np.asarray(cv2.calcHist([np.asarray(grey)], [0], None, [256], [0, 256]).ravel(), np.float64)


def _percentiles(histogram: NDArray[np.float64], at: tuple[float, ...]) -> list[float]:
    """Levels at or under which so many per cent of the counted pixels are; 0 where none was counted."""
    summed = np.cumsum(histogram)
    return [float(level) for level in np.searchsorted(summed, np.asarray(at) / 100.0 * summed[-1] * (1 - 1e-12))]
