"""`status`: one look at the running box."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from edge_runtime.cli.beside_line import LooksAtLine
from edge_runtime.cli.control_path import control_path
from edge_runtime.core.clock import duration

if TYPE_CHECKING:
    from edge_runtime.cli.main import Session
    from edge_runtime.core.glance import Glance

COLOURS = {"ok": "green", "degraded": "yellow", "failed": "red", "starting": "yellow", "stopped": "red"}


@click.command(cls=LooksAtLine)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def status(session: Session, as_json: bool) -> None:
    """One look at the running box: state, counts, latency. Exit code 1 when it does not inspect, or is not running."""
    from edge_runtime.core.glance import Glance
    from edge_runtime.process.control import ask

    told = ask(control_path(session), "status")
    shot = Glance.from_json(told)
    click.echo(json.dumps(told, indent=2) if as_json else "\n".join(text_lines(shot)))
    raise SystemExit(0 if shot.is_well else 1)


def text_lines(shot: Glance) -> list[str]:
    latency = shot.latency_ms.trigger_to_verdict
    state = click.style(shot.state.upper(), fg=COLOURS.get(shot.state), bold=True)
    verdicts = [f"{name} {count}" for name, count in shot.verdicts.items()]
    lines = [
        f"{shot.station}  {state}  up {duration(shot.uptime_s)}  model {shot.model}  config {shot.config_digest[:12]}",
        "  ".join([f"parts {shot.parts}", *verdicts, *last_part(shot)]),
        "cause " + "  ".join(f"{name} {count}" for name, count in shot.causes.items() if count),
        "gate  " + "  ".join(f"{name} {count}" for name, count in shot.outcomes.items()) + f"  late {shot.late}",
        f"photo-eye to verdict  p50 {latency.p50:.1f}  p99 {latency.p99:.1f}  max {latency.max:.1f} ms",
    ]
    lines += [*voice_lines(shot), retention_line(shot)]
    for name, health in shot.health.items():
        word = click.style(f"{health.state:<9}", fg=COLOURS.get(health.state))
        lines.append(f"  {name:<11} {word} {health.detail}".rstrip())
    return lines


def last_part(shot: Glance) -> list[str]:
    """How long the belt has been empty, or the photo-eye blind; nothing before the first part."""
    return [] if shot.last_part_s is None else [f"last part {duration(shot.last_part_s)} ago"]


def voice_lines(shot: Glance) -> list[str]:
    """What the voice says and what was asked last; nothing where the station has no microphone."""
    voice = shot.voice
    held = f"  HELD by {shot.held_by}: edge-runtime line resume" if shot.held_by else ""
    if voice is None:
        return [f"line {held.strip()}"] if held else []
    says = f": {voice.says}" if voice.says else ""
    shown = f"  -> {', '.join(voice.shown)}" if voice.shown else ""
    asked = ""
    if voice.recent:
        last = voice.recent[-1]
        asked = f"  last: {last.command or last.transcript or 'nothing understood'} ({last.outcome})"
    return [f"voice {voice.mode}{says}{shown}{asked}{held}"]


def retention_line(shot: Glance) -> str:
    """Whether what is old goes, and what went since the start."""
    removed = ", ".join(f"{what} {count}" for what, count in shot.retention.removed.items())
    return f"retention {shot.retention.says}" + (f"; removed {removed}" if removed else "")
