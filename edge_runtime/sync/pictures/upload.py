"""Pictures on their way to the cloud, piece by piece, after everything else.

The queue is a table of the outbox; the bytes stay where recording put them. A piece that the far side has is noted,
so an upload goes on where it was after a cut or a restart. When a picture arrived whole an `evidence` record says so,
in the same transaction that ends the upload. How pieces travel is a carrier's: over MQTT, or with HTTP PUT.

What recording's own quota removed before its turn came, or what cannot be read, is dropped and recorded as such.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from edge_runtime.core.clock import SECOND, Clock
from edge_runtime.recording.wall_clock import WallClock
from edge_runtime.sync.backoff import Backoff
from edge_runtime.sync.mqtt.link import MqttLink
from edge_runtime.sync.mqtt.reasons import About, about, in_words
from edge_runtime.sync.outbox.outbox import Outbox
from edge_runtime.sync.pictures.pace import TokenBucket, is_within
from edge_runtime.sync.records.records import Kind, drop_record, own_record

log = logging.getLogger(__name__)

CHUNK_SCHEMA = "edge-runtime/chunk/1"
MQTT_CHUNK = 64 * 1024  # one piece holds a 1 Mbit/s link for half a second, and live records behind it
HEADER_ROOM = 1024  # of a packet, for topic and header
MQTT_TOKEN = -1  # records have numbers from 1
RETRY_MOST_S = 300.0
REFUSALS_MOST = 5  # of one piece, or connections that ended with it alone under way, before its picture is given up


@dataclass(frozen=True, slots=True)
class Upload:
    """One picture that is being sent. `acked`: bytes the far side has."""

    id: int
    file: str
    part: str
    verdict: str
    asked: bool
    size: int
    sha256: str
    acked: int


class Refused(Exception):
    """The far side will never take this picture."""


class Carrier(Protocol):
    """Carries one piece at a time."""

    via: str

    def chunk_bytes(self) -> int: ...

    def send(self, upload: Upload, chunk: bytes) -> bool:
        """Begin to send the bytes from `upload.acked` on. False: not now."""

    def result(self) -> int | None:
        """How many bytes of the file the far side has now, once the piece that was sent is answered.

        Raises OSError when it did not get through, Refused when it never will.
        """

    def stop(self) -> None: ...


class MqttCarrier:
    """A piece is one message: a line of JSON, then the bytes. The broker's acknowledgement answers it."""

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


