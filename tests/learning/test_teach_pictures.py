"""What is read to teach from: copies and memory. No model has a part in it."""

import cv2
import numpy as np
import pytest

from edge_runtime.learning import teach_pictures
from edge_runtime.learning.teach_pictures import load_pictures


def part(seed, rows=480, columns=640):
    """A part as a camera sees it: shapes that differ from part to part, and noise."""
    rng = np.random.default_rng(seed)
    shapes = cv2.resize(
        rng.uniform(40, 200, (9, 12, 3)).astype(np.float32), (columns, rows), interpolation=cv2.INTER_CUBIC
    )
    return np.clip(shapes + rng.normal(0, 2, shapes.shape), 0, 255).astype(np.uint8)


def again(seed, lamp=1.0, shift=0):
    """Another shot of the same part: other noise, the lamp and the place as given."""
    rng = np.random.default_rng(1000 + seed)
    moved = np.roll(part(7), shift, axis=1).astype(np.float32) * lamp
    return np.clip(moved + rng.normal(0, 2, moved.shape), 0, 255).astype(np.uint8)


def save(folder, name, picture, options=()):
    assert cv2.imwrite(str(folder / name), picture, list(options))


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_a_copy_is_left_out_and_named_whatever_it_was_saved_as(tmp_path, suffix):
    save(tmp_path, "a.png", part(1))
    save(tmp_path, f"b{suffix}", part(1))
    save(tmp_path, "c.png", part(2))
    pictures = load_pictures(tmp_path).without_copies()
    assert pictures.names == ["a.png", "c.png"]
    assert pictures.skipped == [f"b{suffix}: the same picture as a.png"]


def test_twenty_copies_of_one_picture_are_one_picture(tmp_path):
    for number in range(20):
        save(tmp_path, f"p{number:02}.png", part(3))
    assert load_pictures(tmp_path).without_copies().names == ["p00.png"]


@pytest.mark.parametrize("quality", [80, 90, 99])
def test_copies_that_were_saved_again_are_told(tmp_path, quality):
    for number in range(20):
        save(tmp_path, f"p{number:02}.jpg", part(3), (cv2.IMWRITE_JPEG_QUALITY, quality - number // 4))
    (*_, told) = load_pictures(tmp_path).without_copies().skipped
    assert "pictures are nearly the same as another" in told


def test_shots_of_parts_that_are_alike_are_kept(tmp_path):
    for number, lamp in enumerate(np.linspace(0.97, 1.03, 12)):
        save(tmp_path, f"p{number:02}.png", again(number, lamp, shift=number % 3))
    pictures = load_pictures(tmp_path).without_copies()
    assert len(pictures.names) == 12 and not pictures.skipped


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 3000, 4000), (6, 700, 900), (6, 900, 40), (3, 20, 30)])
def test_pictures_of_any_size_fit_into_the_memory_that_is_meant_for_them(tmp_path, monkeypatch, count, rows, columns):
    monkeypatch.setattr(teach_pictures, "MEMORY_BYTES", 3_000_000)
    for number in range(count):
        save(tmp_path, f"p{number}.jpg", cv2.resize(part(number), (columns, rows)))
    images = load_pictures(tmp_path).images
    assert sum(image.nbytes for image in images) <= 3_000_000
    assert all(image.shape[1] / image.shape[0] == pytest.approx(columns / rows, rel=0.02) for image in images)
    if count * rows * columns * 3 <= 3_000_000:
        assert images[0].shape == (rows, columns, 3), "what fits is left as it is"
