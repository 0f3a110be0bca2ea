"""The gate that every request passes before it reaches a door, and the doors, each with the role it asks for.

In order: is it us that is meant (Host); is it not too often; who asks; may a page of another site make this browser ask
(Origin, on writes). Then the door: may this caller. Then the body: not too large, not too slow. What a door marks as a
write is in the audit, whatever its answer; so is what the guard itself refused, a write or a wrong token (`refused`).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_runtime.serve.access.audit import Audit
from edge_runtime.serve.access.limits import Buckets
from edge_runtime.serve.access.origin import Hosts, Peers, host_of, is_loopback
from edge_runtime.serve.access.recognise import CHALLENGE, Peer, Recogniser, recognise
from edge_runtime.serve.access.refusal import Refusal, WrongToken
from edge_runtime.serve.access.refused import RefusedNotes
from edge_runtime.serve.access.roles import Caller, Role

log = logging.getLogger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]

READS = ("GET", "HEAD", "OPTIONS")
OWN_FETCHES = ("same-origin", "none")  # Sec-Fetch-Site of our own pages, and of what a person does
CALLER, PEER, HOLD = "edge_runtime.caller", "edge_runtime.peer", "edge_runtime.hold"  # in the scope
SAFE_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


def caller_of(request: HTTPConnection) -> Caller | None:
    """Who asks; None for a stranger, who gets to doors without a role alone."""
    found: Caller | None = request.scope.get(CALLER)
    return found


def peer_of(request: HTTPConnection) -> Peer:
    found: Peer = request.scope[PEER]
    return found


def hold(request: HTTPConnection, size: int) -> None:
    """Count what a body becomes, or an answer has. Raises Refusal (503) where all of them together are too much."""
    request.scope[HOLD](size)


def door(
    path: str,
    endpoint: Endpoint,
    role: Role | None,
    methods: Sequence[str] = ("GET",),
    is_write: bool | None = None,
) -> Route:
    """A route that lets callers with this role in; None lets everybody in, strangers too.

    is_write: it changes something and is audited; unless said otherwise every method but GET does.
    """
    writes = bool(set(methods) - set(READS)) if is_write is None else is_write

    async def opened(request: Request) -> Response:
        if role is not None:
            admit(caller_of(request), role)
        if writes and request.headers.get("sec-fetch-site", "none") not in OWN_FETCHES:  # a picture's address, say
            raise Refusal(403, "a page of another site may not ask this box to do something")
        return await endpoint(request)

    async def noted(request: Request) -> Response:
        audit: Audit = request.app.state.audit
        status, why = 500, ""
        try:
            response = await opened(request)
            status = response.status_code
        except Refusal as refusal:
            status, why = refusal.status, refusal.why
            raise
        finally:
            caller, address = caller_of(request), peer_of(request).address
            if caller is None and status >= 400:  # a stranger may ask for this without end
                refused: RefusedNotes = request.app.state.refused
                refused.note(address=address, method=request.method, path=request.url.path, status=status, why=why)
            else:
                audit.note(
                    who=caller.name if caller else "",
                    address=address,
                    method=request.method,
                    path=request.url.path,
                    status=status,
                )
        return response

    return Route(path, noted if writes else opened, methods=list(methods))


def admit(caller: Caller | None, role: Role) -> None:
    """Raises Refusal unless this caller has the role."""
    if caller is None:
        raise Refusal(401, "who asks? Send `Authorization: Bearer TOKEN`; `edge-runtime serve --token` tells it",
                      CHALLENGE)  # fmt: skip
    if not caller.may(role):
        raise Refusal(403, f"{caller.name} has no right to {role}")


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """most_bytes, within_s: of one body. together_bytes: of all that are held at a time."""

    most_bytes: int
    within_s: float
    together_bytes: int


class Guard:
    """The ASGI application around all others."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Hosts,
        peers: Peers,
        recognisers: Sequence[Recogniser],
        buckets: Buckets,
        is_loopback_free: bool,
        body: BodyLimits,
        refused: RefusedNotes,
    ) -> None:
        """is_loopback_free: loopback is the box itself, and may ask as often as it likes."""
        self._app = app
        self._hosts = hosts
        self._peers = peers
        self._recognisers = recognisers
        self._buckets = buckets
        self._is_loopback_free = is_loopback_free
        self._body = body
        self._refused = refused
        self._held_bytes = 0  # of all bodies in memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        answer = _Answer(send)
        own = 0

        def holds(size: int) -> None:
            nonlocal own
            own += size
            self._held_bytes += size
            if self._held_bytes > self._body.together_bytes:
                raise Refusal(503, "this box is sent, or has to send, too much at once; ask it again", _LATER)

        scope[HOLD] = holds
        try:
            self._look(scope)
            await self._app(scope, _Body(receive, scope, self._body, holds), answer)
        except Refusal as refusal:
            if answer.has_begun:
                raise
            self._note(scope, refusal)
            await refuse(refusal)(scope, receive, answer)
        finally:
            self._held_bytes -= own

    def _note(self, scope: Scope, refusal: Refusal) -> None:
        """What a door marks as a write is not known here: every method that does not read counts as one."""
        if scope["method"] not in READS or isinstance(refusal, WrongToken):
            peer: Peer = scope[PEER]
            self._refused.note(
                address=peer.address, method=scope["method"], path=scope["path"], status=refusal.status, why=refusal.why
            )

    def _look(self, scope: Scope) -> None:
        request = HTTPConnection(scope)
        client = scope.get("client")
        said_by = client[0] if client else ""
        address, is_direct = self._peers.real(said_by, scope["headers"])
        peer = scope[PEER] = Peer(address, is_direct)
        host = request.headers.get("host", "")
        if not self._hosts.knows(host):
            raise Refusal(421, f"this box is not called {host_of(host)!r}; a name it has is added to "
                               "serve.allowed_hosts")  # fmt: skip
        is_free = self._is_loopback_free and peer.is_direct and is_loopback(address)
        if not is_free and not self._buckets.take(address):
            wait = max(1, round(self._buckets.wait_s(address)))
            raise Refusal(429, "too many requests from this address (serve.requests_per_s)", {"Retry-After": str(wait)})
        if scope["method"] not in READS:
            self._refuse_foreign_page(request.headers, scope["scheme"], self._peers.is_proxy(said_by))
        scope[CALLER] = recognise(self._recognisers, request, peer)

    def _refuse_foreign_page(self, headers: Headers, scheme: str, is_proxied: bool) -> None:
        """is_proxied: a trusted proxy asks, and knows by which scheme and name it was asked."""
        asked = headers.get("host", "")
        if is_proxied:  # the last one is what the nearest proxy wrote
            scheme = headers.get("x-forwarded-proto", scheme).rpartition(",")[2]
            asked = headers.get("x-forwarded-host", asked).rpartition(",")[2]
        origin = headers.get("origin")
        if (origin is not None and not self._hosts.is_own_page(origin, scheme, asked)) or (
            headers.get("sec-fetch-site", "none") not in OWN_FETCHES
        ):
            raise Refusal(403, "a page of another site may not ask this box to do something; a proxy in front of it "
                               "passes on Host, or is in serve.trusted_proxies and its name in "
                               "serve.allowed_hosts")  # fmt: skip


