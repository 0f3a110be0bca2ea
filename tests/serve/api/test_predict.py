"""`POST /predict` against a real server: what `edge-runtime predict` says, as JSON or drawn in."""

from __future__ import annotations

import wave

import cv2
import numpy as np
import pytest
import requests
import simplejpeg

from edge_runtime.config.load import load
from edge_runtime.predictors.predict import Predictor
from tests.conftest import ROOT
from tests.serve.http_box import box

PICTURE = ROOT / "tools" / "picture.jpg"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with box(tmp_path_factory.mktemp("state")) as running:
        yield running


def post(server, content, name="part.jpg", accept="application/json", **query):
    return requests.post(
        f"{server.url}/predict", params=query, files={"file": (name, content)}, headers={"Accept": accept}, timeout=60
    )


def test_json_is_what_predict_says(server):
    said = post(server, PICTURE.read_bytes(), "picture.jpg").json()
    expected = Predictor(load(None, [f'recording.state_dir="{server.state}"']).config).file(PICTURE)
    for one in (said, expected):
        one.pop("timings_ms")
    assert said == expected | {"file": "picture.jpg"}


def test_a_confidence_leaves_regions_out_and_the_verdict_as_it_is(server):
    every, some = (post(server, PICTURE.read_bytes(), confidence=least).json() for least in (0, 0.8))
    assert 0 < len(some["regions"]) < len(every["regions"])
    assert [one for one in every["regions"] if one["score"] >= 0.8] == some["regions"]
    assert some["verdict"] == every["verdict"]


def test_what_stands_in_the_wrong_place_is_not_passed_over(server):
    files = {"file": ("part.jpg", PICTURE.read_bytes())}
    form = requests.post(f"{server.url}/predict", data={"model": "backbone"}, files=files, timeout=60)
    assert (form.status_code, "stands in the address" in form.json()["error"]) == (400, True)
    misspelt = post(server, PICTURE.read_bytes(), confidense=0.5)
    assert (misspelt.status_code, "'confidense' is no parameter" in misspelt.json()["error"]) == (400, True)


@pytest.mark.parametrize("accept", ["*/*", "image/jpeg", "image/*;q=0.9, application/json;q=0.5", ""])
def test_the_picture_comes_back_with_its_verdict_drawn_in(server, accept):
    answer = post(server, PICTURE.read_bytes(), accept=accept)
    assert answer.headers["content-type"] == "image/jpeg"
    drawn, given = simplejpeg.decode_jpeg(answer.content), simplejpeg.decode_jpeg(PICTURE.read_bytes())
    assert drawn.shape == (given.shape[0] + 64, *given.shape[1:])
    assert np.mean(drawn[64:] != given) > 0.001  # the marks
    said = post(server, PICTURE.read_bytes()).json()
    assert (answer.headers["x-verdict"], answer.headers["x-model"]) == (said["verdict"], said["model"])


@pytest.mark.parametrize(
    ("content", "name", "status", "words"),
    [
        (b"hello", "part.jpg", 415, "no JPEG or PNG"),
        (b"", "part.jpg", 415, "no JPEG or PNG"),
        (b"BM" + b"\0" * 100, "part.bmp", 415, "no JPEG or PNG"),
        (b"RIFF\0\0\0\0WAVE", "part.wav", 415, "no JPEG or PNG"),
        (PICTURE.read_bytes()[:5000], "cut.jpg", 400, "damaged"),
        (b"\xff\xd8\xff" + b"\0" * 50, "part.jpg", 400, "damaged"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\x7f\xff\xff\xff" * 2, "bomb.png", 400, "megapixels"),
        (cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes(), "dot.png", 400, "too small"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_is_no_good_picture_is_refused_in_words(server, content, name, status, words):
    answer = post(server, content, name)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text


def test_a_picture_that_shows_nothing_is_unsure(server):
    black = cv2.imencode(".png", np.zeros((360, 640, 3), np.uint8))[1].tobytes()
    said = post(server, black).json()
    assert (said["verdict"], said["score"]) == ("unsure", None) and "too dark" in said["reason"]
    assert post(server, black, accept="image/jpeg").headers["x-verdict"] == "unsure"


def test_sound_goes_to_models_of_sound(server, tmp_path):
    tone = (np.sin(np.arange(24_000) * 0.3) * 8000).astype(np.int16)
    with wave.open(str(tmp_path / "tone.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(tone.tobytes())
    answer = post(server, (tmp_path / "tone.wav").read_bytes(), "tone.wav", accept="*/*", model="commands-dscnn")
    assert answer.status_code in (200, 400) and answer.headers["content-type"] == "application/json"
    assert post(server, PICTURE.read_bytes(), model="commands-dscnn").status_code == 415


@pytest.mark.parametrize(
    ("query", "status"),
    [({"model": "nope"}, 404), ({"model": "scratch@9"}, 404), ({"model": "../../x"}, 404), ({"confidence": "2"}, 400),
     ({"confidence": "nan"}, 400), ({"model": "backbone"}, 409)],
)  # fmt: skip
def test_a_wrong_question_is_refused_in_words(server, query, status):
    answer = post(server, PICTURE.read_bytes(), **query)
    assert answer.status_code == status and answer.json()["error"]


def test_what_is_no_form_with_a_file_is_refused_in_words(server):
    ask = f"{server.url}/predict"
    assert requests.post(ask, data=b"x", timeout=60).status_code == 415
    assert requests.post(ask, data={"file": "text"}, files={"other": b"x"}, timeout=60).status_code == 400
    assert requests.post(ask, files=[("file", b"x")] * 3, timeout=60).status_code == 400
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    assert requests.post(ask, data=b"--x\r\nnonsense", headers=broken, timeout=60).status_code == 400
    assert requests.post(ask, data=b"", headers={"Content-Type": "multipart/form-data"}, timeout=60).status_code == 400
    assert post(server, PICTURE.read_bytes(), accept="text/html").status_code == 406
    path = post(server, PICTURE.read_bytes(), "../../etc/pass\nwd.jpg").json()["file"]
    assert "/" not in path and "\n" not in path
