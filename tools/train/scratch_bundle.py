"""What `tools/train/scratch` publishes: the model file with manifest, card and golden pictures, sealed by the
product's own code."""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
import shutil
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scratch_data import GOLDEN_STATION, HELD_BACK_STATIONS, INPUT_SPEC
from scratch_judge import STOP_SHARE, SURE_SHARE, TOP_K, Floats, Judged, Limits, auroc, error_rates

from edge_runtime.core.manifest import Kind
from edge_runtime.features.image import brightness
from edge_runtime.features.picture_validity import picture_reference
from edge_runtime.modelstore.bundle import Bundle, load_bundle, seal_bundle
from edge_runtime.predictors.golden import add_golden
from edge_runtime.predictors.vision import open_vision_model
from edge_runtime.simulation import phone_body, phone_defects, phone_ink, phone_scene
from edge_runtime.simulation.phone_scene import SceneConfig, render_phone

LABEL = "scratch"
HISTOGRAM_BINS = 20
BRIGHTNESS_PARTS = 60
PICTURE_PARTS = 120  # each of a station of its own, for what a valid picture looks like
GOLDEN_TOLERANCE = 0.1  # another runtime moved the image score of such a network by up to 0.105 and flipped no decision
GOLDEN_PARTS = {  # file stem -> what to draw; small pictures, for a bundle that stays under a megabyte
    "good": SceneConfig(320, 180, scratch_share=0.0, oil_share=0.0, stain_share=0.0),
    "good_tiny": SceneConfig(256, 144, scratch_share=0.0, oil_share=0.0, stain_share=0.0),
    "oil": SceneConfig(320, 180, scratch_share=0.0, oil_share=1.0, stain_share=0.0),
    "stain": SceneConfig(320, 180, scratch_share=0.0, oil_share=0.0, stain_share=1.0),
    "hairline": SceneConfig(640, 360, scratch_share=1.0, oil_share=0.0, severity_mix=(1.0, 0.0, 0.0, 0.0)),
    "deep": SceneConfig(320, 180, scratch_share=1.0, oil_share=0.0, severity_mix=(0.0, 0.0, 0.0, 1.0)),
}


@dataclass(frozen=True, slots=True)
class Result:
    """All that was measured. aurocs: by "float.<seed>" and "int8.<seed>" on held-back parts; tested: "float" and
    "int8"."""

    best_seed: int
    aurocs: dict[str, float]
    limits: Limits
    held_back: Judged
    tested: dict[str, Judged]
    recipe: str  # digest of the code that drew and trained
    photos: Path | None = None
    minutes: float = 0.0

    def rates(self, name: str) -> dict[str, float]:
        return error_rates(self.tested[name], self.limits)

    def metrics(self) -> dict[str, float]:
        """Flat figures for the manifest, rounded to four digits; shares a set has no part for are left out."""
        flat = {f"heldback.{name}.auroc": value for name, value in self.aurocs.items()}
        for name, judged in self.tested.items():
            flat[f"{name}.auroc"] = auroc(judged.raw, judged.defect)
            flat |= {f"{name}.{key}": value for key, value in self.rates(name).items()}
        return {key: round(value, 4) for key, value in flat.items() if np.isfinite(value)}

    def summary(self) -> str:
        r, n = self.rates("int8"), self.tested["int8"]
        return (
            f"seed {self.best_seed}, int8, {len(n.raw)} test parts: AUROC {auroc(n.raw, n.defect):.4f}, "
            f"missed {r['missed']:.2%}, false {r['false']:.2%} "
            f"(oil {r['false_oil']:.1%}, stain {r['false_stain']:.1%}), unsure {r['unsure']:.2%}, "
            f"accept below {self.limits.accept_below:.3f}, reject at {self.limits.reject_at:.3f}"
        )


