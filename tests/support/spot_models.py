"""Networks that really find dark spots on bright pictures of 64x64, in every form in which models come.

Brightness is averaged over cells; a cell is a spot where the mean of its colours is below a half. All weights are
written by hand, so that what each model must say of a picture is known without it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.support.tflite_files import Graph, Model

SIDE = 64
STEEP = 20.0  # logit for a cell that is black; one that is white has the opposite
VALID = 1  # schema.Padding.VALID
CELL = 8


def picture(*spots: tuple[int, int], size: int = 16, ground: int = 220, side: int = SIDE) -> np.ndarray:
    """A bright picture with dark squares whose left upper corners are given. A checker of two levels, so that it has
    structure as pictures have."""
    rows, columns = np.indices((side, side))
    grey = np.where((rows // 8 + columns // 8) % 2 == 0, ground, ground - 50).astype(np.uint8)
    for x, y in spots:
        grey[y : y + size, x : x + size] = 12
    return np.ascontiguousarray(np.repeat(grey[:, :, None], 3, axis=2))


def darkness(graph: Graph, image: int, cell: int, *, is_signed: bool = False) -> tuple[int, int]:
    """Logits of each cell being dark, (1, n, n, 1), and n. The picture is 0..1, or -1..1."""
    n = SIDE // cell
    pooled = graph.then(
        "AVERAGE_POOL_2D", image, (1, n, n, 3), padding=VALID, strideW=cell, strideH=cell, filterWidth=cell,
        filterHeight=cell,
    )  # fmt: skip
    weights = graph.constant(f"w{cell}", np.full((1, 1, 1, 3), -(1 if is_signed else 2) * STEEP / 3, np.float32))
    bias = graph.constant(f"b{cell}", np.full(1, 0.0 if is_signed else STEEP, np.float32))
    made = graph.then(
        "CONV_2D", pooled, (1, n, n, 1), weights, bias, padding=VALID, strideW=1, strideH=1,
        dilationWFactor=1, dilationHFactor=1,
    )  # fmt: skip
    return made, n


def reshaped(graph: Graph, source: int, shape: tuple[int, ...]) -> int:
    wanted = graph.constant(f"shape{len(graph.raw.tensors)}", np.array(shape, np.int32))
    return graph.then("RESHAPE", source, shape, wanted, newShape=list(shape))


def joined(graph: Graph, parts: list[int], shape: tuple[int, ...], axis: int) -> int:
    made = graph.tensor(f"joined{len(graph.raw.tensors)}", shape)
    graph.add("CONCATENATION", parts, [made], axis=axis)
    return made


def turned(graph: Graph, source: int, order: tuple[int, ...], shape: tuple[int, ...]) -> int:
    wanted = graph.constant(f"order{len(graph.raw.tensors)}", np.array(order, np.int32))
    return graph.then("TRANSPOSE", source, shape, wanted)


HALF = {"uint8": (1 / 128, 128), "int8": (1 / 128, 0), "int16": (1 / 32768, 0)}  # scale, zero point: reals of -1..1


def _classifier_graph(
    graph: Graph,
    *,
    logits: bool = False,
    planar: bool = False,
    open_batch: bool = False,
    hybrid: bool = False,
    unnamed: bool = False,
    dtype: str = "float32",
    quantised: bool = True,
) -> None:
    shape = (1, 3, SIDE, SIDE) if planar else (1, SIDE, SIDE, 3)
    scale, zero = HALF.get(dtype, (None, 0)) if quantised else (None, 0)
    image = graph.input(
        "" if unnamed else "image", shape, dtype, scale=scale, zero=zero,
        open_sizes=(-1, *shape[1:]) if open_batch else None,
    )  # fmt: skip
    if planar:
        image = turned(graph, image, (0, 2, 3, 1), (1, SIDE, SIDE, 3))
    if dtype != "float32":
        image = graph.then("DEQUANTIZE" if quantised else "CAST", image, shape)
    dark, n = darkness(graph, image, CELL, is_signed=dtype != "float32")
    darkest = graph.then(
        "MAX_POOL_2D", dark, (1, 1, 1, 1), padding=VALID, strideW=n, strideH=n, filterWidth=n, filterHeight=n
    )
    flat = reshaped(graph, darkest, (1, 1))
    if hybrid:
        weights = graph.constant("w", np.array([[-64], [64]], np.int8), scale=1 / 128)
    else:
        weights = graph.constant("w", np.array([[-0.5], [0.5]], np.float32))
    bias = graph.constant("b", np.zeros(2, np.float32))
    said = graph.then("FULLY_CONNECTED", flat, (1, 2), weights, bias)
    said = said if logits else graph.then("SOFTMAX", said, (1, 2), beta=1.0)
    if unnamed:
        graph.raw.tensors[said].name = b""
    graph.outputs(said)


def classifier(**how: Any) -> bytes:
    """Labels: clean, spot. logits: without softmax; planar: NCHW; open_batch: batch of -1; hybrid: weights of 8 bits
    on float values; unnamed: input and output without a name; dtype: of the input, whose reals are then -1..1;
    quantised: False leaves away the numbers that say so."""
    model = Model()
    _classifier_graph(model.graph(), **how)
    return model.bytes()


def two_signatures() -> bytes:
    """`plain` says logits, `judge` says shares."""
    model = Model()
    for key, logits in (("plain", True), ("judge", False)):
        graph = model.graph()
        _classifier_graph(graph, logits=logits)
        model.signature(key, graph)
    return model.bytes()


def heat_map() -> bytes:
    model = Model()
    graph = model.graph()
    dark, n = darkness(graph, graph.input("image", (1, SIDE, SIDE, 3)), 4)
    graph.outputs(graph.then("LOGISTIC", dark, (1, n, n, 1)))
    return model.bytes()


def segments(*, as_map: bool = False, planar: bool = False) -> bytes:
    """Labels: background, spot; logits of each, or the number of the larger."""
    model = Model()
    graph = model.graph()
    dark, n = darkness(graph, graph.input("image", (1, SIDE, SIDE, 3)), 4)
    weights = graph.constant("w", np.array([-0.5, 0.5], np.float32).reshape(2, 1, 1, 1))
    bias = graph.constant("b", np.zeros(2, np.float32))
    both = graph.then(
        "CONV_2D", dark, (1, n, n, 2), weights, bias, padding=VALID, strideW=1, strideH=1, dilationWFactor=1,
        dilationHFactor=1,
    )  # fmt: skip
    if as_map:
        axis = graph.constant("axis", np.array(3, np.int32))
        made = graph.tensor("numbers", (1, n, n), "int64")
        graph.add("ARG_MAX", [both, axis], [made], outputType=4)  # schema.TensorType.INT64
        graph.outputs(made)
    else:
        graph.outputs(turned(graph, both, (0, 3, 1, 2), (1, 2, n, n)) if planar else both)
    return model.bytes()


STRIDES = (8, 16, 32)


def yolo(version: int, labels: int = 2, *, pixels: bool = False, open_sizes: bool = False) -> bytes:
    """A head over cells of 8, 16 and 32 pixels. Label 1 is what is dark; other labels are never found.

    version 8: (1, 4 + labels, cells); version 5: (1, 3 * cells, 5 + labels), three boxes at each place.
    """
    model = Model()
    graph = model.graph()
    shape = (1, SIDE, SIDE, 3)
    image = graph.input("images", shape, open_sizes=(-1, *shape[1:]) if open_sizes else None)
    repeat, parts, boxes = (3 if version == 5 else 1), [], []
    for cell in STRIDES:
        dark, n = darkness(graph, image, cell)
        found = graph.then("LOGISTIC", reshaped(graph, dark, (1, n * n, 1)), (1, n * n, 1))
        never = graph.constant(f"never{cell}", np.zeros((1, n * n, 1), np.float32))
        columns = [never, found] + [never] * (labels - 2)
        if version == 5:
            columns = [graph.constant(f"object{cell}", np.ones((1, n * n, 1), np.float32)), *columns]
        parts += [joined(graph, columns, (1, n * n, len(columns)), 2)] * repeat
        boxes += [_cells(cell, 1.0 if pixels else SIDE)] * repeat
    rows, width = sum(len(box) for box in boxes), labels + (1 if version == 5 else 0)
    scores = joined(graph, parts, (1, rows, width), 1)
    places = graph.constant("places", np.concatenate(boxes)[None].astype(np.float32))
    head = joined(graph, [places, scores], (1, rows, 4 + width), 2)
    graph.outputs(turned(graph, head, (0, 2, 1), (1, 4 + width, rows)) if version == 8 else head)
    return model.bytes()


def yolo_sorted(*, labels_first: bool = False) -> bytes:
    """A head after NMS, (1, 4, 6): a spot at the place of each quarter, with its score, and label 1."""
    model = Model()
    graph = model.graph()
    dark, n = darkness(graph, graph.input("images", (1, SIDE, SIDE, 3)), 32)
    found = graph.then("LOGISTIC", reshaped(graph, dark, (1, n * n, 1)), (1, n * n, 1))
    middle = _cells(32, SIDE)
    corners = np.concatenate([middle[:, :2] - middle[:, 2:] / 2, middle[:, :2] + middle[:, 2:] / 2], axis=1)
    places = graph.constant("places", corners[None].astype(np.float32))
    label = graph.constant("label", np.ones((1, n * n, 1), np.float32))
    columns = [places, label, found] if labels_first else [places, found, label]
    graph.outputs(joined(graph, columns, (1, n * n, 6), 2))
    return model.bytes()


def _cells(cell: int, whole: float) -> np.ndarray:
    """x, y, w, h of every cell, in shares of `whole` pixels."""
    n = SIDE // cell
    middle = (np.arange(n) + 0.5) * cell
    x, y = np.meshgrid(middle, middle)
    size = np.full(n * n, float(cell))
    return np.stack([x.ravel(), y.ravel(), size, size], axis=1) / whole


def ssd(*, raw: bool = False) -> bytes:
    """Cells of 16 pixels through TFLite_Detection_PostProcess, one label: spot. raw: without the operator."""
    model = Model()
    graph = model.graph()
    dark, n = darkness(graph, graph.input("image", (1, SIDE, SIDE, 3)), 16)
    count = n * n
    found = graph.then("LOGISTIC", reshaped(graph, dark, (1, count, 1)), (1, count, 1))
    ground = graph.constant("ground", np.zeros((1, count, 1), np.float32))
    scores = joined(graph, [ground, found], (1, count, 2), 2)
    offsets = graph.constant("offsets", np.zeros((1, count, 4), np.float32))
    if raw:
        graph.outputs(offsets, scores)
        return model.bytes()
    anchors = graph.constant("anchors", _cells(16, SIDE)[:, [1, 0, 3, 2]].astype(np.float32))
    outs = [
        graph.tensor(f"post{index}", shape) for index, shape in enumerate([(1, count, 4), (1, count), (1, count), (1,)])
    ]
    options = {
        "max_detections": count, "max_classes_per_detection": 1, "nms_score_threshold": 0.05, "nms_iou_threshold": 0.6,
        "num_classes": 1, "y_scale": 10.0, "x_scale": 10.0, "h_scale": 5.0, "w_scale": 5.0, "use_regular_nms": False,
    }  # fmt: skip
    graph.add_custom("TFLite_Detection_PostProcess", [offsets, scores, anchors], outs, options)
    graph.outputs(*outs)
    return model.bytes()


def killer() -> bytes:
    """A graph that calls itself: the runtime follows it until its stack ends."""
    model = Model()
    for _ in range(3):
        graph = model.graph()
        image = graph.input("image", (1, SIDE, SIDE, 3))
        made = graph.tensor("made", (1, SIDE, SIDE, 3))
        always = graph.constant("always", np.array([True]))
        graph.add("IF", [always, image], [made], thenSubgraphIndex=1, elseSubgraphIndex=2)
        graph.outputs(made)
    return model.bytes()
