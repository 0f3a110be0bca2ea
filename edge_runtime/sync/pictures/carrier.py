"""What carries pictures: one piece at a time, over MQTT or HTTP."""

from __future__ import annotations

from typing import Protocol

from edge_runtime.sync.outbox.pictures import Upload


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
