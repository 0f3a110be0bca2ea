"""One part on one picture, for people: what the camera saw, where the model looked, what was decided, and when.

Verdicts are told three times, by word, by the shape of the sign and by colour, so that nobody depends on telling red
from green. The bars stand outside the camera's picture: they must not cover a scratch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edge_runtime.core.errors import StorageError, UsageError
from edge_runtime.core.messages import Outcome, Region, Verdict
from edge_runtime.media.lettering import Colour, draw_cross, draw_question, draw_tick, fit, text_width, write
from edge_runtime.recording.reader import PartRow, iso_utc

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTH = 1280
PICTURE_HEIGHT = 720
HEADER = 84
FOOTER = 96
MARGIN = 28
SUFFIXES = (".png", ".jpg", ".jpeg")

INK: Colour = (240, 243, 246)
QUIET: Colour = (152, 162, 174)
GROUND: Colour = (17, 21, 26)
FAINT: Colour = (52, 60, 70)
VERDICT_COLOURS: dict[str, Colour] = {
    Verdict.ACCEPT: (38, 150, 84),
    Verdict.REJECT: (214, 56, 50),
    Verdict.UNSURE: (224, 158, 28),
}
_SIGNS = {Verdict.ACCEPT: draw_tick, Verdict.REJECT: draw_cross, Verdict.UNSURE: draw_question}
_OUTCOME_WORDS = {
    Outcome.PASSED: "passed",
    Outcome.FIRED: "gate fired",
    Outcome.DEFAULTED: "gate by default",
    Outcome.UNKNOWN: "not reported",
}
HEAT_FROM = 0.12  # heat below this is the model's noise and stays transparent
HEAT_ALPHA = 0.5
LARGEST_ENLARGEMENT = 4.0


def draw_part(
    image: NDArray[np.uint8] | None, heat: NDArray[np.float32] | None, regions: Sequence[Region], row: PartRow
) -> NDArray[np.uint8]:
    """The picture of a part, RGB, 1280 pixels wide.

    image: RGB (height, width, 3) of any size, or None where no picture was kept. heat: (rows, columns) 0..1 over the
    whole picture. regions: places in fractions of the picture.
    """
    canvas = np.full((HEADER + PICTURE_HEIGHT + FOOTER, WIDTH, 3), GROUND, np.uint8)
    colour = VERDICT_COLOURS.get(row.verdict or "", FAINT)
    if image is None:
        _draw_missing(canvas, row)
    else:
        area = _place(canvas, image)
        draw_finding(area, heat, regions, row.verdict)
    _draw_header(canvas, row, colour)
    _draw_footer(canvas[HEADER + PICTURE_HEIGHT :], row, colour)
    return canvas


def draw_finding(
    area: NDArray[np.uint8], heat: NDArray[np.float32] | None, regions: Sequence[Region], verdict: str | None
) -> None:
    """Draw what a model found onto a picture, RGB: its heat, and brackets around its regions, the strongest on top."""
    if heat is not None:
        _draw_heat(area, heat)
    colour = VERDICT_COLOURS[Verdict.UNSURE if verdict == Verdict.UNSURE else Verdict.REJECT]
    for region in sorted(regions, key=lambda region: region.score):
        draw_region(area, region, colour)


def save_picture(path: Path, image: NDArray[np.uint8]) -> None:
    """Write RGB as PNG or JPEG, by the file's suffix. Raises UsageError or StorageError."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"picture file '{path}' has suffix '{path.suffix}': use one of {', '.join(SUFFIXES)}")
    content = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    try:
        path.write_bytes(content.tobytes())
    except OSError as err:
        raise StorageError(f"cannot write {path}: {err.strerror}") from err


# -- the camera's picture ----------------------------------------------------------------------------------------------


