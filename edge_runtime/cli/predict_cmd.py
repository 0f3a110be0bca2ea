"""`predict FILE...`: judge picture and sound files."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edge_runtime.cli.main import Session

PROGRESS_FROM = 10  # files; fewer are done before a bar is read

_COLOURS = {"accept": "green", "reject": "red", "unsure": "yellow"}


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--model", "reference", default="", metavar="M", help="NAME, NAME@VERSION or a bundle folder.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def predict(session: Session, files: tuple[str, ...], reference: str, as_json: bool) -> None:
    """Judge picture files (JPEG, PNG, BMP) or, with a sound or speech model, recordings (WAV, FLAC, OGG).

    Exit code 1 when one of them could not be judged.
    """
    from edge_runtime.service.predict import Predictor

    predictor = Predictor(session.config, reference)
    entries = []
    for path in _with_progress(files):
        entry = predictor.file(path)
        entries.append(entry)
        if not as_json:
            click.echo(text_line(entry), err="error" in entry)
    if as_json:
        click.echo(json.dumps(entries, indent=1))
    raise SystemExit(1 if any("error" in entry for entry in entries) else 0)


def text_line(entry: dict[str, Any]) -> str:
    if "error" in entry:
        return f"error: {entry['file']}: {entry['error']}"
    if "transcript" in entry:
        from edge_runtime.service.predict_speech import text_line as speech_line

        return speech_line(entry)
    verdict = click.style(f"{entry['verdict']:<7}", fg=_COLOURS[entry["verdict"]], bold=True)
    total_ms = sum(entry["timings_ms"].values())
    return f"{verdict} {entry['score']:.3f}  {entry['file']}  ({entry['reason']}; {total_ms:.1f} ms)"


def _with_progress(files: Sequence[str]) -> Iterator[str]:
    """The files, with a bar on a terminal's stderr where they are many."""
    if len(files) < PROGRESS_FROM or not sys.stderr.isatty():
        yield from files
        return
    from rich.console import Console
    from rich.progress import track

    tracked: Iterable[str] = track(files, "judging", console=Console(stderr=True), transient=True)
    yield from tracked
