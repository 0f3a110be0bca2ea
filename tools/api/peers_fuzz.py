"""Noise: bodies made of good ones, each a little broken. No answer may be a fault of ours, and no memory is kept."""

from __future__ import annotations

import gzip
import http.client
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import numpy as np

MODEL = "commands-dscnn"  # a small one: the bodies are what is tried
KEPT_MB = 24.0  # growth that is no leak: what allocators and caches settle at
SEED = 1
WARM_SHARE = 5  # the first fifth of the bodies settles caches


def fuzz(url: str, count: int, memory: Callable[[], int]) -> Sequence[tuple[str, str]]:
    draw = random.Random(SEED)
    host = urlsplit(url)
    connection = http.client.HTTPConnection(str(host.hostname), host.port, timeout=60)
    connection.request("GET", f"/v2/models/{MODEL}")
    about = json.load(connection.getresponse())["inputs"][0]
    told: Counter[int] = Counter()
    faults: list[str] = []
    before = memory()
    for number in range(count):
        if number == count // WARM_SHARE:
            before = memory()
        path, body, headers = broken(draw, about)
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            told[answer.status] += 1
            if answer.status > 499:
                faults.append(f"{answer.status} {content[:200]!r} for {body[:80]!r}")
            elif answer.status > 399 and not json.loads(content).get("error"):
                faults.append(f"{answer.status} without words")
        except (http.client.HTTPException, OSError) as err:
            told[-1] += 1
            faults.append(f"{type(err).__name__} {err} for {body[:80]!r}")
            connection.close()
    grown = (memory() - before) / 1e6
    connection.close()
    spread = ", ".join(f"{status}: {times}" for status, times in sorted(told.items()))
    return [
        (f"{count} bodies ({spread})", "passed" if not faults else "; ".join(faults[:5])),
        (f"memory {grown:+.1f} MB", "passed" if grown < KEPT_MB else "grows"),
    ]


def broken(draw: random.Random, about: dict[str, object]) -> tuple[str, bytes, dict[str, str]]:
    if draw.random() < 0.15:
        return form(draw)
    shape = [1 if size == -1 else size for size in about["shape"]]  # type: ignore[attr-defined]
    array = np.zeros(shape, np.int8 if about["datatype"] == "INT8" else np.float32)
    one: dict[str, object] = {"name": about["name"], "shape": shape, "datatype": about["datatype"]}
    binary = draw.random() < 0.5
    if binary:
        one["parameters"] = {"binary_data_size": array.nbytes}
    else:
        one["data"] = array.ravel().tolist()
    text = bytearray(json.dumps({"inputs": [one], "id": "x"}).encode())
    mutate(draw, text)
    body = bytes(text) + (array.tobytes() if binary else b"")
    length = len(text) if draw.random() < 0.8 else draw.randint(-5, 2 * len(body))
    headers = {"Inference-Header-Content-Length": str(length)} if binary else {}
    if draw.random() < 0.2:
        body = gzip.compress(body, 1)
        body = body[: draw.randint(0, len(body))] if draw.random() < 0.5 else body
        headers["Content-Encoding"] = draw.choice(["gzip", "gzip", "deflate", "br", ""])
    return f"/v2/models/{MODEL}/infer", body, headers


def form(draw: random.Random) -> tuple[str, bytes, dict[str, str]]:
    content = draw.choice([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b""]) + draw.randbytes(draw.randint(0, 300))
    text = bytearray(b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n')
    body = bytes(mutate(draw, text)) + content + b"\r\n--x--\r\n"
    model = draw.choice(["scratch", MODEL, "backbone", "nope", "%00", "a@b@c"])
    path = f"/predict?model={model}&confidence={draw.choice(['0.5', 'x', '-1', ''])}"
    return path, body, {"Content-Type": "multipart/form-data; boundary=x"}


def mutate(draw: random.Random, text: bytearray) -> bytearray:
    for _ in range(draw.choice([0, 1, 1, 2, 5])):
        at = draw.randrange(len(text) + 1)
        kind = draw.random()
        if kind < 0.4:
            text[at : at + draw.randint(1, 4)] = draw.randbytes(draw.randint(0, 4))
        elif kind < 0.8:
            text[at:at] = draw.choice(
                [b"null", b"-1", b"1e999", b"NaN", b"[", b"{", b'"', b"\\u0000", b"9" * 400, b"[" * 900]
            )
        else:
            del text[at : at + draw.randint(1, 40)]
    return text
