"""Frames to and from a reject controller, and which question an answer belongs to. No I/O, no clock."""

from __future__ import annotations

from collections import Counter, OrderedDict

from firmware_bridge.reject.frames import Deframer, encode_frame
from firmware_bridge.reject.messages import Message
from firmware_bridge.wrap import U16

FORGET_NONCES = 16  # questions under way at most


class Exchange:
    """See the module."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._deframer = Deframer()
        self._out = bytearray()
        self._nonce = 0
        self._asked: OrderedDict[int, int] = OrderedDict()  # nonce -> sent_ns

    @property
    def wire_counts(self) -> dict[str, int]:
        counts = self._deframer.counts
        return {"frames_in": counts.frames, "bad_crc": counts.bad_crc, "malformed": counts.malformed,
                "oversize": counts.oversize}  # fmt: skip

    def opened(self) -> None:
        self._deframer.reset()
        self._out[:] = b"\0"  # ends whatever the controller has half received

    def closed(self) -> None:
        self._out.clear()
        self._asked.clear()

    def take_output(self) -> bytes:
        data = bytes(self._out)
        self._out.clear()
        return data

    def send(self, message: Message) -> None:
        self._counts["frames_out"] += 1
        self._out += encode_frame(message.pack())

    def receive(self, data: bytes) -> list[bytes]:
        """The payloads of the frames completed by `data`, in order."""
        return self._deframer.feed(data)

    def new_nonce(self, now_ns: int) -> int:
        """The mark of a question that is asked now."""
        self._nonce = (self._nonce + 1) & U16
        self._asked[self._nonce] = now_ns
        while len(self._asked) > FORGET_NONCES:
            self._asked.popitem(last=False)
        return self._nonce

    def asked_ns(self, nonce: int) -> int | None:
        """When the question was asked that this answers; None for a second answer, or one to a question forgotten."""
        return self._asked.pop(nonce, None)

    def forget(self) -> None:
        """The far side is lost: no answer to a question from before counts."""
        self._asked.clear()
