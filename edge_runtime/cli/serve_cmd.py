"""`serve`: the process that has the network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edge_runtime.cli.main import Session

ANSWER_WITHIN_S = 3.0


@click.command()
@click.option("--health", is_flag=True, help="Ask the running serve how it is; exit code 1 when it is not well.")
@click.option("--json", "as_json", is_flag=True, help="With --health: one JSON document.")
@click.pass_obj
def serve(session: Session, health: bool, as_json: bool) -> None:
    """The daemon that asks servers in the house: a speech server about what operators say, where voice.remote.url names
    one, and an inference server about pictures of parts, where model.predictor is remote."""
    from edge_runtime.config.paths import socket_path

    beside = socket_path(session.config)
    if health:
        about = _ask(beside)
        click.echo(json.dumps(about, indent=2) if as_json else "\n".join(_lines(about)))
        raise SystemExit(0 if about["state"] == "ok" else 1)
    _run(session, beside)


def _ask(beside: Path) -> Mapping[str, Any]:
    """What each part of the running serve says of itself; `state` is the worst, `detail` what that one says."""
    from edge_runtime.inference import picture_wire, speech_wire
    from edge_runtime.process.control import exchange

    parts = {
        name: exchange(beside.with_name(socket), {"do": "health"}, ANSWER_WITHIN_S, "edge-runtime serve")
        for name, socket in (("speech", speech_wire.SOCKET), ("pictures", picture_wire.SOCKET))
    }
    worst = next((part for part in parts.values() if part["state"] != "ok"), parts["speech"])
    counts = {name: part[name] for name, part in parts.items()}
    states = {name: {"state": part["state"], "detail": part["detail"]} for name, part in parts.items()}
    return {"state": worst["state"], "detail": worst["detail"], **counts, "parts": states}


def _lines(about: Mapping[str, Any]) -> Iterator[str]:
    for name, part in about["parts"].items():
        yield f"{name:<9} {part['state']}  {part['detail']}"


def _run(session: Session, beside: Path) -> None:
    from edge_runtime.inference import picture_wire, speech_wire
    from edge_runtime.process.daemon_loop import begin_daemon
    from edge_runtime.process.step_back import run_later
    from edge_runtime.serve.daemon import ServeDaemon
    from edge_runtime.serve.remote.relay import PictureRelay
    from edge_runtime.serve.speech.relay import SpeechRelay

    cfg = session.config
    begin_daemon(cfg.service.log_level)
    run_later()
    speech = SpeechRelay(cfg.voice.remote, beside.with_name(speech_wire.SOCKET))
    pictures = PictureRelay(cfg.model, beside.with_name(picture_wire.SOCKET))
    ServeDaemon([speech, pictures]).run()
