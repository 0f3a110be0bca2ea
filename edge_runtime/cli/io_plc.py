"""`io plc`: what the controller or PLC says, live, without being its host."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.cli.numbers import FiniteRange
from edge_runtime.core.errors import DeviceError

if TYPE_CHECKING:
    from edge_runtime.cli.main import Session
    from edge_runtime.config.schema import EdgeConfig
    from edge_runtime.core.status import Status
    from firmware_bridge.watch import News, Watch

ONCE_WITHIN_S = 3.0
JSON_SECONDS = 5.0
FOR_EVER = 1e9


@click.command()
@click.option("--once", is_flag=True, help="Read everything once and stop.")
@click.option("--seconds", type=FiniteRange(0.1, 86_400), help="Watch for this many seconds; else until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document at the end; without --seconds, of 5 s.")
@click.pass_obj
def plc(session: Session, once: bool, seconds: float | None, as_json: bool) -> None:
    """Watch the controller or the PLC. State, events, registers by name, round trips.

    Nothing is armed, written or judged. While the box runs, its own report of the controller is shown instead. Exit
    code 1 when nobody answers, who answers does not fit this release, or the adapter is not as the station says.
    """
    from edge_runtime.commissioning.far_side import far_side, running_box

    cfg = session.config
    box = running_box(cfg)
    if box is not None:
        _show_running(box, as_json)
        return
    with far_side(cfg) as port:
        limit = ONCE_WITHIN_S if once else seconds or (JSON_SECONDS if as_json else FOR_EVER)
        document = _watch(cfg, port, limit, once, as_json)
    if as_json:
        click.echo(json.dumps(document, indent=2))
    raise SystemExit(1 if document["problem"] or document["adapter_problem"] else 0)


def _show_running(box: Status, as_json: bool) -> None:
    from edge_runtime.core.typed_json import to_json

    health, report = box.health["controller"], to_json(box.report.controller)
    if as_json:
        document = {"source": "box", "pid": box.pid, "health": to_json(health), "report": report}
        click.echo(json.dumps(document, indent=2))
        return
    click.echo(f"the running box (process {box.pid}) owns the controller; its report:")
    click.echo(f"  {health.state} {health.detail}".rstrip())
    for name, value in report.items():
        click.echo(f"  {name:<24}{_plain(value)}")


def _watch(cfg: EdgeConfig, port: str, seconds: float, once: bool, as_json: bool) -> dict[str, Any]:
    from edge_runtime.commissioning.far_side import open_watch
    from firmware_bridge.serial_device import PortError
    from firmware_bridge.watch_port import look

    watch = open_watch(cfg.controller, cfg.decision.safe_action)
    teller = Teller(watch, is_quiet=as_json)
    try:
        look(
            port,
            watch,
            seconds,
            baud=cfg.controller.baud,
            parity=cfg.controller.parity,
            on_news=teller.tell,
            is_enough=lambda: teller.is_enough(once),
        )
    except PortError as err:
        raise DeviceError(str(err)) from err
    except KeyboardInterrupt:
        pass
    if not as_json and not teller.has_begun:  # with what there is, and what is wrong
        click.echo("\n".join(state_lines(watch.state(), watch)))
    return {"source": "port", "port": port, **watch.state(), "beat_ms": _trips(watch), "news": teller.told}


class Teller:
    """Prints the whole state once it is known, then each change as it comes."""

    def __init__(self, watch: Watch, *, is_quiet: bool) -> None:
        self.told: list[dict[str, Any]] = []
        self.has_begun = False
        self._watch, self._is_quiet = watch, is_quiet
        self._problem = self._adapter = ""
        self._began_ns: int | None = None

    def is_enough(self, once: bool) -> bool:
        """Called at each turn."""
        watch = self._watch
        if watch.is_complete and not self.has_begun:
            self.has_begun = True
            if not self._is_quiet:
                click.echo("\n".join(state_lines(watch.state(), watch)))
        elif self.has_begun and not self._is_quiet:
            self._tell_problem(self._problem, watch.problem, "answers again")
            self._tell_problem(self._adapter, watch.adapter_problem, "the adapter is as the station says")
        self._problem, self._adapter = watch.problem, watch.adapter_problem
        return once and watch.is_complete

    def _tell_problem(self, before: str, now: str, good: str) -> None:
        if now != before:
            click.echo(click.style(now or good, fg="yellow" if now else "green"), err=True)

    def tell(self, news: News) -> None:
        if self._began_ns is None:
            self._began_ns = news.at_ns
        seconds = (news.at_ns - self._began_ns) / 1e9
        self.told = [*self.told[-9999:], {"s": round(seconds, 3), "what": news.what, "text": news.text}]
        if not self._is_quiet:
            click.echo(f"{seconds:9.3f} s  {click.style(f'{news.what:<22}', bold=True)} {news.text}")


def state_lines(state: dict[str, Any], watch: Watch) -> Iterator[str]:
    """The whole state for a person."""
    mark = click.style("fail", fg="red") if state["problem"] else click.style("ok  ", fg="green")
    yield f"{mark} {state['protocol']}" + (f", box as {state['role']}" if "role" in state else "")
    yield from (f"     {state[name]}" for name in ("problem", "adapter_problem") if state[name])
    for name, value in state.items():
        if name not in ("protocol", "role", "problem", "adapter_problem", "blocks", "absent", "counters"):
            yield f"     {name:<18}{_plain(value)}"
    for block, registers in state.get("blocks", {}).items():
        yield click.style(f"     {block} block", bold=True)
        yield from (f"       {name:<18}{_plain(value)}" for name, value in registers.items())
    for block in state.get("absent", []):
        yield f"     {block} block: not there"
    trips = _trips(watch)
    if trips:
        yield f"     answers in         p50 {trips['p50']:.2f} ms  p99 {trips['p99']:.2f} ms of {trips['n']}"
    yield "     counters           " + "  ".join(f"{name} {count}" for name, count in state["counters"].items())


def _plain(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    if value and isinstance(value[0], list):
        return "  ".join("/".join(map(str, entry)) for entry in value)
    return " ".join(map(str, value)) or "none"


def _trips(watch: Watch) -> dict[str, Any] | None:
    trips = sorted(watch.trips_ns)
    if not trips:
        return None
    p50, p99 = trips[len(trips) // 2], trips[len(trips) * 99 // 100]
    return {"n": len(trips), "p50": round(p50 / 1e6, 3), "p99": round(p99 / 1e6, 3)}
