"""`spool ...`: what waits for the cloud, and waiting until it has gone."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.cli.beside_line import LooksAtLine
from edge_runtime.cli.numbers import FiniteRange
from edge_runtime.cli.progress import progress
from edge_runtime.core.wording import counted

if TYPE_CHECKING:
    from edge_runtime.cli.main import Session


@click.group()
def spool() -> None:
    """What waits for the cloud: status, flush, retry."""


@spool.command(cls=LooksAtLine)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def status(session: Session, as_json: bool) -> None:
    """What waits for the cloud. Records, parts that are in the journal alone, pictures; how old; what was given up.
    Exit code 1 when records wait and nobody delivers them."""
    from edge_runtime.sync.outbox.status import spool_status

    shot = {**spool_status(_state(session)), "uplink": _uplink(session)}
    if as_json:
        click.echo(json.dumps(shot, indent=2))
    else:
        click.echo("\n".join(_lines(shot)))
    raise SystemExit(1 if _waiting(shot) and not shot["sync_runs"] else 0)


def _lines(shot: dict[str, Any]) -> list[str]:
    lines = [
        f"records   {shot['records']} wait  ({shot['live']} live, {shot['records'] - shot['live']} backlog)",
        f"journal   {counted(shot['unread'], 'part')} not read yet",
        f"pictures  {shot['pictures']} wait",
        f"oldest    {_age(shot['oldest'])}",
        f"numbers   epoch {shot['epoch']}, last {shot['last_seq']}",
        f"room      {shot['bytes'] / 1e6:.1f} MB",
        *_aside_lines(shot["aside"]),
    ]
    uplink = shot["uplink"]
    if uplink is None:
        return [*lines, "uplink    " + ("runs" if shot["sync_runs"] else "not running: edge-runtime sync")]
    dropped = "  ".join(f"{name} {count}" for name, count in uplink["dropped"].items())
    return [*lines, f"given up  {dropped or 'nothing'}", f"uplink    {uplink['state']}: {uplink['detail']}"]


def _aside_lines(aside: dict[str, Any]) -> list[str]:
    """What lies beside the queue, or nothing."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in aside["reasons"].items())
    gone = ", ".join(f"{count} {why}" for why, count in aside["gone"].items())
    named = {
        f"aside     {aside['refused']} refused by the broker ({reasons}): edge-runtime spool retry": aside["refused"],
        f"unproven  {aside['unproven']} taken by a broker that nothing proves to keep them": aside["unproven"],
        f"given up  {gone} of what lay aside, for want of room": gone,
    }
    return [line for line, is_so in named.items() if is_so]


def _age(oldest: str | None) -> str:
    from edge_runtime.core.clock import duration

    if oldest is None:
        return "nothing"
    return f"{duration(max(0.0, (datetime.now(UTC) - datetime.fromisoformat(oldest)).total_seconds()))} ago"


@spool.command()
@click.option("--timeout", "timeout_s", type=FiniteRange(0.1, 86_400), default=60.0, show_default=True,
              help="Seconds to wait at most.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def flush(session: Session, timeout_s: float, as_json: bool) -> None:
    """Wait until the running `sync` has delivered what waits now. Exit code 1 when it could not, or does not run."""
    from edge_runtime.core.errors import DeviceError
    from edge_runtime.sync.outbox.status import spool_status, wait_until_delivered

    state = _state(session)
    shot = spool_status(state)
    if _waiting(shot) and not shot["sync_runs"]:
        raise DeviceError(f"{_waiting(shot)} wait and no uplink runs", "start it, or: edge-runtime sync --once")
    most = _waiting(shot)
    with progress(is_quiet=as_json) as told:
        shot = wait_until_delivered(state, timeout_s, lambda now: told("delivering", most - _waiting(now), most))
    shot["uplink"] = _uplink(session)
    if as_json:
        click.echo(json.dumps(shot, indent=2))
    elif shot["delivered"] and not _lies_aside(shot):
        click.echo("all delivered")
    elif shot["delivered"]:
        click.echo("\n".join(["all sent, not all delivered", *_aside_lines(shot["aside"])]), err=True)
    else:
        why = f": {shot['uplink']['detail']}" if shot["uplink"] else ""
        click.echo(f"{_waiting(shot)} still wait{why}", err=True)
    raise SystemExit(0 if shot["delivered"] and not _lies_aside(shot) else 1)


@spool.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def retry(session: Session, as_json: bool) -> None:
    """Send again what the broker refused. For instance after its limits were raised; needs the running `sync`."""
    from edge_runtime.sync.paths import ask_sync

    count = ask_sync(session.config, "retry")
    if as_json:
        click.echo(json.dumps({"records": count}))
    else:
        told = f"{counted(count, 'record')} to be sent again: edge-runtime spool flush waits for that"
        click.echo(told if count else "none lie aside")


def _waiting(shot: dict[str, Any]) -> int:
    return int(shot["records"] + shot["unread"])


def _lies_aside(shot: dict[str, Any]) -> int:
    return int(shot["aside"]["refused"] + shot["aside"]["unproven"])


def _state(session: Session) -> Path:
    from edge_runtime.config.paths import state_dir

    return state_dir(session.config)


def _uplink(session: Session) -> dict[str, Any] | None:
    """What the running one says of its records; None when it does not answer."""
    from edge_runtime.core.errors import DeviceError
    from edge_runtime.sync.paths import ask_sync

    try:
        shot = ask_sync(session.config, "status")
    except DeviceError:
        return None
    records = shot["health"]["records"]
    return {"state": records["state"], "detail": records["detail"], "dropped": shot["records"]["dropped"]}
