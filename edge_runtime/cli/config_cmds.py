"""`config check | show | schema`: is the station file right, what is in force, what may stand in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_runtime.core.wording import counted

if TYPE_CHECKING:
    from edge_runtime.cli.main import Session


@click.group()
def config() -> None:
    """Check, show and explain the station file."""


@config.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def check(session: Session, file: Path | None, as_json: bool) -> None:
    """Check the station file. Names file, key, value, range and the nearest known key; exit code 2 when it is wrong,
    1 when its line would see nothing."""
    from edge_runtime.commissioning.station_check import problems, remarks
    from edge_runtime.config.load import load
    from edge_runtime.config.paths import check_folders

    loaded = load(file, session.settings) if file else session.loaded
    check_folders(loaded.config)
    wrong = problems(loaded.config)
    notes = [*loaded.moved, *(remark for remark in remarks(loaded.config) if remark not in wrong)]
    if as_json:
        told = {"ok": not wrong, "origin": loaded.origin, "digest": loaded.digest}
        click.echo(json.dumps({**told, "problems": wrong, "remarks": notes}, indent=2))
    else:
        verdict = "its line would see nothing" if wrong else "good"
        keys = counted(len(loaded.given), "key")
        click.echo(f"{loaded.origin}: {verdict} ({keys} set, digest {loaded.digest[:12]})")
        for problem in wrong:
            click.echo(f"error: {problem}", err=True)
        for note in notes:
            click.echo(f"note: {note}", err=True)
    if wrong:
        raise SystemExit(1)


@config.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def show(session: Session, as_json: bool) -> None:
    """Every key with the value in force. Also who set it: the default, the file or the command line."""
    from edge_runtime.config.load import leaves

    loaded = session.loaded
    rows = [(key, value, loaded.given.get(key, "default")) for key, value in leaves(loaded.config)]
    if as_json:
        document = {key: {"value": value, "origin": origin} for key, value, origin in rows}
        click.echo(json.dumps(document, indent=2))
        return
    width = max(len(key) for key, _, _ in rows)
    for key, value, origin in rows:
        text = f"{key:<{width}}  {json.dumps(value):<24}"
        click.echo(text.rstrip() if origin == "default" else click.style(f"{text} # {origin}", bold=True))


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Same: the schema is JSON anyway.")
def schema(as_json: bool) -> None:
    """The station file's JSON Schema. For editors that check while one types."""
    from edge_runtime.config.schema import EdgeConfig

    click.echo(json.dumps(EdgeConfig.model_json_schema(), indent=2))
