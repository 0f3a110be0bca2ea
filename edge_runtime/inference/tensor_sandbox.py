"""A model file that nobody vouches for, asked with tensors: it lives in a child process that may die or hang.

A child that died is started again with the next request, and loads the file anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.errors import ModelError
from edge_runtime.inference.sandbox import Child
from edge_runtime.inference.tensors import Tensor
from edge_runtime.process.child import Limits

CHILD = "edge_runtime.inference.tensor_child"
START_S = 30.0  # of a child on a busy box, on top of the time of an invoke
CPU_S = 7 * 24 * 3600  # a child lives as long as its model is asked; a hang is told by its silence

_NONSENSE = (KeyError, TypeError, ValueError, OverflowError)  # a hostile file may have taken the child over

Arrays = tuple[NDArray[Any], ...]


class SandboxedModel:
    """For one thread."""

    def __init__(self, path: Path, runtime: str, invoke_s: float) -> None:
        self.path = path
        self.within_s = invoke_s + START_S
        self.inputs: tuple[Tensor, ...] = ()
        self.outputs: tuple[Tensor, ...] = ()
        self._about = {"path": str(path.absolute()), "runtime": runtime}
        self._child = Child(CHILD, Limits(cpu_s=CPU_S, timeout_s=self.within_s))

    @property
    def pid(self) -> int | None:
        return self._child.pid

    def load(self) -> None:
        """Raises ModelError."""
        answer, _ = self._child.exchange(self._about)
        try:
            self.inputs = tuple([_tensor(one) for one in answer["inputs"]])
            self.outputs = tuple([_tensor(one) for one in answer["outputs"]])
        except _NONSENSE as err:
            raise ModelError(f"the child of {self.path.name} talks nonsense: {err!r}") from err

    def invoke(self, batches: Sequence[Arrays], tick: Callable[[], None] = lambda: None) -> list[Arrays]:
        """One after the other on an interpreter that remembers nothing of earlier requests. Raises ModelError."""
        outputs: list[Arrays] = []
        for at, arrays in enumerate(batches):
            tick()
            block = b"".join([np.ascontiguousarray(array).tobytes() for array in arrays])
            answer, content = self._child.exchange({**self._about, "invoke": True, "is_first": at == 0}, block)
            try:
                outputs.append(_arrays(self.outputs, answer["shapes"], content))
            except _NONSENSE as err:
                raise ModelError(f"the child of {self.path.name} talks nonsense: {err!r}") from err
        return outputs

    def close(self) -> None:
        self._child.close()


def _arrays(tensors: Sequence[Tensor], shapes: Sequence[Sequence[int]], content: bytes) -> Arrays:
    found, at = [], 0
    for tensor, shape in zip(tensors, shapes, strict=True):
        count = int(np.prod(shape, dtype=np.int64))
        found.append(np.frombuffer(content, tensor.dtype, count, at).reshape(shape))
        at += found[-1].nbytes
    if at != len(content):
        raise ModelError(f"the child sends {len(content)} bytes for outputs of {at}")
    return tuple(found)


def _tensor(about: dict[str, Any]) -> Tensor:
    return Tensor(
        about["name"],
        np.dtype(object if about["dtype"] == "string" else about["dtype"]),
        tuple(about["shape"]),
        tuple(about["scales"]),
        tuple(about["zero_points"]),
        about["axis"],
    )
