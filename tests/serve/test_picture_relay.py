"""From the line's end over the relay to a real inference server: what it answers, and the ways in which it does not."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.clock import MS, SECOND, monotonic_ns
from edge_runtime.core.errors import ConfigError, DeviceError, EdgeError, ModelError
from edge_runtime.flow.components import State
from edge_runtime.inference.native_noise import native_noise_hidden
from edge_runtime.inference.picture_wire import MOST_IN_FLIGHT, Failure, ServedModel, TensorForm
from edge_runtime.inference.remote_picture import RemotePicture
from edge_runtime.inference.remote_session import RemoteSession
from edge_runtime.media.picture import decode_picture
from edge_runtime.modelstore.bundle import load_bundle
from edge_runtime.predictors.remote_vision import RemoteReading
from edge_runtime.predictors.vision import open_vision_model
from edge_runtime.process.json_lines import Lines, as_line
from edge_runtime.process.unix_socket import connected
from edge_runtime.serve.access.certificate import CERTIFICATE
from edge_runtime.serve.remote.relay import PictureRelay
from tests.serve.http_box import box as other_box
from tests.support.v2_server import FAULTS, Peer, serving, start
from tests.support.waiting import until

BUNDLE = Path("models/scratch/1")
SOON_S = 0.3  # what a part has; the model takes 0.02 s
LONG_S = 20.0  # what a test gives that is about something else than time
LATE = {"hang", "slow", "drip", "drip_body", "many_continues"}
ENDS = {
    **dict.fromkeys(LATE, Failure.LATE),
    **dict.fromkeys(["error_500", "error_404", "redirect"], Failure.REFUSED),
    **dict.fromkeys(["reset", "hang_up"], Failure.UNREACHABLE),
}  # what every other fault is: WRONG
GOOD = {"in_json", "http_10", "closes_after", "answers_twice"}


@pytest.fixture(scope="module")
def model():
    with native_noise_hidden():
        return open_vision_model(load_bundle(BUNDLE))


@pytest.fixture(scope="module")
def reading(model):
    made = RemoteReading(model.bundle)
    made.learn(model.engine.inputs, model.engine.outputs)
    return made


@pytest.fixture(scope="module")
def part():
    """A scratched one: frames are read-only, as those of a camera."""
    image = decode_picture((BUNDLE / "golden" / "deep.png").read_bytes())
    image.flags.writeable = False
    return image


@pytest.fixture(scope="module")
def server():
    with serving(BUNDLE / "model.tflite", "scratch") as peer:
        yield peer


@pytest.fixture
def peer(server):
    server.does()
    yield server
    server.does()


@contextlib.contextmanager
def relaying(folder: Path, url: str, **remote):
    told = {"predictor": "remote", "remote": {"url": url, "may_leave": True, **remote}}
    cfg = EdgeConfig.model_validate({"model": told})
    relay = PictureRelay(cfg, folder / "picture.sock")
    relay.start()
    try:
        yield relay
    finally:
        relay.stop()


class Asker:
    """The line's end of one connection, and how each question ended."""

    def __init__(self, relay: PictureRelay, reading: RemoteReading) -> None:
        self.ends: list[tuple[Failure | None, str]] = []
        self.session = RemoteSession(
            relay.path, reading, lambda failure, why: self.ends.append((failure, why)), monotonic_ns
        )

    def begin(self, image, within_s: float) -> list:
        told: list = []
        question = self.session.take(image, monotonic_ns() + round(within_s * SECOND), told.append)
        assert question is not None
        self.session.send(question)
        return told

    def ask(self, image, within_s: float = SOON_S):
        """The prediction, or what failed."""
        told = self.begin(image, within_s)
        while not told:
            self.session.listen(0.02)
            self.session.expire()
        return told[0] or self.ends[-1][0]


@pytest.fixture(scope="module")
def relay(server, tmp_path_factory):
    with relaying(tmp_path_factory.mktemp("relay"), server.url) as made:
        yield made


@pytest.fixture
def asker(relay, peer, reading):
    made = Asker(relay, reading)
    yield made
    made.session.close()


def test_the_answer_is_what_the_boxs_own_model_says(asker, model, part, peer):
    prediction, own = asker.ask(part, LONG_S), model(part)
    assert (prediction.score, prediction.scores, prediction.regions) == (own.score, own.scores, own.regions)
    assert np.array_equal(prediction.heat, own.heat) and own.score > 0.9
    assert (
        prediction.origin == f"remote:scratch/7@127.0.0.1:{peer.port}" and prediction.model == own.model == "scratch@1"
    )


