"""Who judges a recorded part again: the very model that judged it then, with its thresholds and its look at pictures.

A run may have seen several models: a promotion and a rollback change the one at work between two parts. Each row of the
journal has the label and the digest of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_runtime.config.schema import CheckPictures, EdgeConfig
from edge_runtime.core.errors import ModelError
from edge_runtime.core.messages import Prediction
from edge_runtime.decision.policy import Policy, station_policy
from edge_runtime.inference.native_noise import native_noise_hidden
from edge_runtime.modelstore.store import ModelStore
from edge_runtime.predictors.vision import open_vision_model, picture_gate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_runtime.modelstore.bundle import Bundle

Model = Callable[["NDArray[np.uint8]"], Prediction]
Gate = Callable[["NDArray[np.uint8]"], str]


@dataclass(frozen=True, slots=True)
class Judge:
    """gate: what is wrong with a picture, asked before the model as on the line."""

    label: str
    model: Model
    policy: Policy
    gate: Gate = lambda _: ""


def open_judge(bundle: Bundle, settings: EdgeConfig) -> Judge:
    """settings: of the run that is judged again. Raises ModelError."""
    with native_noise_hidden():
        model = open_vision_model(bundle, settings.model)
    checks = settings.camera.check_pictures is not CheckPictures.OFF
    policy = station_policy(settings.decision, bundle.manifest)
    return Judge(bundle.label, model, policy, picture_gate(bundle) if checks else lambda _: "")


class Judges:
    """By label and digest, each opened once."""

    def __init__(self, store: ModelStore, settings: EdgeConfig) -> None:
        self._store, self._settings = store, settings
        self._found: dict[tuple[str, str], Judge | str] = {}

    def of(self, label: str, digest: str) -> Judge | str:
        """The judge, or why there is none. An empty digest, of rows that have none, takes any bundle of that label."""
        if (label, digest) not in self._found:
            self._found[label, digest] = self._open(label, digest)
        return self._found[label, digest]

    def _open(self, label: str, digest: str) -> Judge | str:
        name, _, version = label.partition("@")
        try:
            return open_judge(self._store.open_exactly(name, version, digest), self._settings)
        except ModelError as err:
            return f"judged by {label} {digest[:12]}".rstrip() + f": {err.what}"
