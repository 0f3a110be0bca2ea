"""`search`: the station's catalogue, by words or by a spelled code, as the voice line asks it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_runtime.cli.beside_line import LooksAtLine
from edge_runtime.core.errors import UsageError
from edge_runtime.core.wording import counted

if TYPE_CHECKING:
    from edge_runtime.catalogue.catalogue import Hit
    from edge_runtime.cli.main import Session


@click.command(cls=LooksAtLine)
@click.argument("text", nargs=-1)
@click.option("--limit", type=click.IntRange(1, 100), default=5, show_default=True, help="Results at most.")
@click.option("--import", "csv_file", type=click.Path(path_type=Path), help="Replace the catalogue by this CSV file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def search(session: Session, text: tuple[str, ...], limit: int, csv_file: Path | None, as_json: bool) -> None:
    """Find a part, a defect or a work instruction: `search grease`, `search code alpha seven four two`.

    Exit code 1 when nothing is found; a code that is not there is answered by those one symbol off, which are no
    results. The catalogue is a CSV file with the columns
    code,kind,name,aliases,instruction,picture; --import takes it whole or not at all.
    """
    from edge_runtime.catalogue.catalogue import DATABASE, Catalogue
    from edge_runtime.catalogue.spoken import near_line
    from edge_runtime.config.paths import state_dir

    asked = " ".join(text)
    if not asked and csv_file is None:
        raise UsageError("nothing to look for", "give words or a code, such as: edge-runtime search grease")
    with Catalogue(state_dir(session.config) / DATABASE) as catalogue:
        if csv_file is not None:
            count = catalogue.import_csv(csv_file)
            click.echo(f"{counted(count, 'item')} imported into {catalogue.path}", err=as_json)
        hits = catalogue.search(asked, limit) if asked else []
        near = catalogue.near(asked) if asked and not hits else []
    if as_json:
        click.echo(json.dumps({"text": asked, "results": [hit.as_dict() for hit in hits], "near": near}, indent=2))
    elif asked:
        nothing = near_line(asked, near) if near else f"nothing found for '{asked}'"
        click.echo("\n".join(line for hit in hits for line in _lines(hit)) or nothing)
    raise SystemExit(1 if asked and not hits else 0)


def _lines(hit: Hit) -> list[str]:
    item = hit.item
    head = f"{click.style(item.code, bold=True):<8} {item.name}  ({item.kind}, {hit.why}, {hit.score:.2f})"
    return [head, *([f"         {item.instruction}"] if item.instruction else [])]
