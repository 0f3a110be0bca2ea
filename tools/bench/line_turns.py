"""What a running line feels of something beside it: turns without it and with it, one after the other, in one run.

The machine's own load comes and goes; the turns of a round stand side by side, so that it meets all of them, and the
median of the rounds' ratios is told. What became of the parts of a turn is read from the journal when all is done.
"""

from __future__ import annotations

import contextlib
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edge_runtime.core.clock import SECOND, monotonic_ns
from edge_runtime.core.errors import EdgeError
from edge_runtime.process.ask_status import ask_status
from edge_runtime.recording.reader import JournalReader

READY_S = 60.0
SETTLE_S = 0.5  # between two turns
ALONE = "alone"
Beside = Callable[[], contextlib.AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Turn:
    """who: ALONE, or the name of what stood beside. Monotonic ns."""

    who: str
    begin: int
    end: int


def embedded(state: Path) -> list[str]:
    """The command of the embedded station with this state folder."""
    return [sys.executable, "-m", "edge_runtime", "--config", "embedded", "--set", f'recording.state_dir="{state}"']


@contextlib.contextmanager
def running_line(state: Path, log: IO[str]) -> Iterator[None]:
    """The embedded line at 10 parts/s, once parts come."""
    run = subprocess.Popen([*embedded(state), "run", "--json"], stdout=subprocess.DEVNULL, stderr=log)
    try:
        _wait_for_parts(state / "control.sock")
        yield
    finally:
        run.send_signal(signal.SIGTERM)
        run.wait(30)


def _wait_for_parts(socket: Path) -> None:
    limit = time.monotonic() + READY_S
    while time.monotonic() < limit:
        with contextlib.suppress(EdgeError):
            if ask_status(socket).parts > 20:
                return
        time.sleep(0.2)
    sys.exit("error: the line did not come up")


def take_turns(rounds: int, seconds: float, beside: Mapping[str, Beside]) -> list[list[Turn]]:
    """beside: by name, what begins something that disturbs and ends it. Each second round goes backwards, so that a
    drift of the machine meets all alike."""
    kinds: list[tuple[str, Beside]] = [(ALONE, contextlib.nullcontext), *beside.items()]
    return [[_turn(who, seconds, begin) for who, begin in kinds[:: 1 if at % 2 == 0 else -1]] for at in range(rounds)]


def _turn(who: str, seconds: float, beside: Beside) -> Turn:
    with beside():
        time.sleep(SETTLE_S)
        begin = monotonic_ns()
        time.sleep(seconds)
        return Turn(who, begin, monotonic_ns())


def figures(state: Path, rounds: Sequence[Sequence[Turn]]) -> dict[str, dict[str, Any]]:
    """Of each kind of turn: parts, p50 and p99 (trigger to verdict, ms), and of all but ALONE `ratio` to it.

    Each is the median of the rounds.
    """
    with JournalReader(state / "journal.db") as reader:
        rows = list(reader.parts())
    told = [{turn.who: _of_turn(turn, rows) for turn in turns} for turns in rounds]
    return {who: _together(who, told) for who in told[0]}


def _of_turn(turn: Turn, rows: Sequence[Any]) -> dict[str, Any]:
    parts = [row for row in rows if turn.begin <= row.trigger_ns < turn.end]
    times = sorted(row.trigger_to_verdict_ms for row in parts if row.trigger_to_verdict_ms is not None)
    if not times:
        sys.exit(f"error: no part came in a turn of {(turn.end - turn.begin) / SECOND:.0f} s")
    return {
        "parts": len(parts),
        "p50": statistics.median(times),
        "p99": times[min(len(times) - 1, len(times) * 99 // 100)],
        "late": sum(row.cause != "model" for row in parts),
    }


def _together(who: str, told: Sequence[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    sums: dict[str, Any] = {key: sum(one[who][key] for one in told) for key in ("parts", "late")}
    middle = {key: round(statistics.median(one[who][key] for one in told), 3) for key in ("p50", "p99")}
    if who == ALONE:
        return sums | middle
    ratios = {key: [one[who][key] / one[ALONE][key] for one in told] for key in ("p50", "p99")}
    ratio = {key: round(statistics.median(found), 3) for key, found in ratios.items()}
    return sums | middle | {"ratio": ratio, "ratios_p99": [round(one, 2) for one in ratios["p99"]]}
