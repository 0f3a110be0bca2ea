"""Commands that let a running line go first.

@models.command(cls=ComputesBesideLine)   # computes or measures: idle priority while a line of this box runs
@click.command(cls=LooksAtLine)           # only looks: nice, so that it is answered on a busy box too
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.cli.control_path import control_path
from edge_runtime.config.paths import SYSTEM_SOCKET
from edge_runtime.core.errors import EdgeError

if TYPE_CHECKING:
    from pathlib import Path

    from edge_runtime.cli.main import Session


class ComputesBesideLine(click.Command):
    def invoke(self, ctx: click.Context) -> Any:
        give_way(ctx.obj)
        return super().invoke(ctx)


class LooksAtLine(click.Command):
    def invoke(self, ctx: click.Context) -> Any:
        from edge_runtime.process.step_back import step_aside

        line = running_line(ctx.obj)
        if line is not None:
            step_aside(line)
        return super().invoke(ctx)


def give_way(session: Session) -> bool:
    """Go to idle priority where a line runs on this box; whether one does."""
    from edge_runtime.process.step_back import step_back

    line = running_line(session)
    if line is not None:
        step_back(line)
        click.echo("note: a line runs here and goes first: what is measured takes longer for it", err=True)
    return line is not None


def running_line(session: Session) -> int | None:
    """Process of the line of this station, or of the installed service; 0 where it may not be known, None for none."""
    from edge_runtime.process.unix_socket import listener

    found = [listener(path) for path in dict.fromkeys([*_own_socket(session), SYSTEM_SOCKET])]
    return next((pid for pid in found if pid not in (None, os.getpid())), None)


def _own_socket(session: Session) -> list[Path]:
    with suppress(EdgeError):  # a wrong station file is told by the command, if it needs one
        return [control_path(session)]
    return []
