"""Pictures that show nothing are told from dark, plain and small ones that do; with and without statistics."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.core.manifest import InputSpec, Reference
from edge_runtime.features.picture_measures import measure
from edge_runtime.features.picture_validity import PictureGate, odd_pictures, picture_reference
from edge_runtime.modelstore.bundle import load_bundle
from edge_runtime.simulation.phone_scene import SceneConfig, render_phone

SCRATCH = load_bundle(Path(__file__).resolve().parents[2] / "models" / "scratch" / "1").manifest
FRAMES = Path(__file__).resolve().parents[3] / "shared" / "data" / "vision" / "phone_screen" / "frames"
SHIPPED = PictureGate(SCRATCH.input, SCRATCH.reference)
BARE = PictureGate(SCRATCH.input)  # an engineer's own bundle: no statistics
HALF_SIZE = {"width": 640, "height": 360}
SEEDS = (1, 7, 23)


def parts(count: int = 2, **scene) -> list[np.ndarray]:
    """The caller's own, to change as it likes."""
    return [part.copy() for part in drawn(count, SceneConfig(**{**HALF_SIZE, "scratch_share": 0.5, **scene}))]


@lru_cache(maxsize=8)
def drawn(count: int, cfg: SceneConfig) -> list[np.ndarray]:
    return [render_phone(seed, index, cfg).image for seed in SEEDS for index in range(count)]


def noise(level: float, spread: float, shape: tuple[int, int] = (360, 640)) -> np.ndarray:
    return np.clip(np.random.default_rng(3).normal(level, spread, (*shape, 3)), 0, 255).astype(np.uint8)


def test_parts_of_the_simulated_line_are_valid() -> None:
    assert {SHIPPED(picture) for picture in parts(8, width=1280, height=720)} == {""}


@pytest.mark.parametrize("light", [0.0, 0.005, 0.02, 0.05, 0.1, 0.2])
def test_dead_lamp_is_too_dark(light: float) -> None:
    assert all(SHIPPED(picture).startswith("too dark, mean") for picture in parts(light=light))


def test_too_much_light_is_too_bright() -> None:
    assert all(SHIPPED(picture).startswith("too bright, mean") for picture in parts(light=4.0))


@pytest.mark.parametrize("light", [0.7, 0.85, 1.2])
def test_lamp_that_ages_or_was_changed_is_no_reason_to_stop(light: float) -> None:
    assert {SHIPPED(picture) for picture in parts(light=light)} == {""}


@pytest.mark.parametrize("sigma", [4.0, 7.0, 15.0, 40.0])
def test_blur_is_unsharp_whatever_its_size(sigma: float) -> None:
    blurred = parts(1, width=1280, height=720, focus_blur_px=sigma)
    assert all(SHIPPED(picture).startswith("unsharp") for picture in blurred)


@pytest.mark.parametrize("pixels", [20, 30, 45])
@pytest.mark.parametrize("is_along", [True, False], ids=["along", "across"])
def test_part_that_moves_during_the_exposure_is_unsharp_one_way(pixels: int, is_along: bool) -> None:
    size = (pixels, 1) if is_along else (1, pixels)
    faults = [SHIPPED(cv2.blur(picture, size)) for picture in parts(3, width=1280, height=720)]
    assert all(fault.startswith("unsharp") for fault in faults), faults


@pytest.mark.parametrize("gate", [SHIPPED, BARE], ids=["with statistics", "without"])
@pytest.mark.parametrize("colour", ["red", "green", "blue"])
@pytest.mark.parametrize("level", [64, 128, 255])
def test_colour_that_is_stuck_is_told(gate: PictureGate, colour: str, level: int) -> None:
    for picture in parts(1):
        picture[..., ("red", "green", "blue").index(colour)] = level
        assert gate(picture).startswith((f"{colour} is {level} all over", "too bright")), gate(picture)


