"""The Open Inference Protocol v2 against a real server: the bits of the raw interpreter, and every slip a clear 4xx."""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.modelstore.bundle import seal_bundle
from edge_runtime.modelstore.store import shipped_models
from tests.conftest import TINY
from tests.inference.test_engine import REAL_MODELS, REFUSED, raw_interpreter
from tests.serve.api.v2_client import DTYPES, infer, outputs, question
from tests.serve.http_box import box

BARE = ("odd/two_inputs_int8_add", "segment/deeplabv3_float", "audio/mww_v2_vad", *REFUSED)
MOST_VALUES = 200_000  # that are asked for as JSON: a million of them take seconds
FLOAT = "colour"  # float32 (1, 8, 8, 3) -> float32 (1, 3)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Every real model that is there as a bundle, the tiny ones too, and some as bare files."""
    state = tmp_path_factory.mktemp("state")
    files = tmp_path_factory.mktemp("files")
    for tiny in TINY.glob("*.tflite"):
        sealed(state / "models", tiny.stem, tiny)
    data = TINY.parents[2].parent / "shared" / "data" / "models"
    for name in REAL_MODELS if data.is_dir() else ():
        sealed(state / "models", name.rpartition("/")[2], data / f"{name}.tflite")
    for name in BARE if data.is_dir() else ():
        shutil.copy(data / f"{name}.tflite", files / f"bare-{name.rpartition('/')[2]}.tflite")
    shutil.copy(TINY / "colour.tflite", files / "bare-colour.tflite")
    (files / "broken.tflite").write_bytes(b"\x1c\x00\x00\x00TFL3" + b"\xff" * 300)
    with box(state, f'serve.files="{files}"', "serve.models_mb=300") as running:
        yield running


def sealed(store, name, model):
    folder = store / name.lower() / "1"
    folder.mkdir(parents=True)
    shutil.copy(model, folder / "model.tflite")
    seal_bundle(folder, {"name": name.lower(), "version": "1", "kind": "features", "licence": "Apache-2.0"})


def noise(about, seed, count=1):
    draw = np.random.default_rng(seed)
    made = {}
    for one in about["inputs"]:
        dtype, shape = DTYPES[one["datatype"]], [count if size == -1 else size for size in one["shape"]]
        made[one["name"]] = (
            draw.normal(size=shape).astype(dtype) if dtype.kind == "f" else draw.integers(0, 100, shape).astype(dtype)
        )
    return made


def raw(path, arrays, count=1):
    """The same on a fresh interpreter of the runtime, one part of the batch after the other."""
    interpreter = raw_interpreter(path)
    said = []
    for at in range(count):
        for details, array in zip(interpreter.get_input_details(), arrays, strict=True):
            interpreter.set_tensor(details["index"], array[at : at + 1] if count > 1 else array)
        interpreter.invoke()
        said.append([interpreter.get_tensor(details["index"]) for details in interpreter.get_output_details()])
    return [np.concatenate(one) if count > 1 else one[0] for one in zip(*said, strict=True)]


def same_bits(found, expected):
    return [(one.dtype, one.shape, one.tobytes()) for one in found] == [
        (one.dtype, one.shape, one.tobytes()) for one in expected
    ]


@pytest.mark.parametrize("name", REAL_MODELS)
def test_every_kind_of_model_gives_the_bits_of_the_raw_interpreter(server, real_data, name):
    path, model = real_data / "models" / f"{name}.tflite", name.rpartition("/")[2].lower()
    about = server.get(f"/v2/models/{model}").json()
    arrays = noise(about, 1)
    expected = raw(path, arrays.values())
    assert same_bits(infer(server, model, arrays), expected)
    if sum(one.size for one in expected) < MOST_VALUES:
        assert same_bits(infer(server, model, arrays, binary_in=False, binary_out=False), expected)


@pytest.mark.parametrize("bundle", sorted(shipped_models().glob("*/*")), ids=lambda path: path.parent.name)
def test_shipped_bundles_give_the_bits_of_the_raw_interpreter(server, bundle):
    about = server.get(f"/v2/models/{bundle.parent.name}").json()
    arrays = noise(about, 2)
    assert same_bits(infer(server, bundle.parent.name, arrays), raw(bundle / "model.tflite", arrays.values()))


@pytest.mark.parametrize("model", ["bright_heat", "maps"])
def test_a_batch_is_asked_part_by_part(server, model):
    arrays = noise(server.get(f"/v2/models/{model}").json(), 3, count=5)
    assert same_bits(infer(server, model, arrays), raw(TINY / f"{model}.tflite", arrays.values(), 5))


