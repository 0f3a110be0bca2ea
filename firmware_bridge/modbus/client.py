"""A Modbus RTU client as a state machine: one request at a time; bytes and `now_ns` in, bytes and answers out.

RTU has no transaction id, so a reply that comes after its timeout looks like the reply to the next request. Hence,
after a timeout, this client stays silent for one full timeout more and throws away what it hears meanwhile. Nothing is
ever sent again from here: the caller decides, and writes levels, so that a second write changes nothing.

Silence does not end a reply here, its length does: USB adapters and serial servers hand a reply on in pieces, 16 ms
apart and more, which on the wire was one. A reply that has begun is waited for as long as it goes on.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum

from firmware_bridge.modbus.rs485_echo import Echo
from firmware_bridge.modbus.rtu import (
    BROADCAST,
    EXCEPTION_BIT,
    MAX_FRAME,
    MIN_FRAME,
    MS,
    READS,
    Function,
    Line,
    Request,
    crc16,
    decode_registers,
    exception_text,
    reply_size,
)

THINKING_NS = 60 * MS  # for the far side: a scan cycle of a slow PLC, and a USB adapter's 16 ms each way
EXCEPTION_SIZE = 5  # unit, function, code, CRC
PIECE_NS = 50 * MS  # between two pieces of one reply: three turns of an adapter that hands on every 16 ms
PIECES_NS = 500 * MS  # for all of them: the largest reply in pieces of 16 bytes, 16 ms apart, takes 260
BABBLE_NS = 2_000 * MS  # of uninterrupted foreign bytes; then it is asked again all the same


class Failure(Enum):
    TIMEOUT = "timeout"
    DAMAGED = "damaged"  # a reply of the right shape with a bad CRC
    EXCEPTION = "exception"
    FOREIGN = "foreign"  # another unit answered, and ours did not


@dataclass(frozen=True, slots=True)
class Answered:
    """A good reply. `values` of a read, () of a write."""

    request: Request
    values: tuple[int, ...]
    sent_ns: int
    now_ns: int


@dataclass(frozen=True, slots=True)
class Failed:
    """No good reply. `code` is the exception's; `text` is for a person."""

    request: Request
    failure: Failure
    text: str
    now_ns: int
    code: int = 0


Answer = Answered | Failed


