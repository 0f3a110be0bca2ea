"""A belt with parts over a board: places them, watches the gate, plays bad days, and writes down what really happened.

The truth is a list of plain dictionaries, one JSON line each when written to a file. It knows nothing of verdicts: who
judges joins it with what the host says (`tools/bench/reject_judge.py`). Places are quarter counts of the belt since
power-on, whatever the controller's own counter shows.

    part     index, quarter          the part's leading edge is at the eye
    gate     on, moved, quarter, edge_us     the solenoid's output; moved: whether the flap followed
    healthy  on, quarter             the healthy output
    rx       frame, quarter          bytes up to a zero, as the controller's UART took them
    confirm  index, quarter          a removed part at the sensor behind the gate, from here on
    did      verb, value, quarter    one act of the script
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from firmware_bridge.mcu.sim.board import QUARTERS, Beam, Board, Input, What

PART_COUNTS = 20
THIN_COUNTS = 4  # a part of a close pair
PAIR_COUNTS = (7, 20)  # from the first to the second of them: inside one pulse of the gate
BOUNCES = ((0, 1), (3, 5), (6, 7), (9, 10))  # dark quarters at the leading edge, before the beam stays dark
BOUNCE_END = 12
CONFIRM_COUNTS = (25, 35)  # behind the gate, where the sensor is dark
PLACE_AHEAD_COUNTS = 400
FIRST_COUNT = 300
GATE_LATEST = 2 * QUARTERS - 1  # after the gate's count: an output one count late is still in time

Fact = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Act:
    """One line of a script: do something `after_ms` after part `at_part` broke the eye.

    Verbs: `reset`; `speed` (times the nominal one); `stuck`, `air`, `bin` (0 or 1; 1 is good for air and bin);
    `cable` ("out", "in") and `host` ("stop", "cont", "kill", "start"), which are the caller's to do.
    """

    at_part: int
    after_ms: float
    verb: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class BeltPlan:
    parts: int
    counts_per_s: int
    fire_counts: int
    seed: int = 1
    spacing_counts: tuple[int, int] = (110, 190)
    bounces: bool = False
    pairs: bool = False


class Belt:
    """See the module. `on_act` is told the acts that are not the belt's."""

    def __init__(
        self, board: Board, plan: BeltPlan, script: Sequence[Act] = (), on_act: Callable[[Act], None] | None = None
    ) -> None:
        self.board = board
        self.plan = plan
        self.is_moving = False
        self._rng = Random(plan.seed)
        self._facts: list[Fact] = []
        self._script = sorted(script, key=lambda act: (act.at_part, act.after_ms))
        self._due: list[tuple[float, Act]] = []
        self._on_act = on_act
        self._placed: deque[tuple[int, int]] = deque()  # index, quarter: on the way to the eye
        self._to_gate: deque[tuple[int, int]] = deque()
        self._next_index = 0
        self._next_count = FIRST_COUNT
        self._last_quarter = 0
        self._is_open = self._is_stuck = False
        self._sent = bytearray()  # to the controller and not yet taken by it
        self._taken = 0

    @property
    def is_over(self) -> bool:
        """All parts are past the gate."""
        return self._next_index == self.plan.parts and not self._placed and not self._to_gate and (
            self.board.quarter > self._last_quarter + (self.plan.fire_counts + CONFIRM_COUNTS[1]) * QUARTERS
        )  # fmt: skip

    def hear(self, data: bytes) -> None:
        """Bytes that arrive at the controller."""
        self._sent += data[: self.board.put(data)]

    def run(self, us: float) -> list[Fact]:
        """Let time pass, and tell what happened in it."""
        self.board.run(us)
        for note in self.board.notes():
            match note.what:
                case What.GATE:
                    self._is_open = note.level and not self._is_stuck
                    self._fact("gate", on=note.level, moved=not self._is_stuck, quarter=note.quarter,
                               us=round(note.now_us), edge_us=round(note.us_after_edge, 2))  # fmt: skip
                case What.HEALTHY:
                    self._fact("healthy", on=note.level, quarter=note.quarter, us=round(note.now_us))
                    if note.level and not self.is_moving:
                        self.begin()
                case What.HEARD:
                    self._heard(note.heard, note.quarter, note.now_us)
        self._place()
        self._pass()
        self._act()
        facts, self._facts = self._facts, []
        return facts

    def begin(self) -> None:
        """The belt starts when the controller first says it is healthy, as an interlock makes it."""
        self.is_moving = True
        self.board.speed(self.plan.counts_per_s * QUARTERS)

    def do(self, act: Act) -> None:
        """One act of a script, now."""
        self._fact("did", verb=act.verb, value=act.value)
        match act.verb:
            case "reset":
                self.board.reset()
            case "speed":
                self.board.speed(round(self.plan.counts_per_s * QUARTERS * float(act.value)))
            case "stuck":
                self._is_stuck = bool(act.value)
            case "air":
                self.board.level(Input.AIR, bool(act.value))
            case "bin":
                self.board.level(Input.BIN, bool(act.value))
            case _ if self._on_act is not None:
                self._on_act(act)

    def _fact(self, kind: str, **fields: Any) -> None:
        self._facts.append({"ev": kind, "quarter": self.board.quarter, "us": round(self.board.now_us), **fields})

    def _heard(self, total: int, quarter: int, now_us: float) -> None:
        """The controller has taken `total` bytes so far; the last one was a zero."""
        count = total - self._taken
        frame, self._taken = bytes(self._sent[:count]), total
        del self._sent[:count]
        self._fact("rx", frame=frame.hex(), quarter=quarter, us=round(now_us))

    def _place(self) -> None:
        plan, rng = self.plan, self._rng
        ahead = self.board.quarter // QUARTERS + PLACE_AHEAD_COUNTS
        while self._next_index < plan.parts and self._next_count < ahead:
            is_pair = plan.pairs and self._next_index % 4 == 0 and self._next_index + 1 < plan.parts
            self._put_part(THIN_COUNTS if is_pair else PART_COUNTS)
            if is_pair:
                self._next_count += rng.randint(*PAIR_COUNTS)
                self._put_part(THIN_COUNTS)
            self._next_count += rng.randint(*plan.spacing_counts)

    def _put_part(self, length_counts: int) -> None:
        first = self._next_count * QUARTERS + self._rng.randrange(QUARTERS)
        dark = first
        if self.plan.bounces:
            for begin, end in BOUNCES:
                self.board.shadow(Beam.EYE, first + begin, first + end)
            dark += BOUNCE_END
        self.board.shadow(Beam.EYE, dark, first + length_counts * QUARTERS)
        self._placed.append((self._next_index, first))
        self._last_quarter = first
        self._next_index += 1

    def _pass(self) -> None:
        """Parts at the eye, and parts at the gate."""
        quarter = self.board.quarter
        while self._placed and self._placed[0][1] <= quarter:
            index, first = self._placed.popleft()
            self._fact("part", index=index, quarter=first)
            self._to_gate.append((index, first))
            while self._script and self._script[0].at_part <= index:
                act = self._script.pop(0)
                self._due.append((self.board.now_us + 1000 * act.after_ms, act))
        while self._to_gate and self._at_gate(self._to_gate[0][1]) + GATE_LATEST <= quarter:
            index, first = self._to_gate.popleft()
            if self._is_open:
                begin, end = (self._at_gate(first) + counts * QUARTERS for counts in CONFIRM_COUNTS)
                self.board.shadow(Beam.CONFIRM, begin, end)
                self._fact("confirm", index=index, quarter=begin)

    def _at_gate(self, quarter: int) -> int:
        return (quarter // QUARTERS + self.plan.fire_counts) * QUARTERS

    def _act(self) -> None:
        for due in sorted(self._due, key=lambda entry: entry[0]):
            if due[0] <= self.board.now_us:
                self._due.remove(due)
                self.do(due[1])
