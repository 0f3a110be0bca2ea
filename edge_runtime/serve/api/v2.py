"""The Open Inference Protocol v2 over HTTP: doors, and what each answers. API.md has a line of curl for each.

Beside the protocol, what tritonclient's public client asks of any server: the index, load and unload, configuration and
statistics. What this server does not have (shared memory, traces) is refused in words, or told as what it is: none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from edge_runtime import __version__
from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.errors import ModelError
from edge_runtime.serve.access.guard import as_json, door, hold
from edge_runtime.serve.access.refusal import Refusal
from edge_runtime.serve.access.roles import Role
from edge_runtime.serve.api.answer import (
    Arrays,
    Form,
    as_bytes,
    batches_of,
    is_large_text,
    joined,
    refuse_too_much,
    refuse_unknown_outputs,
)
from edge_runtime.serve.api.catalog import Catalog, Known
from edge_runtime.serve.api.held_answer import HeldAnswer, held
from edge_runtime.serve.api.packing import chosen, pack, unpack
from edge_runtime.serve.api.question import Question, read_object, read_question
from edge_runtime.serve.api.seat import Seat
from edge_runtime.serve.api.shelf import Counted, Shelf

if TYPE_CHECKING:
    from edge_runtime.serve.api.models import TensorModel

NAME = "edge_runtime"
EXTENSIONS = ("binary_tensor_data", "model_repository", "model_configuration", "statistics")
LENGTH = "Inference-Header-Content-Length"
SHORT_BYTES = 64 * 1024  # of JSON or packed data: what is longer is read off the event loop
SHORT_VALUES = 16 * 1024  # written as JSON
HOW = "tensors"


def v2_routes(cfg: EdgeConfig, catalog: Catalog, shelf: Shelf) -> Sequence[BaseRoute]:
    v2 = V2(cfg, catalog, shelf)
    predict, everybody = Role.PREDICT, None
    one, version = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
    return [
        door("/v2", v2.server, predict),
        door("/v2/health/live", v2.live, everybody),
        door("/v2/health/ready", v2.server_ready, everybody),
        door("/v2/models/stats", v2.all_stats, predict),
        *[
            route
            for base in (one, version)
            for route in (
                door(base, v2.metadata, predict),
                door(f"{base}/ready", v2.ready, predict),
                door(f"{base}/infer", v2.infer, predict, ["POST"], is_write=False),
                door(f"{base}/config", v2.config, predict),
                door(f"{base}/stats", v2.stats, predict),
            )
        ],
        door("/v2/repository/index", v2.index, predict, ["POST"], is_write=False),
        door("/v2/repository/models/{name}/load", v2.load, predict, ["POST"]),
        door("/v2/repository/models/{name}/unload", v2.unload, predict, ["POST"]),
    ]


@dataclass(frozen=True, slots=True)
class V2:
    cfg: EdgeConfig
    catalog: Catalog
    shelf: Shelf
    unpacking: asyncio.Lock = field(default_factory=asyncio.Lock)

    # -- the server ---------------------------------------------------------------------------------------------------

    async def server(self, request: Request) -> Response:
        return as_json({"name": NAME, "version": __version__, "extensions": EXTENSIONS})

    async def live(self, request: Request) -> Response:
        return as_json({"live": True})

    async def server_ready(self, request: Request) -> Response:
        is_ready = self.shelf.health().is_working
        return as_json({"live": True, "ready": is_ready}, 200 if is_ready else 503)

    # -- one model ----------------------------------------------------------------------------------------------------

    async def metadata(self, request: Request) -> Response:
        known = await self._known(request)
        form = (await self._model(known)).form
        versions = [one.version for one in await asyncio.to_thread(self.catalog.versions, known.name)]
        return as_json(form.about() | {"versions": versions})

    async def ready(self, request: Request) -> Response:
        """It is there, and nothing is known against it: it is loaded when it is asked."""
        known = await self._known(request)
        if why := self.shelf.failure(known):
            raise Refusal(409, why)
        return as_json({"name": known.name, "ready": True})

    async def infer(self, request: Request) -> Response:
        began_ns = time.perf_counter_ns()
        known = await self._known(request)
        counted = self.shelf.counts.setdefault(known.label, Counted())
        try:
            answer = await self._infer(request, known, counted)
        except Refusal:
            counted.failed += 1
            raise
        counted.asked += 1
        counted.last_ms = int(time.time() * 1000)
        counted.took_ns += time.perf_counter_ns() - began_ns
        return answer

    async def _infer(self, request: Request, known: Known, counted: Counted) -> Response:
        body = await self._body(request)
        length = request.headers.get(LENGTH)
        is_short = len(body) <= SHORT_BYTES or ((length or "").isdecimal() and int(str(length)) <= SHORT_BYTES)
        question = (
            read_question(body, length) if is_short else await self.shelf.read(lambda: read_question(body, length))
        )

        def work(model: TensorModel, seat: Seat) -> tuple[Form, Arrays, int, int]:
            batches = batches_of(model.form, question)
            refuse_unknown_outputs(model.form, question)
            refuse_too_much(model.form, question, len(batches))
            began_ns = time.perf_counter_ns()
            outputs = joined(model.ask(batches, seat.tick))
            return model.form, outputs, len(batches), time.perf_counter_ns() - began_ns

        try:
            form, outputs, invokes, invoke_ns = await self.shelf.ask(known, HOW, lambda: self._load(known), work)
        except ModelError as err:
            raise Refusal(422, f"{known.label}: {err}") from err
        counted.invokes += invokes
        counted.invoke_ns += invoke_ns
        return await self._answer(request, form, question, outputs)

    async def _answer(self, request: Request, form: Form, question: Question, outputs: Arrays) -> Response:
        size = sum(output.nbytes for output in outputs)
        hold(request, size)
        if is_large_text(question, outputs, SHORT_VALUES):
            content, length = await asyncio.to_thread(as_bytes, form, question, outputs)
        else:
            content, length = as_bytes(form, question, outputs)
        headers = {"Content-Type": "application/json"}
        if length is not None:
            headers = {"Content-Type": "application/octet-stream", LENGTH: str(length)}
        encoding = chosen(request.headers.get("accept-encoding", ""), len(content))
        if encoding:
            content = await asyncio.to_thread(pack, content, encoding)
            headers |= {"Content-Encoding": encoding, "Vary": "Accept-Encoding"}
        return held(request, HeldAnswer(content, 200, headers), already=size)

    async def config(self, request: Request) -> Response:
        """As Triton has it, for clients that read their shapes there."""
        known = await self._known(request)
        form = (await self._model(known)).form
        return as_json(
            {
                "name": form.name,
                "platform": "tensorflow_lite",
                "backend": NAME,
                "version_policy": {"specific": {"versions": [form.version]}},
                "max_batch_size": 0,  # Triton's 0: the shapes below are whole, their first dimension is in them
                "input": _config_tensors(form, form.about()["inputs"]),
                "output": _config_tensors(form, form.about()["outputs"]),
            }
        )

    async def stats(self, request: Request) -> Response:
        return self._stats([(await self._known(request)).label])

    async def all_stats(self, request: Request) -> Response:
        return self._stats(sorted(self.shelf.counts))

    def _stats(self, labels: Sequence[str]) -> Response:
        return as_json({"model_stats": [_stats(label, self.shelf.counts.get(label, Counted())) for label in labels]})

    # -- the repository -----------------------------------------------------------------------------------------------

    async def index(self, request: Request) -> Response:
        """ready in the body: only those that are not known to be broken."""
        body = await self._body(request)
        only_ready = read_options(body).get("ready", False)
        if not isinstance(only_ready, bool):
            raise Refusal(400, "ready is true or false")
        known = await asyncio.to_thread(self.catalog.all)
        told = []
        for one in known:
            why = self.shelf.failure(one)
            state = "UNAVAILABLE" if why else "READY"
            told.append({"name": one.name, "version": one.version, "state": state, "reason": why})
        return as_json([one for one in told if not only_ready or one["state"] == "READY"])

    async def load(self, request: Request) -> Response:
        """Load it now, so that the first to ask does not wait."""
        parameters = read_options(await self._body(request)).get("parameters", {})
        if parameters != {}:
            raise Refusal(400, "a model is loaded as its bundle says; parameters and files are not taken")
        await self._model(await self._known(request))
        return as_json({})

    async def unload(self, request: Request) -> Response:
        """Give its memory back. It is loaded again when it is asked again."""
        read_options(await self._body(request))
        known = await self._known(request)
        for one in await asyncio.to_thread(self.catalog.versions, known.name):
            self.shelf.forget(one)
        return as_json({})

    # -- what they share ----------------------------------------------------------------------------------------------

    async def _known(self, request: Request) -> Known:
        name, version = request.path_params["name"], request.path_params.get("version", "")
        return await self.catalog.lookup(name, version)

    async def _model(self, known: Known) -> TensorModel:
        return await self.shelf.get(known, HOW, lambda: self._load(known))

    def _load(self, known: Known) -> TensorModel:
        from edge_runtime.serve.api.models import BundleTensors, FileTensors

        kind = BundleTensors if known.is_bundle else FileTensors
        return kind(known.path, known.label, self.cfg)

    async def _body(self, request: Request) -> bytes:
        body = await request.body()
        encoding = request.headers.get("content-encoding", "")
        if not encoding:
            return body
        async with self.unpacking:  # many that grow side by side would all be refused, where one by one each has room
            return await unpack(body, encoding, self.cfg.serve.max_body_mb << 20, lambda size: hold(request, size))


def read_options(body: bytes) -> dict[str, Any]:
    """A JSON object, or nothing at all. Raises Refusal (400)."""
    return read_object(body) if body.strip() else {}


def _config_tensors(form: Form, tensors: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"name": one["name"], "data_type": f"TYPE_{one['datatype']}", "dims": one["shape"]} for one in tensors]


def _stats(label: str, counted: Counted) -> dict[str, Any]:
    name, _, version = label.partition("@")
    whole = {"count": counted.asked, "ns": counted.took_ns}
    return {
        "name": name,
        "version": version,
        "last_inference": counted.last_ms,
        "inference_count": counted.invokes,
        "execution_count": counted.invokes,
        "inference_stats": {
            "success": whole,
            "fail": {"count": counted.failed, "ns": 0},
            "compute_infer": {"count": counted.invokes, "ns": counted.invoke_ns},
        },
    }
