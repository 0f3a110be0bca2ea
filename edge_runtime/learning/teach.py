"""Teach the box its own part: pictures of good ones in, a sealed model in the store out. No label, no network.

    pictures of good parts -> variants -> frozen backbone -> statistics of what is usual -> bundle of kind `anomaly`

Each picture also teaches shifted, turned and brighter variants of itself, and mirrored ones where the parts look the
same mirrored. The bundle carries a copy of the backbone, so that it stands on its own; it is installed only after a
child process has loaded it and has said about its golden pictures what was said here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.errors import ModelError, UsageError
from edge_runtime.core.manifest import Kind
from edge_runtime.inference.anomaly import FeatureMaps
from edge_runtime.inference.native_noise import native_noise_hidden
from edge_runtime.learning.anomaly_fit import FEWEST_PARTS, AnomalySpec, fit_anomaly, looks_the_same
from edge_runtime.learning.teach_bundle import Lesson, write_bundle
from edge_runtime.learning.teach_pictures import MIRRORED, Picture, load_pictures, variants
from edge_runtime.learning.versions import first_of, next_version
from edge_runtime.modelstore.bundle import Bundle
from edge_runtime.modelstore.provenance import MADE_HERE
from edge_runtime.modelstore.store import ModelStore
from edge_runtime.predictors.golden import check_golden
from edge_runtime.predictors.vision import FeatureModel, open_engine

log = logging.getLogger(__name__)

BACKBONE = "backbone"
MOST_VARIANTS = 600  # pictures that go through the backbone: 10 s on a PC
FEWEST_JITTERED, MOST_JITTERED = 2, 6  # for each picture; without them AUROC on tiles is 0.03 lower
MIRROR_SAMPLE = 40  # pictures that decide which mirrored ones may teach
SEED = 1

Progress = Callable[[str, int, int], None]  # what is being done, how many are done, of how many


@dataclass(frozen=True, slots=True)
class TeachReport:
    """What was learnt from how much. `limit_interval`: 95 % interval of the limit on the score's scale, where the limit
    is 0.5. `held_back_over`: good parts over the limit, each judged by a model that had not seen it."""

    model: str
    folder: str
    digest: str
    backbone: str
    pictures: int
    skipped: tuple[str, ...]
    mirrored: tuple[str, ...]
    over_reject: float
    limit_interval: tuple[float, float]
    held_back_over: int
    held_back_over_interval: tuple[float, float]  # exact 95 % interval of the share
    seconds: float

    def as_json(self) -> dict[str, Any]:
        about = asdict(self)
        for key in ("limit_interval", "held_back_over_interval"):
            about[key] = [round(end, 4) for end in about[key]]
        return about | {"seconds": round(self.seconds, 2)}


def teach(
    folder: Path,
    name: str,
    store: ModelStore,
    cfg: EdgeConfig | None = None,
    *,
    over_reject: float = 0.01,
    progress: Progress | None = None,
) -> TeachReport:
    """Learn what a good part looks like from the pictures in `folder`, and install the model as `name`.

    A model of that name gets a further version. Raises UsageError for too few pictures or an unusable name, ModelError
    when there is no backbone or the model does not pass its own check.
    """
    started = time.perf_counter()
    cfg = cfg or EdgeConfig()
    version = next_version(name, store, Kind.ANOMALY)
    backbone = _backbone(store)
    pictures = load_pictures(folder).without_copies().without_odd(backbone.manifest.input)
    if len(pictures.images) < FEWEST_PARTS:
        raise UsageError(
            f"{folder}: {len(pictures.images)} readable pictures of good parts, at least {FEWEST_PARTS} are needed"
            f"{first_of(pictures.skipped)}"
        )
    with store.workshop() as work:
        with native_noise_hidden():
            features = FeatureModel(backbone, open_engine(backbone, cfg.model))
        lesson = learn(features, pictures.images, over_reject, progress)
        bundle = write_bundle(work / name, name, version, backbone, pictures, lesson, time.perf_counter() - started)
        report = check_golden(bundle, cfg.model)
        if report.problem:
            raise ModelError(f"{bundle.label} was learnt but does not pass its check: {report.problem}")
        installed = store.install(bundle, came=MADE_HERE)
    log.info("model taught model=%s pictures=%d over=%d", installed.label, len(pictures.images), lesson.over)
    return TeachReport(
        model=installed.label,
        folder=str(installed.folder),
        digest=installed.digest,
        backbone=f"{backbone.label} {backbone.digest[:12]}",
        pictures=len(pictures.images),
        skipped=tuple(pictures.skipped),
        mirrored=lesson.mirrored,
        over_reject=over_reject,
        limit_interval=lesson.model.interval,
        held_back_over=lesson.over,
        held_back_over_interval=lesson.over_interval,
        seconds=time.perf_counter() - started,
    )


def learn(
    features: FeatureModel, pictures: Sequence[Picture], over_reject: float = 0.01, progress: Progress | None = None
) -> Lesson:
    """The same without files: pictures of good parts, uint8 RGB of any sizes. The same pictures give the same model."""
    say = progress or (lambda what, done, of: None)
    rng = np.random.default_rng(SEED)
    mirrored = _allowed_mirrors(features, pictures, rng, say)
    jittered = min(max(MOST_VARIANTS // len(pictures) - 1 - len(mirrored), FEWEST_JITTERED), MOST_JITTERED)
    per_picture = 1 + len(mirrored) + jittered

    def maps() -> Iterator[FeatureMaps]:
        for number, picture in enumerate(pictures):
            say("teaching", number, len(pictures))
            for variant in variants(picture, mirrored, jittered, np.random.default_rng((SEED, number))):
                yield features(variant)

    parts = np.repeat(np.arange(len(pictures)), per_picture).tolist()
    model = fit_anomaly(maps(), AnomalySpec(over_reject=over_reject), rng, parts)
    return Lesson(model, mirrored)


def _allowed_mirrors(
    features: FeatureModel, pictures: Sequence[Picture], rng: np.random.Generator, say: Progress
) -> tuple[str, ...]:
    """The ways of mirroring after which good parts still look like good parts."""
    sample = [pictures[int(i)] for i in np.linspace(0, len(pictures) - 1, min(len(pictures), MIRROR_SAMPLE))]
    say("looking", 0, len(sample))
    plain = [_light(features(picture)) for picture in sample]
    allowed = []
    for way, mirror in MIRRORED.items():
        changed = [_light(features(mirror(picture))) for picture in sample]
        if looks_the_same(plain, changed, rng):
            allowed.append(way)
    return tuple(allowed)


def _light(maps: FeatureMaps) -> FeatureMaps:
    return tuple([grid.astype(np.float16) for grid in maps])


def _backbone(store: ModelStore) -> Bundle:
    bundle = store.resolve(BACKBONE)
    if bundle.manifest.kind is not Kind.FEATURES:
        raise ModelError(
            f"{bundle.label} is of kind {bundle.manifest.kind}; teaching needs one of kind {Kind.FEATURES}"
        )
    return bundle
