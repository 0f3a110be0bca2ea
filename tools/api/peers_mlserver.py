"""The same model and the same requests, asked of the box and of mlserver: where the two answer otherwise."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MODEL = "commands-dscnn"
FILE = ROOT / "models" / MODEL / "1" / "model.tflite"
START_S = 60.0


def compare(url: str, python: Path, folder: Path) -> Sequence[tuple[str, str]]:
    """passed: the same status and the same content; else both, shortened."""
    port, grpc, metrics = (_free_port() for _ in range(3))
    place = folder / "mlserver"
    place.mkdir()
    settings = {
        "http_port": port,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "host": "127.0.0.1",
        "parallel_workers": 0,
    }
    (place / "settings.json").write_text(json.dumps(settings))
    model = {"name": MODEL, "implementation": "mlserver_model.Tflite", "parameters": {"uri": str(FILE), "version": "1"}}
    (place / "model-settings.json").write_text(json.dumps(model))
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tools" / "api")}
    command = [str(python.parent / "mlserver"), "start", str(place)]
    with (folder / "mlserver.log").open("w") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        try:
            theirs = f"http://127.0.0.1:{port}"
            if not _is_ready(theirs):
                return [("mlserver", f"does not start: {(folder / 'mlserver.log').read_text()[-400:]}")]
            return [_both(url, theirs, *one) for one in _requests(url)]
        finally:
            process.terminate()
            process.wait(timeout=30)


def _requests(url: str) -> list[tuple[str, str, str, Any, dict[str, str]]]:
    """Name, method, path, body, headers."""
    _, about = _ask(url, "GET", f"/v2/models/{MODEL}", None, {})
    tensor = about["inputs"][0]
    shape = [1 if size == -1 else size for size in tensor["shape"]]
    count = 1
    for size in shape:
        count *= size
    one = {"name": tensor["name"], "shape": shape, "datatype": tensor["datatype"], "data": [1] * count}
    infer = f"/v2/models/{MODEL}/infer"
    wrong = [
        ("no JSON", b"nonsense"), ("no inputs", {}), ("empty inputs", {"inputs": []}),
        ("unknown input", {"inputs": [one | {"name": "nope"}]}),
        ("unknown datatype", {"inputs": [one | {"datatype": "X"}]}),
        ("other datatype", {"inputs": [one | {"datatype": "FP64"}]}),
        ("too few values", {"inputs": [one | {"data": [1]}]}),
        ("wrong shape", {"inputs": [one | {"shape": [count]}]}),
        ("out of range", {"inputs": [one | {"data": [999] * count}]}),
        ("fractions", {"inputs": [one | {"data": [0.5] * count}]}),
        ("a batch of two", {"inputs": [one | {"shape": [2, *shape[1:]], "data": [1] * 2 * count}]}),
        ("unknown output", {"inputs": [one], "outputs": [{"name": "nope"}]}),
    ]  # fmt: skip
    return [
        ("server metadata", "GET", "/v2", None, {}), ("live", "GET", "/v2/health/live", None, {}),
        ("ready", "GET", "/v2/health/ready", None, {}), ("model ready", "GET", f"/v2/models/{MODEL}/ready", None, {}),
        ("model metadata", "GET", f"/v2/models/{MODEL}", None, {}),
        ("a version", "GET", f"/v2/models/{MODEL}/versions/1", None, {}),
        ("unknown model", "GET", "/v2/models/nope", None, {}),
        ("unknown version", "GET", f"/v2/models/{MODEL}/versions/9", None, {}),
        ("unknown path", "GET", "/v2/nothing", None, {}),
        ("infer", "POST", infer, {"id": "a", "inputs": [one]}, {}),
        ("infer without id", "POST", infer, {"inputs": [one]}, {}),
        ("nested data", "POST", infer, {"id": "a", "inputs": [one | {"data": _nested(shape)}]}, {}),
        *[(name, "POST", infer, body, {}) for name, body in wrong],
        ("index", "POST", "/v2/repository/index", {}, {}),
        ("load", "POST", f"/v2/repository/models/{MODEL}/load", {}, {}),
    ]  # fmt: skip


def _nested(shape: Sequence[int]) -> Any:
    return [_nested(shape[1:]) for _ in range(shape[0])] if shape else 1


def _both(
    ours: str, theirs: str, name: str, method: str, path: str, body: Any, headers: dict[str, str]
) -> tuple[str, str]:
    a, b = (_ask(url, method, path, body, headers) for url in (ours, theirs))
    return name, "passed" if a == b else f"ours {_short(a)} | mlserver {_short(b)}"


def _ask(url: str, method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[int, Any]:
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(
        url + path, content, {"Content-Type": "application/json", **headers}, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, _content(answer.read())
    except urllib.error.HTTPError as err:
        return err.code, _content(err.read())


def _content(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content.decode(errors="replace")


def _short(said: tuple[int, Any]) -> str:
    return f"{said[0]} {json.dumps(said[1])[:260]}"


def _is_ready(url: str) -> bool:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        try:
            return _ask(url, "GET", f"/v2/models/{MODEL}/ready", None, {})[0] == 200
        except OSError:
            time.sleep(0.2)
    return False


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
