"""NaN and infinity are refused in every number that a manifest or a station file can hold, wherever it stands."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from edge_runtime.config.load import load
from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.errors import ConfigError, ModelError
from edge_runtime.core.manifest import AudioInput, InputSpec, Manifest, MelSpec, OutputSpec
from edge_runtime.modelstore.manifest_toml import parse_manifest, read_manifest

NOT_NUMBERS = [math.nan, math.inf, -math.inf]
Place = tuple[str | int, ...]

MANIFEST = {
    "name": "m",
    "version": "1",
    "kind": "heatmap",
    "licence": "Apache-2.0",
    "files": {"model.tflite": "0" * 64},
    "input": {"width": 8, "height": 8},
    "audio": {"mel": {}},
    "output": {"labels": ["a"]},
    "thresholds": {},
    "reference": {},
}


def places(model: type[BaseModel], at: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every place of a float below a model, with a value of the right shape for `fill` to put a number into."""
    for name, info in model.model_fields.items():
        yield from _in(info.annotation, (*at, name))


def _in(kind: Any, at: Place) -> Iterator[tuple[Place, Any]]:
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if kind is float:
        yield at, None
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        yield from places(kind, at)
    elif origin is typing.Annotated or origin in (typing.Union, types.UnionType):
        for one in inside[:1] if origin is typing.Annotated else inside:
            yield from _in(one, at)
    elif origin is dict:
        yield from ((where, shape) for where, shape in _in(inside[1], (*at, "key")))
    elif origin is tuple and inside[-1] is Ellipsis:
        yield from ((where, "list") for where, _ in _in(inside[0], (*at, 0)))
    elif origin is tuple:
        for index, one in enumerate(inside):
            yield from ((where, len(inside)) for where, _ in _in(one, (*at, index)))


def fill(at: Place, shape: Any, value: float, base: dict[str, Any] | None = None) -> dict[str, Any]:
    tree = base if base is not None else {}
    node: Any = tree
    *way, last = at
    if isinstance(last, int):
        *way, name = way
        count = shape if isinstance(shape, int) else 1
        leaf: Any = [value if index == last else 0.5 for index in range(count)]
        last = name
    else:
        leaf = value
    for step in way:
        node[step] = dict(node.get(step, {}))
        node = node[step]
    node[last] = leaf
    return tree


STATION = sorted(places(EdgeConfig), key=str)
BUNDLE = sorted(places(Manifest), key=str)


def test_the_walk_finds_the_numbers_there_are():
    assert len(STATION) > 40 and ("world", "bad_days", "light_drift") in [at for at, _ in STATION]
    found = [at for at, _ in BUNDLE]
    assert {("output", "calibration", 0), ("output", "calibration", 1), ("input", "scale"), ("metrics", "key")} <= {
        *found
    }
    assert ("audio", "mel", "floor") in found and ("reference", "score_histogram", 0) in found
    for model in (InputSpec, OutputSpec, AudioInput, MelSpec):
        assert model.model_config["allow_inf_nan"] is False


@pytest.mark.parametrize("value", NOT_NUMBERS, ids=str)
def test_no_number_of_a_station_may_be_none(value):
    for at, shape in STATION:
        with pytest.raises(ValidationError, match=r"finite|greater|less|Input should be"):
            EdgeConfig.model_validate(fill(at, shape, value))


@pytest.mark.parametrize("value", NOT_NUMBERS, ids=str)
def test_no_number_of_a_manifest_may_be_none(value):
    parse_manifest(MANIFEST, "here")
    for at, shape in BUNDLE:
        with pytest.raises(ModelError, match=str(at[0])):
            parse_manifest(fill(at, shape, value, dict(MANIFEST)), "here")


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "+nan", "1e999"])
def test_files_that_say_so_are_refused_in_words(tmp_path, text):
    file = tmp_path / "station.toml"
    file.write_text(f"[decision]\ndeadline_ms = {text}\n")
    with pytest.raises(ConfigError, match=r"decision\.deadline_ms"):
        load(file)
    with pytest.raises(ConfigError, match=r"camera\.fps"):
        load(None, [f"camera.fps={text}"])
    manifest = tmp_path / "manifest.toml"
    manifest.write_text(
        'name = "m"\nversion = "1"\nkind = "heatmap"\nlicence = "x"\n[output]\nlabels = ["a"]\n'
        f"calibration = [1.0, {text}]\n[files]\n'model.tflite' = \"{'0' * 64}\"\n"
    )
    with pytest.raises(ModelError, match=r"output\.calibration"):
        read_manifest(manifest)


@pytest.mark.parametrize("calibration", [(0.0, 0.0), (-1.0, 0.5), (1e-300, -1e300), (10.0, -1000.0), (5e-324, -1.0)])
def test_a_calibration_that_accepts_the_hottest_heat_is_refused(calibration):
    table = dict(MANIFEST) | {"output": {"labels": ["a"], "activation": "sigmoid", "calibration": calibration}}
    with pytest.raises(ModelError, match="calibration"):
        parse_manifest(table, "here")
