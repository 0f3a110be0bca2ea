"""`demo`: the whole box on the simulated line: live screen, page and uplink."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.cli.numbers import FiniteRange
from edge_runtime.cli.progress import progress
from edge_runtime.config.paths import EMBEDDED
from edge_runtime.core.errors import DeviceError, EdgeError

if TYPE_CHECKING:
    from edge_runtime.cli.main import Session
    from edge_runtime.commissioning.demo_page import DemoPage
    from edge_runtime.commissioning.demo_uplink import DemoUplink
    from edge_runtime.core.status import Status

START_TIMEOUT_S = 30.0
POLL_S = 0.1


@click.command()
@click.option("--parts", type=click.IntRange(1), help="End after this many parts.")
@click.option("--seconds", type=FiniteRange(0.1, 1e8), help="End after this many seconds.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Seed of the simulated line: world.seed.")
@click.option("--no-browser", is_flag=True, help="Do not open the page.")
@click.option("--json", "as_json", is_flag=True, help="No screen; print the summary as one JSON document.")
@click.pass_obj
def demo(
    session: Session,
    parts: int | None,
    seconds: float | None,
    seed: int | None,
    no_browser: bool,
    as_json: bool,
) -> None:
    """The whole box on a simulated line: watch scratched phones being rejected. q ends it.

    Opens the operator's page in a browser where there is one, and prints its address.
    """
    from edge_runtime.cli.run_cmd import summary_lines
    from edge_runtime.commissioning.demo_page import open_page
    from edge_runtime.commissioning.demo_uplink import open_uplink, uplink_lines

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    session.config_option = session.config_option or EMBEDDED  # a real station's file must not drive a demo
    words = _globals(session, seed)
    has_screen = not as_json and sys.stdout.isatty()
    with tempfile.TemporaryFile("w+") as log:  # the daemons' logs would run through the live screen
        logs_to = log if has_screen else None
        daemon = subprocess.Popen(
            [sys.executable, "-m", "edge_runtime", *words, "run", "--json", *_bounds(parts, seconds)],
            stdout=subprocess.PIPE,
            stderr=logs_to,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        uplink: DemoUplink | str = ""
        page: DemoPage | str = ""
        try:
            page = open_page(words, session.config.serve.port, logs_to)
            uplink = open_uplink(session.config, words, logs_to)
            _show_page(page, has_screen and not no_browser)
            document = _follow(session, daemon, parts, has_screen, {"uplink": uplink, "page": page})
        except KeyboardInterrupt:
            document = _end(daemon)
        finally:
            if daemon.poll() is None:
                daemon.terminate()
                daemon.wait(timeout=10)
            if not isinstance(page, str):
                page.stop()
            received = None if isinstance(uplink, str) else uplink.finish()
        if document is None:
            log.seek(0)
            click.echo(log.read(), err=True, nl=False)
            raise SystemExit(daemon.returncode or 1)
    if as_json:
        click.echo(json.dumps({**document, "uplink": received}, indent=2))
    else:
        click.echo("\n".join([*summary_lines(document), *(uplink_lines(received) if received else [])]))
        click.echo("look closer: edge-runtime parts list; edge-runtime parts show ID --picture part.png", err=True)
    for missing in (uplink, page):
        if isinstance(missing, str):
            click.echo(missing, err=True)
    raise SystemExit(1 if document["unaccounted"] or document["unwritten"] else 0)


def _globals(session: Session, seed: int | None) -> list[str]:
    words = ["--config", session.config_option or EMBEDDED]
    for setting in session.settings:
        words += ["--set", setting]
    return [*words, *(["--set", f"world.seed={seed}"] if seed is not None else [])]


def _bounds(parts: int | None, seconds: float | None) -> list[str]:
    words = ["--parts", str(parts)] if parts else []
    return [*words, *(["--seconds", str(seconds)] if seconds else [])]


def _follow(
    session: Session,
    daemon: subprocess.Popen[str],
    parts: int | None,
    has_screen: bool,
    beside: Mapping[str, DemoUplink | DemoPage | str],
) -> dict[str, Any] | None:
    from edge_runtime.cli.control_path import control_path
    from edge_runtime.process.ask_status import ask_status

    path = control_path(session)

    def look() -> Status:
        shot = ask_status(path)
        found = {name: part.health() for name, part in beside.items() if not isinstance(part, str)}
        return replace(shot, health={**shot.health, **found})

    if has_screen:
        if _is_up(daemon, look):
            from edge_runtime.cli.top_cmd import watch

            try:
                watch(look, is_over=lambda: daemon.poll() is not None)
            except DeviceError:
                pass  # the daemon ended between two looks; its summary says how
        return _end(daemon) if parts is None or daemon.poll() is None else _read(daemon)
    if parts and sys.stderr.isatty():
        _follow_parts(daemon, look, parts)
    return _read(daemon)


def _show_page(page: DemoPage | str, opens_browser: bool) -> None:
    from edge_runtime.commissioning.demo_page import show

    if isinstance(page, str):
        return
    url = page.wait()
    if not url:
        click.echo("the page of this demo did not start", err=True)
        return
    click.echo(f"page: {url}", err=True)
    if opens_browser:
        show(url)


def _is_up(daemon: subprocess.Popen[str], look: Callable[[], Status]) -> bool:
    limit = time.monotonic() + START_TIMEOUT_S
    while daemon.poll() is None and time.monotonic() < limit:
        try:
            look()
        except EdgeError:
            time.sleep(POLL_S)
        else:
            return True
    return False


def _follow_parts(daemon: subprocess.Popen[str], look: Callable[[], Status], parts: int) -> None:
    with progress() as told:
        while daemon.poll() is None:
            try:
                told("parts", look().parts, parts)
            except EdgeError:
                pass  # not up yet, or over already
            time.sleep(POLL_S)


def _end(daemon: subprocess.Popen[str]) -> dict[str, Any] | None:
    daemon.terminate()
    return _read(daemon)


def _read(daemon: subprocess.Popen[str]) -> dict[str, Any] | None:
    text, _ = daemon.communicate()
    try:
        document: dict[str, Any] = json.loads(text)
    except ValueError:
        return None
    return document if "parts" in document else None
