"""A Modbus RTU server as a state machine: bytes and `now_ns` in, bytes out; the registers belong to somebody else.

Frames are cut by length, and a frame that is not complete when the line falls silent is dropped: who sent it has given
up, and must not be answered late. Requests to other units and their replies are heard on a shared line; they are
recognised by length and CRC, counted and skipped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from firmware_bridge.modbus.rs485_echo import Echo
from firmware_bridge.modbus.rtu import (
    BROADCAST,
    EXCEPTION_BIT,
    MAX_FRAME,
    MIN_FRAME,
    MS,
    READS,
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
ECHO_NS = 1000 * MS  # no echo takes that long
COPIES = 3  # of one write as soon as it is answered, with nothing between: an echo, or a client that does nothing else


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
        self._line = line
        self._gap_ns = line.silence_ns + GAP_NS
        self._echo = Echo(echo)
        self._noise = 0  # bytes since the last good frame
        self._twin, self._twin_ends_ns = b"", 0  # a request whose answer looks the same, and until when that may echo
        self._copies = 0  # of it
        self._heard = bytearray()
        self._heard_ns = 0
        self._out = bytearray()

    def reset(self) -> None:
        self._heard.clear()
        self._out.clear()
        self._echo.forget()

    def take_output(self) -> bytes:
        out = bytes(self._out)
        self._out.clear()
        return out

    def feed(self, data: bytes, now_ns: int) -> None:
        """Bytes from the line."""
        if not data:
            return
        silence_ns = now_ns - self._heard_ns
        self._heard_ns = now_ns
        if silence_ns > self._gap_ns + (0 if self._echo.held else ECHO_NS):
            self._echo.expire()
        if self._twin and now_ns >= self._twin_ends_ns:
            self._echo.expire()
        if self._heard and silence_ns > self._gap_ns:
            self._skip(len(self._heard))
        self._heard += self._echo.strip(data)
        while self._take_frame():
            pass

    @property
    def echo_problem(self) -> str:
        """What to set when the adapter is not as the station says."""
        return self._echo.problem

    @property
    def wire_counts(self) -> dict[str, int]:
        return {"echo_bytes": self._echo.dropped, "echo_broken": self._echo.broken}

    def _skip(self, count: int) -> None:
        self.counts["noise_bytes"] += count
        self._noise += count
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
        self._echo.answered(self._noise)
        self._noise = 0
        if not is_ours:
            self.counts["other_units"] += 1
            self.foreign[frame[0]] += 1
            return
        if self._is_own_twin(frame):
            self._echo.heard()
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
        self._echo.sent(reply, is_like_answer=reply == frame)
        self._twin = reply if reply == frame else b""
        self._twin_ends_ns = self._heard_ns + len(reply) * self._line.char_ns + self._gap_ns

    def _is_own_twin(self, frame: bytes) -> bool:
        """Whether this is our answer to the write of one register, which is the request again: else we answer our own
        echo for ever. A client that does say the same at once, and again, is believed for the first COPIES times.
        """
        is_copy = frame == self._twin and self._heard_ns < self._twin_ends_ns and not self._echo.is_likely
        self._copies = self._copies + 1 if is_copy else 0
        return self._copies >= COPIES

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
