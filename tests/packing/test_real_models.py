"""Published files of every kind: what is made of each, and which sentence refuses the odd ones."""

from __future__ import annotations

import pytest

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.errors import EdgeError
from edge_runtime.core.manifest import Kind
from edge_runtime.media.picture import decode_picture
from edge_runtime.modelstore.bundle import load_bundle
from edge_runtime.packing.answers import Told
from edge_runtime.packing.pack import pack
from edge_runtime.predictors.vision import open_vision_model
from tests.packing.test_plan import planned

DIGITS = tuple("0123456789")
USED = {
    "classify/mobilenet_v1_0.25_128_quant": (Told(defects=("goldfish, Carassius auratus",)), Kind.CLASSIFICATION),
    "classify/mobilenet_v1_0.25_224_quant": (Told(defects=("goldfish",)), Kind.CLASSIFICATION),
    "classify/vww_96_int8": (Told(labels=("nobody", "person"), defects=("person",)), Kind.CLASSIFICATION),
    "classify/keras_lstm_mnist_ptq": (Told(labels=DIGITS, defects=("9",)), Kind.CLASSIFICATION),
    "detect/coco_ssd_mobilenet_v1_1.0_quant_2018_06_29": (Told(defects=("cat",)), Kind.DETECTION),
    "segment/deeplabv3_float": (Told(kind=Kind.SEGMENTATION, good=("background",)), Kind.SEGMENTATION),
}
REFUSED = {
    "anomaly/ad01_fp32": "no grey or colour picture",
    "anomaly/ad01_int8": "no grey or colour picture",
    "audio/kws_ref_model": "49x10.*: a grey picture has sides of 16 to 4096 pixels; sound, features",
    "audio/kws_ref_model_float32": "49x10.*: a grey picture has sides of 16 to 4096 pixels; sound, features",
    "audio/micro_speech_quantized": "no grey or colour picture",
    "audio/mww_v2_hey_jarvis": "a grey picture has sides of 16 to 4096",
    "audio/mww_v2_vad": "a grey picture has sides of 16 to 4096",
    "classify/mobilenet_v2_035_96_embedder_float_io": "names of its 1280 labels",
    "misc/hello_world_float": "no grey or colour picture",
    "misc/hello_world_int8": "no grey or colour picture",
    "odd/custom_op_edgetpu": "custom operator 'edgetpu-custom-op'",
    "odd/custom_op_invoking_error": "custom operator 'fake-op-double'",
    "odd/flex_whitespace_tokenizer": "flex operators",
    "odd/int16_add": "has 2 inputs",
    "odd/int32_io": "is int32; pictures go into",
    "odd/invalid_model": "not a TFLite model",
    "odd/three_inputs_split_concat_uint8": "has 3 inputs",
    "odd/two_inputs_int8_add": "has 2 inputs",
    "odd/two_signatures": "give --signature model_one",
    "odd/uint8_identity_no_quant_params": "names of its 12 labels",
}


@pytest.mark.parametrize("name", USED)
def test_a_published_model_is_seen_for_what_it_is(real_data, name):
    told, kind = USED[name]
    plan = planned(real_data / "models" / f"{name}.tflite", told)
    assert plan.kind is kind
    assert plan.output.activation == ("softmax" if kind is Kind.SEGMENTATION else "none")


@pytest.mark.parametrize("name", REFUSED)
def test_an_odd_one_is_refused_in_a_sentence(real_data, name):
    with pytest.raises(EdgeError, match=REFUSED[name]) as caught:
        planned(real_data / "models" / f"{name}.tflite", Told())
    assert "\n" not in str(caught.value)


def test_a_published_detector_is_packed_and_finds_what_is_there(real_data, tmp_path):
    file = real_data / "models/detect/coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite"
    told = Told(name="coco", defects=("cat", "dog"))
    report = pack(file, told, EdgeConfig(), out=tmp_path / "coco-1")
    whence = {answer["about"]: answer["whence"] for answer in report.settled}
    assert whence["labels"] == "labelmap.txt in the file" and whence["normalisation"] == "in the file"
    model = open_vision_model(load_bundle(tmp_path / "coco-1"))
    found = model(decode_picture((real_data / "vision/scenes/cats_and_dogs.jpg").read_bytes()))
    assert {region.label for region in found.regions if region.score > 0.5} <= {"cat", "dog"}
    assert found.score > 0.5
