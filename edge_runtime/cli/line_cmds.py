"""`line`: hold the running line, let it go on, and say who decides."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edge_runtime.cli.main import Session

DEGREES = ("human_only", "partial", "full")


@click.group()
def line() -> None:
    """Hold the running line, let it go on, and say who decides."""


@line.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def hold(session: Session, as_json: bool) -> None:
    """Hold the line. Asks the controller for a controlled hold of the feed, as the words `stop line` do. It is no
    emergency stop."""
    answer = _ask(session, "hold")
    _tell(answer, f"held by {answer['held_by']}; it goes on with: edge-runtime line resume", as_json)


@line.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.option("--yes", is_flag=True, help="Do not ask whether the line is clear.")
@click.pass_obj
def resume(session: Session, as_json: bool, yes: bool) -> None:
    """Let a held line go on; asks whether everybody is clear. Exit code 1 when nothing held it."""
    from edge_runtime.cli.control_path import control_path
    from edge_runtime.process.unix_socket import listener

    if not yes and listener(control_path(session)) is not None:  # else nobody has to be asked to hear that no box runs
        click.confirm("Is everybody clear of the line?", abort=True, err=True)
    answer = _ask(session, "resume")
    _tell(answer, "goes on" if answer["resumed"] else "nothing held the line", as_json)
    raise SystemExit(0 if answer["resumed"] else 1)


@line.command()
@click.argument("degree", type=click.Choice(DEGREES))
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def automation(session: Session, degree: str, as_json: bool) -> None:
    """Say who decides. Until the next start: people (human_only), the model and people where it is unsure (partial),
    or the model alone (full)."""
    answer = _ask(session, "automation", degree=degree)
    _tell(answer, f"{answer['before']} -> {answer['now']}", as_json)


def _ask(session: Session, do: str, **words: Any) -> dict[str, Any]:
    from edge_runtime.cli.control_path import control_path
    from edge_runtime.process.control import ask

    answer: dict[str, Any] = ask(control_path(session), do, by="cli", **words)
    return answer


def _tell(answer: dict[str, Any], sentence: str, as_json: bool) -> None:
    click.echo(json.dumps(answer, indent=2) if as_json else sentence)
