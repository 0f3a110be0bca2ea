"""`predict FILE...`: judge picture and sound files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.cli.beside_line import ComputesBesideLine
from edge_runtime.cli.progress import progress

if TYPE_CHECKING:
    from edge_runtime.cli.main import Session

PROGRESS_FROM = 10  # files; fewer are done before a bar is read

_COLOURS = {"accept": "green", "reject": "red", "unsure": "yellow"}


@click.command(cls=ComputesBesideLine)
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--model", "reference", default="", metavar="MODEL",
              help="NAME, NAME@VERSION or a bundle folder; else the station's.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def predict(session: Session, files: tuple[str, ...], reference: str, as_json: bool) -> None:
    """Judge picture files (JPEG, PNG, BMP) or, with a sound or speech model, recordings (WAV, FLAC, OGG).

    Exit code 1 when one of them could not be judged.
    """
    from edge_runtime.predictors.predict import Predictor

    predictor = Predictor(session.config, reference)
    entries: list[dict[str, Any]] = []
    with progress(is_quiet=len(files) < PROGRESS_FROM) as told:
        for path in files:
            told("judging", len(entries), len(files))
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
        from edge_runtime.predictors.predict_speech import text_line as speech_line

        return speech_line(entry)
    verdict = click.style(f"{entry['verdict']:<7}", fg=_COLOURS[entry["verdict"]], bold=True)
    total_ms = sum(entry["timings_ms"].values())
    score = "    -" if entry["score"] is None else f"{entry['score']:.3f}"
    return f"{verdict} {score}  {entry['file']}  ({entry['reason']}; {total_ms:.1f} ms)"
