"""Why a broker cannot be reached, in words for whoever has to mend it: what to set, to renew, to plug in.

With TLS 1.3 our side has finished before the broker looks at our certificate, so that its refusal comes where the first
bytes are read or sent, inside the MQTT library. `TlsSocket` keeps it.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from edge_runtime.sync.mqtt.settings import CONNECT_WAIT_S, LinkSettings, TlsFiles
from edge_runtime.sync.mqtt.tls_files import FileTrouble

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# X509_V_ERR_* of OpenSSL, as SSLCertVerificationError.verify_code has them
_NOT_YET, _EXPIRED = 9, 10
_OTHER_NAME = (62, 64)
_NOT_SIGNED = (18, 19, 20, 21)
NO_TLS = ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
_RENEW = "renew it (tools/certs client)"
# what a broker says of our certificate (RFC 8446, 6.2), as OpenSSL names it
_ALERTS = {
    "CERTIFICATE_EXPIRED": ("has expired, says the broker", f"{_RENEW}, or mend the broker's clock"),
    "CERTIFICATE_REVOKED": ("was revoked, says the broker", "make a new one under another file name"),
    "UNKNOWN_CA": (
        "is not accepted, the broker does not know the authority that signed it",
        "take one of the authority that the broker's own settings name",
    ),
}
_LAST_BYTES = 16 * 1024  # one TLS record
_SET = "set sync.cert_file and sync.key_file"
_LOOK = "edge-runtime doctor looks at it, and the broker's log says more"


class Refusal(NamedTuple):
    """What keeps us from connecting, and what to do about it; empty where nobody knows."""

    what: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.fix}" if self.fix else self.what


class TlsSocket(ssl.SSLSocket):
    """Remembers what the broker said when it hung up, and closes when no handshake comes about. Set as
    `sslsocket_class` of a context."""

    fault: ssl.SSLError | None = None
    _last = b""  # what lay there when sending failed

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()  # the MQTT library leaves it open, and a box dials again for ever
            raise

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        try:
            return super().send(data, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError:
            with suppress(OSError):  # it is gone, and OpenSSL may read no more after another look
                self._last += self.recv(_LAST_BYTES)
            raise

    def pending(self) -> int:
        return len(self._last) + super().pending()

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        if self._last:
            last, self._last = self._last[:buflen], self._last[buflen:]
            return last
        try:
            return super().recv(buflen, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as err:
            self.fault = err
            raise


def explain_refusal(error: Exception, settings: LinkSettings) -> Refusal:
    """What keeps us from connecting, and what to look at. A FileTrouble says it itself."""
    if isinstance(error, FileTrouble):
        return Refusal(error.what, error.fix)
    if isinstance(error, ssl.SSLCertVerificationError):
        what, fix = _distrust(error, settings)
        return Refusal(f"the broker's certificate is not trusted: {what}", fix)
    if isinstance(error, TimeoutError):
        return Refusal(f"no answer within {CONNECT_WAIT_S:g} s", "check cable, address and firewall")
    if isinstance(error, socket.gaierror):
        what = f"the name {settings.host} is not known ({error.strerror})"
        return Refusal(what, "check sync.host and the name server")
    if isinstance(error, ConnectionRefusedError):
        return Refusal("nobody listens there", "check sync.host, sync.port and that the broker runs")
    if settings.tls and (isinstance(error, ConnectionError | ssl.SSLEOFError) or _reason(error) in NO_TLS):
        or_plain = "" if settings.username else ", or sync.tls = false"  # no advice of ours sends a password in clear
        fix = f"set sync.port to the broker's port for TLS, usually 8883{or_plain}"
        return Refusal(f"{settings.host}:{settings.port} does not seem to speak TLS", fix)
    if isinstance(error, UnicodeError):
        return Refusal(f"{settings.host} is no name of a host", "check sync.host")
    if isinstance(error, ssl.SSLError):
        return _explain_alert(error, settings.tls)
    return Refusal(str(error) or type(error).__name__)


def explain_hang_up(fault: ssl.SSLError | None, settings: LinkSettings) -> Refusal:
    """Why the broker ended the connection before it answered. fault: what TlsSocket kept."""
    if fault is not None:
        return _explain_alert(fault, settings.tls)
    what = "the broker hangs up before it answers"
    if settings.tls is None:
        where = f"{settings.host}:{settings.port}"
        return Refusal(what, f"if {where} speaks TLS, set sync.tls = true; else let it take retained wills and QoS 1")
    if not settings.tls.cert:
        return Refusal(what, f"if it wants a certificate of this box, {_SET}")
    return Refusal(f"{what}: it may not accept sync.cert_file = {settings.tls.cert}", _LOOK)


def _distrust(error: ssl.SSLCertVerificationError, settings: LinkSettings) -> tuple[str, str]:
    code, files = error.verify_code, settings.tls or TlsFiles()
    today = datetime.now(UTC).date()
    if code == _EXPIRED:
        return "it has expired, or its authority's has", f"renew it at the broker, or set this box's clock ({today})"
    if code == _NOT_YET:
        return "it is not good yet", f"set this box's clock ({today})"
    if code in _OTHER_NAME:
        what = f"it is made for another name than sync.host = {settings.host}"
        return what, "set sync.host to a name in it, or renew it with this one (tools/certs broker)"
    if code in _NOT_SIGNED and files.ca:
        what = f"it is not signed by the authority in sync.ca_file = {files.ca}"
        return what, "put the certificate of the broker's authority there"
    if code in _NOT_SIGNED:
        what = "no authority that this system knows signed it"
        return what, "set sync.ca_file to the certificate of the one that did"
    return error.verify_message, ""


def _explain_alert(error: ssl.SSLError, files: TlsFiles | None) -> Refusal:
    reason = _reason(error)
    alert = reason.partition("ALERT_")[2]
    if "VERSION" in reason or "PROTOCOL" in reason:
        return Refusal("the broker does not speak TLS 1.3", "update it, or allow that version in its settings")
    if not alert:
        return Refusal(f"TLS failed ({reason or error})")
    words = alert.lower().replace("_", " ")
    if files is None or not files.cert:
        return Refusal(f"the broker wants a certificate of this box ({words})", _SET)
    what, fix = _ALERTS.get(alert) or (f"is not accepted by the broker ({words})", _LOOK)
    return Refusal(f"sync.cert_file = {files.cert} {what}", fix)


def _reason(error: Exception) -> str:
    return (error.reason or "") if isinstance(error, ssl.SSLError) else ""
