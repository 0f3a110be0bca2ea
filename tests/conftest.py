"""Shared by all tests: where real data is, and tiny bundles that need none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from edge_runtime.modelstore.bundle import Bundle, seal_bundle
from tests.support.second_try import give_second_tries, tell_second_tries

pytest_plugins = ("tests.support.real_box", "tests.support.line_and_pages")

# How long an example takes says how busy the machine is; a test that promises a time measures it.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

ROOT = Path(__file__).parents[1]
TINY = Path(__file__).parent / "data" / "tiny"

TINY_KINDS: dict[str, dict[str, Any]] = {
    "heatmap": {
        "model": TINY / "bright_heat.tflite",
        "input": {"width": 32, "height": 32, "scale": 1 / 255},
        "output": {"labels": ["bright"], "top_k": 1, "region_at": 0.5},
    },
    "classification": {
        "model": TINY / "colour.tflite",
        "input": {"width": 8, "height": 8, "scale": 1 / 255, "fit": "stretch"},
        "output": {"labels": ["red", "green", "blue"], "defect_labels": ["red"]},
    },
    "features": {
        "model": TINY / "maps.tflite",
        "input": {"width": 32, "height": 32, "scale": 1 / 255},
    },
}

MakeBundle = Callable[..., Bundle]


def pytest_addoption(parser: pytest.Parser) -> None:
    told = "the first case of each test function: enough to see whether all that tests need is here"
    parser.addoption("--first-cases", action="store_true", help=told)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--first-cases"):
        firsts = {item.nodeid.partition("[")[0]: item for item in reversed(items)}
        config.hook.pytest_deselected(items=[item for item in items if item not in firsts.values()])
        items[:] = reversed(firsts.values())
    give_second_tries(config, items)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    tell_second_tries(terminalreporter)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real models and pictures: EDGE_RUNTIME_TEST_DATA, else `shared/data` beside the checkout."""
    folder = Path(os.environ.get("EDGE_RUNTIME_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "models").is_dir():
        pytest.skip(f"no real models in {folder}; set EDGE_RUNTIME_TEST_DATA")
    return folder


@pytest.fixture
def tiny_model() -> Path:
    return TINY / "bright_heat.tflite"


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    """Makes a sealed bundle around a tiny model: `make_bundle("heatmap", output={"top_k": 3}, name="x")`."""

    def make(
        kind: str = "heatmap",
        *,
        folder: Path | None = None,
        model: Path | None = None,
        input: dict[str, Any] | None = None,
        output: dict[str, Any] | None = None,
        **manifest: Any,
    ) -> Bundle:
        tiny = TINY_KINDS.get(kind, {})
        table: dict[str, Any] = {
            "name": f"tiny-{kind}",
            "version": "1",
            "kind": kind,
            "licence": "Apache-2.0",
        } | manifest
        table["input"] = tiny.get("input", {}) | (input or {})
        if tiny.get("output") or output:
            table["output"] = tiny.get("output", {}) | (output or {})
        folder = folder or tmp_path / "bundles" / table["name"] / table["version"]
        folder.mkdir(parents=True)
        shutil.copy(model or tiny["model"], folder / "model.tflite")
        return seal_bundle(folder, table)

    return make


@pytest.fixture
def bright_corner() -> np.ndarray:
    """A black 64x64 picture with a white top left quarter."""
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:32, :32] = 255
    return picture
