"""How a caller is recognised: one function each, asked in order. The first that knows who it is decides.

A recogniser gives None for a request that shows nothing of its kind, and raises Refusal for one that shows something
wrong: a wrong token is not an honest caller without one. What a recogniser needs beside (a session's CSRF check on
writes) is its own matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from starlette.requests import HTTPConnection

from edge_runtime.serve.access.limits import Buckets
from edge_runtime.serve.access.origin import is_loopback
from edge_runtime.serve.access.refusal import WrongToken
from edge_runtime.serve.access.roles import EVERYTHING, Caller, Role
from edge_runtime.serve.access.token import is_token

CHALLENGE = {"WWW-Authenticate": 'Bearer realm="edge-runtime"'}
TRIES_PER_S, TRIES_AT_ONCE = 0.2, 10  # wrong tokens of one address


@dataclass(frozen=True, slots=True)
class Peer:
    """From where it is asked. is_direct: nobody stands between, or only proxies that the station trusts."""

    address: str
    is_direct: bool


class Recogniser(Protocol):
    def __call__(self, request: HTTPConnection, peer: Peer) -> Caller | None: ...


class ByToken:
    """`Authorization: Bearer TOKEN`. Wrong ones are charged to their address; the right one is let in whatever was
    tried there before, so that nobody locks out those who share the address."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._tries = Buckets(TRIES_PER_S, TRIES_AT_ONCE)

    def __call__(self, request: HTTPConnection, peer: Peer) -> Caller | None:
        kind, _, said = request.headers.get("authorization", "").partition(" ")
        if not kind:
            return None
        if is_token(said.strip(), self._token) and kind.lower() == "bearer":
            return Caller("token", "token", frozenset({Role.PREDICT}))
        if not self._tries.take(peer.address):
            raise WrongToken(429, "too many wrong tokens from this address; wait a minute", {"Retry-After": "60"})
        raise WrongToken(401, "wrong token; `edge-runtime serve --token` on the box tells it", CHALLENGE)


def by_loopback(request: HTTPConnection, peer: Peer) -> Caller | None:
    """Whoever is on the box itself may ask for everything, as with its command line."""
    if peer.is_direct and is_loopback(peer.address):
        return Caller("loopback", "loopback", EVERYTHING)
    return None


def recognise(recognisers: Sequence[Recogniser], request: HTTPConnection, peer: Peer) -> Caller | None:
    for recogniser in recognisers:
        if caller := recogniser(request, peer):
            return caller
    return None
