"""From a frame to a model's input tensor, and back from the model's coordinates to the frame.

Downscaling decides whether a thin scratch survives. Contrast that is left of a 1-2 px line of contrast 40 (mean and
worst over 24 sub-pixel positions), and time for a 1280x720 RGB frame on one x86-64 core:

    ratio   area             linear          half by area, then linear
    1.6     18.9/18.0 3.0ms  18.7/18.0 0.4ms
    1.95    15.5/15.0        13.1/11.4
    3.2     10.2/10.0 2.0ms   4.9/1.0         9.6/8.2  0.3 ms
    3.8      9.6/8.8                          3.7/2.0

So: halve exactly by area while the ratio is 2 or more (a 2x2 mean, 0.17 ms), then linear for what remains if it is at
most 1.75, else area. A camera crop of exactly 2 or 4 times the model's input is the cheapest and the best.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.errors import ModelError
from edge_runtime.core.manifest import InputSpec
from edge_runtime.features.light import even_light

LINEAR_UP_TO = 1.75  # ratio over which linear skips pixels, see the table above
SMALL_PIXELS = 256 * 256  # under it plain area costs less than 0.3 ms, and halving would drop odd rows and columns
GREY_PAD = 128
_PAD_VALUE = {"black": 0, "grey": GREY_PAD, "replicate": 0}


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where the model's input lies on the frame: frame = start + model * span, both as fractions 0..1 of their picture.

    content is the part of the model's input that shows the frame (x0, y0, x1, y1); the rest is padding.
    """

    x0: float
    y0: float
    span_x: float
    span_y: float
    content: tuple[float, float, float, float]

    @property
    def is_whole(self) -> bool:
        """The model sees exactly the whole frame: no region of interest, no padding."""
        return (self.x0, self.y0, self.span_x, self.span_y) == (0.0, 0.0, 1.0, 1.0)

    def to_frame(self, x: float, y: float) -> tuple[float, float]:
        return self.x0 + x * self.span_x, self.y0 + y * self.span_y


Crop = tuple[slice, slice]  # rows, columns


@dataclass(frozen=True, slots=True)
class _Plan:
    """What to do with frames of one size."""

    crop: Crop
    size: tuple[int, int]  # width, height of the picture inside the input
    place: tuple[slice, slice]
    is_padded: bool
    geometry: Geometry


