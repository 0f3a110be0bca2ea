"""Anomaly scores on made-up feature maps: what is unlike good parts scores high, damaged memories are refused."""

import json
import zipfile
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.core.errors import ModelError
from edge_runtime.inference.anomaly import AnomalyModel, View, blur
from edge_runtime.learning.anomaly_fit import (
    FEWEST_PARTS,
    AnomalySpec,
    fit_anomaly,
    looks_the_same,
    student_quantile,
    upper_limit,
)

SIDE = 8
CHANNELS = (4, 6, 5)
SPEC = AnomalySpec(
    views=(
        View("detail", tap=1, blur_cells=0.7),
        View("form", tap=2, weight=0.5),
        View("grain", tap=0, pool=4, centre=False, hottest=2),
        View("texture", tap=1, pool=4, whiten=True, hottest=2),
    ),
    over_reject=0.02,
)


def good_part(rng, number=None):
    """Maps with a pattern of their own at each place, noise on top, and light that changes from part to part."""
    maps = []
    for tap, channels in enumerate(CHANNELS):
        pattern = np.random.default_rng(tap).normal(0, 2, (SIDE, SIDE, channels))
        maps.append((pattern + rng.normal(0, 0.3, pattern.shape) + rng.normal(0, 0.2)).astype(np.float32))
    return tuple(maps)


def scratched(maps, depth, at=(3, 4)):
    changed = tuple(grid.copy() for grid in maps)
    for grid in changed:
        grid[at] += depth
    return changed


@pytest.fixture(scope="module")
def good_parts():
    rng = np.random.default_rng(1)
    return [good_part(rng) for _ in range(60)]


@pytest.fixture(scope="module")
def model(good_parts):
    return fit_anomaly(good_parts[:40], SPEC, np.random.default_rng(7))


def test_good_parts_pass_and_bad_ones_do_not(model, good_parts):
    rng = np.random.default_rng(2)
    good = [model.score(maps).score for maps in good_parts[40:]]
    bad = [
        model.score(scratched(good_part(rng), 3.0, (rng.integers(SIDE), rng.integers(SIDE)))).score for _ in range(20)
    ]
    assert max(good) < 0.5 < min(bad)
    assert 0.02 < np.median(good) < 0.3  # about 0.1 for the middle good part


def test_heat_is_where_the_defect_is(model, good_parts):
    heat = model.score(scratched(good_parts[50], 3.0, (6, 1))).heat
    assert heat.shape == (SIDE, SIDE)
    assert heat.dtype == np.float32
    assert heat[6, 1] == heat.max() > 0.5
    assert model.score(good_parts[50]).heat.max() < 0.5


@settings(max_examples=30, deadline=None)
@given(
    depths=st.lists(st.floats(0.5, 1e4), min_size=2, max_size=5, unique=True),
    row=st.integers(0, SIDE - 1),
    column=st.integers(0, SIDE - 1),
)
def test_deeper_defects_never_score_lower(model, good_parts, depths, row, column):
    scores = [model.score(scratched(good_parts[45], depth, (row, column))).score for depth in sorted(depths)]
    assert all(later >= earlier - 0.02 for earlier, later in pairwise(scores))
    assert all(0.0 <= score <= 1.0 for score in scores)


def test_the_same_parts_teach_the_same_model(good_parts, tmp_path):
    for name in ("a.npz", "b.npz"):
        fit_anomaly(iter(good_parts[:25]), SPEC, np.random.default_rng(3), range(25)).save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_saved_model_says_the_same(model, good_parts, tmp_path):
    model.save(tmp_path / "memory.npz")
    again = AnomalyModel.load(tmp_path / "memory.npz")
    for maps in (good_parts[41], scratched(good_parts[42], 2.0)):
        assert again.score(maps).score == model.score(maps).score
        assert np.array_equal(again.score(maps).heat, model.score(maps).heat)
    assert again.interval == model.interval
    assert np.array_equal(again.held_back, model.held_back)


def test_each_part_is_judged_once_and_variants_only_teach(good_parts):
    maps = [variant for part in good_parts[:24] for variant in (part, scratched(part, 0.1))]
    taught = fit_anomaly(maps, SPEC, np.random.default_rng(1), np.repeat(np.arange(24), 2).tolist())
    assert taught.held_back.shape == (24,)
    low, high = taught.interval
    assert 0.0 <= low < 0.5 < high <= 1.0


def test_the_limit_keeps_its_promise_on_parts_that_nobody_showed(good_parts):
    """Over many lessons of 30 parts, about the promised share of further good parts is over the limit."""
    over = []
    rng = np.random.default_rng(11)
    for lesson in range(12):
        parts = [good_part(rng) for _ in range(80)]
        taught = fit_anomaly(parts[:30], AnomalySpec(SPEC.views, 0.05), np.random.default_rng(lesson))
        over += [taught.score(maps).score >= 0.5 for maps in parts[30:]]
    assert 0.01 < np.mean(over) < 0.10


def test_stricter_over_reject_gives_a_higher_limit(good_parts):
    limits = [
        fit_anomaly(good_parts, AnomalySpec(SPEC.views, share), np.random.default_rng(1)).picture_limit.at
        for share in (0.2, 0.05, 0.01, 0.001)
    ]
    assert limits == sorted(limits)


def test_too_few_parts_are_refused_with_the_number(good_parts):
    with pytest.raises(ModelError, match=f"19 good parts are too few.*at least {FEWEST_PARTS}"):
        fit_anomaly(good_parts[:19], SPEC, np.random.default_rng(1))
    with pytest.raises(ModelError, match="19 good parts"):  # variants are no parts
        fit_anomaly(good_parts[:38], SPEC, np.random.default_rng(1), np.repeat(np.arange(19), 2).tolist())


