"""From the voice line over the relay to speech servers: real ones, strict ones, and ones that misbehave."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_runtime.config.schema import RemoteSpeechConfig
from edge_runtime.core.clock import SECOND, ManualClock, monotonic_ns
from edge_runtime.core.errors import ConfigError, DeviceError, ProtocolError
from edge_runtime.core.messages import Utterance
from edge_runtime.flow.components import State
from edge_runtime.inference.remote_speech import MISSES, REST_S, RemoteSpeech
from edge_runtime.process.json_lines import Lines, as_line
from edge_runtime.serve.deadline import Deadline
from edge_runtime.serve.speech.inference import as_form, as_question, as_said
from edge_runtime.serve.speech.relay import SpeechRelay
from edge_runtime.serve.speech.server import Speech
from edge_runtime.serve.speech.servers import open_speech_server
from edge_runtime.serve.speech.wyoming import Events, encode
from tests.serve.speech_servers import inference_server, tcp_server, until_closed, wyoming_server

PCM = np.linspace(-16384, 16384, 8000).astype(np.int16)
UTTERANCE = Utterance(0, SECOND // 2, 16_000, PCM, 300)
TRITON = {
    "name": "asr",
    "versions": ["1"],
    "platform": "onnx",
    "inputs": [
        {"name": "WAV", "datatype": "FP32", "shape": [-1, -1]},
        {"name": "WAV_LENS", "datatype": "INT32", "shape": [-1, 1]},
        {"name": "SAMPLE_RATE", "datatype": "INT32", "shape": [-1, 1]},
    ],
    "outputs": [
        {"name": "TRANSCRIPTS", "datatype": "BYTES", "shape": [-1, 1]},
        {"name": "CONFIDENCE", "datatype": "FP32", "shape": [-1, 1]},
    ],
}
FLAT = {
    "name": "asr",
    "platform": "x",
    "inputs": [{"name": "pcm", "datatype": "INT16", "shape": [-1]}],
    "outputs": [{"name": "text", "datatype": "BYTES", "shape": [1]}],
}


@contextlib.contextmanager
def relayed(tmp_path, url, share_s=3.0, clock=monotonic_ns, **remote):
    """A relay to that url, and the voice line's end of it."""
    cfg = RemoteSpeechConfig(url=url, may_leave=True).model_copy(update=remote)
    relay = SpeechRelay(cfg, tmp_path / "speech.sock")
    relay.start()
    try:
        yield relay, RemoteSpeech(relay.path, share_s, clock)
    finally:
        relay.stop()


def ask(speech, timeout_s=3.0):
    speech.begin(UTTERANCE)
    return speech.answer(timeout_s)


def test_a_wyoming_server_answers(tmp_path):
    with wyoming_server() as url, relayed(tmp_path, url) as (relay, speech):
        answer = ask(speech)
        assert answer.text == "asr heard 8000 samples at 16000 started True"
        assert (answer.confidence, answer.origin) == (1.0, f"remote:asr@{url.removeprefix('tcp://')}")
        assert ask(speech).text == answer.text
        assert relay.health().state is State.OK
        assert relay.report()["answered"] == 2


@pytest.mark.parametrize(
    ("model", "text", "confidence"),
    [
        (TRITON, "8000 samples up to 0.500 WAV_LENS=8000 SAMPLE_RATE=16000", 0.75),
        (FLAT, "8000 samples up to 16384.000", 1.0),
    ],
    ids=["triton", "flat"],
)
def test_an_inference_server_answers(tmp_path, model, text, confidence):
    with inference_server(model) as url, relayed(tmp_path, url) as (_, speech):
        for _ in range(2):  # the second time it knows the model
            answer = ask(speech)
            assert (answer.text, answer.confidence) == (text, confidence)


def test_a_model_that_is_no_recogniser_is_refused(tmp_path):
    picture = FLAT | {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 3, 2, 2]}]}
    with inference_server(picture) as url, relayed(tmp_path, url) as (relay, speech):
        with pytest.raises(DeviceError, match="no speech recogniser"):
            ask(speech)
        assert relay.health().state is State.DEGRADED
    with (
        inference_server(FLAT) as url,
        relayed(tmp_path, url, model="other") as (_, speech),
        pytest.raises(DeviceError, match="404"),
    ):
        ask(speech)


