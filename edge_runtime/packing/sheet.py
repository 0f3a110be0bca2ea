"""Judged samples on contact sheets: what the model found in each, where, and whether that is right.

Mistakes come first, then what is nearest to the limit: those tell most about a model, and a sheet has few places.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.messages import Verdict
from edge_runtime.features.image import shrink
from edge_runtime.media.lettering import fit, write
from edge_runtime.media.picture import PictureError, decode_picture
from edge_runtime.packing.judging import Judged
from edge_runtime.recording.picture import GROUND, INK, QUIET, VERDICT_COLOURS, draw_finding, save_picture

TILE = (400, 300)  # of a picture, width and height
CAPTION, GAP = 52, 12
ACROSS, DOWN = 4, 4
MOST_SHEETS = 4
WRONG = {("good", Verdict.REJECT), ("bad", Verdict.ACCEPT)}


def draw_sheets(judged: Sequence[Judged], accept_below: float, reject_at: float, folder: Path) -> list[Path]:
    """Write sheet1.png... into the folder, which is made. Samples that were not judged have no place."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = sorted((one for one in judged if not one.fault), key=lambda one: _order(one, accept_below, reject_at))
    places = ACROSS * DOWN
    paths = []
    for number in range(min(-(-len(shown) // places), MOST_SHEETS)):
        tiles = [_tile(one, accept_below, reject_at) for one in shown[number * places : (number + 1) * places]]
        paths.append(folder / f"sheet{number + 1}.png")
        save_picture(paths[-1], _sheet(tiles))
    return paths


def verdict_of(score: float, accept_below: float, reject_at: float) -> Verdict:
    """As the line's policy has it: between both limits nobody is sure."""
    if score >= reject_at:
        return Verdict.REJECT
    return Verdict.ACCEPT if score < accept_below else Verdict.UNSURE


def _order(one: Judged, accept_below: float, reject_at: float) -> tuple[bool, float, str]:
    verdict = verdict_of(one.score, accept_below, reject_at)
    return (one.sample.truth, verdict) not in WRONG, abs(one.score - reject_at), str(one.sample.path)


def _tile(one: Judged, accept_below: float, reject_at: float) -> NDArray[np.uint8]:
    width, height = TILE
    tile = np.full((height + CAPTION, width, 3), GROUND, np.uint8)
    verdict = verdict_of(one.score, accept_below, reject_at)
    try:
        _place(tile[:height], decode_picture(one.sample.path.read_bytes()), one, verdict)
    except (PictureError, OSError) as err:  # it was there when it was judged
        write(tile, fit(str(err), 16, width - 16), (8, height // 2), 16, QUIET)
    cv2.rectangle(tile, (0, height), (6, height + CAPTION), VERDICT_COLOURS[verdict], cv2.FILLED)
    is_wrong = (one.sample.truth, verdict) in WRONG
    said = f"{verdict.value} {one.score:.3f}" + (f", WRONG: it is {one.sample.truth}" if is_wrong else "")
    write(tile, fit(said, 20, width - 24), (16, height + 22), 20, INK, bold=is_wrong)
    name = "/".join(one.sample.path.parts[-2:]) if one.sample.truth else one.sample.path.name
    write(tile, fit(name, 15, width - 24), (16, height + 43), 15, QUIET)
    return tile


def _place(area: NDArray[np.uint8], image: NDArray[np.uint8], one: Judged, verdict: Verdict) -> None:
    rows, columns = image.shape[:2]
    factor = min(TILE[0] / columns, TILE[1] / rows)
    width, height = max(1, round(columns * factor)), max(1, round(rows * factor))
    left, top = (TILE[0] - width) // 2, (TILE[1] - height) // 2
    inside = area[top : top + height, left : left + width]
    inside[...] = shrink(image, width, height)
    draw_finding(inside, one.heat, one.regions, verdict)


def _sheet(tiles: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    width, height = TILE[0], TILE[1] + CAPTION
    across = min(ACROSS, len(tiles))
    down = -(-len(tiles) // across)
    sheet = np.full((down * (height + GAP) + GAP, across * (width + GAP) + GAP, 3), GROUND, np.uint8)
    for number, tile in enumerate(tiles):
        top, left = GAP + number // across * (height + GAP), GAP + number % across * (width + GAP)
        sheet[top : top + height, left : left + width] = tile
    return sheet
