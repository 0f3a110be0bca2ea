"""Golden pictures of a packed bundle: the samples that show best where its limit lies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.manifest import InputSpec
from edge_runtime.features.image import shrink
from edge_runtime.media.picture import decode_picture
from edge_runtime.packing.judging import Judged

SIDE = 512  # larger pictures make large bundles and prove no more
OF_EACH = 3  # accepted and rejected ones
SEED = 0


def golden_pictures(judged: Sequence[Judged], limit: float, spec: InputSpec) -> dict[str, NDArray[np.uint8]]:
    """File stem -> picture. Without samples, drawn ones: they prove that another runtime says the same, no more."""
    usable = sorted((one for one in judged if not one.fault), key=lambda one: one.score)
    accepted = [one for one in usable if one.score < limit]
    rejected = [one for one in usable if one.score >= limit]
    chosen = {"accepted": _spread(accepted), "rejected": _spread(rejected)}
    pictures = {
        f"{word}_{number + 1}": _small(decode_picture(one.sample.path.read_bytes()))
        for word, group in chosen.items()
        for number, one in enumerate(group)
    }
    return pictures or _drawn(spec)


def _spread(group: Sequence[Judged]) -> list[Judged]:
    """The lowest, the highest and the one between."""
    places = sorted({0, len(group) // 2, len(group) - 1}) if group else []
    return [group[place] for place in places][:OF_EACH]


def _drawn(spec: InputSpec) -> dict[str, NDArray[np.uint8]]:
    """A slope of grey and coarse patches of colour, as large as the model's input."""
    rows, columns = np.indices((spec.height, spec.width))
    slope = (255 * (rows + columns) / (spec.height + spec.width)).astype(np.uint8)
    patches = np.random.default_rng(SEED).integers(0, 256, (8, 8, 3), np.uint8)
    coarse = patches[rows * 8 // spec.height, columns * 8 // spec.width]
    return {"slope": np.repeat(slope[:, :, None], 3, axis=2), "patches": np.ascontiguousarray(coarse)}


def _small(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rows, columns = picture.shape[:2]
    factor = min(SIDE / max(rows, columns), 1.0)
    return np.ascontiguousarray(shrink(picture, max(1, round(columns * factor)), max(1, round(rows * factor))))