def garbage(client):
    client.recv(10)
    client.sendall(b"HTTP/1.1 200 OK\r\n\r\n<html>")


def noise(client):
    client.recv(10)
    client.sendall(bytes(range(256)) * 600)
    until_closed(client)


def endless(client):
    event = encode("transcript-chunk", {"text": "x" * 1000})
    while True:
        client.sendall(event * 64)


def huge(client):
    client.sendall(json.dumps({"type": "transcript", "data_length": 1 << 40}).encode() + b"\n")
    until_closed(client)


def refuses(client):
    client.sendall(encode("error", {"text": "no such model"}))
    until_closed(client)


def no_text(client):
    client.sendall(encode("transcript", {"words": 3}))
    until_closed(client)


@pytest.mark.parametrize(
    ("behave", "why"),
    [
        (garbage, "not Wyoming|closed|reset"),
        (noise, "not Wyoming"),
        (endless, "more than|not Wyoming"),
        (huge, "data_length"),
        (refuses, "no such model"),
        (no_text, "without text"),
        (lambda client: client.close(), "closed|reset|pipe"),
    ],
    ids=["garbage", "noise", "endless", "huge", "refuses", "no_text", "closes"],
)
def test_a_server_that_misbehaves_is_told_and_survived(tmp_path, behave, why):
    with tcp_server(behave) as url, relayed(tmp_path, url) as (relay, speech):
        with pytest.raises(DeviceError, match=why):
            ask(speech)
        assert relay.health().state is State.DEGRADED


@pytest.mark.parametrize("scheme", ["tcp", "http"])
def test_a_silent_server_costs_its_share_and_no_more(tmp_path, scheme):
    with tcp_server(until_closed) as url, relayed(tmp_path, url.replace("tcp", scheme), share_s=0.2) as (_, speech):
        began = time.monotonic()
        with pytest.raises(DeviceError, match="in time"):
            ask(speech, 0.2)
        assert time.monotonic() - began < 5.0


def test_a_server_that_trickles_is_cut_off(tmp_path):
    over = threading.Event()

    def trickle(client):
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not over.wait(0.02):
            client.sendall(b" ")

    with tcp_server(trickle) as url:
        server = open_speech_server(url.replace("tcp", "http"), "asr")
        began = time.monotonic()
        try:
            with pytest.raises(DeviceError, match="in time"):
                server.recognise(Speech(PCM, 16_000), Deadline(0.3))
        finally:
            over.set()
        assert time.monotonic() - began < 5.0


def test_a_dead_server_is_left_alone_for_a_while_and_asked_again(tmp_path):
    clock = ManualClock()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with relayed(tmp_path, f"tcp://127.0.0.1:{port}", clock=clock) as (_, speech):
        for _ in range(MISSES):
            with pytest.raises(DeviceError, match=r"check voice\.remote\.url"):
                ask(speech)
        with pytest.raises(DeviceError, match="left alone"):
            speech.begin(UTTERANCE)
        clock.advance_ms(REST_S[0] * 1000 + 1)
        with pytest.raises(DeviceError, match=r"check voice\.remote\.url"):
            ask(speech)
        clock.advance_ms(REST_S[0] * 1000 + 1)
        with pytest.raises(DeviceError, match="left alone"):  # longer, the second time
            speech.begin(UTTERANCE)
        assert speech.report()["missed"] == MISSES + 1


def test_without_serve_the_line_knows_at_once(tmp_path):
    speech = RemoteSpeech(tmp_path / "nobody.sock", 1.0, monotonic_ns)
    with pytest.raises(DeviceError, match="edge-runtime serve does not take it"):
        speech.begin(UTTERANCE)
    with pytest.raises(DeviceError, match="nothing was asked"):
        speech.answer(0.1)


def test_sound_leaves_only_where_the_station_allows_it(tmp_path):
    heard = []

    def listens(client):
        heard.append(client.recv(1))

    with tcp_server(listens) as url, relayed(tmp_path, url, may_leave=False) as (relay, speech):
        with pytest.raises(DeviceError, match="stays in the box"):
            ask(speech)
        assert relay.report()["refused"] == 1
    assert heard == []
    with relayed(tmp_path, "") as (_, speech), pytest.raises(DeviceError, match=r"voice\.remote\.url is empty"):
        ask(speech)