@pytest.mark.parametrize("share", [0.0, -1.0, 0.6, float("nan")])
def test_impossible_over_reject_is_refused(good_parts, share):
    with pytest.raises(ModelError, match="over-reject"):
        fit_anomaly(good_parts, AnomalySpec(SPEC.views, share), np.random.default_rng(1))


def test_maps_of_another_backbone_are_refused(model, good_parts):
    with pytest.raises(ModelError, match="was taught with"):
        model.score(tuple(grid[:4] for grid in good_parts[0]))
    with pytest.raises(ModelError, match="the backbone has 1"):
        model.score(good_parts[0][:1])
    with pytest.raises(ModelError, match="no numbers"):
        model.score(tuple(np.full_like(grid, np.nan) for grid in good_parts[0]))
    bad = [*good_parts[:30], tuple(grid * np.nan for grid in good_parts[31])]
    with pytest.raises(ModelError, match="no numbers"):
        fit_anomaly(bad, SPEC, np.random.default_rng(1))


def test_mirrored_parts_teach_only_where_they_look_the_same():
    rng = np.random.default_rng(5)
    plain = [good_part(rng) for _ in range(25)]
    alike = [good_part(rng) for _ in range(25)]
    mirrored = [tuple(grid[:, ::-1] for grid in part) for part in plain]
    assert looks_the_same(plain, alike, np.random.default_rng(1), SPEC.views)
    assert not looks_the_same(plain, mirrored, np.random.default_rng(1), SPEC.views)


@pytest.mark.parametrize(
    ("freedom", "probability", "expected"),  # tables of Student's t
    [(19, 0.95, 1.7291), (19, 0.99, 2.5395), (29, 0.99, 2.4620), (60, 0.999, 3.2317), (19, 0.9995, 3.8834)],
)
def test_student_quantiles_are_those_of_the_tables(freedom, probability, expected):
    assert student_quantile(freedom, probability) == pytest.approx(expected, abs=2e-4)


def test_upper_limit_is_the_prediction_limit_of_the_book():
    raw = np.arange(20.0)
    assert upper_limit(raw, 0.05) == pytest.approx(9.5 + 1.7291 * raw.std(ddof=1) * np.sqrt(1.05), abs=1e-3)


def test_blur_keeps_the_mean_of_an_even_field_and_spreads_a_point():
    assert np.allclose(blur(np.full((5, 7), 3.0, np.float32), 1.0), 3.0)
    point = np.zeros((9, 9), np.float32)
    point[4, 4] = 1.0
    spread = blur(point, 1.0)
    assert spread.sum() == pytest.approx(1.0, abs=1e-5)
    assert spread[4, 4] == spread.max() == pytest.approx(0.159, abs=0.003)


def test_damaged_memories_are_refused_in_a_sentence(model, tmp_path):
    path = tmp_path / "memory.npz"
    model.save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(4)
    damages = [whole[:cut] for cut in (0, 1, 100, len(whole) // 2, len(whole) - 1)]
    for _ in range(60):
        flipped = bytearray(whole)
        flipped[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
        damages.append(bytes(flipped))
    refused = 0
    for damaged in damages:
        path.write_bytes(damaged)
        try:
            AnomalyModel.load(path)
        except ModelError as err:
            assert str(path) in str(err)
            refused += 1
    assert refused >= len(damages) // 2  # the rest hit bytes of the archive that carry nothing: names, times


def test_hostile_memories_are_refused(model, tmp_path):
    path = tmp_path / "memory.npz"
    with pytest.raises(ModelError, match="no such file"):
        AnomalyModel.load(path)
    np.savez(path, about=np.array({"a": object()}, dtype=object))
    with pytest.raises(ModelError, match="damaged"):
        AnomalyModel.load(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("about.npy", bytes(80 << 20))
    with pytest.raises(ModelError, match="80 MB"):
        AnomalyModel.load(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda about, arrays: about.update(schema=2), "teach again"),
        (lambda about, arrays: about.update(views=[]), "views"),
        (lambda about, arrays: about["picture_limit"].update(at=-9.0), "limit"),
        (lambda about, arrays: about["views"][0].update(pool=0), "not possible"),
        (lambda about, arrays: about["views"][0].update(log_std=0.0), "not possible"),
        (lambda about, arrays: about["views"][0].update(unknown=1), "damaged"),
        (lambda about, arrays: arrays.update(mean_0=arrays["mean_0"][:4]), "do not fit"),
        (lambda about, arrays: arrays.update(mean_0=arrays["mean_0"].astype(np.float64)), "float32"),
        (lambda about, arrays: arrays.update(per_spread_0=-arrays["per_spread_0"]), "positive"),
        (lambda about, arrays: arrays.update(mix_3=arrays["mix_3"] * np.nan), "finite"),
        (lambda about, arrays: arrays.pop("mean_2"), "mean_2"),
    ],
)
def test_memories_that_make_no_sense_are_refused(model, tmp_path, change, sentence):
    path = tmp_path / "memory.npz"
    model.save(path)
    with np.load(path) as archive:
        arrays = dict(archive)
    about = json.loads(str(arrays["about"]))
    change(about, arrays)
    np.savez(path, **(arrays | {"about": np.array(json.dumps(about))}))
    with pytest.raises(ModelError, match=sentence):
        AnomalyModel.load(path)
