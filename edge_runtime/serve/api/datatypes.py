"""The protocol's datatypes and numpy's, and the numbers of a JSON list as an array of exactly that type."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.inference.tensors import Tensor
from edge_runtime.serve.access.refusal import Refusal

DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(code).newbyteorder("<")
    for name, code in {
        "BOOL": "?", "UINT8": "u1", "UINT16": "u2", "UINT32": "u4", "UINT64": "u8", "INT8": "i1", "INT16": "i2",
        "INT32": "i4", "INT64": "i8", "FP16": "f2", "FP32": "f4", "FP64": "f8",
    }.items()
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
MOST_WHOLE = 2**53  # beyond, a float no longer names one whole number
BINARY_ONLY = ("FP16",)  # Triton's rule: JSON has no half precision, and both sides must mean the same bits


def datatype_of(tensor: Tensor) -> str:
    """Empty for what the protocol cannot carry as numbers, such as text."""
    return _NAMES.get(tensor.dtype, "")


def from_json(data: Any, datatype: str, shape: Sequence[int], name: str) -> NDArray[Any]:
    """The values of `data`, flat or nested as the shape says. Raises Refusal for others than the type can hold."""
    if datatype in BINARY_ONLY:
        raise Refusal(400, f"input '{name}': {datatype} goes as binary data only")
    if not isinstance(data, list):
        raise Refusal(400, f"input '{name}' has no list as data")
    try:
        found = np.asarray(data)
    except (ValueError, OverflowError) as err:
        raise Refusal(400, f"input '{name}': its data is no regular list of numbers") from err
    if found.size != math.prod(shape):
        raise Refusal(400, f"input '{name}' has {found.size} values, shape {list(shape)} needs {math.prod(shape)}")
    if found.ndim > 1 and found.shape != tuple(shape):
        raise Refusal(400, f"input '{name}': its lists are nested as {list(found.shape)}, not {list(shape)}")
    return _exactly(found, DTYPES[datatype], name).reshape(shape)


def _exactly(found: NDArray[Any], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    if found.size == 0:
        return found.astype(dtype)
    if dtype.kind == "b":
        fits = found.dtype.kind == "b" or (found.dtype.kind in "iu" and bool(np.isin(found, (0, 1)).all()))
    elif dtype.kind == "f":
        fits = found.dtype.kind in "iuf" and bool(np.abs(found.astype(np.float64)).max() <= np.finfo(dtype).max)
    else:
        limits = np.iinfo(dtype)
        whole = found.dtype.kind in "iu" or (found.dtype.kind == "O" and all(type(v) is int for v in found.flat))
        if found.dtype.kind == "f":  # 1.0 is the number 1 in JSON, and some clients write all numbers so
            whole = bool((np.isfinite(found) & (found == np.rint(found)) & (np.abs(found) < MOST_WHOLE)).all())
        fits = whole and int(found.min()) >= limits.min and int(found.max()) <= limits.max
    if not fits:
        raise Refusal(400, f"input '{name}' has values that are no {_NAMES[dtype]}")
    return found.astype(dtype)


def as_json_list(output: NDArray[Any], name: str) -> list[Any]:
    """Flat, in row order; reading it back gives the same bits. Raises Refusal for what JSON cannot say."""
    if output.dtype == np.float16:
        raise Refusal(400, f"output '{name}' is FP16, which goes as binary data only: ask with binary_data")
    if output.dtype.kind == "f" and not np.isfinite(output).all():
        raise Refusal(
            400, f"output '{name}' holds NaN or infinity, which JSON cannot carry: ask for it with binary_data"
        )
    return list(output.ravel().tolist())
