"""The procedural phone: same input same pixels, truth that matches the pixels, every kind of part, any size."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from edge_runtime.simulation.phone_body import BODY_STYLES
from edge_runtime.simulation.phone_defects import SEVERITIES
from edge_runtime.simulation.phone_scene import BELT_STRIP, Scene, SceneConfig, render_phone

SMALL = SceneConfig(width=640, height=360)
CLEAN = replace(SMALL, scratch_share=0.0, oil_share=0.0, stain_share=0.0, dust=0.0)


def test_same_seed_and_index_give_the_same_pixels() -> None:
    first, again = render_phone(3, 17, SMALL, True), render_phone(3, 17, SMALL, True)
    assert np.array_equal(first.image, again.image)
    assert first.truth == again.truth
    assert np.array_equal(_mask(first), _mask(again))


def test_parts_and_stations_differ() -> None:
    image = render_phone(3, 17, SMALL).image
    assert not np.array_equal(image, render_phone(3, 18, SMALL).image)
    assert not np.array_equal(image, render_phone(4, 17, SMALL).image)


@pytest.mark.parametrize("size", [(320, 180), (640, 360), (1000, 600), (1280, 720), (640, 480)])
def test_any_size_comes_out_as_asked(size: tuple[int, int]) -> None:
    scene = render_phone(1, 0, replace(SMALL, width=size[0], height=size[1], scratch_share=1.0), True)
    assert scene.image.shape == (size[1], size[0], 3)
    assert scene.image.dtype == np.uint8
    assert _mask(scene).shape == (size[1], size[0])
    assert scene.image.flags["C_CONTIGUOUS"]


def test_no_part_is_a_defect_when_the_share_is_zero() -> None:
    scenes = [render_phone(5, index, replace(SMALL, scratch_share=0.0), True) for index in range(40)]
    assert not any(scene.truth.defect or scene.truth.boxes or _mask(scene).any() for scene in scenes)
    assert {scene.truth.severity for scene in scenes} == {"none"}


def test_share_of_defects_is_kept() -> None:
    defects = sum(render_phone(6, index, replace(SMALL, scratch_share=0.3)).truth.defect for index in range(200))
    assert 38 <= defects <= 82


def test_every_kind_and_every_severity_appears() -> None:
    cfg = replace(SMALL, scratch_share=0.5, oil_share=0.4, stain_share=0.4)
    truths = [render_phone(7, index, cfg).truth for index in range(120)]
    assert set(Counter(t.kind for t in truths)) == {"good", "oil", "stain", "scratch"}
    assert set(Counter(t.severity for t in truths)) == {"none", *SEVERITIES}


def test_only_scratches_are_defects_and_they_carry_boxes() -> None:
    cfg = replace(SMALL, scratch_share=0.5, oil_share=0.5, stain_share=0.5)
    for index in range(60):
        truth = render_phone(8, index, cfg).truth
        assert truth.defect == (truth.kind == "scratch") == bool(truth.boxes) == (truth.severity != "none")


def test_boxes_enclose_the_mask_and_nothing_else() -> None:
    for index in range(40):
        scene = render_phone(9, index, replace(SMALL, scratch_share=1.0), True)
        covered = np.zeros(_mask(scene).shape, bool)
        for x, y, w, h in scene.truth.boxes:
            assert 0.0 <= x < x + w <= 1.0 and 0.0 <= y < y + h <= 1.0
            left, right = round(x * SMALL.width), round((x + w) * SMALL.width)
            top, bottom = round(y * SMALL.height), round((y + h) * SMALL.height)
            covered[top:bottom, left:right] = True
            assert _mask(scene)[top:bottom, left:right].any()
        assert not (_mask(scene).astype(bool) & ~covered).any()


@pytest.mark.parametrize("severity", SEVERITIES)
def test_a_scratch_is_brighter_than_the_glass_beside_it(severity: str) -> None:
    mix = tuple(1.0 if name == severity else 0.0 for name in SEVERITIES)
    cfg = replace(CLEAN, width=1280, height=720, scratch_share=1.0, severity_mix=mix)  # type: ignore[arg-type]
    contrasts = []
    for index in range(12):
        scene = render_phone(10, index, cfg, True)
        clean = render_phone(10, index, replace(cfg, scratch_share=0.0))
        grey, mask = scene.image[..., 1].astype(int) - clean.image[..., 1], _mask(scene) > 0
        if mask.any():
            contrasts.append(grey[mask].mean())
            assert abs(grey[~mask].mean()) < 1.5
    assert min(contrasts) > 8.0  # a person at a 1280x720 picture sees about 5 grey levels on dark glass
    assert np.median(contrasts) > {"hairline": 14.0, "light": 20.0, "medium": 30.0, "deep": 45.0}[severity]


@pytest.mark.parametrize("style", BODY_STYLES)
def test_belt_strip_stays_free_whatever_lies_below(style: str) -> None:
    x, y, w, h = BELT_STRIP
    for seed in range(3):
        image = render_phone(seed, 0, replace(CLEAN, bodies=(style,))).image
        strip = image[int(y * 360) : int((y + h) * 360), int(x * 640) : int((x + w) * 640)]
        assert 55 < strip.mean() < 115


def test_light_scales_the_picture_and_colour_temperature_tints_it() -> None:
    steady = replace(CLEAN, light_jitter=0.0, noise_levels=0.0)
    usual, dim, warm = (
        render_phone(11, 0, cfg).image[:12].astype(float).mean(axis=(0, 1))
        for cfg in (steady, replace(steady, light=0.5), replace(steady, colour_temp_k=3000.0))
    )
    assert dim == pytest.approx(usual * 0.5, abs=1.0)
    assert warm[0] / warm[2] > 1.3 * usual[0] / usual[2]


def test_blur_softens_and_noise_roughens() -> None:
    quiet = replace(CLEAN, noise_levels=0.0)
    sharp, blurred, noisy = (
        render_phone(12, 0, cfg).image[:12, ::1, 1].astype(float)
        for cfg in (quiet, replace(quiet, focus_blur_px=2.0), replace(quiet, noise_levels=6.0))
    )
    roughness = [np.abs(np.diff(picture, axis=1)).mean() for picture in (blurred, sharp, noisy)]
    assert roughness[0] < 0.6 * roughness[1] < 0.6 * roughness[2]


def test_sensor_noise_has_the_stated_spread_and_does_not_change_brightness() -> None:
    quiet, noisy = (render_phone(13, 1, replace(CLEAN, noise_levels=level)).image.astype(int) for level in (0.0, 3.0))
    noise = (noisy - quiet)[60:300, 100:540]
    assert noise.std() == pytest.approx(3.0, rel=0.25)
    assert abs(noise.mean()) < 0.5


def test_callers_may_write_into_a_picture_without_spoiling_the_next() -> None:
    first = render_phone(14, 2, SMALL)
    kept = first.image.copy()
    first.image[:] = 0
    assert np.array_equal(render_phone(14, 2, SMALL).image, kept)


def _mask(scene: Scene) -> np.ndarray:
    assert scene.scratch_mask is not None
    return scene.scratch_mask
