"""The host's side of any far side, as whoever owns the port sees it: bytes and `now_ns` in, bytes and events out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter

from firmware_bridge.reject.clock_relation import ClockRelation
from firmware_bridge.reject.far_side import FarSide, Phase
from firmware_bridge.reject.gate_setup import GateSetup
from firmware_bridge.reject.link_events import LinkEvent
from firmware_bridge.reject.messages import Flags


class HostLink(ABC):
    """What every link has. Not thread-safe: one caller at a time."""

    explains_silence = False  # says itself in `detail` what it hears when nobody answers

    def __init__(self, setup: GateSetup, far: FarSide) -> None:
        self.setup = setup
        self.far = far

    # What the owner sees

    @property
    def phase(self) -> Phase:
        return self.far.phase

    @property
    def detail(self) -> str:
        """What to tell a person about the phase."""
        return self.far.detail

    @property
    def is_armed(self) -> bool:
        return self.far.phase is Phase.UP

    @property
    def boot_id(self) -> int | None:
        return self.far.boot_id

    @property
    def flags(self) -> Flags:
        """The far side's state, as last heard."""
        return self.far.flags

    @property
    def encoder(self) -> int | None:
        """Where the belt was, as last heard."""
        return self.far.encoder

    @property
    def clocks(self) -> ClockRelation:
        return self.far.clocks

    @property
    def counts(self) -> Counter[str]:
        return self.far.counts

    @property
    def open_parts(self) -> int:
        """Parts heard of and not settled."""
        return self.far.book.open_parts

    def is_settled(self, boot_id: int, part_id: int) -> bool:
        return self.far.book.is_settled((boot_id, part_id))

    def take_events(self) -> list[LinkEvent]:
        return self.far.take_events()

    @property
    def adapter_problem(self) -> str:
        """What to set when the RS-485 adapter is not as the station says; the link works all the same."""
        return ""

    @property
    @abstractmethod
    def pending_verdicts(self) -> int:
        """Verdicts not answered yet."""

    @property
    @abstractmethod
    def wire_counts(self) -> dict[str, int]: ...

    @abstractmethod
    def take_output(self) -> bytes:
        """Bytes for the wire."""

    @abstractmethod
    def next_due_ns(self) -> int:
        """When `tick` will have something to do."""

    # Inputs

    @abstractmethod
    def opened(self, now_ns: int) -> None:
        """A port is open; nothing is known of who is there."""

    @abstractmethod
    def closed(self, reason: str, now_ns: int) -> None:
        """The port is gone."""

    @abstractmethod
    def set_armed(self, wanted: bool, now_ns: int) -> None:
        """Arm as soon as possible and keep it so, or disarm. Parts open at a disarm get the default."""

    @abstractmethod
    def set_hold(self, wanted: bool, now_ns: int) -> None:
        """Ask the machine for a controlled hold of the feed, or let it go on. A level, told again and again."""

    @abstractmethod
    def submit(
        self, boot_id: int, part_id: int, reject: bool, now_ns: int, *, reason: int = 0, confidence: int = 0
    ) -> None:
        """Tell the verdict of one part until it is answered. The first one for a part wins.

        reason (`registers.Reason`) and confidence (0..1000) are for display, where the protocol has room for them.
        """

    @abstractmethod
    def feed(self, data: bytes, now_ns: int) -> None:
        """Bytes from the far side."""

    @abstractmethod
    def tick(self, now_ns: int) -> None:
        """Send what is due, and notice a silent far side."""
