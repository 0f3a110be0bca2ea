"""The simulated belt over a board: places parts, watches the gate, plays bad days, and writes down the truth.

Everything that is simulated here is on this belt: the product's line, the PLC to wire against, and the runs of the
reject path, with the host build of the core or with the real image. What really happened is a list of plain
dictionaries, one JSON line each when written to a file. It knows nothing of verdicts: who judges joins it with what the
host says. Places are quarter counts of the belt since power-on, whatever the controller's own counter shows.

    part     index, quarter, gate    the part's leading edge is at the eye; gate: its place there, None: nobody knows
    gate     on, moved, quarter, edge_us     the solenoid's output; moved: whether the flap followed
    healthy  on, quarter             the healthy output
    rx       frame, quarter          bytes up to a zero, as the controller's UART took them
    gone     index, quarter, removed     a part at the gate; removed: whether the flap stood open
    confirm  index, quarter          a removed part at the sensor behind the gate, from here on
    did      verb, value, quarter    one act of the script
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from firmware_bridge.sim.board import QUARTERS, Beam, Board, Input, What

PART_COUNTS = 20
BOUNCES = ((0, 1), (3, 5), (6, 7), (9, 10))  # dark quarters at the leading edge, before the beam stays dark
BOUNCE_END = 12
CONFIRM_COUNTS = (25, 35)  # behind the gate, where the sensor is dark
GATE_LATEST = 2 * QUARTERS - 1  # after the gate's count: an output one count late is still in time
AHEAD = 2  # quarters: a part is on the belt so long before the board could see it
SLICE_COUNTS = 16  # moved at a time: what a part at the gate leads to is placed before the belt is there
LEAST_SLICE_US = 200.0
PULSES_KEPT = 16
PAIR_EVERY, PAIR_COUNTS = 4, (7, 20)  # parts; and from the first of a pair to the second

Fact = dict[str, Any]


class Parts(Protocol):
    """Where parts lie. Counts are plain integers that go on growing from `first_count`; the wire wraps them."""

    @property
    def first_count(self) -> int:
        """The encoder while the belt has not moved yet."""

    @property
    def counts_per_s(self) -> int: ...
    def has_part(self, index: int) -> bool: ...
    def eye_counts(self, index: int) -> int:
        """The count at which part `index`, from 0, breaks the photo-eye. Grows with `index`."""


class Laid:
    """Parts at distances drawn from a seed. pairs: each fourth one has another inside the same pulse of the gate."""

    def __init__(
        self,
        parts: int,
        counts_per_s: int = 5000,
        spacing_counts: tuple[int, int] = (100, 100),
        *,
        first_count: int = 0,
        lead_counts: int = 100,
        pairs: bool = False,
        seed: int = 1,
    ) -> None:
        self.parts, self.counts_per_s, self.first_count = parts, counts_per_s, first_count
        self._spacing, self._pairs, self._rng = spacing_counts, pairs, Random(seed)
        self._eyes = [first_count + lead_counts]

    def has_part(self, index: int) -> bool:
        return index < self.parts

    def eye_counts(self, index: int) -> int:
        while len(self._eyes) <= index:
            is_pair = self._pairs and (len(self._eyes) - 1) % PAIR_EVERY == 0
            self._eyes.append(self._eyes[-1] + self._rng.randint(*(PAIR_COUNTS if is_pair else self._spacing)))
        return self._eyes[index]


@dataclass(frozen=True, slots=True)
class Act:
    """One line of a script: do something `after_ms` after part `at_part` broke the eye.

    Verbs: `reset`; `speed` (times the nominal one); `stuck`, `air`, `bin`, `encoder` (0 or 1; 1 is good but for
    stuck); `cable` ("out", "in") and `host` ("stop", "cont", "kill", "start"), which are the caller's to do.
    """

    at_part: int
    after_ms: float
    verb: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class BeltFaults:
    bounce: float = 0.0  # share of parts whose eye breaks several times
    stuck_gate: float = 0.0  # share of pulses at which the flap does not move
    is_ragged: bool = False  # parts lie between counts too


class Belt:
    """See the module. on_act: told the acts that are not the belt's. gate_counts: from the eye to the gate, None while
    nobody knows; asked for each part at the eye."""

    def __init__(
        self,
        board: Board,
        parts: Parts,
        gate_counts: Callable[[], int | None],
        *,
        script: Sequence[Act] = (),
        faults: BeltFaults | None = None,
        seed: int = 1,
        on_act: Callable[[Act], None] | None = None,
    ) -> None:
        self.board, self.parts = board, parts
        self.is_moving = False
        self._gate_counts, self._faults = gate_counts, faults or BeltFaults()
        self._rng = Random(seed)
        self._facts: list[Fact] = []
        self._script = sorted(script, key=lambda act: (act.at_part, act.after_ms))
        self._due: list[tuple[float, Act]] = []
        self._on_act = on_act
        self._placed: deque[tuple[int, int]] = deque()  # index, quarter: on the way to the eye
        self._to_gate: deque[tuple[int, int]] = deque()  # index, quarter at the gate
        self._pulses: deque[list[int | None]] = deque(maxlen=PULSES_KEPT)  # quarters: the flap opened, closed
        self._next_index, self._next_first = 0, self._first_of(0)
        self._last_quarter = 0
        self._quarters_per_s = 0.0
        self._is_stuck = False
        self._sent = bytearray()  # to the controller and not yet taken by it
        self._taken = 0

    @property
    def is_over(self) -> bool:
        """All parts are past the gate, and those that it took past the sensor."""
        return not (self.parts.has_part(self._next_index) or self._placed or self._to_gate) and (
            self.board.quarter > self._last_quarter
        )

    def hear(self, data: bytes) -> None:
        """Bytes that arrive at the controller."""
        self._sent += data[: self.board.put(data)]

    def run(self, us: float) -> list[Fact]:
        """Let time pass, and tell what happened in it."""
        while True:
            slice_us = min(us, self._slice_us())
            self._run(slice_us)
            us -= slice_us
            if us <= 0:
                break
        facts, self._facts = self._facts, []
        return facts

    def begin(self) -> None:
        """The belt starts when the controller first says it is healthy, as an interlock makes it."""
        self.is_moving = True
        self.speed(self.parts.counts_per_s * QUARTERS)

    def speed(self, quarters_per_s: float) -> None:
        self._quarters_per_s = quarters_per_s
        self.board.speed(quarters_per_s)

    def index_at(self, quarter: int) -> int | None:
        """The part that breaks the eye at this place for the first time."""
        return next((index for index, first in self._placed if first == quarter), None)

    def do(self, act: Act) -> None:
        """One act of a script, now."""
        self._fact("did", verb=act.verb, value=act.value)
        match act.verb:
            case "reset":
                self.board.reset()
            case "speed":
                self.speed(self.parts.counts_per_s * QUARTERS * float(act.value))
            case "stuck":
                self._is_stuck = bool(act.value)
            case "air":
                self.board.level(Input.AIR, bool(act.value))
            case "bin":
                self.board.level(Input.BIN, bool(act.value))
            case "encoder":
                self.board.lose_encoder(not act.value)
            case _ if self._on_act is not None:
                self._on_act(act)

    def _slice_us(self) -> float:
        if not self._quarters_per_s:
            return float("inf")
        return max(LEAST_SLICE_US, SLICE_COUNTS * QUARTERS * 1e6 / abs(self._quarters_per_s))

    def _run(self, us: float) -> None:
        self._place(self.board.quarter + int(max(0.0, self._quarters_per_s) * us / 1e6) + AHEAD)
        self.board.run(us)
        for note in self.board.notes():
            match note.what:
                case What.GATE:
                    self._on_gate(note.level, note.quarter, round(note.now_us), round(note.us_after_edge, 2))
                case What.HEALTHY:
                    self._fact("healthy", on=note.level, quarter=note.quarter, us=round(note.now_us))
                    if note.level and not self.is_moving:
                        self.begin()
                case What.HEARD:
                    self._heard(note.heard, note.quarter, note.now_us)
        self._pass()
        self._act()

    def _fact(self, kind: str, **fields: Any) -> None:
        self._facts.append({"ev": kind, "quarter": self.board.quarter, "us": round(self.board.now_us), **fields})

    def _heard(self, total: int, quarter: int, now_us: float) -> None:
        """The controller has taken `total` bytes so far; the last one was a zero."""
        count = total - self._taken
        frame, self._taken = bytes(self._sent[:count]), total
        del self._sent[:count]
        self._fact("rx", frame=frame.hex(), quarter=quarter, us=round(now_us))

    def _on_gate(self, is_on: bool, quarter: int, us: int, edge_us: float) -> None:
        if is_on:
            moves = not (self._is_stuck or self._rng.random() < self._faults.stuck_gate)
            if moves:
                self._pulses.append([quarter, None])
        else:
            moves = bool(self._pulses) and self._pulses[-1][1] is None
            if moves:
                self._pulses[-1][1] = quarter
        self._fact("gate", on=is_on, moved=moves, quarter=quarter, us=us, edge_us=edge_us)

    def _place(self, until: int) -> None:
        """Put the parts onto the belt whose leading edge is at the eye before this quarter."""
        while self.is_moving and self._next_first <= until and self.parts.has_part(self._next_index):
            index, first = self._next_index, self._next_first
            self._next_index, self._next_first = index + 1, self._first_of(index + 1)
            room = (self._next_first - first) // 2
            self._put_part(index, first, max(QUARTERS, min(PART_COUNTS * QUARTERS, room)))

    def _first_of(self, index: int) -> int:
        return (self.parts.eye_counts(index) - self.parts.first_count) * QUARTERS

    def _put_part(self, index: int, first: int, length: int) -> None:
        if self._faults.is_ragged:
            first += self._rng.randrange(QUARTERS)
        dark, end = first, first + length
        if self._faults.bounce and self._rng.random() < self._faults.bounce:
            for bounce in BOUNCES:
                self.board.shadow(Beam.EYE, first + bounce[0], first + bounce[1])
            dark += BOUNCE_END
        self.board.shadow(Beam.EYE, dark, max(end, dark + 1))
        self._placed.append((index, first))

    def _pass(self) -> None:
        """Parts at the eye, and parts at the gate."""
        quarter = self.board.quarter
        while self._placed and self._placed[0][1] <= quarter:
            index, first = self._placed.popleft()
            counts = self._gate_counts()
            at_gate = None if counts is None else (first // QUARTERS + counts) * QUARTERS
            self._fact("part", index=index, quarter=first, gate=at_gate)
            if at_gate is not None:
                self._to_gate.append((index, at_gate))
                self._last_quarter = at_gate + CONFIRM_COUNTS[1] * QUARTERS
            while self._script and self._script[0].at_part <= index:
                act = self._script.pop(0)
                self._due.append((self.board.now_us + 1000 * act.after_ms, act))
        while self._to_gate and self._to_gate[0][1] + GATE_LATEST <= quarter:
            index, at_gate = self._to_gate.popleft()
            is_removed = self._is_open_at(at_gate)
            self._fact("gone", index=index, quarter=at_gate, removed=is_removed)
            if is_removed:
                begin, end = (at_gate + counts * QUARTERS for counts in CONFIRM_COUNTS)
                self.board.shadow(Beam.CONFIRM, begin, end)
                self._fact("confirm", index=index, quarter=begin)

    def _is_open_at(self, gate: int) -> bool:
        """Whether the flap stood open within the count of the gate, or opened one count later at the latest."""
        return any(
            opened is not None and opened <= gate + GATE_LATEST and (closed is None or closed >= gate + QUARTERS)
            for opened, closed in self._pulses
        )

    def _act(self) -> None:
        if not self._due:
            return
        for due in sorted(self._due, key=lambda entry: entry[0]):
            if due[0] <= self.board.now_us:
                self._due.remove(due)
                self.do(due[1])
