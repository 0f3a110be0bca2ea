"""Unix sockets of the box: bound over what a crash left, served in bounded time, with a look at who asks.

The kernel says who is asking (SO_PEERCRED, unix(7)): root, the daemon's own user, and members of its group are
answered, others are refused. A client that is slow, silent or sends nonsense costs one thread for the time it is given.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from edge_runtime.core.clock import Clock, monotonic_ns
from edge_runtime.core.errors import DeviceError
from edge_runtime.core.log import AUDIT
from edge_runtime.process.json_lines import as_line

log = logging.getLogger(__name__)

PATIENCE_S = 0.2  # for the words of a client where others wait for its place; one that means it sends them at once
QUEUE_LOOK_S = 0.02  # a queue that is full is asked again so often
LOOK_EVERY_S = 0.5  # how long the loop is silent at most
_PEERCRED = struct.Struct("3i")  # pid, uid, gid
_SO_PEERGROUPS = 59  # asm-generic/socket.h; Python does not name it
_MAX_GROUPS = 256  # getsockopt takes a buffer of 1024 bytes at most


class UnixServer:
    """Answers who may ask, each client on a thread of its own.

    answer: reads what a client wants and makes what it is sent; raises OSError when the client is gone. most_clients:
    further ones are hung up on, unless one is still `reading` and has been for PATIENCE_S: it makes room. send_s: time
    to take the answer. accept_every_s: pause after each client.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        answer: Callable[[socket.socket], bytes],
        *,
        most_clients: int,
        send_s: float,
        accept_every_s: float = 0.0,
        clock: Clock = monotonic_ns,
    ) -> None:
        self.path = path
        self._name = name
        self._answer = answer
        self._most_clients = most_clients
        self._send_s = send_s
        self._accept_every_s = accept_every_s
        self._clock = clock
        self._clients = threading.BoundedSemaphore(most_clients)
        self._reading: dict[socket.socket, float] = {}  # since when, the longest first
        self._reading_lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self.refused = self.busy = self.gone = 0  # may not ask; too many at once; did not wait
        self.progress_ns = clock()

    @property
    def is_open(self) -> bool:
        return self._listener is not None

    def start(self) -> None:
        """Raises DeviceError when the socket cannot be had, or somebody answers there."""
        _make_way(self.path)
        listener = _socket()
        try:
            listener.bind(str(self.path))
            self.path.chmod(0o660)
            listener.listen(self._most_clients)
        except OSError as err:
            listener.close()
            raise DeviceError(f"cannot open socket {self.path}: {err.strerror or err}", "set service.socket") from err
        listener.settimeout(LOOK_EVERY_S)
        self._listener = listener
        self._thread = threading.Thread(target=self._accept, args=(listener,), name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        listener, self._listener = self._listener, None
        if listener is None:
            return
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        if self._thread:
            self._thread.join(timeout=2 * LOOK_EVERY_S)
        listener.close()
        with contextlib.suppress(OSError):
            self.path.unlink()

    @contextlib.contextmanager
    def reading(self, client: socket.socket) -> Iterator[None]:
        """Around what reads the words of a client: as long as it has not said them it may be hung up on."""
        with self._reading_lock:
            self._reading[client] = time.monotonic()
        try:
            yield
        finally:
            with self._reading_lock:
                self._reading.pop(client, None)

    def _has_room(self) -> bool:
        """Take a place: a free one, or that of the slowest client once it has been given its time."""
        if self._clients.acquire(blocking=False):
            return True
        with self._reading_lock:
            slowest, since = next(iter(self._reading.items()), (None, 0.0))
        if slowest is None:
            return False  # all are being answered
        if self._clients.acquire(timeout=max(0.0, since + PATIENCE_S - time.monotonic())):
            return True
        with self._reading_lock:
            if self._reading.pop(slowest, None) is not None:
                with contextlib.suppress(OSError):
                    slowest.shutdown(socket.SHUT_RDWR)
        return self._clients.acquire(timeout=PATIENCE_S)

    def _accept(self, listener: socket.socket) -> None:
        while self._listener is listener:
            self.progress_ns = self._clock()
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            if not self._has_room():
                self.busy += 1
                client.close()
                continue
            threading.Thread(target=self._serve, args=(client,), name=f"{self._name}-client", daemon=True).start()
            time.sleep(self._accept_every_s)

    def _serve(self, client: socket.socket) -> None:
        try:
            with client:
                answer = self._refusal(client) or self._answer(client)
                client.settimeout(self._send_s)
                client.sendall(answer)
        except OSError:
            self.gone += 1
        except Exception:
            log.exception("%s request failed", self._name)
        finally:
            self._clients.release()

    def _refusal(self, client: socket.socket) -> bytes:
        pid, uid, gid = _peer(client)
        if uid in (0, os.geteuid()) or os.getegid() in (gid, *_peer_groups(client)):
            return b""
        self.refused += 1
        log.warning("%s.refused pid=%d uid=%d", self._name, pid, uid, extra=AUDIT)
        return as_line({"error": f"user {uid} may not talk to this box; become root or join its group"})


def connected(path: Path, timeout_s: float) -> socket.socket:
    """Raises OSError: FileNotFoundError or ConnectionRefusedError where nobody is, BlockingIOError or TimeoutError
    where so many wait all that time that the kernel queues no more."""
    until = time.monotonic() + timeout_s
    while True:
        sock = _socket()
        try:
            sock.settimeout(timeout_s)
            sock.connect(str(path))
        except BlockingIOError:
            sock.close()
            if time.monotonic() >= until:
                raise
            time.sleep(QUEUE_LOOK_S)
        except OSError:
            sock.close()
            raise
        else:
            return sock


def listener(path: Path) -> int | None:
    """The process that listens there; 0 when there is one that we may not talk to or that is busy, None for none."""
    try:
        with connected(path, 1.0) as sock:
            return _peer(sock)[0]
    except (PermissionError, TimeoutError, BlockingIOError):
        return 0
    except OSError:
        return None


def is_answering(path: Path) -> bool:
    """True when somebody holds the socket, also one that hangs; a socket file left by a crash does not count."""
    try:
        connected(path, 1.0).close()
    except (TimeoutError, BlockingIOError):
        return True
    except OSError:
        return False
    return True


def _socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)


def _make_way(path: Path) -> None:
    """A socket left by a crash is removed; one that answers, or a file of another kind, is not ours to remove."""
    if is_answering(path):
        raise DeviceError(f"{path} is answered by a running edge-runtime", "stop it or set service.socket")
    with contextlib.suppress(OSError):  # opening it says why not
        path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise DeviceError(f"{path} exists and is not a socket", "remove it or set service.socket")
        with contextlib.suppress(OSError):
            path.unlink()


def _peer(client: socket.socket) -> tuple[int, int, int]:
    pid, uid, gid = _PEERCRED.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))
    return pid, uid, gid


def _peer_groups(client: socket.socket) -> tuple[int, ...]:
    """Supplementary groups of the peer, from the kernel: /proc/PID of others is hidden from a hardened service."""
    try:
        groups = client.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MAX_GROUPS * 4)
    except OSError:
        return ()  # more groups than we ask for, or a kernel before 4.13
    return struct.unpack(f"{len(groups) // 4}I", groups)
