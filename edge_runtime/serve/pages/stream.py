"""`/api/events`: what is new, to each page that looks, as server-sent events. One stream a tab."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from sse_starlette.sse import EventSourceResponse
from starlette.requests import Request
from starlette.responses import Response

from edge_runtime.serve.access.refusal import Refusal
from edge_runtime.serve.pages.hub import Hub, TooManyViewers, Viewer

LEAST_GAP_S = 0.2  # 5 a second
PING_S = 15  # a proxy closes what is silent for a minute


async def stream(hub: Hub, request: Request) -> Response:
    """Raises Refusal when too many look already."""
    try:
        viewer = hub.enter()
    except TooManyViewers as err:
        raise Refusal(503, str(err), {"Retry-After": "10"}) from err
    return EventSourceResponse(_events(hub, viewer), ping=PING_S, headers={"X-Accel-Buffering": "no"})


async def _events(hub: Hub, viewer: Viewer) -> AsyncIterator[dict[str, str]]:
    try:
        while new := await viewer.wait():
            for kind, document in new.items():
                yield {"event": kind, "data": document}
            await asyncio.sleep(LEAST_GAP_S)
    finally:
        hub.leave(viewer)
