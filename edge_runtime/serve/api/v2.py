"""The Open Inference Protocol v2 over HTTP: doors, and what each answers. API.md has a line of curl for each.

Beside the protocol, what tritonclient's public client asks of any server: the index, load and unload, configuration and
statistics. What this server does not have (shared memory, traces) is refused in words, or told as what it is: none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
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
from edge_runtime.serve.api.asked import HOW, Asked
from edge_runtime.serve.api.catalog import Catalog, Known
from edge_runtime.serve.api.held_answer import HeldAnswer, held
from edge_runtime.serve.api.packing import chosen, pack
from edge_runtime.serve.api.question import Question, read_question
from edge_runtime.serve.api.seat import Seat
from edge_runtime.serve.api.shelf import Counted, Shelf
from edge_runtime.serve.api.v2_repository import Repository

if TYPE_CHECKING:
    from edge_runtime.serve.api.models import TensorModel

NAME = "edge_runtime"
EXTENSIONS = ("binary_tensor_data", "model_repository", "model_configuration", "statistics")
LENGTH = "Inference-Header-Content-Length"
SHORT_BYTES = 64 * 1024  # of JSON or packed data: what is longer is read off the event loop
SHORT_VALUES = 16 * 1024  # written as JSON


def v2_routes(cfg: EdgeConfig, catalog: Catalog, shelf: Shelf) -> Sequence[BaseRoute]:
    asked = Asked(cfg, catalog, shelf)
    v2, repository = V2(asked), Repository(asked)
    predict, everybody = Role.PREDICT, None
    one, version = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
    return [
        door("/v2", v2.server, predict),
        door("/v2/health/live", v2.live, everybody),
        door("/v2/health/ready", v2.server_ready, everybody),
        door("/v2/models/stats", repository.all_stats, predict),
        *[
            route
            for base in (one, version)
            for route in (
                door(base, v2.metadata, predict),
                door(f"{base}/ready", v2.ready, predict),
                door(f"{base}/infer", v2.infer, predict, ["POST"], is_write=False),
                door(f"{base}/config", v2.config, predict),
                door(f"{base}/stats", repository.stats, predict),
            )
        ],
        door("/v2/repository/index", repository.index, predict, ["POST"], is_write=False),
        door("/v2/repository/models/{name}/load", repository.load, predict, ["POST"]),
        door("/v2/repository/models/{name}/unload", repository.unload, predict, ["POST"]),
    ]


@dataclass(frozen=True, slots=True)
class V2:
    asked: Asked

    # -- the server ---------------------------------------------------------------------------------------------------

    async def server(self, request: Request) -> Response:
        return as_json({"name": NAME, "version": __version__, "extensions": EXTENSIONS})

    async def live(self, request: Request) -> Response:
        return as_json({"live": True})

    async def server_ready(self, request: Request) -> Response:
        is_ready = self.asked.shelf.health().is_working
        return as_json({"live": True, "ready": is_ready}, 200 if is_ready else 503)

    # -- one model ----------------------------------------------------------------------------------------------------

    async def metadata(self, request: Request) -> Response:
        known = await self.asked.known(request)
        form = (await self.asked.model(known)).form
        versions = [one.version for one in await asyncio.to_thread(self.asked.catalog.versions, known.name)]
        return as_json(form.about() | {"versions": versions})

    async def ready(self, request: Request) -> Response:
        """It is there, and nothing is known against it: it is loaded when it is asked."""
        known = await self.asked.known(request)
        if why := self.asked.shelf.failure(known):
            raise Refusal(409, why)
        return as_json({"name": known.name, "ready": True})

    async def infer(self, request: Request) -> Response:
        began_ns = time.perf_counter_ns()
        known = await self.asked.known(request)
        counted = self.asked.shelf.counts.setdefault(known.label, Counted())
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
        body = await self.asked.body(request)
        length = request.headers.get(LENGTH)
        is_short = len(body) <= SHORT_BYTES or ((length or "").isdecimal() and int(str(length)) <= SHORT_BYTES)
        question = (
            read_question(body, length)
            if is_short
            else await self.asked.shelf.read(lambda: read_question(body, length))
        )

        def work(model: TensorModel, seat: Seat) -> tuple[Form, Arrays, int, int]:
            batches = batches_of(model.form, question)
            refuse_unknown_outputs(model.form, question)
            refuse_too_much(model.form, question, len(batches))
            began_ns = time.perf_counter_ns()
            outputs = joined(model.ask(batches, seat.tick))
            return model.form, outputs, len(batches), time.perf_counter_ns() - began_ns

        try:
            form, outputs, invokes, invoke_ns = await self.asked.shelf.ask(
                known, HOW, lambda: self.asked.load(known), work
            )
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
        known = await self.asked.known(request)
        form = (await self.asked.model(known)).form
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


def _config_tensors(form: Form, tensors: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"name": one["name"], "data_type": f"TYPE_{one['datatype']}", "dims": one["shape"]} for one in tensors]
