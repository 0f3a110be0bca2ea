"""Pictures drawn by the product itself, to calibrate the backbone's quantisation with: no photograph goes in.

A range must cover what cameras show, and must not be stretched by what they never show. So: noise of every grain from
one pixel to an eighth of the picture, brushed in one direction in every third, dim to bright, with lines, discs and
boxes on top; phones from the simulated line; and every second picture under even light.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.features.image import shrink
from edge_runtime.features.light import even_light
from edge_runtime.simulation.phone_scene import SceneConfig, render_phone

U8 = NDArray[np.uint8]
GRAINS_PX = (1, 2, 4, 8, 16, 32, 64)
PHONE_SEED = 7_000_000  # a station that neither trains nor tests any other model


def calibration_pictures(count: int, side: int, seed: int) -> list[U8]:
    """`count` pictures, uint8 RGB (side, side, 3): three surfaces to each phone, every second one under even light."""
    pictures = []
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        is_phone = index % 4 == 3
        picture = phone(index, side) if is_phone else surface(rng, side, is_brushed=index % 3 == 0)
        pictures.append(even_light(picture, 1.0) if index % 2 else picture)
    return pictures


def surface(rng: np.random.Generator, side: int, is_brushed: bool = False, marks: int | None = None) -> U8:
    """A patch of some material: noise of several grains, with `marks` (None: up to 11) lines, discs and boxes on it."""
    field = np.zeros((side, side, 3), np.float32)
    for grain in GRAINS_PX:
        cells = max(side // grain, 2)
        noise = rng.normal(0.0, 1.0, (cells, cells, 1 if rng.random() < 0.7 else 3)).astype(np.float32)
        noise = cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC).reshape(side, side, -1)
        field += noise * np.float32(grain ** rng.uniform(-0.2, 0.8) * rng.uniform(0.0, 1.0))
    if is_brushed:
        field = cv2.blur(field, (1, int(rng.integers(2, 60))))
    field = (field - field.mean()) / (field.std() + 1e-6) * rng.uniform(8.0, 60.0) + rng.uniform(30.0, 220.0)
    picture = np.ascontiguousarray(field.clip(0, 255).astype(np.uint8))
    for _ in range(int(rng.integers(0, 12)) if marks is None else marks):
        _draw_mark(rng, picture, side)
    return picture


def phone(index: int, side: int) -> U8:
    """A phone on the simulated line, stretched to the square."""
    frame = render_phone(PHONE_SEED, index, SceneConfig(width=960, height=540, scratch_share=0.3)).image
    return np.ascontiguousarray(shrink(frame, side, side))


def _draw_mark(rng: np.random.Generator, picture: U8, side: int) -> None:
    colour = tuple(int(level) for level in rng.integers(0, 256, 3))
    start, end = ((int(x), int(y)) for x, y in rng.integers(0, side, (2, 2)))
    match int(rng.integers(0, 3)):
        case 0:
            cv2.line(picture, start, end, colour, int(rng.integers(1, 6)), cv2.LINE_AA)
        case 1:
            filled = -1 if rng.random() < 0.5 else 2
            cv2.circle(picture, start, int(rng.integers(2, side // 4)), colour, filled, cv2.LINE_AA)
        case _:
            cv2.rectangle(picture, start, end, colour, -1 if rng.random() < 0.5 else 2)
