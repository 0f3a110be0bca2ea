"""One bundle put to work on pictures: prepare -> invoke -> decode, with the time of each.

Used by the line, by `predict`, by `models teach` and by the benches, so that all of them say the same about the same
picture. Overhead over the same loop written out by hand: 0.01 ms a picture (tools/bench/engine).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_runtime.config.schema import ModelConfig
from edge_runtime.core.errors import ModelError
from edge_runtime.core.manifest import InputSpec, Kind, OutputSpec
from edge_runtime.core.messages import Prediction, Region
from edge_runtime.features.image import Geometry, Prepare, input_shape
from edge_runtime.features.picture_validity import PictureGate
from edge_runtime.inference.decoders import make_decoder
from edge_runtime.inference.double_activation import refuse_double_activation, refuse_shares
from edge_runtime.inference.engine import Engine
from edge_runtime.inference.findings import WHOLE, Box, Decoder, Finding, Outputs, as_score
from edge_runtime.inference.heatmap import find_regions, without_padding
from edge_runtime.inference.tensors import Tensor, check_scales
from edge_runtime.modelstore.bundle import MEMORY, MODEL, Bundle

PICTURE_KINDS = (Kind.CLASSIFICATION, Kind.HEATMAP, Kind.DETECTION, Kind.SEGMENTATION, Kind.ANOMALY)
ACTIVATED_KINDS = (Kind.CLASSIFICATION, Kind.HEATMAP, Kind.SEGMENTATION)
LEAST_SHARE = 8  # a picture smaller than an eighth of the model's input holds nothing that the model could know
MOST_CELLS = 1024  # rows or columns of a heat map that is laid out over the whole frame


def open_vision_model(bundle: Bundle, cfg: ModelConfig | None = None) -> VisionModel:
    """Load a bundle's model, check it against its manifest, warm it up. Raises ModelError in one sentence.

    cfg: runtime, threads, delegate and warm_up are used; None takes the defaults.
    """
    cfg = cfg or ModelConfig()
    if bundle.manifest.kind not in PICTURE_KINDS:
        raise ModelError(f"{bundle.label} is of kind {bundle.manifest.kind}, it does not judge pictures")
    engine = open_engine(bundle, cfg)
    try:
        model = VisionModel(bundle, engine)
        model.refuse_second_activation()
    except ModelError as err:
        raise ModelError(f"{bundle.label}: {err.what}", err.fix) from err
    engine.warm_up(cfg.warm_up)
    return model


def picture_gate(bundle: Bundle) -> PictureGate:
    """What asks, before this bundle's model, whether a picture shows anything that it could judge."""
    return PictureGate(bundle.manifest.input, bundle.manifest.reference)


def open_engine(bundle: Bundle, cfg: ModelConfig | None = None) -> Engine:
    """The bundle's model on an engine, as the station's settings say. Not warmed up."""
    cfg = cfg or ModelConfig()
    engine = Engine(
        bundle.model_path,
        threads=cfg.threads,
        delegate=cfg.delegate,
        runtime=cfg.runtime,
        sha256=bundle.manifest.files[MODEL],
        signature=bundle.manifest.signature,
        input_shape=input_shape(bundle.manifest.input) if bundle.manifest.input else (),
    )
    check_scales(*engine.inputs, *engine.outputs)
    return engine


