"""One HTTP/1.1 connection that stays open, each exchange on it bounded in time and size.

http.client, because it is there: one POST at a time needs neither a pool nor an event loop. What it lacks is a limit
for the whole: its timeout counts anew for each read, so that a server that drips bytes holds a call for hours. So the
socket under it is one that has only the time that is left.

Redirects are not followed: the station file names who may see pictures, not the server.
"""

from __future__ import annotations

import http.client
import io
import select
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult

from edge_runtime.core.errors import DeviceError, ProtocolError
from edge_runtime.serve.deadline import Deadline

READ_BUFFER = 64 * 1024


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    status: int
    headers: Mapping[str, str]  # names in small letters; of repeated ones the last
    body: bytes


class HttpConnection:
    """For one thread. Opened when it is first needed, and again after any trouble."""

    def __init__(self, url: SplitResult, tls: ssl.SSLContext | None) -> None:
        """tls: None for plain HTTP."""
        self._host = url.hostname or ""
        self._port = url.port or (443 if tls else 80)
        self._netloc = url.netloc
        self._tls = tls
        self._open: http.client.HTTPConnection | None = None
        self._sock: BoundedSocket | None = None  # of `_open`

    def exchange(
        self, verb: str, path: str, headers: Mapping[str, str], content: bytes, most: int, until: Deadline
    ) -> HttpAnswer:
        """most: bytes of the answer. Raises TimeoutError, DeviceError when the server cannot be reached, ProtocolError
        when what comes is no answer."""
        is_used = self._open is not None
        try:
            try:
                return self._exchange(verb, path, headers, content, most, until)
            except (ConnectionError, ssl.SSLEOFError):
                if not is_used:
                    raise
                self.close()  # it was closed while it was idle; asking a model again changes nothing there
                return self._exchange(verb, path, headers, content, most, until)
        except (TimeoutError, ProtocolError):
            self.close()
            raise
        except (OSError, http.client.HTTPException, ValueError) as err:
            self.close()
            raise self._trouble(err, until) from err

    def close(self) -> None:
        connection, self._open = self._open, None
        if connection is not None:
            connection.close()
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.end()

    def _exchange(
        self, verb: str, path: str, headers: Mapping[str, str], content: bytes, most: int, until: Deadline
    ) -> HttpAnswer:
        connection = self._connected(until)
        connection.request(verb, path, content or None, dict(headers))
        answer = connection.getresponse()
        if (answer.length or 0) > most or len(body := answer.read(most + 1)) > most:
            raise ProtocolError(f"the server sends more than {most} bytes for one answer")
        if answer.length:
            raise http.client.IncompleteRead(body)
        if answer.will_close:
            self.close()
        return HttpAnswer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, body)

    def _connected(self, until: Deadline) -> http.client.HTTPConnection:
        if self._sock is not None and self._sock.is_spoilt:
            self.close()
        if self._open is None or self._sock is None:
            self._sock = BoundedSocket(self._dial(until))
            self._open = http.client.HTTPConnection(self._host, self._port)
            self._open.auto_open = 0  # it would open one of its own, without limits
            self._open.sock = self._sock
        self._sock.until = until
        return self._open

    def _dial(self, until: Deadline) -> socket.socket:
        sock = socket.create_connection((self._host, self._port), timeout=until.left_s())
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(until.left_s())
            return self._tls.wrap_socket(sock, server_hostname=self._host) if self._tls else sock
        except BaseException:
            sock.close()
            raise

    def _trouble(self, err: Exception, until: Deadline) -> Exception:
        try:
            until.left_s()
        except TimeoutError as late:
            return late
        if not isinstance(err, OSError):
            return ProtocolError(f"the server {self._netloc} sends what is no HTTP answer: {type(err).__name__}")
        why = getattr(err, "strerror", None) or str(err) or type(err).__name__
        return DeviceError(
            f"the server {self._netloc} cannot be reached: {why}", "check model.remote.url and the server"
        )


class BoundedSocket:
    """As much of a socket as http.client uses; every read and write has only the time that `until` leaves."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._readers = 0
        self._is_closed = False
        self.until = Deadline(0.0)

    @property
    def is_spoilt(self) -> bool:
        """Between two exchanges something is there to be read: the end, or what nobody asked for."""
        watch = select.poll()
        watch.register(self._sock, select.POLLIN)
        return bool(watch.poll(0))

    def sendall(self, content: Any) -> None:
        self._sock.settimeout(self.until.left_s())
        self._sock.sendall(content)  # its timeout is for the whole

    def makefile(self, _mode: str) -> io.BufferedReader:
        self._readers += 1
        return io.BufferedReader(_Reads(self, self._sock), READ_BUFFER)

    def close(self) -> None:
        """http.client closes it before it has read an answer behind which the server hangs up: the last reader ends it,
        as with a real socket."""
        self._is_closed = True
        self._end_unread()

    def release(self) -> None:
        """A reader is done."""
        self._readers -= 1
        self._end_unread()

    def end(self) -> None:
        self._sock.close()

    def _end_unread(self) -> None:
        if self._is_closed and self._readers <= 0:
            self.end()


class _Reads(io.RawIOBase):
    """Closing it leaves the socket open: the connection may stay for the next exchange."""

    def __init__(self, bounded: BoundedSocket, sock: socket.socket) -> None:
        self._bounded = bounded
        self._sock = sock

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._bounded.release()
        super().close()

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._bounded.until.left_s())
        return self._sock.recv_into(buffer)
