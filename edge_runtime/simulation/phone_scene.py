"""Pictures of phones on a belt with known truth, for the simulated camera and for training the scratch model.

One call draws one part: a phone model from a small set (dark glass to the edge, white bezel, notch, home button,
curved glass), placed where the guides let it lie, under the mirror image of the station's camera and lamps, with dust
and now and then an oil drop, a stain or a scratch. Only a scratch is a defect. The same (seed, index, config) always
gives the same pixels; the seed stands for the station and its batch (which phones, which reflections), the index for
the part.

What is slow and the same for many parts (bodies, reflections, sensor noise; 40 MB at 1280x720) is drawn once per seed
and size and kept; a part itself is drawn inside small rectangles with integer OpenCV calls only. On one core of a
2-core x86-64 VM at 1280x720: 2.8 ms median and 5.5 ms at the 99th percentile a part, 0.5 s for `warm_up`. Float
arithmetic on whole frames costs 25 ms and more and was dropped for that reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from edge_runtime.simulation.phone_body import BODY_STYLES, Plate, draw_mirror_image, draw_plate
from edge_runtime.simulation.phone_defects import SEVERITIES, draw_dust, draw_oil, draw_scratch, draw_smears, draw_stain
from edge_runtime.simulation.phone_ink import U8, Rng

Box = tuple[float, float, float, float]  # x, y, width, height as shares of the frame, from the top left
NEUTRAL_K = 5500.0
BELT_STRIP: Box = (0.1, 0.0, 0.8, 0.04)  # never covered by a part: a fixed grey field to watch lamp and focus on
NOISE_MARGIN = 96  # px by which the noise bank is larger than a frame; shifting it makes each frame's noise new


@dataclass(frozen=True, slots=True)
class SceneConfig:
    """How the station and its parts look. Shares are of all parts; a part may have a scratch and oil at once."""

    width: int = 1280
    height: int = 720
    scratch_share: float = 0.2
    oil_share: float = 0.08
    stain_share: float = 0.08
    dust: float = 0.3  # 0 clean room .. 1 as bad as it gets, the mean over parts
    severity_mix: tuple[float, float, float, float] = (0.15, 0.3, 0.35, 0.2)  # hairline, light, medium, deep
    bodies: tuple[str, ...] = BODY_STYLES
    light: float = 1.0  # lamp brightness as a factor
    light_jitter: float = 0.02  # part-to-part deviation of it, relative
    colour_temp_k: float = NEUTRAL_K  # lower is redder, higher bluer
    noise_levels: float = 1.6  # sensor noise at 8 bit, standard deviation
    focus_blur_px: float = 0.0  # additional blur, sigma; 0 is in focus


@dataclass(frozen=True, slots=True)
class PartTruth:
    """What is really on the part. kind: good, oil, stain or scratch (a scratched part is a scratch whatever else is
    on it); severity: hairline, light, medium, deep, or none; boxes: one per scratch, shares of the frame."""

    defect: bool
    kind: str
    severity: str = "none"
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture, image: u8 (height, width, 3) RGB, its truth, and on request scratch_mask: u8 (height, width), 255
    on scratches."""

    image: U8
    truth: PartTruth
    scratch_mask: U8 | None = None


def render_phone(seed: int, index: int, cfg: SceneConfig, want_mask: bool = False) -> Scene:
    """Draw part number `index` of station `seed`. The caller owns the arrays; calls are independent and may come from
    any thread."""
    rng = np.random.default_rng((seed, index, 1))
    frame, glass, screen = _place_phone(rng, seed, cfg)
    cv2.add(frame, _mirror_image(seed, cfg.width, cfg.height), dst=frame, mask=glass)
    unit = cfg.width / 1920.0
    draw_smears(rng, frame, screen, unit, int(rng.integers(0, 4)))
    draw_dust(rng, frame, screen, unit, cfg.dust * min(3.0, float(rng.lognormal(-0.3, 0.8))))
    kind = _draw_distractors(rng, frame, screen, unit, cfg)
    truth, mask = _draw_scratches(rng, frame, screen, unit, cfg, kind)
    # Randomness of its own, so that a part without its scratch is otherwise the same picture.
    exposure = np.random.default_rng((seed, index, 5))
    return Scene(_expose(exposure, frame, seed, cfg), truth, _whole_mask(frame, mask) if want_mask else None)


def warm_up(seed: int, cfg: SceneConfig) -> None:
    """Draw everything that is kept for this station now (about half a second at 1280x720) instead of with its first
    parts."""
    for style in cfg.bodies:
        _plate(seed, style, cfg.width, cfg.height)
    _mirror_image(seed, cfg.width, cfg.height)
    _noise_bank(seed, cfg.width, cfg.height, cfg.noise_levels)


