"""Pictures that are compared with the one before: which changes make them another one."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.config.schema import CheckPictures
from edge_runtime.core.clock import monotonic_ns
from edge_runtime.lines.picture_watch import STILL, PictureWatch

SIZES = [(1, 1), (64, 64), (180, 321), (360, 640), (486, 648), (720, 1280), (1080, 1920)]  # rows, columns


def look_twice(before: np.ndarray, now: np.ndarray) -> str:
    watch = PictureWatch("top", CheckPictures.ALL, monotonic_ns, lambda event: None)
    assert watch.look(before, lambda picture: "") == ""
    return watch.look(now, lambda picture: "")


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("channels", [(), (3,)], ids=["grey", "colour"])
def test_same_picture_stands_still_at_every_size(shape: tuple[int, int], channels: tuple[int, ...]) -> None:
    picture = np.random.default_rng(4).integers(0, 256, (*shape, *channels), np.uint8)
    assert look_twice(picture, picture.copy()) == STILL


@pytest.mark.parametrize("shape", SIZES[1:])
@pytest.mark.parametrize("colour", [0, 1, 2])
def test_change_in_one_colour_is_seen_at_every_size(shape: tuple[int, int], colour: int) -> None:
    picture = np.full((*shape, 3), 90, np.uint8)
    changed = picture.copy()
    changed[..., colour] += 5
    assert look_twice(picture, changed) == ""


@pytest.mark.parametrize("shape", SIZES[3:])
def test_noise_is_a_change_and_a_clock_in_the_corner_is_none(shape: tuple[int, int]) -> None:
    draw = np.random.default_rng(4)
    noisy = [np.clip(draw.normal(60, 1.0, (*shape, 3)), 0, 255).astype(np.uint8) for _ in range(2)]
    assert look_twice(*noisy) == ""
    clock = noisy[0].copy()
    clock[4 : 4 + shape[0] // 40, 4 : 4 + shape[1] // 20] ^= 255
    assert look_twice(noisy[0], clock) == STILL


@pytest.mark.parametrize("shape", SIZES[1:])
def test_frame_whose_memory_is_filled_again_is_not_compared_with_itself(shape: tuple[int, int]) -> None:
    frame = np.full((*shape, 3), 40, np.uint8)
    watch = PictureWatch("top", CheckPictures.ALL, monotonic_ns, lambda event: None)
    watch.look(frame, lambda picture: "")
    frame += 60
    assert watch.look(frame, lambda picture: "") == ""
