"""The voice line's end of the relay: what it takes for an answer, and what it does with anything else."""

from __future__ import annotations

import contextlib
import socket
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.core.clock import monotonic_ns
from edge_runtime.core.errors import DeviceError
from edge_runtime.core.messages import Utterance
from edge_runtime.inference.remote_speech import MOST_TEXT, RemoteSpeech
from edge_runtime.process.json_lines import Lines, as_line

UTTERANCE = Utterance(0, 1, 16_000, np.arange(100, dtype=np.int16), 300)


@contextlib.contextmanager
def serving(path, answer: bytes):
    """Takes one utterance and answers so; what it took is in the list."""
    taken = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)

        def serve():
            client, _ = listener.accept()
            with client:
                lines = Lines(client, 10.0)
                taken.append(lines.line())
                taken.append(lines.block(2 * taken[0]["samples"]))
                client.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield taken
        thread.join(timeout=10)


def test_the_utterance_arrives_as_it_was_said(tmp_path):
    answer = as_line({"text": "grease", "confidence": 0.5, "origin": "remote:x"})
    with serving(tmp_path / "s", answer) as taken:
        speech = RemoteSpeech(tmp_path / "s", 0.4, monotonic_ns)
        speech.begin(UTTERANCE)
        assert speech.answer(10.0) == ("grease", 0.5, "remote:x")
    header, sound = taken
    assert header == {"do": "recognise", "rate_hz": 16_000, "samples": 100, "within_ms": 400}
    assert np.array_equal(np.frombuffer(sound, "<i2"), UTTERANCE.pcm)
    assert speech.report() == {"asked": 1, "answered": 1, "trouble": ""}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "closed"),
        (b"[1]\n", "no JSON object"),
        (b'{"text": 3, "confidence": 1, "origin": ""}\n', "no answer"),
        (b'{"text": "a", "confidence": "1", "origin": ""}\n', "no answer"),
        (as_line({"error": "x" * 10_000}), "^x{500}$"),
        (b"x" * 200_000, "a line of more than"),
    ],
)
def test_what_is_no_answer_is_a_sentence(tmp_path, answer, why):
    with serving(tmp_path / "s", answer):
        speech = RemoteSpeech(tmp_path / "s", 0.4, monotonic_ns)
        speech.begin(UTTERANCE)
        with pytest.raises(DeviceError, match=why):
            speech.answer(10.0)
    assert speech.report()["missed"] == 1


def test_an_endless_text_is_cut(tmp_path):
    with serving(tmp_path / "s", as_line({"text": "a" * 5000, "confidence": 1, "origin": "x"})):
        speech = RemoteSpeech(tmp_path / "s", 0.4, monotonic_ns)
        speech.begin(UTTERANCE)
        assert len(speech.answer(10.0).text) == MOST_TEXT


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=120))
def test_no_bytes_are_more_than_a_missed_answer(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("s") / "s"
    with serving(path, data + b"\n"):
        speech = RemoteSpeech(path, 0.4, monotonic_ns)
        speech.begin(UTTERANCE)
        with pytest.raises(DeviceError):
            speech.answer(10.0)