class Prepare:
    """Frame in, input tensor out. Keeps its buffers: a result is valid until the next call, and is never given away.

    shape: the model's input, (1, height, width, channels) or as `spec.layout` says, without the channels for grey.
    dtype, scale and zero_point: the tensor's own; scale 0 where it is not quantised. Raises ModelError when the spec
    does not fit.
    """

    def __init__(
        self, spec: InputSpec, shape: tuple[int, ...], dtype: np.dtype[Any], scale: float = 0.0, zero_point: int = 0
    ) -> None:
        self.spec = spec
        channels = 1 if spec.colour == "grey" else 3
        is_planar, whole = spec.layout == "nchw", input_shape(spec)
        if shape != whole and not (channels == 1 and shape == (1, spec.height, spec.width)):
            raise ModelError(
                f"the model's input is {'x'.join(map(str, shape))}, "
                f"the manifest says {'x'.join(map(str, whole))} ({spec.colour})"
            )
        self._pixels = np.empty((spec.height, spec.width) if channels == 1 else (spec.height, spec.width, 3), np.uint8)
        self._tensor = np.empty(self._pixels.shape, dtype)
        self._planes = np.empty((3, spec.height, spec.width), dtype) if is_planar and channels == 3 else None
        self._shape = shape
        self._quantise = _Quantise(spec, np.dtype(dtype), scale, zero_point)
        self._frame_shape: tuple[int, ...] = ()
        self._plan: _Plan | None = None

    def __call__(self, image: NDArray[np.uint8]) -> tuple[NDArray[Any], Geometry]:
        """image: uint8 RGB (height, width, 3) or grey (height, width), any size from 1x1. Not changed."""
        if image.shape != self._frame_shape or self._plan is None:
            self._plan = self._make_plan(image)
            self._frame_shape = image.shape
        plan = self._plan
        pixels = self._look(image, plan)
        if plan.is_padded:
            pixels = self._pad(pixels, plan)
        tensor = self._quantise(pixels, self._tensor)
        if self._planes is not None:
            np.copyto(self._planes, tensor.transpose(2, 0, 1))
            tensor = self._planes
        return tensor.reshape(self._shape), plan.geometry

    def pixels(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The same picture before it becomes numbers of the tensor: what the model sees, for training and for eyes."""
        plan = self._make_plan(image)
        pixels = self._look(image, plan)
        return (self._pad(pixels, plan) if plan.is_padded else pixels).copy()

    def _look(self, image: NDArray[np.uint8], plan: _Plan) -> NDArray[np.uint8]:
        seen = image[plan.crop]
        pixels = _to_colour(shrunk(image, plan.crop, plan.size), self.spec.colour)
        _last.forget()
        return even_light(pixels, seen.shape[1] / seen.shape[0]) if self.spec.light == "even" else pixels

    def _make_plan(self, image: NDArray[np.uint8]) -> _Plan:
        is_picture = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
        if image.dtype != np.uint8 or not is_picture or 0 in image.shape:
            raise ModelError(f"a frame must be uint8, height x width x 3, not {image.dtype} {image.shape}")
        plan = plan_input(self.spec, image.shape[1], image.shape[0])
        self._pixels.fill(_PAD_VALUE[self.spec.pad])
        return plan

    def _pad(self, pixels: NDArray[np.uint8], plan: _Plan) -> NDArray[np.uint8]:
        rows, columns = plan.place
        if self.spec.pad == "replicate":
            return np.asarray(
                cv2.copyMakeBorder(
                    pixels, rows.start, self.spec.height - rows.stop, columns.start, self.spec.width - columns.stop,
                    cv2.BORDER_REPLICATE,
                )
            )  # fmt: skip
        self._pixels[rows, columns] = pixels
        return self._pixels


def input_shape(spec: InputSpec) -> tuple[int, int, int, int]:
    """What a model's input is for pictures of this spec; a grey one may do without its last axis of one."""
    channels = 1 if spec.colour == "grey" else 3
    return (1, channels, spec.height, spec.width) if spec.layout == "nchw" else (1, spec.height, spec.width, channels)


def plan_input(spec: InputSpec, width: int, height: int) -> _Plan:
    """Crop, size, place and geometry for frames of width x height pixels."""
    left, crop_w = _span(spec.roi[0], spec.roi[2], width)
    top, crop_h = _span(spec.roi[1], spec.roi[3], height)
    if spec.fit == "stretch":
        new_w, new_h = spec.width, spec.height
    else:
        factor = min(spec.width / crop_w, spec.height / crop_h, 1.0)
        new_w = min(spec.width, max(1, round(crop_w * factor)))
        new_h = min(spec.height, max(1, round(crop_h * factor)))
    x, y = (spec.width - new_w) // 2, (spec.height - new_h) // 2
    per_x, per_y = crop_w / new_w, crop_h / new_h  # frame pixels under one model pixel
    geometry = Geometry(
        x0=(left - x * per_x) / width,
        y0=(top - y * per_y) / height,
        span_x=spec.width * per_x / width,
        span_y=spec.height * per_y / height,
        content=(x / spec.width, y / spec.height, (x + new_w) / spec.width, (y + new_h) / spec.height),
    )
    return _Plan(
        crop=(slice(top, top + crop_h), slice(left, left + crop_w)),
        size=(new_w, new_h),
        place=(slice(y, y + new_h), slice(x, x + new_w)),
        is_padded=(new_w, new_h) != (spec.width, spec.height),
        geometry=geometry,
    )


def shrink(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """The picture at width x height pixels, thin lines kept. Enlarges linearly where it must. May return a view."""
    while True:
        rows, columns = image.shape[:2]
        ratio_x, ratio_y = columns / width, rows / height
        if (columns, rows) == (width, height):
            return image
        if min(ratio_x, ratio_y) < 2.0 or (rows * columns <= SMALL_PIXELS and (ratio_x, ratio_y) != (2.0, 2.0)):
            break
        even = image[: rows & ~1, : columns & ~1]  # an odd last row would send cv2 down its slow general path
        image = np.asarray(cv2.resize(even, (columns // 2, rows // 2), interpolation=cv2.INTER_AREA))
    largest = max(ratio_x, ratio_y)
    is_area = largest > LINEAR_UP_TO or (largest > 1.0 and rows * columns <= SMALL_PIXELS)
    how = cv2.INTER_AREA if is_area else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=how))


class _Last(threading.local):
    """The last frame that this thread shrank, until the model has it."""

    image: NDArray[np.uint8] | None = None
    how: tuple[Crop, tuple[int, int]] | None = None
    result: NDArray[np.uint8] | None = None

    def forget(self) -> None:
        self.image = self.result = None  # it would be kept in memory until the next part


_last = _Last()


def shrunk(image: NDArray[np.uint8], crop: Crop, size: tuple[int, int]) -> NDArray[np.uint8]:
    """`shrink(image[crop], *size)`, done once for the picture gate and the model behind it, which look at the same.

    Only frames are remembered: they are read-only, so that the same object is the same picture.
    """
    if _last.image is image and _last.how == (crop, size) and _last.result is not None:
        return _last.result
    result = shrink(image[crop], *size)
    if not image.flags.writeable:
        _last.image, _last.how, _last.result = image, (crop, size), result
    return result


def brightness(image: NDArray[np.uint8], every: int = 8) -> float:
    """Mean of all channels over each `every`-th row and column, 0..255. 13 us for a 720p frame."""
    return float(image[::every, ::every].mean())


def sharpness(image: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of the middle quarter of the picture: larger is sharper. Compare like with like."""
    (top, rows), (left, columns) = _span(0.25, 0.5, image.shape[0]), _span(0.25, 0.5, image.shape[1])
    grey = _to_colour(image[top : top + rows, left : left + columns], "grey")
    return float(cv2.Laplacian(grey, cv2.CV_16S, ksize=1).var())


class _Quantise:
    """Pixels to stored values: stored = round((pixel * scale + offset) / tensor_scale) + zero_point, by table.

    A pixel has 256 values, so the table is exact. The two tables that networks usually have, identity (uint8) and
    `pixel - 128` (int8), are a view and an xor: 0.01 ms for 640x360x3 where the table takes 0.2 ms. Where the colours
    have numbers of their own, there is a table for each.
    """

    def __init__(self, spec: InputSpec, dtype: np.dtype[Any], scale: float, zero_point: int) -> None:
        self._scale, self._offset = np.asarray(spec.scale, np.float32), np.asarray(spec.offset, np.float32)
        self._has_offset = bool(self._offset.any())
        self._is_float = dtype == np.float32
        if self._is_float:
            return
        if dtype not in (np.int8, np.uint8, np.int16):
            raise ModelError(f"the model's input is {dtype}; pictures go into int8, uint8, int16 or float32 inputs")
        if scale == 0.0 and (dtype == np.int16 or (spec.scale, spec.offset) != (1.0, 0.0)):
            raise ModelError("the model's input is not quantised, so input.scale must be 1 and input.offset 0")
        real = np.arange(256)[:, None] * np.asarray(spec.scale) + np.asarray(spec.offset)
        stored = np.rint(real / scale) + zero_point if scale else real
        limits = np.iinfo(dtype)
        table = np.clip(stored, limits.min, limits.max).astype(dtype)  # (256, 1 or 3)
        if dtype == np.int16:
            self._table, self._is_identity, self._is_xor = table[None], False, False
            return
        self._table = table.view(np.uint8)[None]
        pixels = np.arange(256, dtype=np.uint8)[:, None]
        self._is_identity = bool((self._table == pixels).all())
        self._is_xor = bool((self._table == pixels ^ 0x80).all())

    def __call__(self, pixels: NDArray[np.uint8], out: NDArray[Any]) -> NDArray[Any]:
        if self._is_float:
            np.multiply(pixels, self._scale, out=out)
            if self._has_offset:
                np.add(out, self._offset, out=out)
            return out
        if self._is_identity:
            return np.ascontiguousarray(pixels).view(out.dtype)
        if self._is_xor:
            np.bitwise_xor(pixels, 0x80, out=out.view(np.uint8))
            return out
        cv2.LUT(np.ascontiguousarray(pixels), self._table, dst=out if out.dtype == np.int16 else out.view(np.uint8))
        return out


def _to_colour(picture: NDArray[np.uint8], colour: str) -> NDArray[np.uint8]:
    """RGB or grey in, what the model wants out. After shrinking, so that it costs little."""
    if picture.ndim == 2:
        return picture if colour == "grey" else np.asarray(cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB))
    if colour == "rgb":
        return picture
    code = cv2.COLOR_RGB2BGR if colour == "bgr" else cv2.COLOR_RGB2GRAY
    return np.asarray(cv2.cvtColor(picture, code))


def _span(start: float, length: float, pixels: int) -> tuple[int, int]:
    """First pixel and number of pixels of a stretch given in fractions; at least one pixel, never outside."""
    first = min(round(start * pixels), pixels - 1)
    return first, max(1, min(round(length * pixels), pixels - first))