class VisionModel:
    """Picture in, prediction out. For one thread at a time."""

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self.bundle = bundle
        self.engine = engine
        self.label = bundle.label
        self.prepare = make_prepare(bundle.manifest.input, engine.inputs)
        self._decode = FrameDecoder(bundle, engine.outputs)

    def __call__(self, image: NDArray[np.uint8]) -> Prediction:
        """image: uint8 RGB (height, width, 3), any size. Raises ModelError when the model gives no sensible answer."""
        t0 = time.perf_counter_ns()
        refuse_tiny(image, self.prepare.spec)
        tensor, geometry = self.prepare(image)
        t1 = time.perf_counter_ns()
        outputs = self.engine.invoke(tensor)
        t2 = time.perf_counter_ns()
        finding = self._decode(outputs, geometry)
        t3 = time.perf_counter_ns()
        return Prediction(
            model=self.label,
            score=finding.score,
            scores=finding.scores,
            regions=finding.regions,
            heat=finding.heat,
            timings_ms={"prepare": (t1 - t0) / 1e6, "invoke": (t2 - t1) / 1e6, "decode": (t3 - t2) / 1e6},
        )

    def refuse_second_activation(self) -> None:
        """Raise ModelError when the network does already what `output.activation` asks for; four invokes."""
        spec, kind = self.bundle.manifest.output, self.bundle.manifest.kind
        if spec is None or spec.activation == "none" or kind not in ACTIVATED_KINDS:
            return
        refuse_double_activation(self.engine, spec.activation)
        raw = []
        for picture in trial_pictures(self.prepare.spec):
            outputs = self.engine.invoke(self.prepare(picture)[0])
            raw += [tensor.dequantise(output) for tensor, output in zip(self.engine.outputs, outputs, strict=True)]
        refuse_shares(raw, spec.activation)

    def refuse_tiny(self, image: NDArray[np.uint8]) -> None:
        """Raises ModelError for a picture that is too small for this model, as a call would."""
        refuse_tiny(image, self.prepare.spec)


class FrameDecoder:
    """Outputs of a bundle's model, wherever it ran, to what they say of the frame. For one thread at a time."""

    def __init__(self, bundle: Bundle, outputs: Sequence[Tensor]) -> None:
        """Raises ModelError when these are no outputs of such a bundle."""
        if bundle.manifest.output is None:
            raise ModelError("manifest.toml has no [output]; a picture model needs one")
        self._decode = _make_decoder(bundle, outputs, bundle.manifest.output)
        self._layout: _HeatLayout | None = None

    def __call__(self, outputs: Outputs, geometry: Geometry) -> Finding:
        """Regions and heat lie on the frame; heat is read-only. Raises ModelError when it is no sensible answer."""
        finding = self._decode(outputs, geometry.content)
        regions, heat = finding.regions, finding.heat
        if not geometry.is_whole:
            regions = tuple([_on_frame(region, geometry) for region in regions])
            heat = self._heat_on_frame(heat, geometry)
        if heat is not None:
            heat.flags.writeable = False
        return Finding(finding.score, finding.scores, regions, heat)

    def _heat_on_frame(self, heat: NDArray[np.float32] | None, geometry: Geometry) -> NDArray[np.float32] | None:
        if heat is None:
            return None
        if self._layout is None or (self._layout.geometry, self._layout.cells) != (geometry, heat.shape):
            self._layout = _HeatLayout(geometry, heat.shape)
        return self._layout(heat)


class FeatureModel:
    """Picture in, feature maps out: a frozen backbone, for learning from good parts."""

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self.bundle = bundle
        self.engine = engine
        self.prepare = make_prepare(bundle.manifest.input, engine.inputs)

    def __call__(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        """One float32 array (rows, columns, channels) for each output."""
        refuse_tiny(image, self.prepare.spec)
        tensor, _ = self.prepare(image)
        return feature_maps(self.engine.outputs, self.engine.invoke(tensor))


def trial_pictures(spec: InputSpec) -> list[NDArray[np.uint8]]:
    """Pictures as different as can be: black, white, two kinds of noise."""
    shape = (spec.height, spec.width, 3)
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 256, (8, 8, 3), np.uint8)
    rows, columns = np.arange(shape[0]) * 8 // shape[0], np.arange(shape[1]) * 8 // shape[1]
    return [
        np.zeros(shape, np.uint8),
        np.full(shape, 255, np.uint8),
        draw.integers(0, 256, shape, np.uint8),
        np.ascontiguousarray(coarse[rows][:, columns]),
    ]


def refuse_tiny(image: NDArray[np.uint8], spec: InputSpec) -> None:
    """A picture that shows nothing is not a good part: "nothing to see" must not become "nothing found"."""
    height, width = image.shape[:2]
    if LEAST_SHARE * height * spec.roi[3] < spec.height or LEAST_SHARE * width * spec.roi[2] < spec.width:
        raise ModelError(
            f"a picture of {width}x{height} is too small to be judged by a model of {spec.width}x{spec.height}"
        )


