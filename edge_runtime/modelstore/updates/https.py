"""An update repository on a web server, read within bounds of time and size.

Not tuf's own fetcher: it bounds the pause between two bytes and not the whole, so that a server which drips one byte
every few seconds holds it for ever; it writes what it reads to /tmp, which may be memory; and it cannot go on where it
stopped. Here a watchdog shuts the socket when time is over, whatever the call is waiting for.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, quote, urlsplit
from urllib.request import getproxies, proxy_bypass

from edge_runtime import __version__
from edge_runtime.modelstore.updates.sources import PIECE_BYTES, Interrupted, NotThere, SourceError

_BEGINS = re.compile(r"bytes (\d+)-")


@dataclass(frozen=True, slots=True)
class Pace:
    """How slow a server may be. A file of n bytes has `grace_s` + n / `least_bytes_s`, then it is given up."""

    stall_s: float = 20.0  # between two bytes; a link by mobile radio sleeps for some seconds
    grace_s: float = 60.0  # name look-up, connection and the first byte
    least_bytes_s: float = 4000.0  # half of what GPRS does

    def limit_s(self, size: int) -> float:
        return self.grace_s + size / self.least_bytes_s


class HttpSource:
    """ca_file: PEM certificates of the authority that signed the server's; empty: the system's. proxy: http://HOST:PORT;
    empty: what the environment says (`https_proxy`, `no_proxy`). A redirection is not followed but told."""

    def __init__(self, url: str, *, ca_file: str = "", proxy: str = "", pace: Pace | None = None) -> None:
        self._url = _checked(url)
        self.where = url
        self._pace = pace or Pace()
        self._proxy = _proxy_for(self._url, proxy)
        self._context = _tls(ca_file) if self._url.scheme == "https" else None

    def pieces(self, name: str, most: int, start: int = 0) -> Iterator[bytes]:
        connection = self._connection()
        limit_s = self._pace.limit_s(most - start)
        watch = _Watchdog(limit_s)
        try:
            with self._ask(connection, watch, name, start) as answer:
                yield from self._body(answer, name, most, start)
            watch.refuse_bitten()  # a socket that was shut looks like the end of the file
        except (OSError, http.client.HTTPException, SourceError) as err:
            if watch.has_bitten:
                raise SourceError(
                    f"{self.where} sends {name} too slowly: given up after {limit_s:.0f} s",
                    "try again over a better link, or bring the repository on a stick",
                ) from err
            raise err if isinstance(err, SourceError) else self._told(name, err) from err
        finally:
            watch.stop()
            connection.close()

    def _body(self, answer: http.client.HTTPResponse, name: str, most: int, start: int) -> Iterator[bytes]:
        skip = start if answer.status == 200 else 0  # a server that cannot begin in the middle
        sent = start - skip
        claimed = answer.length
        got = 0
        while sent <= most and (piece := answer.read1(PIECE_BYTES)):
            got += len(piece)
            sent += len(piece)
            fresh = piece[min(skip, len(piece)) :]
            skip -= len(piece) - len(fresh)
            if fresh:
                yield fresh
        if claimed is not None and got < claimed and sent <= most:
            raise Interrupted(f"{self.where} broke off {name} after {got} of {claimed} bytes", "ask again")

    def _ask(
        self, connection: http.client.HTTPConnection, watch: _Watchdog, name: str, start: int
    ) -> http.client.HTTPResponse:
        headers = {"User-Agent": f"edge-runtime/{__version__}", "Accept-Encoding": "identity", "Connection": "close"}
        if start:
            headers["Range"] = f"bytes={start}-"
        path = f"{self._url.path.rstrip('/')}/{quote(name)}"
        is_relayed = self._proxy is not None and self._context is None
        target = f"{self._url.scheme}://{self._url.netloc}{path}" if is_relayed else path
        connection.connect()
        watch.guard(connection.sock)
        connection.request("GET", target, headers=headers)
        answer = connection.getresponse()
        try:
            watch.refuse_bitten()
            self._refuse_unfit(answer, name, start)
        except BaseException:
            answer.close()
            raise
        return answer

    def _refuse_unfit(self, answer: http.client.HTTPResponse, name: str, start: int) -> None:
        if answer.status in (403, 404):
            raise NotThere(f"{self.where} has no {name} (answer {answer.status})", "look at the address")
        if 300 <= answer.status < 400:
            to = answer.getheader("Location", "elsewhere")[:200]
            raise SourceError(f"{self.where} points from {name} to {to}", "name that server in updates.source")
        begins = _BEGINS.match(answer.getheader("Content-Range", ""))
        if answer.status != 200 and not (answer.status == 206 and start and begins and int(begins[1]) == start):
            raise SourceError(f"{self.where} answers {answer.status} for {name}", "look at the server, and try again")

    def _connection(self) -> http.client.HTTPConnection:
        host, port = str(self._url.hostname), self._url.port
        at, at_port = (str(self._proxy.hostname), self._proxy.port) if self._proxy else (host, port)
        if self._context is None:
            return http.client.HTTPConnection(at, at_port, timeout=self._pace.stall_s)
        connection = http.client.HTTPSConnection(at, at_port, timeout=self._pace.stall_s, context=self._context)
        if self._proxy:
            connection.set_tunnel(host, port or 443)
        return connection

    def _told(self, name: str, err: Exception) -> SourceError:
        if isinstance(err, ssl.SSLCertVerificationError):
            return SourceError(
                f"{self.where} shows a certificate that this box does not trust: {err.verify_message}",
                "set updates.ca_file to the authority that signed it, and look at the box's clock",
            )
        if isinstance(err, socket.gaierror):
            return SourceError(
                f"no address is known for {self._url.hostname}", "look at the network and updates.source"
            )
        if isinstance(err, TimeoutError):
            return Interrupted(
                f"{self.where} is silent: no byte of {name} in {self._pace.stall_s:g} s", "try again later"
            )
        what = getattr(err, "strerror", None) or str(err) or type(err).__name__
        return Interrupted(f"{self.where} cannot be read: {what}", "look at the network, and try again")


class _Watchdog:
    """Shuts the connection's socket after `limit_s`, so that whatever waits on it returns."""

    def __init__(self, limit_s: float) -> None:
        self._sock: socket.socket | None = None
        self.has_bitten = False
        self._timer = threading.Timer(limit_s, self._bite)
        self._timer.daemon = True

    def guard(self, sock: socket.socket) -> None:
        """The socket itself: the connection forgets it as soon as the server says that it will close."""
        self._sock = sock
        self._timer.start()

    def stop(self) -> None:
        self._timer.cancel()

    def refuse_bitten(self) -> None:
        if self.has_bitten:
            raise TimeoutError("time is over")

    def _bite(self) -> None:
        self.has_bitten = True
        if self._sock is not None:
            with contextlib.suppress(OSError):  # closed meanwhile
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)  # not TLS's own, which waits for the far side


def _checked(url: str) -> SplitResult:
    fix = "write https://HOST/PATH, without user and password"
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc and parts.port != 0
    except ValueError as err:
        raise SourceError(f"{url!r} is no address: {err}", fix) from err
    if not good:
        raise SourceError(f"{url.rpartition('@')[2]!r} is no address of an update repository", fix)
    return parts


def _proxy_for(url: SplitResult, given: str) -> SplitResult | None:
    text = given
    if not text and not proxy_bypass(str(url.hostname)):
        text = getproxies().get(url.scheme, "")
    if not text:
        return None
    proxy = urlsplit(text if "://" in text else f"http://{text}")
    if proxy.scheme != "http" or not proxy.hostname:
        raise SourceError(f"{text.rpartition('@')[2]!r} is no proxy", "write updates.proxy as http://HOST:PORT")
    return proxy


def _tls(ca_file: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(Path(ca_file).expanduser()) if ca_file else None)
    except (OSError, ssl.SSLError) as err:
        raise SourceError(
            f"updates.ca_file {ca_file} cannot be used: {err}", "name a PEM file of certificates"
        ) from err
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
