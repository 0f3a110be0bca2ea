"""`bundle`: one archive for whoever helps from afar, without a secret in it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_runtime.cli.beside_line import ComputesBesideLine

if TYPE_CHECKING:
    from edge_runtime.cli.main import Session


@click.command(cls=ComputesBesideLine)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="The archive; else support-DATE.tar.gz here."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def bundle(session: Session, out: Path | None, as_json: bool) -> None:
    """Pack what somebody far away needs to help. Settings, doctor, status, journal, events, versions and log, in one
    archive without the station's secrets."""
    from edge_runtime.commissioning.support_bundle import collect

    file = out or Path(f"support-{time.strftime('%Y-%m-%d-%H%M')}.tar.gz")
    files = collect(session.loaded, file)
    size = file.stat().st_size
    about = {"file": str(file), "bytes": size, "files": dict(files)}
    if as_json:
        click.echo(json.dumps(about, indent=1))
    else:
        click.echo(f"{file}: {size / 1000:.0f} kB, {', '.join(files)}")
