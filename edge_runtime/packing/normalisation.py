"""From a pixel 0..255 to the value that a network was trained on: value = pixel * scale + offset.

The file says it in one of two ways: an 8-bit input by its quantisation, because whoever converts has the 256 pixels in
mind (the TFLite Task Library feeds raw pixels there, whatever the metadata says); a float input by `mean` and `std` in
its metadata. Else somebody must know.
"""

from __future__ import annotations

import numpy as np

from edge_runtime.core.errors import UsageError
from edge_runtime.inference.tensors import Tensor

Number = float | tuple[float, float, float]
Numbers = tuple[Number, Number]  # scale, offset

NAMED: dict[str, Numbers] = {
    "0..1": (1 / 255, 0.0),
    "-1..1": (1 / 127.5, -1.0),
    "0..255": (1.0, 0.0),
    # mean and deviation of ImageNet's pixels, as torchvision's and timm's networks have it
    "imagenet": (
        (1 / 58.395, 1 / 57.12, 1 / 57.375),
        (-123.675 / 58.395, -116.28 / 57.12, -103.53 / 57.375),
    ),
}
FORM = "0..1, -1..1, 0..255, imagenet, or MEAN/STD in pixels such as 127.5/127.5 or 124,116,104/58,57,57"


def normalisation(text: str) -> Numbers:
    """What `--normalise` says. Raises UsageError."""
    if text in NAMED:
        return NAMED[text]
    try:
        mean, std = (tuple(float(number) for number in side.split(",")) for side in text.split("/"))
        return from_mean(mean, std)
    except ValueError as err:
        raise UsageError(f"normalisation {text!r} is none", f"give {FORM}") from err


def from_mean(mean: tuple[float, ...], std: tuple[float, ...]) -> Numbers:
    """(pixel - mean) / std, one number or three. Raises ValueError."""
    if {len(mean), len(std)} - {1, 3} or not all(np.isfinite(mean)) or not all(np.isfinite(std)) or 0.0 in std:
        raise ValueError(f"mean {mean} and deviation {std}")
    length = max(len(mean), len(std))
    means, stds = mean * (length // len(mean)), std * (length // len(std))
    scale = [1.0 / each for each in stds]
    offset = [-middle / each for middle, each in zip(means, stds, strict=True)]
    return _shortened(scale), _shortened(offset)


def from_bytes(tensor: Tensor) -> Numbers:
    """That of an 8-bit input into which pixels go as they are (int8: less 128). Without quantisation: the pixels."""
    if not tensor.is_quantised:
        return 1.0, 0.0
    scale, lowest = tensor.scales[0], int(np.iinfo(tensor.dtype).min)
    return scale, (lowest - tensor.zero_points[0]) * scale


def _shortened(numbers: list[float]) -> Number:
    first, *others = numbers
    if all(number == first for number in others):
        return first
    return (numbers[0], numbers[1], numbers[2])
