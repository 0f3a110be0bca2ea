"""`serve`: the process that has the network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edge_runtime.cli.main import Session

ANSWER_WITHIN_S = 3.0


@click.command()
@click.option("--health", is_flag=True, help="Ask the running serve how it is; exit code 1 when it is not well.")
@click.option("--json", "as_json", is_flag=True, help="With --health: one JSON document.")
@click.pass_obj
def serve(session: Session, health: bool, as_json: bool) -> None:
    """The daemon that asks a speech server: hands it what operators say, where voice.remote.url names one."""
    from edge_runtime.config.paths import socket_path
    from edge_runtime.inference.speech_wire import SOCKET
    from edge_runtime.process.control import exchange

    path = socket_path(session.config).with_name(SOCKET)
    if health:
        about = exchange(path, {"do": "health"}, ANSWER_WITHIN_S, "edge-runtime serve")
        click.echo(json.dumps(about, indent=2) if as_json else f"{about['state']}  {about['detail']}")
        raise SystemExit(0 if about["state"] == "ok" else 1)
    _run(session, path)


def _run(session: Session, path: Path) -> None:
    from edge_runtime.process.daemon_loop import begin_daemon
    from edge_runtime.process.step_back import run_later
    from edge_runtime.serve.daemon import ServeDaemon
    from edge_runtime.serve.speech.relay import SpeechRelay

    begin_daemon(session.config.service.log_level)
    run_later()
    ServeDaemon([SpeechRelay(session.config.voice.remote, path)]).run()
