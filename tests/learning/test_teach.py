"""Teaching from pictures to a model in the store that `predict` uses at once, on drawn surfaces and on real tiles."""

import re

import cv2
import numpy as np
import pytest

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.errors import ModelError, UsageError
from edge_runtime.core.manifest import Kind
from edge_runtime.core.share_interval import share_interval
from edge_runtime.inference.anomaly import AnomalyModel
from edge_runtime.learning.teach import MOST_VARIANTS, learn, teach
from edge_runtime.learning.teach_pictures import MOST_PICTURES, load_pictures, variants
from edge_runtime.media.picture import decode_picture
from edge_runtime.modelstore.bundle import MEMORY, load_bundle
from edge_runtime.modelstore.store import ModelStore, shipped_models
from edge_runtime.predictors.golden import check_golden
from edge_runtime.predictors.vision import FeatureModel, open_engine, open_vision_model

GOOD = 24


def surface(seed, defect=False):
    """A brushed plate with a hole that is always in the same corner; a defect is a dark scratch somewhere."""
    rng = np.random.default_rng(seed)
    plate = cv2.blur(rng.normal(0, 1, (160, 200)).astype(np.float32), (1, 15)) * 40 + 120 + rng.normal(0, 8)
    cv2.circle(plate, (30, 30), 12, 20, -1, cv2.LINE_AA)
    if defect:
        x, y = rng.integers(60, 140, 2)
        cv2.line(plate, (int(x), int(y)), (int(x) + 30, int(y) - 25), 50, 3, cv2.LINE_AA)
    return np.ascontiguousarray(np.repeat(plate.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2))


@pytest.fixture(scope="module")
def backbone():
    folder = shipped_models()
    if folder is None or not (folder / "backbone" / "1").is_dir():
        pytest.skip("no backbone is shipped with this checkout; run tools/train/backbone")
    return load_bundle(folder / "backbone" / "1")


