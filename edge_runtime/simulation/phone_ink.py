"""Drawing primitives for the simulated phone: curves, outlines and sub-pixel strokes, on NumPy and OpenCV only.

Sizes are written in `unit` pixels: one unit is one pixel of a frame 1920 wide, so the same part looks the same at any
size. Everything is anti-aliased by OpenCV's fixed-point coordinates (4 fraction bits), which is why points stay
floats until here."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
Points = NDArray[np.float64]  # shape (n, 2), x and y in pixels
Values = NDArray[np.float64]  # shape (n,)
Rng = np.random.Generator

FRACTION_BITS = 4
FULL_TURN = 2.0 * math.pi


def fixed_point(points: Points) -> NDArray[np.int32]:
    """Points in OpenCV's fixed-point form, shape (n, 1, 2)."""
    return np.round(points * (1 << FRACTION_BITS)).astype(np.int32).reshape(-1, 1, 2)


def fill(canvas: U8, outline: Points, colour: Sequence[float]) -> None:
    """Fill a closed outline, anti-aliased, in place."""
    cv2.fillPoly(canvas, [fixed_point(outline)], list(colour), cv2.LINE_AA, FRACTION_BITS)


def trace(canvas: U8, outline: Points, colour: Sequence[float], width_px: float, closed: bool = True) -> None:
    """Draw a line of one colour along points, in place; below one pixel it stays one pixel and gets dimmer."""
    thickness = max(1, round(width_px))
    dim = min(1.0, width_px / thickness)
    points = [fixed_point(outline)]
    cv2.polylines(canvas, points, closed, [c * dim for c in colour], thickness, cv2.LINE_AA, FRACTION_BITS)


def stroke(layer: U8, points: Points, values: Values, widths_px: Values) -> None:
    """Draw a line whose brightness and width change along it, in place on one channel.

    values, widths_px: shape (n - 1,), one per segment. Dark segments (below 2 grey levels) are left out.
    """
    thickness = np.maximum(1, np.round(widths_px)).astype(int)
    grey = values * np.minimum(1.0, widths_px / thickness)
    dots = np.round(points * (1 << FRACTION_BITS)).astype(int).tolist()
    for a, b, value, thick in zip(dots[:-1], dots[1:], grey.tolist(), thickness.tolist(), strict=True):
        if value >= 2.0:
            cv2.line(layer, a, b, value, thick, cv2.LINE_AA, FRACTION_BITS)


def curve(rng: Rng, start: tuple[float, float], heading: float, length: float, bend: float, step: float) -> Points:
    """A smooth path: `bend` is the whole turn in radians, spread unevenly, plus a little tremor of the hand."""
    n = max(3, round(length / step) + 1)
    pace = np.linspace(0.0, 1.0, n)
    turn = heading + bend * pace ** rng.uniform(0.7, 1.8) + rng.normal(0.0, 0.03, n)
    steps = np.column_stack((np.cos(turn), np.sin(turn))) * (length / (n - 1))
    path: Points = np.vstack((np.asarray(start, np.float64), np.asarray(start) + np.cumsum(steps, axis=0)))
    return path


def rounded_box(centre: tuple[float, float], size: tuple[float, float], radius: float, angle: float = 0.0) -> Points:
    """Outline of a rectangle with round corners, turned by `angle` radians about its centre, clockwise from the top
    left."""
    half_w, half_h = size[0] / 2.0, size[1] / 2.0
    radius = max(0.01, min(radius, half_w, half_h))
    arc = np.linspace(0.0, math.pi / 2.0, 13)
    corners = ((-1, -1, math.pi), (1, -1, 1.5 * math.pi), (1, 1, 0.0), (-1, 1, 0.5 * math.pi))
    parts = [
        np.column_stack(
            (
                sx * (half_w - radius) + radius * np.cos(arc + start),
                sy * (half_h - radius) + radius * np.sin(arc + start),
            )
        )
        for sx, sy, start in corners
    ]
    out: Points = turned(np.vstack(parts), angle) + np.asarray(centre)
    return out


def turned(points: Points, angle: float) -> Points:
    """Points turned by `angle` radians about the origin."""
    c, s = math.cos(angle), math.sin(angle)
    out: Points = points @ np.array([[c, s], [-s, c]])
    return out


def round_outline(rng: Rng, centre: tuple[float, float], radius: float, unrest: float) -> Points:
    """Outline of a drop: a circle whose radius is disturbed by a few low harmonics of relative size `unrest`."""
    angle = np.linspace(0.0, FULL_TURN, max(24, min(120, int(radius * 3))), endpoint=False)
    shape = np.ones_like(angle)
    for harmonic in (2, 3, 4, 5):
        shape += rng.normal(0.0, unrest / harmonic) * np.cos(harmonic * angle + rng.uniform(0.0, FULL_TURN))
    shape = np.maximum(shape, 0.35) * radius
    out: Points = np.column_stack((np.cos(angle), np.sin(angle))) * shape[:, None] + np.asarray(centre)
    return out


def sausage_outline(path: Points, radii: Values) -> Points:
    """Outline of a drop pulled along a path, with one radius per point of the path and round ends."""
    along = np.gradient(path, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    normal = np.column_stack((-along[:, 1], along[:, 0]))
    cap = np.linspace(0.0, math.pi, 10)[1:-1]
    caps = []
    for end, sign in ((-1, 1.0), (0, -1.0)):
        out, side = sign * along[end], sign * normal[end]
        caps.append(path[end] + radii[end] * (np.cos(cap)[:, None] * side + np.sin(cap)[:, None] * out))
    left, right = path + normal * radii[:, None], (path - normal * radii[:, None])[::-1]
    return np.vstack((left, caps[0], right, caps[1]))


def outward_normals(outline: Points) -> Points:
    """Unit vectors pointing out of a closed outline, one per segment (from each point to the next)."""
    edge = np.roll(outline, -1, axis=0) - outline
    area2 = float(np.sum(outline[:, 0] * edge[:, 1] - outline[:, 1] * edge[:, 0]))
    normal = np.column_stack((edge[:, 1], -edge[:, 0])) * (1.0 if area2 > 0 else -1.0)
    out: Points = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    return out


def smooth_noise(rng: Rng, height: int, width: int, grain_px: float) -> NDArray[np.float32]:
    """Soft random field with zero mean and unit deviation; `grain_px` is the size of its features."""
    rows, cols = max(3, round(height / grain_px) + 2), max(3, round(width / grain_px) + 2)
    coarse = rng.standard_normal((rows, cols), dtype=np.float32)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
