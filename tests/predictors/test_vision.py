"""Bundles put to work: what they say of a picture, where, and how bundles that do not fit are refused."""

import math
import shutil
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from edge_runtime.config.schema import ModelConfig
from edge_runtime.core.errors import ModelError
from edge_runtime.core.messages import Prediction
from edge_runtime.inference.engine import Engine
from edge_runtime.modelstore.bundle import load_bundle, seal_bundle
from edge_runtime.modelstore.store import shipped_models
from edge_runtime.predictors.golden import EXPECTED, add_golden, check_golden
from edge_runtime.predictors.vision import PICTURE_KINDS, FeatureModel, open_engine, open_vision_model


def test_a_heat_map_model_finds_the_bright_corner(make_bundle, bright_corner):
    model = open_vision_model(make_bundle("heatmap"))
    prediction = model(bright_corner)
    assert prediction.model == "tiny-heatmap@1"
    assert prediction.score == pytest.approx(1.0, abs=0.01)
    (region,) = prediction.regions
    assert (region.x, region.y, region.w, region.h) == (0, 0, 0.5, 0.5)
    assert np.allclose(prediction.heat, np.kron([[1, 0], [0, 0]], np.ones((2, 2))), atol=0.01)
    assert not prediction.heat.flags.writeable
    assert set(prediction.timings_ms) == {"prepare", "invoke", "decode"}
    assert all(ms >= 0 for ms in prediction.timings_ms.values())


def test_regions_and_heat_lie_on_the_frame_not_on_the_models_input(make_bundle):
    image = np.zeros((200, 400, 3), np.uint8)
    image[100:150, 300:400] = 255
    cases = (
        {"width": 32, "height": 32},  # letterbox: bars above and below
        {"width": 32, "height": 32, "fit": "stretch"},
        {"width": 32, "height": 32, "fit": "stretch", "roi": (0.5, 0.25, 0.5, 0.75)},
    )
    for number, spec in enumerate(cases):
        prediction = open_vision_model(make_bundle("heatmap", name=f"m{number}", input=spec))(image)
        best = prediction.regions[0]
        assert (best.x + best.w / 2, best.y + best.h / 2) == pytest.approx((0.875, 0.625), abs=0.15)
        assert 0 <= best.x <= best.x + best.w <= 1
        assert 0 <= best.y <= best.y + best.h <= 1
        rows, columns = np.unravel_index(prediction.heat.argmax(), prediction.heat.shape)
        assert (columns + 0.5) / prediction.heat.shape[1] == pytest.approx(0.875, abs=0.15)
        assert (rows + 0.5) / prediction.heat.shape[0] == pytest.approx(0.625, abs=0.3)


def test_padding_is_never_a_defect(make_bundle):
    """A dark frame between grey bars: what is bright is the padding, and nobody asked about it."""
    model = open_vision_model(make_bundle("heatmap", input={"pad": "grey"}, output={"region_at": 0.3}))
    prediction = model(np.zeros((500, 1000, 3), np.uint8))
    assert prediction.score == pytest.approx(0.0, abs=0.01)
    assert prediction.regions == ()


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1)])
def test_picture_that_shows_nothing_is_refused_not_accepted(make_bundle, shape):
    with pytest.raises(ModelError, match="too small to be judged"):
        open_vision_model(make_bundle("heatmap"))(np.full((*shape, 3), 200, np.uint8))


@pytest.mark.parametrize("shape", [(8, 8), (31, 33), (8, 3000), (4000, 6000)])
def test_every_size_of_picture_gets_an_answer(make_bundle, shape):
    for kind in ("heatmap", "classification"):
        prediction = open_vision_model(make_bundle(kind))(np.full((*shape, 3), 200, np.uint8))
        assert 0.0 <= prediction.score <= 1.0


