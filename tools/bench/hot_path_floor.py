"""The floor of `hot_path`: what a person writes who has one model, one camera and no factory.

No classes of the product on the way of a picture: cv2 and numpy by hand, the bare interpreter, a comparison. Only the
manifest is read by the product's code, and a taught bundle's memory is scored by its own function, because that is
arithmetic that any program around such a model has to do. It runs in a process of its own, so that no thread of the
line disturbs it, and paces itself as the line's camera does.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_runtime.commissioning.bench_line import Schedule, sleep_until
from edge_runtime.commissioning.bench_models import feature_score
from edge_runtime.core.clock import SECOND, monotonic_ns
from edge_runtime.core.manifest import Kind
from edge_runtime.flow.priority import run_promptly
from edge_runtime.inference.anomaly import AnomalyModel
from edge_runtime.modelstore.bundle import MEMORY, Bundle, load_bundle

WARM_UP = 40  # Python runs code faster after the first dozen times; the line has its ramp before it is measured

Loop = Callable[[Any], tuple[float, str]]


def serve(frames_file: str, bundle_folder: str, pipe: Connection) -> None:
    """Main function of the floor's process: says how many ms it takes, then runs one schedule for each request."""
    cv2.setNumThreads(1)
    frames = np.load(frames_file, mmap_mode="r")
    loop = bare_loop(load_bundle(bundle_folder), frames.shape[1:])
    warm_ms = []
    for number in range(WARM_UP):
        begun = time.perf_counter()
        loop(frames[number % len(frames)])
        warm_ms.append((time.perf_counter() - begun) * 1e3)
    gc.collect()
    gc.freeze()
    run_promptly()  # the line's threads do, so its floor does too
    pipe.send(float(np.median(warm_ms)))
    while True:
        schedule, started_ns = pipe.recv()
        pipe.send("running")
        outcome = run(loop, frames, schedule, started_ns) | {"rss_mb": rss_without(Path(frames_file))}
        pipe.recv()
        pipe.send(outcome)


def run(loop: Loop, frames: np.ndarray, schedule: Schedule, started_ns: int) -> dict[str, Any]:
    """Every part of a schedule in the floor's turns: milliseconds, score and verdict of each."""
    took_ms, said = [], []
    before = time.process_time()
    for index in range(schedule.parts):
        sleep_until(started_ns + round(schedule.frame_s(index, is_line=False) * SECOND))
        handed_ns = monotonic_ns()
        answer = loop(frames[index % len(frames)])
        took_ms.append((monotonic_ns() - handed_ns) / 1e6)
        said.append(answer)
    return {"ms": took_ms, "said": said, "cpu_s": time.process_time() - before}


def rss_without(mapped: Path) -> float:
    """Resident MB of this process without the pages of a file that it has mapped: frames come from a camera."""
    resident_kb, is_mapped = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        key, *words = line.split()
        if not key.endswith(":"):
            is_mapped = bool(words) and words[-1] == str(mapped)
        elif key == "Rss:" and not is_mapped:
            resident_kb += int(words[0])
    return round(resident_kb * 1024 / 1e6, 1)


