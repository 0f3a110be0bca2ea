"""From a file to a plan: which kind each form is, what is asked, and what is refused with which words."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from edge_runtime.core.errors import EdgeError, ModelError, UsageError
from edge_runtime.core.manifest import Kind, OutputSpec
from edge_runtime.packing.answers import Desk, Told
from edge_runtime.packing.facts import Seen
from edge_runtime.packing.labels import label_names, nearest, short
from edge_runtime.packing.normalisation import normalisation
from edge_runtime.packing.picture_input import picture_input
from edge_runtime.packing.plan import Plan, make_plan, settle_signature, settle_size
from edge_runtime.packing.readings import is_in_pixels
from edge_runtime.packing.samples import find_samples
from tests.packing.conftest import looked_at
from tests.packing.test_metadata import task_library_metadata, with_metadata, with_zip
from tests.support import spot_models
from tests.support.tflite_files import Model

SPOT = Told(labels=("clean", "spot"), labels_from="names", defects=("spot",), normalise="0..1")


def planned(path, told: Told = SPOT, desk: Desk | None = None) -> Plan:
    """As `pack` goes about it."""
    desk = desk or Desk()
    facts = looked_at(path)
    if signature := settle_signature(facts, told, desk):
        facts = looked_at(path, signature)
    picture = picture_input(facts)
    size = settle_size(facts, picture, told, desk)
    if picture.is_open:
        facts = looked_at(path, told.signature, picture.shape(*size))
    plan = make_plan(facts, picture, size, told, desk)
    desk.refuse_missing("the file")
    return plan


GROUND = Told(labels=("background", "spot"), defects=("spot",), normalise="0..1")
THREE = Told(labels=("a", "spot", "c"), defects=("spot",), normalise="0..1")
FORMS = {
    "classifier": (spot_models.classifier(), SPOT, Kind.CLASSIFICATION, {"activation": "none"}),
    "logits": (spot_models.classifier(logits=True), SPOT, Kind.CLASSIFICATION, {"activation": "softmax"}),
    "planar": (spot_models.classifier(planar=True), SPOT, Kind.CLASSIFICATION, {"layout": "nchw"}),
    "open batch": (spot_models.classifier(open_batch=True), SPOT, Kind.CLASSIFICATION, {"width": 64}),
    "hybrid": (spot_models.classifier(hybrid=True), SPOT, Kind.CLASSIFICATION, {}),
    "unnamed": (spot_models.classifier(unnamed=True), SPOT, Kind.CLASSIFICATION, {}),
    "uint8 around 128": (
        spot_models.classifier(dtype="uint8"), SPOT, Kind.CLASSIFICATION, {"scale": 1 / 255},
    ),
    "int16": (spot_models.classifier(dtype="int16"), SPOT, Kind.CLASSIFICATION, {"scale": 1 / 255}),
    "ssd": (spot_models.ssd(), SPOT, Kind.DETECTION, {"boxes": "postprocess", "fit": "stretch"}),
    "yolov8": (spot_models.yolo(8), SPOT, Kind.DETECTION, {"boxes": "yolov8", "box_extent": (1.0, 1.0)}),
    "yolov8 in pixels": (
        spot_models.yolo(8, pixels=True), SPOT, Kind.DETECTION, {"boxes": "yolov8", "box_extent": (64.0, 64.0)},
    ),
    "yolov5": (spot_models.yolo(5, 3), THREE, Kind.DETECTION, {"boxes": "yolov5", "fit": "letterbox", "pad": "grey"}),
    "sorted": (spot_models.yolo_sorted(), SPOT, Kind.DETECTION, {"boxes": "nms", "box_extent": (1.0, 1.0)}),
    "sorted, labels first": (spot_models.yolo_sorted(labels_first=True), SPOT, Kind.DETECTION, {"boxes": "nms"}),
    "heat map": (
        spot_models.heat_map(), Told(labels=("spot",), normalise="0..1"), Kind.HEATMAP,
        {"activation": "none", "top_k": 3},
    ),
    "map of labels": (spot_models.segments(as_map=True), GROUND, Kind.SEGMENTATION, {"activation": "none"}),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_seen_for_what_it_is(form, file):
    content, told, kind, expected = FORMS[form]
    plan = planned(file(content), told)
    assert plan.kind is kind
    said = plan.input.model_dump() | plan.output.model_dump()
    assert {key: said[key] for key in expected} == expected
    assert plan.output.defect_labels == ("spot",)


@pytest.mark.parametrize("is_planar", [False, True])
def test_logits_of_each_cell_may_be_two_kinds_so_it_is_asked(file, is_planar):
    path = file(spot_models.segments(planar=is_planar))
    with pytest.raises(UsageError, match=r"kind of model .*--kind segmentation\|heatmap"):
        planned(path, GROUND)
    asked = []
    plan = planned(path, GROUND, Desk(lambda question: asked.append(question.option) or question.default))
    assert plan.kind is Kind.SEGMENTATION and plan.output.activation == "softmax"
    assert asked == ["--kind", "--colour", "--fit", "--activation", "--least-pixels"]


def test_an_8_bit_input_says_itself_what_a_pixel_becomes(file):
    told = Told(labels=("clean", "spot"), defects=("spot",))
    plan = planned(file(spot_models.classifier(dtype="uint8")), told)
    assert (plan.input.scale, plan.input.offset) == (pytest.approx(1 / 128), pytest.approx(-1.0))
    plan = planned(file(spot_models.classifier(dtype="int8")), told)
    assert (plan.input.scale, plan.input.offset) == (pytest.approx(1 / 128), pytest.approx(-1.0))
    plan = planned(file(spot_models.classifier(dtype="uint8", quantised=False)), told)
    assert (plan.input.scale, plan.input.offset) == (1.0, 0.0)


def test_metadata_settles_labels_normalisation_and_colour(file):
    desk, path = Desk(), file(with_metadata(task_library_metadata()))
    facts = looked_at(path)
    assert (facts.notes.labels, facts.notes.mean, facts.notes.std) == (("clean", "dent"), (127.5,), (64.0,))
    path = file(with_zip({"metadata.json": json.dumps({"names": {"0": "clean", "1": "spot"}})}, spot_models.yolo(8)))
    plan = planned(path, Told(defects=("spot",), normalise="0..1"), desk)
    assert plan.output.labels == ("clean", "spot")
    assert next(answer for answer in desk.answers if answer.about == "labels").whence == "metadata.json in the file"


def test_all_that_is_missing_is_told_at_once_with_the_options_to_give(file):
    with pytest.raises(UsageError) as caught:
        planned(file(spot_models.classifier()), Told())
    for option in ("--labels", "--defect", "--normalise 0..1|-1..1|0..255|imagenet"):
        assert option in caught.value.fix
    assert "names of its 2 labels" in caught.value.what


def test_a_label_may_have_commas_in_its_name(file):
    told = Told(labels=("clean", "spot, dark", "spot, dark, small"), normalise="0..1")
    path = file(outputs_of((1, 3)))
    for answer, expected in (
        ("spot, dark", ("spot, dark",)),
        ("spot,dark,small, spot, dark", ("spot, dark, small", "spot, dark")),
    ):
        plan = planned(
            path, told, Desk(lambda question, text=answer: text if "defect" in question.option else question.default)
        )
        assert plan.output.defect_labels == expected


def test_names_with_commas_are_told_in_quotes_and_shown_in_them(tmp_path):
    assert label_names('clean, "spot, dark",crack') == ("clean", "spot, dark", "crack")
    assert short(("clean", "spot, dark")) == 'clean, "spot, dark"'
    (tmp_path / "labels.txt").write_text("clean\nspot, dark\n")
    assert label_names(str(tmp_path / "labels.txt")) == ("clean", "spot, dark")
    for text in ("", "clean,,spot", 'clean,"spot'):
        with pytest.raises(UsageError, match=r"labels '.*(has no name|cannot be told apart)"):
            label_names(text)


def test_an_unknown_label_is_answered_with_those_that_have_the_word():
    labels = ("tray", "tabby, tabby cat", "tiger cat", "Egyptian cat")
    assert nearest("tabby", labels) == ["tabby, tabby cat"]
    assert nearest("Cat", labels) == ["tabby, tabby cat", "tiger cat", "Egyptian cat"]
    assert nearest("trai", labels) == ["tray"] and nearest("xyz", labels) == []


@pytest.mark.parametrize("as_map", [False, True])
@pytest.mark.parametrize(
    ("defects", "sentence"), [(("all",), "rejects every part"), (("background",), "'background' is no defect")]
)
def test_a_segmentation_whose_every_pixel_would_be_a_defect_is_refused(file, as_map, defects, sentence):
    told = replace(GROUND, defects=defects, kind=Kind.SEGMENTATION)
    with pytest.raises(UsageError, match=sentence):
        planned(file(spot_models.segments(as_map=as_map)), told)


def test_bytes_that_mean_no_pixels_are_features_and_refused(file):
    """A mel spectrogram has the form of a grey picture."""
    model = Model()
    graph = model.graph()
    graph.outputs(graph.input("mel", (1, 96, 64, 1), "int8", scale=0.58, zero=83))
    with pytest.raises(ModelError, match=r"input mel means -122 to 25\.5, .* features, such as those of sound"):
        planned(file(model.bytes()))


def test_which_numbers_were_assumed_can_be_told_apart(file):
    desk = Desk()
    planned(file(spot_models.classifier()), SPOT, desk)
    whence = {answer.about: answer.whence for answer in desk.answers}
    assert whence["normalisation"] == "told by --normalise"
    assert whence["order of colours"] == "assumed, --colour says otherwise"
    assert whence["activation"] == "its outputs are shares of 0..1"


@pytest.mark.parametrize(("edges", "expected"), [((0.0, 0.0), None), ((-0.2, 2.4), False), ((0.0, 60.0), True)])
def test_the_unit_of_boxes_is_seen_by_where_they_lie(edges, expected):
    seen = Seen(0, 1, True, False, False, False, first_columns=(edges,) * 4, first_rows=((0.0, 9.0),) * 4)
    assert is_in_pixels(seen, is_turned=False) is expected


def test_a_label_file_that_begins_with_the_background_is_shifted_for_the_operator(file):
    plan = planned(file(spot_models.ssd()), Told(labels=("???", "spot"), defects=("spot",), normalise="0..1"))
    assert plan.output.labels == ("spot",)


def open_sized() -> bytes:
    model = Model()
    graph = model.graph()
    image = graph.input("image", (1, 1, 1, 3), open_sizes=(-1, -1, -1, 3))
    graph.outputs(graph.then("MEAN", image, (1, 3), graph.constant("axes", np.array([1, 2], np.int32))))
    return model.bytes()


def test_an_open_size_is_asked_for_and_a_fixed_one_is_not_changed(file):
    told = Told(labels=("r", "g", "b"), defects=("r",), normalise="0..1")
    with pytest.raises(UsageError, match=r"size of the input .*give --size"):
        planned(file(open_sized()), told)
    plan = planned(file(open_sized()), Told(labels=told.labels, defects=("r",), normalise="0..1", size=(48, 32)))
    assert (plan.input.width, plan.input.height) == (48, 32)
    with pytest.raises(UsageError, match="the file fixes 64x64"):
        planned(file(spot_models.classifier()), Told(size=(32, 32)))


def test_one_of_several_signatures_is_asked_for(file):
    path = file(spot_models.two_signatures())
    with pytest.raises(UsageError, match=r"give --signature plain\|judge"):
        planned(path)
    with pytest.raises(UsageError, match=r"'x' is not in the file \(found: plain, judge\)"):
        planned(path, Told(signature="x"))


def outputs_of(*shapes: tuple[int, ...], dtype: str = "float32", side: int = 64, **how) -> bytes:
    """A model of constants that takes a picture."""
    model = Model()
    graph = model.graph()
    graph.input("image", (1, side, side, 3), **how)
    made = []
    for number, shape in enumerate(shapes):
        constant = graph.constant(f"c{number}", np.zeros(shape, np.float32))
        made.append(graph.tensor(f"out{number}", shape))
        graph.add("ADD", [constant, constant], [made[-1]], fusedActivationFunction=0)
    graph.outputs(*made)
    return model.bytes()


def inputs_of(*inputs: tuple[tuple[int, ...], str]) -> bytes:
    model = Model()
    graph = model.graph()
    numbers = [graph.input(f"in{number}", shape, dtype) for number, (shape, dtype) in enumerate(inputs)]
    graph.outputs(numbers[0])
    return model.bytes()


REFUSED = {
    "two inputs": (inputs_of(((1, 64, 64, 3), "float32"), ((1, 4), "float32")), "has 2 inputs .* one picture goes in"),
    "int64": (inputs_of(((1, 64, 64, 3), "int64")), "is int64; pictures go into"),
    "float64": (inputs_of(((1, 64, 64, 3), "float64")), "is float64; pictures go into"),
    "text": (inputs_of(((1,), "string")), "is string; pictures go into"),
    "int8 without numbers": (inputs_of(((1, 64, 64, 3), "int8")), "int8 without quantisation numbers"),
    "int16 without numbers": (inputs_of(((1, 64, 64, 3), "int16")), "int16 without quantisation numbers"),
    "batch of 4": (inputs_of(((4, 64, 64, 3), "float32")), "takes 4 pictures at once"),
    "five channels": (inputs_of(((1, 64, 64, 5), "float32")), "1x64x64x5, which is no grey or colour picture"),
    "a row": (inputs_of(((1, 640), "float32")), "1x640, which is no grey or colour picture"),
    "features of sound": (inputs_of(((1, 3, 40), "float32")), "a grey picture has sides of 16 to 4096"),
    "anchors left out": (spot_models.ssd(raw=True), "16 anchors.* cannot be decoded with certainty"),
    "raw maps": (outputs_of((1, 8, 8, 21), (1, 4, 4, 21)), "raw maps of a detector"),
    "masks": (outputs_of((1, 38, 84), (1, 16, 16, 32)), "boxes with masks"),
    "two rows": (outputs_of((1, 2), (1, 5)), "of no classifier, detector, segmentation or heat map"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_packed_is_refused_in_a_sentence_with_a_way_out(case, file):
    content, sentence = REFUSED[case]
    with pytest.raises(ModelError, match=sentence) as caught:
        planned(file(content))
    assert "\n" not in str(caught.value)


TOLD_WRONG = {
    "labels": (Told(labels=("a", "b", "c"), defects=("a",), normalise="0..1"), "3 labels were .* the model has 2"),
    "kind": (Told(labels=("a", "b"), kind=Kind.DETECTION), "--kind detection does not fit: it can be read as classif"),
    "boxes": (Told(labels=("a", "b"), boxes="nms"), "--boxes nms does not fit"),
    "defect": (Told(labels=("clean", "spot"), defects=("spott",), normalise="0..1"), "did you mean 'spot'"),
    "good": (Told(labels=("clean", "spot"), good=("claen",), normalise="0..1"), "did you mean 'clean'"),
    "nothing bad": (Told(labels=("a", "b"), good=("a", "b"), normalise="0..1"), "accepts every part"),
    "all bad": (Told(labels=("a", "b"), defects=("all",), normalise="0..1"), "rejects every part"),
    "normalise": (Told(labels=("a", "b"), defects=("a",), normalise="0-1"), "normalisation '0-1' is none; give 0..1"),
}  # fmt: skip


@pytest.mark.parametrize("case", TOLD_WRONG)
def test_what_was_told_wrongly_is_answered_with_what_would_be_right(case, file):
    told, sentence = TOLD_WRONG[case]
    with pytest.raises(EdgeError, match=sentence):
        planned(file(spot_models.classifier()), told)


@pytest.mark.parametrize(
    ("text", "black", "white"),
    [
        ("0..1", 0, 1), ("-1..1", -1, 1), ("0..255", 0, 255), ("127.5/127.5", -1, 1),
        ("imagenet", (-2.1179, -2.0357, -1.8044), (2.2489, 2.4286, 2.64)), ("10,20,30/5", (-2, -4, -6), (49, 47, 45)),
    ],
)  # fmt: skip
def test_normalisations_are_those_of_their_names(text, black, white):
    scale, offset = (np.asarray(number) for number in normalisation(text))
    assert np.allclose(0 * scale + offset, black, atol=1e-3) and np.allclose(255 * scale + offset, white, atol=1e-3)


@pytest.mark.parametrize("text", ["", "1", "1/0", "nan/1", "1,2/3", "a/b", "1/2/3"])
def test_what_is_no_normalisation_is_refused(text):
    with pytest.raises(UsageError, match=r"give 0\.\.1"):
        normalisation(text)


def test_folders_of_samples_say_what_is_in_them(tmp_path, parts):
    spec = OutputSpec(labels=("clean", "spot"), defect_labels=("spot",))
    found = find_samples(parts, spec)
    assert [sample.truth for sample in found] == ["bad"] * 5 + ["good"] * 10
    (tmp_path / "NG" / "scratch").mkdir(parents=True)
    (tmp_path / "Spot").mkdir()
    for place in ("NG/scratch/1.png", "Spot/2.png", "3.png", "._3.png"):
        (tmp_path / place).write_bytes(b"")
    assert [(sample.path.name, sample.truth) for sample in find_samples(tmp_path, spec)] == [
        ("3.png", ""), ("1.png", "bad"), ("2.png", "bad"),
    ]  # fmt: skip
    (tmp_path / "odds").mkdir()
    with pytest.raises(UsageError, match="odds: neither good nor bad"):
        find_samples(tmp_path, spec)
    with pytest.raises(UsageError, match="no pictures"):
        find_samples(tmp_path / "odds", spec)