def test_a_dropped_question_disturbs_nobody(tmp_path):
    with wyoming_server() as url, relayed(tmp_path, url) as (_, speech):
        speech.begin(UTTERANCE)
        speech.drop()
        assert ask(speech).text.startswith("asr heard")


def test_one_socket_has_one_relay_and_what_a_crash_left_is_replaced(tmp_path):
    with relayed(tmp_path, "") as (relay, _):
        with pytest.raises(DeviceError, match="answered by a running"):
            SpeechRelay(RemoteSpeechConfig(), relay.path).start()
        assert relay.path.stat().st_mode & 0o777 == 0o660
    assert not relay.path.exists()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(relay.path))
    with relayed(tmp_path, "") as (again, _):
        assert again.health().state is State.OK
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DeviceError, match="not a socket"):
        SpeechRelay(RemoteSpeechConfig(), tmp_path / "file").start()


@pytest.mark.parametrize(
    "request_",
    [
        {"do": "nonsense"},
        {"do": "recognise"},
        {"do": "recognise", "rate_hz": 16_000, "samples": 10**12, "within_ms": 100},
        {"do": "recognise", "rate_hz": 16_000, "samples": -1, "within_ms": 100},
        {"do": "recognise", "rate_hz": 11_025, "samples": 10, "within_ms": 100},
        {"do": "recognise", "rate_hz": 16_000, "samples": 10, "within_ms": 1e9},
        {"do": "recognise", "rate_hz": [16_000], "samples": "10", "within_ms": None},
    ],
)
def test_a_wrong_request_is_answered_with_a_sentence(tmp_path, request_):
    with relayed(tmp_path, "") as (relay, _):
        assert "error" in told(relay, as_line(request_))


def told(relay, data: bytes):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(relay.path))
        sock.sendall(data)
        return Lines(sock, 5.0).line()


@pytest.fixture(scope="module")
def idle_relay(tmp_path_factory):
    with relayed(tmp_path_factory.mktemp("relay"), "") as (relay, _):
        yield relay


@settings(max_examples=40, deadline=None)
@given(data=st.binary(min_size=1, max_size=200))
def test_no_bytes_end_the_relay(idle_relay, data):
    assert "error" in told(idle_relay, data + b"\n")
    assert told(idle_relay, as_line({"do": "health"}))["state"] == "ok"


def pair(data: bytes):
    """A socket on which that has arrived, and nothing else will."""
    ours, theirs = socket.socketpair()
    theirs.sendall(data)
    theirs.shutdown(socket.SHUT_WR)
    return ours, theirs


@given(st.lists(st.tuples(st.text(max_size=10), st.dictionaries(st.text(max_size=5), st.integers()), st.binary())))
@settings(deadline=None)
def test_wyoming_events_come_out_as_they_went_in(events):
    ours, theirs = pair(b"".join(encode(*event) for event in events))
    with ours, theirs:
        reader = Events(ours, Deadline(5.0))
        for kind, data, _ in events:
            assert reader.next() == (kind, data)
        with pytest.raises(ProtocolError):
            reader.next()


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_no_bytes_are_more_than_a_protocol_error(data):
    ours, theirs = pair(data)
    with ours, theirs, contextlib.suppress(ProtocolError):
        Events(ours, Deadline(5.0)).next()


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "datatype", "data"]), inner),
    max_leaves=10,
)


@given(json_values, json_values)
@example([{"name": None, "datatype": []}], [])  # a list cannot be looked up among the datatypes
@settings(deadline=None)
def test_no_answer_is_more_than_a_protocol_error(inputs, outputs):
    with contextlib.suppress(ProtocolError):
        as_form({"inputs": inputs, "outputs": outputs})
    with contextlib.suppress(ProtocolError):
        as_said(as_form(TRITON), {"outputs": outputs})


def test_samples_survive_the_way_through_json():
    pcm = np.array([-32768, -1, 0, 1, 32767], np.int16)
    question = as_question(as_form(TRITON), Speech(pcm, 16_000))
    back = np.rint(np.array(question["inputs"][0]["data"]) * 32768)
    assert np.abs(back - pcm).max() <= 1


@pytest.mark.parametrize("url", ["tcp://", "ftp://host", "tcp://host:notaport", "http://"])
def test_a_url_that_cannot_be_asked_is_refused(url):
    with pytest.raises(ConfigError, match=r"voice\.remote\.url"):
        open_speech_server(url, "asr")
