"""`sync`: the uplink's daemon, and what people need for commands from afar: keys, signing, the audit."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.cli.numbers import FiniteRange
from edge_runtime.core.errors import ConfigError, StorageError, UsageError
from edge_runtime.sync.paths import CREDENTIALS, INSTALL, MISSING

if TYPE_CHECKING:
    from edge_runtime.cli.main import Session
    from edge_runtime.config.schema import SyncConfig
    from edge_runtime.sync.app import Uplink

TICK_S = 1.0


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
        raise ConfigError("sync.enabled is false: set it, and sync.host, in the station file")
    raise SystemExit(_drain(session, timeout_s) if once else _serve(session))


def _is_wanted(session: Session) -> bool:
    """Yes for a wrong station file, too: the daemon then says what is wrong with it."""
    try:
        return session.config.sync.enabled
    except ConfigError:
        return True


def _serve(session: Session) -> int:
    """Until SIGTERM. systemd hears from us only while every part makes progress."""
    import faulthandler
    import gc

    from edge_runtime.core.log import set_up_logging
    from edge_runtime.process.sd_notify import Notifier
    from edge_runtime.process.step_back import run_later

    faulthandler.enable()
    set_up_logging(session.config.service.log_level)
    must_stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: must_stop.set())
    notifier = Notifier()
    run_later()
    uplink = _open(session)
    uplink.start()
    try:
        gc.collect()
        gc.freeze()
        notifier.ready(uplink.line())
        while not must_stop.wait(min(TICK_S, (notifier.watchdog_s or TICK_S) / 4)):
            uplink.look_after()
            if stuck := uplink.stuck():
                notifier.status(f"hung: {', '.join(stuck)}")
            else:
                notifier.alive(uplink.line())
    finally:
        notifier.stopping()
        uplink.stop()
    return 0


def _open(session: Session) -> Uplink:
    try:
        from edge_runtime.sync.app import Uplink
    except ModuleNotFoundError as err:
        raise UsageError(f"{INSTALL} ({err.name} is missing)") from err
    _check_credentials(session.config.sync)
    return Uplink(session.config)


def _check_credentials(cfg: SyncConfig) -> None:
    """The unit puts a word in the place of a file that is not there, because systemd would not start it otherwise."""
    from edge_runtime.sync.credentials import credential

    for key in ("ca_file", "cert_file", "key_file", "password_file"):
        name = getattr(cfg, key)
        file = Path(credential(name, os.environ))
        if str(file) != name and file.is_file() and file.read_bytes().strip() == MISSING:
            raise ConfigError(
                f"sync.{key} is {name!r}, and {CREDENTIALS}/{name} is not there; put it there and restart the service"
            )


def _drain(session: Session, timeout_s: float) -> int:
    """Records only: a box that is up for a minute is not born as a Sparkplug node."""
    from edge_runtime.config.paths import state_dir
    from edge_runtime.core.log import set_up_logging
    from edge_runtime.process.step_back import run_later
    from edge_runtime.sync.outbox.status import spool_status

    set_up_logging(session.config.service.log_level)
    run_later()
    uplink = _open(session)
    uplink.records.start()
    try:
        is_done = uplink.records.flush(timeout_s)
        health, aside = uplink.records.health(), uplink.records.report()["aside"]
    finally:
        uplink.records.stop()
    if is_done and not (aside["refused"] or aside["unproven"]):
        click.echo("all delivered")
        return 0
    if is_done:
        click.echo(f"all sent, not all delivered: {health.detail}", err=True)
        return 1
    why = f"{health.detail} (gave up after {timeout_s:g} s, --timeout)"
    try:
        unread = f", {spool_status(state_dir(session.config))['unread']} parts of the journal are not read yet"
    except StorageError:  # the detail says what is wrong with the outbox
        unread = ""
    click.echo(f"not all delivered{unread}: {why}", err=True)
    return 1


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
        raise UsageError(f"{INSTALL} ({err.name} is missing)") from err
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
