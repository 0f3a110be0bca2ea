"""The live terminal screen: plain ANSI text, redrawn once a second, made from one status snapshot.

Lines are rewritten in place and only the text sent: about 1.5 kB a second, so it is usable over a serial console
(a full-screen toolkit fills 43 % of a 115 200 baud line).
"""

from __future__ import annotations

import re
import shutil

import click

from edge_runtime.cli.status_cmd import COLOURS, last_part, voice_lines
from edge_runtime.core.clock import duration
from edge_runtime.core.glance import Glance

HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
GAP, INDENT = " " * 3, " " * 7  # between groups of a line; before those that begin another one
_STYLE = re.compile(r"(\x1b\[[0-9;]*m)")
MARKS = {"accept": ("●", "green"), "reject": ("✖", "red"), "unsure": ("▲", "yellow")}


def draw(shot: Glance, before: Glance | None, width: int) -> list[str]:
    """The lines of one screen. `before` is the snapshot a second ago, for rates."""
    lines = [
        _title(shot, width),
        "",
        *folded(_counts(shot, before), width),
        *folded(_gate(shot), width),
        *folded(_latency(shot), width),
        *[click.style(f" {line}", fg="cyan") for line in voice_lines(shot)],
        "",
        _strip(shot, width),
        "",
        *_healths(shot),
        "",
        *_recent(shot),
    ]
    return [_fit(line, width) for line in lines]


def redraw(lines: list[str], height: int) -> str:
    """The bytes that put these lines over what stands on the screen."""
    body = "".join(f"{line}{CLEAR_LINE}\r\n" for line in lines[: height - 1])
    return f"{HOME}{body}{CLEAR_BELOW}"


def folded(line: str, width: int) -> list[str]:
    """A line of groups, cut between two of them where the screen is too narrow for all: consoles have 80 columns."""
    lines: list[str] = []
    for group in line.split(GAP):
        if lines and len(click.unstyle(f"{lines[-1]}{GAP}{group}")) <= width:
            lines[-1] += f"{GAP}{group}"
        else:
            lines.append(f"{INDENT}{group}" if lines else group)
    return lines


def _fit(line: str, width: int) -> str:
    """The line cut to the screen's width: a wrapped one would push the title off the top."""
    seen, kept = 0, []
    for piece in _STYLE.split(line):
        if _STYLE.fullmatch(piece):
            kept.append(piece)
        else:
            kept.append(piece[: max(0, width - seen)])
            seen += len(piece)
    return "".join(kept)


def _title(shot: Glance, width: int) -> str:
    left = f" {shot.station}  {shot.state.upper()} "
    right = f" {shot.model}  up {duration(shot.uptime_s)}  {shot.rss_mb:.0f} MB "
    gap = " " * max(1, width - len(left) - len(right))
    return click.style(left + gap + right, fg="black", bg=COLOURS.get(shot.state, "white"), bold=True)


def _counts(shot: Glance, before: Glance | None) -> str:
    total = max(1, sum(shot.verdicts.values()))
    pace = []
    if before and shot.uptime_s > before.uptime_s:
        per_s = (shot.parts - before.parts) / (shot.uptime_s - before.uptime_s)
        pace = [f"{per_s:.1f} parts/s"]
    if not before or shot.parts == before.parts:
        pace += last_part(shot)
    words = [
        click.style(f"{MARKS[name][0]} {name} {count} ({100 * count / total:.1f} %)", fg=MARKS[name][1], bold=True)
        for name, count in shot.verdicts.items()
    ]
    return GAP.join([f" parts {shot.parts}", *pace, *words])


def _gate(shot: Glance) -> str:
    outcomes = "  ".join(f"{name} {count}" for name, count in shot.outcomes.items())
    causes = "  ".join(f"{name} {count}" for name, count in shot.causes.items() if count and name != "model")
    return f" gate  {outcomes}  on belt {shot.on_belt}" + (f"   not judged: {causes}" if causes else "")


def _latency(shot: Glance) -> str:
    took = shot.latency_ms
    parts = [
        f"{title} p50 {figures.p50:.1f} p99 {figures.p99:.1f} max {figures.max:.1f}"
        for title, figures in (
            ("photo-eye to verdict", took.trigger_to_verdict),
            ("frame to verdict", took.capture_to_verdict),
        )
    ]
    return " ms    " + "   ".join([*parts, f"model {took.invoke.p50:.1f}"])


def _strip(shot: Glance, width: int) -> str:
    """The newest parts as the belt shows them, newest left."""
    marks = [click.style(MARKS[row.verdict][0], fg=MARKS[row.verdict][1]) for row in reversed(shot.recent)]
    return " belt  " + "─".join(marks[: max(1, (width - 10) // 2)])


def _healths(shot: Glance) -> list[str]:
    return [
        f"  {name:<11} " + click.style(f"{health.state:<9}", fg=COLOURS.get(health.state)) + f" {health.detail}"
        for name, health in shot.health.items()
    ]


def _recent(shot: Glance) -> list[str]:
    rows = []
    for row in reversed(shot.recent[-12:]):
        mark, colour = MARKS[row.verdict]
        word = click.style(f"{mark} {row.verdict:<7}", fg=colour)
        reason = row.reason if row.is_recorded else f"decided, not yet recorded: {row.reason}"
        rows.append(f"  {row.part:>8}  {word} {row.cause:<12} {row.ms:>7.1f} ms  {reason}")
    return rows


def size() -> tuple[int, int]:
    columns, lines = shutil.get_terminal_size((100, 30))
    return columns, lines
