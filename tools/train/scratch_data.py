"""Training and test pictures for the scratch model, all drawn by `edge_runtime.simulation.phone_scene`: no photograph
goes in.

Training sees crops, because a crop costs a seventh of a frame and half of them can be put on something worth looking
at. They come at two kinds of scale, since the model is used on both: whole frames shrunk by area to the model's input
(scratches 0.7 to 2 px wide), and pieces of frames at the camera's own scale (2 to 6 px wide). Every station has
phones, reflections and a lamp of its own, and each crop is disturbed further (gain, gamma, colour, blur, noise,
JPEG): variety beyond the simulated line is what carries over to real cameras."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.manifest import InputSpec
from edge_runtime.features.image import Prepare
from edge_runtime.simulation.phone_body import BODY_STYLES
from edge_runtime.simulation.phone_scene import PartTruth, SceneConfig, render_phone

U8 = NDArray[np.uint8]
INPUT_W, INPUT_H = 640, 360
STRIDE = 8  # input pixels per heat-map cell
CROP_PX = 160
FEW_PX = 1.5  # a cell with less scratch than this is neither scratch nor clean: it does not count in the loss
PARTS_PER_STATION = 14
CROPS_PER_PART = 3
PARTS_PER_TEST_STATION = 50
CALIBRATION_STATIONS = 2_000_000  # first station of each set; training uses seed * 10 000 and up
HELD_BACK_STATIONS = 3_000_000
TEST_STATIONS = 4_000_000
GOLDEN_STATION = 5_000_000
INPUT_SCALE = 1.0 / 64.0  # a faint scratch is 20 grey levels: about 0.3 at the first layer
INPUT_SPEC = InputSpec(width=INPUT_W, height=INPUT_H, scale=INPUT_SCALE, fit="letterbox", pad="black")


@dataclass(frozen=True, slots=True)
class CropSet:
    """pictures: u8 (n, CROP_PX, CROP_PX, 3); cells: u8 (n, CROP_PX / 8, CROP_PX / 8), 0 clean, 1 scratch, 2 does not
    count."""

    pictures: U8
    cells: U8


def make_crops(seed: int, count: int) -> CropSet:
    """Draw `count` training crops; the same seed gives the same crops."""
    pictures = np.empty((count, CROP_PX, CROP_PX, 3), np.uint8)
    cells = np.empty((count, CROP_PX // STRIDE, CROP_PX // STRIDE), np.uint8)
    done = 0
    for picture, mask, rng in _views(seed):
        for _ in range(CROPS_PER_PART):
            if done == count:
                return CropSet(pictures, cells)
            crop, crop_mask = _cut(rng, picture, mask)
            pictures[done] = _disturb(rng, crop)
            cells[done] = _cell_labels(crop_mask)
            done += 1
    raise AssertionError("stations never run out")


def whole_parts(count: int, cfg: SceneConfig, first_station: int) -> Iterator[tuple[U8, PartTruth]]:
    """Whole parts as the model gets them on the line, u8 (INPUT_H, INPUT_W, 3), and what is true of them."""
    prepare = Prepare(INPUT_SPEC, (1, INPUT_H, INPUT_W, 3), np.dtype(np.float32))
    for i in range(count):
        scene = render_phone(first_station + i // PARTS_PER_TEST_STATION, i % PARTS_PER_TEST_STATION, cfg)
        yield prepare.pixels(scene.image), scene.truth


def representative_pictures(count: int = 120) -> list[U8]:
    """Whole parts of every kind for the quantiser to learn its ranges from."""
    cfg = SceneConfig(scratch_share=0.5, oil_share=0.3, stain_share=0.3)
    return [picture for picture, _ in islice(whole_parts(10 * count, cfg, CALIBRATION_STATIONS), 0, None, 10)]


def _views(seed: int) -> Iterator[tuple[U8, U8, np.random.Generator]]:
    """Pictures at the scales the model meets, with their scratch masks (u8, 255 full), station after station."""
    station = 0
    while True:
        rng = np.random.default_rng((seed, station))
        width, shrink = _scale(rng)
        cfg = SceneConfig(
            width=width,
            height=width * 9 // 16,
            scratch_share=0.55,
            oil_share=0.35,
            stain_share=0.25,
            dust=rng.uniform(0.05, 1.0),
            severity_mix=(0.3, 0.3, 0.25, 0.15),
            bodies=tuple(rng.choice(BODY_STYLES, 2, replace=False).tolist()),
            light=rng.uniform(0.8, 1.25),
            light_jitter=0.1,
            colour_temp_k=rng.uniform(4200.0, 7500.0),
            noise_levels=rng.uniform(0.5, 3.5),
        )
        for index in range(PARTS_PER_STATION):
            blur = max(0.0, rng.normal(0.2, 0.6)) * width / 1920.0
            part = replace(cfg, focus_blur_px=blur if blur > 0.3 else 0.0)
            scene = render_phone(seed * 10_000 + station, index, part, want_mask=True)
            assert scene.scratch_mask is not None
            yield *_shrink(scene.image, scene.scratch_mask, shrink), rng
        station += 1


def _scale(rng: np.random.Generator) -> tuple[int, float]:
    """Frame width to draw, and the factor by which it is then shrunk."""
    kind = rng.random()
    if kind < 0.6:
        width = int(rng.choice((960, 1280, 1280, 1600)))
        return width, INPUT_W * rng.uniform(0.9, 1.2) / width
    if kind < 0.7:
        return INPUT_W, 1.0
    return int(rng.choice((960, 1280, 1920))), 1.0


def _shrink(image: U8, mask: U8, factor: float) -> tuple[U8, U8]:
    if factor >= 1.0:
        return image, mask
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
    return np.asarray(small[0], np.uint8), np.asarray(small[1], np.uint8)


def _cut(rng: np.random.Generator, picture: U8, mask: U8) -> tuple[U8, U8]:
    """A crop: half of them on a scratch where there is one, others on something bright or anywhere; some hang over
    into padding."""
    h, w = mask.shape
    x, y = int(rng.integers(0, w)), int(rng.integers(0, h))
    aim = rng.random()
    if aim < 0.5 and mask.any():
        x, y = _pick(rng, mask > 127 if (mask > 127).any() else mask > 0)
    elif aim < 0.8:
        grey = picture[..., 1]
        standing_out = cv2.subtract(grey, cv2.blur(grey, (15, 15)))[::2, ::2] > 25
        if standing_out.any():  # rims, holes, oil, stains, dust: what a lazy detector takes for scratches
            x, y = (2 * v for v in _pick(rng, standing_out))
    offset = rng.integers(12, CROP_PX - 12, 2)
    left, top = x - int(offset[0]), y - int(offset[1])
    if rng.random() > 0.12:  # the others keep what sticks out, as black, like the padding round a small picture
        left, top = int(np.clip(left, 0, w - CROP_PX)), int(np.clip(top, 0, h - CROP_PX))
    crop, crop_mask = np.zeros((CROP_PX, CROP_PX, 3), np.uint8), np.zeros((CROP_PX, CROP_PX), np.uint8)
    x0, y0, x1, y1 = max(0, left), max(0, top), min(w, left + CROP_PX), min(h, top + CROP_PX)
    if rng.random() < 0.06:  # cut short somewhere: the edge of a small picture that shows nothing but glass
        x1, y1 = min(x1, max(x0 + 40, x + 30)), min(y1, max(y0 + 40, y + 30))
    crop[y0 - top : y1 - top, x0 - left : x1 - left] = picture[y0:y1, x0:x1]
    crop_mask[y0 - top : y1 - top, x0 - left : x1 - left] = mask[y0:y1, x0:x1]
    return crop, crop_mask


def _pick(rng: np.random.Generator, where: NDArray[np.bool_]) -> tuple[int, int]:
    flat = np.flatnonzero(where)
    row, col = divmod(int(flat[rng.integers(len(flat))]), where.shape[1])
    return col, row


def _disturb(rng: np.random.Generator, crop: U8) -> U8:
    """Gain, gamma, offset and colour of a camera that nobody tuned; blur, noise and JPEG now and then. Padding stays
    black."""
    padding = ~crop.any(axis=2)
    levels = np.arange(256.0) / 255.0
    gamma, gain, lift = np.exp(rng.normal(0.0, 0.15)), np.exp(rng.normal(0.0, 0.18)), max(0.0, rng.normal(0.0, 8.0))
    tint = np.exp(rng.normal(0.0, 0.05, 3))
    table = (levels[:, None] ** gamma * gain * tint) * 255.0 + lift
    out = cv2.LUT(crop, np.clip(np.round(table), 0.0, 255.0).astype(np.uint8)[None])
    if rng.random() < 0.2:
        out = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.3, 0.9))
    if rng.random() < 0.4:
        noise = rng.standard_normal(out.shape, dtype=np.float32) * np.float32(rng.uniform(0.5, 4.0))
        out = np.clip(np.round(out + noise), 0.0, 255.0).astype(np.uint8)
    if rng.random() < 0.3:
        _, coded = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(60, 97))])
        out = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    out = np.asarray(out, np.uint8)
    if padding.any():
        out[padding] = 0
    return out


def _cell_labels(mask: U8) -> U8:
    n = CROP_PX // STRIDE
    area = mask.reshape(n, STRIDE, n, STRIDE).sum(axis=(1, 3), dtype=np.uint32) / 255.0
    return np.where(area >= FEW_PX, 1, np.where(area > 0.0, 2, 0)).astype(np.uint8)
