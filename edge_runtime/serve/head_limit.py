"""The head of a request: how large it may be, and the answers to one that is larger or is no HTTP.

h11 looks at the size of a head only while it is incomplete: one that came in a single segment passed, the same in two
did not. So a complete one is measured too, and both get the same answer.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

MOST_HEAD_BYTES = 16 * 1024
_TOO_LARGE = f"the head of a request has at most {MOST_HEAD_BYTES} bytes here"
_NO_HTTP = "this is no HTTP/1.1 request"


class HeadLimit:
    """The ASGI application around all others."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or head_bytes(scope) <= MOST_HEAD_BYTES:
            await self.app(scope, receive, send)
            return
        body = _body(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        headers = [(b"content-type", b"application/json"), (b"connection", b"close"),
                   (b"content-length", b"%d" % len(body))]  # fmt: skip
        await send({"type": "http.response.start", "status": 431, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def head_bytes(scope: Scope) -> int:
    """As it was sent, but for blanks that mean nothing."""
    line = len(scope["method"]) + len(scope["raw_path"]) + len(scope["query_string"]) + len("  HTTP/1.1\r\n\r\n")
    line += bool(scope["query_string"])
    return line + sum(len(name) + len(value) + len(": \r\n") for name, value in scope["headers"])


def refusal_of(error: Any) -> bytes:
    """The whole answer to what the parser of HTTP took exception to. error: its exception."""
    status = HTTPStatus.BAD_REQUEST
    if getattr(error, "error_status_hint", 400) == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    body = _body(status)
    return b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (
        status,
        status.phrase.encode(),
        len(body),
        body,
    )


def _body(status: HTTPStatus) -> bytes:
    return json.dumps({"error": _NO_HTTP if status == HTTPStatus.BAD_REQUEST else _TOO_LARGE}).encode()
