"""The HTTP server: uvicorn on a thread and an event loop of its own, as a component.

uvicorn waits for ever for the head of a request and takes connections without end; `_Connection` ends both, because a
few hundred slow clients must not shut everybody else out. What is still under way when the daemon ends gets LAST_S.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from edge_runtime.core.clock import Clock, monotonic_ns
from edge_runtime.core.errors import DeviceError
from edge_runtime.flow.components import Health, State
from edge_runtime.serve.head_limit import MOST_HEAD_BYTES, HeadLimit, refusal_of

log = logging.getLogger(__name__)

HEAD_S = 10.0  # for a client to say what it wants, from its connection or its first byte on
IDLE_S = 20  # between two requests of one connection
TAKE_S = 30.0  # for a client to take its answer
LINGER_S = 2.0  # for the rest of a body that nobody will read
LAST_S = 2  # for answers under way when the daemon ends; it has 5 s
START_S = 20.0
BACKLOG = 256
_FULL = b'{"error":"too many connections (serve.max_connections)"}'
_FULL_ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_FULL), _FULL)
)


class HttpServer:
    """A component. app: ASGI. tls: None for plain HTTP. told: given the address once it is bound, for port 0."""

    name = "http"

    def __init__(
        self,
        app: Any,
        host: str,
        port: int,
        *,
        most_connections: int,
        tls: ssl.SSLContext | None = None,
        told: Callable[[str], None] = lambda url: None,
        clock: Clock = monotonic_ns,
    ) -> None:
        self._host, self._asked_port = host, port
        self._tls = tls
        self._told = told
        self._clock = clock
        self._progress_ns: int | None = None
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None
        self._failure = ""
        self._full = [0]
        config = uvicorn.Config(
            HeadLimit(app),
            loop="asyncio",
            http=_connections(most_connections, self._full),
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,  # who asks behind a proxy is for `access/origin` to say
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=LAST_S,
            backlog=BACKLOG,
            h11_max_incomplete_event_size=MOST_HEAD_BYTES,
            timeout_notify=0,
            callback_notify=self._turned,
        )
        config.load()
        config.ssl = tls
        self._server = uvicorn.Server(config)

    @property
    def port(self) -> int:
        """The bound one; 0 while there is none."""
        return int(self._socket.getsockname()[1]) if self._socket else 0

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}"

    def start(self) -> None:
        """Raises DeviceError when the port cannot be had."""
        self._socket = _listen(self._host, self._asked_port)
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()
        until_ns = self._clock() + int(START_S * 1e9)
        while not self._server.started:
            self._thread.join(timeout=0.01)
            if not self._thread.is_alive() or self._clock() > until_ns:
                self.stop()
                raise DeviceError(f"the HTTP server does not start: {self._failure or 'no word from it'}")
        log.info("http.listening %s", self.url)
        self._told(self.url)

    def stop(self) -> None:
        self._server.should_exit = True
        if self._thread:
            self._thread.join(timeout=LAST_S + 2.0)
        if self._socket:
            self._socket.close()
            self._socket = None

    def health(self) -> Health:
        if self._socket is None:
            return Health(State.STOPPED)
        if self._failure:
            return Health(State.FAILED, self._failure)
        return Health(State.OK, self.url, self._progress_ns)

    def report(self) -> Mapping[str, Any]:
        state = self._server.server_state
        return {"connections": len(state.connections), "requests": state.total_requests, "turned_away": self._full[0]}

    # -- the loop's thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        assert self._socket is not None
        try:
            self._server.run(sockets=[self._socket])
        except Exception as err:
            self._failure = f"{type(err).__name__}: {err}"
            log.exception("http.server failed")

    async def _turned(self) -> None:
        self._progress_ns = self._clock()


def _listen(host: str, port: int) -> socket.socket:
    """Not by socket.create_server: asyncio switches Nagle's delay off only where TCP is named, which that does not.

    With it each answer of two packets came 40 ms late: 21 requests a second of one client, 690 without.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
        return listener
    except OSError as err:
        raise DeviceError(
            f"cannot listen on {host}:{port}: {err.strerror or err}", "set serve.host and serve.port"
        ) from err


def _connections(most: int, full: list[int]) -> type[asyncio.Protocol]:
    """The class of connections of one server. full: counts those that were turned away."""

    class Connection(_Connection):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > most:
                full[0] += 1
                transport.write(_FULL_ANSWER)
                transport.close()

    return Connection


class _Connection(H11Protocol):
    """One connection, whose requests have a time to begin in."""

    _patience: asyncio.TimerHandle | None = None
    _taking: asyncio.TimerHandle | None = None
    _answered = 0  # which request of the server was the last of this connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait(HEAD_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait(None)
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._taking = self.loop.call_later(TAKE_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._taking is not None:
            self._taking.cancel()
        self._taking = None

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE and self._is_answering:
            self._wait(None)
        elif self._patience is None:
            self._wait(HEAD_S)

    def send_400_response(self, msg: str) -> None:
        """In JSON, as every refusal. Called while the parser's exception is handled."""
        if not self._is_answering:  # else it would stand in the middle of another answer
            self.transport.write(refusal_of(sys.exc_info()[1]))
        self.transport.close()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._answered = self.server_state.total_requests
        if self.conn.their_state is h11.SEND_BODY:
            self._wait(LINGER_S)
        elif self.transport.get_write_buffer_size():
            self.loop.call_later(TAKE_S, self._give_up, self.server_state.total_requests)

    def _give_up(self, requests: int) -> None:
        """The answer is not taken: it would be kept for as long as the connection lives."""
        if self.transport.get_write_buffer_size() and self._answered == requests:
            self.transport.abort()

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self, seconds: float | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._patience = None if seconds is None else self.loop.call_later(seconds, self.transport.close)
