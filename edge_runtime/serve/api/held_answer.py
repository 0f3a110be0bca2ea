"""An answer that counts among the bytes this process holds until its client has taken it, or its connection ends."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edge_runtime.serve.access.guard import hold


class HeldAnswer(Response):
    """A request counts until its last message is sent, and the server sends one once those before it are taken: so the
    end of the body is a message of its own."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def held(request: Request, answer: HeldAnswer, already: int = 0) -> HeldAnswer:
    """already: bytes that are held for it. Raises Refusal (503) where all together are too much."""
    hold(request, max(0, len(answer.body) - already))
    return answer
