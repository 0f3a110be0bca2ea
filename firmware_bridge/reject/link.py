"""The host's side of the reject controller as a pure state machine: bytes and `now_ns` in, bytes and events out.

The way up: HELLO until somebody answers, CONFIG unless the controller holds ours already, ARM once the line is ready,
then BEATs. Every request is sent again until it is answered. Verdicts are kept by (boot id, part id) and sent again
each 30 ms until answered, or until nothing can come of them: the part is settled, or the controller restarted.

What the controller's events mean for parts is kept in `part_book`.

Boot ids are assumed to differ from one start to the next; firmware counts them up in EEPROM.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from firmware_bridge.reject.clock_relation import ClockRelation
from firmware_bridge.reject.frames import Deframer, encode_frame
from firmware_bridge.reject.link_events import (
    ControllerReset,
    LinkBlocked,
    LinkEvent,
    LinkLost,
    LinkRefused,
    LinkUp,
    Settled,
    Tripped,
    VerdictAnswered,
)
from firmware_bridge.reject.messages import (
    PROTOCOL_VERSION,
    Answer,
    Arm,
    Beat,
    BeatR,
    Config,
    Done,
    EvAck,
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
from firmware_bridge.reject.part_book import PartBook
from firmware_bridge.wrap import U16

MS = 1_000_000
ASK_AGAIN_NS = 50 * MS  # HELLO, CONFIG, ARM: a frame and its answer are 3 ms at 115200 8N1
REFUSED_AGAIN_NS = 1000 * MS  # somebody may be flashing it right now
BEAT_NS = 100 * MS
BEAT_AGAIN_NS = 30 * MS  # without an answer to the last one
LOST_AFTER_NS = 500 * MS  # 16 beats without an answer; a wire that loses a fifth of all frames has that never
VERDICT_AGAIN_NS = 30 * MS
FORGET_NONCES = 16  # questions under way at most
REMEMBERED = 4096  # answered verdicts kept to recognise repeats
MAX_PENDING = 1024  # verdicts waiting for a controller that is away; the oldest go first, their parts are past the gate

NO_INPUTS = Flags(0)


class Block(NamedTuple):
    """What stands in the way of rejects, and what to do about it."""

    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.what}: {self.fix}"


WHAT_BLOCKS = {
    Flags.BIN_FULL: Block("reject bin full", "empty it"),
    Flags.AIR_LOW: Block("air pressure low", "check the supply and the valve of the gate"),
    Flags.ENCODER_LOST: Block(
        "parts pass the eye and the encoder gives no counts",
        "check the encoder and its cable, then stop and start the line",
    ),
    Flags.BELT_REVERSED: Block("the belt ran backwards", "run it forward to where it was"),
}


def what_blocks(flags: Flags) -> str:
    """Empty when nothing does."""
    return "; ".join(str(block) for flag, block in WHAT_BLOCKS.items() if flag in flags)


Key = tuple[int, int]  # boot id, part id


class Phase(Enum):
    CLOSED = "closed"  # no port
    HELLO = "hello"  # nobody answers yet
    REFUSED = "refused"  # firmware of another protocol version
    CONFIG = "config"
    READY = "ready"  # configured, disarmed by intention
    ARM = "arm"
    UP = "up"  # armed


@dataclass(frozen=True, slots=True)
class GateSetup:
    """How the machine is built; see `messages.Config`."""

    decide_counts: int
    fire_counts: int
    pulse_counts: int
    watchdog_ms: int
    default: Verdict = Verdict.REJECT
    confirm_counts: int = 0
    max_on_ms: int = 1000  # the longest sweep over half a second of belt, twice
    debounce_counts: int = 0
    inputs: Flags = NO_INPUTS  # which of BIN_FULL and AIR_LOW are wired

    def message(self, boot_id: int) -> Config:
        return Config(
            boot_id, self.decide_counts, self.fire_counts, self.pulse_counts, self.confirm_counts, self.watchdog_ms,
            self.max_on_ms, self.default, int(self.inputs), self.debounce_counts,
        )  # fmt: skip


@dataclass(slots=True)
class _Pending:
    """A verdict not yet answered."""

    verdict: Verdict
    since_ns: int
    again_ns: int


class Link:
    """See the module. Not thread-safe: one caller at a time.

    resume: boot id and last part id that an earlier process on this box knew of; parts of that boot after it are then
    told as missed instead of never.
    """

    def __init__(
        self, setup: GateSetup, *, version: int = PROTOCOL_VERSION, resume: tuple[int, int] | None = None
    ) -> None:
        self.setup = setup
        self.phase = Phase.CLOSED
        self.detail = "port closed"
        self.counts: Counter[str] = Counter()
        self.clocks = ClockRelation()
        self.boot_id: int | None
        self.encoder: int | None = None  # at the last beat
        self.flags = Flags(0)
        self._version = version
        self._wants_armed = False
        self._wants_hold = False
        self._deframer = Deframer()
        self._out = bytearray()
        self._events: list[LinkEvent] = []
        self._ask_ns = 0  # when to ask again
        self._beat_ns = 0
        self._heard_ns = 0
        self._asked_arm_ns = 0
        self._nonce = 0
        self._asked: OrderedDict[int, int] = OrderedDict()  # nonce -> sent_ns
        self._must_ack = False
        self._up_ns = 0
        self._told_refusal = ""
        self._told_block = ""
        self._pending: OrderedDict[Key, _Pending] = OrderedDict()
        self._answered: OrderedDict[Key, None] = OrderedDict()
        self.boot_id, last_part = (None, None) if resume is None else resume
        self._book = PartBook(setup.fire_counts, self.clocks, self.counts, last_part)

    # What a caller sees

    @property
    def is_armed(self) -> bool:
        return self.phase is Phase.UP

    @property
    def open_parts(self) -> int:
        """Parts heard of and not settled."""
        return self._book.open_parts

    @property
    def pending_verdicts(self) -> int:
        return len(self._pending)

    def is_settled(self, boot_id: int, part_id: int) -> bool:
        return self._book.is_settled((boot_id, part_id))

    @property
    def wire_counts(self) -> dict[str, int]:
        counts = self._deframer.counts
        return {"frames_in": counts.frames, "bad_crc": counts.bad_crc, "malformed": counts.malformed,
                "oversize": counts.oversize}  # fmt: skip

    def take_output(self) -> bytes:
        """Bytes for the wire."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def take_events(self) -> list[LinkEvent]:
        events, self._events = self._events, []
        return events

    def next_due_ns(self) -> int:
        """When `tick` will have something to do."""
        if self.phase is Phase.CLOSED:
            return self._heard_ns + 3600 * 1000 * MS
        due = [self._beat_ns if self._is_talking else self._ask_ns]
        if self.phase in (Phase.CONFIG, Phase.ARM):
            due.append(self._ask_ns)
        if self._is_talking:
            due.append(self._heard_ns + LOST_AFTER_NS)
        if self.phase is Phase.UP:
            due += [pending.again_ns for pending in self._pending.values()]
        return min(due)

    # Inputs

    def opened(self, now_ns: int) -> None:
        """A port is open; nothing is known of who is there."""
        self._deframer.reset()
        self._out[:] = b"\0"  # ends whatever the controller has half received
        self._hello(now_ns)

    def closed(self, reason: str, now_ns: int) -> None:
        """The port is gone."""
        if self.phase is not Phase.CLOSED:
            self.counts["port_lost"] += 1
            self._lose(reason)
        self._out.clear()
        self._heard_ns = now_ns
        self.phase, self.detail = Phase.CLOSED, reason

    def set_armed(self, wanted: bool, now_ns: int) -> None:
        """Arm as soon as possible and keep it so, or disarm. Parts open at a disarm get the default."""
        self._wants_armed = wanted
        if self.phase in ((Phase.READY,) if wanted else (Phase.ARM, Phase.UP)):
            self._to_arm(now_ns)

    def set_hold(self, wanted: bool, now_ns: int) -> None:
        """Ask the machine for a controlled hold of the feed, or let it go on. A level, told again with every beat."""
        self._wants_hold = wanted
        self._beat_ns = min(self._beat_ns, now_ns)

    def submit(self, boot_id: int, part_id: int, reject: bool, now_ns: int) -> None:
        """Tell the verdict of one part, and again until it is answered. The first one for a part wins."""
        key = (boot_id, part_id)
        if key in self._pending or key in self._answered:
            self.counts["verdict_repeats"] += 1
            return
        self.counts["verdicts"] += 1
        if boot_id != self.boot_id or self._book.is_settled(key):
            self.counts["verdicts_hopeless"] += 1
            return
        if len(self._pending) >= MAX_PENDING:
            self._pending.popitem(last=False)
            self.counts["verdicts_hopeless"] += 1
        pending = _Pending(Verdict.REJECT if reject else Verdict.ACCEPT, now_ns, now_ns)
        self._pending[key] = pending
        if self.phase is Phase.UP:
            self._send_verdict(key, pending, now_ns)

    def feed(self, data: bytes, now_ns: int) -> None:
        """Bytes from the controller."""
        for payload in self._deframer.feed(data):
            self._receive(payload, now_ns)
        acknowledged = self._book.acknowledged
        if self._must_ack and self.boot_id is not None and acknowledged is not None:
            self._send(EvAck(self.boot_id, acknowledged))
            self._must_ack = False

    def tick(self, now_ns: int) -> None:
        """Send what is due again."""
        if self.phase is Phase.CLOSED:
            return
        if self._is_talking and now_ns - self._heard_ns >= LOST_AFTER_NS:
            self._lose(f"no answer for {LOST_AFTER_NS // MS} ms")
            self._hello(now_ns)
        is_asking = not self._is_talking or self.phase in (Phase.CONFIG, Phase.ARM)
        if is_asking and now_ns >= self._ask_ns:
            self._ask(now_ns)
        if self._is_talking and now_ns >= self._beat_ns:
            assert self.boot_id is not None
            self._beat_ns = now_ns + min(BEAT_AGAIN_NS, self._beat_every_ns)
            self._send(Beat(self.boot_id, self._new_nonce(now_ns), self._wants_hold))
        if self.phase is Phase.UP:
            for key, pending in self._pending.items():
                if now_ns >= pending.again_ns:
                    self.counts["verdict_retries"] += 1
                    self._send_verdict(key, pending, now_ns)

    # Asking

    @property
    def _is_talking(self) -> bool:
        return self.phase in (Phase.CONFIG, Phase.READY, Phase.ARM, Phase.UP)

    @property
    def _beat_every_ns(self) -> int:
        return min(BEAT_NS, self.setup.watchdog_ms * MS // 4)

    def _hello(self, now_ns: int) -> None:
        self.phase, self.detail = Phase.HELLO, "no controller answers"
        self._ask(now_ns)

    def _ask(self, now_ns: int) -> None:
        """Send the request of this phase, and note when to send it again."""
        self._ask_ns = now_ns + (REFUSED_AGAIN_NS if self.phase is Phase.REFUSED else ASK_AGAIN_NS)
        boot_id = self.boot_id or 0
        if self.phase in (Phase.HELLO, Phase.REFUSED):
            self._send(Hello(self._version, self._new_nonce(now_ns)))
        elif self.phase is Phase.CONFIG:
            if Flags.ARMED in self.flags:  # an earlier host armed it with other values
                self._send(Arm(boot_id, False))
            self._send(self.setup.message(boot_id))
        elif self.phase is Phase.ARM:
            self._asked_arm_ns = now_ns
            self._send(Arm(boot_id, self._wants_armed))

    def _to_config(self, now_ns: int) -> None:
        self.phase, self.detail = Phase.CONFIG, "configuring"
        self._ask(now_ns)

    def _to_arm(self, now_ns: int) -> None:
        self.phase, self.detail = Phase.ARM, "arming" if self._wants_armed else "disarming"
        self._ask(now_ns)

    def _new_nonce(self, now_ns: int) -> int:
        self._nonce = (self._nonce + 1) & U16
        self._asked[self._nonce] = now_ns
        while len(self._asked) > FORGET_NONCES:
            self._asked.popitem(last=False)
        return self._nonce

    def _send(self, message: Message) -> None:
        self.counts["frames_out"] += 1
        self._out += encode_frame(message.pack())

    def _send_verdict(self, key: Key, pending: _Pending, now_ns: int) -> None:
        pending.again_ns = now_ns + VERDICT_AGAIN_NS
        self._send(VerdictMsg(*key, pending.verdict))

    # Hearing

    def _receive(self, payload: bytes, now_ns: int) -> None:
        version = hello_version(payload)
        if version is not None and version != self._version:
            self._refuse(version)
            return
        try:
            message = unpack(payload)
        except WireError:
            self.counts["not_ours"] += 1
            return
        match message:
            case HelloR():
                self._on_hello(message, now_ns)
            case Done() | BeatR() | VerdictR() | EventMsg():
                self._on_talk(message, now_ns)
            case _:
                self.counts["not_ours"] += 1  # an echo of our own, as RS-485 adapters make

    def _on_talk(self, message: Done | BeatR | VerdictR | EventMsg, now_ns: int) -> None:
        if not self._is_talking:
            return
        if message.boot_id != self.boot_id:
            if now_ns >= self._ask_ns:  # not for every one of a burst
                self.counts["boot_changes_noticed"] += 1
                self._hello(now_ns)
            return
        self._heard_ns = now_ns
        match message:
            case Done():
                self._on_done(message, now_ns)
            case BeatR():
                self._on_beat(message, now_ns)
            case VerdictR():
                self._on_answer(message, now_ns)
            case EventMsg():
                self._must_ack = True
                self._pass_on(self._book.event(message, now_ns), now_ns)

    def _pass_on(self, news: list[LinkEvent], now_ns: int) -> None:
        """Tell what the part book found out, and do what follows from it here."""
        self._events += news
        for event in news:
            if isinstance(event, Settled):
                if self._pending.pop((event.boot_id, event.part_id), None) is not None:
                    self.counts["verdicts_hopeless"] += 1
            elif isinstance(event, Tripped) and event.at_ns >= self._up_ns:  # not one that an earlier ARM has healed
                self._fell(now_ns)

    def _refuse(self, version: int) -> None:
        if self.phase is Phase.REFUSED:
            return
        reason = (
            f"the controller speaks protocol {version:04x}, this release {self._version:04x}: "
            "reflash the controller with the firmware of this release"
        )
        if self._is_talking:
            self._lose(reason)
        self._stand_refused(reason)

    def _stand_refused(self, reason: str) -> None:
        """Ask on, slowly, and tell a reason once."""
        self.phase, self.detail = Phase.REFUSED, reason
        if reason != self._told_refusal:
            self._told_refusal = reason
            self._events.append(LinkRefused(reason))

    def _on_hello(self, hello: HelloR, now_ns: int) -> None:
        sent_ns = self._asked.pop(hello.nonce, None)
        if sent_ns is None or self.phase not in (Phase.HELLO, Phase.REFUSED):
            return  # a late answer to an earlier HELLO
        self._heard_ns = now_ns
        if self.boot_id != hello.boot_id:
            self._new_boot(hello, now_ns)
        self.flags = hello.flags
        self.clocks.add(hello.time_us, sent_ns, now_ns)
        self._pass_on(self._book.note_oldest(hello.oldest_event), now_ns)
        self._must_ack = True
        self._beat_ns = now_ns
        if hello.config_digest == self.setup.message(hello.boot_id).digest():
            self._configured(now_ns)
        else:
            self._to_config(now_ns)

    def _new_boot(self, hello: HelloR, now_ns: int) -> None:
        if self.boot_id is not None:
            self.counts["controller_resets"] += 1
            self._events.append(ControllerReset(self.boot_id, hello.boot_id))
            self._pass_on(self._book.restarted(now_ns), now_ns)
            self.counts["verdicts_hopeless"] += len(self._pending)
            self._pending.clear()
        self.boot_id = hello.boot_id
        self._book.new_log()
        self.clocks.reset()

    def _configured(self, now_ns: int) -> None:
        is_armed = Flags.ARMED in self.flags
        if is_armed and self._wants_armed:
            self._now_up(now_ns)
        elif is_armed or self._wants_armed:
            self._to_arm(now_ns)
        else:
            self.phase, self.detail = Phase.READY, "ready, not armed"

    def _now_up(self, now_ns: int) -> None:
        self.phase, self.detail = Phase.UP, "armed"
        self._told_refusal = self._told_block = ""
        self._up_ns = now_ns
        self._events.append(LinkUp(self.boot_id or 0))
        for key, pending in self._pending.items():
            self._send_verdict(key, pending, now_ns)

    def _on_done(self, done: Done, now_ns: int) -> None:
        self.flags = done.flags
        if done.status is Status.BAD_VALUE:
            self._stand_refused(f"the controller refuses {self.setup}: mend [controller] in the station file")
        elif done.request == Config.KIND and self.phase is Phase.CONFIG and done.status is Status.OK:
            self._configured(now_ns)
        elif done.request == Arm.KIND and self.phase is Phase.ARM:
            if done.status is Status.NOT_CONFIGURED:
                self._to_config(now_ns)
            elif done.status is Status.BLOCKED:
                self._blocked(done.flags)
            elif (Flags.ARMED in done.flags) == self._wants_armed:
                self._configured(now_ns)

    def _blocked(self, flags: Flags) -> None:
        """Somebody has to go there. It is asked again all the while, and armed as soon as the way is clear."""
        self.detail = what_blocks(flags)
        if self.detail != self._told_block:
            self._told_block = self.detail
            self._events.append(LinkBlocked(self.detail))

    def _on_beat(self, beat: BeatR, now_ns: int) -> None:
        sent_ns = self._asked.pop(beat.nonce, None)
        if sent_ns is None:
            return
        self.counts["beats"] += 1
        self._beat_ns = now_ns + self._beat_every_ns
        self.encoder = beat.encoder
        self.clocks.add(beat.time_us, sent_ns, now_ns)
        self._pass_on(self._book.note_oldest(beat.oldest_event), now_ns)
        if sent_ns > self._asked_arm_ns:
            self.flags = beat.flags
            if self.phase is Phase.UP and Flags.ARMED not in beat.flags:
                self._events.append(Tripped("disarmed", now_ns))
                self._fell(now_ns)
        self._pass_on(self._book.beat(beat, now_ns), now_ns)

    def _on_answer(self, reply: VerdictR, now_ns: int) -> None:
        key = (reply.boot_id, reply.part_id)
        pending = self._pending.get(key)
        if pending is None:
            return
        if reply.answer is Answer.NOT_ARMED:  # it may be armed before the part is at the decide point
            return
        del self._pending[key]
        self._answered[key] = None
        while len(self._answered) > REMEMBERED:
            self._answered.popitem(last=False)
        self.counts[f"verdict_{reply.answer.name.lower()}"] += 1
        trip_ns = now_ns - pending.since_ns
        self._events.append(VerdictAnswered(*key, reply.answer, reply.in_force, trip_ns))

    # Falling

    def _fell(self, now_ns: int) -> None:
        """The controller is not armed any more: arm it again."""
        if self.phase is Phase.UP:
            self.counts["trips"] += 1
            self._to_arm(now_ns)

    def _lose(self, reason: str) -> None:
        self.counts["losses"] += 1
        self._asked.clear()
        if self._is_talking:
            self._events.append(LinkLost(reason))
