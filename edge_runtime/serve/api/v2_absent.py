"""What tritonclient's public client may also ask, and this server has none of: shared memory, traces, log settings.

Looking is answered with what there is, which is nothing; asking for it is refused in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from edge_runtime.serve.access.guard import Endpoint, as_json, door
from edge_runtime.serve.access.refusal import Refusal
from edge_runtime.serve.access.roles import Role

NO_TRACES = {"trace_level": ["OFF"], "trace_rate": "0", "trace_count": "0", "log_frequency": "0", "trace_file": ""}
LOGS = {"log_file": "", "log_info": True, "log_warning": True, "log_error": True, "log_verbose_level": 0,
        "log_format": "default"}  # fmt: skip


def absent_routes() -> Sequence[BaseRoute]:
    trace = ("/v2/trace/setting", "/v2/models/{name}/trace/setting")
    shared = [f"/v2/{kind}sharedmemory" for kind in ("system", "cuda")]
    return [
        *[_look(path, NO_TRACES) for path in trace],
        *[_refused(path, "this server makes no traces") for path in trace],
        _look("/v2/logging", LOGS),
        _refused("/v2/logging", "logging is set in the station file, service.log_level"),
        *[_look(f"{base}{path}", []) for base in shared for path in ("/status", "/region/{region}/status")],
        *[
            _refused(f"{base}/region/{{region}}/register", "this server shares no memory with clients: send the data")
            for base in shared
        ],
        *[
            door(f"{base}{path}", _told({}), Role.PREDICT, ["POST"], is_write=False)
            for base in shared
            for path in ("/unregister", "/region/{region}/unregister")
        ],
    ]


def _look(path: str, content: Any) -> BaseRoute:
    return door(path, _told(content), Role.PREDICT)


def _told(content: Any) -> Endpoint:
    async def told(request: Request) -> Response:
        return as_json(content)

    return told


def _refused(path: str, why: str) -> BaseRoute:
    async def refused(request: Request) -> Response:
        raise Refusal(404, why)

    return door(path, refused, Role.PREDICT, ["POST"], is_write=False)
