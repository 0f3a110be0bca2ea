"""`io serial`: the serial ports of this box, and the one the station takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edge_runtime.cli.main import Session
    from edge_runtime.config.schema import ControllerConfig
    from firmware_bridge.adapters import Adapter


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_obj
def serial(session: Session, as_json: bool) -> None:
    """Serial ports of this box. Who uses them, how fast they answer, and the one that the station file takes.

    Exit code 1 when that one is not there. No port is opened: opening resets many controller boards.
    """
    from firmware_bridge.adapters import list_adapters

    document = survey(session.config.controller, list_adapters())
    click.echo(json.dumps(document, indent=2) if as_json else "\n".join(_lines(document)))
    raise SystemExit(0 if document["configured"]["ready"] else 1)


def survey(cfg: ControllerConfig, adapters: list[Adapter]) -> dict[str, Any]:
    """What is there, and whether the station's port is among it."""
    from firmware_bridge.adapters import SLOW_MS

    target = str(Path(cfg.port).resolve()) if cfg.port else ""
    ready, detail = _readiness(cfg, adapters)
    return {
        "configured": {
            "driver": cfg.driver,
            "protocol": cfg.protocol,
            "port": cfg.port,
            "device": target,
            "baud": cfg.baud,
            "parity": cfg.parity,
            "ready": ready,
            "detail": detail,
        },
        "ports": [
            {
                **asdict(adapter),
                "best_name": adapter.best_name,
                "is_slow": adapter.latency_ms is not None and adapter.latency_ms > SLOW_MS,
                "used": cfg.driver == "serial" and adapter.path == target,
            }
            for adapter in adapters
        ],
    }


def _readiness(cfg: ControllerConfig, adapters: list[Adapter]) -> tuple[bool, str]:
    if cfg.driver == "sim":
        return True, "simulated"
    path = Path(cfg.port)
    if not path.exists():
        names = ", ".join(adapter.best_name for adapter in adapters) or "none"
        return False, f"no port {cfg.port} (found: {names}); check the cable or set controller.port"
    if not path.is_char_device() or str(path) == "/dev/null":
        return False, f"{cfg.port} is not a serial port; set controller.port to one"
    return True, str(path.resolve())


def _lines(document: dict[str, Any]) -> Iterator[str]:
    configured = document["configured"]
    mark = click.style("ok  ", fg="green") if configured["ready"] else click.style("fail", fg="red")
    yield f"{mark} controller: driver {configured['driver']}, protocol {configured['protocol']}, {configured['detail']}"
    for port in document["ports"]:
        yield f"     {port['best_name']}" + (click.style("  used by this station", bold=True) if port["used"] else "")
        facts = [port["path"], port["driver"], port["product"]]
        facts += [f"latency timer {port['latency_ms']} ms"] if port["latency_ms"] is not None else []
        facts += [f"in use by {port['used_by']}"] if port["used_by"] else []
        yield "       " + "  ".join(fact for fact in facts if fact)
        if port["is_slow"]:
            yield click.style("       slow: install systemd/99-edge-runtime.rules, or echo 1 > /sys/class/tty/"
                              f"{Path(port['path']).name}/device/latency_timer", fg="yellow")  # fmt: skip
        if not port["is_permitted"]:
            yield click.style("       no permission: usermod -aG dialout USER", fg="yellow")
    if not document["ports"]:
        yield "     no serial ports found"
