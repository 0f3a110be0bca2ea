"""The other side of `judge_samples`: holds one bundle open, judges a picture a request. Run as `python -m`."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.config.schema import ModelConfig
from edge_runtime.core.errors import ModelError
from edge_runtime.core.messages import Prediction
from edge_runtime.features.image import shrink
from edge_runtime.inference.sandbox import serve_child
from edge_runtime.media.picture import PictureError, decode_picture
from edge_runtime.modelstore.bundle import load_bundle
from edge_runtime.predictors.vision import VisionModel, open_vision_model, trial_pictures

MOST_HEAT = 128  # cells on a side: it is drawn on a small picture
MOST_FILE_BYTES = 256 << 20


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """Without a picture: open the bundle, ask test pictures, and say how long they took. Else judge the picture. Raises
    ModelError."""
    model = _open(str(request["folder"]), str(ModelConfig.model_validate(request["cfg"]).model_dump_json()))
    if "picture" not in request:
        said = [model(picture) for picture in trial_pictures(model.prepare.spec)]
        return {"took_ms": [took_ms(one) for one in said[1:]]}  # the first one warms it up
    try:
        image = decode_picture(_read(Path(request["picture"])))
        model.refuse_tiny(image)
    except (PictureError, ModelError, OSError) as err:
        return {"fault": str(err)}
    prediction = model(image)
    return {
        "score": prediction.score,
        "regions": [
            {"place": [region.x, region.y, region.w, region.h], "score": region.score, "label": region.label}
            for region in prediction.regions
        ],
        "heat": _packed(prediction.heat),
        "took_ms": took_ms(prediction),
    }


def took_ms(prediction: Prediction) -> float:
    """From pixels to score."""
    return sum(prediction.timings_ms.values())


@lru_cache(maxsize=1)
def _open(folder: str, cfg: str) -> VisionModel:
    return open_vision_model(load_bundle(folder), ModelConfig.model_validate_json(cfg))


def _read(path: Path) -> bytes:
    if path.stat().st_size > MOST_FILE_BYTES:
        raise PictureError(f"larger than {MOST_FILE_BYTES >> 20} MB")
    return path.read_bytes()


def _packed(heat: NDArray[np.float32] | None) -> dict[str, Any] | None:
    if heat is None:
        return None
    cells = np.rint(np.clip(heat, 0.0, 1.0) * 255).astype(np.uint8)
    rows, columns = (min(side, MOST_HEAT) for side in cells.shape)
    cells = np.ascontiguousarray(shrink(cells, columns, rows))
    return {"rows": rows, "columns": columns, "cells": base64.b64encode(cells.tobytes()).decode()}


if __name__ == "__main__":
    serve_child(run)
