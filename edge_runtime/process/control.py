"""The control socket: how `status`, `top` and the page ask a running box, one JSON line in, one JSON line out.

Clients must not cost the line anything, however many there are and however fast they ask: one is let in every 20 ms,
and what all of them ask for (`SharedAnswer`) is made once for those who ask within 100 ms.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge_runtime.core.errors import DeviceError, EdgeError, ProtocolError
from edge_runtime.flow.components import Health, State
from edge_runtime.process.json_lines import Lines, as_line
from edge_runtime.process.unix_socket import UnixServer, connected

MAX_REQUEST = 64 * 1024
CLIENT_TIMEOUT_S = 5.0  # for the whole of a request, however its bytes come
MAX_CLIENTS = 16
ACCEPT_EVERY_S = 0.02  # 16 clients that ask as fast as they can cost 60 % of a core without it
SHARED_S = 0.1


class NobodyThere(DeviceError):
    """No edge-runtime runs behind the socket."""


class Refused(DeviceError):
    """It runs, and says no, or lets nobody of ours in."""


class NoAnswer(DeviceError):
    """Somebody holds the socket and does not answer: it may hang, and must not be taken for absent."""


Handler = Callable[[Mapping[str, Any]], Any]


class SharedAnswer:
    """A handler whose answer is the same for all who ask within SHARED_S. Whoever comes first makes it, as JSON.

    `forget` when something was asked for that changes it: who asked must see it done.
    """

    def __init__(self, make: Handler, clock: Callable[[], float] = time.monotonic) -> None:
        self._make = make
        self._clock = clock
        self._lock = threading.Lock()
        self._answer = b""
        self._until = -1.0

    def encoded(self, request: Mapping[str, Any]) -> bytes:
        with self._lock:
            if self._clock() >= self._until:
                self._answer = as_line({"ok": self._make(request)})
                self._until = self._clock() + SHARED_S
            return self._answer

    def forget(self) -> None:
        with self._lock:
            self._until = -1.0


class ControlServer:
    """Answers requests `{"do": NAME, ...}` by the handlers it is given.

    shared: those that only tell, see SharedAnswer; the others may change what they tell.
    """

    name = "control"

    def __init__(
        self, path: Path, handlers: Mapping[str, Handler], shared: Mapping[str, SharedAnswer] | None = None
    ) -> None:
        self.path = path
        self._handlers = handlers
        self._shared = shared or {}
        self._server = UnixServer(
            path,
            self.name,
            self._answer,
            most_clients=MAX_CLIENTS,
            send_s=CLIENT_TIMEOUT_S,
            accept_every_s=ACCEPT_EVERY_S,
        )

    def start(self) -> None:
        """Raises DeviceError when the socket cannot be made. One left by a crash is replaced."""
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def health(self) -> Health:
        return Health(State.OK if self._server.is_open else State.STOPPED)

    def report(self) -> Mapping[str, Any]:
        return {"refused": self._server.refused}

    def _answer(self, client: socket.socket) -> bytes:
        try:
            with self._server.reading(client):
                request = Lines(client, CLIENT_TIMEOUT_S, MAX_REQUEST).line()
            return self._do(str(request.get("do")), request)
        except (ValueError, RecursionError, EdgeError) as err:
            return as_line({"error": str(err) or type(err).__name__})

    def _do(self, what: str, request: Mapping[str, Any]) -> bytes:
        if what in self._shared:
            return self._shared[what].encoded(request)
        if what not in self._handlers:
            known = ", ".join(sorted({*self._handlers, *self._shared}))
            raise ValueError(f"unknown request {request.get('do')!r} (known: {known})")
        try:
            return as_line({"ok": self._handlers[what](request)})
        finally:
            for shared in self._shared.values():
                shared.forget()


def ask(path: Path, do: str, timeout_s: float = CLIENT_TIMEOUT_S, **words: Any) -> Any:
    """Ask the box behind the socket. Raises NobodyThere, Refused or NoAnswer: three things that are not the same."""
    answer = exchange(path, {"do": do, **words}, timeout_s, "edge-runtime run")
    if "error" in answer:
        raise Refused(answer["error"])
    return answer["ok"]


def exchange(path: Path, request: Mapping[str, Any], timeout_s: float, start: str) -> dict[str, Any]:
    """What a daemon of the box answers to one line. start: the command that starts it. Raises as `ask` does."""
    until = time.monotonic() + timeout_s
    try:
        with connected(path, timeout_s) as sock:
            sock.sendall(as_line(request))
            return Lines(sock, until - time.monotonic(), 64 * MAX_REQUEST).line()
    except (FileNotFoundError, ConnectionRefusedError) as err:
        raise NobodyThere(f"no edge-runtime is running here (no answer on {path})", f"start it with: {start}") from err
    except PermissionError as err:
        raise Refused(f"may not open {path}", "become root or join the group of the service") from err
    except (TimeoutError, BlockingIOError) as err:  # the second: so many wait already that the kernel queues no more
        raise NoAnswer(f"edge-runtime does not answer on {path} within {timeout_s:.0f} s; it may hang") from err
    except OSError as err:
        raise NoAnswer(f"cannot talk to {path}: {err}") from err
    except ProtocolError as err:
        raise NoAnswer(f"edge-runtime closed {path} without an answer", "ask again") from err
