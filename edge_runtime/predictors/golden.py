"""Golden pictures of a bundle: made once where the model was made, asked again wherever it is about to run.

`golden/expected.json` maps each picture in `golden/` to the numbers that the model said about it: `score` and those of
`scores`; for a feature backbone the mean of each map. Another runtime or processor gives slightly other numbers for the
same int8 file (0-6 of 200 decisions flip), so they are compared within `golden_tolerance`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.config.schema import ModelConfig
from edge_runtime.core.errors import ModelError
from edge_runtime.core.manifest import Kind
from edge_runtime.core.strict_json import parse_json
from edge_runtime.inference.sandbox import Child
from edge_runtime.media.picture import PictureError, decode_picture
from edge_runtime.modelstore.bundle import Bundle, load_bundle, seal_bundle
from edge_runtime.predictors.sound_golden import ask_golden_sound
from edge_runtime.predictors.vision import (
    PICTURE_KINDS,
    FeatureModel,
    open_engine,
    open_vision_model,
    picture_gate,
    trial_pictures,
)
from edge_runtime.process.child import Limits

FOLDER = "golden"
EXPECTED = f"{FOLDER}/expected.json"
CHILD = "edge_runtime.predictors.golden_child"
SOUND_KINDS = (Kind.SOUND_ANOMALY, Kind.KEYWORD)

Numbers = dict[str, float]


@dataclass(frozen=True, slots=True)
class GoldenReport:
    """What came of asking. `problem` is empty when all is well."""

    pictures: int
    worst: float  # largest difference from the expected numbers, 0..1
    runtime: str  # what it ran on here
    problem: str = ""
    accepted: int = 0  # of them by the bundle's own thresholds, and rejected
    rejected: int = 0
    remark: str = ""  # what they do not prove


def add_golden(bundle: Bundle, pictures: Mapping[str, NDArray[np.uint8]], *, in_child: bool = False) -> Bundle:
    """Put pictures (file stem -> uint8 RGB) and what the model says about them into a bundle, and seal it again.

    in_child: a model that nobody vouches for is asked in a process of its own. Raises ModelError.
    """
    folder = bundle.folder / FOLDER
    folder.mkdir(exist_ok=True)
    for stem, picture in pictures.items():
        if not cv2.imwrite(str(folder / f"{stem}.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
            raise ModelError(f"cannot write {folder / stem}.png")
    names = sorted(f"{stem}.png" for stem in pictures)
    if in_child:  # sealed once more, since the child compares digests
        answer = _ask_child(seal_bundle(bundle.folder, bundle.manifest), names, ModelConfig(), None)
        said, runtime = answer["said"], str(answer["runtime"])
    else:
        said, runtime = ask_golden(bundle, names)
    text = json.dumps(said, indent=1, sort_keys=True)
    (bundle.folder / EXPECTED).write_text(f"{text}\n", encoding="utf-8")
    return seal_bundle(bundle.folder, bundle.manifest.model_copy(update={"runtime": runtime}))


def ask_golden(bundle: Bundle, names: list[str], cfg: ModelConfig | None = None) -> tuple[dict[str, Numbers], str]:
    """What the model says about these files of `golden/`, and the runtime that said it. In this process."""
    if bundle.manifest.kind in SOUND_KINDS:
        return ask_golden_sound(bundle, names, cfg)
    if bundle.manifest.kind is Kind.FEATURES:
        features = FeatureModel(bundle, open_engine(bundle, cfg))
        runtime = features.engine.runtime.label
        said = {
            name: {f"map{index}": float(grid.mean()) for index, grid in enumerate(features(_picture(bundle, name)))}
            for name in names
        }
    else:
        model = open_vision_model(bundle, cfg)
        runtime = model.engine.runtime.label
        if not names:  # nothing real to ask: a picture of nothing must at least get an answer that is a score
            for picture in trial_pictures(model.prepare.spec):
                model(picture)
        said = {}
        for name in names:
            prediction = model(_picture(bundle, name))
            said[name] = {"score": prediction.score, **{f"scores.{k}": v for k, v in prediction.scores.items()}}
    return {name: {key: round(value, 5) for key, value in row.items()} for name, row in said.items()}, runtime


def check_golden(bundle: Bundle, cfg: ModelConfig | None = None, limits: Limits | None = None) -> GoldenReport:
    """Load the bundle in a child process with limits, ask its golden pictures there and compare.

    A bundle without golden pictures is only loaded. Never raises because of the model.
    """
    if bundle.manifest.kind not in (*PICTURE_KINDS, *SOUND_KINDS, Kind.FEATURES):
        return GoldenReport(0, 0.0, "", f"golden samples of kind {bundle.manifest.kind} are not pictures")
    cfg = cfg or ModelConfig()
    try:
        expected = _expected(bundle)
        answer = _ask_child(bundle, [*expected], cfg, limits)
    except ModelError as err:
        return GoldenReport(0, 0.0, "", str(err))
    said, runtime = answer["said"], str(answer["runtime"])
    worst, at = 0.0, ""
    for name, numbers in expected.items():
        difference = _difference(numbers, said[name])
        if difference > worst:
            worst, at = difference, name
    problem = ""
    if worst > bundle.manifest.golden_tolerance:
        problem = (
            f"{runtime} differs by {worst:.3f} on {at} from the numbers of {bundle.manifest.runtime or 'its maker'} "
            f"(allowed {bundle.manifest.golden_tolerance:g}); rebuild the bundle or use that runtime"
        )
    accepted, rejected = _judged(bundle, said)
    remark = "; ".join(filter(None, [_remark(bundle, accepted, rejected), _unlike_their_bundle(answer["invalid"])]))
    return GoldenReport(len(expected), worst, runtime, problem, accepted, rejected, remark)


def _ask_child(bundle: Bundle, names: list[str], cfg: ModelConfig, limits: Limits | None) -> dict[str, Any]:
    with Child(CHILD, limits) as child:
        return child.ask({"folder": str(bundle.folder.absolute()), "cfg": cfg.model_dump(), "names": names})


def _judged(bundle: Bundle, said: Mapping[str, Numbers]) -> tuple[int, int]:
    """How many the bundle's thresholds accept and reject; nobody judges parts by words or by bare features."""
    if not _judges_parts(bundle):
        return 0, 0
    limits = bundle.manifest.thresholds
    scores = [numbers["score"] for numbers in said.values() if "score" in numbers]
    return sum(score < limits.accept_below for score in scores), sum(score >= limits.reject_at for score in scores)


