"""Sample pictures judged by a bundle that is not sealed for good yet, in a child process with limits."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.config.schema import ModelConfig
from edge_runtime.core.errors import ModelError
from edge_runtime.core.messages import Region
from edge_runtime.inference.sandbox import Child
from edge_runtime.modelstore.bundle import Bundle
from edge_runtime.packing.samples import Sample
from edge_runtime.process.child import Limits

CHILD = "edge_runtime.packing.judge_child"
LIMITS = Limits(cpu_s=24 * 3600, timeout_s=60.0)  # thousands of samples take as long as they take; one does not hang

Told = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Judged:
    """One sample and what the model says. fault: why it was not judged; the rest is empty then."""

    sample: Sample
    score: float = 0.0
    regions: tuple[Region, ...] = ()
    heat: NDArray[np.float32] | None = None
    fault: str = ""
    took_ms: float = 0.0  # from pixels to score


def judge_samples(
    bundle: Bundle, samples: Sequence[Sample], cfg: ModelConfig, told: Told
) -> tuple[list[Judged], list[float]]:
    """Each sample judged; and how long a few test pictures took, in ms, which are asked first to find out whether the
    model can be used as the bundle says. Raises ModelError when it cannot."""
    request = {"folder": str(bundle.folder.absolute()), "cfg": cfg.model_dump()}
    judged = []
    with Child(CHILD, LIMITS) as child:
        trial_ms = [float(took) for took in child.ask(request)["took_ms"]]
        for number, sample in enumerate(samples):
            told("judging", number, len(samples))
            try:
                judged.append(_judged(sample, child.ask({**request, "picture": str(sample.path.absolute())})))
            except ModelError as err:
                raise ModelError(f"{sample.path}: {err.what}", err.fix) from err
    return judged, trial_ms


def _judged(sample: Sample, said: Mapping[str, Any]) -> Judged:
    if "fault" in said:
        return Judged(sample, fault=str(said["fault"]))
    regions = tuple(_region(region) for region in said["regions"])
    return Judged(sample, float(said["score"]), regions, _heat(said.get("heat")), "", float(said["took_ms"]))


def _region(said: Mapping[str, Any]) -> Region:
    x, y, w, h = said["place"]
    return Region(x, y, w, h, said["score"], said["label"])


def _heat(said: Mapping[str, Any] | None) -> NDArray[np.float32] | None:
    if said is None:
        return None
    cells = np.frombuffer(base64.b64decode(said["cells"]), np.uint8).astype(np.float32) / 255.0
    return cells.reshape(said["rows"], said["columns"])
