"""The engine against the raw interpreter, and every bad file answered with a sentence."""

import importlib.util
import threading
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.core.errors import ModelError
from edge_runtime.inference import engine as engine_module
from edge_runtime.inference.engine import Engine, RuntimeInfo, installed_runtimes, pick_runtime
from edge_runtime.inference.tensors import Tensor
from tests.support.waiting import until

REAL_MODELS = [
    "anomaly/ad01_fp32", "anomaly/ad01_int8", "audio/kws_ref_model", "audio/kws_ref_model_float32",
    "audio/micro_speech_quantized", "audio/mww_v2_hey_jarvis", "audio/mww_v2_vad", "classify/keras_lstm_mnist_ptq",
    "classify/mobilenet_v1_0.25_128_quant", "classify/mobilenet_v1_0.25_224_quant",
    "classify/mobilenet_v2_035_96_embedder_float_io", "classify/vww_96_int8",
    "detect/coco_ssd_mobilenet_v1_1.0_quant_2018_06_29", "misc/hello_world_float", "misc/hello_world_int8",
    "segment/deeplabv3_float", "odd/int16_add", "odd/int32_io", "odd/three_inputs_split_concat_uint8",
    "odd/two_inputs_int8_add", "odd/two_signatures", "odd/uint8_identity_no_quant_params",
]  # fmt: skip

REFUSED = {
    "odd/custom_op_edgetpu": "custom operator 'edgetpu-custom-op'",
    "odd/custom_op_invoking_error": "custom operator 'fake-op-double'",
    "odd/flex_whitespace_tokenizer": "flex operators (FlexUnicodeDecodeWithOffsets)",
    "odd/invalid_model": "not a TFLite model",
}


def raw_interpreter(path: Path):
    """The runtime without us. Tests may know it; the product has one file for it."""
    if importlib.util.find_spec("ai_edge_litert"):
        from ai_edge_litert.interpreter import Interpreter
    else:
        from tflite_runtime.interpreter import Interpreter
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def noise(tensor: Tensor, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    if tensor.dtype.kind == "f":
        return generator.normal(size=tensor.shape).astype(tensor.dtype)
    limits = np.iinfo(tensor.dtype)
    return generator.integers(max(limits.min, -1000), min(limits.max, 1000), tensor.shape).astype(tensor.dtype)


@pytest.mark.parametrize("name", REAL_MODELS)
def test_outputs_equal_the_raw_interpreter_bit_for_bit(real_data, name):
    path = real_data / "models" / f"{name}.tflite"
    engine, raw = Engine(path), raw_interpreter(path)
    engine.warm_up(2)  # must leave nothing behind in streaming models
    for seed in range(4):
        inputs = [noise(tensor, seed) for tensor in engine.inputs]
        for details, array in zip(raw.get_input_details(), inputs, strict=True):
            raw.set_tensor(details["index"], array)
        raw.invoke()
        expected = [raw.get_tensor(details["index"]) for details in raw.get_output_details()]
        for ours, theirs in zip(engine.invoke(*inputs), expected, strict=True):
            assert ours.dtype == theirs.dtype
            assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("name", REFUSED)
def test_model_that_a_box_cannot_run_is_refused_in_a_sentence(real_data, name):
    with pytest.raises(ModelError) as caught:
        Engine(real_data / "models" / f"{name}.tflite")
    assert REFUSED[name] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "the file is empty"),
        (b"PK\x03\x04 and so on", "looks like a zip archive"),
        (b"\x89HDF\r\n\x1a\n", "looks like an HDF5 file"),
        (b"hello, world", "not a TFLite model"),
        (b"\x1c\x00\x00\x00TFL3" + b"\xff" * 300, "damaged or cut off"),
    ],
)
def test_file_that_is_no_model_is_refused_in_a_sentence(tmp_path, content, sentence):
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=sentence):
        Engine(path)


def test_missing_file_folder_and_device_are_refused(tmp_path):
    with pytest.raises(ModelError, match="no such model file"):
        Engine(tmp_path / "absent.tflite")
    with pytest.raises(ModelError, match="not a plain file"):
        Engine(tmp_path)
    with pytest.raises(ModelError, match="not a plain file"):
        Engine("/dev/zero")


def test_delegate_that_is_not_there_says_what_to_do(tiny_model):
    with pytest.raises(ModelError, match=r"delegate 'libnothing.so.1' cannot be loaded .*clear model.delegate"):
        Engine(tiny_model, delegate="libnothing.so.1")


