"""Speech recognition over Wyoming, the protocol of voice assistants in the house (github.com/OHF-Voice/wyoming).

An event is a JSON line `{"type", "version", "data_length"?, "payload_length"?}`, then that many bytes of JSON that add
to its `data`, then that many bytes of payload. One utterance is: transcribe, audio-start, audio-chunk..., audio-stop;
the answer is one transcript. Servers that stream send transcript-start, -chunk, -stop around it.

Not by the `wyoming` package: it reads whatever length a server names and knows no deadline for a whole exchange, which
are what this file is about; and it brings asyncio along, 11 MB and 75 ms of CPU in `serve`. It is the peer in tests.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edge_runtime.core.errors import DeviceError, ProtocolError
from edge_runtime.serve.deadline import Deadline
from edge_runtime.serve.speech.server import MOST_ANSWER_BYTES, Said, Speech

VERSION = "1.5.4"  # of the protocol this was written to
CHUNK_MS = 100
LANGUAGE = "en"  # the commands and the spelling words are English
MOST_LINE = 64 * 1024


class WyomingSpeech:
    def __init__(self, host: str, port: int, model: str) -> None:
        self.origin = f"remote:{model}@{host}:{port}"
        self._address = (host, port)
        self._model = model

    def recognise(self, speech: Speech, until: Deadline) -> Said:
        where = f"the speech server {self._address[0]}:{self._address[1]}"
        try:
            with socket.create_connection(self._address, timeout=until.left_s()) as sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for event in _question(speech, self._model):
                    sock.settimeout(until.left_s())
                    sock.sendall(event)
                return _answer(Events(sock, until))
        except TimeoutError as err:
            raise DeviceError(f"{where} does not answer in time") from err
        except OSError as err:
            raise DeviceError(f"{where}: {err.strerror or err}", "check voice.remote.url and the server") from err


def _question(speech: Speech, model: str) -> Iterator[bytes]:
    pcm = np.ascontiguousarray(speech.pcm, "<i2").tobytes()
    form = {"rate": speech.rate_hz, "width": 2, "channels": 1}
    step = speech.rate_hz * CHUNK_MS // 1000 * 2
    yield encode("transcribe", {"name": model, "language": LANGUAGE})
    yield encode("audio-start", form | {"timestamp": 0})
    for at in range(0, len(pcm), step):
        yield encode("audio-chunk", form | {"timestamp": at * 1000 // (2 * speech.rate_hz)}, pcm[at : at + step])
    yield encode("audio-stop", {"timestamp": len(pcm) * 1000 // (2 * speech.rate_hz)})


def _answer(events: Events) -> Said:
    while True:
        kind, data = events.next()
        if kind == "transcript":
            text = data.get("text")
            if not isinstance(text, str):
                raise ProtocolError(f"a transcript without text: {str(data)[:200]}")
            return Said(text, 1.0)  # the protocol tells no confidence
        if kind == "error":
            raise DeviceError(f"the speech server refuses: {str(data.get('text'))[:200]}")


def encode(kind: str, data: Mapping[str, Any], payload: bytes = b"") -> bytes:
    """One event."""
    body = json.dumps(data).encode()
    header: dict[str, Any] = {"type": kind, "version": VERSION, "data_length": len(body)}
    if payload:
        header["payload_length"] = len(payload)
    return json.dumps(header).encode() + b"\n" + body + payload


class Events:
    """The events that come in on a socket. Raises ProtocolError on what is none, TimeoutError when the time is over."""

    def __init__(self, sock: socket.socket, until: Deadline) -> None:
        self._sock = sock
        self._until = until
        self._buffer = bytearray()
        self._taken = 0

    def next(self) -> tuple[str, dict[str, Any]]:
        """Type and data of the next event; its payload is passed over."""
        while b"\n" not in self._buffer:
            if len(self._buffer) > MOST_LINE:
                raise ProtocolError("the speech server sends something that is not Wyoming")
            self._more()
        line, _, rest = self._buffer.partition(b"\n")
        self._buffer = bytearray(rest)
        header = _object(bytes(line))
        data = header.get("data") or {}
        data = (data if isinstance(data, dict) else {}) | self._data(_length(header, "data_length"))
        self._bytes(_length(header, "payload_length"))
        return str(header.get("type")), data

    def _data(self, length: int) -> dict[str, Any]:
        return _object(self._bytes(length)) if length else {}

    def _bytes(self, length: int) -> bytes:
        while len(self._buffer) < length:
            self._more()
        block = bytes(self._buffer[:length])
        del self._buffer[:length]
        return block

    def _more(self) -> None:
        self._sock.settimeout(self._until.left_s())
        piece = self._sock.recv(1 << 16)
        if not piece:
            raise ProtocolError("the speech server closed the connection without an answer")
        self._taken += len(piece)
        if self._taken > MOST_ANSWER_BYTES:
            raise ProtocolError(f"the speech server sends more than {MOST_ANSWER_BYTES} bytes for one answer")
        self._buffer += piece


def _length(header: Mapping[str, Any], name: str) -> int:
    length = header.get(name) or 0
    if not isinstance(length, int) or not 0 <= length <= MOST_ANSWER_BYTES:
        raise ProtocolError(f"the speech server says {name} {str(length)[:40]}")
    return length


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise ProtocolError("the speech server sends something that is not Wyoming") from err
    if not isinstance(found, dict):
        raise ProtocolError("the speech server sends something that is not Wyoming")
    return found