class Uploads:
    """Used by the thread that owns the outbox. may_send: whether the link has nothing better to do."""

    def __init__(
        self,
        outbox: Outbox,
        state: Path,
        carrier: Carrier,
        wall: WallClock,
        clock: Clock,
        *,
        bytes_s: float,
        hours: str = "",
        is_metered: Callable[[], bool] = lambda: False,
    ) -> None:
        self._outbox = outbox
        self._state = state
        self._carrier = carrier
        self._wall = wall
        self._clock = clock
        self._bucket = TokenBucket(bytes_s, carrier.chunk_bytes(), clock())
        self._hours = hours
        self._is_metered = is_metered
        self._backoff = Backoff(RETRY_MOST_S)
        self._current: Upload | None = None
        self._is_under_way = False
        self._next_ns = clock()
        self.trouble = ""
        self.sent_bytes = 0
        self.ended: Counter[str] = Counter()

    def outbox_renewed(self) -> None:
        self._current, self._is_under_way = None, False

    def held(self) -> str:
        """Why pictures that nobody asked for wait; empty when they may go."""
        if self._is_metered():
            return "the uplink is metered"
        return "" if is_within(self._hours, self._wall.now()) else f"pictures go {self._hours}"

    def turn(self) -> None:
        """Take an answer, send the next piece. Raises sqlite3.Error; a picture that cannot go only waits."""
        try:
            if self._is_under_way:
                self._take_answer()
            if not self._is_under_way and self._clock() >= self._next_ns:
                self._send_next()
        except Refused as err:
            self._end("refused", str(err))
        except OSError as err:
            self._is_under_way = False
            self.trouble = str(err)
            self._next_ns = self._clock() + round(self._backoff.next_s() * SECOND)

    def _take_answer(self) -> None:
        acked = self._carrier.result()
        if acked is None or self._current is None:
            return
        self._is_under_way = False
        self.trouble = ""
        self._backoff.succeeded()
        upload = self._current = replace(self._current, acked=min(acked, self._current.size))
        if upload.acked >= upload.size:
            self._end("", "")
            return
        with self._outbox.transaction():
            self._outbox.db.execute("UPDATE upload SET acked = ? WHERE id = ?", (upload.acked, upload.id))

    def _send_next(self) -> None:
        upload = self._pick()
        if upload is None:
            self._next_ns = self._clock() + SECOND // 4
            return
        wait_s = self._bucket.wait_s(self._clock())
        if wait_s > 0:
            self._next_ns = self._clock() + round(wait_s * SECOND)
            return
        try:
            upload, chunk = self._read(upload)
        except FileNotFoundError:
            self._end("removed", "recording made room before its turn came")
            return
        if self._carrier.send(upload, chunk):
            self._is_under_way = True
            self._bucket.take(len(chunk))
            self.sent_bytes += len(chunk)

    def _pick(self) -> Upload | None:
        """The picture to go on with: what was asked for first, then the oldest, if it may go at all."""
        only_asked = "WHERE asked = 1" if self.held() else ""
        row = self._outbox.db.execute(
            "SELECT id, file, part, verdict, asked, size, sha256, acked FROM upload"
            f" {only_asked} ORDER BY asked DESC, id LIMIT 1"
        ).fetchone()
        if row is None:
            self._current = None
        elif self._current is None or self._current.id != row[0]:
            self._current = Upload(*row)
        return self._current

    def _read(self, upload: Upload) -> tuple[Upload, bytes]:
        """The next piece. The file is looked at first: what changed under its name begins anew."""
        path = self._state / upload.file
        size = path.stat().st_size
        if not upload.sha256 or size != upload.size:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            upload = self._current = replace(upload, size=size, sha256=digest, acked=0)
            with self._outbox.transaction():
                self._outbox.db.execute(
                    "UPDATE upload SET size = ?, sha256 = ?, acked = 0 WHERE id = ?", (size, digest, upload.id)
                )
        with path.open("rb") as file:
            file.seek(upload.acked)
            return upload, file.read(self._carrier.chunk_bytes())

    def _end(self, why: str, detail: str) -> None:
        """The upload is over: as a picture that arrived, or as one that never will."""
        upload, self._current, self._is_under_way = self._current, None, False
        if upload is None:
            return
        if why:
            log.warning("evidence.dropped file=%s why=%s %s", upload.file, why, detail)
            record = drop_record(self._wall, "evidence", why, 1, names=[upload.file])
        else:
            data = {
                "part": upload.part,
                "verdict": upload.verdict,
                "file": upload.file,
                "size": upload.size,
                "sha256": upload.sha256,
                "via": self._carrier.via,
            }
            record = own_record(Kind.EVIDENCE, data, self._wall)
        with self._outbox.transaction():
            self._outbox.db.execute("DELETE FROM upload WHERE id = ?", (upload.id,))
            self._outbox.add([record])
        self.ended[why or "arrived"] += 1

    def ask(self, file: str, part: str, verdict: str) -> None:
        """Somebody wants this picture now, whatever hours and tariff say."""
        with self._outbox.transaction():
            self._outbox.db.execute(
                "INSERT INTO upload (file, part, verdict, asked) VALUES (?, ?, ?, 1)"
                " ON CONFLICT (file) DO UPDATE SET asked = 1",
                (file, part, verdict),
            )
        self._next_ns = self._clock()

    def report(self) -> Mapping[str, Any]:
        return {
            "is_busy": self._current is not None,
            "held": self.held(),
            "trouble": self.trouble,
            "sent_bytes": self.sent_bytes,
            "ended": dict(self.ended),
        }
