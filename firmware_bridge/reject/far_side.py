"""What a link knows of the far side: who it is, how far we have come with it, what it told of parts.

The parts of a link write here, its owner reads. What changes is told as events; what stands in the way, and why it will
not work like this, is told once until it is up again. No I/O, no clock.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import NamedTuple

from firmware_bridge.reject.clock_relation import ClockRelation
from firmware_bridge.reject.link_events import LinkBlocked, LinkEvent, LinkLost, LinkRefused, LinkUp
from firmware_bridge.reject.messages import Flags
from firmware_bridge.reject.part_book import PartBook


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


class Phase(Enum):
    CLOSED = "closed"  # no port
    HELLO = "hello"  # nobody answers yet
    REFUSED = "refused"  # firmware of another protocol version
    CONFIG = "config"
    READY = "ready"  # configured, disarmed by intention
    ARM = "arm"
    UP = "up"  # armed


TALKING = (Phase.CONFIG, Phase.READY, Phase.ARM, Phase.UP)


class FarSide:
    """See the module. give_up_counts: from the eye to where a part of which nothing is heard is past the gate.

    resume: boot id and last part id that an earlier process on this box knew of; parts of that boot after it are then
    told as missed instead of never.
    """

    def __init__(self, give_up_counts: int, clocks: ClockRelation, resume: tuple[int, int] | None) -> None:
        self.phase = Phase.CLOSED
        self.detail = "port closed"  # what to tell a person
        self.counts: Counter[str] = Counter()
        self.clocks = clocks
        self.boot_id: int | None
        self.boot_id, last_part = (None, None) if resume is None else resume
        self.book = PartBook(give_up_counts, clocks, self.counts, last_part)
        self.flags = Flags(0)
        self.encoder: int | None = None  # as last heard
        self.up_ns = 0  # when it was armed last
        self.events: list[LinkEvent] = []
        self._told_refusal = ""
        self._told_block = ""

    @property
    def is_talking(self) -> bool:
        """It is there, and one of ours."""
        return self.phase in TALKING

    def take_events(self) -> list[LinkEvent]:
        events, self.events = self.events, []
        return events

    def closed(self, reason: str) -> None:
        """The port is gone."""
        if self.phase is not Phase.CLOSED:
            self.counts["port_lost"] += 1
            self.lost(reason)
        self.phase, self.detail = Phase.CLOSED, reason

    def lost(self, reason: str) -> None:
        self.counts["losses"] += 1
        if self.is_talking:
            self.events.append(LinkLost(reason))
        self.phase, self.detail = Phase.HELLO, reason

    def refused(self, reason: str) -> None:
        """It will not work like this, however long we wait."""
        self.phase, self.detail = Phase.REFUSED, reason
        if reason != self._told_refusal:
            self._told_refusal = reason
            self.events.append(LinkRefused(reason))

    def blocked(self, flags: Flags) -> None:
        """Somebody has to go there. It is asked again all the while, and armed as soon as the way is clear."""
        what = what_blocks(flags)
        self.detail = what or self.detail
        if what and what != self._told_block:
            self.events.append(LinkBlocked(what))
        self._told_block = what

    def came_up(self, now_ns: int) -> None:
        """It is armed."""
        self.phase, self.detail = Phase.UP, "armed"
        self._told_refusal = self._told_block = ""
        self.up_ns = now_ns
        self.events.append(LinkUp(self.boot_id or 0))
