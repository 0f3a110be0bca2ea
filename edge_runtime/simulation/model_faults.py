"""Faults injected into a model: it hangs, raises, answers garbage or is slow, as the simulated line is told to."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from edge_runtime.config.schema import LineFaults
from edge_runtime.core.messages import Prediction


class ModelFaults:
    """Wraps models; the count goes on over replacements, so that a fresh model works again."""

    def __init__(self, cfg: LineFaults) -> None:
        self._cfg = cfg
        self._calls = itertools.count(1)

    def over(self, model: Callable[[Any], Prediction]) -> Callable[[Any], Prediction]:
        if not self._cfg.engine:
            return model

        def infer(image: Any) -> Prediction:
            if next(self._calls) % self._cfg.engine_fault_every:
                return model(image)
            match self._cfg.engine:
                case "hang":
                    threading.Event().wait()  # as a native call that never returns
                case "raise":
                    raise RuntimeError("simulated failure of the engine")
                case "garbage":
                    return replace(model(image), score=math.nan)
                case _:
                    time.sleep(self._cfg.engine_slow_ms / 1000)
            return model(image)

        return infer
