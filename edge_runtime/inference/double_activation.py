"""Is the activation that a bundle declares done inside the network already?

A network that ends in softmax and is given a second one says 0.27 to 0.73 for two classes whatever it sees: with a
threshold of 0.8 it accepts every part, its golden pictures, made by the same mistake, agree, and nothing looks wrong.
Three ways to tell, since networks are exported in many forms: the operator that makes the output, the range that a
quantised output can hold, and how the raw outputs of very different inputs lie. Logits do none of the three.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.errors import ModelError
from edge_runtime.inference.engine import Engine
from edge_runtime.inference.tensors import Tensor

ENDS = {"SOFTMAX": "softmax", "LOGISTIC": "sigmoid"}  # as TFLite names them
ROUNDING = 0.01  # an 8-bit softmax ends at 0.996 or 1.004
SUM_ROUNDING = 0.05  # of a few classes, each rounded to 1/256


def refuse_double_activation(engine: Engine, activation: str) -> None:
    """By the graph and by what its outputs can hold. Raises ModelError in a sentence."""
    if activation == "none":
        return
    for operator in engine.output_operators():
        if operator in ENDS:
            raise ModelError(_sentence(f"ends in {ENDS[operator]}", activation))
    for tensor in engine.outputs:
        if _holds_shares_only(tensor):
            raise ModelError(_sentence("has an output that can hold 0 to 1 only", activation))


def refuse_shares(raw: Sequence[NDArray[Any]], activation: str) -> None:
    """By behaviour. raw: dequantised outputs for inputs as different as black, white and noise. Raises ModelError."""
    if activation == "none" or not raw:
        return
    if not all(_are_shares(values) for values in raw):
        return
    if all(np.allclose(values.sum(axis=-1), 1.0, atol=SUM_ROUNDING) for values in raw):
        raise ModelError(_sentence("gives outputs that add up to 1, as after softmax", activation))
    raise ModelError(_sentence("gives outputs between 0 and 1 whatever it sees, as after sigmoid", activation))


def _sentence(what: str, activation: str) -> str:
    return f"the network {what}, and output.activation = '{activation}' would be a second one; set it to 'none'"


def _holds_shares_only(tensor: Tensor) -> bool:
    if not (tensor.is_byte and len(tensor.scales) == 1):
        return False
    return _are_shares(tensor.byte_values())


def _are_shares(values: NDArray[Any]) -> bool:
    return bool(values.size and values.min() >= -ROUNDING and values.max() <= 1.0 + ROUNDING)