def make_prepare(spec: InputSpec | None, inputs: Sequence[Tensor]) -> Prepare:
    """Preparation for a model with one picture input."""
    if spec is None:
        raise ModelError("manifest.toml has no [input]; a picture model needs one")
    if len(inputs) != 1:
        raise ModelError(f"the model has {len(inputs)} inputs, a picture model has one")
    tensor = inputs[0]
    if len(tensor.scales) > 1:
        raise ModelError(f"input {tensor.name} is quantised per channel, which no picture input is")
    scale, zero = (tensor.scales[0], tensor.zero_points[0]) if tensor.scales else (0.0, 0)
    return Prepare(spec, tensor.shape, tensor.dtype, scale, zero)


def feature_maps(tensors: Sequence[Tensor], outputs: Outputs) -> tuple[NDArray[np.float32], ...]:
    """Outputs as real values, (rows, columns, channels) each; a pooled vector is a map of one cell."""
    maps = []
    for tensor, output in zip(tensors, outputs, strict=True):
        real = tensor.dequantise(output)
        if not tensor.is_quantised and not np.isfinite(real).all():
            raise ModelError(f"output {tensor.name} holds values that are no numbers (NaN or infinite)")
        maps.append(real.reshape(real.shape[1:] if real.ndim == 4 else (1, 1, -1)))
    return tuple(maps)


class _Scorer(Protocol):
    def score(self, maps: tuple[NDArray[np.float32], ...]) -> Any: ...


class _AnomalyDecoder:
    """Feature maps against what was learnt from good parts."""

    def __init__(self, tensors: Sequence[Tensor], scorer: _Scorer, spec: OutputSpec) -> None:
        self._tensors = tensors
        self._scorer = scorer
        self._spec = spec

    def __call__(self, outputs: Outputs, content: Box = WHOLE) -> Finding:
        said = self._scorer.score(feature_maps(self._tensors, outputs))
        label = self._spec.labels[0]
        score = as_score(float(said.score), f"label {label!r}")
        if said.heat is None:
            return Finding(score, {label: score})
        heat = np.clip(np.asarray(said.heat, np.float32), 0.0, 1.0)
        if content != WHOLE:
            heat = without_padding(heat, content)
        return Finding(score, {label: score}, tuple(find_regions(heat, self._spec.region_at, label)), heat)


def _make_decoder(bundle: Bundle, outputs: Sequence[Tensor], spec: OutputSpec) -> Decoder:
    if bundle.manifest.kind is not Kind.ANOMALY:
        return make_decoder(bundle.manifest.kind, outputs, spec)
    from edge_runtime.inference.anomaly import AnomalyModel

    return _AnomalyDecoder(outputs, AnomalyModel.load(bundle.folder / MEMORY), spec)


class _HeatLayout:
    """Which cell of the model's heat map lies under each cell of a heat map of the whole frame."""

    def __init__(self, geometry: Geometry, cells: tuple[int, ...]) -> None:
        self.geometry = geometry
        self.cells = cells
        self._rows, inside_y = _cells_under(geometry.y0, geometry.span_y, cells[0], geometry.content[1::2])
        self._columns, inside_x = _cells_under(geometry.x0, geometry.span_x, cells[1], geometry.content[0::2])
        self._inside = (inside_y[:, None] & inside_x).astype(np.float32)

    def __call__(self, heat: NDArray[np.float32]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = heat[self._rows[:, None], self._columns] * self._inside
        return result


def _cells_under(
    start: float, span: float, cells: int, content: Sequence[float]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    count = min(max(round(cells / span), 1), MOST_CELLS)
    on_model = ((np.arange(count) + 0.5) / count - start) / span
    inside = (on_model >= content[0]) & (on_model <= content[1])
    return np.clip((on_model * cells).astype(np.intp), 0, cells - 1), inside


def _on_frame(region: Region, geometry: Geometry) -> Region:
    left, top = geometry.to_frame(region.x, region.y)
    right, bottom = geometry.to_frame(region.x + region.w, region.y + region.h)
    left, right = min(max(left, 0.0), 1.0), min(max(right, 0.0), 1.0)
    top, bottom = min(max(top, 0.0), 1.0), min(max(bottom, 0.0), 1.0)
    return Region(left, top, right - left, bottom - top, region.score, region.label)
