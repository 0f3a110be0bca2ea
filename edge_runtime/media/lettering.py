"""Text and small signs on pictures. The only place that knows which fonts OpenCV has.

OpenCV 5 brings a real typeface; 4.x has stroke fonts only, which are drawn at three times the size and shrunk, because
their own smoothing is coarse at the sizes of captions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Colour = tuple[int, int, int]  # RGB

_OVERSAMPLE = 3
_HERSHEY_PX = 30.0  # height of a line of HERSHEY_DUPLEX at scale 1, cap height 21
_TYPEFACE: Any = cv2.FontFace("sans") if hasattr(cv2, "FontFace") else None


def text_width(text: str, size: int, *, bold: bool = False) -> int:
    """How many pixels wide this text will be."""
    if _TYPEFACE is not None:
        (_, _, width, _) = cv2.getTextSize((0, 0), text, (0, 0), _TYPEFACE, size, 700 if bold else 400)
        return int(width)
    scale, stroke = _strokes_of(size, bold)
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, scale, stroke)
    return -(-int(width) // _OVERSAMPLE)


def write(
    image: NDArray[np.uint8], text: str, at: tuple[int, int], size: int, colour: Colour, *, bold: bool = False
) -> int:
    """Write `text` with its baseline starting at `at`; answers the x where it ends. `size` is the line height in px."""
    x, y = at
    if _TYPEFACE is not None:
        cv2.putText(image, text, (x, y), colour, _TYPEFACE, size, 700 if bold else 400)
        return x + text_width(text, size, bold=bold)
    return _write_strokes(image, text, x, y, size, colour, bold)


def fit(text: str, size: int, width: int, *, bold: bool = False) -> str:
    """The text, cut with an ellipsis where it would be wider than `width`."""
    if text_width(text, size, bold=bold) <= width:
        return text
    while text and text_width(text + "...", size, bold=bold) > width:
        text = text[:-1]
    return text.rstrip() + "..."


def _write_strokes(image: NDArray[np.uint8], text: str, x: int, y: int, size: int, colour: Colour, bold: bool) -> int:
    width, height = text_width(text, size, bold=bold) + 4, size * 2
    big = np.zeros((height * _OVERSAMPLE, width * _OVERSAMPLE), np.uint8)
    scale, stroke = _strokes_of(size, bold)
    baseline = (_OVERSAMPLE, size * 3 // 2 * _OVERSAMPLE)
    cv2.putText(big, text, baseline, cv2.FONT_HERSHEY_DUPLEX, scale, 255, stroke, cv2.LINE_AA)
    ink = cv2.resize(big, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)[..., None] / 255.0
    top, left = max(0, y - size * 3 // 2), max(0, x)
    area = image[top : top + height, left : left + width]
    ink = ink[: area.shape[0], : area.shape[1]]
    area[...] = np.rint(area * (1.0 - ink) + np.array(colour, np.float32) * ink).astype(np.uint8)
    return x + width - 4


def _strokes_of(size: int, bold: bool) -> tuple[float, int]:
    """Scale and stroke width of the stroke font, oversampled."""
    scale = size / _HERSHEY_PX * _OVERSAMPLE
    return scale, max(1, round(scale * (2.2 if bold else 1.2)))


def draw_tick(image: NDArray[np.uint8], centre: tuple[int, int], radius: int, colour: Colour, ink: Colour) -> None:
    """A disc with a tick: passed."""
    x, y = centre
    _disc(image, centre, radius, colour)
    points = np.array([(x - 0.45 * radius, y + 0.02 * radius), (x - 0.1 * radius, y + 0.38 * radius),
                       (x + 0.5 * radius, y - 0.36 * radius)])  # fmt: skip
    _strokes(image, [points], max(2, radius // 5), ink)


def draw_cross(image: NDArray[np.uint8], centre: tuple[int, int], radius: int, colour: Colour, ink: Colour) -> None:
    """An octagon with a cross: stop."""
    x, y = centre
    angles = np.pi / 8 + np.arange(8) * np.pi / 4
    _polygon(image, np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1), colour)
    arm = 0.38 * radius
    _strokes(
        image,
        [np.array([(x - arm, y - arm), (x + arm, y + arm)]), np.array([(x - arm, y + arm), (x + arm, y - arm)])],
        max(2, radius // 5),
        ink,
    )


def draw_question(image: NDArray[np.uint8], centre: tuple[int, int], radius: int, colour: Colour, ink: Colour) -> None:
    """A triangle with a question mark: nobody is sure."""
    x, y = centre
    corners = [(x, y - 1.05 * radius), (x + 1.1 * radius, y + 0.85 * radius), (x - 1.1 * radius, y + 0.85 * radius)]
    _polygon(image, np.array(corners), colour)
    size = round(radius * 1.25)
    write(image, "?", (x - text_width("?", size, bold=True) // 2, y + round(radius * 0.62)), size, ink, bold=True)


_SHIFT = 4  # sub-pixel bits: corners fall where they belong


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.rint(points * (1 << _SHIFT)).astype(np.int32)


def _disc(image: NDArray[np.uint8], centre: tuple[int, int], radius: int, colour: Colour) -> None:
    cv2.circle(image, centre, radius, colour, cv2.FILLED, cv2.LINE_AA)


def _polygon(image: NDArray[np.uint8], points: NDArray[np.float64], colour: Colour) -> None:
    cv2.fillPoly(image, [_fixed(points)], colour, cv2.LINE_AA, _SHIFT)


def _strokes(image: NDArray[np.uint8], lines: list[NDArray[np.float64]], width: int, colour: Colour) -> None:
    cv2.polylines(image, [_fixed(line) for line in lines], False, colour, width, cv2.LINE_AA, _SHIFT)
