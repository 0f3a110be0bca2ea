"""What was seen of a model file: its tensors, what its outputs hold, and what it says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.core.errors import ModelError
from edge_runtime.inference.sandbox import Child
from edge_runtime.inference.tensors import Tensor
from edge_runtime.packing.metadata import FileNotes
from edge_runtime.process.child import Limits

CHILD = "edge_runtime.packing.look_child"
LIMITS = Limits(cpu_s=300, timeout_s=300.0)  # five runs of a model that takes seconds on a small box, and loading it

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Seen:
    """Real values of one output over inputs as different as black, white and noise.

    sums_to_one: along the last axis, as after softmax. first_columns, first_rows: range of each of the first entries of
    the last axis and of the one before, where boxes stand in a head of three axes. whole: of those that hold whole
    numbers only. changes: the size was not always that of the tensor.
    """

    low: float
    high: float
    is_finite: bool
    is_whole: bool
    sums_to_one: bool
    changes: bool
    first_columns: tuple[Range, ...] = ()
    first_rows: tuple[Range, ...] = ()
    whole_columns: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """One model file, or one signature of it. input_sizes: shapes of inputs with -1 where the file leaves them open."""

    sha256: str
    runtime: str
    signatures: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    input_sizes: tuple[tuple[int, ...], ...]
    outputs: tuple[Tensor, ...]
    output_operators: tuple[str, ...]
    seen: tuple[Seen, ...]  # one for each output; empty where it was not run
    notes: FileNotes


def look(path: Path, *, signature: str = "", input_shape: tuple[int, ...] = (), runtime: str = "auto") -> Facts:
    """Load and run a file in a child process with limits. Raises ModelError in a sentence about the file."""
    request = {
        "path": str(path.absolute()),
        "signature": signature,
        "input_shape": list(input_shape),
        "runtime": runtime,
    }
    with Child(CHILD, LIMITS) as child:
        try:
            return _facts(child.ask(request))
        except ModelError as err:
            raise ModelError(str(err).removeprefix(f"{path.absolute()}: "), err.fix) from err


def _facts(said: Mapping[str, Any]) -> Facts:
    notes: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in said["notes"].items()
    }
    return Facts(
        sha256=said["sha256"],
        runtime=said["runtime"],
        signatures=tuple(said["signatures"]),
        inputs=tuple(_tensor(about) for about in said["inputs"]),
        input_sizes=tuple(tuple(sizes) for sizes in said["input_sizes"]),
        outputs=tuple(_tensor(about) for about in said["outputs"]),
        output_operators=tuple(said["output_operators"]),
        seen=tuple(_seen(about) for about in said["seen"]),
        notes=FileNotes(**notes),
    )


def _seen(about: Mapping[str, Any]) -> Seen:
    ranges = {
        key: tuple((float(low), float(high)) for low, high in about[key]) for key in ("first_columns", "first_rows")
    }
    return Seen(**{**about, **ranges, "whole_columns": tuple(about["whole_columns"])})


def _tensor(about: Mapping[str, Any]) -> Tensor:
    """What `Tensor.describe` told, as a tensor again."""
    scales, zeros = about.get("scale", []), about.get("zero_point", [])
    is_one = not isinstance(scales, list)
    return Tensor(
        name=str(about["name"]),
        dtype=np.dtype(np.bytes_) if about["dtype"] == "string" else np.dtype(about["dtype"]),
        shape=tuple(about["shape"]),
        scales=(float(scales),) if is_one else tuple(scales),
        zero_points=(int(zeros),) if is_one else tuple(zeros),
        axis=int(about.get("axis", 0)),
    )
