"""`run`: the hot daemon."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.cli.numbers import FiniteRange
from edge_runtime.core.wording import counted

if TYPE_CHECKING:
    from edge_runtime.cli.main import Session

log = logging.getLogger(__name__)


@click.command()
@click.option("--parts", type=click.IntRange(1), help="End after this many parts.")
@click.option("--seconds", type=FiniteRange(0.1, 1e8), help="End after this many seconds.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Seed of the simulated line: world.seed.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON document.")
@click.pass_obj
def run(session: Session, parts: int | None, seconds: float | None, seed: int | None, as_json: bool) -> None:
    """The daemon that inspects: camera, model, decision, reject gate. With --parts or --seconds it sees the parts on
    the belt through, prints a summary and ends. Exit code 1 when a part is unaccounted for, or is not in the journal
    (`unwritten` of the summary: the next start counts those as lost)."""
    from edge_runtime.core.errors import ModelError, StorageError, UsageError
    from edge_runtime.process.daemon_loop import begin_daemon
    from edge_runtime.station.daemon import Daemon

    if seed is not None:
        session.settings = (*session.settings, f"world.seed={seed}")
    begin_daemon(session.config.service.log_level)
    for note in session.loaded.moved:
        log.warning("station.key %s", note)
    try:
        document = Daemon(session.loaded, parts, seconds).run()
    except (ModelError, StorageError) as err:
        raise UsageError(err.what, err.fix) from err  # no restart mends it: exit code 2 tells systemd so
    click.echo(json.dumps(document, indent=2) if as_json else "\n".join(summary_lines(document)))
    raise SystemExit(1 if document["unaccounted"] or document["unwritten"] else 0)


def summary_lines(document: dict[str, Any]) -> list[str]:
    latency = document["latency_ms"]

    def words(counts: dict[str, int]) -> str:
        return "  ".join(f"{name} {count}" for name, count in counts.items())

    parts = counted(document["parts"], "part")
    unwritten = f", {document['unwritten']} NOT WRITTEN into the journal" if document["unwritten"] else ""
    lines = [
        f"{parts}, {document['unaccounted']} unaccounted for, {document['late']} late{unwritten}",
        f"verdicts  {words(document['verdicts'])}",
        f"causes    {words({name: count for name, count in document['causes'].items() if count})}",
        f"outcomes  {words(document['outcomes'])}",
        *(f"why       {cause}: {reason}" for cause, reason in document.get("why", {}).items()),
    ]
    for name, title in (("trigger_to_verdict", "photo-eye to verdict"), ("capture_to_verdict", "frame to verdict")):
        lines.append(f"{title:<21}" + "  ".join(f"{key} {value:.1f}" for key, value in latency[name].items()) + "  ms")
    if "remote" in document:
        remote = document["remote"]
        failed = "  ".join(f"{name} {remote[name]}" for name in ("late", "refused", "wrong", "unreachable"))
        lines.append(f"answered  {words(document['origins'])}  of {remote['asked']} asked of a server: {failed}")
    if "truth" in document:
        truth = document["truth"]
        missed = f"missed {truth['missed']} of {truth['defects']} defects"
        lines.append(f"truth     {missed}  false rejects {truth['false']}  stray {truth['stray']}")
    lines.append(f"model {document['model']}  config {document['config_digest'][:12]}  memory {document['rss_mb']} MB")
    return lines
