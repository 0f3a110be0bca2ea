"""`predict` and `models` as people and scripts call them: every bad file a sentence, never a traceback."""

import json
import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from edge_runtime.cli.main import Session
from edge_runtime.cli.models_cmds import models
from edge_runtime.cli.predict_cmd import predict
from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.errors import UsageError
from edge_runtime.predictors.golden import add_golden
from edge_runtime.predictors.predict import Predictor


@pytest.fixture
def store(make_bundle, tmp_path, bright_corner):
    folder = tmp_path / "store"
    for kind, name in (("heatmap", "bright"), ("classification", "colour"), ("features", "backbone")):
        bundle = make_bundle(kind, name=name, folder=folder / name / "1", title=f"a {name} model")
        add_golden(bundle, {"corner": bright_corner})
    return folder


@pytest.fixture
def session(store):
    return Session(None, [f"model.store={json.dumps(str(store))}", "model.name='bright'"])


@pytest.fixture
def pictures(tmp_path, bright_corner):
    folder = tmp_path / "pictures"
    folder.mkdir()
    cv2.imwrite(str(folder / "bright.png"), bright_corner)
    dark = np.zeros((50, 70, 3), np.uint8)
    dark[40:, 60:] = 60
    cv2.imwrite(str(folder / "dark.jpg"), dark)
    cv2.imwrite(str(folder / "black.png"), np.zeros((50, 70, 3), np.uint8))
    cv2.imwrite(str(folder / "dot.png"), np.zeros((1, 1, 3), np.uint8))
    (folder / "cut.jpg").write_bytes((folder / "dark.jpg").read_bytes()[:300])
    (folder / "text.jpg").write_text("not a picture")
    (folder / "empty.png").touch()
    return folder


def run(command, session, *args):
    result = CliRunner().invoke(command, [str(arg) for arg in args], obj=session)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_good_files_give_entries_with_every_promised_key(session, pictures):
    result = run(predict, session, pictures / "bright.png", pictures / "dark.jpg", "--json")
    assert result.exit_code == 0
    bright, dark = json.loads(result.stdout)
    for entry in (bright, dark):
        assert {"file", "model", "verdict", "score", "scores", "regions", "timings_ms"} <= set(entry)
    assert (bright["model"], bright["verdict"], bright["file"]) == ("bright@1", "reject", str(pictures / "bright.png"))
    assert bright["score"] > 0.9 > dark["score"]
    assert dark["verdict"] == "accept"
    assert bright["regions"] == [{"x": 0, "y": 0, "w": 0.5, "h": 0.5, "score": 1.0, "label": "bright"}]
    assert set(bright["timings_ms"]) == {"read", "prepare", "invoke", "decode"}


def test_picture_that_shows_nothing_is_unsure_with_the_reason(session, pictures):
    result = run(predict, session, pictures / "black.png", pictures / "bright.png", "--json")
    assert result.exit_code == 0
    black, bright = json.loads(result.stdout)
    assert (black["verdict"], black["score"], bright["verdict"]) == ("unsure", None, "reject")
    assert black["reason"] == "invalid_image: too dark, mean 0"
    assert "unsure" in run(predict, session, pictures / "black.png").stdout


def test_picture_is_asked_nothing_where_the_station_asks_nothing(store, tmp_path):
    black = tmp_path / "black.png"
    cv2.imwrite(str(black), np.zeros((64, 64, 3), np.uint8))
    for checks, verdict in (("off", "accept"), ("content", "unsure")):
        table = {"model": {"name": "bright", "store": str(store)}, "camera": {"check_pictures": checks}}
        assert Predictor(EdgeConfig.model_validate(table), "bright").file(black)["verdict"] == verdict


def test_bad_files_get_an_error_and_the_others_are_still_judged(session, pictures, tmp_path):
    names = ["cut.jpg", "text.jpg", "empty.png", "absent.png", "bright.png", "dot.png"]
    result = run(predict, session, *(pictures / name for name in names), tmp_path, "--json")
    assert result.exit_code == 1
    entries = json.loads(result.stdout)
    assert [entry["verdict"] for entry in entries] == [None, None, None, None, "reject", None, None]
    told = [entry.get("error", "") for entry in entries]
    for sentence, part in zip(
        told, ("damaged", "not a picture", "is empty", "no such file", "", "too small", "a folder"), strict=True
    ):
        assert part in sentence
        assert "\n" not in sentence


