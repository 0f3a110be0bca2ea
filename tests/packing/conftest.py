"""Samples of parts with and without dark spots, and files looked at without a child: tests vouch for their own."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.packing import facts, look_child
from tests.support import spot_models

GOOD, BAD = 10, 5


@pytest.fixture(scope="session")
def parts(tmp_path_factory) -> Path:
    """Folder with good/ and bad/: bright ones, and with a spot of a cell of 16 pixels."""
    folder, draw = tmp_path_factory.mktemp("samples") / "parts", np.random.default_rng(0)
    for truth, count in (("good", GOOD), ("bad", BAD)):
        (folder / truth).mkdir(parents=True)
        for number in range(count):
            x, y = (16 * draw.integers(0, 4, 2)).tolist()
            ground = 190 + 6 * number
            picture = spot_models.picture(*([] if truth == "good" else [(x, y)]), ground=ground)
            assert cv2.imwrite(str(folder / truth / f"{truth}{number:02}.png"), picture)
    return folder


@pytest.fixture
def file(tmp_path):
    def write(content: bytes, name: str = "model.tflite") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


def looked_at(path: Path, signature: str = "", input_shape: tuple[int, ...] = ()) -> facts.Facts:
    """What `facts.look` says, in this process."""
    request = {"path": str(path), "signature": signature, "input_shape": list(input_shape), "runtime": "auto"}
    return facts._facts(look_child.run(request))
