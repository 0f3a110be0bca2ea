"""`listen`: what does it hear?"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.catalogue.spoken import near_line
from edge_runtime.cli.beside_line import give_way
from edge_runtime.cli.numbers import FiniteRange
from edge_runtime.core.errors import DeviceError, UsageError
from edge_runtime.core.wording import counted

if TYPE_CHECKING:
    from edge_runtime.cli.main import Session
    from edge_runtime.commissioning.listen import Heard, Moment
    from edge_runtime.core.status import VoiceReport

BAR = 30  # characters for the level, from BAR_DBFS to full scale
BAR_DBFS = -70.0
DRAW_EVERY_S = 0.1
LOOK_EVERY_S = 0.1
OVER = {"done": "green", "noted": "yellow", "answered": "green", "cancelled": "yellow"}


@click.command()
@click.option(
    "--file", type=click.Path(path_type=Path), help="Hear a recording, or a folder of them, and not the device."
)
@click.option(
    "--seconds",
    type=FiniteRange(0.1, 86_400),
    help="End after this many seconds of sound; with --push, wait no longer.",
)
@click.option("--push", is_flag=True, help="Press the talk key of the running box and show what comes of it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document at the end.")
@click.pass_obj
def listen(session: Session, file: Path | None, seconds: float | None, push: bool, as_json: bool) -> None:
    """What does it hear? Level, noise floor, speech, wake word, and what it makes of each utterance. Ctrl-C ends it.

    Nothing is carried out, and nothing is kept. Exit code 1 when all that was heard is a dead, stuck or overdriven
    channel. With --push it asks the running box, as its talk key does; exit code 1 when nothing came of that.
    """
    if push:
        if file is not None:
            raise UsageError("--push talks to the running box", "leave out --file")
        _push(session, seconds or 30.0, as_json)
        return
    if as_json and seconds is None and file is None:
        raise UsageError("--json prints one document at the end", "give --seconds N or --file FILE")
    document = _listen(session, file, seconds, as_json)
    if as_json:
        click.echo(json.dumps(document, indent=2))
    if document["trouble"]:
        click.echo(f"error: nothing to be understood: {document['trouble']}", err=True)
        raise SystemExit(1)


def _listen(session: Session, file: Path | None, seconds: float | None, as_json: bool) -> dict[str, Any]:
    from edge_runtime.commissioning.listen import Heard, Listener, listen_config
    from edge_runtime.core.clock import monotonic_ns

    if file is not None:
        give_way(session)
    listener = Listener(listen_config(session.config, file), monotonic_ns)
    screen = _Screen(is_live=sys.stdout.isatty() and not as_json and file is None)
    try:
        for missing in listener.missing:
            click.echo(f"note: {missing}", err=True)
        for told in listener.listen(seconds, is_file=file is not None):
            if isinstance(told, Heard):
                screen.say(None if as_json else heard_line(told))
            else:
                screen.draw(told)
    except KeyboardInterrupt:
        pass
    finally:
        screen.clear()
        listener.close()
    document = listener.report()
    if not as_json:
        click.echo(_sum(document), err=True)
    return document


class _Screen:
    """One line that is drawn over again, and lines above it that stay. Not live: the lines that stay alone."""

    def __init__(self, is_live: bool) -> None:
        self._is_live = is_live
        self._drawn = 0.0

    def draw(self, moment: Moment) -> None:
        if self._is_live and time.monotonic() - self._drawn >= DRAW_EVERY_S:
            self._drawn = time.monotonic()
            click.echo(f"\r{moment_line(moment)}\x1b[K", nl=False)

    def say(self, line: str | None) -> None:
        self.clear()
        if line is not None:
            click.echo(line)

    def clear(self) -> None:
        if self._is_live:
            click.echo("\r\x1b[K", nl=False)


def moment_line(moment: Moment) -> str:
    filled = round(BAR * min(1.0, max(0.0, 1.0 - moment.level_dbfs / BAR_DBFS)))
    bar = click.style("█" * filled, fg="green" if moment.is_speech else None) + "·" * (BAR - filled)
    alarm = click.style("  LATCHED: sound without an end", fg="red") if moment.is_latched else ""
    health = click.style(f"  {moment.health}", fg="yellow") if moment.health else ""
    speech = "speech" if moment.is_speech else "      "
    return (
        f"{bar} {moment.level_dbfs:6.1f} dBFS  floor {moment.floor_dbfs:6.1f}  {speech}  "
        f"wake {moment.wake_score:.2f}{alarm}{health}"
    )


def heard_line(heard: Heard) -> str:
    what = heard.command or heard.transcript or ("not understood, " + heard.flaw if heard.flaw else "not understood")
    colour = "green" if heard.command else "cyan" if heard.transcript else "yellow"
    scores = "  ".join(f"{label} {score:.2f}" for label, score in heard.scores.items())
    near = f"  {near_line(heard.transcript, heard.near)}" if heard.near else ""
    found = f"  -> {', '.join(heard.results)}" if heard.results else near
    return (
        f"{heard.start_s:7.2f}-{heard.end_s:.2f} s  {click.style(what, fg=colour, bold=True)}"
        f"  ({heard.confidence:.2f}){found}   [{scores}]"
    )


def _sum(document: dict[str, Any]) -> str:
    alarm = ", LATCHED" if document["is_latched"] else ""
    return (
        f"{document['seconds']:.1f} s heard, {counted(len(document['utterances']), 'utterance')}, "
        f"{counted(document['wakes'], 'wake word')}, "
        f"noise floor {document['floor_dbfs']:.1f} dBFS, open {100 * document['open_ratio']:.0f} %{alarm}"
    )


def _push(session: Session, within_s: float, as_json: bool) -> None:
    """Press the key, and wait until the request it opened has come to its end."""
    from edge_runtime.cli.control_path import control_path
    from edge_runtime.process.control import ask

    path = control_path(session)
    before = _voice(path).requests
    says = str(ask(path, "listen", by="cli")["says"])
    if not as_json:
        click.echo(says, err=True)
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        time.sleep(LOOK_EVERY_S)
        voice = _voice(path)
        if voice.says != says and not as_json:
            says = voice.says
            click.echo(says, err=True)
        if voice.mode == "shown" or (voice.mode == "idle" and voice.requests > before):
            _tell(voice, as_json)
            return
    raise DeviceError(f"nothing came of it within {within_s:.0f} s; the screen says: {says}")


def _voice(path: Path) -> VoiceReport:
    from edge_runtime.process.ask_status import ask_status

    voice = ask_status(path).voice
    if voice is None:
        raise DeviceError("the running box has no voice", "see `edge-runtime status`")
    return voice


def _tell(voice: VoiceReport, as_json: bool) -> None:
    from edge_runtime.core.typed_json import to_json

    found: dict[str, Any] = {"outcome": "answered", "transcript": voice.says, "results": list(voice.shown)}
    last = found if voice.mode == "shown" else to_json(voice.recent[-1])
    if as_json:
        click.echo(json.dumps(last, indent=2))
    else:
        what = last.get("command") or last["transcript"] or "nothing was understood"
        outcome = click.style(last["outcome"], fg=OVER.get(last["outcome"], "red"), bold=True)
        codes = f"  -> {', '.join(last['results'])}" if last["results"] else ""
        click.echo(f"{what}  {outcome}{codes}" + (f"  ({last['reason']})" if last.get("reason") else ""))
    raise SystemExit(0 if last["outcome"] in OVER else 1)
