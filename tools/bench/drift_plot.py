"""A curve sheet as SVG: false alarms a week against delay, both in powers of ten. No library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, EDGE = 640, 420, 60
COLOURS = ("#1b6ca8", "#b5482a", "#3a7d44", "#7a4fa3", "#8a6d1d")


def curve_sheet(title: str, x_name: str, y_name: str, curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """curves: name -> points, each above zero in both directions. Others are left out."""
    kept = {name: [(math.log10(x), math.log10(y)) for x, y in points if x > 0 < y] for name, points in curves.items()}
    every = [point for points in kept.values() for point in points] or [(0.0, 0.0)]
    spans = [(math.floor(min(axis)), math.ceil(max(axis) + 1e-9)) for axis in zip(*every, strict=True)]
    body = [_text(EDGE, 24, title), _text(WIDTH // 2, HEIGHT - 14, x_name), _text(8, 46, y_name)]
    for power in range(spans[0][0], spans[0][1] + 1):
        x = _place(power, spans[0], EDGE, WIDTH - EDGE)
        body += [_line((x, EDGE), (x, HEIGHT - EDGE)), _text(x - 12, HEIGHT - EDGE + 18, f"{10.0**power:g}")]
    for power in range(spans[1][0], spans[1][1] + 1):
        y = _place(power, spans[1], HEIGHT - EDGE, EDGE)
        body += [_line((EDGE, y), (WIDTH - EDGE, y)), _text(8, y + 4, f"{10.0**power:g}")]
    for at, (name, points) in enumerate(kept.items()):
        colour = COLOURS[at % len(COLOURS)]
        places = [
            (_place(x, spans[0], EDGE, WIDTH - EDGE), _place(y, spans[1], HEIGHT - EDGE, EDGE)) for x, y in points
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        body += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        body.append(_text(WIDTH - EDGE - 110, EDGE + 16 + 16 * at, name, colour))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *body, "</svg>"])


def _place(value: float, span: tuple[int, int], first: float, last: float) -> float:
    return first + (last - first) * (value - span[0]) / max(1, span[1] - span[0])


def _line(start: tuple[float, float], end: tuple[float, float]) -> str:
    return f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" stroke="#ddd"/>'


def _text(x: float, y: float, text: str, colour: str = "#222") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-family="sans-serif" font-size="12" fill="{colour}">{escape(text)}</text>'
    )
