"""The files of the uplink: read at each connection, and told by name, key and fix when one is no good.

OpenSSL says neither which file it could not use nor, of a locked key, anything at all: it asks the terminal.
"""

from __future__ import annotations

import codecs
import ssl
from pathlib import Path

from edge_runtime.core.files import as_text
from edge_runtime.sync.mqtt.settings import TlsFiles

# key of the station file -> what belongs there
WANTED = {
    "ca_file": "the certificate of the authority that signed the broker's",
    "cert_file": "this box's certificate",
    "key_file": "the private key of this box's certificate",
    "password_file": "the password of sync.username",
}
_OTHERS_KEY = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")  # the last: one EC, one RSA
_TOO_WEAK = ("EE_KEY_TOO_SMALL", "EE_MD_TOO_WEAK", "CA_MD_TOO_WEAK")


class FileTrouble(OSError):
    """A file of the uplink is no good. what: the file and its key in the station file. fix: what to do about it."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what}: {fix}")
        self.what, self.fix = what, fix


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """TLS 1.3, the broker's name checked. Raises FileTrouble when a file is no good."""
    if files.ca:
        _check_certificate("ca_file", files.ca)
    context = ssl.create_default_context(cafile=files.ca or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if files.cert:
        _check_certificate("cert_file", files.cert)
        _load_key(context, files)
    return context


def read_password(file: str) -> str | None:
    """None without a file. What an editor adds around it (a mark at the start, line ends, blanks behind) does not
    belong to it. Raises FileTrouble."""
    if not file:
        return None
    try:
        return as_text(_read("password_file", file)).rstrip()
    except UnicodeDecodeError as err:
        raise FileTrouble(f"sync.password_file = {file} is not UTF-8 text", _put("password_file")) from err


def _read(key: str, file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except FileNotFoundError as err:
        raise FileTrouble(f"sync.{key} = {file}: no such file", _put(key)) from err
    except IsADirectoryError as err:
        raise FileTrouble(f"sync.{key} = {file} is a folder", f"{_put(key)}, and name the file") from err
    except OSError as err:
        raise FileTrouble(
            f"sync.{key} = {file} cannot be read ({err.strerror})",
            "let the user of the service read it, chown or chmod",
        ) from err


def _put(key: str) -> str:
    return f"put {WANTED[key]} there"


def _check_certificate(key: str, file: str) -> None:
    raw = _read(key, file)
    is_marked = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if is_marked:
        raise FileTrouble(f"sync.{key} = {file} is UTF-16 text, which OpenSSL does not read", "save it as UTF-8")
    text = raw.decode("ascii", "ignore")  # comments between certificates may hold anything
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError) as err:
        form = "is no certificate in PEM form (-----BEGIN CERTIFICATE-----)"
        raise FileTrouble(f"sync.{key} = {file} {form}", _put(key)) from err


def _load_key(context: ssl.SSLContext, files: TlsFiles) -> None:
    _read("key_file", files.key)

    def is_locked() -> str:
        raise FileTrouble(
            f"sync.key_file = {files.key} is locked by a passphrase, which nobody is there to type",
            f"openssl pkey -in {files.key} -out FILE, chmod 600 FILE, and use that",
        )

    try:
        context.load_cert_chain(files.cert, files.key, is_locked)
    except ssl.SSLError as err:
        if err.reason in _OTHERS_KEY:
            raise FileTrouble(
                f"sync.key_file = {files.key} does not belong to sync.cert_file = {files.cert}",
                "put the key there that this certificate was made for",
            ) from err
        if err.reason in _TOO_WEAK:
            why = err.reason.lower().replace("_", " ")
            raise FileTrouble(
                f"sync.cert_file = {files.cert} is too weak ({why})", "make a new one (tools/certs client)"
            ) from err
        form = "is no private key in PEM form (-----BEGIN PRIVATE KEY-----)"
        raise FileTrouble(f"sync.key_file = {files.key} {form}", _put("key_file")) from err
