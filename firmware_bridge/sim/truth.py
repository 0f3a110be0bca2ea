"""What really happened to each part: the facts of the belt, joined with the part ids that the controller gave."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from firmware_bridge.reject.messages import EventKind, EventMsg
from firmware_bridge.sim.belt import Belt, Fact
from firmware_bridge.sim.board import QUARTERS

REMEMBERED_PARTS = 200_000
GATES_KEPT = 256  # of parts that passed the eye last: more than a controller follows

_OUTCOMES = {EventKind.PASSED: "passed", EventKind.FIRED: "fired", EventKind.DEFAULTED: "defaulted",
             EventKind.OVERFLOW: "defaulted"}  # fmt: skip


@dataclass(slots=True)
class PartTruth:
    """What really happened to one part."""

    index: int
    boot_id: int = 0
    part_id: int = 0  # 0: not followed, because the encoder was lost or the belt ran backwards
    encoder: int = 0  # u32, at the eye
    outcome: str | None = None  # "passed", "fired", "defaulted"; None: not at the gate yet, or the controller forgot
    pulse_encoder: int | None = None  # u32, of its own pulse
    is_removed: bool | None = None  # whether the gate was open when it stood there; None: not there yet


@dataclass(frozen=True, slots=True)
class Truth:
    """What the world knows. `stray`: pulses without a part; `sweeps`: the gate held open over untracked parts."""

    parts: tuple[PartTruth, ...]
    pulses: int = 0
    stray: int = 0
    sweeps: int = 0
    stuck: int = 0
    resets: int = 0
    counts: dict[str, int] = field(default_factory=dict)


class TruthBook:
    """`observe` each event of the controller as it happens, `take` the facts of each run of the belt."""

    def __init__(self) -> None:
        self.belt: Belt | None = None
        self.parts: deque[PartTruth] = deque(maxlen=REMEMBERED_PARTS)
        self.tally = dict.fromkeys(("pulses", "stray", "sweeps", "stuck", "resets"), 0)
        self._at_eye: dict[int, PartTruth] = {}  # by index; told by the controller, not yet by the belt
        self._by_key: dict[tuple[int, int], PartTruth] = {}  # between eye and gate, as far as the controller knows
        self._by_index: dict[int, PartTruth] = {}  # between eye and gate
        self._gates: deque[tuple[int, PartTruth]] = deque(maxlen=GATES_KEPT)  # quarter of the gate
        self._is_healthy = False

    def observe(self, event: EventMsg) -> None:
        key = event.boot_id, event.part_id
        if event.event in (EventKind.TRIGGER, EventKind.OVERFLOW) and self.belt is not None:
            index = self.belt.index_at(self.belt.board.quarter)
            if index is not None:
                self._at_eye[index] = self._by_key[key] = PartTruth(index, *key, event.encoder)
        outcome = _OUTCOMES.get(event.event)
        part = self._by_key.pop(key, None) if outcome else None
        if part is not None:
            part.outcome = outcome
            if event.event is EventKind.FIRED or event.event is EventKind.DEFAULTED:
                part.pulse_encoder = event.encoder

    def take(self, facts: Iterable[Fact]) -> None:
        for fact in facts:
            match fact["ev"]:
                case "part":
                    part = self._at_eye.pop(fact["index"], None) or PartTruth(fact["index"])
                    self.parts.append(part)
                    if fact["gate"] is not None:
                        self._by_index[part.index] = part
                        self._gates.append((fact["gate"], part))
                case "gone":
                    self._by_index.pop(fact["index"]).is_removed = fact["removed"]
                case "gate" if fact["on"]:
                    self._on_pulse(fact)
                case "healthy":
                    self._is_healthy = fact["on"]
                case "did" if fact["verb"] == "reset":
                    self.forget()

    def forget(self) -> None:
        """The controller was reset: of what was between eye and gate it knows no more."""
        self.tally["resets"] += 1
        self._by_key.clear()

    def _on_pulse(self, fact: Fact) -> None:
        self.tally["pulses"] += 1
        self.tally["stuck"] += not fact["moved"]
        here = [part for gate, part in self._gates if abs(fact["quarter"] // QUARTERS - gate // QUARTERS) <= 1]
        if not self._is_healthy and not any(part.part_id for part in here):
            self.tally["sweeps"] += 1
        elif not here:
            self.tally["stray"] += 1
