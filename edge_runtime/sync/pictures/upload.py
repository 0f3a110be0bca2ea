"""Pictures on their way to the cloud, piece by piece, after everything else.

A piece that the far side has is noted, so an upload goes on where it was after a cut or a restart. When a picture
arrived whole an `evidence` record says so, in the same transaction that ends the upload. How pieces travel is a
carrier's: over MQTT, or with HTTP PUT.

What recording's own quota removed before its turn came, or what cannot be read, is dropped and recorded as such.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from edge_runtime.core.clock import SECOND, Clock
from edge_runtime.core.errors import StorageError
from edge_runtime.recording.wall_clock import WallClock
from edge_runtime.sync.backoff import Backoff
from edge_runtime.sync.outbox.pictures import PictureQueue, Upload
from edge_runtime.sync.pictures.carrier import Carrier, Refused
from edge_runtime.sync.pictures.pace import TokenBucket, is_within
from edge_runtime.sync.records.format import Kind, Row, drop_record, own_record, part_name

log = logging.getLogger(__name__)

RETRY_MOST_S = 300.0
_PART = re.compile(r"([0-9a-fA-F]{4})-(\d{1,10})$")


class Ledger(Protocol):
    """The journal, as far as pictures need it."""

    def part_named(self, boot_id: int, part_id: int) -> Row | None: ...


class Uploads:
    """Used by the thread that owns the outbox."""

    def __init__(
        self,
        queue: PictureQueue,
        state: Path,
        carrier: Carrier,
        wall: WallClock,
        clock: Clock,
        *,
        bytes_s: float,
        hours: str = "",
        is_metered: bool = False,
    ) -> None:
        self._queue = queue
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
        if self._is_metered:
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
        self._queue.advance(upload)

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
        found = self._queue.next(only_asked=bool(self.held()))
        if found is None:
            self._current = None
        elif self._current is None or self._current.id != found.id:
            self._current = found
        return self._current

    def _read(self, upload: Upload) -> tuple[Upload, bytes]:
        """The next piece. The file is looked at first: what changed under its name begins anew."""
        path = self._state / upload.file
        size = path.stat().st_size
        if not upload.sha256 or size != upload.size:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            upload = self._current = replace(upload, size=size, sha256=digest, acked=0)
            self._queue.begin(upload)
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
        self._queue.end(upload, record)
        self.ended[why or "arrived"] += 1

    def ask(self, part: str, ledger: Ledger) -> str:
        """Somebody wants the picture of this part now, whatever hours and tariff say. Answers its file.

        Raises StorageError when there is none.
        """
        named = _PART.match(part)
        if not named:
            raise StorageError(f"part must look like 1a2b-17, not {part[:40]!r}")
        row = ledger.part_named(int(named[1], 16), int(named[2]))
        if row is None or not row["evidence"]:
            raise StorageError(f"no picture of part {part} is kept")
        file = str(row["evidence"])
        self._queue.ask(file, part_name(row["boot_id"], row["part_id"]), row["verdict"] or "unsure")
        self._next_ns = self._clock()
        return file

    def report(self) -> Mapping[str, Any]:
        return {
            "is_busy": self._current is not None,
            "held": self.held(),
            "trouble": self.trouble,
            "sent_bytes": self.sent_bytes,
            "ended": dict(self.ended),
        }
