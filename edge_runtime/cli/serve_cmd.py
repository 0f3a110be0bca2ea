"""`serve`: the process that has the network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.core.errors import InstallError

if TYPE_CHECKING:
    from edge_runtime.cli.main import Session
    from edge_runtime.config.schema import EdgeConfig
    from edge_runtime.flow.components import Component

ANSWER_WITHIN_S = 3.0


@click.command()
@click.option("--port", type=click.IntRange(0, 65_535), help="Instead of serve.port; 0 takes a free one.")
@click.option("--token", "tells_token", is_flag=True, help="Print the box's token, and its certificate's fingerprint.")
@click.option("--role", type=click.Choice(["view", "operate", "maintain"]), help="With --token: that of one role.")
@click.option("--health", is_flag=True, help="Ask the running serve how it is; exit code 1 when it is not well.")
@click.option("--json", "as_json", is_flag=True, help="With --health or --token: one JSON document.")
@click.pass_obj
def serve(session: Session, port: int | None, tells_token: bool, role: str | None, health: bool, as_json: bool) -> None:
    """The daemon with the network: pages, the prediction API over HTTP, and the way to servers in the house.

    Prints the address it listens on. Pages and API are described in edge_runtime/serve/PAGES.md and API.md; a speech
    server is asked where voice.remote.url names one, an inference server where model.predictor is remote.
    """
    if tells_token:
        _tell_token(session, role, as_json)
    elif health:
        _tell_health(session, as_json)
    else:
        _run(session, port)


def _tell_health(session: Session, as_json: bool) -> None:
    from edge_runtime.config.paths import socket_path

    about = _ask(socket_path(session.config), session.config)
    click.echo(json.dumps(about, indent=2) if as_json else "\n".join(_lines(about)))
    raise SystemExit(0 if about["state"] in ("ok", "starting") else 1)  # a line that does not run yet is no fault here


def _ask(beside: Path, cfg: EdgeConfig) -> Mapping[str, Any]:
    """What each relay of the running serve says of itself; `state` is the worst, `detail` what that one says."""
    from edge_runtime.inference import picture_wire, speech_wire
    from edge_runtime.process.control import exchange

    parts = {
        name: exchange(beside.with_name(socket), {"do": "health"}, ANSWER_WITHIN_S, "edge-runtime serve")
        for name, socket in (("speech", speech_wire.SOCKET), ("pictures", picture_wire.SOCKET))
    }
    if "standing" in parts["pictures"]:
        parts["pictures"] |= _of_line(cfg, parts["pictures"]["server"])
    worst = next((part for part in parts.values() if part["state"] != "ok"), parts["speech"])
    counts = {name: part[name] for name, part in parts.items()}
    known = ("state", "detail", "standing")
    states = {name: {key: part[key] for key in known if key in part} for name, part in parts.items()}
    return {"state": worst["state"], "detail": worst["detail"], **counts, "parts": states}


def _of_line(cfg: EdgeConfig, server: str) -> Mapping[str, Any]:
    """What the running line says of the inference server, which knows more of it; nothing where none runs."""
    from datetime import datetime

    from edge_runtime.commissioning.doctor_remote import line_standing
    from edge_runtime.core.remote_standing import Standing
    from edge_runtime.core.typed_json import to_json

    standing = line_standing(cfg)
    if standing is None:
        return {}
    is_proven = standing.standing is Standing.ANSWERS or standing.tried_s is not None
    state = "degraded" if standing.failures else "ok" if is_proven else "starting"
    words = standing.words(datetime.now().astimezone())
    return {"state": state, "detail": f"{server} {words}", "standing": to_json(standing)}


def _lines(about: Mapping[str, Any]) -> Iterator[str]:
    for name, part in about["parts"].items():
        yield f"{name:<9} {part['state']}  {part['detail']}"


def _tell_token(session: Session, role: str | None, as_json: bool) -> None:
    from edge_runtime.config.paths import state_dir
    from edge_runtime.serve.access.certificate import station_papers
    from edge_runtime.serve.access.roles import Role
    from edge_runtime.serve.access.token import box_token

    token = box_token(state_dir(session.config))
    if role is not None:
        from edge_runtime.serve.access.role_tokens import role_token

        token = role_token(token, Role(role))
    fingerprint = station_papers(session.config).fingerprint() if session.config.serve.tls else ""
    if as_json:
        click.echo(json.dumps({"token": token} | ({"certificate_sha256": fingerprint} if fingerprint else {})))
        return
    click.echo(token)
    if fingerprint:
        click.echo(f"certificate SHA-256 {fingerprint}", err=True)


def _run(session: Session, port: int | None) -> None:
    from edge_runtime.process.daemon_loop import begin_daemon
    from edge_runtime.process.step_back import one_thread_each, run_later
    from edge_runtime.serve.daemon import ServeDaemon

    begin_daemon(session.config.service.log_level)
    run_later()
    one_thread_each()
    cfg = session.config
    if port is not None:
        cfg = cfg.model_copy(update={"serve": cfg.serve.model_copy(update={"port": port})})
    ServeDaemon(_components(cfg)).run()


def _components(cfg: EdgeConfig) -> list[Component]:
    try:
        from edge_runtime.serve.wiring import serve_components
    except ModuleNotFoundError as err:
        raise InstallError(f"the HTTP server needs {err.name}", "pip install 'edge-runtime[serve]'") from err
    return serve_components(cfg, told=click.echo)
