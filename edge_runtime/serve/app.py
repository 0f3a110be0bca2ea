"""The web application, put together from parts: each is a function that gives its routes, and knows no other.

    api/routes.py    prediction: v2 and /predict
    health.py        /healthz
    pages/...        what people look at

Every route is made by `access.guard.door` and says which role it asks for; around them all stands the guard.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp

from edge_runtime.config.schema import ServeConfig
from edge_runtime.serve.access.audit import Audit
from edge_runtime.serve.access.guard import BodyLimits, Guard, as_json, refuse
from edge_runtime.serve.access.limits import Buckets
from edge_runtime.serve.access.origin import Hosts, Peers
from edge_runtime.serve.access.recognise import Recogniser
from edge_runtime.serve.access.refusal import Refusal
from edge_runtime.serve.access.refused import RefusedNotes

log = logging.getLogger(__name__)

Part = Callable[[], Sequence[BaseRoute]]

BURST_S = 2.0  # of requests_per_s, at once
BODIES = 4  # of the largest size that are held at a time; any number of smaller ones
LEAST_TOGETHER = 128 << 20  # bytes: two of the largest answers, however small bodies have to be


@dataclass(frozen=True, slots=True)
class Access:
    """Who is let in, and how that is noted. recognisers: asked in this order."""

    recognisers: Sequence[Recogniser]
    audit: Audit


def build_app(cfg: ServeConfig, access: Access, parts: Iterable[Part]) -> ASGIApp:
    """Raises ConfigError when the station's section `serve` cannot be used."""
    routes = [route for part in parts for route in part()]
    app = Starlette(
        routes=routes,
        exception_handlers={Refusal: _refused, HTTPException: _not_there, Exception: _broken},
    )
    app.state.audit = access.audit
    app.state.refused = RefusedNotes(access.audit)
    app.router.redirect_slashes = False  # an API path that is nearly right is told, not sent elsewhere
    most_bytes = cfg.max_body_mb << 20
    return Guard(
        app,
        hosts=Hosts(cfg.allowed_hosts, cfg.host),
        peers=Peers(cfg.trusted_proxies),
        recognisers=access.recognisers,
        buckets=Buckets(cfg.requests_per_s, max(1.0, BURST_S * cfg.requests_per_s)),
        is_loopback_free=not cfg.loopback_login,
        body=BodyLimits(most_bytes, cfg.body_s, max(BODIES * most_bytes, LEAST_TOGETHER)),
        refused=app.state.refused,
    )


def _refused(request: Request, err: Exception) -> Response:
    assert isinstance(err, Refusal)
    return refuse(err)


def _not_there(request: Request, err: Exception) -> Response:
    assert isinstance(err, HTTPException)
    what = {404: f"there is nothing at {request.url.path}", 405: f"{request.method} is not for {request.url.path}"}
    headers = dict(err.headers or {})
    if err.status_code == 405:  # the framework tells those of the first route of this path alone
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    return as_json({"error": what.get(err.status_code, err.detail)}, err.status_code, headers)


def _methods(request: Request) -> set[str]:
    matching = (route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE)
    return {method for route in matching if isinstance(route, Route) for method in route.methods or ()}


def _broken(request: Request, err: Exception) -> Response:
    """A fault of ours; the log has its traceback."""
    log.error("http.fault %s %s", request.method, request.url.path, exc_info=err)
    return as_json({"error": "a fault of this server; its log says more"}, 500)