def _place_phone(rng: Rng, seed: int, cfg: SceneConfig) -> tuple[U8, U8, U8]:
    plate = _plate(seed, cfg.bodies[int(rng.integers(len(cfg.bodies)))], cfg.width, cfg.height)
    left, top = rng.integers(0, 2 * plate.margin_px + 1, 2).tolist()
    window = np.s_[top : top + cfg.height, left : left + cfg.width]
    return plate.image[window].copy(), plate.glass[window], plate.screen[window]


def _draw_distractors(rng: Rng, frame: U8, screen: U8, unit: float, cfg: SceneConfig) -> str:
    has_oil, has_stain = rng.random(2) < (cfg.oil_share, cfg.stain_share)
    if has_oil:
        draw_oil(rng, frame, screen, unit)
    if has_stain:
        draw_stain(rng, frame, screen, unit)
    return "oil" if has_oil else "stain" if has_stain else "good"


def _draw_scratches(
    rng: Rng, frame: U8, screen: U8, unit: float, cfg: SceneConfig, kind: str
) -> tuple[PartTruth, U8 | None]:
    if rng.random() >= cfg.scratch_share:
        return PartTruth(False, kind), None
    weights = np.asarray(cfg.severity_mix) / sum(cfg.severity_mix)
    worst = int(rng.choice(len(SEVERITIES), p=weights))
    found: list[tuple[int, U8]] = []
    wanted = int(rng.choice((1, 1, 1, 1, 2, 2, 3)))
    for attempt in range(12):
        grade = worst if not found else int(rng.integers(0, worst + 1))
        mask = draw_scratch(rng, frame, screen, SEVERITIES[grade], unit)
        if mask is not None:
            found.append((grade, mask))
        if len(found) >= wanted or (found and attempt >= 4):
            break
    if not found:  # no room on this screen: the part is what it was without a scratch
        return PartTruth(False, kind), None
    boxes = tuple(_share_box(mask) for _, mask in found)
    union = found[0][1]
    for _, mask in found[1:]:
        cv2.bitwise_or(union, mask, dst=union)
    return PartTruth(True, "scratch", SEVERITIES[max(grade for grade, _ in found)], boxes), union


def _share_box(mask: U8) -> Box:
    x, y, w, h = cv2.boundingRect(mask)
    rows, cols = mask.shape
    return x / cols, y / rows, w / cols, h / rows


def _whole_mask(frame: U8, mask: U8 | None) -> U8:
    return mask if mask is not None else np.zeros(frame.shape[:2], np.uint8)


def _expose(rng: Rng, frame: U8, seed: int, cfg: SceneConfig) -> U8:
    """Lamp, colour temperature, focus and sensor noise, in the order in which light meets them."""
    gain = max(0.0, cfg.light * (1.0 + cfg.light_jitter * float(rng.standard_normal())))
    warmth = (NEUTRAL_K / cfg.colour_temp_k) ** 0.5
    levels = np.arange(256.0)[:, None] * (gain * np.array([warmth, 1.0, 1.0 / warmth]))
    table = np.clip(np.round(levels), 0.0, 255.0).astype(np.uint8)[None]
    lit = cv2.LUT(frame, table)
    if cfg.focus_blur_px > 0.0:
        cv2.GaussianBlur(lit, (0, 0), cfg.focus_blur_px, dst=lit)
    if cfg.noise_levels > 0.0:
        brighter, darker = _noise_bank(seed, cfg.width, cfg.height, cfg.noise_levels)
        for bank, change in ((brighter, cv2.add), (darker, cv2.subtract)):
            left, top = rng.integers(0, NOISE_MARGIN + 1, 2).tolist()
            change(lit, bank[top : top + cfg.height, left : left + cfg.width], dst=lit)
    return np.asarray(lit, np.uint8)


@lru_cache(maxsize=8)  # 1280x720: 4.6 MB each
def _plate(seed: int, style: str, width: int, height: int) -> Plate:
    return draw_plate(np.random.default_rng((seed, BODY_STYLES.index(style), 2)), style, width, height)


@lru_cache(maxsize=2)
def _mirror_image(seed: int, width: int, height: int) -> U8:
    return draw_mirror_image(np.random.default_rng((seed, 3)), width, height)


@lru_cache(maxsize=2)
def _noise_bank(seed: int, width: int, height: int, levels: float) -> tuple[U8, U8]:
    """Noise to add and noise to subtract, u8 (height + margin, width + margin, 3), with the slight blur of a camera's
    denoiser."""
    rng = np.random.default_rng((seed, 4))
    banks = []
    for _ in range(2):
        noise = rng.standard_normal((height + NOISE_MARGIN, width + NOISE_MARGIN, 3), dtype=np.float32)
        cv2.GaussianBlur(noise, (0, 0), 0.6, dst=noise)
        # The positive halves of two independent normal fields add up to the same spread as one whole field.
        noise *= levels * 1.21 / max(float(noise.std()), 1e-6)
        banks.append(np.clip(np.round(noise), 0.0, 255.0).astype(np.uint8))
    return banks[0], banks[1]