@pytest.mark.parametrize("colour", [0, 1, 2])
def test_colour_that_is_gone_is_told_where_clean_parts_show_it(colour: int) -> None:
    """A lamp of one colour leaves the others dark, too: without statistics nobody can say."""
    for picture in parts(1):
        picture[..., colour] = 0
        assert SHIPPED(picture).startswith((f"{('red', 'green', 'blue')[colour]} is 0 all over", "too dark"))
        assert BARE(picture) == ""


def test_station_with_a_lamp_of_one_colour_is_no_fault() -> None:
    spec = InputSpec(width=320, height=180)
    pictures = [render_phone(5, index, SceneConfig(**HALF_SIZE, scratch_share=0.0)).image for index in range(14)]
    for picture in pictures:
        picture[..., 1:] = 0
    gate = PictureGate(spec, Reference(picture=picture_reference(pictures[:10], spec)))
    assert {gate(picture) for picture in pictures[10:]} == {""}


@pytest.mark.parametrize("gate", [SHIPPED, BARE], ids=["with statistics", "without"])
@pytest.mark.parametrize(
    "picture",
    [noise(level, spread) for level in (0, 3, 20, 60, 128, 255) for spread in (0.0, 2.0, 9.0, 25.0)],
    ids=[f"{level} +- {spread}" for level in (0, 3, 20, 60, 128, 255) for spread in (0.0, 2.0, 9.0, 25.0)],
)
def test_grey_of_any_level_shows_nothing_however_noisy(picture: np.ndarray, gate: PictureGate) -> None:
    assert gate(picture)


@pytest.mark.parametrize("shape", [(1, 1), (2, 900), (900, 2), (9, 9), (64, 64), (1080, 1920)])
def test_black_is_told_at_every_size(shape: tuple[int, int]) -> None:
    assert BARE(np.zeros((*shape, 3), np.uint8)).startswith("too dark, mean 0")
    assert SHIPPED(np.zeros((*shape, 3), np.uint8)) == "too dark, mean 0 of 45"


@pytest.mark.parametrize("side", ["top", "bottom", "left", "right"])
@pytest.mark.parametrize("level", [0, 128])
def test_half_a_picture_is_not_judged(side: str, level: int) -> None:
    for picture in parts(1):
        rows, columns = picture.shape[0] // 2, picture.shape[1] // 2
        lost = {"top": np.s_[:rows], "bottom": np.s_[rows:], "left": np.s_[:, :columns], "right": np.s_[:, columns:]}
        picture[lost[side]] = level
        assert SHIPPED(picture)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("is_rows", [True, False], ids=["rows", "columns"])
def test_line_that_is_repeated_to_the_end_of_the_picture_is_blank(share: float, is_rows: bool) -> None:
    for picture in parts(1, width=1280, height=720):
        turned = picture if is_rows else picture.swapaxes(0, 1)
        turned[round(len(turned) * (1 - share)) :] = turned[round(len(turned) * (1 - share)) - 1]
        assert SHIPPED(picture).startswith(("blank", "too dark", "too bright", "low contrast"))


def test_fog_test_card_and_negative_are_not_what_the_model_was_made_for() -> None:
    picture = parts(1)[0]
    bars = np.zeros_like(picture)
    for number, colour in enumerate(np.ndindex(2, 2, 2)):
        bars[:, number * 80 : (number + 1) * 80] = np.multiply(colour, 255)
    for wrong in ((picture * 0.3 + 90).astype(np.uint8), bars, 255 - picture):
        assert SHIPPED(wrong)


def test_small_bright_part_on_black_is_valid_where_nothing_is_known() -> None:
    dark_field = noise(2, 1)
    cv2.circle(dark_field, (320, 180), 25, (150, 150, 150), -1)
    assert BARE(dark_field) == ""
    binary = np.zeros((360, 640, 3), np.uint8)
    binary[100:200, 100:500] = 255
    assert BARE(binary) == ""


