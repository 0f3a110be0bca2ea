"""The reject controller as a pure state machine: the double of the firmware, rule for rule.

No I/O and no clock. In go bytes from the wire, counts of the encoder at which something happens, and the time; out come
bytes and edges of the gate. What the firmware keeps in fixed arrays has the same sizes here.

A part's life: minted at the photo-eye with the encoder latched, a verdict from the host (the first one wins), at
`decide_counts` a missing verdict becomes the default, at `fire_counts` the gate fires or does not, and exactly one of
PASSED, FIRED, DEFAULTED is reported. A trip (the host silent, the table full) or a disarm makes the default of every
part that stands open, also of those with a verdict: a host that fell silent is not believed. Parts seen while not armed
are numbered all the same and get the default.

A part that finds the table full is not followed, nor are those between eye and gate when the controller restarts in
mid-run. The gate is held open over the stretch of belt with such parts ("sweep") and the healthy output is low. The
maximum on-time limits a sweep like any pulse: on a belt that takes longer from eye to gate, only the healthy output,
wired to stop the belt, is safe.

All counters are 32 bits and wrap; differences are read as signed, so that a belt that runs backwards decides nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from firmware_bridge.frames import Deframer, encode_frame
from firmware_bridge.messages import (
    PROTOCOL_VERSION,
    Answer,
    Arm,
    Beat,
    BeatR,
    Config,
    Done,
    EvAck,
    EventKind,
    EventMsg,
    Flags,
    Hello,
    HelloR,
    Message,
    Status,
    Verdict,
    VerdictMsg,
    VerdictR,
    WireError,
    hello_version,
    unpack,
)
from firmware_bridge.wrap import U16, U32, since16, since32

PART_SLOTS = 48  # 9 bytes each in the firmware; 96 parts/s at half a second from eye to gate
EVENT_SLOTS = 48  # 13 bytes each; two per part: a host may be away for 2.4 s at 10 parts/s without losing one
EVENT_WINDOW = 8  # unacknowledged events on the wire: 176 bytes, 15 ms at 115200, half of the time to resending
RESEND_US = 30_000  # without any ack: event and ack are 3 ms at 115200 8N1; the rest is a busy host
HOLE_RESEND_US = 6_000  # with an ack that stands still, so that the host has a hole: twice the way there and back
MIN_WATCHDOG_MS, MAX_WATCHDOG_MS = 50, 10_000
MAX_OFFSET_COUNTS = 2**15


class _Stage(IntEnum):
    OPEN = 0  # a verdict may still come
    DECIDED = 1  # past the decide point
    FIRED = 2  # waiting for the confirm sensor
    SETTLED = 3


@dataclass(slots=True)
class _Part:
    part_id: int
    encoder: int
    verdict: Verdict = Verdict.NONE
    is_default: bool = False
    stage: _Stage = _Stage.OPEN


@dataclass(frozen=True, slots=True)
class GateEdge:
    """The gate's solenoid goes on or off. A pulse that begins inside another one gives its own `on` edge."""

    is_on: bool
    part_id: int  # 0 for the sweep over parts that found no slot, and for off edges
    encoder: int
    time_us: int


@dataclass(slots=True)
class ControllerCounts:
    not_ours: int = 0  # good CRC, but no message, or of another boot
    overwritten: int = 0  # events lost to a host that stayed away
    overflows: int = 0
    trips: int = 0
    resends: int = 0


