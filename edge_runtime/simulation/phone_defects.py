"""What may lie on the glass of a simulated phone: scratches, which are defects, and oil, stains, dust and fibres,
which are not.

Each function draws into a frame in place, inside the small rectangle it needs. Shapes and brightness follow
photographs of real phone glass under a ring lamp: scratches are 2 to 6 px wide at 1920 px and end in a taper, oil
drops have a closed outline that is bright where it faces a lamp, stains are saturated blobs, fibres are short, curly
and dim."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from edge_runtime.simulation.phone_ink import (
    U8,
    Points,
    Rng,
    Values,
    curve,
    fill,
    outward_normals,
    round_outline,
    sausage_outline,
    stroke,
    trace,
)

FAINTEST = 8  # grey levels above the glass below which a mark is not called visible
MOSTLY = 0.7  # share of a scratch that must be on the screen: what an edge cuts down to a dot nobody calls a scratch
NICKS_SHARE = 0.2  # of all but hairlines: several short ones instead of one long one
NICK_WIDTH = (3.0, 6.0)  # units; short ones are as wide as a blow is, whatever their brightness
FINE = 3  # scratches are drawn this much larger and averaged down, so that 0.7 px wide ones keep their shape


@dataclass(frozen=True, slots=True)
class _Grade:
    """Ranges of one severity: width and length in units (px at 1920 wide), brightness above the glass in grey
    levels."""

    width: tuple[float, float]
    length: tuple[float, float]
    contrast: tuple[float, float]


GRADES = {
    "hairline": _Grade((1.8, 2.6), (130.0, 480.0), (45.0, 75.0)),
    "light": _Grade((2.2, 3.2), (70.0, 380.0), (65.0, 110.0)),
    "medium": _Grade((2.8, 4.6), (45.0, 380.0), (100.0, 170.0)),
    "deep": _Grade((4.0, 6.5), (30.0, 340.0), (140.0, 235.0)),
}
SEVERITIES = tuple(GRADES)  # from faint to strong


def draw_scratch(rng: Rng, frame: U8, screen: U8, severity: str, unit: float) -> U8 | None:
    """Draw one scratch of a severity somewhere on the screen.

    frame: u8 (H, W, 3), changed in place. screen: u8 (H, W), 255 where it may be. Returns its mask, u8 (H, W), 255 on
    every pixel the scratch visibly brightens, or None, and an unchanged frame, when most of it would lie off the
    screen."""
    grade = GRADES[severity]
    spot = _spot_on(rng, screen)
    if spot is None:
        return None
    is_nicks = severity != "hairline" and rng.random() < NICKS_SHARE
    contrast, width_px = rng.uniform(*grade.contrast), rng.uniform(*(NICK_WIDTH if is_nicks else grade.width)) * unit
    paths = _nicks(rng, spot, unit) if is_nicks else [_long_path(rng, spot, grade, unit)]
    x0, y0, x1, y1 = _clip_box(np.vstack(paths), 6.0 * unit + 3.0, frame.shape)
    if x1 - x0 < 2 or y1 - y0 < 2:
        return None
    layer = np.zeros(((y1 - y0) * FINE, (x1 - x0) * FINE), np.uint8)
    for path in paths:
        # A point at x in the frame lies at (x + 0.5) * FINE - 0.5 in the fine layer: coordinates name pixel centres.
        fine = (path - (x0, y0) + 0.5) * FINE - 0.5
        pressure = _blow if is_nicks else _hand_pressure
        values, widths = pressure(rng, len(path) - 1, contrast, width_px * FINE)
        stroke(layer, fine, values, widths)
        if severity in ("medium", "deep"):
            _chip_edges(rng, layer, fine, values, width_px * FINE)
    small = cv2.resize(layer, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    if unit > 0.5:
        cv2.GaussianBlur(small, (0, 0), 0.7 * unit, dst=small)
    drawn = cv2.sumElems(small)[0]
    cv2.bitwise_and(small, screen[y0:y1, x0:x1], dst=small)
    if int(small.max()) < FAINTEST or cv2.sumElems(small)[0] < MOSTLY * drawn:
        return None
    _add_tinted(frame[y0:y1, x0:x1], small, (rng.uniform(0.9, 1.0), 1.0, rng.uniform(0.94, 1.04)))
    mask = np.zeros(frame.shape[:2], np.uint8)
    visible = max(FAINTEST, 0.25 * float(small.max()))
    cv2.threshold(small, visible - 0.5, 255.0, cv2.THRESH_BINARY, dst=mask[y0:y1, x0:x1])
    return mask


def draw_oil(rng: Rng, frame: U8, screen: U8, unit: float) -> None:
    """Draw a drop of oil: a faint veil inside a closed outline that is bright where it faces a lamp.

    Often with small drops nearby; wholly on the screen where there is room for it.
    """
    for _ in range(8):
        spot = _spot_on(rng, screen)
        if spot is None:
            return
        outline = _drop_outline(rng, spot, unit)
        if _lies_on(outline, screen):
            _draw_drop(rng, frame, screen, outline, unit)
            _draw_small_drops(rng, frame, screen, spot, unit)
            return


def draw_stain(rng: Rng, frame: U8, screen: U8, unit: float) -> None:
    """Draw one to three stains: small saturated blobs of a few overlapping dots, with a blue halo."""
    for _ in range(int(rng.choice((1, 1, 1, 2, 3)))):
        spot = _spot_on(rng, screen)
        if spot is None:
            return
        size = rng.uniform(4.0, 15.0) * unit
        reach = math.ceil(3.2 * size) + 3
        blob = np.zeros((2 * reach, 2 * reach), np.uint8)
        value = rng.uniform(130.0, 255.0)
        for _ in range(int(rng.integers(1, 9))):
            dot = rng.normal(0.0, 0.45 * size, 2) + reach
            fill(
                blob, round_outline(rng, (float(dot[0]), float(dot[1])), size * rng.uniform(0.35, 0.8), 0.15), (value,)
            )
        cv2.GaussianBlur(blob, (0, 0), max(0.4, 0.9 * unit), dst=blob)
        halo = cv2.GaussianBlur(blob, (0, 0), max(0.6, 3.0 * unit))
        _paste(frame, screen, cv2.merge((blob, blob, cv2.add(blob, cv2.multiply(halo, 0.6)))), spot)


def draw_dust(rng: Rng, frame: U8, screen: U8, unit: float, amount: float) -> None:
    """Draw dust and fibres all over the glass; `amount` is about the share of a dirty part (0 none, 1 as bad as it
    gets)."""
    h, w = frame.shape[:2]
    specks, fibres = rng.poisson(90.0 * amount), rng.poisson(30.0 * amount)
    if specks + fibres == 0:
        return
    layer = np.zeros((h, w), np.uint8)
    xy = (rng.random((specks, 2)) * (w, h) * 16.0).astype(int).tolist()
    greys = np.minimum(20.0 + rng.exponential(22.0, specks), 150.0).tolist()
    radii = (rng.uniform(0.5, 1.5, specks) * max(unit, 0.4) * 16.0).astype(int).tolist()
    for dot, grey, radius in zip(xy, greys, radii, strict=True):
        cv2.circle(layer, dot, radius, grey * min(1.0, unit * 1.5), -1, cv2.LINE_AA, 4)
    for _ in range(fibres):
        start = (float(rng.random()) * w, float(rng.random()) * h)
        length = min(8.0 + rng.exponential(7.0), 26.0) * unit
        path = curve(rng, start, rng.uniform(0.0, 6.3), length, rng.normal(0.0, 1.6), max(1.0, 3.0 * unit))
        trace(layer, path, (min(14.0 + rng.exponential(14.0), 60.0),), 1.6 * unit, closed=False)
    cv2.bitwise_and(layer, screen, dst=layer)
    cv2.add(frame, cv2.cvtColor(layer, cv2.COLOR_GRAY2RGB), dst=frame)


def draw_smears(rng: Rng, frame: U8, screen: U8, unit: float, count: int) -> None:
    """Draw finger smears: wide, soft, a few grey levels; now and then fine parallel wiping marks, fainter than any
    scratch."""
    if count and rng.random() < 0.3:
        _draw_wiping_marks(rng, frame, screen, unit)
    for _ in range(count):
        spot = _spot_on(rng, screen)
        if spot is None:
            return
        long, short = rng.uniform(30.0, 150.0) * unit, rng.uniform(10.0, 50.0) * unit
        reach = math.ceil(1.5 * long) + 2
        quarter = max(4, reach // 4)
        soft = np.zeros((2 * quarter, 2 * quarter), np.uint8)
        axes = (max(1, int(long / 8.0)), max(1, int(short / 8.0)))
        cv2.ellipse(
            soft, (quarter, quarter), axes, rng.uniform(0.0, 180.0), 0.0, 360.0, rng.uniform(5.0, 18.0), -1, cv2.LINE_AA
        )
        cv2.GaussianBlur(soft, (0, 0), max(0.8, short / 12.0), dst=soft)
        soft = cv2.resize(soft, (2 * reach, 2 * reach), interpolation=cv2.INTER_LINEAR)
        _paste(frame, screen, cv2.merge((cv2.multiply(soft, 0.85), soft, cv2.multiply(soft, 1.2))), spot)


def _draw_wiping_marks(rng: Rng, frame: U8, screen: U8, unit: float) -> None:
    spot = _spot_on(rng, screen)
    if spot is None:
        return
    heading, bend, length = rng.normal(0.0, 0.5), rng.normal(0.0, 0.3), rng.uniform(60.0, 300.0) * unit
    first = curve(rng, spot, heading, length, bend, 20.0 * unit)
    x0, y0, x1, y1 = _clip_box(first, 60.0 * unit, frame.shape)
    if x1 - x0 < 3 or y1 - y0 < 3:
        return
    layer = np.zeros((y1 - y0, x1 - x0), np.uint8)
    for _ in range(int(rng.integers(2, 9))):
        aside = np.array([-math.sin(heading), math.cos(heading)]) * rng.uniform(-55.0, 55.0) * unit
        trace(layer, first - (x0, y0) + aside, (rng.uniform(3.0, 9.0),), rng.uniform(1.5, 4.0) * unit, closed=False)
    cv2.GaussianBlur(layer, (0, 0), max(0.4, 1.0 * unit), dst=layer)
    cv2.bitwise_and(layer, screen[y0:y1, x0:x1], dst=layer)
    _add_tinted(frame[y0:y1, x0:x1], layer, (0.95, 1.0, 1.05))


def _long_path(rng: Rng, spot: tuple[float, float], grade: _Grade, unit: float) -> Points:
    length = rng.uniform(*grade.length) * unit
    heading, bend = rng.uniform(0.0, 2.0 * math.pi), rng.normal(0.0, 0.45)
    path = curve(rng, (0.0, 0.0), heading, length, bend, max(1.5, 4.0 * unit))
    path += np.asarray(spot) - path[len(path) // 2]
    return path


def _nicks(rng: Rng, spot: tuple[float, float], unit: float) -> list[Points]:
    """Short scratches that one blow left close together; the first one is the longest, and sometimes all there is."""
    heading = rng.uniform(0.0, 2.0 * math.pi)
    nicks = [curve(rng, spot, heading, rng.uniform(30.0, 48.0) * unit, rng.normal(0.0, 0.6), 3.0 * unit)]
    for _ in range(int(rng.choice((0, 0, 1, 2, 3, 4)))):
        x, y = np.asarray(spot) + rng.normal(0.0, 45.0, 2) * unit
        turn, length = heading + rng.normal(0.0, 0.25), rng.uniform(12.0, 38.0) * unit
        nicks.append(curve(rng, (x, y), turn, length, rng.normal(0.0, 0.5), 3.0 * unit))
    return nicks


def _hand_pressure(rng: Rng, n: int, contrast: float, width_px: float) -> tuple[Values, Values]:
    """Brightness and width along a scratch: tapered ends, slow changes of pressure, rough spots."""
    along = (np.arange(n) + 0.5) / n
    taper = np.minimum(1.0, np.minimum(along, 1.0 - along) / rng.uniform(0.02, 0.12) + 0.25)
    knots = rng.uniform(0.7, 1.0, 6)
    pressure = np.interp(along, np.linspace(0.0, 1.0, 6), knots) * taper
    rough = 1.0 - rng.uniform(0.0, 0.3) * rng.random(n)
    return contrast * pressure * rough, width_px * (0.75 + 0.25 * pressure) * rng.uniform(0.85, 1.15, n)


def _blow(rng: Rng, n: int, contrast: float, width_px: float) -> tuple[Values, Values]:
    """Brightness and width along a nick: swollen somewhere, thin at the ends, some fainter than others."""
    along = (np.arange(n) + 0.5) / n
    swell = np.sin(math.pi * along ** math.exp(rng.normal(0.0, 0.5))) ** rng.uniform(0.4, 1.2)
    strength = contrast * rng.uniform(0.75, 1.0) * rng.uniform(0.85, 1.0, n)
    return strength * (0.35 + 0.65 * swell), width_px * (0.3 + 0.7 * swell)


def _chip_edges(rng: Rng, layer: U8, path: Points, values: Values, width_px: float) -> None:
    """Break the edge of a strong scratch: a few dark gaps and bright chips beside it, in the fine layer."""
    for i in rng.integers(0, len(values), max(1, len(values) // 8)).tolist():
        side = rng.normal(0.0, 0.55 * width_px, 2)
        dot = np.round(path[i] + side).astype(int).tolist()
        grey = float(values[i]) * rng.choice((0.35, 0.9))
        cv2.circle(layer, dot, max(1, round(0.22 * width_px)), grey, -1, cv2.LINE_AA)


def _drop_outline(rng: Rng, spot: tuple[float, float], unit: float) -> Points:
    if rng.random() < 0.5:
        return round_outline(rng, spot, rng.uniform(25.0, 180.0) * unit, rng.uniform(0.05, 0.25))
    length, bend = rng.uniform(120.0, 480.0) * unit, rng.normal(0.0, 1.0)
    path = curve(rng, spot, rng.uniform(0.0, 2.0 * math.pi), length, bend, 12.0 * unit)
    thick = rng.uniform(25.0, 85.0) * unit
    radii = thick * np.interp(np.linspace(0.0, 3.0, len(path)), [0, 1, 2, 3], rng.uniform(0.3, 1.0, 4))
    return sausage_outline(path, radii)


def _draw_small_drops(rng: Rng, frame: U8, screen: U8, middle: tuple[float, float], unit: float) -> None:
    for _ in range(int(rng.integers(0, 4))):
        near = (middle[0] + rng.normal(0.0, 200.0) * unit, middle[1] + rng.normal(0.0, 120.0) * unit)
        small = round_outline(rng, near, rng.uniform(6.0, 20.0) * unit, 0.1)
        if _lies_on(small, screen):
            _draw_drop(rng, frame, screen, small, unit)


def _lies_on(outline: Points, screen: U8) -> bool:
    h, w = screen.shape
    x, y = np.round(outline).astype(int).T
    if x.min() < 0 or y.min() < 0 or x.max() >= w or y.max() >= h:
        return False
    return bool(screen[y, x].all())


def _draw_drop(rng: Rng, frame: U8, screen: U8, outline: Points, unit: float) -> None:
    x0, y0, x1, y1 = _clip_box(outline, 8.0 * unit + 2.0, frame.shape)
    if x1 - x0 < 3 or y1 - y0 < 3:
        return
    outline = outline - (x0, y0)
    size = math.sqrt(cv2.contourArea(outline.astype(np.float32)) / math.pi)
    white, blue = (np.zeros((y1 - y0, x1 - x0), np.uint8) for _ in range(2))
    _draw_veil(rng, white, outline, size)
    normal = outward_normals(outline)
    _draw_edge(rng, white, outline, normal, 0.0, rng.uniform(10.0, 90.0) * np.ones(len(normal)), 2.2 * unit)
    if rng.random() < 0.6:  # the far side of the edge, seen through the drop
        dim = rng.uniform(8.0, 60.0) * np.ones(len(normal))
        _draw_edge(rng, white, outline, normal, rng.uniform(0.06, 0.25) * size, dim, 1.8 * unit)
    for lamp in range(int(rng.integers(2, 6))):
        angle = (-0.5 if lamp % 2 == 0 else 0.5) * math.pi + rng.normal(0.0, 0.5 if lamp < 2 else 1.5)
        facing = np.clip(normal @ np.array([math.cos(angle), math.sin(angle)]), 0.0, 1.0) ** rng.uniform(1.5, 14.0)
        inset = rng.choice((0.0, 0.0, 0.08, 0.15, 0.25)) * size
        layer = blue if lamp % 2 else white
        _draw_edge(rng, layer, outline, normal, inset, rng.uniform(90.0, 330.0) * facing, rng.uniform(1.5, 7.0) * unit)
    for layer in (white, blue):
        cv2.GaussianBlur(layer, (0, 0), max(0.4, 0.8 * unit), dst=layer)
    fringe = cv2.GaussianBlur(blue, (0, 0), max(0.5, 2.5 * unit))
    light = cv2.add(white, cv2.multiply(blue, rng.uniform(0.75, 1.0)))
    rgb = cv2.merge((light, light, cv2.add(light, fringe)))
    cv2.bitwise_and(rgb, cv2.cvtColor(screen[y0:y1, x0:x1], cv2.COLOR_GRAY2RGB), dst=rgb)
    cv2.add(frame[y0:y1, x0:x1], rgb, dst=frame[y0:y1, x0:x1])


def _draw_veil(rng: Rng, layer: U8, outline: Points, size: float) -> None:
    """The inside of a drop: a few grey levels, and more towards the edge, where its surface is steep."""
    fill(layer, outline, (rng.uniform(20.0, 90.0),))
    reach = 2 * round(size * rng.uniform(0.15, 0.35)) + 1
    deep = cv2.multiply(cv2.blur(cv2.blur(layer, (reach, reach)), (reach, reach)), rng.uniform(0.75, 0.95))
    cv2.subtract(layer, cv2.min(deep, layer), dst=layer)


def _draw_edge(
    rng: Rng, layer: U8, outline: Points, normal: Points, inset: float, glow: Values, width_px: float
) -> None:
    """A line along the outline, `inset` pixels inside it, patchy like a lamp's image in a wavy surface."""
    patches = 0.35 + 0.65 * rng.random(9)
    patchy = np.interp(np.arange(len(glow)), np.linspace(0.0, len(glow), 9), patches)
    line = outline - normal * inset
    widths = np.full(len(glow), width_px) * (0.6 + 0.4 * patchy)
    stroke(layer, np.vstack((line, line[:1])), np.clip(glow * patchy, 0.0, 255.0), widths)


