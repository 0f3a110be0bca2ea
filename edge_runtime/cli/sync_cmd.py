"""`sync`: the uplink's daemon, and what people need for commands from afar: keys, signing, the audit."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.cli.numbers import FiniteRange
from edge_runtime.core.errors import ConfigError, UsageError
from edge_runtime.sync.paths import INSTALL, NEEDS

if TYPE_CHECKING:
    from edge_runtime.cli.main import Session


@click.group(invoke_without_command=True)
@click.option("--once", is_flag=True, help="Deliver what waits, then end; exit code 1 when something still waits.")
@click.option("--timeout", "timeout_s", type=FiniteRange(0.1, 86_400), default=60.0, show_default=True,
              help="Seconds that --once may take at most.")  # fmt: skip
@click.option(
    "--condition", is_flag=True, help="Only tell whether the station wants an uplink, as exit code: 0 yes, 1 no."
)
@click.pass_context
def sync(ctx: click.Context, once: bool, timeout_s: float, condition: bool) -> None:
    """The daemon of the uplink: records, live tags and commands over MQTT. It works whether `run` runs or not."""
    if ctx.invoked_subcommand is not None:
        return
    session: Session = ctx.obj
    if condition:
        raise SystemExit(0 if _is_wanted(session) else 1)
    if not session.config.sync.enabled:
        raise ConfigError("sync.enabled is false", "set it, and sync.host, in the station file")
    raise SystemExit(_run(session, once, timeout_s))


def _is_wanted(session: Session) -> bool:
    """Yes for a wrong station file, too: the daemon then says what is wrong with it."""
    try:
        return session.config.sync.enabled
    except ConfigError:
        return True


def _run(session: Session, once: bool, timeout_s: float) -> int:
    from edge_runtime.process.daemon_loop import begin_daemon
    from edge_runtime.process.step_back import run_later

    begin_daemon(session.config.service.log_level)
    run_later()
    try:
        from edge_runtime.sync.run import deliver_once, run_uplink
    except ModuleNotFoundError as err:
        raise _not_installed(err) from err
    if not once:
        run_uplink(session.config)
        return 0
    is_done, words = deliver_once(session.config, timeout_s)
    click.echo(words, err=not is_done)
    return 0 if is_done else 1


def _not_installed(err: ModuleNotFoundError) -> UsageError:
    return UsageError(f"{NEEDS} ({err.name} is missing)", INSTALL)


@sync.command("status")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def status_command(session: Session, as_json: bool) -> None:
    """How the running uplink is: records, live tags, commands. Exit code 1 when it is not well, or not running."""
    from edge_runtime.cli.status_cmd import COLOURS
    from edge_runtime.core.clock import duration
    from edge_runtime.sync.paths import ask_sync

    shot = ask_sync(session.config, "status")
    if as_json:
        click.echo(json.dumps(shot, indent=2))
    else:
        state = click.style(str(shot["state"]).upper(), fg=COLOURS.get(shot["state"]), bold=True)
        records = shot["records"]
        click.echo(f"{shot['station']}  {state}  up {duration(shot['uptime_s'])}  {shot['rss_mb']:.0f} MB")
        click.echo(f"records {records['delivered']} delivered  {records['waiting']} wait  last {records['last_seq']}")
        for name, health in shot["health"].items():
            click.echo(f"  {name:<9} {health['state']:<9} {health['detail']}".rstrip())
    raise SystemExit(0 if shot["state"] == "ok" else 1)


@sync.command()
@click.argument("name")
@click.option("--out", "folder", type=click.Path(path_type=Path, file_okay=False), default=Path(),
              help="Folder for both files; else the current one.")  # fmt: skip
def key(name: str, folder: Path) -> None:
    """Make a pair of keys for commands. NAME.key for whoever may give them, NAME.pub for the boxes."""
    make_key = _signatures().make_key
    private, public = make_key(folder, name)
    click.echo(f"{private}  keep it; whoever has it commands every box that knows {public.name}")
    click.echo(f"{public}  put it into sync.keys of each box, /etc/edge-runtime/keys")


@sync.command()
@click.argument("do")
@click.argument("words", metavar="[NAME=VALUE]...", nargs=-1)
@click.option("--key", "private", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True,
              help="File NAME.key, as `sync key` made it.")  # fmt: skip
@click.option("--box", required=True, help="Name of the box that is meant: its station.name.")
@click.option("--minutes", type=FiniteRange(0.1, 10_000), default=10.0, show_default=True,
              help="Minutes for which the command is good, at a box that knows the time.")  # fmt: skip
def sign(do: str, words: tuple[str, ...], private: Path, box: str, minutes: float) -> None:
    """Print a signed command. For the box's `cmd` topic: status, rebirth, automation degree=partial,
    stage model=NAME@VERSION, rollback, evidence part=1a2b-17."""
    from edge_runtime.sync.commands.allowed import ALLOWED

    args = dict(word.split("=", 1) for word in words if "=" in word)
    wanted = ALLOWED.get(do)
    if wanted is None:
        raise UsageError(f"'{do}' is none of {', '.join(ALLOWED)}")
    if len(args) != len(words) or set(args) != set(wanted) or not all(wanted[name].fits(args[name]) for name in args):
        raise UsageError(f"{do} takes {' '.join(f'{name}=VALUE' for name in wanted) or 'nothing more'}")
    click.echo(_envelope(private, box, do, args, minutes))


def _envelope(private: Path, box: str, do: str, args: dict[str, str], minutes: float) -> str:
    from base64 import b64encode

    now_ns = time.time_ns()  # counts up for one person with one clock, and needs no file
    expires = datetime.now(UTC) + timedelta(minutes=minutes)
    order: dict[str, Any] = {"id": f"{now_ns:x}", "do": do, "args": args, "box": box}
    payload = json.dumps({**order, "counter": now_ns, "expires": expires.isoformat(timespec="seconds")}).encode()
    signature = _signatures().sign(private, payload)
    told = {"payload": b64encode(payload).decode(), "key": private.stem, "signature": b64encode(signature).decode()}
    return json.dumps(told)


def _signatures() -> Any:
    try:
        from edge_runtime.sync.commands import signatures
    except ModuleNotFoundError as err:
        raise _not_installed(err) from err
    return signatures


@sync.command(short_help="Commands that came in.")
@click.option("--last", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Lines to show.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def audit(session: Session, last: int, as_json: bool) -> None:
    """Commands that came in, the newest last: when, who, what, and what became of it."""
    from edge_runtime.sync.commands.book import read_audit
    from edge_runtime.sync.paths import command_book

    rows = read_audit(command_book(session.config), last)
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        what = f"{row['do'] or '?'} {row['args'] if row['args'] != '{}' else ''}".strip()
        click.echo(f"{row['at']}  {row['result']:<8} {row['key'] or '?':<12} {what}  {row['reason']}".rstrip())
    if not rows:
        click.echo("no command has come in", err=True)
