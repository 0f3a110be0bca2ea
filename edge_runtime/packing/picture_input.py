"""Is the input of a model a picture, and in which form? What is none is refused in a sentence that names it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_runtime.core.errors import ModelError
from edge_runtime.inference.tensors import Tensor
from edge_runtime.packing.facts import Facts

DTYPES = ("uint8", "int8", "int16", "float32")
SMALLEST_SIDE, LARGEST_SIDE = 8, 4096
SMALLEST_GREY = 16  # 10 to 13 numbers a row are MFCC features of sound
MOST_STEPS = 16.0  # real values that a normalised picture spans: 0..1 to (0..255 - mean) / deviation of dark pictures
PIXELS = 255.0  # real values that a picture spans whose pixels go in as they are
OPEN = -1


@dataclass(frozen=True, slots=True)
class PictureInput:
    """width, height: -1 where the file leaves them open."""

    tensor: Tensor
    width: int
    height: int
    channels: int
    layout: Literal["nhwc", "nchw"]

    @property
    def is_open(self) -> bool:
        return OPEN in (self.width, self.height)

    def shape(self, width: int, height: int) -> tuple[int, ...]:
        """The tensor's shape for pictures of that size."""
        if len(self.tensor.shape) == 3:
            return (1, height, width)
        return (1, self.channels, height, width) if self.layout == "nchw" else (1, height, width, self.channels)


def picture_input(facts: Facts) -> PictureInput:
    """The one picture that goes in. Raises ModelError."""
    if len(facts.inputs) != 1:
        names = ", ".join(f"{tensor.name} {_shape(tensor.shape)}" for tensor in facts.inputs[:4])
        raise ModelError(
            f"the model has {len(facts.inputs)} inputs ({names}); one picture goes in",
            "export it with the picture as its only input"
            + (", or choose another --signature" if len(facts.signatures) > 1 else ""),
        )
    tensor, sizes = facts.inputs[0], facts.input_sizes[0] or facts.inputs[0].shape
    if tensor.dtype_name not in DTYPES:
        raise ModelError(
            f"input {tensor.name} is {tensor.dtype_name}; pictures go into {', '.join(DTYPES)}",
            "convert it with a picture of one of these as input",
        )
    if len(tensor.scales) > 1:
        raise ModelError(f"input {tensor.name} is quantised per channel, which no picture input is")
    if tensor.dtype_name in ("int8", "int16") and not tensor.is_quantised:
        raise ModelError(
            f"input {tensor.name} is {tensor.dtype_name} without quantisation numbers: what its values mean is unknown",
            "convert it again, with quantised inputs or with float ones",
        )
    if sizes[0] not in (1, OPEN):
        raise ModelError(f"the model takes {sizes[0]} pictures at once", "convert it with a batch of 1")
    found = _in_form(tensor, sizes)
    _refuse_features(found)
    return found


def _refuse_features(picture: PictureInput) -> None:
    """Spectrograms have the form of grey pictures; what their bytes mean tells them from one."""
    tensor = picture.tensor
    if picture.channels != 1 or not tensor.is_byte or not tensor.is_quantised:
        return
    real = tensor.byte_values()
    low, high = float(real.min()), float(real.max())
    if high - low > MOST_STEPS and abs(high - low - PIXELS) > 1.0:
        raise ModelError(
            f"input {tensor.name} means {low:.3g} to {high:.3g}, which neither pixels nor normalised ones do: it takes "
            "features, such as those of sound",
            "sound models are learnt on the box: edge-runtime data learn-sound; for a picture convert it again with "
            "inputs normalised",
        )


def _in_form(tensor: Tensor, sizes: tuple[int, ...]) -> PictureInput:
    found = None
    if len(sizes) == 4 and sizes[3] in (1, 3):
        found = PictureInput(tensor, sizes[2], sizes[1], sizes[3], "nhwc")
    elif len(sizes) == 4 and sizes[1] in (1, 3):
        found = PictureInput(tensor, sizes[3], sizes[2], sizes[1], "nchw")
    elif len(sizes) == 3:
        found = PictureInput(tensor, sizes[2], sizes[1], 1, "nhwc")
    if found is None:
        raise ModelError(f"input {tensor.name} is {_shape(sizes)}, which is no grey or colour picture")
    least = SMALLEST_GREY if found.channels == 1 else SMALLEST_SIDE
    for side in (found.width, found.height):
        if side != OPEN and not least <= side <= LARGEST_SIDE:
            raise ModelError(
                f"input {tensor.name} is {_shape(sizes)}: a {'grey' if found.channels == 1 else 'colour'} picture has "
                f"sides of {least} to {LARGEST_SIDE} pixels; sound, features (MFCC) and single numbers are not packed"
            )
    return found


def _shape(sizes: tuple[int, ...]) -> str:
    return "x".join("?" if size == OPEN else str(size) for size in sizes) or "a single number"