def test_a_streaming_model_hears_a_batch_as_a_stream_and_forgets_it(server, real_data):
    about = server.get("/v2/models/mww_v2_vad").json()
    arrays = noise(about, 4, count=8)
    expected = raw(real_data / "models/audio/mww_v2_vad.tflite", arrays.values(), 8)
    assert same_bits(infer(server, "mww_v2_vad", arrays), expected)
    assert same_bits(infer(server, "mww_v2_vad", arrays), expected)


@pytest.mark.parametrize("name", BARE[:3])
def test_a_bare_file_gives_the_same_bits_from_its_child(server, real_data, name):
    model = f"bare-{name.rpartition('/')[2]}"
    arrays = noise(server.get(f"/v2/models/{model}").json(), 5)
    assert same_bits(infer(server, model, arrays), raw(real_data / "models" / f"{name}.tflite", arrays.values()))


@pytest.mark.parametrize("name", [*REFUSED, "broken"])
def test_a_file_that_cannot_run_is_refused_in_words(server, name):
    model = name if name == "broken" else f"bare-{name.rpartition('/')[2]}"
    answer = server.get(f"/v2/models/{model}")
    if answer.status == 404:
        pytest.skip("no real models here")
    assert answer.status == 409 and REFUSED.get(name, "damaged") in answer.error
    assert server.get(f"/v2/models/{model}/ready").status == 409
    index = {one["name"]: one for one in server.post("/v2/repository/index", {}).json()}
    assert index[model]["state"] == "UNAVAILABLE" and index[model]["reason"]


def test_the_server_tells_of_itself_and_its_models(server):
    assert server.get("/v2").json()["extensions"][0] == "binary_tensor_data"
    assert server.get("/v2/health/live").json() == {"live": True}
    assert server.get("/v2/health/ready").json() == {"live": True, "ready": True}
    about = server.get("/v2/models/colour/versions/1").json()
    assert (about["name"], about["versions"], about["platform"]) == ("colour", ["1"], "tensorflow_lite")
    assert about["inputs"] == [{"name": "pixels", "datatype": "FP32", "shape": [-1, 8, 8, 3]}]
    assert server.get("/v2/models/colour/ready").json() == {"name": "colour", "ready": True}


@pytest.mark.parametrize("path", ["/v2/models/nope", "/v2/models/colour/versions/9", "/v2/models/..%2f..%2fetc/ready",
                                  "/v2/models/%00", "/v2/models/colour/versions/..%2f1", "/v2/nothing"])  # fmt: skip
def test_what_is_not_there_is_404_in_words(server, path):
    answer = server.get(path)
    assert answer.status == 404 and answer.error