def _place(canvas: NDArray[np.uint8], image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Put the picture in the middle; answers the part of the canvas that it covers."""
    height, width = image.shape[:2]
    scale = min(WIDTH / width, PICTURE_HEIGHT / height, LARGEST_ENLARGEMENT)
    shown = (max(1, round(width * scale)), max(1, round(height * scale)))
    if shown != (width, height):
        image = cv2.resize(image, shown, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    left, top = (WIDTH - shown[0]) // 2, HEADER + (PICTURE_HEIGHT - shown[1]) // 2
    area = canvas[top : top + shown[1], left : left + shown[0]]
    area[...] = image
    return area


def _draw_missing(canvas: NDArray[np.uint8], row: PartRow) -> None:
    text = "no frame came for this part" if row.captured_ns is None else "no picture of this part was kept"
    at = ((WIDTH - text_width(text, 30)) // 2, HEADER + PICTURE_HEIGHT // 2)
    write(canvas, text, at, 30, QUIET)


def _draw_heat(area: NDArray[np.uint8], heat: NDArray[np.float32]) -> None:
    size = (area.shape[1], area.shape[0])
    smooth = np.clip(cv2.resize(heat.astype(np.float32), size, interpolation=cv2.INTER_CUBIC), 0.0, 1.0)
    colours = cv2.applyColorMap(np.rint(smooth * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    alpha = (np.clip((smooth - HEAT_FROM) / (1.0 - HEAT_FROM), 0.0, 1.0) * HEAT_ALPHA)[..., None]
    area[...] = np.rint(area * (1.0 - alpha) + colours * alpha).astype(np.uint8)


def draw_region(area: NDArray[np.uint8], region: Region, colour: Colour) -> None:
    """Corner brackets with room around the place, and its label on a chip."""
    height, width = area.shape[:2]
    pad = 8
    left, top = max(1, round(region.x * width) - pad), max(1, round(region.y * height) - pad)
    right = min(width - 2, round((region.x + region.w) * width) + pad)
    bottom = min(height - 2, round((region.y + region.h) * height) + pad)
    arm = max(8, min(right - left, bottom - top, 80) // 3)
    for thickness, ink in ((5, GROUND), (2, colour)):
        for x, towards in ((left, 1), (right, -1)):
            for y, down in ((top, 1), (bottom, -1)):
                cv2.line(area, (x, y), (x + towards * arm, y), ink, thickness, cv2.LINE_AA)
                cv2.line(area, (x, y), (x, y + down * arm), ink, thickness, cv2.LINE_AA)
    label = f"{region.label} {region.score:.2f}"
    chip = (text_width(label, 18) + 16, 28)
    x = min(max(left, 0), max(0, width - chip[0]))
    y = top - chip[1] - 4 if top >= chip[1] + 4 else min(bottom + 4, max(0, height - chip[1]))
    cv2.rectangle(area, (x, y), (x + chip[0], y + chip[1]), colour, cv2.FILLED)
    write(area, label, (x + 8, y + 20), 18, GROUND if colour == VERDICT_COLOURS[Verdict.UNSURE] else INK)


# -- the bars ----------------------------------------------------------------------------------------------------------


def _draw_header(canvas: NDArray[np.uint8], row: PartRow, colour: Colour) -> None:
    word = (row.verdict or "on its way").upper()
    block = 92 + text_width(word, 34, bold=True) + MARGIN
    cv2.rectangle(canvas, (0, 0), (block, HEADER - 1), colour, cv2.FILLED)
    ink = GROUND if row.verdict == Verdict.UNSURE else INK  # white on amber has too little contrast
    if row.verdict:
        _SIGNS[Verdict(row.verdict)](canvas, (50, HEADER // 2), 24, ink, colour)
    write(canvas, word, (92, HEADER // 2 + 12), 34, ink, bold=True)
    right = f"part {row.part}"
    right_x = WIDTH - MARGIN - max(text_width(right, 24, bold=True), text_width(_time(row), 17))
    write(canvas, right, (right_x, 38), 24, INK, bold=True)
    write(canvas, _time(row), (right_x, 64), 17, QUIET)
    room = right_x - block - 2 * MARGIN
    write(canvas, fit(row.reason or "", 26, room), (block + MARGIN, 40), 26, INK)
    write(canvas, fit(_how(row), 17, room), (block + MARGIN, 66), 17, QUIET)


def _time(row: PartRow) -> str:
    return iso_utc(row.trigger_utc_ns).replace("T", " ").removesuffix("Z") + " UTC"


def _how(row: PartRow) -> str:
    said = [f"cause: {row.cause.replace('_', ' ')}" if row.cause else "not decided yet"]
    if row.score is not None:
        said.append(f"score {row.score:.3f}")
    said.append(row.model or "no model")
    if row.label:
        said.append(f"a person says: {row.label}")
    return "   |   ".join(said)


@dataclass(frozen=True)
class _Moment:
    name: str
    at_ms: float | None  # after the photo-eye
    colour: Colour


def _draw_footer(bar: NDArray[np.uint8], row: PartRow, colour: Colour) -> None:
    """The part's way as four stations: photo-eye, frame, verdict, gate. Not to scale, the gate is far away."""

    def after_ms(at_ns: int | None) -> float | None:
        return None if at_ns is None else (at_ns - row.trigger_ns) / 1e6

    outcome = Outcome(row.outcome)
    gate_colour = VERDICT_COLOURS[Verdict.ACCEPT] if outcome is Outcome.PASSED else VERDICT_COLOURS[Verdict.REJECT]
    moments = (
        _Moment("photo-eye", 0.0, INK),
        _Moment("frame", after_ms(row.captured_ns), INK),
        _Moment("verdict", after_ms(row.decided_ns), colour),
        _Moment(_OUTCOME_WORDS[outcome], after_ms(row.outcome_ns), gate_colour),
    )
    y = 34
    last = moments[-1]
    step = (WIDTH - 2 * MARGIN - text_width(f"{last.name}  {_after(last.at_ms)}", 19)) // (len(moments) - 1)
    stations = [MARGIN + 8 + index * step for index in range(len(moments))]
    cv2.line(bar, (stations[0], y), (stations[-1], y), FAINT, 2, cv2.LINE_AA)
    for x, moment in zip(stations, moments, strict=True):
        reached = moment.at_ms is not None
        cv2.circle(bar, (x, y), 8, moment.colour if reached else FAINT, cv2.FILLED, cv2.LINE_AA)
        if not reached:
            cv2.circle(bar, (x, y), 5, GROUND, cv2.FILLED, cv2.LINE_AA)
        end = write(bar, moment.name, (x - 8, y + 34), 19, INK if reached else QUIET)
        write(bar, _after(moment.at_ms), (end + 10, y + 34), 19, QUIET)


def _after(ms: float | None) -> str:
    if ms is None:
        return "-"
    return "0" if ms == 0 else f"{ms:+.1f} ms"
