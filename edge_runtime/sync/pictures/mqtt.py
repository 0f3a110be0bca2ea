"""Pictures by MQTT, on the connection of the records: a piece is one message, a line of JSON and then the bytes."""

from __future__ import annotations

import json

from edge_runtime.sync.mqtt.link import MqttLink
from edge_runtime.sync.mqtt.reasons import About, about, in_words
from edge_runtime.sync.outbox.pictures import Upload
from edge_runtime.sync.pictures.carrier import Refused

CHUNK_SCHEMA = "edge-runtime/chunk/1"
MQTT_CHUNK = 64 * 1024  # one piece holds a 1 Mbit/s link for half a second, and live records behind it
HEADER_ROOM = 1024  # of a packet, for topic and header
MQTT_TOKEN = -1  # records have numbers from 1
REFUSALS_MOST = 5  # of one piece, or connections that ended with it alone under way, before its picture is given up


class MqttCarrier:
    """The broker's acknowledgement answers a piece."""

    via = "mqtt"

    def __init__(self, link: MqttLink, topic: str, box: str) -> None:
        self._link = link
        self._topic = topic
        self._box = box
        self._upto: int | None = None
        self._acked: int | None = None
        self._is_lost = False
        self._refusal: int | None = None
        self._refusals = 0  # in a row, of one piece

    def chunk_bytes(self) -> int:
        return max(1024, min(MQTT_CHUNK, self._link.most_bytes - HEADER_ROOM))

    def send(self, upload: Upload, chunk: bytes) -> bool:
        header = {
            "schema": CHUNK_SCHEMA,
            "box": self._box,
            "file": upload.file,
            "part": upload.part,
            "verdict": upload.verdict,
            "size": upload.size,
            "sha256": upload.sha256,
            "offset": upload.acked,
        }
        payload = json.dumps(header, separators=(",", ":")).encode() + b"\n" + chunk
        if not self._link.fits(self._topic, len(payload)):
            raise OSError(f"pieces of {len(payload)} bytes are larger than a packet may be ({self._link.most_bytes})")
        if not self._link.publish(self._topic, payload, token=MQTT_TOKEN):
            return False
        self._upto, self._acked, self._is_lost = upload.acked + len(chunk), None, False
        return True

    def refused(self, code: int) -> None:
        """The broker does not take the piece that was sent last."""
        self._refusal, self._upto = code, None
        self._refusals += 1

    def acked(self) -> None:
        """The broker has the piece that was sent last."""
        self._acked, self._upto = self._upto, None
        self._refusals = 0

    def link_down(self) -> None:
        self._is_lost = self._upto is not None
        if self._is_lost and self._link.lost_tokens == 1:
            self._refusals += 1  # it was alone when the connection ended
        self._upto = self._acked = None

    def result(self) -> int | None:
        code, self._refusal = self._refusal, None
        if code is not None or self._is_lost:
            self._is_lost = False
            why = "the link was lost" if code is None else f"the broker refuses a piece of a picture: {in_words(code)}"
            is_of_the_way = code is not None and about(code) in (About.MOMENT, About.WAY)
            if self._refusals >= REFUSALS_MOST and not is_of_the_way:
                self._refusals = 0
                raise Refused(why)
            raise ConnectionError(why)
        acked, self._acked = self._acked, None
        return acked

    def stop(self) -> None: ...
