"""Look at the far side without being its host: ask who is there, hear its events, read its registers.

Nothing here arms, configures, judges or feeds the watchdog: BEATs carry boot id 0, which the controller answers and
does not take for a host's, events are not acknowledged, and of a PLC registers are only read. State machines: bytes
and `now_ns` in, bytes and news out.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Any, Protocol

from firmware_bridge.port_hints import Hearing
from firmware_bridge.reject.clock_relation import ClockRelation
from firmware_bridge.reject.frames import Deframer, encode_frame
from firmware_bridge.reject.gate_setup import GateSetup
from firmware_bridge.reject.messages import (
    PROTOCOL_VERSION,
    Beat,
    BeatR,
    EventKind,
    EventMsg,
    Flags,
    Hello,
    HelloR,
    Message,
    WireError,
    hello_version,
    unpack,
)
from firmware_bridge.reject.times import ASK_AGAIN_NS
from firmware_bridge.wrap import U16, U32, since16, since32

BEAT_EVERY_NS = 100_000_000
BEAT_LOST_NS = 100_000_000
SILENT_AFTER_NS = 2_000_000_000
TRIPS_KEPT = 4096
SPEED_OVER_US = 200_000


@dataclass(frozen=True, slots=True)
class News:
    """Something changed. `what` is the name of it; `text` says how, for a person."""

    at_ns: int
    what: str
    text: str


class Watch(Protocol):
    """`FramesWatch`, `PlcWatch` or `BoxWatch`."""

    trips_ns: deque[int]  # of questions that were answered

    @property
    def is_complete(self) -> bool:
        """Whether everything was heard once."""

    @property
    def problem(self) -> str:
        """What is wrong with the far side, with the fix; empty when nothing is known to be."""

    @property
    def adapter_problem(self) -> str:
        """What is set wrongly about the adapter, with the fix; the far side is heard all the same."""

    def opened(self, now_ns: int) -> None: ...
    def feed(self, data: bytes, now_ns: int) -> None: ...
    def tick(self, now_ns: int) -> None: ...
    def take_output(self) -> bytes: ...
    def take_news(self) -> list[News]: ...
    def state(self) -> dict[str, Any]:
        """All that is known, in JSON types."""


def flag_names(flags: int) -> list[str]:
    return [flag.name.lower() for flag in Flags if flag & flags and flag.name]


class FramesWatch:
    """See the module. setup: what the station would configure, to compare."""

    adapter_problem = ""  # frames are never taken for their own echo

    def __init__(
        self, setup: GateSetup, *, version: int = PROTOCOL_VERSION, beat_every_ns: int = BEAT_EVERY_NS
    ) -> None:
        self.trips_ns: deque[int] = deque(maxlen=TRIPS_KEPT)
        self.counts: Counter[str] = Counter()
        self._digest = setup.message(0).digest()
        self._version, self._theirs = version, 0
        self._beat_every_ns = beat_every_ns
        self._deframer = Deframer()
        self._hearing = Hearing()
        self._clocks = ClockRelation()
        self._out = bytearray()
        self._news: list[News] = []
        self._hello: HelloR | None = None
        self._beat: BeatR | None = None
        self._flags = Flags(0)
        self._asked: dict[int, int] = {}
        self._nonce = 0
        self._ask_ns = 0
        self._heard_ns = self._now_ns = 0
        self._last_event: int | None = None
        self._counts_per_s = 0.0
        self._speed_base: BeatR | None = None

    @property
    def is_complete(self) -> bool:
        return self._beat is not None or bool(self._theirs)

    @property
    def problem(self) -> str:
        if self._theirs:
            return (f"the controller speaks protocol {self._theirs:04x}, this release {self._version:04x}: "
                    "reflash the controller with the firmware of this release")  # fmt: skip
        if self._hello is None:
            hint = self._hearing.hint(self._now_ns)
            return f"no controller answers: {hint}" if hint else "no controller answers"
        if self._now_ns - self._heard_ns > SILENT_AFTER_NS:
            return "the controller fell silent: check its power and cable"
        return ""

    def opened(self, now_ns: int) -> None:
        self._now_ns = self._heard_ns = now_ns
        self._hearing.opened(0, now_ns)
        self._out += b"\0"
        self.tick(now_ns)

    def tick(self, now_ns: int) -> None:
        self._now_ns = now_ns
        if now_ns < self._ask_ns:
            return
        if self._hello is None:
            self._ask_ns = now_ns + ASK_AGAIN_NS
            self._send(Hello(self._version, self._new_nonce(now_ns)))
        else:
            self._ask_ns = now_ns + max(self._beat_every_ns, BEAT_LOST_NS)
            self._send(Beat(0, self._new_nonce(now_ns)))

    def feed(self, data: bytes, now_ns: int) -> None:
        self._now_ns = now_ns
        for payload in self._deframer.feed(data):
            self._hear(payload, now_ns)
        self._hearing.heard(len(data), self._deframer.counts.frames, now_ns)

    def take_output(self) -> bytes:
        out = bytes(self._out)
        self._out.clear()
        return out

    def take_news(self) -> list[News]:
        news, self._news = self._news, []
        return news

    def state(self) -> dict[str, Any]:
        wire = self._deframer.counts
        document: dict[str, Any] = {
            "protocol": "reject",
            "release_version": f"{self._version:04x}",
            "problem": self.problem,
            "adapter_problem": self.adapter_problem,
            "counters": {"frames": wire.frames, "bad_crc": wire.bad_crc, "malformed": wire.malformed,
                         "oversize": wire.oversize, **self.counts},
        }  # fmt: skip
        hello, beat = self._hello, self._beat
        if hello is not None:
            document |= {
                "version": f"{hello.version:04x}",
                "boot_id": hello.boot_id,
                "flags": flag_names(self._flags),
                "is_configured": hello.config_digest != 0,
                "is_our_config": hello.config_digest == self._digest,
            }
        if beat is not None:
            document |= {
                "next_part": beat.next_part,
                "oldest_event": beat.oldest_event,
                "next_event": beat.next_event,
                "encoder": beat.encoder,
                "counts_per_s": round(self._counts_per_s, 1),
                "time_us": beat.time_us,
                "clock_drift_ppm": round(self._clocks.drift_ppm, 1),
            }
        return document

    def _new_nonce(self, now_ns: int) -> int:
        self._nonce = (self._nonce + 1) & U16
        self._asked = {**dict(list(self._asked.items())[-15:]), self._nonce: now_ns}
        return self._nonce

    def _send(self, message: Message) -> None:
        self._out += encode_frame(message.pack())

    def _hear(self, payload: bytes, now_ns: int) -> None:
        version = hello_version(payload)
        if version is not None and version != self._version:
            self._theirs = version
            return
        try:
            message = unpack(payload)
        except WireError:
            self.counts["not_ours"] += 1
            return
        self._heard_ns = now_ns
        match message:
            case HelloR():
                self._on_hello(message, now_ns)
            case BeatR():
                self._on_beat(message, now_ns)
            case EventMsg():
                self._on_event(message, now_ns)
            case _:
                self.counts["others"] += 1

    def _on_hello(self, hello: HelloR, now_ns: int) -> None:
        sent_ns = self._asked.pop(hello.nonce, None)
        if sent_ns is None or self._hello is not None:
            return
        self._hello, self._theirs = hello, 0
        self._see_flags(hello.flags, now_ns)
        self._clocks.add(hello.time_us, sent_ns, now_ns)
        self._last_event = (hello.next_event - 1) & U16  # what is older is history, and sent again
        self._ask_ns = now_ns

    def _on_beat(self, beat: BeatR, now_ns: int) -> None:
        sent_ns = self._asked.pop(beat.nonce, None)
        if sent_ns is None:
            return
        if self._hello is not None and beat.boot_id != self._hello.boot_id:
            self._tell(now_ns, "reset", f"boot id {self._hello.boot_id} -> {beat.boot_id}: the controller restarted")
            self._hello = self._beat = self._last_event = self._speed_base = None
            self._clocks.reset()
            self._ask_ns = now_ns
            return
        self.trips_ns.append(now_ns - sent_ns)
        self._clocks.add(beat.time_us, sent_ns, now_ns)
        self._see_speed(beat)
        self._beat = beat
        self._see_flags(beat.flags, now_ns)
        self._ask_ns = sent_ns + self._beat_every_ns

    def _see_speed(self, beat: BeatR) -> None:
        """Over a stretch: single counts would show between two beats."""
        base = self._speed_base
        took_us = since32(beat.time_us, base.time_us) if base is not None else 0
        if base is not None and took_us >= SPEED_OVER_US:
            self._counts_per_s = since32(beat.encoder, base.encoder) * 1e6 / took_us
        if base is None or took_us >= SPEED_OVER_US or took_us < 0:
            self._speed_base = beat

    def _see_flags(self, flags: Flags, now_ns: int) -> None:
        for flag in Flags:
            if flag in flags ^ self._flags and flag.name:
                self._tell(now_ns, f"flag.{flag.name.lower()}", "on" if flag in flags else "off")
        self._flags = flags

    def _on_event(self, event: EventMsg, now_ns: int) -> None:
        if self._last_event is None or since16(event.seq, self._last_event) <= 0:
            return
        self._last_event = event.seq
        what = f"flags {flag_names(event.part_id)}" if event.event is EventKind.INPUT else f"part {event.part_id}"
        self._tell(
            now_ns, f"event.{event.event.name.lower()}", f"{what}  encoder {event.encoder & U32}  seq {event.seq}"
        )

    def _tell(self, now_ns: int, what: str, text: str) -> None:
        self._news.append(News(now_ns, what, text))
