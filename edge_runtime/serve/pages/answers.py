"""The product's own errors as answers of HTTP, with their sentences."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response

from edge_runtime.core.errors import DeviceError, EdgeError, StorageError, UsageError
from edge_runtime.process.control import NoAnswer, NobodyThere
from edge_runtime.serve.access.refusal import Refusal

Endpoint = Callable[[Request], Awaitable[Response]]

_STATUS: Sequence[tuple[type[EdgeError], int]] = (
    (UsageError, 400),
    (StorageError, 404),
    (NobodyThere, 503),
    (NoAnswer, 503),
    (DeviceError, 409),
)


def told(endpoint: Endpoint) -> Endpoint:
    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except EdgeError as err:
            status = next((status for kind, status in _STATUS if isinstance(err, kind)), 500)
            raise Refusal(status, str(err)) from err

    return answer