def test_a_classifier_sees_colours(make_bundle):
    model = open_vision_model(make_bundle("classification"))
    red, green = np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20, 3), np.uint8)
    red[..., 0], green[..., 1] = 255, 255
    assert model(red).score > 0.99
    assert model(green).score < 0.01
    assert max(model(green).scores, key=model(green).scores.get) == "green"


@pytest.mark.parametrize(
    ("kind", "changes", "sentence"),
    [
        ("heatmap", {"output": {"labels": ["a", "b"]}}, "1 channels, output.labels has 2"),
        ("classification", {"output": {"labels": ["a"], "defect_labels": []}}, "tells 3 classes, output.labels has 1"),
        ("heatmap", {"input": {"width": 64}}, "input is 1x32x32x3, the manifest says 1x32x64x3"),
        ("heatmap", {"input": {"colour": "grey"}}, "the manifest says 1x32x32x1 (grey)"),
        ("heatmap", {"output": {"defect_labels": ["dent"]}}, "'dent', which is none of output.labels"),
        ("features", {}, "is of kind features, it does not judge pictures"),
    ],
)
def test_a_bundle_whose_model_is_not_what_it_says_is_refused(make_bundle, kind, changes, sentence):
    with pytest.raises(ModelError) as caught:
        open_vision_model(make_bundle(kind, **changes))
    assert sentence in str(caught.value)


def test_a_bundle_without_input_or_output_is_refused(make_bundle):
    bundle = make_bundle("heatmap")
    for part in ("input", "output"):
        table = bundle.manifest.model_dump(exclude_none=True)
        del table[part]
        shutil.copytree(bundle.folder, bundle.folder.parent / part, dirs_exist_ok=True)
        (bundle.folder.parent / part / "labels.txt").unlink()
        with pytest.raises(ModelError, match=rf"no \[{part}\]"):
            open_vision_model(seal_bundle(bundle.folder.parent / part, table))


def test_settings_of_the_station_reach_the_engine(make_bundle):
    with pytest.raises(ModelError, match=r"clear model.delegate"):
        open_vision_model(make_bundle("heatmap"), ModelConfig(delegate="libnothing.so"))
    model = open_vision_model(load_bundle(make_bundle("heatmap", name="b").folder), ModelConfig(threads=2, warm_up=0))
    assert isinstance(model(np.zeros((8, 8, 3), np.uint8)), Prediction)


def test_a_model_that_was_altered_after_its_bundle_was_opened_is_refused(make_bundle):
    bundle = make_bundle("heatmap")
    with bundle.model_path.open("ab") as file:
        file.write(b"!")
    with pytest.raises(ModelError, match="was altered since its bundle was opened"):
        open_vision_model(bundle)