def _remark(bundle: Bundle, accepted: int, rejected: int) -> str:
    """A model that says the same to everything passes a golden test of good parts alone."""
    if not _judges_parts(bundle) or (accepted and rejected):
        return ""
    missing = [word for word, count in (("accepts", accepted), ("rejects", rejected)) if not count]
    return f"none that it {' or '.join(missing)}: not proven that it tells good from bad"


def _unlike_their_bundle(invalid: Mapping[str, str]) -> str:
    """Statistics of other pictures than the model's would make each part unsure."""
    if not invalid:
        return ""
    name, fault = next(iter(invalid.items()))
    return f"by its own reference.picture {len(invalid)} of them would not be judged, {name}: {fault}; renew it"


def _judges_parts(bundle: Bundle) -> bool:
    return bundle.manifest.kind in (*PICTURE_KINDS, Kind.SOUND_ANOMALY)


def answer_child(request: Mapping[str, object]) -> dict[str, object]:
    """The child's side of `check_golden`."""
    names = [str(name) for name in request["names"]]  # type: ignore[attr-defined]
    bundle = load_bundle(str(request["folder"]))
    said, runtime = ask_golden(bundle, names, ModelConfig.model_validate(request["cfg"]))
    return {"said": said, "runtime": runtime, "invalid": _invalid(bundle, names)}


def _invalid(bundle: Bundle, names: list[str]) -> dict[str, str]:
    """Which golden pictures the bundle's own statistics keep from the model, and why."""
    if bundle.manifest.kind not in PICTURE_KINDS or bundle.manifest.reference.picture is None:
        return {}
    gate = picture_gate(bundle)
    return {name: fault for name in names if (fault := gate(_picture(bundle, name)))}


def _expected(bundle: Bundle) -> dict[str, Numbers]:
    if EXPECTED not in bundle.manifest.files:
        return {}
    try:
        expected: dict[str, Numbers] = parse_json((bundle.folder / EXPECTED).read_text(encoding="utf-8"))
        for name, numbers in expected.items():
            if f"{FOLDER}/{name}" not in bundle.manifest.files:
                raise ModelError(f"{bundle.label}: {EXPECTED} names {name!r}, which the bundle does not have")
            for value in numbers.values():
                float(value)
    except (ValueError, AttributeError, TypeError) as err:
        raise ModelError(f"{bundle.label}: {EXPECTED} cannot be read ({err})") from err
    return expected


def _difference(expected: Numbers, said: Numbers) -> float:
    """Largest difference, relative where numbers are larger than 1 (means of feature maps).

    A label may be among the best twenty here and not there; a missing score is as wrong as can be.
    """
    shared = set(expected) & set(said)
    if not shared or ("score" in expected and "score" not in said):
        return 1.0
    worst = max(abs(said[key] - expected[key]) / max(1.0, abs(expected[key])) for key in shared)
    return worst if math.isfinite(worst) else 1.0


def _picture(bundle: Bundle, name: str) -> NDArray[np.uint8]:
    path = Path(bundle.folder, FOLDER, name)
    try:
        return decode_picture(path.read_bytes())
    except (OSError, PictureError) as err:
        raise ModelError(f"{bundle.label}: golden picture {name}: {err}") from err