def write(out: Path, model_file: Path, result: Result, plan: Any) -> Bundle:
    """Build the bundle beside `out` and put it there when it is whole; what was there before is replaced."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=out.parent) as building:
        folder = Path(building) / out.name
        folder.mkdir()
        shutil.copy(model_file, folder / "model.tflite")
        bundle = seal_bundle(folder, _manifest(out, result, plan))
        result_metrics = bundle.manifest.metrics | _photo_metrics(bundle, result)
        bundle = seal_bundle(folder, bundle.manifest.model_copy(update={"metrics": result_metrics}))
        (folder / "CARD.md").write_text(_card(bundle, result, plan, _invoke_ms(bundle)), encoding="utf-8")
        bundle = add_golden(bundle, _golden_pictures())
        shutil.rmtree(out, ignore_errors=True)
        bundle.folder.rename(out)
    return load_bundle(out)


def _manifest(out: Path, result: Result, plan: Any) -> dict[str, Any]:
    limits = result.limits
    return {
        "name": out.parent.name,
        "version": out.name,
        "kind": Kind.HEATMAP,
        "title": "Scratches on dark phone glass",
        "licence": "Apache-2.0",
        "training_data": result.recipe,
        "input": INPUT_SPEC.model_dump(),
        "output": {
            "labels": (LABEL,),
            "defect_labels": (LABEL,),
            "activation": "sigmoid",
            "top_k": TOP_K,
            "calibration": (limits.a, limits.b),
            "region_at": limits.region_at,
        },
        "thresholds": {
            "accept_below": limits.accept_below,
            "reject_at": limits.reject_at,
            "over_reject": STOP_SHARE,
        },
        "reference": _reference(limits.score(result.held_back.raw[~result.held_back.defect])),
        "metrics": result.metrics(),
        "golden_tolerance": GOLDEN_TOLERANCE,
    }


def recipe_digest(plan: Any) -> str:
    """SHA-256 over the code that draws and trains, and how much of it ran: the same digest, the same training data."""
    digest = hashlib.sha256(repr(asdict(plan)).encode())
    here = Path(__file__).parent
    modules = [Path(str(module.__file__)) for module in (phone_ink, phone_body, phone_defects, phone_scene)]
    for path in (*modules, here / "scratch_data.py", here / "scratch_net.py"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _reference(good_scores: Floats) -> dict[str, Any]:
    counts, _ = np.histogram(good_scores, HISTOGRAM_BINS, (0.0, 1.0))
    return {
        "score_histogram": tuple(round(float(c) / len(good_scores), 5) for c in counts),
        **picture_statistics(),
    }


def renew_statistics(folder: Path) -> Bundle:
    """Measure again what valid pictures look like, and seal the bundle with it; model, thresholds and scores stay."""
    bundle = load_bundle(folder)
    reference = bundle.manifest.model_dump()["reference"] | picture_statistics()
    return seal_bundle(folder, bundle.manifest.model_dump(exclude_none=True) | {"reference": reference})


def picture_statistics() -> dict[str, Any]:
    """What pictures of good parts of held-back stations look like: the part of `[reference]` that needs no model."""
    parts = SceneConfig(scratch_share=0.0)
    pictures = [render_phone(HELD_BACK_STATIONS + i, 0, parts).image for i in range(PICTURE_PARTS)]
    levels = [brightness(picture) for picture in pictures[:BRIGHTNESS_PARTS]]
    return {
        "brightness_mean": round(statistics.fmean(levels), 2),
        "brightness_std": round(statistics.stdev(levels), 2),
        "picture": picture_reference(pictures, INPUT_SPEC).model_dump(),
    }


def _golden_pictures() -> dict[str, NDArray[np.uint8]]:
    return {
        stem: render_phone(GOLDEN_STATION, index, replace(cfg, noise_levels=0.4)).image
        for index, (stem, cfg) in enumerate(GOLDEN_PARTS.items())
    }


def _photo_metrics(bundle: Bundle, result: Result) -> dict[str, float]:
    """AUROC on photographs named good* and scratch*, when a folder of them was given."""
    if result.photos is None:
        return {}
    model = open_vision_model(bundle)
    paths = sorted(p for p in result.photos.iterdir() if p.name.startswith(("good", LABEL)))
    pictures = [cv2.cvtColor(cv2.imread(str(p), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB) for p in paths]
    scores = np.array([model(np.asarray(picture, np.uint8)).score for picture in pictures])
    defect = np.array([p.name.startswith(LABEL) for p in paths])
    limits = bundle.manifest.thresholds
    return {
        "photos.count": float(len(paths)),
        "photos.auroc": round(auroc(scores, defect), 4),
        "photos.missed": round(float(np.mean(scores[defect] < limits.accept_below)), 4),
        "photos.false": round(float(np.mean(scores[~defect] >= limits.accept_below)), 4),
    }


def _invoke_ms(bundle: Bundle) -> float:
    model = open_vision_model(bundle)
    picture = np.zeros((INPUT_SPEC.height, INPUT_SPEC.width, 3), np.uint8)
    times = []
    for _ in range(60):
        tensor, _ = model.prepare(picture)
        started = time.process_time_ns()
        model.engine.invoke(tensor)
        times.append((time.process_time_ns() - started) / 1e6)
    return statistics.median(times)


def _card(bundle: Bundle, result: Result, plan: Any, invoke_ms: float) -> str:
    manifest, limits, metrics = bundle.manifest, result.limits, bundle.manifest.metrics
    names = ("torch", "litert-torch", "ai-edge-quantizer")
    tools = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    rows = "\n".join(
        f"| {name} | {metrics.get(f'float.{name}', math.nan):.4f} | {metrics.get(f'int8.{name}', math.nan):.4f} |"
        for name in ("auroc", *result.rates("int8"))
    )
    seeds = "\n".join(f"| {name} | {value:.4f} |" for name, value in sorted(result.aurocs.items()))
    return f"""# {manifest.label}: {manifest.title}