def test_a_hundred_megapixels_are_refused_before_they_are_decoded(session, pictures):
    path = pictures / "huge.png"
    cv2.imwrite(str(path), np.zeros((10_000, 10_000), np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    result = run(predict, session, path, "--json")
    assert json.loads(result.stdout)[0]["error"] == "10000x10000 is 100 megapixels, at most 64 are decoded"
    assert result.exit_code == 1


def test_people_read_one_line_a_file_and_errors_on_stderr(session, pictures):
    result = run(predict, session, pictures / "bright.png", pictures / "text.jpg")
    assert result.stdout.startswith("reject  1.000")
    assert "error:" in result.stderr
    assert "not a picture (JPEG, PNG or BMP)" in result.stderr


def test_the_model_may_be_a_name_a_version_or_a_folder(session, pictures, store):
    for reference in ("colour", "colour@1", store / "colour" / "1"):
        result = run(predict, session, pictures / "dark.jpg", "--model", reference, "--json")
        assert json.loads(result.stdout)[0]["model"] == "colour@1"


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("brigth", "did you mean 'bright'?"),
        ("bright@9", "has no version '9'"),
        ("backbone", "does not judge pictures"),
        ("/nowhere/at/all", "no such bundle folder"),
    ],
)
def test_a_model_that_cannot_be_used_is_a_usage_error(session, pictures, reference, sentence):
    with pytest.raises(UsageError, match="cannot be used") as caught:
        run(predict, session, pictures / "dark.jpg", "--model", reference)
    assert sentence in str(caught.value)


def test_a_bundle_from_anywhere_is_opened_in_a_child_first(session, store, pictures):
    from edge_runtime.modelstore.bundle import load_bundle, seal_bundle

    folder = store.parent / "foreign"
    shutil.copytree(store / "bright" / "1", folder)
    content = (folder / "model.tflite").read_bytes()
    (folder / "model.tflite").write_bytes(content[: len(content) // 2])
    seal_bundle(folder, load_bundle(store / "bright" / "1").manifest)
    with pytest.raises(UsageError, match="damaged"):
        run(predict, session, pictures / "dark.jpg", "--model", folder)


def test_the_stations_thresholds_hold_for_the_stations_model_only(store):
    cfg = EdgeConfig.model_validate(
        {"model": {"name": "bright", "store": str(store)}, "decision": {"accept_below": 0.1, "reject_at": 0.2}}
    )
    assert Predictor(cfg).policy.reject_at == 0.2
    assert Predictor(cfg, "bright@1").policy.reject_at == 0.2
    assert Predictor(cfg, "colour").policy.reject_at == 0.5


# -- models ----------------------------------------------------------------------------------------------------------


def test_models_are_listed_and_shown(session, store):
    rows = json.loads(run(models, session, "list", "--json").stdout)
    mine = {row["model"]: row for row in rows if not row["shipped"]}
    assert set(mine) == {"bright@1", "colour@1", "backbone@1"}
    assert mine["bright@1"]["station"]
    assert mine["bright@1"]["kind"] == "heatmap"
    assert "bright@1" in run(models, session, "list").stdout
    about = json.loads(run(models, session, "show", "colour", "--json").stdout)
    assert about["output"]["labels"] == ["red", "green", "blue"]
    assert "licence" in run(models, session, "show", "colour").stdout
    with pytest.raises(UsageError, match="did you mean 'colour'"):
        run(models, session, "show", "color")


def test_whole_bundles_verify_and_broken_ones_do_not(session, store):
    result = run(models, session, "verify", "bright", "--json")
    (row,) = json.loads(result.stdout)
    assert (row["ok"], row["golden"]["pictures"], result.exit_code) == (True, 1, 0)
    assert "good" in run(models, session, "verify", "bright").stdout
    with (store / "bright" / "1" / "model.tflite").open("r+b") as file:
        file.write(b"?")
    for reference in ("bright", store / "bright" / "1"):
        result = run(models, session, "verify", reference, "--json")
        assert result.exit_code == 1
        assert "model.tflite was altered" in json.loads(result.stdout)[0]["problem"]
    assert run(models, session, "verify", "colour").exit_code == 0
    assert run(models, session, "verify").exit_code == 1  # all of them, one is broken


def test_any_file_may_be_probed(session, tiny_model, tmp_path):
    result = run(models, session, "probe", tiny_model, "--seconds", "0.05", "--json")
    assert json.loads(result.stdout)["ok"]
    assert "int8 1x32x32x3  scale 0.00392157 zero -128" in run(models, session, "probe", tiny_model).stdout
    (tmp_path / "bad.tflite").write_bytes(tiny_model.read_bytes()[:200])
    result = run(models, session, "probe", tmp_path / "bad.tflite", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["problem"]
    result = run(models, session, "probe", tmp_path / "absent.tflite")
    assert (result.exit_code, "refused:" in result.stderr) == (1, True)


def test_the_real_command_exits_as_promised(store, pictures):
    """Once through a real process: exit codes, clean stdout, no traceback."""
    common = ["--set", f"model.store={json.dumps(str(store))}", "--set", "model.name='bright'"]

    def call(*args):
        return subprocess.run(
            [sys.executable, "-m", "edge_runtime.cli.main", *common, *map(str, args)],
            capture_output=True, text=True, env={**os.environ, "COLUMNS": "120"}, timeout=60, check=False,
        )  # fmt: skip

    good = call("predict", pictures / "bright.png", "--json")
    assert (good.returncode, json.loads(good.stdout)[0]["verdict"], good.stderr) == (0, "reject", "")
    assert call("predict", pictures / "text.jpg").returncode == 1
    wrong = call("predict", pictures / "bright.png", "--model", "nothing", "--json")
    assert wrong.returncode == 2
    assert "error" in json.loads(wrong.stdout)
    assert call("predict").returncode == 2
    for result in (good, wrong):
        assert "Traceback" not in result.stderr
