"""`models update`, `models log`: a signed release becomes the candidate; what was put to work, by whom and why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from edge_runtime.cli.progress import progress

if TYPE_CHECKING:
    from edge_runtime.cli.main import Session
    from edge_runtime.predictors.model_update import UpdateReport


@click.command()
@click.argument("source", default="")
@click.option("--model", default="", help="Name of the model; the one that the station runs unless given.")
@click.option("--check", "only_look", is_flag=True, help="Only look what there is.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def update(session: Session, source: str, model: str, only_look: bool, as_json: bool) -> None:
    """Bring a signed release to this box. From https://HOST/PATH or a folder such as a USB stick: SOURCE, else
    updates.source of the station.

    Signatures, age and digests are checked first, then the model is tried in a child process. It becomes the candidate
    and does not run before `promote`. Exit code 1 when it is refused.
    """
    from edge_runtime.cli.who import who
    from edge_runtime.core.errors import EdgeError, InstallError
    from edge_runtime.modelstore.store import open_store

    cfg = session.config
    try:
        from edge_runtime.modelstore.updates.open_source import open_source
        from edge_runtime.modelstore.updates.update import Updates, model_wanted
        from edge_runtime.predictors.model_update import note_refusal, update_model
    except ModuleNotFoundError as err:
        raise InstallError(f"updates need more packages: {err}", "pip install 'edge-runtime[update]'") from err
    store, by = open_store(cfg), who()
    name = model_wanted(cfg, model)
    updates = Updates(
        cfg, open_source(source or cfg.updates.source, ca_file=cfg.updates.ca_file, proxy=cfg.updates.proxy)
    )
    try:
        with progress(is_quiet=as_json) as told:
            report = update_model(cfg, store, updates, name, by, told, only_look=only_look)
    except EdgeError as err:
        note_refusal(store, name, by, updates.where, err)
        raise
    click.echo(json.dumps(report.as_json(), indent=1) if as_json else _sentence(report))
    if report.state == "candidate" and not as_json:
        click.echo("it runs after: edge-runtime models promote", err=True)


def _sentence(report: UpdateReport) -> str:
    until = f"signed until {report.signed_until[:10]}"
    if report.state == "none":
        return f"{report.source} has no release of {report.model} for this site ({until})"
    words = {
        "candidate": "is the candidate",
        "at_work": "is at work already",
        "previous": "is here, and was put aside for the one at work",
        "available": "is not here yet",
        "taken": "was taken before, and is in no slot any more",
    }[report.state]
    return f"{report.model}, release {report.release} of {report.source}, {words} ({until})"


@click.command()
@click.argument("name", default="")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many, the newest.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def log(session: Session, name: str, limit: int, as_json: bool) -> None:
    """What became of the models of this box. Each change of a slot with when, who, why, digest and the one before."""
    from edge_runtime.modelstore.activations import Activations
    from edge_runtime.modelstore.store import open_store

    rows = [row for row in Activations(open_store(session.config).own).rows() if not name or row["name"] == name][
        -limit:
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    if not rows:
        click.echo("nothing was changed yet", err=True)
    for row in rows:
        before = f" after {row['before']}" if row["before"] else ""
        why = f": {row['why']}" if row["why"] else ""
        click.echo(
            f"{row['at'][:19]}Z  {row['verb']:<12} {row['now'] or '-'}{before}  {row['digest'][:12]}  {row['by']}{why}"
        )