@pytest.fixture(scope="module")
def good_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    for seed in range(GOOD):
        cv2.imwrite(str(folder / f"part{seed:03}.png"), surface(seed))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    (folder / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture(scope="module", autouse=True)
def few_variants():
    """Three pictures through the backbone for each part instead of ten: these plates are easy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edge_runtime.learning.teach.MOST_VARIANTS", 1)
        yield


@pytest.fixture(scope="module")
def taught(backbone, good_folder, tmp_path_factory):
    store = ModelStore(tmp_path_factory.mktemp("store"))
    seen = []
    report = teach(good_folder, "plate", store, EdgeConfig(), progress=lambda *step: seen.append(step))
    return store, report, seen


def test_the_shipped_backbone_is_whole_and_says_what_its_maker_saw(backbone):
    assert backbone.manifest.kind is Kind.FEATURES
    report = check_golden(backbone)
    assert report.problem == ""
    assert report.pictures >= 2
    assert "Apache License" in (backbone.folder / "LICENSE").read_text()
    assert all(backbone.manifest.metrics[f"int8.{tap}.correlation"] > 0.97 for tap in ("edges", "shapes", "forms"))


def test_a_taught_model_finds_what_it_never_saw(taught):
    store, _, _ = taught
    model = open_vision_model(store.resolve("plate"))
    good = [model(surface(seed)).score for seed in range(100, 110)]
    found = [model(surface(seed, defect=True)) for seed in range(200, 210)]
    assert min(prediction.score for prediction in found) > max(good)
    assert np.median(good) < 0.5
    assert all(prediction.score >= 0.5 for prediction in found)
    assert sum(score >= 0.5 for score in good) <= 1


def test_the_heat_lies_on_the_scratch(taught):
    store, _, _ = taught
    model = open_vision_model(store.resolve("plate"))
    heat = model(surface(200, defect=True)).heat
    plain, marked = surface(200), surface(200, defect=True)
    difference = cv2.dilate(np.abs(plain.astype(int) - marked).max(axis=2).astype(np.uint8), np.ones((15, 15)))
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert difference[int((row + 0.5) / heat.shape[0] * 160), int((column + 0.5) / heat.shape[1] * 200)] > 0


def test_the_report_says_what_happened(taught, backbone):
    _, report, seen = taught
    assert report.model == "plate@1"
    assert report.pictures == GOOD
    assert len(report.skipped) == 1
    assert report.skipped[0].startswith("broken.jpg:")
    assert backbone.digest[:12] in report.backbone
    low, high = report.limit_interval
    assert 0 < low < 0.5 < high < 1
    assert report.seconds < 120
    assert set(report.as_json()) >= {"model", "folder", "pictures", "skipped", "limit_interval", "seconds"}
    assert {what for what, _, _ in seen} == {"looking", "teaching"}


def test_a_part_with_a_hole_on_one_side_is_not_taught_mirrored(taught):
    assert taught[1].mirrored == ()


def test_the_bundle_stands_on_its_own(taught, backbone):
    _, report, _ = taught
    bundle = load_bundle(report.folder)
    manifest = bundle.manifest
    assert manifest.kind is Kind.ANOMALY
    assert (bundle.folder / "model.tflite").read_bytes() == backbone.model_path.read_bytes()
    assert (bundle.folder / "LICENSE").read_bytes() == (backbone.folder / "LICENSE").read_bytes()
    assert manifest.input == backbone.manifest.input
    assert manifest.thresholds.over_reject == 0.01
    assert sum(manifest.reference.score_histogram) == pytest.approx(1.0, abs=1e-3)
    assert backbone.digest in (bundle.folder / "CARD.md").read_text()
    assert check_golden(bundle).problem == ""
    assert len(AnomalyModel.load(bundle.folder / MEMORY).held_back) == GOOD


def test_teaching_again_makes_the_next_version_with_the_same_memory(taught, good_folder):
    store, _, _ = taught
    again = teach(good_folder, "plate", store)
    assert again.model == "plate@2"
    first, second = (store.resolve(f"plate@{version}") for version in (1, 2))
    assert first.manifest.files[MEMORY] == second.manifest.files[MEMORY]
    assert store.resolve("plate").label == "plate@2"


def test_what_cannot_be_taught_is_refused_in_a_sentence(backbone, good_folder, tmp_path):
    store = ModelStore(tmp_path / "store")
    for number in range(5):
        cv2.imwrite(str(tmp_path / f"{number}.png"), surface(number))
    (tmp_path / "6.png").write_bytes(b"nonsense")
    with pytest.raises(UsageError, match=r"5 readable pictures.*at least 20.*6\.png"):
        teach(tmp_path, "few", store)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no pictures"):
        teach(tmp_path / "empty", "none", store)
    with pytest.raises(UsageError, match="cannot be read"):
        teach(tmp_path / "absent", "none", store)
    with pytest.raises(UsageError, match="is no name"):
        teach(good_folder, "Not a name!", store)
    with pytest.raises(UsageError, match="another name"):
        teach(good_folder, "backbone", store)
    with pytest.raises(ModelError, match="backbone"):
        teach(good_folder, "plate", ModelStore(tmp_path / "store", shipped=[]))
    assert not any((tmp_path / "store").glob("*/*"))


def test_a_large_folder_is_thinned_evenly(tmp_path):
    for number in range(2 * MOST_PICTURES):
        cv2.imwrite(str(tmp_path / f"{number:04}.png"), np.full((2, 2, 3), number % 256, np.uint8))
    pictures = load_pictures(tmp_path)
    assert len(pictures.images) == MOST_PICTURES
    assert [int(image[0, 0, 0]) for image in pictures.images[:4]] == [0, 2, 4, 6]
    assert "evenly spaced" in pictures.skipped[0]


def test_variants_are_of_the_same_size_and_seeded():
    picture = surface(1)
    first, second = (list(variants(picture, ("upside down",), 3, np.random.default_rng(5))) for _ in range(2))
    assert len(first) == 5
    assert first[0] is picture
    assert np.array_equal(first[1], picture[::-1])
    assert all(np.array_equal(a, b) and a.shape == picture.shape for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[2], first[3])


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),  # Clopper-Pearson as in the tables
    [(0, 20, 0.0, 0.1684), (1, 20, 0.0013, 0.2487), (10, 20, 0.2720, 0.7280), (20, 20, 0.8316, 1.0)],
)
def test_share_intervals_are_those_of_the_tables(hits, count, low, high):
    assert share_interval(hits, count) == pytest.approx((low, high), abs=2e-4)


def test_real_tiles_are_told_apart(real_data, backbone, monkeypatch):
    """Good magnetic tiles of some parts teach, all pictures of other parts are judged: a split of tools/bench/teach."""
    folder = real_data / "vision" / "magnetic_tile"
    if not folder.is_dir():
        pytest.skip(f"no magnetic tiles in {folder}; set EDGE_RUNTIME_TEST_DATA")
    shots = sorted(
        (int(re.search(r"num_(\d+)", path.stem).group(1)), "MT_Free" not in str(path), path)
        for path in folder.glob("MT_*/*.jpg")
    )
    parts, last = {}, -(10**9)
    for number, _, _ in shots:  # exposures of one tile have neighbouring numbers
        parts[number] = number if number - last > 1000 else parts[last]
        last = number
    order = np.random.default_rng(3).permutation(sorted(set(parts.values())))
    taught, taught_parts = [], set()
    for part in order:
        good = [path for number, is_bad, path in shots if parts[number] == part and not is_bad]
        if good and len(taught) + len(good) <= 35:
            taught += good
            taught_parts.add(part)
    monkeypatch.setattr("edge_runtime.learning.teach.MOST_VARIANTS", MOST_VARIANTS)
    features = FeatureModel(backbone, open_engine(backbone))
    model = learn(features, [decode_picture(path.read_bytes()) for path in taught]).model
    judged = [(is_bad, path) for number, is_bad, path in shots if parts[number] not in taught_parts]
    scores = [(is_bad, model.score(features(decode_picture(path.read_bytes()))).score) for is_bad, path in judged]
    bad, good = ([score for was_bad, score in scores if was_bad is kind] for kind in (True, False))
    auroc = np.mean([(b > g) + 0.5 * (b == g) for b in bad for g in good])
    assert len(good) >= 10
    assert auroc >= 0.84  # mean of many splits 0.9, standard deviation of one split 0.03