def bare_loop(bundle: Bundle, shape: tuple[int, ...]) -> Loop:
    """frame -> (score, verdict), written out for one kind of model."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(bundle.model_path), num_threads=1)
    interpreter.allocate_tensors()
    source, *_ = interpreter.get_input_details()
    sinks = interpreter.get_output_details()
    to_tensor = _preparation(bundle, source, shape)
    to_score = _decoding(bundle, sinks)
    accept_below, reject_at = bundle.manifest.thresholds.accept_below, bundle.manifest.thresholds.reject_at
    source_id, sink_ids = source["index"], [sink["index"] for sink in sinks]

    def loop(frame: np.ndarray) -> tuple[float, str]:
        interpreter.set_tensor(source_id, to_tensor(frame))
        interpreter.invoke()
        score = to_score([interpreter.get_tensor(sink_id) for sink_id in sink_ids])
        return score, "accept" if score < accept_below else "reject" if score >= reject_at else "unsure"

    return loop


def _preparation(bundle: Bundle, source: dict[str, Any], shape: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
    """Crop, shrink and quantise frames of one size into one buffer."""
    spec = bundle.manifest.input
    assert spec and spec.colour == "rgb" and spec.pad == "black" and spec.layout == "nhwc"
    assert isinstance(spec.scale, float) and isinstance(spec.offset, float)
    rows, columns = shape[:2]
    x, y, w, h = spec.roi
    left, top = round(x * columns), round(y * rows)
    right, bottom = left + round(w * columns), top + round(h * rows)
    factor = min(spec.width / (right - left), spec.height / (bottom - top), 1.0)
    is_stretch = spec.fit == "stretch"
    width = spec.width if is_stretch else round((right - left) * factor)
    height = spec.height if is_stretch else round((bottom - top) * factor)
    at_x, at_y = (spec.width - width) // 2, (spec.height - height) // 2
    steps = _shrinking(right - left, bottom - top, width, height)
    canvas = np.zeros((1, spec.height, spec.width, 3), np.uint8)
    scale, zero = source["quantization"]
    real = np.arange(256) * spec.scale + spec.offset
    limits = np.iinfo(source["dtype"])
    table = np.clip(np.rint(real / scale) + zero, limits.min, limits.max).astype(source["dtype"]).view(np.uint8)
    is_xor = bool((table == np.arange(256, dtype=np.uint8) ^ 0x80).all())
    tensor = np.empty_like(canvas)

    def to_tensor(frame: np.ndarray) -> np.ndarray:
        picture = frame[top:bottom, left:right]
        for size, how in steps:
            picture = cv2.resize(picture, size, interpolation=how)
        canvas[0, at_y : at_y + height, at_x : at_x + width] = picture
        if is_xor:
            np.bitwise_xor(canvas, 0x80, out=tensor)
        else:
            cv2.LUT(canvas[0], table, dst=tensor[0])
        return tensor.view(source["dtype"])

    return to_tensor


def _shrinking(columns: int, rows: int, width: int, height: int) -> list[tuple[tuple[int, int], int]]:
    """Halve by area while that fits, then linear: the cheapest way that keeps thin scratches."""
    steps = []
    while columns >= 2 * width and rows >= 2 * height and (columns * rows > 65_536 or columns == 2 * width):
        columns, rows = columns // 2, rows // 2
        steps.append(((columns, rows), cv2.INTER_AREA))
    if (columns, rows) != (width, height):
        ratio = max(columns / width, rows / height)
        is_area = ratio > 1.75 or (ratio > 1.0 and columns * rows <= 65_536)
        steps.append(((width, height), cv2.INTER_AREA if is_area else cv2.INTER_LINEAR))
    return steps


def _decoding(bundle: Bundle, sinks: list[dict[str, Any]]) -> Callable[[list[np.ndarray]], float]:
    manifest = bundle.manifest
    if manifest.kind is Kind.FEATURES:
        return lambda outputs: feature_score(_real_maps(sinks, outputs))
    if manifest.kind is Kind.ANOMALY:
        scorer = AnomalyModel.load(bundle.folder / MEMORY)
        return lambda outputs: float(scorer.score(tuple(_real_maps(sinks, outputs))).score)
    output = manifest.output
    assert output
    scale, zero = sinks[0]["quantization"]
    table = (np.arange(256, dtype=np.uint8).view(sinks[0]["dtype"]).astype(np.float32) - zero) * scale
    if output.activation == "sigmoid":
        table = 1.0 / (1.0 + np.exp(-table))
    if manifest.kind is Kind.CLASSIFICATION:
        bad = [output.labels.index(label) for label in output.defect_labels] or range(len(output.labels))
        columns = np.array(bad)
        return lambda outputs: float(table[outputs[0].view(np.uint8)].ravel()[columns].max())
    assert manifest.kind is Kind.HEATMAP and len(output.labels) == 1
    a, b = output.calibration or (0.0, 0.0)
    top_k = output.top_k

    def hottest(outputs: list[np.ndarray]) -> float:
        heat = table[outputs[0].view(np.uint8)].ravel()
        raw = float(np.partition(heat, heat.size - top_k)[-top_k:].mean())
        return 1.0 / (1.0 + math.exp(-(a * raw + b))) if output.calibration else raw

    return hottest


def _real_maps(sinks: list[dict[str, Any]], outputs: list[np.ndarray]) -> list[np.ndarray]:
    maps = []
    for sink, stored in zip(sinks, outputs, strict=True):
        scale, zero = sink["quantization"]
        real = stored.astype(np.float32)
        real -= zero
        real *= scale
        maps.append(real.reshape(real.shape[1:] if real.ndim == 4 else (1, 1, -1)))
    return maps
