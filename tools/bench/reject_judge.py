"""Judges a run of the reject path: what the gate did to each part, against what the wire brought in time.

Independent of controller and host: it reads the truth of the belt (parts at the eye, the gate's edges, the healthy
output, the bytes that the controller's UART took) and the host's notes only to learn which part id was which trigger.

    missed      a defective part that was not removed
    false       a good part that was removed although its accept verdict had arrived in time on an armed controller
    slipped     a good part that passed though no accept verdict had ever arrived: nobody vouched for it
    stray       a pulse of the gate with no part there
    defaulted   parts removed for want of a verdict that counts, as they should be
"""

from __future__ import annotations

from binascii import crc_hqx
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reject_inspector import QUARTERS, is_defective

VERDICT_KIND, VERDICT_BYTES = 0x05, 8
ACCEPT, REJECT = 0x5A, 0xA5
IN_TIME_COUNTS = 12  # a verdict this close to the decide point may still be in the main loop: either way
LATEST_QUARTERS = 2 * QUARTERS - 1  # a gate one count late is in time
BODY_COUNTS = 24
PULSE_LATE_COUNTS = 1
ARM_SETTLE_QUARTERS = 16

Fact = Mapping[str, Any]


@dataclass(slots=True)
class Part:
    index: int
    quarter: int  # at the eye
    is_bad: bool
    ids: list[tuple[int, int]] = field(default_factory=list)
    is_at_gate: bool = False
    is_open: bool = False  # the gate, when the part stood there
    is_moved: bool = False  # and whether the flap had followed
    is_swept: bool = False  # it had opened while the healthy output was low, and not for this part
    verdicts: list[tuple[float, int, int]] = field(default_factory=list)  # time and quarter of arrival, code


@dataclass(frozen=True, slots=True)
class Geometry:
    decide_counts: int
    fire_counts: int
    pulse_counts: int


def verdict_in(frame: bytes) -> tuple[int, int, int] | None:
    """Boot id, part id and code of an undamaged VERDICT; decoded here, so that no codec under test has a say."""
    out, at, body = bytearray(), 0, frame.rstrip(b"\0")
    while at < len(body):
        code = body[at]
        if code == 0 or at + code > len(body):
            return None
        out += body[at + 1 : at + code]
        at += code
        if at < len(body):
            out.append(0)
    if len(out) != VERDICT_BYTES + 2 or out[0] != VERDICT_KIND:
        return None
    if crc_hqx(bytes(out[:-2]), 0xFFFF) != int.from_bytes(out[-2:], "little"):
        return None
    return int.from_bytes(out[1:3], "little"), int.from_bytes(out[3:7], "little"), out[7]


