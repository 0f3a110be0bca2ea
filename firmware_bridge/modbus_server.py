"""A Modbus RTU server as a state machine: bytes and `now_ns` in, bytes out; the registers belong to somebody else.

Frames are cut by length, and a frame that is not complete when the line falls silent is dropped: who sent it has given
up, and must not be answered late. Requests to other units and their replies are heard on a shared line; they are
recognised by length and CRC, counted and skipped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from firmware_bridge.modbus import (
    BROADCAST,
    EXCEPTION_BIT,
    MAX_FRAME,
    MIN_FRAME,
    MS,
    READS,
    EchoFilter,
    ExceptionCode,
    Line,
    crc16,
    exception_reply,
    parse_request,
    read_reply,
    reply_size,
    request_size,
    write_reply,
)

GAP_NS = 20 * MS  # beyond the silence: a USB adapter holds bytes back for up to 16 ms in the middle of a frame


class Refused(Exception):
    """Registers that cannot be read or written so."""

    def __init__(self, code: ExceptionCode) -> None:
        super().__init__(code.name)
        self.code = code


class Registers(Protocol):
    """What is served. Both raise Refused."""

    def read(self, address: int, count: int) -> Sequence[int]: ...

    def write(self, address: int, values: Sequence[int]) -> None: ...


class RtuServer:
    """See the module."""

    def __init__(self, unit: int, line: Line, registers: Registers, *, echo: bool = False) -> None:
        if not 1 <= unit <= 247:
            raise ValueError(f"unit {unit}: 1 to 247")
        self.unit = unit
        self.counts: Counter[str] = Counter()
        self.foreign: Counter[int] = Counter()  # requests to other units
        self._registers = registers
        self._gap_ns = line.silence_ns + GAP_NS
        self._echo = EchoFilter() if echo else None
        self._heard = bytearray()
        self._heard_ns = 0
        self._out = bytearray()

    def reset(self) -> None:
        self._heard.clear()
        self._out.clear()
        if self._echo is not None:
            self._echo.reset()

    def take_output(self) -> bytes:
        out = bytes(self._out)
        self._out.clear()
        return out

    def feed(self, data: bytes, now_ns: int) -> None:
        """Bytes from the line."""
        if self._echo is not None:
            if now_ns - self._heard_ns > self._gap_ns + 1000 * MS:  # no echo takes that long
                self._echo.reset()
            data = self._echo.strip(data)
        if not data:
            return
        if self._heard and now_ns - self._heard_ns > self._gap_ns:
            self._skip(len(self._heard))
        self._heard_ns = now_ns
        self._heard += data
        while self._take_frame():
            pass

    @property
    def wire_counts(self) -> dict[str, int]:
        echoes = self._echo
        return {} if echoes is None else {"echo_bytes": echoes.dropped, "echo_broken": echoes.broken}

    def _skip(self, count: int) -> None:
        self.counts["noise_bytes"] += count
        del self._heard[:count]

    def _take_frame(self) -> bool:
        """Handle what stands first. False when more bytes are needed."""
        heard = self._heard
        if not heard:
            return False
        is_ours = heard[0] in (self.unit, BROADCAST)
        sizes = [request_size(heard)] if is_ours else [request_size(heard), reply_size(heard)]
        for size in sizes:
            if size and size <= len(heard) and not crc16(heard[:size]):
                frame = bytes(heard[:size])
                del heard[:size]
                self._handle(frame, is_ours)
                return True
        is_odd = (
            sizes[0] == 0 and 0 < heard[1] < EXCEPTION_BIT
        )  # a function that we do not know: CRC or silence ends it
        if is_odd and self._is_whole_odd_frame():
            return False
        may_go_on = (is_odd and is_ours) or any(size is None or size > len(heard) for size in sizes)
        if may_go_on and len(heard) < MAX_FRAME:
            return False
        self.counts["bad_crc"] += 1
        self._skip(1)
        return True

    def _is_whole_odd_frame(self) -> bool:
        """A function of unknown length is over when the CRC over everything is good."""
        heard = self._heard
        if len(heard) < MIN_FRAME or crc16(heard):
            return False
        frame = bytes(heard)
        heard.clear()
        self._handle(frame, frame[0] in (self.unit, BROADCAST))
        return True

    def _handle(self, frame: bytes, is_ours: bool) -> None:
        if not is_ours:
            self.counts["other_units"] += 1
            self.foreign[frame[0]] += 1
            return
        self.counts["requests"] += 1
        try:
            reply = self._obey(frame)
        except Refused as refused:
            self.counts[f"exception_{int(refused.code)}"] += 1
            reply = exception_reply(frame[0], frame[1], refused.code)
        if frame[0] == BROADCAST:
            self.counts["broadcasts"] += 1
            return
        self._out += reply
        if self._echo is not None:
            self._echo.reset()
            self._echo.sent(reply)

    def _obey(self, frame: bytes) -> bytes:
        request = parse_request(frame)
        if isinstance(request, ExceptionCode):
            raise Refused(request)
        if request.function in READS:
            if request.unit == BROADCAST:
                raise Refused(ExceptionCode.ILLEGAL_FUNCTION)
            return read_reply(request, self._registers.read(request.address, request.count))
        self._registers.write(request.address, request.values)
        return write_reply(request)
