"""The control socket: how `status`, `top` and the page ask a running box, one JSON line in, one JSON line out.

The kernel says who is asking (SO_PEERCRED, unix(7)): root, the daemon's own user, and members of its group are
answered, others are refused. A client that is slow, silent or sends nonsense costs one thread for five seconds.

Clients must not cost the line anything, however many there are and however fast they ask: one is let in every 20 ms,
and what all of them ask for (`SharedAnswer`) is made once for those who ask within 100 ms.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge_runtime.core.errors import DeviceError, EdgeError
from edge_runtime.flow.components import Health, State

log = logging.getLogger(__name__)

MAX_REQUEST = 64 * 1024
CLIENT_TIMEOUT_S = 5.0  # for the whole of a request, however its bytes come
MAX_CLIENTS = 16
ACCEPT_EVERY_S = 0.02  # 16 clients that ask as fast as they can cost 60 % of a core without it
SHARED_S = 0.1
_PEERCRED = struct.Struct("3i")  # pid, uid, gid
_SO_PEERGROUPS = 59  # asm-generic/socket.h; Python does not name it
_MAX_GROUPS = 256  # getsockopt takes a buffer of 1024 bytes at most


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
                self._answer = _encoded({"ok": self._make(request)})
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
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._clients = threading.BoundedSemaphore(MAX_CLIENTS)
        self.refused = 0

    def start(self) -> None:
        """Raises DeviceError when the socket cannot be made. One left by a crash is replaced."""
        if is_answering(self.path):
            raise DeviceError(f"{self.path} is answered by a running edge-runtime; stop it or set service.socket")
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if not stat.S_ISSOCK(self.path.lstat().st_mode):
                raise DeviceError(f"{self.path} exists and is not a socket; remove it or set service.socket")
            with contextlib.suppress(OSError):
                self.path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            listener.bind(str(self.path))
            self.path.chmod(0o660)
            listener.listen(MAX_CLIENTS)
        except OSError as err:
            listener.close()
            raise DeviceError(
                f"cannot open control socket {self.path}: {err.strerror or err}; set service.socket"
            ) from err
        self._listener = listener
        self._thread = threading.Thread(target=self._accept, args=(listener,), name="control", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        listener, self._listener = self._listener, None
        if listener is None:
            return
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        with contextlib.suppress(OSError):
            self.path.unlink()
        if self._thread:
            self._thread.join(timeout=1.0)

    def health(self) -> Health:
        return Health(State.OK if self._listener else State.STOPPED)

    def report(self) -> Mapping[str, Any]:
        return {"refused": self.refused}

    def _accept(self, listener: socket.socket) -> None:
        while self._listener is listener:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            if not self._clients.acquire(blocking=False):
                client.close()
                continue
            threading.Thread(target=self._serve, args=(client,), name="control-client", daemon=True).start()
            time.sleep(ACCEPT_EVERY_S)

    def _serve(self, client: socket.socket) -> None:
        try:
            with client:
                answer = self._answer(client)
                client.settimeout(CLIENT_TIMEOUT_S)
                client.sendall(answer)
        except OSError:
            pass  # the client went away
        except Exception:
            log.exception("control request failed")
        finally:
            self._clients.release()

    def _answer(self, client: socket.socket) -> bytes:
        peer = _peer(client)
        if not _is_allowed(client, *peer[1:]):
            self.refused += 1
            log.warning("control.refused pid=%d uid=%d", peer[0], peer[1])
            return _encoded({"error": f"user {peer[1]} may not talk to this box; become root or join its group"})
        try:
            request = json.loads(_read_line(client, time.monotonic() + CLIENT_TIMEOUT_S))
            if not isinstance(request, dict):
                raise ValueError("a request is a JSON object")
            return self._do(str(request.get("do")), request)
        except (ValueError, RecursionError, EdgeError) as err:
            return _encoded({"error": str(err) or type(err).__name__})

    def _do(self, what: str, request: Mapping[str, Any]) -> bytes:
        if what in self._shared:
            return self._shared[what].encoded(request)
        if what not in self._handlers:
            known = ", ".join(sorted({*self._handlers, *self._shared}))
            raise ValueError(f"unknown request {request.get('do')!r} (known: {known})")
        try:
            return _encoded({"ok": self._handlers[what](request)})
        finally:
            for shared in self._shared.values():
                shared.forget()


def ask(path: Path, do: str, timeout_s: float = CLIENT_TIMEOUT_S, **words: Any) -> Any:
    """Ask the box behind the socket. Raises NobodyThere, Refused or NoAnswer: three things that are not the same."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
            until = time.monotonic() + timeout_s
            sock.settimeout(timeout_s)
            sock.connect(str(path))
            sock.sendall(json.dumps({"do": do, **words}).encode() + b"\n")
            line = _read_line(sock, until, limit=64 * MAX_REQUEST)
    except (FileNotFoundError, ConnectionRefusedError) as err:
        raise NobodyThere(
            f"no edge-runtime is running here (no answer on {path}); start it with: edge-runtime run"
        ) from err
    except PermissionError as err:
        raise Refused(f"may not open {path}; become root or join the group of the service") from err
    except (TimeoutError, BlockingIOError) as err:  # the second: so many wait already that the kernel queues no more
        raise NoAnswer(f"edge-runtime does not answer on {path} within {timeout_s:.0f} s; it may hang") from err
    except OSError as err:
        raise NoAnswer(f"cannot talk to {path}: {err}") from err
    try:
        answer = json.loads(line)
    except ValueError as err:
        raise NoAnswer(f"edge-runtime closed {path} without an answer; ask again") from err
    if "error" in answer:
        raise Refused(answer["error"])
    return answer["ok"]


def is_answering(path: Path) -> bool:
    """True when somebody holds the socket, also one that hangs; a socket file left by a crash does not count."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(1.0)
            sock.connect(str(path))
    except (TimeoutError, BlockingIOError):
        return True
    except OSError:
        return False
    return True


def listener(path: Path) -> int | None:
    """The process that listens there; 0 when there is one that we may not talk to or that is busy, None for none."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(1.0)
            sock.connect(str(path))
            return _peer(sock)[0]
    except (PermissionError, TimeoutError, BlockingIOError):
        return 0
    except OSError:
        return None


def _encoded(answer: Mapping[str, Any]) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode() + b"\n"


def _read_line(sock: socket.socket, until: float, limit: int = MAX_REQUEST) -> bytes:
    """until: on the monotonic clock, for all of it: a byte a second would keep it for hours. Raises TimeoutError."""
    data = bytearray()
    while not data.endswith(b"\n"):
        sock.settimeout(max(0.001, until - time.monotonic()))
        chunk = sock.recv(65536)
        if time.monotonic() >= until and chunk:
            raise TimeoutError
        if not chunk:
            break
        data += chunk
        if len(data) > limit:
            raise ValueError(f"more than {limit} bytes in one line")
    return bytes(data)


def _peer(client: socket.socket) -> tuple[int, int, int]:
    pid, uid, gid = _PEERCRED.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))
    return pid, uid, gid


def _is_allowed(client: socket.socket, uid: int, gid: int) -> bool:
    return uid in (0, os.geteuid()) or os.getegid() in (gid, *_peer_groups(client))


def _peer_groups(client: socket.socket) -> tuple[int, ...]:
    """Supplementary groups of the peer, from the kernel: /proc/PID of others is hidden from a hardened service."""
    try:
        groups = client.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MAX_GROUPS * 4)
    except OSError:
        return ()  # more groups than we ask for, or a kernel before 4.13
    return struct.unpack(f"{len(groups) // 4}I", groups)