class RtuClient:
    """See the module. `echo`: the adapter hears its own sending, says the station."""

    def __init__(self, line: Line, *, thinking_ns: int = THINKING_NS, echo: bool = False) -> None:
        self.line = line
        self.counts: Counter[str] = Counter()
        self._thinking_ns = thinking_ns
        self._echo = Echo(echo)
        self._request: Request | None = None
        self._frame = b""
        self._head = b""
        self._sent_ns = 0
        self._timeout_ns = 0  # after sending; grows while a reply comes in pieces
        self._free_ns = 0  # no sooner than this may anything be sent
        self._is_flushing = False
        self._babble_ends_ns = 0  # no longer than this is a line without silence waited for
        self._heard = bytearray()
        self._foreign: int | None = None
        self._out = b""
        self._answer: Answer | None = None
        self._is_twin_due = False  # the echo of a write of one register is still to come

    def reset(self, now_ns: int) -> None:
        """The port was opened anew; whoever was asked before may still answer."""
        self._request, self._answer, self._out = None, None, b""
        self._echo.forget()
        self._flush(now_ns, self._timeout(8, MAX_FRAME))

    def is_free(self, now_ns: int) -> bool:
        """Whether `ask` may be called."""
        return self._request is None and self._answer is None and now_ns >= self._free_ns

    @property
    def free_ns(self) -> int:
        """When it may be asked next, unless a request is under way."""
        return self._free_ns

    def next_due_ns(self) -> int | None:
        """When `tick` has something to do; None while nothing is under way."""
        return None if self._request is None else self._sent_ns + self._timeout_ns

    def ask(self, request: Request, now_ns: int) -> None:
        """Send a request. Only while `is_free`."""
        if not self.is_free(now_ns):
            raise RuntimeError("a request is under way")
        self._is_flushing = False
        self._heard.clear()
        self._foreign = None
        frame = request.encode()
        self._out = frame
        self.counts["requests"] += 1
        self._is_twin_due = request.function == Function.WRITE_ONE and self._echo.is_likely
        self._echo.sent(frame, is_like_answer=request.function == Function.WRITE_ONE)
        self._sent_ns = now_ns
        if request.unit == BROADCAST:  # nobody answers; the turnaround gives everybody time to obey
            self._free_ns = now_ns + len(frame) * self.line.char_ns + self._thinking_ns
            self._answer = Answered(request, (), now_ns, now_ns)
            return
        self._request, self._frame, self._head = request, frame, request.reply_head()
        self._timeout_ns = self._timeout(len(frame), request.reply_size)

    def feed(self, data: bytes, now_ns: int) -> None:
        """Bytes from the line."""
        dropped = self._echo.dropped
        data = self._echo.strip(data)
        self._is_twin_due = self._is_twin_due and self._echo.dropped == dropped
        if not data:
            if self._request is not None and self._echo.held:  # a reply may begin as our own request does
                self._wait_for_rest(now_ns)
            return
        if self._request is not None:
            self._babble_ends_ns = now_ns + BABBLE_NS
        self._free_ns = max(self._free_ns, min(self._babble_ends_ns, now_ns + self.line.silence_ns))
        if self._request is None:
            self.counts["late_bytes" if self._is_flushing else "stray_bytes"] += len(data)
            return
        self._heard += data
        self._look(self._request, now_ns)
        del self._heard[: -2 * MAX_FRAME]

    def tick(self, now_ns: int) -> None:
        """Give up what has taken too long."""
        request = self._request
        if request is None or now_ns - self._sent_ns < self._timeout_ns:
            return
        timeout_ns, heard = self._timeout_ns, self._echo.held + len(self._heard)
        if self._foreign is not None:
            self._fail(request, Failure.FOREIGN, f"unit {self._foreign} answers instead of unit {request.unit}: set "
                       "the PLC's unit id or [controller] unit", now_ns)  # fmt: skip
        elif heard:
            self._fail(request, Failure.TIMEOUT, f"{heard} bytes but no reply of unit {request.unit}: check "
                       "baud rate and parity at both ends", now_ns)  # fmt: skip
        else:
            self._fail(request, Failure.TIMEOUT, f"unit {request.unit} does not answer: check wiring, unit id, baud "
                       "rate and parity", now_ns)  # fmt: skip
        self._flush(now_ns, timeout_ns)

    def take_output(self) -> bytes:
        out, self._out = self._out, b""
        return out

    def take_answer(self) -> Answer | None:
        answer, self._answer = self._answer, None
        return answer

    @property
    def echo_problem(self) -> str:
        """What to set when the adapter is not as the station says."""
        return self._echo.problem

    @property
    def wire_counts(self) -> dict[str, int]:
        return {"echo_bytes": self._echo.dropped, "echo_broken": self._echo.broken}

    def _timeout(self, asked: int, answered: int) -> int:
        return (asked + answered) * self.line.char_ns + 2 * self.line.silence_ns + self._thinking_ns

    def _flush(self, now_ns: int, for_ns: int) -> None:
        self._is_flushing = True
        self._heard.clear()
        self._free_ns = max(self._free_ns, now_ns + for_ns)
        self._babble_ends_ns = self._free_ns + BABBLE_NS

    def _fail(self, request: Request, failure: Failure, text: str, now_ns: int, code: int = 0) -> None:
        self._request = None
        self.counts[failure.value] += 1
        self._answer = Failed(request, failure, text, now_ns, code)

    def _look(self, request: Request, now_ns: int) -> None:
        """Find the reply in what was heard. Bytes before it, as drivers make when they switch on, are noise."""
        heard = self._heard
        self._drop_own(request)
        at = heard.find(request.unit)
        while at >= 0:
            if self._is_answer_at(at, request, now_ns):
                self.counts["noise_bytes"] += at
                self._echo.answered(at)
                return
            at = heard.find(request.unit, at + 1)
        if self._is_damaged(request, now_ns):
            return
        if self._has_begun(request):
            self._wait_for_rest(now_ns)
        else:
            self._note_foreign(request)

    def _drop_own(self, request: Request) -> None:
        """An echo behind noise. No reply looks like its request but that of WRITE_ONE."""
        at = self._heard.find(self._frame)
        is_twin = request.function == Function.WRITE_ONE
        if at >= 0 and (self._is_twin_due or not is_twin):
            self._is_twin_due = False
            del self._heard[: at + len(self._frame)]
            self.counts["noise_bytes"] += at
            if not is_twin:
                self._echo.heard()

    def _is_answer_at(self, at: int, request: Request, now_ns: int) -> bool:
        heard = self._heard
        if heard[at : at + 2] == bytes((request.unit, request.function | EXCEPTION_BIT)):
            frame = heard[at : at + EXCEPTION_SIZE]
            if len(frame) < EXCEPTION_SIZE or crc16(frame):
                return False
            code = frame[2]
            self._fail(request, Failure.EXCEPTION, f"unit {request.unit} answers {exception_text(code)} to function "
                       f"{request.function} at address {request.address}, {request.count} registers",
                       now_ns, code)  # fmt: skip
            return True
        if not heard.startswith(self._head, at):
            return False
        frame = heard[at : at + request.reply_size]
        if len(frame) < request.reply_size:
            return False
        if crc16(frame):
            return False
        values = decode_registers(frame) if request.function in READS else ()
        self._request = None
        self.counts["replies"] += 1
        self._answer = Answered(request, values, self._sent_ns, now_ns)
        return True

    def _is_damaged(self, request: Request, now_ns: int) -> bool:
        """Whether the reply is there with a bad CRC: then no later one will come, and nothing need be waited out."""
        heard = self._heard
        if not heard.startswith(self._head) or len(heard) < request.reply_size:
            return False
        if request.function not in READS and self._echo.may_come:  # the damaged one may be our own, which begins alike
            return False
        self._fail(request, Failure.DAMAGED, f"a reply of unit {request.unit} with a bad CRC: check wiring, shield and "
                   "termination", now_ns)  # fmt: skip
        return True

    def _has_begun(self, request: Request) -> bool:
        """Whether what was heard last may be the first bytes of the reply."""
        heard = bytes(self._heard)
        refusal = bytes((request.unit, request.function | EXCEPTION_BIT))
        for head, size in ((self._head, request.reply_size), (refusal, EXCEPTION_SIZE)):
            at = heard.rfind(head)
            if at >= 0 and len(heard) - at < size:
                return True
        return any(heard.endswith(self._head[:size]) for size in range(1, len(self._head)))

    def _wait_for_rest(self, now_ns: int) -> None:
        wanted_ns = min(now_ns - self._sent_ns + PIECE_NS, PIECES_NS)
        self._timeout_ns = max(self._timeout_ns, wanted_ns)

    def _note_foreign(self, request: Request) -> None:
        """Whether all that was heard is a whole good reply of another unit."""
        heard = self._heard
        size = reply_size(heard)
        if size and MIN_FRAME <= size <= len(heard) and heard[0] != request.unit and not crc16(heard[:size]):
            self._foreign = heard[0]
            self.counts["wrong_unit"] += 1
            del heard[:size]
