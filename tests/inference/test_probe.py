"""Files nobody vouches for: whatever they do to the child, the answer is a sentence and this process lives."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.core.errors import ModelError
from edge_runtime.inference.probe import new_child, probe
from edge_runtime.inference.sandbox import Child
from edge_runtime.process.child import Limits

ODD = {
    "custom_op_edgetpu": "custom operator 'edgetpu-custom-op'",
    "custom_op_invoking_error": "custom operator 'fake-op-double'",
    "flex_whitespace_tokenizer": "flex operators",
    "invalid_model": "not a TFLite model",
    "two_signatures": "2 signatures (model_one, model_two)",
    "two_inputs_int8_add": "2 inputs",
    "three_inputs_split_concat_uint8": "3 inputs",
    "uint8_identity_no_quant_params": "uint8 without quantisation numbers",
    "int32_io": "is int32; pictures go into",
    "int16_add": "is int16; pictures go into",
}


@pytest.fixture(scope="module")
def child():
    with new_child() as one:
        yield one


def test_a_good_model_is_described_and_timed(tiny_model):
    report = probe(tiny_model, seconds=0.05)
    assert report.ok
    assert report.bytes == tiny_model.stat().st_size
    assert report.inputs == [{"name": "pixels", "dtype": "int8", "shape": [1, 32, 32, 3],
                              "scale": pytest.approx(1 / 255), "zero_point": -128}]  # fmt: skip
    assert report.outputs[0]["shape"] == [1, 4, 4, 1]
    assert report.operators == {"CONV_2D": 1}
    assert 0 < report.median_ms < 50
    assert report.rss_mb > 10
    json.dumps(report.as_json())


@pytest.mark.parametrize("name", ODD)
def test_odd_models_get_a_sentence_that_a_person_understands(real_data, child, name):
    report = probe(real_data / "models/odd" / f"{name}.tflite", seconds=0.0, child=child)
    told = report.problem or "; ".join(report.remarks)
    assert ODD[name] in told
    assert "\n" not in told
    assert "Traceback" not in told


def test_every_real_model_probes_well(real_data, child):
    paths = [path for path in sorted((real_data / "models").rglob("*.tflite")) if path.parent.name != "odd"]
    assert len(paths) >= 15
    for path in paths:
        report = probe(path, seconds=0.0, child=child)
        assert report.ok, f"{path.name}: {report.problem}"
        assert report.inputs
        assert report.outputs


@pytest.mark.parametrize("what", ["absent.tflite", ".", "empty", "pipe"])
def test_what_is_no_file_is_refused(tmp_path, child, what):
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    report = probe(tmp_path / what, child=child)
    assert report.problem in ("no such model file", "not a plain file", "the file is empty")


def damages(content: bytes, count: int, seed: int):
    """Copies of a file, each damaged in one of five ways."""
    generator = np.random.default_rng(seed)
    size = len(content)
    for number in range(count):
        damaged = bytearray(content)
        match number % 5:
            case 0:
                damaged = damaged[: int(generator.integers(1, size))]
            case 1:
                damaged[int(generator.integers(size))] ^= 1 << int(generator.integers(8))
            case 2:
                for at in generator.integers(0, size, 20):
                    damaged[at] ^= int(generator.integers(1, 256))
            case 3:
                start = int(generator.integers(size))
                damaged[start : start + 512] = bytes(min(512, size - start))
            case 4:
                start = int(generator.integers(8, size))
                garbage = generator.integers(0, 256, min(200, size - start), dtype=np.uint8)
                damaged[start : start + len(garbage)] = garbage.tobytes()
        yield bytes(damaged)


def fuzz(content: bytes, tmp_path: Path, count: int, seed: int) -> dict[str, int]:
    counts = {"runs": 0, "refused": 0, "killed the child": 0}
    path = tmp_path / "damaged.tflite"
    with new_child(Limits(timeout_s=20.0)) as child:
        for damaged in damages(content, count, seed):
            path.write_bytes(damaged)
            report = probe(path, seconds=0.0, child=child)
            assert "\n" not in report.problem
            assert "Traceback" not in report.problem
            killed = "ends the TFLite runtime" in report.problem or "no answer" in report.problem
            counts["runs" if report.ok else "killed the child" if killed else "refused"] += 1
    return counts


def test_damaged_tiny_models_are_survived(tiny_model, tmp_path):
    counts = fuzz(tiny_model.read_bytes(), tmp_path, 200, seed=1)
    assert sum(counts.values()) == 200
    assert counts["refused"] > 20


def test_a_thousand_damaged_real_models_are_survived(real_data, tmp_path):
    names = ["classify/vww_96_int8", "audio/kws_ref_model", "misc/hello_world_int8", "audio/mww_v2_vad"]
    total: dict[str, int] = {}
    for seed, name in enumerate(names):
        content = (real_data / "models" / f"{name}.tflite").read_bytes()
        for key, value in fuzz(content, tmp_path, 250, seed).items():
            total[key] = total.get(key, 0) + value
    assert sum(total.values()) == 1000
    print(total)
    assert total["refused"] > 200


# -- the sandbox itself --------------------------------------------------------------------------------------------

BAD_CHILD = """
import os, signal, sys, time
from edge_runtime.inference.sandbox import serve_child

