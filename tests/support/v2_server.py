"""An inference server of the Open Inference Protocol v2, independent of the product, in a process of its own.

    python tests/support/v2_server.py MODEL.tflite NAME [--float] [--port N]

It runs the model with the plain interpreter and is strict: a request that is not to the letter is a 400. `--float`
serves the real numbers of a quantised model. What goes wrong is told while it runs, by `PUT /fault/NAME`; see FAULTS.
It prints its port when it listens. `serving` starts one for a test.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

START_S = 60.0
SLOW_S = 0.45
LENGTH = "Inference-Header-Content-Length"
TYPES = {"int8": "INT8", "uint8": "UINT8", "float32": "FP32", "int32": "INT32", "int64": "INT64"}
GIGABYTE = 1 << 30


class Served:
    """One TFLite model behind the names of the protocol."""

    def __init__(self, file: str, name: str, as_float: bool) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.name, self._as_float = name, as_float
        self._interpreter = Interpreter(model_path=file, num_threads=1)
        self._interpreter.allocate_tensors()
        self._lock = threading.Lock()
        (self._input,) = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()

    def describe(self) -> dict[str, Any]:
        about = {"name": self.name, "versions": ["7"], "platform": "tflite"}
        return {**about, "inputs": [self._told(self._input)], "outputs": [self._told(one) for one in self._outputs]}

    def _told(self, tensor: Mapping[str, Any]) -> dict[str, Any]:
        kind = "float32" if self._as_float else np.dtype(tensor["dtype"]).name
        return {"name": tensor["name"], "datatype": TYPES[kind], "shape": [int(size) for size in tensor["shape"]]}

    def infer(self, content: bytes) -> list[np.ndarray[Any, Any]]:
        dtype = np.float32 if self._as_float else self._input["dtype"]
        tensor = np.frombuffer(content, dtype).reshape(self._input["shape"])
        if self._as_float:
            scale, zero = self._input["quantization"]
            limits = np.iinfo(self._input["dtype"])
            tensor = np.clip(np.rint(tensor / scale) + zero, limits.min, limits.max).astype(self._input["dtype"])
        with self._lock:
            self._interpreter.set_tensor(self._input["index"], tensor)
            self._interpreter.invoke()
            found = [self._interpreter.get_tensor(one["index"]) for one in self._outputs]
        if not self._as_float:
            return found
        pairs = zip(found, self._outputs, strict=True)
        return [((raw.astype(np.float32) - one["quantization"][1]) * one["quantization"][0]) for raw, one in pairs]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    model: Served
    fault = ""
    token = ""
    is_binary = True
    last: Mapping[str, Any] = {}  # the last question, as it came over the wire
    seen = 0  # requests of the protocol, of any kind

    def log_message(self, format: str, *args: Any) -> None: ...

    def do_PUT(self) -> None:
        type(self).fault = self.path.removeprefix("/fault/").strip("/")
        self.answer(200, b"{}")

    def do_GET(self) -> None:
        if self.path == "/seen":
            return self.answer(200, str(self.seen).encode())
        if self.path == "/last":
            return self.answer(200, json.dumps(self.last).encode())
        type(self).seen += 1
        if self.fault.startswith("describe_"):
            return self.misbehave(FAULTS[self.fault])
        if self.token and self.headers.get("Authorization") != f"Bearer {self.token}":
            return self.answer(401, b'{"error": "no token"}')
        if self.path == "/v2":
            extensions = ["binary_tensor_data"] if self.is_binary else []
            return self.answer(200, json.dumps({"name": "peer", "version": "1", "extensions": extensions}).encode())
        known = f"/v2/models/{self.model.name}"
        if self.path not in (known, f"{known}/versions/7"):
            return self.answer(404, json.dumps({"error": f"no model at {self.path}"}).encode())
        return self.answer(200, json.dumps(self.model.describe()).encode())

    def do_POST(self) -> None:
        type(self).seen += 1
        body = self.rfile.read(int(self.headers["Content-Length"]))
        header = int(self.headers.get(LENGTH, len(body)))
        type(self).last = {
            "path": self.path, "headers": list(self.headers), "asked": body[:header].decode(),
            "tensor": body[header:].hex(),
        }  # fmt: skip
        try:
            asked, tensor = self.question(body)
        except (AssertionError, KeyError, ValueError) as err:
            return self.answer(400, json.dumps({"error": f"{type(err).__name__}: {err}"}).encode())
        if self.fault and not self.fault.startswith("describe_"):
            self.asked, self.tensor = asked, tensor
            return self.misbehave(FAULTS[self.fault])
        if not self.is_binary:
            self.asked, self.tensor = asked, tensor
            return in_json(self)
        return self.answer(200, *self.prediction(asked, tensor))

    def question(self, body: bytes) -> tuple[dict[str, Any], bytes]:
        assert self.path.startswith(f"/v2/models/{self.model.name}") and self.path.endswith("/infer"), self.path
        assert not self.token or self.headers.get("Authorization") == f"Bearer {self.token}", "no token"
        if not self.is_binary:
            return self.json_question(body)
        length = int(self.headers[LENGTH])
        asked = json.loads(body[:length])
        (tensor,), told = asked["inputs"], self.model.describe()
        assert set(asked) <= {"id", "parameters", "inputs", "outputs"}, asked
        assert {key: tensor[key] for key in ("name", "datatype", "shape")} == told["inputs"][0], tensor
        assert tensor["parameters"]["binary_data_size"] == len(body) - length, "sizes"
        assert [one["name"] for one in asked["outputs"]] == [one["name"] for one in told["outputs"]], "outputs"
        assert all(one["parameters"]["binary_data"] for one in asked["outputs"])
        return asked, body[length:]

    def json_question(self, body: bytes) -> tuple[dict[str, Any], bytes]:
        """As a server without the binary extension takes it; what it says back is JSON too."""
        assert LENGTH not in self.headers and self.headers["Content-Type"] == "application/json", "headers"
        asked = json.loads(body)
        (tensor,), told = asked["inputs"], self.model.describe()["inputs"][0]
        assert {key: tensor[key] for key in ("name", "datatype", "shape")} == told and "parameters" not in tensor
        assert not any("parameters" in one for one in asked["outputs"]), "no extension was offered"
        dtype = next(name for name, datatype in TYPES.items() if datatype == tensor["datatype"])
        return asked, np.array(tensor["data"], dtype).tobytes()

    def prediction(
        self, asked: Mapping[str, Any], tensor: bytes, change: Callable[[dict[str, Any]], None] = lambda _: None,
        outputs: Callable[[Any], Any] = lambda raw: raw,
    ) -> tuple[bytes, Mapping[str, str]]:  # fmt: skip
        """The body of an answer and its headers. change: of the JSON; outputs: of each array."""
        arrays = [outputs(raw) for raw in self.model.infer(tensor)]
        told = self.model.describe()
        document = {
            "model_name": self.model.name,
            "model_version": "7",
            "id": asked["id"],
            "outputs": [
                {**one, "shape": list(raw.shape), "datatype": TYPES[raw.dtype.name],
                 "parameters": {"binary_data_size": raw.nbytes}}
                for one, raw in zip(told["outputs"], arrays, strict=True)
            ],
        }  # fmt: skip
        change(document)
        header = json.dumps(document).encode()
        return header + b"".join(raw.tobytes() for raw in arrays), {LENGTH: str(len(header))}

    def answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        head = {"Content-Type": "application/octet-stream", "Content-Length": str(len(body)), **(headers or {})}
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        self.raw(f"HTTP/1.1 {status} told\r\n{lines}\r\n".encode() + body)

    def raw(self, content: bytes) -> None:
        with contextlib.suppress(OSError):
            self.wfile.write(content)
            self.wfile.flush()

    def misbehave(self, fault: Fault) -> None:
        with contextlib.suppress(OSError):
            fault(self)


Fault = Callable[[Handler], None]


def hang(to: Handler) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until and to.fault == "hang" and not is_gone(to):
        time.sleep(0.01)
    to.close_connection = True


def is_gone(to: Handler) -> bool:
    to.connection.setblocking(False)
    try:
        return to.connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    finally:
        to.connection.setblocking(True)


def slow(to: Handler) -> None:
    time.sleep(SLOW_S)
    to.answer(200, *to.prediction(to.asked, to.tensor))


def drip(to: Handler) -> None:
    """A header a byte at a time, each within any timeout of a single read."""
    to.wfile.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
    while not is_gone(to):
        to.wfile.write(b"x")
        time.sleep(0.02)


def drip_body(to: Handler) -> None:
    to.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not is_gone(to):
        to.wfile.write(b" ")
        time.sleep(0.02)


def status(code: int, headers: Mapping[str, str] | None = None) -> Fault:
    return lambda to: to.answer(code, b'{"error": "as the test wants it"}', headers)


def reset(to: Handler) -> None:
    to.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    to.close_connection = True
    to.connection.close()


def hang_up(to: Handler) -> None:
    to.close_connection = True


def saying(change: Callable[[dict[str, Any]], None], outputs: Callable[[Any], Any] = lambda raw: raw) -> Fault:
    return lambda to: to.answer(200, *to.prediction(to.asked, to.tensor, change, outputs))


def setting(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.update(values)


def of_first(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["outputs"][0].update(values)


def first_is(value: float) -> Callable[[Any], Any]:
    def changed(raw: Any) -> Any:
        raw = np.array(raw, np.float32)
        raw.ravel()[0] = value
        return raw

    return changed


def truncated(to: Handler) -> None:
    body, headers = to.prediction(to.asked, to.tensor)
    to.answer(200, body[: len(body) // 2], {**headers, "Content-Length": str(len(body))})
    to.close_connection = True
    to.connection.shutdown(socket.SHUT_RDWR)


def huge(to: Handler) -> None:
    to.wfile.write(f"HTTP/1.1 200 OK\r\nContent-Length: {10 * GIGABYTE}\r\n\r\n".encode())
    while not is_gone(to):
        to.wfile.write(bytes(1 << 16))


def huge_chunks(to: Handler) -> None:
    to.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not is_gone(to):
        to.wfile.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")


def endless(to: Handler) -> None:
    to.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
    while not is_gone(to):
        to.wfile.write(bytes(1 << 16))


def short_length(to: Handler) -> None:
    """The rest of the body lies in wait for the next question."""
    body, headers = to.prediction(to.asked, to.tensor)
    to.answer(200, body, {**headers, "Content-Length": str(len(body) - 100)})


def answers_twice(to: Handler) -> None:
    """An answer, and another one that nobody asked for."""
    body, headers = to.prediction(to.asked, to.tensor)
    to.answer(200, body, {**headers, "Content-Length": str(len(body))})
    to.answer(200, body, headers)


def http_10(to: Handler) -> None:
    """No fault: an old server, that says no length and closes the connection behind the body."""
    body, headers = to.prediction(to.asked, to.tensor)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    to.raw(f"HTTP/1.0 200 OK\r\n{lines}\r\n".encode() + body)
    to.close_connection = True


def http_10_cut(to: Handler) -> None:
    body, headers = to.prediction(to.asked, to.tensor)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    to.raw(f"HTTP/1.0 200 OK\r\n{lines}\r\n".encode() + body[:-7])
    to.close_connection = True


def closes_after(to: Handler) -> None:
    """No fault: the connection is kept, as HTTP/1.1 has it, and then it is not."""
    to.answer(200, *to.prediction(to.asked, to.tensor))
    to.close_connection = True


def gzip_bomb(to: Handler) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    to.answer(200, bomb, {"Content-Encoding": "gzip"})


def sends(content: bytes) -> Fault:
    def send(to: Handler) -> None:
        to.wfile.write(content)
        to.close_connection = True

    return send


def many_continues(to: Handler) -> None:
    while not is_gone(to):
        to.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


def in_json(to: Handler) -> None:
    """No fault: the outputs as numbers in the JSON, as a server without the binary extension sends them."""
    told, arrays = to.model.describe(), to.model.infer(to.tensor)
    outputs = [{**one, "data": raw.tolist()} for one, raw in zip(told["outputs"], arrays, strict=True)]
    document = {"model_name": to.model.name, "id": to.asked["id"], "outputs": outputs}
    to.answer(200, json.dumps(document).encode())


def body_of(content: bytes, headers: Mapping[str, str] | None = None) -> Fault:
    return lambda to: to.answer(200, content, headers)


FAULTS: Mapping[str, Fault] = {
    "hang": hang,
    "slow": slow,
    "drip": drip,
    "drip_body": drip_body,
    "error_500": status(500),
    "error_404": status(404),
    "redirect": status(302, {"Location": "http://127.0.0.1:9/"}),
    "reset": reset,
    "hang_up": hang_up,
    "wrong_id": saying(setting(id="part-0")),
    "no_id": saying(setting(id=None)),
    "wrong_model": saying(setting(model_name="another")),
    "hostile_version": saying(setting(model_version="7\x1b[2J" + "x" * 1000)),
    "wrong_shape": saying(of_first(shape=[1, 2, 3, 4])),
    "flat_shape": saying(lambda _: None, lambda raw: raw.ravel()),
    "wrong_type": saying(lambda _: None, lambda raw: raw.astype(np.int32)),
    "wrong_name": saying(of_first(name="other")),
    "no_outputs": saying(setting(outputs=[])),
    "size_lies": saying(of_first(parameters={"binary_data_size": 12})),
    "size_negative": saying(of_first(parameters={"binary_data_size": -1})),
    "nan": saying(lambda _: None, first_is(float("nan"))),
    "infinity": saying(lambda _: None, first_is(float("inf"))),
    "truncated": truncated,
    "huge": huge,
    "huge_chunks": huge_chunks,
    "endless": endless,
    "short_length": short_length,
    "answers_twice": answers_twice,
    "http_10": http_10,
    "http_10_cut": http_10_cut,
    "closes_after": closes_after,
    "gzip_bomb": gzip_bomb,
    "no_json": body_of(b"<html>hello</html>"),
    "json_list": body_of(b"[1, 2, 3]"),
    "deep_json": body_of(b"[" * 200_000),
    "long_length": body_of(b"{}", {LENGTH: "9" * 5000}),
    "negative_length": body_of(b"{}", {LENGTH: "-2"}),
    "packed": body_of(b"{}", {"Content-Encoding": "gzip"}),
    "header_flood": sends(b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % at for at in range(5000)) + b"\r\n"),
    "long_header": sends(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000 + b"\r\n\r\n"),
    "no_http": sends(b"SSH-2.0-OpenSSH_9.9\r\n"),
    "bad_chunks": sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "many_continues": many_continues,
    "in_json": in_json,
    "describe_500": status(500),
    "describe_other": body_of(
        json.dumps({"name": "scratch", "versions": ["7"], "platform": "x",
                    "inputs": [{"name": "a", "datatype": "INT8", "shape": [1, 8, 8, 3]}],
                    "outputs": [{"name": "b", "datatype": "INT8", "shape": [1, 2]}]}).encode()
    ),
    "describe_no_json": body_of(b"<html>"),
}  # fmt: skip


@dataclass
class Peer:
    """A running server, and its process."""

    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def does(self, fault: str = "") -> None:
        """From now on; empty: what it should."""
        request = urllib.request.Request(f"{self.url}/fault/{fault}", method="PUT")
        with urllib.request.urlopen(request, timeout=START_S):
            pass

    @property
    def seen(self) -> int:
        """Requests of the protocol so far."""
        with urllib.request.urlopen(f"{self.url}/seen", timeout=START_S) as answer:
            return int(answer.read())

    @property
    def last(self) -> dict[str, Any]:
        """The last question as it came: path, names of headers, JSON, tensor in hex digits."""
        with urllib.request.urlopen(f"{self.url}/last", timeout=START_S) as answer:
            return dict(json.load(answer))

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """The whole process hangs, with its connections open."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


def start(model: Path, name: str, *options: str) -> Peer:
    command = [sys.executable, str(Path(__file__)), str(model), name, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    port = process.stdout.readline().strip()
    assert port, "the inference server did not start"
    return Peer(process, int(port))


@contextlib.contextmanager
def serving(model: Path, name: str, *options: str) -> Iterator[Peer]:
    peer = start(model, name, *options)
    try:
        yield peer
    finally:
        peer.kill()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("name")
    parser.add_argument("--json", action="store_false", dest="is_binary")
    parser.add_argument("--float", action="store_true", dest="as_float")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--token", default="")
    given = parser.parse_args()
    Handler.is_binary = given.is_binary
    Handler.model, Handler.token = Served(given.model, given.name, given.as_float), given.token
    server = ThreadingHTTPServer(("127.0.0.1", given.port), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