def test_two_models_on_two_threads_do_not_disturb_each_other(make_bundle, bright_corner):
    bundle = make_bundle("heatmap")
    dark = np.zeros_like(bright_corner)
    wrong = []

    def judge(image: np.ndarray, expected: float) -> None:
        model = open_vision_model(bundle)
        wrong.extend(abs(model(image).score - expected) > 0.01 for _ in range(200))

    threads = [threading.Thread(target=judge, args=args) for args in ((bright_corner, 1.0), (dark, 0.0))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 400
    assert not any(wrong)


def test_a_model_that_answers_garbage_raises(make_bundle, bright_corner, monkeypatch):
    model = open_vision_model(make_bundle("classification"))
    for garbage in (np.full((1, 3), np.nan, np.float32), np.full((1, 3), 9, np.float32), np.zeros((1, 2), np.float32)):
        monkeypatch.setattr(model.engine, "invoke", lambda *_, garbage=garbage: (garbage,))
        with pytest.raises(ModelError):
            model(bright_corner)


def test_a_backbone_gives_maps(make_bundle, bright_corner):
    bundle = make_bundle("features")
    maps = FeatureModel(bundle, open_engine(bundle))(bright_corner)
    assert [grid.shape for grid in maps] == [(4, 4, 1), (2, 2, 1)]
    assert np.allclose(maps[1][:, :, 0], [[1, 0], [0, 0]], atol=0.01)


@pytest.mark.parametrize(("said", "score"), [(0.8, 0.8), (math.nan, None), (3.0, None)])
def test_what_was_learnt_from_good_parts_judges_the_maps(
    make_bundle, bright_corner, tmp_path, monkeypatch, said, score
):
    class Learnt:
        """In place of the real one: the heat is the finer map."""

        @staticmethod
        def load(path):
            assert path.name == "memory.npz"
            return Learnt()

        def score(self, maps):
            return SimpleNamespace(score=said, heat=maps[0][:, :, 0])

    monkeypatch.setitem(sys.modules, "edge_runtime.inference.anomaly", SimpleNamespace(AnomalyModel=Learnt))
    folder = tmp_path / "learnt"
    folder.mkdir()
    (folder / "model.tflite").write_bytes(make_bundle("features").model_path.read_bytes())
    (folder / "memory.npz").write_bytes(b"learnt")
    given = {"width": 32, "height": 32, "scale": 1 / 255}
    table = {"name": "learnt", "version": "1", "kind": "anomaly", "licence": "x", "input": given}
    model = open_vision_model(seal_bundle(folder, table | {"output": {"labels": ["odd"]}}))
    if score is None:
        with pytest.raises(ModelError, match=r"a score is in 0..1"):
            model(bright_corner)
        return
    prediction = model(bright_corner)
    assert prediction.score == score
    assert prediction.regions[0].label == "odd"
    assert prediction.heat.shape == (4, 4)


# -- golden pictures -------------------------------------------------------------------------------------------------


def test_golden_pictures_are_asked_in_a_child_and_agree(make_bundle, bright_corner):
    for kind in ("heatmap", "classification", "features"):
        bundle = add_golden(make_bundle(kind), {"corner": bright_corner, "dark": np.zeros((9, 9, 3), np.uint8)})
        assert EXPECTED in bundle.manifest.files
        assert "ai-edge-litert" in bundle.manifest.runtime or "tflite" in bundle.manifest.runtime
        report = check_golden(bundle)
        assert (report.problem, report.pictures) == ("", 2)
        assert report.worst < 1e-4


def test_a_model_that_says_something_else_is_noticed(make_bundle, bright_corner):
    bundle = add_golden(make_bundle("heatmap"), {"corner": bright_corner})
    content = bytearray((bundle.folder / "model.tflite").read_bytes())
    weights = content.find(b"\x7f" * 64)
    content[weights : weights + 192] = bytes(192)  # sealed again, as by somebody who means it
    (bundle.folder / "model.tflite").write_bytes(content)
    report = check_golden(seal_bundle(bundle.folder, bundle.manifest))
    assert "differs by" in report.problem
    assert "corner.png" in report.problem


@pytest.mark.parametrize(
    ("expected", "sentence"),
    [
        ("not json", "cannot be read"),
        ('{"other.png": {"score": 1}}', "names 'other.png'"),
        ('{"corner.png": {"score": "high"}}', "cannot be read"),
        ('{"corner.png": {}}', "differs by 1.000"),
        ("[]", "cannot be read"),
    ],
)
def test_golden_expectations_that_lie_are_noticed(make_bundle, bright_corner, expected, sentence):
    bundle = add_golden(make_bundle("heatmap"), {"corner": bright_corner})
    (bundle.folder / EXPECTED).write_text(expected)
    assert sentence in check_golden(seal_bundle(bundle.folder, bundle.manifest)).problem


def test_a_model_that_cannot_be_loaded_is_noticed_in_the_child(make_bundle, bright_corner):
    bundle = add_golden(make_bundle("heatmap"), {"corner": bright_corner})
    content = (bundle.folder / "model.tflite").read_bytes()
    (bundle.folder / "model.tflite").write_bytes(content[:400])
    assert check_golden(seal_bundle(bundle.folder, bundle.manifest)).problem


def test_every_shipped_bundle_is_whole_and_says_what_it_said():
    folder = shipped_models()
    if folder is None:
        pytest.skip("no bundles are shipped with this checkout")
    for manifest in sorted(folder.glob("*/*/manifest.toml")):
        bundle = load_bundle(manifest.parent)
        report = check_golden(bundle)
        assert report.problem == "", f"{bundle.label}: {report.problem}"
        assert report.pictures >= 1
        if bundle.manifest.kind in PICTURE_KINDS:
            assert 0.0 <= open_vision_model(bundle)(np.zeros((720, 1280, 3), np.uint8)).score <= 1.0


# -- real models -----------------------------------------------------------------------------------------------------


def labels_of(path):
    return [line or "?" for line in path.read_text().splitlines()]


REAL = {
    "person": ("classify/vww_96_int8", "classification",
               {"width": 96, "height": 96, "scale": 1 / 255, "fit": "stretch"},
               {"labels": ["no person", "person"], "defect_labels": ["person"]}),
    "coco": ("detect/coco_ssd_mobilenet_v1_1.0_quant_2018_06_29", "detection",
             {"width": 300, "height": 300, "scale": 1 / 128, "offset": -1.0, "fit": "stretch"}, "detect/labelmap.txt"),
    "deeplab": ("segment/deeplabv3_float", "heatmap",
                {"width": 257, "height": 257, "scale": 1 / 127.5, "offset": -1.0}, "segment/labelmap.txt"),
    "imagenet": ("classify/mobilenet_v1_0.25_128_quant", "classification",
                 {"width": 128, "height": 128, "scale": 1 / 128, "offset": -1.0}, "classify/imagenet_labels.txt"),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_models_see_the_rider_and_her_horse(real_data, make_bundle, name):
    from edge_runtime.media.picture import decode_picture

    model, kind, given, output = REAL[name]
    models = real_data / "models"
    if isinstance(output, str):
        output = {"labels": labels_of(models / output), "defect_labels": []}
    if name == "deeplab":
        output["activation"] = "softmax"
    bundle = make_bundle(kind, name=name, model=models / f"{model}.tflite", input=given, output=output)
    picture = decode_picture((real_data / "vision/scenes/segmentation_input_rotation0.jpg").read_bytes())
    prediction = open_vision_model(bundle)(picture)
    if name == "imagenet":
        assert len(prediction.scores) == 20
        return
    assert prediction.scores["person"] > 0.7
    if name != "person":
        person = next(region for region in prediction.regions if region.label == "person")
        horse = next(region for region in prediction.regions if region.label == "horse")
        assert person.x + person.w / 2 < horse.x + horse.w / 2


def test_a_tensor_goes_in_and_out_as_the_raw_interpreter_has_it(real_data, make_bundle):
    """The whole composition against the bare runtime: same bytes out for the same picture."""
    path = real_data / "models/classify/vww_96_int8.tflite"
    bundle = make_bundle("classification", name="vww", model=path, input={"width": 96, "height": 96, "scale": 1 / 255},
                         output={"labels": ["no", "yes"], "defect_labels": ["yes"]})  # fmt: skip
    picture = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    raw = Engine(path)
    stored = raw.invoke((picture.astype(np.int16) - 128).astype(np.int8)[None])[0]
    expected = (stored.astype(np.float64) + 128) / 256
    assert list(open_vision_model(bundle)(picture).scores.values()) == expected.ravel().tolist()


def test_verify_says_when_statistics_are_those_of_other_pictures(tmp_path):
    shutil.copytree(shipped_models() / "scratch" / "1", tmp_path / "scratch")
    bundle = load_bundle(tmp_path / "scratch")
    table = bundle.manifest.model_dump(exclude_none=True)
    table["reference"]["picture"]["levels"] = [200.0] * 5
    report = check_golden(seal_bundle(bundle.folder, table))
    assert report.problem == ""
    assert "would not be judged" in report.remark and "too dark" in report.remark
