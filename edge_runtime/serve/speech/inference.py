"""Speech recognition over the Open Inference Protocol v2, REST (github.com/kserve/open-inference-protocol).

The protocol names no tensors for speech. So the model is asked once what it takes (`GET v2/models/NAME`): its first
floating or 16-bit input gets the samples, shape [1, n] or [n]; an integer input beside it gets their number, one called
like a rate the rate. Its first BYTES output is the text, an output called like a confidence the confidence.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from edge_runtime.core.errors import DeviceError, ProtocolError
from edge_runtime.serve.deadline import Deadline
from edge_runtime.serve.speech.server import MOST_ANSWER_BYTES, Said, Speech

SAMPLES = {"FP32", "FP64", "INT16"}
NUMBERS = {"INT32", "INT64", "UINT32", "UINT64"}
DIGITS = 5  # of a sample's fraction in JSON: 1e-5 of full scale is below one step of 16 bits


@dataclass(frozen=True, slots=True)
class Form:
    """Which tensors of the model mean what."""

    samples: str
    samples_type: str
    is_flat: bool  # [n] instead of [1, n]
    length: tuple[str, str] | None  # name and datatype
    rate: tuple[str, str] | None
    text: str
    confidence: str | None


class InferenceSpeech:
    def __init__(self, url: str, model: str) -> None:
        parts = urlsplit(url)
        self._is_tls = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port
        self._path = f"{parts.path.rstrip('/')}/v2/models/{quote(model, safe='')}"
        self.origin = f"remote:{model}@{parts.netloc.rpartition('@')[2]}"
        self._form: Form | None = None

    def recognise(self, speech: Speech, until: Deadline) -> Said:
        try:
            form = self._form or as_form(self._ask("GET", self._path, None, until))
            self._form = form
            answer = self._ask("POST", f"{self._path}/infer", as_question(form, speech), until)
            return as_said(form, answer)
        except TimeoutError as err:
            raise DeviceError(f"the speech server {self._host} does not answer in time") from err
        except (DeviceError, ProtocolError):
            self._form = None  # another model may stand there now
            raise

    def _ask(self, verb: str, path: str, body: Mapping[str, Any] | None, until: Deadline) -> dict[str, Any]:
        kind = http.client.HTTPSConnection if self._is_tls else http.client.HTTPConnection
        more: dict[str, Any] = {"context": ssl.create_default_context()} if self._is_tls else {}
        connection = kind(self._host, self._port, timeout=until.left_s(), **more)
        content = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        try:
            connection.connect()
            with _ended_at(connection.sock, until):
                connection.request(verb, path, content, {"Content-Type": "application/json"} if content else {})
                answer = connection.getresponse()
                text = answer.read(MOST_ANSWER_BYTES + 1)
            until.left_s()  # a body that was cut off looks like its end
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException) as err:
            until.left_s()  # a connection that we cut because the time is over
            why = getattr(err, "strerror", None) or str(err) or type(err).__name__
            raise DeviceError(
                f"the speech server {self._host}: {why}", "check voice.remote.url and the server"
            ) from err
        finally:
            connection.close()
        if len(text) > MOST_ANSWER_BYTES:
            raise ProtocolError(f"the speech server sends more than {MOST_ANSWER_BYTES} bytes for one answer")
        if answer.status != 200:
            raise DeviceError(f"the speech server answers {answer.status}: {_reason(text)}")
        return _object(text)


@contextlib.contextmanager
def _ended_at(sock: socket.socket, until: Deadline) -> Iterator[None]:
    """A server that trickles stretches every single read, but not the whole: the connection is cut when time is up."""

    def cut() -> None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(until.left_s(), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def as_form(about: Mapping[str, Any]) -> Form:
    """From the model's own description. Raises ProtocolError when it is no speech recogniser."""
    inputs, outputs = _tensors(about, "inputs"), _tensors(about, "outputs")
    sounds = [tensor for tensor in inputs if tensor["datatype"] in SAMPLES]
    texts = [str(tensor["name"]) for tensor in outputs if tensor["datatype"] == "BYTES"]
    if not sounds or not texts:
        raise ProtocolError(
            f"model {about.get('name')!r} is no speech recogniser: it needs samples in and a text (BYTES) out"
        )
    numbers = [(str(tensor["name"]), str(tensor["datatype"])) for tensor in inputs if tensor["datatype"] in NUMBERS]
    rate = next((number for number in numbers if "rate" in number[0].lower()), None)
    sure = [str(t["name"]) for t in outputs if str(t["datatype"]).startswith("FP") and "conf" in str(t["name"]).lower()]
    shape = sounds[0].get("shape")
    return Form(
        samples=str(sounds[0]["name"]),
        samples_type=str(sounds[0]["datatype"]),
        is_flat=isinstance(shape, list) and len(shape) == 1,
        length=next((number for number in numbers if number != rate), None),
        rate=rate,
        text=texts[0],
        confidence=sure[0] if sure else None,
    )


def as_question(form: Form, speech: Speech) -> dict[str, Any]:
    count = len(speech.pcm)
    if form.samples_type == "INT16":
        values: list[Any] = speech.pcm.tolist()
    else:
        values = np.round(speech.pcm / 32768.0, DIGITS).tolist()
    inputs = [
        {
            "name": form.samples,
            "shape": [count] if form.is_flat else [1, count],
            "datatype": form.samples_type,
            "data": values,
        }
    ]
    for tensor, value in ((form.length, count), (form.rate, speech.rate_hz)):
        if tensor is not None:
            shape = [1] if form.is_flat else [1, 1]
            inputs.append({"name": tensor[0], "shape": shape, "datatype": tensor[1], "data": [value]})
    return {"inputs": inputs, "outputs": [{"name": name} for name in (form.text, form.confidence) if name]}


def as_said(form: Form, answer: Mapping[str, Any]) -> Said:
    """Raises ProtocolError when the answer lacks the text."""
    found = {str(tensor["name"]): _flat(tensor.get("data")) for tensor in _tensors(answer, "outputs")}
    texts = [text for text in found.get(form.text, []) if isinstance(text, str)]
    if not texts:
        raise ProtocolError(f"the speech server's answer has no text in '{form.text}'")
    sure = [value for value in found.get(form.confidence or "", []) if isinstance(value, int | float)]
    confidence = float(sure[0]) if sure and math.isfinite(sure[0]) else 1.0
    return Said(" ".join(texts), min(1.0, max(0.0, confidence)))


def _flat(data: Any) -> list[Any]:
    """Tensors may be nested or flat; one level is enough for a text."""
    if not isinstance(data, list):
        return []
    return [value for item in data for value in (item if isinstance(item, list) else [item])]


def _tensors(message: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    found = message.get(name)
    if not isinstance(found, list):
        raise ProtocolError(f"the speech server's answer has no {name}")
    if not all(isinstance(tensor, dict) and {"name", "datatype"} <= _texts_of(tensor) for tensor in found):
        raise ProtocolError(f"the speech server's {name} lack name or datatype")
    return found


def _texts_of(tensor: Mapping[str, Any]) -> set[str]:
    return {key for key, value in tensor.items() if isinstance(value, str)}


def _reason(text: bytes) -> str:
    try:
        return str(_object(text).get("error"))[:200]
    except ProtocolError:
        return text[:80].decode(errors="replace")


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise ProtocolError("the speech server sends something that is not JSON") from err
    if not isinstance(found, dict):
        raise ProtocolError("the speech server sends something that is not a JSON object")
    return found
