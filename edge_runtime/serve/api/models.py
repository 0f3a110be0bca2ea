"""What a request asks, once it is loaded: a bundle's network, a bundle's predictor, a file in a child process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.manifest import Kind
from edge_runtime.inference.tensor_sandbox import SandboxedModel
from edge_runtime.modelstore.bundle import load_bundle
from edge_runtime.predictors.predict import Predictor
from edge_runtime.predictors.vision import open_engine
from edge_runtime.serve.api.answer import Arrays, Form, form_of

Tick = Callable[[], None]


class TensorModel(Protocol):
    """Tensors in, tensors out; for one thread."""

    form: Form
    budget_s: float

    def ask(self, batches: list[Arrays], tick: Tick) -> list[Arrays]: ...

    def close(self) -> None: ...


class BundleTensors:
    """The network of a bundle in the store, in this process: its maker vouches for it, its digests hold."""

    def __init__(self, folder: Path, label: str, cfg: EdgeConfig) -> None:
        """Raises ModelError or Refusal."""
        bundle = load_bundle(folder)
        self._engine = open_engine(bundle, cfg.model)
        name, _, version = label.partition("@")
        self.form = form_of(name, version, self._engine.inputs, self._engine.outputs)
        self.budget_s = cfg.serve.invoke_s
        self._engine.warm_up(1)

    def ask(self, batches: list[Arrays], tick: Tick) -> list[Arrays]:
        """A streaming model starts anew with each request, and hears a batch as what follows one another."""
        self._engine.reset()
        outputs = []
        for arrays in batches:
            tick()
            outputs.append(self._engine.invoke(*arrays))
        return outputs

    def close(self) -> None:
        pass


class FileTensors:
    """A bare file that nobody vouches for, in a child process with limits."""

    def __init__(self, path: Path, label: str, cfg: EdgeConfig) -> None:
        """Raises ModelError or Refusal."""
        self._model = SandboxedModel(path, cfg.model.runtime, cfg.serve.invoke_s)
        name, _, version = label.partition("@")
        try:
            self._model.load()
            self.form = form_of(name, version, self._model.inputs, self._model.outputs)
        except BaseException:
            self._model.close()
            raise
        self.budget_s = self._model.within_s + 5.0  # the child is given up first

    @property
    def pid(self) -> int | None:
        return self._model.pid

    def ask(self, batches: list[Arrays], tick: Tick) -> list[Arrays]:
        return self._model.invoke(batches, tick)

    def close(self) -> None:
        self._model.close()


class BundlePredictor:
    """A bundle with all that belongs to it: the product's own judgement of one file."""

    def __init__(self, folder: Path, label: str, cfg: EdgeConfig) -> None:
        """Raises UsageError or ModelError."""
        kind = load_bundle(folder, verify=False).manifest.kind
        self.is_for_pictures = kind not in (Kind.KEYWORD, Kind.SOUND_ANOMALY)
        self._predictor = Predictor(cfg, label)
        self.budget_s = cfg.serve.invoke_s

    def file(self, path: Path) -> dict[str, Any]:
        return self._predictor.file(path)

    def close(self) -> None:
        pass
