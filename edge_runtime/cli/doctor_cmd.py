"""`doctor`: check everything a site visit would, and name the fix."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from edge_runtime.cli.beside_line import ComputesBesideLine
from edge_runtime.cli.columns import hanging, room

if TYPE_CHECKING:
    from edge_runtime.cli.main import Session

MARKS = {"ok": ("✔", "green"), "warn": ("▲", "yellow"), "fail": ("✖", "red")}


@click.command(cls=ComputesBesideLine)
@click.option("--json", "as_json", is_flag=True, help="One JSON document: list of {name, state, detail, fix}.")
@click.pass_obj
def doctor(session: Session, as_json: bool) -> None:
    """Check everything a site visit would, and name the fix. Exit code 1 when something failed."""
    from edge_runtime.commissioning.doctor import examine
    from edge_runtime.commissioning.doctor_uplink import uplink_findings

    findings = []
    for finding in examine(session.loaded, [uplink_findings]):
        findings.append(finding)
        if not as_json:
            mark, colour = MARKS[finding["state"]]
            head = f"{click.style(mark, fg=colour)} {finding['name']:<14} "
            lines = hanging(head, finding["detail"], room())
            if finding["fix"]:
                lines += hanging(f"  {'':<14} fix: ", finding["fix"], room())
            click.echo("\n".join(lines))
    if as_json:
        click.echo(json.dumps(findings, indent=2))
    raise SystemExit(1 if any(finding["state"] == "fail" for finding in findings) else 0)
