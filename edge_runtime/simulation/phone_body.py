"""The clean part: a phone model lying on the belt, and what the camera station mirrors in its glass.

Both are slow to draw (about 60 ms at 1280x720) and do not change from part to part, so each is drawn once and kept. A
body is drawn on a plate larger than the frame: cropping the plate somewhere else moves the phone for free. Mirror
images belong to the station, not to the phone, so they stay where they are when the phone moves."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import cv2
import numpy as np

from edge_runtime.simulation.phone_ink import (
    U8,
    Points,
    Rng,
    curve,
    fill,
    outward_normals,
    rounded_box,
    smooth_noise,
    stroke,
    trace,
    turned,
)

BODY_STYLES = ("edge_to_edge", "white_bezel", "notch", "home_button", "curved_glass", "black_bezel")
MARGIN_SHARE = 0.012  # of the frame width: how far a part may lie from where the guides should hold it
CLEAR_OF_HOLES = 10.0  # units between the screen, where things may lie on the glass, and the edge of a hole
BELT_BAND = 0.055  # share of the frame height at the top and at the bottom that no phone ever covers


@dataclass(frozen=True, slots=True)
class Plate:
    """One phone on one piece of belt. image: u8 (H+2m, W+2m, 3) RGB; glass: u8 (H+2m, W+2m), 255 on mirroring dark
    glass; screen: u8 of the same shape, 255 where the inner glass is, the part a scratch may lie on; m is
    `margin_px`."""

    image: U8
    glass: U8
    screen: U8
    margin_px: int


@dataclass(frozen=True, slots=True)
class _Pose:
    """Where the phone lies on the plate: turns phone coordinates (units from its middle) into plate pixels."""

    centre: tuple[float, float]
    angle: float
    unit: float
    mirrored: bool

    def place(self, points: Points) -> Points:
        flipped = points * np.array([-1.0 if self.mirrored else 1.0, 1.0])
        placed: Points = turned(flipped, self.angle) * self.unit + np.asarray(self.centre)
        return placed

    def box(self, centre: tuple[float, float], size: tuple[float, float], radius: float) -> Points:
        return self.place(rounded_box(centre, size, radius))


def draw_plate(rng: Rng, style: str, width: int, height: int) -> Plate:
    """Draw one phone of a style; two calls with differently seeded generators give two different phone models."""
    margin = max(2, round(width * MARGIN_SHARE))
    w, h = width + 2 * margin, height + 2 * margin
    unit = width / 1920.0
    canvas = _draw_belt(rng, w, h, unit)
    glass, screen = np.zeros((h, w), np.uint8), np.zeros((h, w), np.uint8)

    tall_limit = (1.0 - 2.0 * BELT_BAND) * height / unit - 2.0 * margin / unit
    size = (
        rng.uniform(1660.0, 1830.0),
        min(rng.uniform(770.0, 890.0) * height / width * 16.0 / 9.0, tall_limit * 0.97),
    )
    slack_y = (tall_limit - size[1]) / 2.0
    centre = (w / 2.0 + rng.uniform(-25.0, 25.0) * unit, h / 2.0 + rng.uniform(-0.6, 0.6) * slack_y * unit)
    steep = min(math.radians(0.9), max(0.0, 0.35 * slack_y / (size[0] / 2.0)))
    pose = _Pose(centre, rng.uniform(-steep, steep), unit, bool(rng.random() < 0.5))
    _draw_body(rng, style, canvas, glass, screen, pose, size)

    shade = smooth_noise(rng, h, w, w / 2.5) * rng.uniform(0.02, 0.07) + 1.0  # the lamp is never quite even
    canvas = np.clip(canvas * shade[..., None] + 0.5, 0.0, 255.0).astype(np.uint8)
    cv2.GaussianBlur(canvas, (0, 0), max(0.35, 0.8 * unit), dst=canvas)
    return Plate(canvas, glass, screen, margin)


def draw_mirror_image(rng: Rng, width: int, height: int) -> U8:
    """What the station mirrors in any dark glass under it: grey haze, the camera's dark square, its cable, coloured
    bands.

    Returns u8 (height, width, 3), to be added to the picture where there is glass.
    """
    unit = width / 1920.0
    small_w, small_h, k = (
        max(8, width // 4),
        max(8, height // 4),
        unit / 4.0,
    )  # everything here is soft: a quarter will do
    haze = smooth_noise(rng, small_h, small_w, small_w / 4.0) * rng.uniform(1.0, 2.6) + rng.uniform(7.0, 13.0)
    tint = np.array([rng.uniform(0.92, 1.05), 1.0, rng.uniform(0.92, 1.1)])
    layer = np.maximum(haze, 0.0)[..., None] * tint
    _mirror_bands(rng, layer, k)
    _mirror_camera(rng, layer, k)
    layer = np.asarray(cv2.GaussianBlur(layer, (0, 0), max(0.5, rng.uniform(6.0, 18.0) * k)), np.float64)
    out = cv2.resize(np.clip(layer, 0.0, 255.0).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    image: U8 = np.round(out).astype(np.uint8)
    return image


def _mirror_camera(rng: Rng, layer: np.ndarray, k: float) -> None:
    h, w = layer.shape[:2]
    x, y = w * rng.uniform(0.42, 0.58), h * rng.uniform(0.38, 0.52)
    side = rng.uniform(230.0, 330.0) * k
    shadow = np.zeros((h, w), np.uint8)
    fill(shadow, rounded_box((x, y), (side, side * rng.uniform(0.85, 1.0)), 40.0 * k), (255,))
    fill(shadow, rounded_box((x, y - side), (80.0 * k, 1.4 * side), 4.0 * k), (rng.uniform(80.0, 200.0),))
    layer *= (1.0 - rng.uniform(0.3, 0.75) * shadow / 255.0)[..., None]
    glint = np.zeros((h, w), np.uint8)  # the lens mount and the lamp above the camera
    fill(glint, rounded_box((x, y - side * rng.uniform(1.0, 1.3)), (70.0 * k, 60.0 * k), 8.0 * k), (255,))
    spot = (int(x + rng.uniform(-0.3, 0.4) * side), int(y + rng.uniform(0.0, 0.4) * side))
    cv2.circle(glint, spot, max(1, round(25.0 * k)), 110, -1, cv2.LINE_AA)
    layer += (glint / 255.0 * rng.uniform(4.0, 30.0))[..., None]


def _mirror_bands(rng: Rng, layer: np.ndarray, k: float) -> None:
    h, w = layer.shape[:2]
    for _ in range(int(rng.integers(0, 4))):  # red, blue and grey bands: lamps, frames and cables of the station
        band = np.zeros((h, w), np.uint8)
        start = (rng.uniform(0.05, 0.95) * w, -20.0 * k)
        path = curve(rng, start, rng.uniform(0.9, 2.2), 1.3 * h, rng.normal(0.0, 0.5), 60.0 * k)
        trace(band, path, (255,), rng.uniform(25.0, 80.0) * k, closed=False)
        tint = ((1.0, 0.1, 0.1), (0.25, 0.35, 1.0), (1.0, 1.0, 1.0))[int(rng.integers(3))]
        layer += (band / 255.0)[..., None] * np.array(tint) * rng.uniform(4.0, 24.0)
    if rng.random() < 0.4:  # a window frame: two bars that meet
        frame = np.zeros((h, w), np.uint8)
        corner = (rng.choice((0.07, 0.93)) * w, rng.uniform(0.25, 0.6) * h)
        fill(frame, rounded_box((corner[0], corner[1] / 2.0), (30.0 * k, corner[1]), 2.0), (255,))
        fill(frame, rounded_box(corner, (90.0 * k, 28.0 * k), 2.0), (255,))
        layer += (frame / 255.0 * rng.uniform(6.0, 40.0))[..., None]


def _draw_belt(rng: Rng, w: int, h: int, unit: float) -> U8:
    tint = np.array([rng.uniform(0.95, 1.03), 1.0, rng.uniform(0.96, 1.08)], np.float32)
    grain = rng.standard_normal((h, w), dtype=np.float32)
    cv2.GaussianBlur(grain, (0, 0), max(0.4, 1.3 * unit), dst=grain)
    grain *= rng.uniform(4.0, 9.0) / max(float(grain.std()), 1e-6)
    grain += smooth_noise(rng, h, w, w / 6.0) * 2.5 + rng.uniform(68.0, 100.0)
    for _ in range(int(rng.integers(0, 8))):
        cv2.circle(
            grain, (int(rng.integers(w)), int(rng.integers(h))), max(1, round(2.0 * unit)), rng.uniform(120, 190), -1
        )
    belt: U8 = np.clip(grain[..., None] * tint, 0.0, 255.0).astype(np.uint8)
    return belt


def _draw_body(rng: Rng, style: str, canvas: U8, glass: U8, screen: U8, pose: _Pose, size: tuple[float, float]) -> None:
    unit = pose.unit
    white = style == "white_bezel"
    radius = rng.uniform(25.0, 60.0) if white or style == "black_bezel" else rng.uniform(40.0, 115.0)
    body = pose.box((0.0, 0.0), size, radius)
    belt = canvas.copy()
    shadow = np.zeros(canvas.shape[:2], np.uint8)
    fill(shadow, body + np.array([0.0, rng.uniform(-10.0, 10.0) * unit]), (255,))
    cv2.GaussianBlur(shadow, (0, 0), 8.0 * unit, dst=shadow)
    canvas[:] = (canvas * (1.0 - 0.5 * (shadow / 255.0))[..., None]).astype(np.uint8)

    if white:
        trace(canvas, body, (60.0, 60.0, 190.0), 7.0 * unit)  # purple fringe of a cheap lens
        fill(canvas, body, (rng.uniform(235, 255), rng.uniform(240, 255), rng.uniform(225, 250)))
    else:
        level = rng.uniform(6.0, 16.0)
        fill(canvas, body, (level, level, level * rng.uniform(0.9, 1.2)))
        fill(glass, body, (255,))
    ends = (
        (rng.uniform(150.0, 210.0), rng.uniform(135.0, 185.0)) if white else (rng.uniform(70, 110), rng.uniform(40, 90))
    )
    side = rng.uniform(16.0, 30.0)
    inner = ((ends[0] - ends[1]) / 2.0, 0.0), (size[0] - ends[0] - ends[1], size[1] - 2.0 * side)
    display = pose.box(inner[0], inner[1], rng.uniform(4.0, 14.0))
    if white:
        level = rng.uniform(6.0, 18.0)
        trace(canvas, display, (rng.uniform(150, 215),) * 3, 4.0 * unit)
        fill(canvas, display, (level, level, level * rng.uniform(0.9, 1.2)))
        fill(glass, display, (255,))
    elif style in ("black_bezel", "home_button") and rng.random() < 0.6:
        trace(canvas, display, (rng.uniform(18.0, 34.0),) * 3, 2.0 * unit)  # the display's edge, just visible
    fill(screen, pose.box(inner[0], (inner[1][0] - 24.0, inner[1][1] - 24.0), 8.0), (255,))

    _draw_holes(rng, style, canvas, belt, glass, pose, size, ends)
    clear = 2 * round(CLEAR_OF_HOLES * unit) + 1
    cv2.bitwise_and(screen, cv2.erode(glass, np.ones((clear, clear), np.uint8)), dst=screen)
    if not white:
        _draw_rim(rng, style, canvas, body, unit)
    elif rng.random() < 0.5:
        trace(canvas, pose.box((0.0, 0.0), (size[0] - 8.0, size[1] - 8.0), radius), (215.0, 215.0, 225.0), 2.0 * unit)


def _draw_holes(
    rng: Rng,
    style: str,
    canvas: U8,
    belt: U8,
    glass: U8,
    pose: _Pose,
    size: tuple[float, float],
    ends: tuple[float, float],
) -> None:
    """Camera, sensors and earpiece at one end, buttons at the other; through a hole one sees the belt."""
    unit, white = pose.unit, style == "white_bezel"
    x = -size[0] / 2.0 + ends[0] * rng.uniform(0.42, 0.58)
    spread = size[1] * rng.uniform(0.12, 0.3)
    holes: list[Points] = []
    slot_y = rng.uniform(-0.15, 0.15) * spread
    slot = (rng.uniform(11.0, 22.0), rng.uniform(60.0, 200.0))
    if style != "curved_glass" or rng.random() < 0.5:
        holes.append(pose.box((x, slot_y), slot, slot[0] / 2.0))
    for _ in range(int(rng.integers(1, 4))):
        r = rng.uniform(14.0, 42.0)
        y = slot_y + rng.choice((-1.0, 1.0)) * (slot[1] / 2.0 + rng.uniform(30.0, max(31.0, spread)))
        holes.append(pose.box((x + rng.uniform(-4.0, 4.0), y), (r, r * rng.choice((1.0, 1.0, 1.7))), r / 2.0))
    button_x = size[0] / 2.0 - ends[1] * 0.5
    if style == "home_button":
        holes.append(
            pose.box((button_x - 20.0, rng.uniform(-20.0, 20.0)), (rng.uniform(70, 100), rng.uniform(140, 190)), 44.0)
        )
    through = np.zeros(canvas.shape[:2], np.uint8)
    for outline in holes:
        dark = white and rng.random() < 0.8  # behind a white front the hole is dark glass, otherwise the belt shows
        if dark:
            fill(canvas, outline, (rng.uniform(8, 30), rng.uniform(8, 30), rng.uniform(10, 60)))
        else:
            fill(through, outline, (255,))
            fill(glass, outline, (0,))
    share = (through / 255.0 * rng.uniform(0.6, 1.0))[..., None]
    canvas[:] = (canvas * (1.0 - share) + belt * share).astype(np.uint8)
    if not white:
        for outline in holes:
            _draw_uneven_edge(rng, canvas, outline, rng.uniform(50.0, 150.0), rng.uniform(1.5, 3.5) * unit)
    if not white and rng.random() < 0.5:  # infrared sensors: dim blue dots
        for y in np.cumsum(rng.uniform(25.0, 50.0, 3)) - size[1] * 0.28:
            fill(canvas, pose.box((x, float(y)), (26.0, 26.0), 13.0), (22.0, 22.0, rng.uniform(40.0, 80.0)))
    if white:
        _draw_printed_buttons(rng, canvas, pose, button_x, size[1])


def _draw_printed_buttons(rng: Rng, canvas: U8, pose: _Pose, x: float, tall: float) -> None:
    grey = rng.uniform(165.0, 225.0)
    for y in (-0.28 * tall, 0.0, 0.28 * tall):
        r = rng.uniform(8.0, 42.0)
        outline = pose.box((x, y), (r, r), r * rng.uniform(0.1, 0.5))
        if r < 16.0:
            fill(canvas, outline, (grey, grey, grey))
        else:
            trace(canvas, outline, (grey, grey, grey), 3.0 * pose.unit)


def _draw_uneven_edge(rng: Rng, canvas: U8, outline: Points, bright: float, width_px: float) -> None:
    """The polished edge of a hole: bright where it faces a lamp."""
    layer = np.zeros(canvas.shape[:2], np.uint8)
    facing = outward_normals(outline) @ np.array([math.cos(a := rng.uniform(0.0, 6.3)), math.sin(a)])
    values = bright * (0.25 + 0.75 * np.abs(facing) ** 2)
    stroke(layer, np.vstack((outline, outline[:1])), values, np.full(len(values), width_px))
    x, y, w, h = cv2.boundingRect(outline.astype(np.float32))
    box = np.s_[max(0, y - 4) : y + h + 4, max(0, x - 4) : x + w + 4]
    cv2.add(canvas[box], cv2.cvtColor(layer[box], cv2.COLOR_GRAY2RGB), dst=canvas[box])


def _draw_rim(rng: Rng, style: str, canvas: U8, body: Points, unit: float) -> None:
    """Bright lines where the rounded edge of the glass mirrors the lamps: long, tapered, parallel to the edge. Not
    defects."""
    dense = _dense(body, 24.0 * unit)
    normal = outward_normals(dense)
    layer = np.zeros(canvas.shape[:2], np.uint8)
    inset = rng.uniform(1.0, 9.0 if style == "curved_glass" else 5.0) * unit
    along = np.linspace(0.0, 1.0, len(dense), endpoint=False)
    glow = np.full(len(dense), rng.uniform(12.0, 45.0))
    for _ in range(int(rng.integers(2, 7))):  # lamps, each lights one stretch of the edge
        gap = np.abs((along - rng.random() + 0.5) % 1.0 - 0.5)
        glow += rng.uniform(60.0, 255.0) * np.exp(-((gap / rng.uniform(0.01, 0.11)) ** 4))
    widths = np.clip(glow / 70.0, 0.8, 1.0) * rng.uniform(1.8, 5.0) * unit * rng.uniform(0.7, 1.3)
    line = dense - normal * inset
    stroke(layer, np.vstack((line, line[:1])), np.minimum(glow, 255.0), widths)
    cv2.GaussianBlur(layer, (0, 0), 0.9 * unit, dst=layer)
    fringe = cv2.multiply(cv2.GaussianBlur(layer, (0, 0), 3.0 * unit), rng.uniform(0.0, 0.8))
    rgb = cv2.merge((layer, layer, cv2.add(layer, fringe)))
    cv2.add(canvas, rgb, dst=canvas)
    if style == "curved_glass":  # a second, dim and wide line further in
        second = np.zeros_like(layer)
        line = dense - normal * rng.uniform(14.0, 30.0) * unit
        stroke(second, np.vstack((line, line[:1])), np.minimum(glow * 0.25, 70.0), widths * 2.5)
        cv2.GaussianBlur(second, (0, 0), 2.0 * unit, dst=second)
        cv2.add(canvas, cv2.cvtColor(second, cv2.COLOR_GRAY2RGB), dst=canvas)


def _dense(outline: Points, step: float) -> Points:
    """The same closed outline with points at most `step` apart."""
    closed = np.vstack((outline, outline[:1]))
    parts = []
    for a, b in itertools.pairwise(closed):
        n = max(1, math.ceil(float(np.hypot(*(b - a))) / step))
        parts.append(a + (b - a) * np.linspace(0.0, 1.0, n, endpoint=False)[:, None])
    return np.vstack(parts)
