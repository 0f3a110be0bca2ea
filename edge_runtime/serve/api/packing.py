"""gzip and deflate, both ways. What comes in is unpacked up to a limit, however small it is packed."""

from __future__ import annotations

import zlib

from edge_runtime.serve.access.refusal import Refusal

LEVEL = 1  # tensors hardly shrink further, and this box has other things to do
LEAST_BYTES = 1024  # what is smaller goes as it is
_WINDOWS = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


def unpack(body: bytes, encoding: str, most_bytes: int) -> bytes:
    """encoding: the header Content-Encoding. Raises Refusal: 415, 400 or 413."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in _WINDOWS:
        known = {"Accept-Encoding": "gzip, deflate"}
        raise Refusal(415, f"Content-Encoding {name[:20]!r}; gzip and deflate are unpacked", known)
    unpacker = zlib.decompressobj(_WINDOWS[name])
    try:
        content = unpacker.decompress(body, most_bytes + 1)
    except zlib.error as err:
        raise Refusal(400, f"the body is no {name} ({err})") from err
    if len(content) > most_bytes:
        raise Refusal(413, f"unpacked, the body has more than {most_bytes >> 20} MB (serve.max_body_mb)")
    if not unpacker.eof:
        raise Refusal(400, f"the body ends in the middle of its {name}")
    if unpacker.unused_data:
        raise Refusal(400, f"{len(unpacker.unused_data)} bytes stand behind the {name}")
    return content


def chosen(accepted: str, size: int) -> str:
    """How an answer of that size is packed for a client with this Accept-Encoding; empty: not at all."""
    if not accepted or size < LEAST_BYTES:
        return ""
    weights = {}
    for entry in accepted.lower().split(","):
        name, _, rest = entry.partition(";")
        weights[name.strip()] = _weight(rest)
    return next((name for name in ("gzip", "deflate") if weights.get(name, weights.get("*", 0.0)) > 0.0), "")


def _weight(rest: str) -> float:
    key, _, value = rest.strip().partition("=")
    if key != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


def pack(content: bytes, encoding: str) -> bytes:
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, _WINDOWS[encoding])
    return packer.compress(content) + packer.flush()
