"""`/healthz`: whether this process is well, for whoever watches it. It tells strangers no more than that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from edge_runtime.flow.components import Health, State
from edge_runtime.serve.access.guard import as_json, caller_of, door
from edge_runtime.serve.access.roles import Role

Healths = Callable[[], Mapping[str, Health]]


def health_routes(healths: Healths) -> Sequence[BaseRoute]:
    async def healthz(request: Request) -> Response:
        found = healths()
        is_well = all(health.is_working for health in found.values())
        about: dict[str, object] = {"state": str(State.OK if is_well else State.DEGRADED)}
        caller = caller_of(request)
        if caller and caller.may(Role.VIEW):
            about["components"] = {name: {"state": str(h.state), "detail": h.detail} for name, h in found.items()}
        return as_json(about, 200 if is_well else 503)

    return [door("/healthz", healthz, role=None)]
