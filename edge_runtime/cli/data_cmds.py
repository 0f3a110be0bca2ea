"""`data learn-sound`: what the box can learn from its own recordings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_runtime.cli.beside_line import ComputesBesideLine
from edge_runtime.cli.numbers import FiniteRange
from edge_runtime.cli.progress import progress

if TYPE_CHECKING:
    from edge_runtime.cli.main import Session


@click.group()
def data() -> None:
    """Learn from what the box recorded."""


@data.command("learn-sound", cls=ComputesBesideLine)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--name", required=True, help="Name of the model to be made.")
@click.option("--window-s", type=FiniteRange(2.0, 60.0), default=10.0, show_default=True,
              help="Seconds of sound that one judgement looks at.")  # fmt: skip
@click.option("--over-alarm", type=FiniteRange(0.001, 0.5), default=0.01, show_default=True,
              help="Share of normal windows that may be over the limit.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def learn_sound(session: Session, folder: Path, name: str, window_s: float, over_alarm: float, as_json: bool) -> None:
    """Learn what a machine sounds like. From recordings (WAV, FLAC, OGG) of a normal shift in DIR.

    DIR may hold the folders normal/ and abnormal/ instead; the latter is only judged, and reported.
    """
    from edge_runtime.learning.sound import learn_sound as learn
    from edge_runtime.modelstore.store import open_store

    with progress(is_quiet=as_json) as told:
        report = learn(
            folder, name, open_store(session.config), session.config,
            window_s=window_s, over_alarm=over_alarm, progress=told,
        )  # fmt: skip
    about = report.as_json()
    if as_json:
        click.echo(json.dumps(about, indent=1))
        return
    for key, value in about.items():
        click.echo(f"{key:<24} {_shown(value)}")
    click.echo(f"\nnow: edge-runtime predict FILE.wav --model {name}", err=True)


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