def pixels(**more):
    return {"name": "pixels", "shape": [1, 8, 8, 3], "datatype": "FP32", "data": [0.5] * 192} | more


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "has no body"),
        (b"[]", "no JSON object"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"inputs": NaN}', "NaN is no number"),
        ({}, "inputs is a list"),
        ({"inputs": []}, "no inputs"),
        ({"inputs": [7]}, "no JSON object"),
        ({"inputs": [pixels(name="pixel")]}, "has no input 'pixel'; its inputs are pixels"),
        ({"inputs": [pixels(), pixels()]}, "named twice"),
        ({"inputs": [pixels(datatype="FP31")]}, "datatype 'FP31'"),
        ({"inputs": [pixels(datatype="FP16")]}, "binary data only"),
        ({"inputs": [pixels(datatype="UINT8", data=[1] * 192)]}, "input 'pixels' is FP32, not UINT8"),
        ({"inputs": [pixels(datatype="UINT8", data=[256] * 192)]}, "no UINT8"),
        ({"inputs": [pixels(datatype="INT8", data=[0.5] * 192)]}, "no INT8"),
        ({"inputs": [pixels(data=["a"] * 192)]}, "no FP32"),
        ({"inputs": [pixels(data=[1e39] * 192)]}, "no FP32"),
        ({"inputs": [pixels(data=[0.5] * 191)]}, "has 191 values"),
        ({"inputs": [pixels(data=[[1, 2], [3]])]}, "no regular list"),
        ({"inputs": [pixels(data={})]}, "no list"),
        ({"inputs": [pixels(shape=[8, 8, 3])]}, "has shape [-1, 8, 8, 3]"),
        ({"inputs": [pixels(shape=[0, 8, 8, 3], data=[])]}, "above 0"),
        ({"inputs": [pixels(shape=[-1, 8, 8, 3])]}, "above 0"),
        ({"inputs": [pixels(shape=[2**31, 2**31, 2**31])]}, "above 0"),
        ({"inputs": [pixels(shape=[1] * 200)]}, "at most 8"),
        ({"inputs": [pixels(shape=[2**30, 2**30, 2**30])]}, "192 values"),
        ({"inputs": [pixels(shape=[100, 8, 8, 3], data=[0.5] * 19200)]}, "64 at most"),
        ({"inputs": [pixels(parameters={"binary_data_size": 768})]}, "one of them"),
        ({"inputs": [pixels()], "outputs": [{"name": "nope"}]}, "no output 'nope'"),
        ({"inputs": [pixels()], "parameters": {"binary_data_output": "yes"}}, "true or false"),
        (
            {"inputs": [pixels()], "outputs": [{"name": "softmax", "parameters": {"classification": 3}}]},
            "not supported",
        ),
        ({"inputs": [pixels()], "id": 7}, "id is a text"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_slip_of_the_client_is_told_as_that(server, body, words):
    answer = server.post(f"/v2/models/{FLOAT}/infer", body)
    assert answer.status == 400 and words in answer.error, answer.body[:300]


@pytest.mark.parametrize("length", ["0", "-1", "1e3", "99999999", "nonsense", "7"])
def test_a_wrong_length_of_the_json_is_refused(server, length):
    answer = server.post(
        f"/v2/models/{FLOAT}/infer", {"inputs": [pixels()]}, {"Inference-Header-Content-Length": length}
    )
    assert answer.status == 400


def test_binary_data_that_does_not_fit_is_refused(server):
    array = np.zeros((1, 8, 8, 3), np.float32)
    body, headers = question({"pixels": array})
    assert (
        "8 bytes of binary data belong to no input"
        in server.post(f"/v2/models/{FLOAT}/infer", body + b"8 bytes.", headers).error
    )
    assert "are left" in server.post(f"/v2/models/{FLOAT}/infer", body[:-1], headers).error


def test_what_json_cannot_carry_is_refused_and_goes_as_binary_data(server):
    array = np.full((1, 8, 8, 3), np.nan, np.float32)
    body, headers = question({"pixels": array})
    answer = server.post(f"/v2/models/{FLOAT}/infer", body, headers)
    assert answer.status == 400 and "NaN or infinity" in answer.error and "binary_data" in answer.error
    assert np.isnan(infer(server, FLOAT, {"pixels": array})[0]).all()


def test_the_flag_of_an_output_goes_before_that_of_the_request(server):
    body, headers = question(
        noise(server.get("/v2/models/maps").json(), 6),
        outputs=[{"name": name, "parameters": {"binary_data": True}} if name == "coarse" else {"name": name}
                 for name in ("coarse", "fine")],
    )  # fmt: skip
    about = server.get("/v2/models/maps").json()
    names = [one["name"] for one in about["outputs"]]
    assert set(names) == {"coarse", "fine"}
    answer = server.post("/v2/models/maps/infer", body, headers)
    told = json.loads(answer.body[: int(answer.headers["inference-header-content-length"])])["outputs"]
    assert [one["name"] for one in told] == ["coarse", "fine"]
    assert "data" not in told[0] and "data" in told[1]
    assert [one.shape for one in outputs(answer)] == [(1, 2, 2, 1), (1, 4, 4, 1)]


@pytest.mark.parametrize(("name", "packed"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_packed_requests_and_answers(server, name, packed):
    arrays = noise(server.get("/v2/models/bright_heat").json(), 7, count=64)
    body, headers = question(arrays, parameters={"binary_data_output": True})
    plain = server.post("/v2/models/bright_heat/infer", body, headers)
    answer = server.post("/v2/models/bright_heat/infer", packed(body),
                         headers | {"Content-Encoding": name, "Accept-Encoding": name})  # fmt: skip
    assert answer.headers["content-encoding"] == name
    unpacked = gzip.decompress(answer.body) if name == "gzip" else zlib.decompress(answer.body)
    assert unpacked == plain.body and "content-encoding" not in plain.headers


def test_bombs_and_nonsense_in_a_packed_body_are_refused(server):
    ask = f"/v2/models/{FLOAT}/infer"
    bomb = gzip.compress(b"\0" * (40 << 20), 1)
    assert server.post(ask, bomb, {"Content-Encoding": "gzip"}).status == 413
    assert server.post(ask, b"no gzip", {"Content-Encoding": "gzip"}).status == 400
    assert "in the middle" in server.post(ask, gzip.compress(b"{}" * 99)[:-9], {"Content-Encoding": "gzip"}).error
    assert server.post(ask, b"{}", {"Content-Encoding": "br"}).status == 415


def test_packed_bodies_take_no_more_memory_together_than_plain_ones(server):
    """Each is 32 kB and becomes 32 MB; all of them would be 384 MB."""
    bomb, together = gzip.compress(b" " * (32 << 20), 9), 4 * (32 << 20)

    def ask(_):
        return server.post("/v2/repository/index", bomb, {"Content-Encoding": "gzip"})

    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what there is
    before = peak_bytes()
    with ThreadPoolExecutor(12) as many:
        answers = list(many.map(ask, range(12)))
    statuses = {answer.status for answer in answers}
    assert 200 in statuses and statuses <= {200, 503}
    assert all(answer.headers["retry-after"] for answer in answers if answer.status == 503)
    assert peak_bytes() - before < together + (64 << 20)
    assert ask(0).status == 200


def test_answers_that_nobody_takes_count_until_their_connections_end(server, real_data):
    """Five of 33 MB are more than 128 MB. With what they were asked with, fewer have room."""
    about = server.get("/v2/models/deeplabv3_float").json()
    one = about["inputs"][0]
    array = np.zeros([6, *one["shape"][1:]], np.float32)
    body, headers = question({one["name"]: array}, parameters={"binary_data_output": True})
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"Host: localhost\r\nContent-Length: {len(body)}\r\n{head}\r\n"
    ask = f"POST /v2/models/deeplabv3_float/infer HTTP/1.1\r\n{head}"
    with contextlib.ExitStack() as readers:
        statuses = []
        for _ in range(6):
            reader = readers.enter_context(server.raw(ask.encode() + body))
            statuses.append(int(reader.recv(12).split()[1]))
            if statuses[-1] != 200:
                assert b"retry-after" in reader.recv(4096)
                break
        assert 2 < len(statuses) < 6 and statuses[-1] == 503
    assert len(infer(server, "deeplabv3_float", {one["name"]: array})) == 1


def peak_bytes():
    """Of this process' memory, in which the server lives too."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def test_an_answer_that_nobody_should_hold_is_refused(server, real_data):
    about = server.get("/v2/models/deeplabv3_float").json()
    one = np.zeros([1, *about["inputs"][0]["shape"][1:]], np.float32)
    name = about["inputs"][0]["name"]
    body, headers = question({name: np.concatenate([one] * 2)})
    assert "binary_data" in server.post("/v2/models/deeplabv3_float/infer", body, headers).error
    body, headers = question({name: np.concatenate([one] * 13)}, parameters={"binary_data_output": True})
    assert "fewer at once" in server.post("/v2/models/deeplabv3_float/infer", body, headers).error
    text = b'{"inputs": [' + b"[]," * (6 << 20) + b"[]]}"
    assert server.post(f"/v2/models/{FLOAT}/infer", text).status == 413


def test_load_unload_and_statistics(server):
    before = server.components["models"].report()["loads"]
    assert server.post("/v2/repository/models/colour/unload", {}).status == 200
    assert server.post("/v2/repository/models/colour/load", {}).status == 200
    assert server.components["models"].report()["loads"] == before + 1
    assert server.post("/v2/repository/models/colour/load", {"parameters": {"config": "{}"}}).status == 400
    infer(server, "colour", noise(server.get("/v2/models/colour").json(), 8))
    stats = server.get("/v2/models/colour/stats").json()["model_stats"][0]
    assert stats["inference_stats"]["success"]["count"] >= 1 and stats["name"] == "colour"


def test_bodies_of_any_kind_never_break_the_server(server):
    """10 000 of them are tools/api_peers'; these are for every day."""
    draw = random.Random(1)
    good, headers = question({"pixels": np.zeros((1, 8, 8, 3), np.float32)})
    for _ in range(200):
        body = bytearray(good)
        for _ in range(draw.randint(1, 8)):
            at = draw.randrange(len(body))
            body[at : at + draw.randint(0, 4)] = draw.randbytes(draw.randint(0, 4))
        length = headers if draw.random() < 0.7 else {"Inference-Header-Content-Length": str(draw.randint(0, 999))}
        assert server.post(f"/v2/models/{FLOAT}/infer", bytes(body), length).status in (200, 400)


API = ("/v2", "/predict", "/healthz", "/openapi.json")  # what is not the pages' own


def test_every_route_stands_in_the_openapi_file(server):
    described = set(server.get("/openapi.json").json()["paths"])
    app = server.components["http"]._server.config.app.app._app
    assert described == {route.path for route in app.routes if route.path.startswith(API)}
