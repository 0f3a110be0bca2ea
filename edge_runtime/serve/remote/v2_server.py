"""One model of an inference server that speaks the Open Inference Protocol v2: another box, OVMS, Triton.

Every failure is told as one of four: the time was over (TimeoutError), the server cannot be reached (DeviceError), it
says no (Refused), what it says is no answer (ProtocolError).
"""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, urlsplit

from edge_runtime.config.schema import RemoteModelConfig
from edge_runtime.core.errors import ConfigError, DeviceError, ProtocolError
from edge_runtime.inference.picture_wire import MOST_BYTES, Answer, ServedModel, as_served
from edge_runtime.process.json_lines import as_object
from edge_runtime.serve.deadline import Deadline
from edge_runtime.serve.remote.http_connection import HttpAnswer, HttpConnection
from edge_runtime.serve.remote.v2_messages import answer, question, reason, takes_binary

MOST_ANSWER = MOST_BYTES + (1 << 20)  # raw outputs and their header; as JSON numbers a quarter of that
MOST_DESCRIPTION = 256 * 1024
MOST_TOKEN = 4096


class Refused(DeviceError):
    """The server answers, and says no."""


class V2Server:
    """For one thread: it has one connection."""

    def __init__(self, cfg: RemoteModelConfig, model: str) -> None:
        """model: its name on the server. Raises ConfigError when the files that the station names cannot be used."""
        url = urlsplit(cfg.url)
        self.netloc = url.netloc
        version = f"/versions/{quote(cfg.version, safe='')}" if cfg.version else ""
        self._root = f"{url.path.rstrip('/')}/v2"
        self._path = f"{self._root}/models/{quote(model, safe='')}{version}"
        self._model = model
        self._token_file = cfg.token_file
        self._http = HttpConnection(url, _tls(cfg) if url.scheme == "https" else None)

    def describe(self, until: Deadline) -> ServedModel:
        """What the server says of the model, and of how it takes tensors."""
        said = self._ask("GET", self._path, {}, b"", MOST_DESCRIPTION, until)
        served = as_served(as_object(said.body))
        if served.name != self._model:
            raise ProtocolError(f"asked for model {self._model!r}, the server describes {served.name!r}")
        return replace(served, takes_binary=self._takes_binary(until))

    def _takes_binary(self, until: Deadline) -> bool:
        """Servers that say nothing of themselves are taken for such that do."""
        try:
            said = self._ask("GET", self._root, {}, b"", MOST_DESCRIPTION, until)
            return takes_binary(as_object(said.body))
        except (Refused, ProtocolError):
            return True

    def infer(
        self, served: ServedModel, datatype: str, shape: tuple[int, ...], content: bytes, name: str, until: Deadline
    ) -> Answer:
        """What the model makes of a tensor. name: of the request, which the answer must repeat."""
        body, headers = question(served, datatype, shape, content, name)
        said = self._ask("POST", f"{self._path}/infer", headers, body, MOST_ANSWER, until)
        try:
            return answer(served, said.headers, said.body, name)
        except ProtocolError:
            self.close()  # whatever else it may have sent must not be read as the next answer
            raise

    def close(self) -> None:
        self._http.close()

    def _ask(
        self, verb: str, path: str, headers: dict[str, str], content: bytes, most: int, until: Deadline
    ) -> HttpAnswer:
        said = self._http.exchange(verb, path, {**headers, **self._authority()}, content, most, until)
        if 300 <= said.status < 400:
            raise Refused(
                f"the server answers {said.status}, a redirect, which is not followed", "set model.remote.url"
            )
        if said.status != 200:
            raise Refused(f"the server answers {said.status}: {reason(said.body)}")
        return said

    def _authority(self) -> dict[str, str]:
        """Read each time: tokens are changed under a running box."""
        if not self._token_file:
            return {}
        try:
            token = Path(self._token_file).read_text(encoding="ascii").strip()
        except (OSError, UnicodeError) as err:
            why = getattr(err, "strerror", None) or "not ASCII"
            raise Refused(f"no token: {self._token_file}: {why}", "check model.remote.token_file") from err
        if not token or len(token) > MOST_TOKEN or not token.isprintable():
            raise Refused(f"no token: {self._token_file} is not one line of text", "check model.remote.token_file")
        return {"Authorization": f"Bearer {token}"}


def _tls(cfg: RemoteModelConfig) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=cfg.ca_file or None)
    except (OSError, ValueError) as err:
        why = getattr(err, "strerror", None) or str(err)
        raise ConfigError(f"model.remote.ca_file = '{cfg.ca_file}': {why}") from err