class _Answer:
    """Adds the headers that every answer has, and knows whether one has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            message["headers"] = [*message["headers"], *SAFE_HEADERS]
        await self._send(message)


class _Body:
    """What is received, up to a size and a time. Raises Refusal: 413, 408, or what `holds` raises.

    holds: told how much of it is in memory.
    """

    def __init__(self, receive: Receive, scope: Scope, limits: BodyLimits, holds: Callable[[int], None]) -> None:
        self._receive = receive
        self._holds = holds
        self._limits = limits
        self._left = limits.most_bytes
        self._is_over = False
        self._until = asyncio.get_running_loop().time() + limits.within_s
        said = Headers(scope=scope).get("content-length", "")
        if said.isdecimal() and int(said) > limits.most_bytes:
            raise self._too_large()

    async def __call__(self) -> Message:
        if self._is_over:  # from here on only the end of the connection is waited for, which has its time
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise Refusal(408, f"the body did not come within {self._limits.within_s:g} s", _CLOSE) from None
        if message["type"] == "http.request":
            size = len(message.get("body", b""))
            self._left -= size
            self._is_over = not message.get("more_body", False)
            if self._left < 0:
                raise self._too_large()
            self._holds(size)
        return message

    def _too_large(self) -> Refusal:
        return Refusal(413, f"a body has at most {self._limits.most_bytes >> 20} MB here (serve.max_body_mb)", _CLOSE)


_CLOSE = {"Connection": "close"}  # what is left of the body is not read
_LATER = {"Retry-After": "1", **_CLOSE}


def refuse(refusal: Refusal) -> Response:
    """The answer to a request that is refused: `{"error": WHY}`, as the inference protocol has it."""
    return as_json({"error": refusal.why}, refusal.status, refusal.headers)


def as_json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    body = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    return Response(body, status, headers, "application/json")