class Controller:
    """One controller from power-on. `observer` is told every event as it is made; only the double has it."""

    def __init__(
        self,
        boot_id: int,
        now_us: int = 0,
        *,
        encoder: int = 0,
        saved: Config | None = None,  # the configuration before a restart, which the firmware keeps in EEPROM
        version: int = PROTOCOL_VERSION,
        observer: Callable[[EventMsg], None] | None = None,
    ) -> None:
        self.boot_id = boot_id & U16
        self.counts = ControllerCounts()
        self.config = saved
        self.is_armed = False
        self.is_tripped = False
        self.gate = False
        self.edges: list[GateEdge] = []  # for the caller to take and clear
        self._version = version
        self._observer = observer
        self._now_us = now_us & U32
        self._encoder = encoder & U32
        self._beat_us = self._now_us
        self._deframer = Deframer()
        self._out: list[bytes] = []
        self._parts: deque[_Part] = deque()
        self._next_part = 1
        self._events: deque[EventMsg] = deque()
        self._next_event = 0
        self._unsent = 0  # index into `_events` of the next to send
        self._sent_us = self._now_us
        self._gate_until = 0
        self._gate_on_us = 0
        self._sweep: tuple[int, int] | None = None  # first and last count of the gate to be held open
        self._swept_until: int | None = None  # the same, once it is open
        if saved is not None:
            self._plan_sweep(self._encoder + 1, self._encoder, saved)

    # What a caller sees

    @property
    def is_healthy(self) -> bool:
        """The healthy output, which the machine's safety chain reads."""
        return self.is_armed and not self.is_tripped

    @property
    def next_part(self) -> int:
        return self._next_part

    @property
    def wire_counts(self) -> dict[str, int]:
        counts = self._deframer.counts
        return {"frames": counts.frames, "bad_crc": counts.bad_crc, "malformed": counts.malformed,
                "oversize": counts.oversize}  # fmt: skip

    def take_frames(self) -> list[bytes]:
        """Frames to send, whole ones, in order."""
        frames, self._out = self._out, []
        return frames

    def next_encoder(self) -> int | None:
        """The nearest count at which `on_encoder` will do something; None while nothing is under way.

        Calling `on_encoder` at these counts only is the same as calling it at every count.
        """
        config = self.config
        due: list[int] = []
        if self.gate:
            due.append(self._gate_until)
        if self._sweep is not None:
            due.append(self._sweep[0])
        if config is not None:
            for part in self._parts:
                if part.stage is _Stage.OPEN:
                    due.append(part.encoder + config.decide_counts)
                elif part.stage is _Stage.DECIDED:
                    due.append(part.encoder + config.fire_counts)
                elif part.stage is _Stage.FIRED:
                    due.append(part.encoder + config.fire_counts + config.confirm_counts)
        return min(due, key=lambda count: since32(count, self._encoder), default=None)

    # Inputs

    def on_bytes(self, data: bytes, now_us: int) -> None:
        """Bytes from the host."""
        self._now_us = now_us & U32
        for payload in self._deframer.feed(data):
            self._handle(payload)
        self._send_events()

    def on_eye(self, encoder: int, now_us: int) -> None:
        """A part breaks the photo-eye at this count."""
        self._now_us = now_us & U32
        self._encoder = encoder & U32
        part_id = self._next_part
        self._next_part = (self._next_part + 1) & U32 or 1
        if len(self._parts) == PART_SLOTS and self._parts[0].stage is _Stage.SETTLED:
            self._parts.popleft()  # settled parts stay while there is room, so that late verdicts hear the truth
        if len(self._parts) == PART_SLOTS:
            self._overflow(part_id)
        else:
            self._parts.append(_Part(part_id, self._encoder))
            self._event(EventKind.TRIGGER, part_id, self._encoder)
        self._send_events()

    def on_encoder(self, encoder: int, now_us: int) -> None:
        """The belt stands at this count: everything due up to it happens."""
        self._now_us = now_us & U32
        self._encoder = encoder & U32
        self._end_pulse()
        self._begin_sweep()
        if self.config is not None:
            for part in self._parts:
                self._move(part, self.config)
        self._send_events()

    def on_confirm(self, encoder: int, now_us: int) -> None:
        """The sensor behind the gate sees a part. It belongs to the oldest pulse that waits for one."""
        self._now_us = now_us & U32
        self._encoder = encoder & U32
        for part in self._parts:
            if part.stage is _Stage.FIRED:
                part.stage = _Stage.SETTLED
                self._event(EventKind.CONFIRMED, part.part_id, self._encoder)
                break
        self._send_events()

    def on_time(self, now_us: int) -> None:
        """Called about each millisecond: watchdog, solenoid on-time, resending."""
        self._now_us = now_us & U32
        config = self.config
        if config is not None:
            if self.is_armed and since32(self._now_us, self._beat_us) > config.watchdog_ms * 1000:
                self._trip()
                self._event(EventKind.WATCHDOG, 0, self._encoder)
            if self.gate and since32(self._now_us, self._gate_on_us) >= config.max_on_ms * 1000:
                self._close_gate()
        if self._events and self._unsent and since32(self._now_us, self._sent_us) >= RESEND_US:
            self._rewind()
        self._send_events()

    # Parts and gate

    def _move(self, part: _Part, config: Config) -> None:
        travelled = since32(self._encoder, part.encoder)
        if part.stage is _Stage.OPEN and travelled >= config.decide_counts:
            self._decide(part, config, may_believe=self.is_armed)
        if part.stage is _Stage.DECIDED and travelled >= config.fire_counts:
            self._at_gate(part, config)
        if part.stage is _Stage.FIRED and travelled >= config.fire_counts + config.confirm_counts:
            part.stage = _Stage.SETTLED
            if config.confirm_counts:
                self._event(EventKind.UNCONFIRMED, part.part_id, self._encoder)

    def _decide(self, part: _Part, config: Config, *, may_believe: bool) -> None:
        part.stage = _Stage.DECIDED
        if part.verdict is Verdict.NONE or not may_believe:
            part.verdict = config.default
            part.is_default = True

    def _at_gate(self, part: _Part, config: Config) -> None:
        is_reject = part.verdict is not Verdict.ACCEPT  # whatever else it may hold, it is not let through
        if self._swept_until is not None:  # the gate is open anyway: say what happens to the part, not what was wanted
            part.is_default = True
        kind = EventKind.DEFAULTED if part.is_default else EventKind.FIRED if is_reject else EventKind.PASSED
        part.stage = _Stage.FIRED if is_reject and config.confirm_counts else _Stage.SETTLED
        if is_reject:
            self._open_gate(part.part_id, self._encoder + config.pulse_counts)
        self._event(kind, part.part_id, self._encoder)

    def _open_gate(self, part_id: int, until: int) -> None:
        if not self.gate:
            self._gate_on_us = self._now_us
            self._gate_until = until & U32
        elif since32(until, self._gate_until) > 0:
            self._gate_until = until & U32
        self.gate = True
        self.edges.append(GateEdge(True, part_id, self._encoder, self._now_us))

    def _close_gate(self) -> None:
        self.gate = False
        self._swept_until = None
        self.edges.append(GateEdge(False, 0, self._encoder, self._now_us))

    def _end_pulse(self) -> None:
        if self.gate and since32(self._encoder, self._gate_until) >= 0:
            self._close_gate()

    def _overflow(self, part_id: int) -> None:
        self.counts.overflows += 1
        self._trip()
        self._event(EventKind.OVERFLOW, part_id, self._encoder)
        config = self.config
        if config is None:
            return
        self._plan_sweep(self._encoder + config.fire_counts, self._encoder, config)

    def _plan_sweep(self, first: int, last_eye: int, config: Config) -> None:
        """Hold the gate open from count `first` until the part at the eye at `last_eye` is through it."""
        if config.default is Verdict.ACCEPT:
            return
        if self._sweep is not None:
            first = self._sweep[0]
        self._sweep = (first & U32, (last_eye + config.fire_counts + config.pulse_counts) & U32)

    def _begin_sweep(self) -> None:
        if self._sweep is not None and since32(self._encoder, self._sweep[0]) >= 0:
            self._swept_until, self._sweep = self._sweep[1], None
            self._open_gate(0, self._swept_until)

    def _trip(self) -> None:
        self.counts.trips += self.is_armed
        self.is_tripped = True
        self._disarm()

    def _disarm(self) -> None:
        self.is_armed = False
        if self.config is not None:
            for part in self._parts:
                if part.stage is _Stage.OPEN:
                    self._decide(part, self.config, may_believe=False)

    # Wire

    def _handle(self, payload: bytes) -> None:
        version = hello_version(payload)
        if version is not None and version != self._version:  # say who we are; nothing else can be understood
            self._answer_hello(nonce=0)
            return
        try:
            message = unpack(payload)
        except WireError:
            self.counts.not_ours += 1
            return
        match message:
            case Hello():
                self._answer_hello(message.nonce)
            case Beat():
                self._on_beat(message)
            case Config() | Arm() | VerdictMsg() | EvAck() if message.boot_id == self.boot_id:
                self._obey(message)
            case _:
                self.counts.not_ours += 1

    def _obey(self, message: Config | Arm | VerdictMsg | EvAck) -> None:
        match message:
            case Config():
                self._done(message, self._configure(message))
            case Arm():
                self._done(message, self._arm(message))
            case VerdictMsg():
                self._on_verdict(message)
            case EvAck():
                self._on_ack(message.seq)

    def _answer_hello(self, nonce: int) -> None:
        digest = 0 if self.config is None else self.config.digest()
        self._send(HelloR(self._version, self.boot_id, nonce, self._now_us, self._next_part, self._oldest_event,
                          self._next_event, digest, self._flags))  # fmt: skip
        self._unsent = 0  # a new host starts with the oldest

    def _on_beat(self, beat: Beat) -> None:
        if beat.boot_id == self.boot_id:
            self._beat_us = self._now_us
        self._send(BeatR(self.boot_id, beat.nonce, self._now_us, self._encoder, self._next_part, self._oldest_event,
                         self._next_event, self._flags))  # fmt: skip

    def _configure(self, config: Config) -> Status:
        if self.is_armed:
            return Status.OK if config == self.config else Status.ARMED
        is_sane = (
            1 <= config.decide_counts <= config.fire_counts <= MAX_OFFSET_COUNTS
            and config.pulse_counts >= 1
            and MIN_WATCHDOG_MS <= config.watchdog_ms <= MAX_WATCHDOG_MS
            and config.max_on_ms >= 1
            and config.confirm_counts <= MAX_OFFSET_COUNTS
            and config.default is not Verdict.NONE
        )
        if not is_sane:
            return Status.BAD_VALUE
        self.config = config
        return Status.OK

    def _arm(self, arm: Arm) -> Status:
        if not arm.on:
            self._disarm()
            return Status.OK
        if self.config is None:
            return Status.NOT_CONFIGURED
        self.is_armed = True
        self.is_tripped = False
        self._beat_us = self._now_us
        return Status.OK

    def _on_verdict(self, message: VerdictMsg) -> None:
        answer, in_force = self._store(message)
        self._send(VerdictR(self.boot_id, message.part_id, answer, in_force))

    def _store(self, message: VerdictMsg) -> tuple[Answer, Verdict]:
        part = next((part for part in self._parts if part.part_id == message.part_id), None)
        if part is None:
            was_minted = message.part_id != 0 and since32(self._next_part, message.part_id) > 0
            return (Answer.LATE if was_minted else Answer.UNKNOWN), Verdict.NONE
        if part.is_default:
            return Answer.LATE, part.verdict
        if part.verdict is not Verdict.NONE:
            return (Answer.DUP if part.verdict is message.verdict else Answer.CONFLICT), part.verdict
        if not self.is_armed or message.verdict is Verdict.NONE:
            return Answer.NOT_ARMED, Verdict.NONE
        part.verdict = message.verdict
        return Answer.STORED, part.verdict

    def _done(self, request: Message, status: Status) -> None:
        self._send(Done(self.boot_id, request.KIND, status, self._flags))

    @property
    def _flags(self) -> Flags:
        return (
            (Flags.ARMED if self.is_armed else Flags(0))
            | (Flags.TRIPPED if self.is_tripped else Flags(0))
            | (Flags.HEALTHY if self.is_healthy else Flags(0))
            | (Flags.GATE if self.gate else Flags(0))
        )

    def _send(self, message: Message) -> None:
        self._out.append(encode_frame(message.pack()))

    # Event log

    @property
    def _oldest_event(self) -> int:
        return self._events[0].seq if self._events else self._next_event

    def _event(self, kind: EventKind, part_id: int, encoder: int) -> None:
        if len(self._events) == EVENT_SLOTS:  # the newest say more; the host sees the hole in the sequence
            self._events.popleft()
            self._unsent = max(0, self._unsent - 1)
            self.counts.overwritten += 1
        event = EventMsg(self.boot_id, self._next_event, kind, part_id, encoder, self._now_us)
        self._events.append(event)
        self._next_event = (self._next_event + 1) & U16
        if self._observer is not None:
            self._observer(event)

    def _send_events(self) -> None:
        while self._unsent < min(len(self._events), EVENT_WINDOW):
            if self._unsent == 0:
                self._sent_us = self._now_us  # the time counts for the oldest one, or a busy line would never resend
            self._send(self._events[self._unsent])
            self._unsent += 1

    def _rewind(self) -> None:
        self.counts.resends += self._unsent
        self._unsent = 0

    def _on_ack(self, seq: int) -> None:
        held = len(self._events)
        while self._events and since16(seq, self._events[0].seq) >= 0:
            self._events.popleft()
            self._unsent = max(0, self._unsent - 1)
        if len(self._events) < held:
            self._sent_us = self._now_us  # progress: the rest gets its full time
        elif self._unsent and since32(self._now_us, self._sent_us) >= HOLE_RESEND_US:
            self._rewind()