@pytest.mark.parametrize("fault", [name for name in FAULTS if not name.startswith("describe_")])
def test_a_server_that_misbehaves_costs_an_answer_and_nothing_else(asker, peer, part, fault):
    peer.does(fault)
    within_s = SOON_S if fault in LATE else LONG_S
    began = time.monotonic()
    said = asker.ask(part, within_s)
    assert time.monotonic() - began < within_s + 1.0  # the part's time is over, whatever the server does
    if fault in GOOD:
        assert said.score > 0.9
    else:
        assert said is ENDS.get(fault, Failure.WRONG), asker.ends
        assert asker.ends[-1][1].isprintable() and len(asker.ends[-1][1]) < 400
    peer.does()
    again = asker.ask(part, LONG_S)
    assert again.score > 0.9, asker.ends


def test_four_parts_are_asked_at_once_and_a_fifth_is_not(asker, part, peer):
    peer.does("slow")
    told = [asker.begin(part, LONG_S) for _ in range(MOST_IN_FLIGHT)]
    assert asker.session.take(part, monotonic_ns() + SECOND, lambda _: None) is None
    while not all(told):
        asker.session.listen(0.05)
    assert {one[0].score for one in told} == {told[0][0].score}


def test_a_connection_that_ends_ends_what_is_open_on_it(asker, part, peer):
    peer.does("hang")
    told = asker.begin(part, 5.0)
    asker.session.close()
    assert told == [None] and asker.ends[-1][0] is Failure.UNREACHABLE
    assert asker.session.take(part, monotonic_ns() + SECOND, lambda _: None) is None


def test_real_numbers_instead_of_8_bit_ones_are_the_same_network(tmp_path, reading, model, part):
    """A server of the network before quantisation: prepared as real numbers, decoded without scales; NaN is wrong."""
    with serving(BUNDLE / "model.tflite", "scratch", "--float") as peer, relaying(tmp_path, peer.url) as relay:
        asker = Asker(relay, reading)
        assert asker.ask(part, LONG_S).score == pytest.approx(model(part).score, abs=0.02)
        for fault in ("nan", "infinity"):
            peer.does(fault)
            assert asker.ask(part, LONG_S) is Failure.WRONG and "no numbers" in asker.ends[-1][1]
        asker.session.close()


@pytest.mark.parametrize("as_float", [[], ["--float"]], ids=["8 bits", "float"])
def test_a_server_that_offers_no_binary_tensors_is_asked_in_json(tmp_path, reading, model, part, as_float):
    model_file = BUNDLE / "model.tflite"
    with serving(model_file, "scratch", "--json", *as_float) as peer, relaying(tmp_path, peer.url) as relay:
        asker = Asker(relay, reading)
        assert asker.ask(part, LONG_S).score == pytest.approx(model(part).score, abs=0.02 if as_float else 0.0)
        asker.session.close()


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
def test_another_boxs_prediction_api_is_such_a_server(tmp_path, reading, model, part, is_tls):
    """With its certificate for authority and its token in a file; without the certificate it is not believed."""
    with other_box(tmp_path / "other", f"serve.tls={str(is_tls).lower()}") as other:
        (tmp_path / "token").write_text(other.token)
        own = {
            "token_file": str(tmp_path / "token"),
            "ca_file": str(tmp_path / "other" / CERTIFICATE) if is_tls else "",
        }
        with relaying(tmp_path, other.url, **own) as relay:
            asker = Asker(relay, reading)
            prediction = asker.ask(part, 20.0)
            assert prediction.score == model(part).score and prediction.origin.startswith("remote:scratch/1@127.0.0.1:")
            asker.session.close()
        if is_tls:
            with relaying(tmp_path, other.url) as relay, pytest.raises(DeviceError, match="certificate"):
                RemoteSession(relay.path, reading, lambda *_: None, monotonic_ns)


