"""Pictures by HTTP PUT, on a thread of their own: `PUT <url>/<file>`.

A picture of up to 1 MiB goes whole, so that any WebDAV folder will do. A larger one goes in ranges (`Content-Range`)
and the server answers 308 with `Range: bytes=0-N` for what it has, as resumable uploads usually do; 409 or 416 begin
anew.
"""

from __future__ import annotations

import http.client
import queue
import re
import socket
import ssl
import threading
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from edge_runtime.sync.mqtt.refusal import NO_TLS
from edge_runtime.sync.mqtt.tls_files import FileTrouble
from edge_runtime.sync.outbox.pictures import Upload
from edge_runtime.sync.pictures.carrier import Refused

HTTP_CHUNK = 1024 * 1024
ANSWER_WAIT_S = 15.0
_NEVER = (413, 415, 422)  # too large, wrong kind, not understood: asking again gives the same answer
_ANEW = (409, 416)  # what it has is not what we think
_HAS = re.compile(r"bytes=0-(\d+)$")


class Answered(ConnectionError):
    """The server was reached and did not take the picture; it may later."""


class _Job(NamedTuple):
    upload: Upload
    chunk: bytes


class HttpCarrier:
    """One piece at a time. context: asked for TLS settings at each connection; wake: called with an answer."""

    via = "http"

    def __init__(
        self,
        url: str,
        box: str,
        context: Callable[[], ssl.SSLContext | None] = lambda: None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._url = urlsplit(url.rstrip("/"))
        self._box = box
        self._context = context
        self._wake = wake
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[_Job, int | Exception]] = queue.SimpleQueue()
        self._job: _Job | None = None  # whose answer is waited for
        self._thread: threading.Thread | None = None

    def chunk_bytes(self) -> int:
        return HTTP_CHUNK

    def send(self, upload: Upload, chunk: bytes) -> bool:
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name="evidence-upload", daemon=True)
            self._thread.start()
        self._job = _Job(upload, chunk)
        self._jobs.put(self._job)
        return True

    def result(self) -> int | None:
        while not self._answers.empty():
            job, answer = self._answers.get()
            if job is not self._job:
                continue  # nobody waits for this one any more
            if isinstance(answer, Exception):
                raise answer
            return answer
        return None

    def stop(self) -> None:
        """Does not wait for a piece on its way: the server has it or has it not, and says so next time."""
        thread, self._thread = self._thread, None
        if thread:
            self._jobs.put(None)
            thread.join(0.5)

    def _loop(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                self._answers.put((job, self._put(job)))
            except Refused as err:
                self._answers.put((job, err))
            except OSError as err:
                self._answers.put((job, ConnectionError(self._in_words(err))))
            except (http.client.HTTPException, ValueError) as err:
                self._answers.put((job, ConnectionError(f"the server's answer makes no sense: {err!r}")))
            self._wake()

    def _put(self, job: _Job) -> int:
        upload, end = job.upload, job.upload.acked + len(job.chunk)
        headers = {
            "Content-Type": "application/octet-stream",
            "X-Edge-Box": self._box,
            "X-Edge-Part": upload.part,
            "X-Edge-SHA256": upload.sha256,
        }
        if len(job.chunk) < upload.size:
            headers["Content-Range"] = f"bytes {upload.acked}-{end - 1}/{upload.size}"
        connection = self._connect()
        try:
            path = f"{self._url.path}/{quote(self._box)}/{quote(upload.file)}"
            connection.request("PUT", path, body=job.chunk, headers=headers)
            answer = connection.getresponse()
            answer.read(4096)
            return self._understand(answer, end)
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._url.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=ANSWER_WAIT_S, context=self._context())
        return http.client.HTTPConnection(host, port, timeout=ANSWER_WAIT_S)

    def _in_words(self, error: OSError) -> str:
        """Why the server was not reached, and what to look at. A FileTrouble and an answer of the server say it."""
        if isinstance(error, FileTrouble | Answered):
            return str(error)
        host, where = self._url.hostname or "", self._url.netloc
        if isinstance(error, ssl.SSLCertVerificationError):
            why = error.verify_message.lower().rstrip(".")
            return (f"the certificate of {where} is not trusted ({why}): check sync.evidence_url, sync.ca_file and the "
                    "clock of this box")  # fmt: skip
        if isinstance(error, ssl.SSLError) and error.reason in NO_TLS:
            return f"{where} does not seem to speak TLS: check port and https in sync.evidence_url"
        if isinstance(error, ssl.SSLError):
            why = (error.reason or "it hangs up").lower().replace("_", " ")
            return (f"{where} refuses TLS ({why}): it must speak TLS 1.3 and, if it wants a certificate of this box, "
                    "accept sync.cert_file")  # fmt: skip
        if isinstance(error, TimeoutError):
            return f"no answer of {where} within {ANSWER_WAIT_S:g} s: check sync.evidence_url, cable and firewall"
        if isinstance(error, socket.gaierror):
            return f"the name {host} is not known: check sync.evidence_url and the name server"
        if isinstance(error, ConnectionRefusedError):
            return f"nobody listens at {where}: check sync.evidence_url and that the server runs"
        why = error.strerror or str(error) or type(error).__name__
        return f"{where} is not reached ({why}): check sync.evidence_url, cable and firewall"

    @staticmethod
    def _understand(answer: http.client.HTTPResponse, end: int) -> int:
        """Bytes of the file that the server has."""
        if answer.status == 308:
            has = _HAS.match(answer.headers.get("Range", ""))
            return int(has.group(1)) + 1 if has else 0
        if 200 <= answer.status < 300:
            return end
        if answer.status in _ANEW:
            return 0
        if answer.status in _NEVER:
            raise Refused(f"the server answers {answer.status} {answer.reason}")
        raise Answered(f"the server answers {answer.status} {answer.reason}: check sync.evidence_url and rights")