Finds scratches on dark phone glass seen from above on a belt. Says where (a heat map of 80x45 cells) and how sure
(score 0..1). Oil, stains, dust, fibres, the rim, holes and reflections are not defects to it.

| | |
|---|---|
| input | 640x360 RGB; larger frames are shrunk to fit, smaller ones keep their size, on black |
| output | one int8 logit per 8x8 pixels; score = calibrated mean of the {TOP_K} hottest cells |
| accept below | {limits.accept_below:.4f}: {STOP_SHARE:.1%} of held-back good parts reach it |
| reject at | {limits.reject_at:.4f}: {SURE_SHARE:.1%} of held-back good parts reach it; between the two: unsure |
| time | {invoke_ms:.2f} ms of one x86-64 core (median of 60 invokes, int8, one thread, XNNPACK) |
| licence | {manifest.licence}; made without any photograph |

## Made from
{plan.crops} crops of pictures drawn by `edge_runtime.simulation.phone_scene` (many stations, phones, lamps, cameras and
scales), by `tools/train/scratch`: {plan.seeds} seeds, {plan.epochs} epochs each, {result.minutes:.0f} minutes in all.
Tools: {tools}.

| AUROC on {len(result.held_back.raw)} held-back parts | |
|---|---|
{seeds}

Published: seed {result.best_seed}. The held-back parts also chose the calibration and the thresholds.

## How good
On {len(result.tested["int8"].raw)} drawn parts of stations that served neither training nor thresholds. `missed`:
defects below accept_below. `false`: good parts, oil and stains included, at or above it. `sure_false`: good parts at
or above reject_at. `missed_X`: of defects of that severity. `false_X`: of good parts of that kind.

| | float | int8 |
|---|---|---|
{rows}
{_photo_paragraph(metrics)}
## Not for
Scratches on white bezels, on other materials or in other light; cracks, dents and dead pixels: nothing like them was
ever shown to it. Marks fainter than about {phone_defects.FAINTEST} grey levels, or shorter than about 15 px at a frame
width of 1920 px. The bright edge of an oil drop is what it takes for a scratch most often. On another camera, check
the thresholds with some hundred good parts before the gate is armed.
"""


def _photo_paragraph(metrics: dict[str, float]) -> str:
    if "photos.auroc" not in metrics:
        return ""
    return f"""
On {metrics["photos.count"]:.0f} photographs that it never saw (pieces of real phone glass at the camera's own scale,
good and scratched): AUROC {metrics["photos.auroc"]:.4f}, missed {metrics["photos.missed"]:.1%} and false
{metrics["photos.false"]:.1%} at the thresholds above.
"""
