"""One tensor of a model: name, dtype, shape, and the numbers that turn its integers into real values and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.errors import ModelError


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a model. real = (stored - zero_point) * scale, per tensor or per channel along `axis`.

    scales is empty where the tensor is not quantised: then stored values are the real ones.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()
    axis: int = 0

    @property
    def is_quantised(self) -> bool:
        return bool(self.scales)

    @property
    def is_byte(self) -> bool:
        return self.dtype in (np.int8, np.uint8)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    def dequantise(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Real values of this tensor's content, float32, same shape."""
        real = stored.astype(np.float32)
        if not self.scales:
            return real
        scale, zero = self._broadcast(stored.ndim)
        real -= zero
        real *= scale
        return real

    def quantise(self, real: NDArray[Any]) -> NDArray[Any]:
        """What to store for these real values: rounded half to even and clipped to the dtype's range."""
        if not self.scales:
            return real.astype(self.dtype)
        scale, zero = self._broadcast(real.ndim)
        limits = np.iinfo(self.dtype)
        stored = np.rint(np.asarray(real, np.float64) / scale) + zero
        return np.clip(stored, limits.min, limits.max).astype(self.dtype)

    def byte_values(self) -> NDArray[np.float32]:
        """Real value of each of the 256 stored bytes, indexed by the byte read as uint8. For 8-bit, per-tensor only."""
        return self.dequantise(np.arange(256, dtype=np.uint8).view(self.dtype))

    def describe(self) -> dict[str, Any]:
        """The same as JSON types."""
        about: dict[str, Any] = {"name": self.name, "dtype": self.dtype_name, "shape": list(self.shape)}
        if self.scales:
            per_channel = len(self.scales) > 1
            about["scale"] = list(self.scales) if per_channel else self.scales[0]
            about["zero_point"] = list(self.zero_points) if per_channel else self.zero_points[0]
            if per_channel:
                about["axis"] = self.axis
        return about

    @property
    def dtype_name(self) -> str:
        return "string" if self.dtype.kind in "SUO" else str(self.dtype)

    def __str__(self) -> str:
        quantisation = ""
        if len(self.scales) == 1:
            quantisation = f", scale {self.scales[0]:.6g}, zero {self.zero_points[0]}"
        elif self.scales:
            quantisation = f", {len(self.scales)} scales along axis {self.axis}"
        return f"{self.name} {self.dtype_name} {'x'.join(map(str, self.shape)) or 'scalar'}{quantisation}"

    def _broadcast(self, ndim: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        scale = np.asarray(self.scales, np.float32)
        zero = np.asarray(self.zero_points, np.float32)
        if scale.size > 1:
            along = [1] * ndim
            along[self.axis] = scale.size
            return scale.reshape(along), zero.reshape(along)
        return scale[0], zero[0]


def check_scales(*tensors: Tensor) -> None:
    """Raise ModelError for quantisation that turns every stored number into the same one, or into none.

    An infinite scale makes each score infinite or NaN, one of 0 makes each 0: both would accept every part.
    """
    for tensor in tensors:
        for scale in tensor.scales:
            if not (np.isfinite(scale) and scale > 0.0):
                raise ModelError(
                    f"{tensor.name} has a quantisation scale of {scale:g}, which must be above 0 and finite"
                )