def test_inputs_that_do_not_fit_are_refused(tiny_model):
    engine = Engine(tiny_model)
    for wrong in (np.zeros((1, 32, 31, 3), np.int8), np.zeros((1, 32, 32, 3), np.float32)):
        with pytest.raises(ModelError, match="failed to run"):
            engine.invoke(wrong)
    with pytest.raises(ModelError, match="failed to run"):
        engine.invoke()
    assert engine.invoke(np.zeros((1, 32, 32, 3), np.int8))[0].shape == (1, 4, 4, 1)  # and it still works


def test_outputs_belong_to_the_caller(tiny_model):
    engine = Engine(tiny_model)
    dark = engine.invoke(np.full((1, 32, 32, 3), -128, np.int8))[0]
    engine.invoke(np.full((1, 32, 32, 3), 127, np.int8))
    assert (dark == -128).all()


def test_model_file_may_vanish_while_it_runs(tiny_model, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(tiny_model.read_bytes())
    engine = Engine(path)
    path.write_bytes(b"")
    path.unlink()
    assert engine.invoke(np.full((1, 32, 32, 3), 127, np.int8))[0].max() == 127


def test_tensors_are_described_from_the_file(tiny_model):
    engine = Engine(tiny_model)
    (tensor,) = engine.inputs
    assert (tensor.name, tensor.shape, tensor.zero_points) == ("pixels", (1, 32, 32, 3), (-128,))
    assert tensor.scales[0] == pytest.approx(1 / 255)
    assert str(tensor) == "pixels int8 1x32x32x3, scale 0.00392157, zero -128"
    assert engine.is_delegated == (engine.runtime.name == "litert")


def test_invoke_lets_other_threads_run(real_data):
    engine = Engine(real_data / "models/segment/deeplabv3_float.tflite")  # some 10 ms
    inputs = [np.zeros(tensor.shape, tensor.dtype) for tensor in engine.inputs]
    engine.invoke(*inputs)
    interpreter = engine._interpreter
    counted, stop = [0], threading.Event()

    def count() -> None:
        while not stop.is_set():
            counted[0] += 1

    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    until(lambda: counted[0])
    progressed = 0
    for _ in range(20):
        before = counted[0]
        interpreter.invoke()
        progressed += counted[0] > before
    stop.set()
    thread.join()
    assert progressed >= 15


def test_faster_runtime_is_picked_and_the_other_can_be_asked_for(monkeypatch):
    both = [RuntimeInfo("litert", "ai-edge-litert", "2.3.0"), RuntimeInfo("tflite", "tflite-runtime", "2.14.0")]
    monkeypatch.setattr(engine_module, "installed_runtimes", lambda: both)
    assert pick_runtime().name == "litert"
    assert pick_runtime("tflite").name == "tflite"
    monkeypatch.setattr(engine_module, "installed_runtimes", lambda: both[1:])
    assert pick_runtime().name == "tflite"
    with pytest.raises(ModelError, match="ai-edge-litert is not installed"):
        pick_runtime("litert")
    monkeypatch.setattr(engine_module, "installed_runtimes", list)
    with pytest.raises(ModelError, match="pip install ai-edge-litert"):
        pick_runtime()


def test_runtime_that_needs_older_numpy_says_so(monkeypatch):
    monkeypatch.setattr(engine_module.np, "__version__", "2.4.6")
    problem = engine_module._known_problem("tflite")
    assert "numpy<2" in problem
    assert "2.4.6" in problem
    broken = RuntimeInfo("tflite", "tflite-runtime", "2.14.0", problem)
    monkeypatch.setattr(engine_module, "installed_runtimes", lambda: [broken])
    with pytest.raises(ModelError, match="numpy<2"):
        pick_runtime()


def test_a_runtime_is_installed_here():
    assert installed_runtimes()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
def test_quantise_is_the_inverse_of_dequantise(dtype):
    tensor = Tensor("t", np.dtype(dtype), (5,), (0.05,), (3,))
    limits = np.iinfo(dtype)
    stored = np.linspace(limits.min, limits.max, 256).astype(dtype)
    assert (tensor.quantise(tensor.dequantise(stored)) == stored).all()
    assert tensor.quantise(np.array([1e9, -1e9])).tolist() == [limits.max, limits.min]


def test_per_channel_quantisation_runs_along_its_axis():
    tensor = Tensor("t", np.dtype(np.int8), (1, 2, 2), (0.5, 2.0), (0, 1), axis=2)
    real = tensor.dequantise(np.array([[[2, 2], [4, 4]]], np.int8))
    assert real.tolist() == [[[1.0, 2.0], [2.0, 6.0]]]
    assert tensor.quantise(real).tolist() == [[[2, 2], [4, 4]]]