def handle(request):
    match request["do"]:
        case "answer": print("noise on stdout"); return {"pid": os.getpid()}
        case "signal": os.kill(os.getpid(), request["number"])
        case "hang": time.sleep(60)
        case "spin":
            while True: pass
        case "memory": return {"size": len(bytearray(request["bytes"]))}
        case "exit": os._exit(3)
        case "talk": return {"text": "x" * (5 << 20)}
        case "write": open(request["path"], "w").write("x" * 10000)
        case "raise": raise KeyError("oh")
        case "privileges": return {"status": open("/proc/self/status").read(), "sid": os.getsid(0)}

serve_child(handle)
"""


@pytest.fixture
def bad_child(tmp_path, monkeypatch):
    (tmp_path / "bad_child.py").write_text(BAD_CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Child("bad_child", Limits(memory_mb=800, cpu_s=2, timeout_s=1.0)) as child:
        yield child


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (signal.SIGSEGV, "with a segmentation fault"),
        (signal.SIGABRT, "with an abort"),
        (signal.SIGBUS, "with a bus error"),
        (signal.SIGFPE, "with an arithmetic fault"),
        (signal.SIGILL, "with an instruction that this processor does not have"),
        (signal.SIGKILL, "ended it for memory"),
    ],
)
def test_each_way_to_die_is_a_sentence_and_the_next_request_works(bad_child, number, sentence):
    first = bad_child.ask({"do": "answer"})["pid"]
    with pytest.raises(ModelError, match=sentence):
        bad_child.ask({"do": "signal", "number": int(number)})
    assert bad_child.ask({"do": "answer"})["pid"] != first


def test_limits_hold(bad_child, tmp_path):
    started = time.monotonic()
    with pytest.raises(ModelError, match="no answer within 1 s"):
        bad_child.ask({"do": "hang"})
    assert time.monotonic() - started < 5
    with pytest.raises(ModelError, match="more than the 800 MB"):
        bad_child.ask({"do": "memory", "bytes": 2 << 30})
    with pytest.raises(ModelError, match="failed on it"):
        bad_child.ask({"do": "write", "path": str(tmp_path / "written")})
    assert not (tmp_path / "written").exists() or (tmp_path / "written").stat().st_size == 0
    with pytest.raises(ModelError):
        bad_child.ask({"do": "talk"})
    with pytest.raises(ModelError, match="exit code 3"):
        bad_child.ask({"do": "exit"})
    with pytest.raises(ModelError, match="KeyError"):
        bad_child.ask({"do": "raise"})


def test_a_spinning_child_is_ended(tmp_path, monkeypatch):
    (tmp_path / "bad_child.py").write_text(BAD_CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (
        Child("bad_child", Limits(memory_mb=800, cpu_s=1, timeout_s=30.0)) as child,
        pytest.raises(ModelError, match="more than 1 s of CPU"),
    ):
        child.ask({"do": "spin"})


def test_a_child_gains_nothing_and_stands_alone(bad_child):
    answer = bad_child.ask({"do": "privileges"})
    if sys.platform == "linux":
        assert "NoNewPrivs:\t1" in answer["status"]
    assert answer["sid"] != os.getsid(0)


def test_no_child_is_left_behind(tiny_model):
    child = new_child()
    probe(tiny_model, seconds=0.0, child=child)
    pid = child.pid
    child.close()
    child.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
