"""A browser that has shown who it is: a cookie that no script can read, and a second word that every write must say.

A page of another site can make a browser send the cookie, and cannot read the word (CSRF). Sessions live in memory: a
restart of `serve` asks for the token again. On the box itself a page needs no token; its session carries the word.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from edge_runtime.serve.access.recognise import Peer
from edge_runtime.serve.access.refusal import Refusal
from edge_runtime.serve.access.roles import Caller, Role, up_to

COOKIE = "edge_session"
WORD = "x-csrf-token"  # the header
MOST_SESSIONS = 256
IDLE_S = 12 * 3600  # longer than a shift
READS = ("GET", "HEAD")


@dataclass(slots=True)
class Session:
    """word: what writes must say. caller: None for one that has not shown who it is."""

    key: str
    word: str
    caller: Caller | None
    used_s: float


class Sessions:
    """For one thread: the event loop's."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: OrderedDict[str, Session] = OrderedDict()

    def begin(self, caller: Caller | None) -> Session:
        """The one that was not used for the longest time goes where there are too many."""
        session = Session(secrets.token_urlsafe(32), secrets.token_urlsafe(32), caller, self._clock())
        self._open[session.key] = session
        while len(self._open) > MOST_SESSIONS:
            self._open.popitem(last=False)
        return session

    def end(self, session: Session) -> None:
        self._open.pop(session.key, None)

    def of(self, request: HTTPConnection) -> Session | None:
        """The session of the request's cookie, if it is a live one."""
        session = self._open.get(request.cookies.get(COOKIE, ""))
        if session is None:
            return None
        if self._clock() - session.used_s > IDLE_S:
            self.end(session)
            return None
        session.used_s = self._clock()
        self._open.move_to_end(session.key)
        return session

    def check_word(self, request: HTTPConnection) -> Session:
        """The session of a write. Raises Refusal where it has none, or does not say its word."""
        session = self.of(request)
        if session is None or not hmac.compare_digest(request.headers.get(WORD, "").encode(), session.word.encode()):
            raise Refusal(403, "this write does not come from a page of this box, or the page is old: load it again")
        return session


class BySession:
    """A recogniser: the cookie of somebody who logged in."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def __call__(self, request: HTTPConnection, peer: Peer) -> Caller | None:
        session = self._sessions.of(request)
        if session is None or session.caller is None:
            return None
        if request.scope["method"] not in READS:
            self._sessions.check_word(request)
        return session.caller


def logged_in(name: str, role: Role) -> Caller:
    return Caller(name, "session", up_to(role))
