"""The bundle that teaching makes: backbone, memory, manifest, card, golden pictures."""

from __future__ import annotations

import shutil
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_runtime.core.manifest import Kind
from edge_runtime.core.share_interval import share_interval
from edge_runtime.features.image import brightness, shrink
from edge_runtime.features.picture_validity import picture_reference
from edge_runtime.inference.anomaly import AnomalyModel
from edge_runtime.learning.teach_pictures import Picture, Pictures
from edge_runtime.modelstore.bundle import CARD, MEMORY, MODEL, Bundle, seal_bundle
from edge_runtime.predictors.golden import add_golden

LABEL = "anomaly"
LICENCE = "LICENSE"
GOLDEN_SIDE = 512  # larger pictures make large bundles and prove no more
HISTOGRAM_BINS = 20


@dataclass(frozen=True, slots=True)
class Lesson:
    """What good parts taught. mirrored: the ways in which they look the same mirrored, and were taught so."""

    model: AnomalyModel
    mirrored: tuple[str, ...]

    @property
    def over(self) -> int:
        """Held-back good parts that are over the limit."""
        return int((self.model.held_back >= 0.5).sum())

    @property
    def over_interval(self) -> tuple[float, float]:
        """Exact 95 % interval of the share of good parts over the limit, from the held-back ones."""
        return share_interval(self.over, len(self.model.held_back))


def write_bundle(
    folder: Path, name: str, version: str, backbone: Bundle, pictures: Pictures, lesson: Lesson, seconds: float
) -> Bundle:
    """Write and seal the bundle in `folder`, which must not exist. seconds: how long learning took."""
    folder.mkdir()
    shutil.copyfile(backbone.model_path, folder / MODEL)
    if (backbone.folder / LICENCE).exists():
        shutil.copyfile(backbone.folder / LICENCE, folder / LICENCE)
    model = lesson.model
    model.save(folder / MEMORY)
    low, high = lesson.over_interval
    (folder / CARD).write_text(_card(name, version, backbone, lesson), encoding="utf-8")
    levels = [brightness(picture) for picture in pictures.images]
    counts, _ = np.histogram(model.held_back, HISTOGRAM_BINS, (0.0, 1.0))
    table = {
        "name": name,
        "version": version,
        "kind": Kind.ANOMALY,
        "title": f"Taught with {len(pictures.images)} good parts",
        "licence": backbone.manifest.licence,
        "training_data": pictures.digest,
        "input": backbone.manifest.input.model_dump() if backbone.manifest.input else None,
        "output": {"labels": (LABEL,), "defect_labels": (LABEL,)},
        "thresholds": {"accept_below": 0.5, "reject_at": 0.5, "over_reject": model.over_reject},
        "reference": {
            "score_histogram": tuple(round(float(count) / len(model.held_back), 5) for count in counts),
            "brightness_mean": round(statistics.fmean(levels), 2),
            "brightness_std": round(statistics.stdev(levels), 2),
            "picture": picture_reference(pictures.images, backbone.manifest.input).model_dump(),
        },
        "metrics": {
            "taught.pictures": float(len(pictures.images)),
            "taught.seconds": round(seconds, 2),
            "heldback.over_reject": round(lesson.over / len(model.held_back), 4),
            "heldback.over_reject_low": round(low, 4),
            "heldback.over_reject_high": round(high, 4),
            "limit.low": round(model.interval[0], 4),
            "limit.high": round(model.interval[1], 4),
        },
    }
    bundle = seal_bundle(folder, table)
    return add_golden(bundle, {"good_first": _small(pictures.images[0]), "good_last": _small(pictures.images[-1])})


def _card(name: str, version: str, backbone: Bundle, lesson: Lesson) -> str:
    model = lesson.model
    low, high = lesson.over_interval
    mirrored = ", ".join(lesson.mirrored) or "in no way: mirrored parts look different"
    return f"""# {name}@{version}: taught with {len(model.held_back)} good parts

Says how unlike the good parts a part looks (score 0..1, limit 0.5) and where (heat map). It has never seen a bad part
and cannot name what is wrong.

| | |
|---|---|
| limit | set so that about {model.over_reject:.2%} of good parts are over it |
| its 95 % interval, as scores | {model.interval[0]:.3f} to {model.interval[1]:.3f} |
| held-back good parts over it | {lesson.over} of {len(model.held_back)} (95 %: {low:.1%} to {high:.1%}) |
| backbone | {backbone.label}, manifest {backbone.digest} |
| taught mirrored | {mirrored} |

Every good part was judged once by a model that had not seen it; those scores set the limit.

## Not for
Other parts, another camera or another light than those of the pictures: teach again. How many bad parts it finds is not
known until bad ones were shown to it: `tools/bench/teach --good DIR --bad DIR`.
"""


def _small(picture: Picture) -> Picture:
    rows, columns = picture.shape[:2]
    factor = GOLDEN_SIDE / max(rows, columns)
    if factor >= 1.0:
        return picture
    return np.ascontiguousarray(shrink(picture, max(1, round(columns * factor)), max(1, round(rows * factor))))