@pytest.mark.parametrize(
    ("fault", "words"),
    [("describe_500", "500"), ("describe_other", "is not the model of scratch@1"), ("describe_no_json", "no JSON")],
)
def test_a_server_that_has_no_such_model_is_told_in_words(relay, peer, reading, fault, words):
    peer.does(fault)
    with pytest.raises(EdgeError, match=words):
        RemoteSession(relay.path, reading, lambda *_: None, monotonic_ns)


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        ([("a", "INT8", (1, 360, 640, 3)), ("b", "FP32", (1,))], None, "2 inputs"),
        ([("a", "UINT8", (1, 360, 640, 3))], None, "its input is a UINT8"),
        ([("a", "INT8", (1, 3, 360, 640))], None, "its input is a INT8 1x3x360x640"),
        ([("a", "BYTES", (1, 360, 640, 3))], None, "no numbers"),
        (None, [("o", "INT8", (1, 90, 160, 1))], "its output is o"),
        (None, [("o", "INT32", (1, 45, 80, 1))], "its output is o"),
        (None, [("o", "INT8", (1, 45, 80, 1)), ("p", "INT8", (1,))], "2 outputs"),
    ],
)  # fmt: skip
def test_a_model_of_another_kind_does_not_fit(reading, inputs, outputs, words):
    inputs = inputs or [("a", "INT8", (-1, 360, 640, 3))]
    outputs = outputs or [("o", "INT8", (-1, 45, 80, 1))]
    served = ServedModel("m", (), tuple(TensorForm(*one) for one in inputs), tuple(TensorForm(*one) for one in outputs))
    with pytest.raises(ModelError, match=words):
        reading.fit(served)


def test_a_server_that_activates_its_outputs_is_noticed_in_the_trial(reading):
    """A second sigmoid would make 0.5 to 0.73 of everything: no part would ever be rejected."""
    fitted = reading.fit(
        ServedModel("m", (), (TensorForm("a", "FP32", (1, 360, 640, 3)),), (TensorForm("o", "FP32", (1, 45, 80, 1)),))
    )
    shares = np.random.default_rng(1).random((1, 45, 80, 1), np.float32)
    pictures = reading.trial_pictures()
    for picture in pictures[:-1]:
        fitted.prediction((shares,), fitted.prepare(picture)[1], "remote:m", 1.0)
    with pytest.raises(ModelError, match="as after sigmoid"):
        fitted.prediction((shares,), fitted.prepare(pictures[-1])[1], "remote:m", 1.0)


def test_what_leaves_is_the_models_input_and_nothing_else(asker, model, part, peer):
    """No frame in its own size, no name of the station, the model of the box, the part or its time."""
    asker.ask(part, LONG_S)
    last = peer.last
    assert bytes.fromhex(last["tensor"]) == model.prepare(part)[0].tobytes()
    assert {name.lower() for name in last["headers"]} == {
        "host", "accept-encoding", "content-length", "content-type", "inference-header-content-length",
    }  # fmt: skip
    assert last["path"] == "/v2/models/scratch/infer"
    asked = json.loads(last["asked"])
    assert set(asked) == {"id", "inputs", "outputs"} and re.fullmatch(r"part-\d+", asked["id"])
    assert set(asked["inputs"][0]) == {"name", "datatype", "shape", "parameters"}


def test_nothing_leaves_where_pictures_may_not(tmp_path, peer, reading):
    before = peer.seen
    with relaying(tmp_path, peer.url, may_leave=False) as relay:
        with pytest.raises(DeviceError, match="may_leave is false"):
            RemoteSession(relay.path, reading, lambda *_: None, monotonic_ns)
        assert relay.health().state is State.OK and "stay in the box" in relay.health().detail
    assert peer.seen == before


def test_a_token_is_shown_to_the_server_and_read_anew_each_time(tmp_path, reading, part):
    token = tmp_path / "token"
    token.write_text("wrong\n")
    with (
        serving(BUNDLE / "model.tflite", "scratch", "--token", "s3cret") as peer,
        relaying(tmp_path, peer.url, token_file=str(token), version="7") as relay,
    ):
        with pytest.raises(DeviceError, match="401"):
            RemoteSession(relay.path, reading, lambda *_: None, monotonic_ns)
        assert relay.health().state is State.DEGRADED
        token.write_text("s3cret\n")
        asker = Asker(relay, reading)
        assert asker.ask(part, LONG_S).score > 0.9
        token.unlink()
        assert asker.ask(part, LONG_S) is Failure.REFUSED and "token_file" in asker.ends[-1][1]
        asker.session.close()