def test_piece_of_glass_is_valid_and_a_black_one_is_not() -> None:
    glass = noise(22, 1.2, (256, 256))
    cv2.line(glass, (40, 40), (200, 170), (60, 60, 60), 2)
    assert SHIPPED(glass) == ""
    assert SHIPPED((glass * 0.1).astype(np.uint8)).startswith("too dark")


def test_older_bundle_is_held_to_its_mean_brightness() -> None:
    gate = PictureGate(SCRATCH.input, Reference(brightness_mean=45.0))
    assert {gate(picture) for picture in parts()} == {""}
    assert all(gate(picture).startswith("too dark, mean") for picture in parts(light=0.05))


def test_only_the_region_of_interest_counts() -> None:
    picture = parts(1)[0]
    picture[:, :320] = 0
    assert BARE(picture) == ""
    assert PictureGate(InputSpec(width=320, height=360, roi=(0.0, 0.0, 0.5, 1.0)))(picture).startswith("too dark")


def test_statistics_of_one_station_pass_its_parts_and_stop_its_dead_lamp() -> None:
    spec = InputSpec(width=320, height=320, fit="stretch")
    cfg = SceneConfig(**HALF_SIZE, scratch_share=0.0)
    taught = [render_phone(5, index, cfg).image for index in range(14)]
    gate = PictureGate(spec, Reference(picture=picture_reference(taught, spec)))
    assert {gate(render_phone(5, index, cfg).image) for index in range(100, 160)} == {""}
    for wrong in ({"light": 0.2}, {"light": 6.0}, {"focus_blur_px": 6.0}):
        assert all(gate(render_phone(5, i, SceneConfig(**HALF_SIZE, **wrong)).image) for i in range(100, 106))


def test_odd_pictures_among_good_ones_are_named() -> None:
    pictures = [render_phone(5, index, SceneConfig(**HALF_SIZE, scratch_share=0.0)).image for index in range(12)]
    pictures[3] = (pictures[3] * 0.05).astype(np.uint8)
    pictures[7] = cv2.GaussianBlur(pictures[7], (0, 0), 9)
    pictures[9] = noise(128, 2)
    odd = odd_pictures(pictures, SCRATCH.input)
    assert set(odd) == {3, 7, 9}
    assert odd[3].startswith("too dark") and odd[7].startswith("unsharp") and odd[9].startswith("featureless")
    assert len(odd_pictures([np.zeros((50, 50, 3), np.uint8)] * 3, None)) == 3


def test_parts_with_edges_one_way_only_are_valid_where_the_clean_ones_are_like_them() -> None:
    spec, draw = InputSpec(width=640, height=360), np.random.default_rng(8)

    def rods() -> np.ndarray:
        picture = np.full((360, 640, 3), 40.0)
        for left in draw.integers(0, 600, 9):
            picture[:, left : left + 30] = 190
        shade = np.linspace(1.0, 0.7, 360)[:, None, None]
        return np.clip(picture * shade + draw.normal(0, 2, picture.shape), 0, 255).astype(np.uint8)

    gate = PictureGate(spec, Reference(picture=picture_reference([rods() for _ in range(12)], spec)))
    assert {gate(rods()) for _ in range(30)} == {""}
    assert gate(cv2.blur(rods(), (45, 1))).startswith("unsharp")


def test_measures_are_those_of_the_picture() -> None:
    picture = np.zeros((360, 640, 3), np.uint8)
    picture[:, 320:] = 200
    seen = measure(picture, SCRATCH.input)
    assert (seen.mean, seen.levels) == (100.0, (0, 0, 0, 200, 200))
    assert (seen.contrast, seen.blank) == (200, 1.0)
    assert seen.step > seen.edge > 50  # as sharp as can be, on one column of 640


@pytest.mark.skipif(not FRAMES.is_dir(), reason="the photographs of phones are not here")
def test_photographs_of_phones_are_valid() -> None:
    files = sorted(FRAMES.glob("*.jpg"))
    assert len(files) >= 10
    faults = {file.name: SHIPPED(cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)) for file in files}
    assert set(faults.values()) == {""}, faults
