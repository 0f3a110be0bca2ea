"""Which decoder reads which kind of model."""

from __future__ import annotations

from collections.abc import Sequence

from edge_runtime.core.errors import ModelError
from edge_runtime.core.manifest import Kind, OutputSpec
from edge_runtime.inference.boxes import BoxDecoder
from edge_runtime.inference.classes import ClassDecoder
from edge_runtime.inference.findings import Decoder
from edge_runtime.inference.heatmap import HeatmapDecoder
from edge_runtime.inference.segments import SegmentDecoder
from edge_runtime.inference.tensors import Tensor
from edge_runtime.inference.yolo import EndToEndDecoder, YoloDecoder


def make_decoder(kind: Kind, outputs: Sequence[Tensor], spec: OutputSpec) -> Decoder:
    """The decoder for this kind. Raises ModelError when the model's outputs are not what the spec declares."""
    if unknown := set(spec.defect_labels) - set(spec.labels):
        raise ModelError(f"output.defect_labels has {sorted(unknown)[0]!r}, which is none of output.labels")
    if spec.calibration is not None and kind is not Kind.HEATMAP:
        raise ModelError(f"output.calibration is for heat maps, this model is of kind {kind}")
    match kind:
        case Kind.CLASSIFICATION:
            return ClassDecoder(outputs, spec)
        case Kind.HEATMAP:
            return HeatmapDecoder(outputs, spec)
        case Kind.DETECTION:
            return _box_decoder(outputs, spec)
        case Kind.SEGMENTATION:
            return SegmentDecoder(outputs, spec)
        case _:
            raise ModelError(f"a model of kind {kind} does not judge pictures by itself")


def _box_decoder(outputs: Sequence[Tensor], spec: OutputSpec) -> Decoder:
    match spec.boxes:
        case "postprocess":
            return BoxDecoder(outputs, spec)
        case "nms":
            return EndToEndDecoder(outputs, spec)
        case _:
            return YoloDecoder(outputs, spec)
