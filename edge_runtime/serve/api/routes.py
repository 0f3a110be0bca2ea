"""The routes of the prediction API, put together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.serve.access.guard import door
from edge_runtime.serve.api.catalog import Catalog
from edge_runtime.serve.api.predict import predict_routes
from edge_runtime.serve.api.shelf import Shelf
from edge_runtime.serve.api.v2 import v2_routes
from edge_runtime.serve.api.v2_absent import absent_routes

OPENAPI = Path(__file__).with_name("openapi.json")


def api_routes(cfg: EdgeConfig, shelf: Shelf) -> Sequence[BaseRoute]:
    catalog = Catalog(cfg)
    content = OPENAPI.read_bytes()

    async def openapi(request: Request) -> Response:
        return Response(content, 200, media_type="application/json")

    return [
        *v2_routes(cfg, catalog, shelf),
        *absent_routes(),
        *predict_routes(cfg, catalog, shelf),
        door("/openapi.json", openapi, role=None),
    ]