def test_a_ca_file_that_is_none_keeps_serve_from_starting(tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate")
    with (
        pytest.raises(ConfigError, match="ca_file"),
        relaying(tmp_path, "https://127.0.0.1:1", ca_file=str(tmp_path / "ca.pem")),
    ):
        pass


@pytest.mark.parametrize(
    "request_",
    [
        {"do": "play"},
        {"id": 1},
        {"id": "x", "within_ms": 5, "datatype": "INT8", "shape": [1], "bytes": 1},
        {"id": 1, "within_ms": -5, "datatype": "INT8", "shape": [1], "bytes": 1},
        {"id": 1, "within_ms": 5, "datatype": "BYTES", "shape": [1], "bytes": 1},
        {"id": 1, "within_ms": 5, "datatype": "INT8", "shape": [2**31], "bytes": 2**31},
        {"id": 1, "within_ms": 5, "datatype": "INT8", "shape": [1], "bytes": 2},
    ],
)  # fmt: skip
def test_a_line_that_asks_nonsense_is_hung_up_on_in_words(relay, peer, request_):
    with connected(relay.path, 5.0) as sock:
        sock.settimeout(5.0)
        if "id" in request_:
            sock.sendall(as_line({"do": "open"}))
            lines = Lines(sock, 5.0)
            assert lines.line()["served"]["name"] == "scratch"
        else:
            lines = Lines(sock, 5.0)
        sock.sendall(as_line(request_))
        assert lines.within(5.0).line()["error"]


# -- the component that the line has -----------------------------------------------------------------------------------


@contextlib.contextmanager
def remote_of(folder: Path, reading: RemoteReading):
    changes: list[bool] = []
    remote = RemotePicture(folder / "picture.sock", SECOND, lambda is_up, _: changes.append(is_up), monotonic_ns)
    remote.read_by(reading)
    remote.start()
    try:
        yield remote, changes
    finally:
        remote.stop()


def is_up(remote: RemotePicture) -> bool:
    return remote.health().state is State.OK


def ask(remote: RemotePicture, reading: RemoteReading, image, within_s: float = LONG_S):
    told: list = []
    assert remote.ask(image, reading, monotonic_ns() + round(within_s * SECOND), told.append)
    until(lambda: told)
    return told[0]


def test_what_comes_and_goes_is_found_again_without_anybody(tmp_path, reading, part):
    """`serve` comes late, the server dies and comes back: parts are asked again, each question is accounted for."""
    peer: Peer = start(BUNDLE / "model.tflite", "scratch")
    port = peer.port
    try:
        with remote_of(tmp_path, reading) as (remote, changes):
            until(lambda: "start edge-runtime serve" in remote.health().detail)
            assert not remote.ask(part, reading, monotonic_ns() + SECOND, lambda _: None)
            with relaying(tmp_path, peer.url):
                until(lambda: is_up(remote))
                assert ask(remote, reading, part).score > 0.9
                peer.kill()
                until(lambda: not remote.ask(part, reading, monotonic_ns() + 50 * MS, lambda _: None))
                assert "cannot be reached" in until(lambda: remote.health().detail)
                peer = start(BUNDLE / "model.tflite", "scratch", "--port", str(port))
                until(lambda: is_up(remote))
                assert ask(remote, reading, part).score > 0.9
            until(lambda: not is_up(remote))
            assert changes == [True, False, True, False]
            told = remote.report()
            assert told["answered"] == 2 and told["asked"] == sum(told[name] for name in ("answered", *Failure))
    finally:
        peer.kill()


def test_another_bundle_is_tried_before_it_is_asked_about(tmp_path, peer, model, reading, part):
    with relaying(tmp_path, peer.url), remote_of(tmp_path, reading) as (remote, _):
        until(lambda: is_up(remote))
        other = RemoteReading(model.bundle)
        other.learn(model.engine.inputs, model.engine.outputs)
        assert not remote.ask(part, other, monotonic_ns() + SECOND, lambda _: None)
        remote.read_by(other)
        until(lambda: remote.report()["trials"] == 2 and is_up(remote))
        assert ask(remote, other, part).score > 0.9


def test_a_serve_that_takes_nothing_is_given_up(tmp_path, reading):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "picture.sock"))
        listener.listen()
        with remote_of(tmp_path, reading) as (remote, changes):
            client, _ = listener.accept()
            with client:
                assert json.loads(client.recv(100)) == {"do": "open"}
                client.sendall(b'{"served": 5}\n')
            until(lambda: "no object" in remote.health().detail)
            assert changes == [] and remote.health().state is State.DEGRADED
