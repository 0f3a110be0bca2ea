"""A request that is refused, as an HTTP status and a sentence."""

from __future__ import annotations

from collections.abc import Mapping


class Refusal(Exception):
    """status: of HTTP, 4xx or 503. why: for the caller; it names what is wrong and the way out, and no secrets."""

    def __init__(self, status: int, why: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.headers = dict(headers or {})


class WrongToken(Refusal):
    """Somebody showed a token that is none: it is noted, whatever was asked for."""
