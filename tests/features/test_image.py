"""Geometry and numbers of input preparation, for every size of frame."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.core.errors import ModelError
from edge_runtime.core.manifest import InputSpec
from edge_runtime.features.image import Prepare, brightness, plan_input, sharpness, shrink, shrunk
from edge_runtime.features.light import even_light

U8, I8, I16, F32 = np.dtype(np.uint8), np.dtype(np.int8), np.dtype(np.int16), np.dtype(np.float32)
sizes = st.integers(1, 3000)
sides = st.integers(1, 400)
fractions = st.tuples(*[st.floats(0, 1)] * 4)


def prepare(spec: InputSpec, dtype=U8, scale=0.0, zero=0) -> Prepare:
    channels = 1 if spec.colour == "grey" else 3
    return Prepare(spec, (1, spec.height, spec.width, channels), dtype, scale, zero)


@given(sizes, sizes, sides, sides, fractions, st.sampled_from(["letterbox", "stretch"]))
def test_every_plan_stays_inside_and_maps_back(width, height, to_w, to_h, roi, fit):
    spec = InputSpec(width=to_w, height=to_h, fit=fit, roi=roi)
    plan = plan_input(spec, width, height)
    rows, columns = plan.crop
    assert 0 <= rows.start < rows.stop <= height
    assert 0 <= columns.start < columns.stop <= width
    assert 0 <= plan.place[0].start < plan.place[0].stop <= to_h
    assert 0 <= plan.place[1].start < plan.place[1].stop <= to_w
    if fit == "letterbox":  # never enlarged
        assert plan.size[0] <= columns.stop - columns.start
        assert plan.size[1] <= rows.stop - rows.start
    x0, y0, x1, y1 = plan.geometry.content
    assert plan.geometry.to_frame(x0, y0) == pytest.approx((columns.start / width, rows.start / height), abs=1e-9)
    assert plan.geometry.to_frame(x1, y1) == pytest.approx((columns.stop / width, rows.stop / height), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), sides, sides, fractions,
       st.sampled_from(["letterbox", "stretch"]), st.sampled_from(["rgb", "bgr", "grey"]),
       st.sampled_from(["black", "grey", "replicate"]))  # fmt: skip
def test_any_frame_becomes_the_models_input(width, height, to_w, to_h, roi, fit, colour, pad):
    spec = InputSpec(width=to_w, height=to_h, fit=fit, roi=roi, colour=colour, pad=pad)
    grey = 90
    tensor, _ = prepare(spec)(np.full((height, width, 3), grey, np.uint8))
    assert tensor.shape == (1, to_h, to_w, 1 if colour == "grey" else 3)
    assert set(np.unique(tensor)) <= {grey, 0, 128}
    if pad == "replicate":
        assert (tensor == grey).all()


def test_a_white_spot_is_found_where_it_was():
    image = np.zeros((720, 1280, 3), np.uint8)
    image[400:440, 900:960] = 255
    for spec in (
        InputSpec(width=640, height=360),
        InputSpec(width=300, height=300),
        InputSpec(width=300, height=300, fit="stretch", roi=(0.5, 0.25, 0.45, 0.7)),
        InputSpec(width=2000, height=2000),
    ):
        tensor, geometry = prepare(spec)(image)
        ys, xs = np.nonzero(tensor[0, :, :, 0] > 127)
        x, y = geometry.to_frame((xs.mean() + 0.5) / spec.width, (ys.mean() + 0.5) / spec.height)
        assert (x * 1280, y * 720) == pytest.approx((930, 420), abs=3)


@pytest.mark.parametrize("wanted", [(640, 360), (320, 180), (400, 225), (224, 224), (1, 1), (1280, 720)])
def test_shrinking_keeps_the_mean(wanted):
    image = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), dtype=np.uint8)
    small = shrink(image, *wanted)
    assert small.shape == (wanted[1], wanted[0], 3)
    assert small.mean() == pytest.approx(image.mean(), abs=2.0)


@pytest.mark.parametrize("to", [600, 450, 400, 370, 360, 350, 300, 256, 224, 190, 180, 100])
def test_a_thin_scratch_survives_every_ratio(to):
    """Contrast left of a one-pixel line of contrast 40, against plain area averaging; linear would keep 1 at 224."""
    ours, area = [], []
    for step in range(12):
        image = np.full((720, 720), 100, np.uint8)
        x = 300 * 16 + step * 10
        cv2.line(image, (x, 200 * 16), (x + 48, 520 * 16), 140, 1, cv2.LINE_AA, 4)
        rows = slice(int(210 * to / 720), int(510 * to / 720))
        kept = [shrink(image, to, to), cv2.resize(image, (to, to), interpolation=cv2.INTER_AREA)]
        for result, into in zip(kept, (ours, area), strict=True):
            into.append(np.percentile(result.astype(float).max(1)[rows] - 100, 10))
    assert min(ours) >= 0.75 * min(area)
    assert np.mean(ours) >= 0.8 * np.mean(area)  # halving rounds to whole grey levels


def test_quantised_inputs_are_what_float_arithmetic_says():
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    for dtype, scale, zero, to_real in (
        (I8, 1 / 255, -128, (1 / 255, 0.0)),  # xor
        (U8, 1 / 128, 128, (1 / 128, -1.0)),  # identity
        (I8, 0.017, 3, (1 / 127.5, -1.0)),  # table
        (U8, 0.02, 7, (1 / 51, -0.1)),
    ):
        spec = InputSpec(width=16, height=16, scale=to_real[0], offset=to_real[1])
        tensor, _ = prepare(spec, dtype, scale, zero)(image)
        limits = np.iinfo(dtype)
        expected = np.clip(np.rint((image * to_real[0] + to_real[1]) / scale) + zero, limits.min, limits.max)
        assert (tensor[0] == expected).all()


def test_float_inputs_are_scaled_pixels():
    image = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    tensor, _ = prepare(InputSpec(width=8, height=8, scale=1 / 127.5, offset=-1), F32)(image)
    assert tensor.dtype == np.float32
    assert np.allclose(tensor[0], image / 127.5 - 1, atol=1e-6)


IMAGENET = {"scale": (1 / 58.395, 1 / 57.12, 1 / 57.375), "offset": (-2.1179, -2.0357, -1.8044)}


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize(("dtype", "scale", "zero"), [(F32, 0.0, 0), (I8, 0.02, -3), (U8, 0.019, 114), (I16, 1e-4, 0)])
def test_each_colour_may_have_numbers_of_its_own_in_every_type_and_order(dtype, scale, zero, layout):
    image = np.random.default_rng(1).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    shape = (1, 8, 6, 3) if layout == "nhwc" else (1, 3, 8, 6)
    spec = InputSpec(width=6, height=8, layout=layout, **IMAGENET)
    tensor, _ = Prepare(spec, shape, dtype, scale, zero)(image)
    real = image * np.array(spec.scale) + np.array(spec.offset)
    expected = real if layout == "nhwc" else real.transpose(2, 0, 1)
    assert tensor.shape == shape and tensor.dtype == dtype and tensor.flags.c_contiguous
    if dtype == F32:
        assert np.allclose(tensor[0], expected, atol=1e-5)
    else:
        limits = np.iinfo(dtype)
        assert (tensor[0] == np.clip(np.rint(expected / scale) + zero, limits.min, limits.max)).all()


def test_colours_come_in_the_models_order():
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 200
    assert prepare(InputSpec(width=4, height=4))(red)[0][0, 0, 0].tolist() == [200, 0, 0]
    assert prepare(InputSpec(width=4, height=4, colour="bgr"))(red)[0][0, 0, 0].tolist() == [0, 0, 200]
    assert prepare(InputSpec(width=4, height=4, colour="grey"))(red)[0][0, 0, 0].tolist() == [60]
    grey_camera = np.full((4, 4), 77, np.uint8)
    assert prepare(InputSpec(width=4, height=4))(grey_camera)[0][0, 0, 0].tolist() == [77, 77, 77]


def test_frames_may_change_size_between_calls_and_are_not_written_to():
    ready = prepare(InputSpec(width=64, height=64, pad="grey"))
    for shape in ((128, 64), (64, 128), (1, 1), (64, 64), (128, 64), (3, 5000)):
        frame = np.full((*shape, 3), 9, np.uint8)
        frame.flags.writeable = False
        tensor, geometry = ready(frame)
        x0, y0, x1, y1 = geometry.content
        inside = tensor[0, round(y0 * 64) : round(y1 * 64), round(x0 * 64) : round(x1 * 64)]
        assert (inside == 9).all()
        assert (tensor == 9).sum() == inside.size


def test_what_is_no_frame_and_what_is_no_picture_input_is_refused():
    ready = prepare(InputSpec(width=8, height=8))
    for wrong in (np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((0, 8, 3), np.uint8)):
        with pytest.raises(ModelError, match="a frame must be uint8"):
            ready(wrong)
    with pytest.raises(ModelError, match="manifest says 1x8x8x3"):
        Prepare(InputSpec(width=8, height=8), (1, 9, 8, 3), U8)
    with pytest.raises(ModelError, match="input is int32"):
        Prepare(InputSpec(width=8, height=8), (1, 8, 8, 3), np.dtype(np.int32))
    with pytest.raises(ModelError, match="not quantised"):
        Prepare(InputSpec(width=8, height=8), (1, 8, 8, 3), np.dtype(np.int16))
    with pytest.raises(ModelError, match="not quantised"):
        prepare(InputSpec(width=8, height=8, scale=0.1))


def test_huge_frames_are_prepared():
    tensor, _ = prepare(InputSpec(width=32, height=32))(np.full((6000, 8000, 3), 50, np.uint8))
    assert (tensor[0, 4:28] == 50).all()


def test_brightness_and_sharpness_tell_light_and_focus():
    image = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    assert brightness(image) == pytest.approx(127, abs=6)
    assert brightness(np.full((1, 1, 3), 7, np.uint8)) == 7
    assert sharpness(image) > 5 * sharpness(cv2.GaussianBlur(image, (0, 0), 2))
    assert sharpness(np.zeros((1, 1, 3), np.uint8)) == 0


def test_even_light_is_seen_before_padding_and_only_when_asked_for():
    falling = np.repeat(np.linspace(20, 220, 64, dtype=np.uint8)[None, :, None], 48, axis=0).repeat(3, axis=2)
    seen = {
        light: Prepare(InputSpec(width=64, height=64, light=light), (1, 64, 64, 3), np.dtype(np.uint8)).pixels(falling)
        for light in ("as_is", "even")
    }
    rows = slice(8, 56)
    assert np.array_equal(seen["as_is"][rows], falling)
    assert np.array_equal(seen["even"][rows], even_light(falling, 64 / 48))
    assert not seen["even"][:8].any()
    assert not seen["even"][56:].any()


def test_gate_and_model_share_one_shrunken_frame_and_never_a_stale_one():
    """The same read-only frame is shrunk once; what may be written to is looked at anew each time."""
    spec = InputSpec(width=64, height=36)
    crop, size = plan_input(spec, 128, 72).crop, (64, 36)
    frame = np.random.default_rng(3).integers(0, 255, (72, 128, 3), np.uint8)
    first = shrunk(frame, crop, size)
    frame[:] = 255 - frame
    assert not np.array_equal(shrunk(frame, crop, size), first)
    frame.flags.writeable = False
    held = shrunk(frame, crop, size)
    assert shrunk(frame, crop, size) is held
    assert shrunk(frame, crop, (32, 18)).shape == (18, 32, 3)
    other = frame.copy()
    other.flags.writeable = False
    assert shrunk(other, crop, size) is not held
    prepare = Prepare(spec, (1, 36, 64, 3), np.dtype(np.float32))
    tensor, _ = prepare(frame)
    assert np.array_equal(tensor[0].astype(np.uint8), shrink(frame, 64, 36))