def _spot_on(rng: Rng, screen: U8) -> tuple[float, float] | None:
    """A random point on the screen, or None when there is next to no screen."""
    h, w = screen.shape
    for x, y in rng.random((24, 2)):
        if screen[int(y * h), int(x * w)]:
            return float(x) * w, float(y) * h
    return None


def _clip_box(points: Points, pad: float, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    low, high = points.min(axis=0) - pad, points.max(axis=0) + pad
    x0, y0 = max(0, int(low[0])), max(0, int(low[1]))
    return x0, y0, min(shape[1], math.ceil(high[0])), min(shape[0], math.ceil(high[1]))


def _paste(frame: U8, screen: U8, stamp: U8, spot: tuple[float, float]) -> None:
    """Add a stamp around a spot, cut off at the frame's edge and at the edge of the screen."""
    h, w = stamp.shape[:2]
    left, top = int(spot[0]) - w // 2, int(spot[1]) - h // 2
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(frame.shape[1], left + w), min(frame.shape[0], top + h)
    if x1 <= x0 or y1 <= y0:
        return
    part = np.ascontiguousarray(stamp[y0 - top : y1 - top, x0 - left : x1 - left])
    cv2.bitwise_and(part, cv2.cvtColor(screen[y0:y1, x0:x1], cv2.COLOR_GRAY2RGB), dst=part)
    cv2.add(frame[y0:y1, x0:x1], part, dst=frame[y0:y1, x0:x1])


def _add_tinted(region: U8, layer: U8, tint: tuple[float, float, float]) -> None:
    rgb = cv2.merge([cv2.multiply(layer, t) for t in tint])
    cv2.add(region, rgb, dst=region)