class Levels:
    """An output over the course of the belt."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        self._us, self._quarters, self._on = [0], [-(2**62)], [False]
        for fact in facts:
            self._us.append(fact["us"])
            self._quarters.append(fact["quarter"])
            self._on.append(fact["on"])

    def at_us(self, us: float) -> bool:
        return self._on[bisect_right(self._us, us) - 1]

    def was_on_throughout(self, first_us: float, last_us: float) -> bool:
        first, last = bisect_right(self._us, first_us) - 1, bisect_right(self._us, last_us) - 1
        return all(self._on[first : last + 1])


class Judge:
    def __init__(self, truth: Sequence[Fact], notes: Sequence[Fact], geometry: Geometry, seed: int) -> None:
        end_ns = max((fact["ns"] for fact in truth), default=0)
        self.truth, self.geometry = truth, geometry
        self.notes = [note for note in notes if note.get("ns", 0) <= end_ns]  # that the line ended is no fault
        self.parts = [Part(fact["index"], fact["quarter"], is_defective(seed, fact["index"]))
                      for fact in truth if fact["ev"] == "part"]  # fmt: skip
        self.healthy = Levels(fact for fact in truth if fact["ev"] == "healthy")
        self.gate = [fact for fact in truth if fact["ev"] == "gate"]
        self._places = sorted(part.quarter // QUARTERS for part in self.parts)
        self._crossed = self._crossings()
        self._join_ids()
        self._hear_verdicts()
        self._look_at_gate()

    def _crossings(self) -> list[tuple[int, int]]:
        """(furthest quarter, time) over the run: when the belt was first at a place."""
        furthest, points = -(2**62), []
        for fact in sorted(self.truth, key=lambda fact: fact["us"]):
            if "quarter" in fact and fact["ev"] not in ("confirm", "part") and fact["quarter"] > furthest:
                furthest = fact["quarter"]
                points.append((furthest, fact["us"]))
        return points

    def _us_at(self, quarter: int) -> float:
        """About when the belt was first at `quarter`; between two facts, the later one."""
        at = bisect_right(self._crossed, (quarter, -1))
        return self._crossed[min(at, len(self._crossed) - 1)][1] if self._crossed else 0.0

    def _join_ids(self) -> None:
        """Which trigger was which part: the offset between the controller's counter and the belt, boot by boot."""
        triggers: dict[int, dict[int, int]] = {}
        for note in self.notes:
            if note["ev"] == "trigger":
                triggers.setdefault(note["boot"], {})[note["part"]] = note["encoder"]
        for boot, encoders in triggers.items():
            votes = Counter((place - encoder) % 2**32 for place in self._places for encoder in encoders.values())
            offset = votes.most_common(1)[0][0]
            for part_id, encoder in encoders.items():
                part = self._at_place((encoder + offset) % 2**32)
                if part is not None:
                    part.ids.append((boot, part_id))

    def _at_place(self, count: int) -> Part | None:
        best = min(self.parts, key=lambda part: abs(part.quarter // QUARTERS - count), default=None)
        if best is not None and abs(best.quarter // QUARTERS - count) <= 1:
            return best
        inside = [part for part in self.parts if 0 <= count - part.quarter // QUARTERS <= BODY_COUNTS]
        return inside[-1] if inside else None

    def _hear_verdicts(self) -> None:
        by_id = {key: part for part in self.parts for key in part.ids}
        for fact in self.truth:
            heard = verdict_in(bytes.fromhex(fact["frame"])) if fact["ev"] == "rx" else None
            part = by_id.get(heard[:2]) if heard else None
            if heard and part is not None:
                part.verdicts.append((fact["us"], fact["quarter"], heard[2]))

    def _look_at_gate(self) -> None:
        """Replay the gate's edges over the parts, at the moment each of them was first there."""
        last_quarter = max((point[0] for point in self._crossed), default=0)
        for part in self.parts:
            at = self._gate_quarter(part) + LATEST_QUARTERS
            part.is_at_gate = at < last_quarter
            was_on = was_moved = was_swept = False
            for fact in self.gate:
                if fact["quarter"] > at:  # the gate of a belt that turned back was open for parts before
                    break
                was_on, was_moved = fact["on"], fact["on"] and fact["moved"]
                was_swept = fact["on"] and not self.healthy.at_us(fact["us"] - 1)
            part.is_open, part.is_moved, part.is_swept = was_on, was_moved, was_swept

    def _gate_quarter(self, part: Part) -> int:
        return (part.quarter // QUARTERS + self.geometry.fire_counts) * QUARTERS

    # Verdicts of the judge

    def in_time(self, part: Part, code: int) -> bool:
        """The first verdict that a controller had to believe was `code`, and nothing stood in the way of it since."""
        limit = part.quarter + (self.geometry.decide_counts - IN_TIME_COUNTS) * QUARTERS
        gate_us = self._us_at(self._gate_quarter(part) + LATEST_QUARTERS)
        if part.is_swept:
            return False
        for us, quarter, heard in part.verdicts:
            if quarter <= limit and self.healthy.was_on_throughout(us - 2000, gate_us):
                return heard == code
        return False

    def was_vouched_for(self, part: Part) -> bool:
        """An accept verdict had arrived before the decide point, or as good as."""
        limit = part.quarter + (self.geometry.decide_counts + 1) * QUARTERS
        return any(heard == ACCEPT and quarter <= limit for _, quarter, heard in part.verdicts)

    def is_beside_another(self, part: Part) -> bool:
        """Inside the pulse for a part just before it, or so near that its own pulse is theirs."""
        reach = (self.geometry.pulse_counts + 2) * QUARTERS
        return any(0 <= part.quarter - other.quarter <= reach and other is not part and other.is_open
                   and not self.in_time(other, ACCEPT) for other in self.parts)  # fmt: skip

    def verdict(self) -> dict[str, Any]:
        done = [part for part in self.parts if part.is_at_gate]
        stuck = [part for part in done if part.is_open and not part.is_moved]
        missed = [part for part in done if part.is_bad and not part.is_open]
        false = [part for part in done if not part.is_bad and part.is_open and self.in_time(part, ACCEPT)
                 and not self.is_beside_another(part)]  # fmt: skip
        slipped = [part for part in done if not part.is_bad and not part.is_open and not self.was_vouched_for(part)]
        by_verdict = [part for part in done if part.is_open and self.in_time(part, REJECT)]
        beside = [part for part in done if not part.is_bad and part.is_open and self.in_time(part, ACCEPT)]
        opened = [part for part in done if part.is_open]
        stray = self._stray()
        errors = self._pulse_errors(done)
        return {
            "parts": len(done), "missed": len(missed), "false": len(false), "stray": len(stray),
            "defaulted": len(opened) - len(by_verdict) - len(beside), "slipped": len(slipped),
            "passed": len(done) - len(opened), "fired": len(by_verdict), "beside": len(beside) - len(false),
            "pulse_error_counts": max(map(abs, errors), default=0), "pulse_us": self._pulse_us(), "stuck": len(stuck),
            **self._host(), "why": [describe(kind, part) for kind, found in
                                    (("missed", missed), ("false", false), ("slipped", slipped)) for part in found]
                                    + [f"stray pulse at quarter {fact['quarter']}, {fact['us']} us" for fact in stray],
        }  # fmt: skip

    def _opening(self) -> list[Fact]:
        return [fact for fact in self.gate if fact["on"]]

    def _stray(self) -> list[Fact]:
        """Pulses with no part at the gate; one that begins while the healthy output is low is a sweep."""
        return [fact for fact in self._opening()
                if self.healthy.at_us(fact["us"] - 1) and self._part_at_gate(fact["quarter"]) is None]  # fmt: skip

    def _part_at_gate(self, quarter: int) -> Part | None:
        count = quarter // QUARTERS - self.geometry.fire_counts
        near = [part for part in self.parts if -1 <= count - part.quarter // QUARTERS <= BODY_COUNTS]
        return min(near, key=lambda part: abs(count - part.quarter // QUARTERS), default=None)

    def _pulse_errors(self, done: Sequence[Part]) -> list[int]:
        """Counts between where a pulse should begin and where it did, of pulses that begin from a closed gate."""
        places = {self._gate_quarter(part) // QUARTERS for part in done}
        errors = []
        for fact in self._opening():
            count = fact["quarter"] // QUARTERS
            nearest = min(places, key=lambda place: abs(count - place), default=None)
            if nearest is not None and self.healthy.at_us(fact["us"] - 1) and self._part_at_gate(fact["quarter"]):
                errors.append(count - nearest)
        return errors

    def _pulse_us(self) -> float | None:
        """The longest time from the encoder's edge to the gate's, of pulses at a moving belt."""
        late = [fact["edge_us"] for fact in self._opening() if self.healthy.at_us(fact["us"] - 1)]
        return max(late, default=None)

    def _host(self) -> dict[str, Any]:
        answers = sorted(note["ms"] for note in self.notes if note["ev"] == "answer")
        kinds = Counter(note["ev"] for note in self.notes)
        confirmed = Counter(note["confirmed"] for note in self.notes if note["ev"] == "confirm")
        return {
            "p50_ms": answers[len(answers) // 2] if answers else None,
            "p99_ms": answers[len(answers) * 99 // 100] if answers else None,
            "unconfirmed": confirmed[False], "confirmed": confirmed[True], "trips": kinds["tripped"],
            "resets": kinds["reset"], "port_lost": kinds["lost"],
            "events_lost": sum(note["count"] for note in self.notes if note["ev"] == "events_lost"),
            "parts_missed": sum(n["last"] - n["first"] + 1 for n in self.notes if n["ev"] == "parts_missed"),
            "healthy_drops": sum(1 for fact in self.truth if fact["ev"] == "healthy" and not fact["on"]),
        }  # fmt: skip


def describe(kind: str, part: Part) -> str:
    heard = ", ".join(f"{'accept' if code == ACCEPT else 'reject'} at +{(quarter - part.quarter) / QUARTERS:.0f} counts"
                      for _, quarter, code in part.verdicts) or "no verdict heard"  # fmt: skip
    return f"{kind}: part {part.index} at quarter {part.quarter}, ids {part.ids}: {heard}"
