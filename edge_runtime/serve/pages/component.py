"""The pages as a component of `serve`: they look when somebody looks, and say goodbye before the server ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.routing import BaseRoute

from edge_runtime.config.paths import JOURNAL, socket_path, state_dir
from edge_runtime.config.schema import EdgeConfig
from edge_runtime.flow.components import Health, State
from edge_runtime.serve.access.sessions import Sessions
from edge_runtime.serve.pages.acts import Labels
from edge_runtime.serve.pages.health_watch import HealthWatch
from edge_runtime.serve.pages.line_view import LineView
from edge_runtime.serve.pages.looks import AboutStation
from edge_runtime.serve.pages.own_commands import OwnCommands
from edge_runtime.serve.pages.pictures import Pictures
from edge_runtime.serve.pages.routes import PageParts, page_routes
from edge_runtime.serve.pages.technician_routes import Technician


class Pages:
    """token: of the box, that a login shows. station: words that name the station file to a command."""

    name = "pages"

    def __init__(self, cfg: EdgeConfig, sessions: Sessions, token: str, station: Sequence[str]) -> None:
        state, socket = state_dir(cfg), socket_path(cfg)
        journal = state / JOURNAL
        here = cfg.station
        about = AboutStation(here.name, here.site, here.line, cfg.decision.safe_action)
        self._line = LineView(socket, state, journal, cfg.serve.shifts, about)
        self._commands = OwnCommands(station)
        self._parts = PageParts(
            self._line,
            Pictures(state),
            Labels(journal, socket),
            sessions,
            token,
            is_secure=cfg.serve.tls,
            technician=Technician(cfg, self._commands, HealthWatch(self._commands)),
        )
        self._is_open = False

    def routes(self) -> Sequence[BaseRoute]:
        return page_routes(self._parts)

    def start(self) -> None:
        self._is_open = True

    def stop(self) -> None:
        """End the streams; the server would wait for them."""
        self._is_open = False
        self._commands.stop()
        self._line.stop()

    def health(self) -> Health:
        return Health(State.OK if self._is_open else State.STOPPED)

    def report(self) -> Mapping[str, Any]:
        return {"viewers": len(self._line.hub)}
