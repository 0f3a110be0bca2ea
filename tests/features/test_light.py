"""Even light: lamps, shadows and exposure go, marks on the surface stay."""

import numpy as np
import pytest

from edge_runtime.features.light import even_light


@pytest.fixture
def brushed():
    rng = np.random.default_rng(1)
    return (100 + rng.normal(0, 6, (256, 256, 1)) + np.zeros((1, 1, 3))).clip(0, 255)


def test_shadows_and_exposure_go(brushed):
    falling = np.linspace(0.4, 1.6, 256)[None, :, None]
    a, b = (even_light(picture.astype(np.uint8), 1.0).astype(float) for picture in (brushed, brushed * falling))
    assert abs(a.mean() - b.mean()) < 1.0
    shadow = abs((brushed * falling)[:, :64].mean() - (brushed * falling)[:, -64:].mean())
    assert abs(b[:, :64].mean() - b[:, -64:].mean()) < 0.2 * shadow
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.85  # the dark side has fewer grey levels


def test_a_mark_keeps_its_place_and_gains_contrast(brushed):
    brushed[120:124, 60:160] -= 25
    even = even_light(brushed.astype(np.uint8), 1.0).astype(float)
    assert even[120:124, 70:150].mean() < even.mean() - 60


def test_colours_stay_colours(brushed):
    brushed[..., 0] += 20
    even = even_light(brushed.astype(np.uint8), 1.0).astype(float)
    assert even[..., 0].mean() > even[..., 1].mean() + 40


def test_windows_are_round_on_the_frame(brushed):
    """A frame twice as wide as high, stretched to a square: light that falls slowly downwards is nearly left alone."""
    falling = (brushed * np.linspace(0.9, 1.1, 256)[:, None, None]).astype(np.uint8)
    square, wide = (even_light(falling, aspect).astype(float) for aspect in (1.0, 4.0))
    tilt = [picture[-64:].mean() - picture[:64].mean() for picture in (square, wide)]
    assert abs(tilt[0]) < tilt[1]


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 1), (3, 500, 3), (64, 48), (65, 47, 3)])
def test_every_size_is_possible(shape):
    picture = np.random.default_rng(2).integers(0, 256, shape).astype(np.uint8)
    even = even_light(picture, 1.5)
    assert even.shape == shape
    assert even.dtype == np.uint8


def test_an_empty_surface_stays_quiet():
    assert np.all(even_light(np.full((128, 128, 3), 37, np.uint8), 1.0) == 128)
