"""`top`: the live terminal screen of a running box. Ctrl-C or q ends it."""

from __future__ import annotations

import json
import select
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.cli.beside_line import LooksAtLine

if TYPE_CHECKING:
    from edge_runtime.cli.main import Session
    from edge_runtime.core.glance import Glance

PERIOD_S = 1.0


@click.command(cls=LooksAtLine)
@click.option("--json", "as_json", is_flag=True, help="One snapshot as JSON, as `status --json`.")
@click.option("--once", is_flag=True, help="Draw one screen and end.")
@click.pass_obj
def top(session: Session, as_json: bool, once: bool) -> None:
    """Live terminal screen of the running box; q or Ctrl-C ends it."""
    from edge_runtime.cli.control_path import control_path
    from edge_runtime.core.glance import Glance
    from edge_runtime.process.control import ask

    path = control_path(session)
    if as_json:
        click.echo(json.dumps(ask(path, "status"), indent=2))
        return
    watch(lambda: Glance.from_json(ask(path, "status")), once=once or not sys.stdout.isatty())


def watch(look: Callable[[], Glance], once: bool = False, is_over: Callable[[], bool] = lambda: False) -> None:
    """Redraw every second until q, Ctrl-C or `is_over`. Raises what `look` raises, after leaving the screen."""
    from edge_runtime.cli import screen

    shot = look()
    if once:
        for line in screen.draw(shot, None, screen.size()[0]):
            click.echo(line)  # without colours where nobody sees them
        return
    with _ScreenMode():
        before = None
        while not is_over():
            width, height = screen.size()
            sys.stdout.write(screen.redraw([*screen.draw(shot, before, width), "", " q ends"], height))
            sys.stdout.flush()
            if _quit_pressed(PERIOD_S):
                return
            before, shot = shot, look()


class _ScreenMode:
    """The alternate screen, with keys read at once; put back on the way out, whatever happened."""

    def __enter__(self) -> None:
        from edge_runtime.cli.screen import ENTER

        self._saved: list[Any] | None = None
        if sys.stdin.isatty():
            import termios
            import tty

            self._saved = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin.fileno())
        sys.stdout.write(ENTER)

    def __exit__(self, *_: object) -> None:
        from edge_runtime.cli.screen import LEAVE

        if self._saved is not None:
            import termios

            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._saved)
        with suppress(OSError):
            sys.stdout.write(LEAVE)
            sys.stdout.flush()


def _quit_pressed(wait_s: float) -> bool:
    if not sys.stdin.isatty():
        time.sleep(wait_s)
        return False
    ready, _, _ = select.select([sys.stdin], [], [], wait_s)
    return bool(ready) and sys.stdin.read(1) in ("q", "Q", "\x04")
