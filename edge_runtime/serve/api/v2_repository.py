"""The repository of the inference protocol v2: which models there are, load and unload, and what was asked of each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from edge_runtime.serve.access.guard import as_json
from edge_runtime.serve.access.refusal import Refusal
from edge_runtime.serve.api.asked import Asked
from edge_runtime.serve.api.question import read_object
from edge_runtime.serve.api.shelf import Counted


@dataclass(frozen=True, slots=True)
class Repository:
    asked: Asked

    async def stats(self, request: Request) -> Response:
        return self._stats([(await self.asked.known(request)).label])

    async def all_stats(self, request: Request) -> Response:
        return self._stats(sorted(self.asked.shelf.counts))

    def _stats(self, labels: Sequence[str]) -> Response:
        return as_json(
            {"model_stats": [_stats(label, self.asked.shelf.counts.get(label, Counted())) for label in labels]}
        )

    async def index(self, request: Request) -> Response:
        """ready in the body: only those that are not known to be broken."""
        body = await self.asked.body(request)
        only_ready = read_options(body).get("ready", False)
        if not isinstance(only_ready, bool):
            raise Refusal(400, "ready is true or false")
        known = await asyncio.to_thread(self.asked.catalog.all)
        told = []
        for one in known:
            why = self.asked.shelf.failure(one)
            state = "UNAVAILABLE" if why else "READY"
            told.append({"name": one.name, "version": one.version, "state": state, "reason": why})
        return as_json([one for one in told if not only_ready or one["state"] == "READY"])

    async def load(self, request: Request) -> Response:
        """Load it now, so that the first to ask does not wait."""
        parameters = read_options(await self.asked.body(request)).get("parameters", {})
        if parameters != {}:
            raise Refusal(400, "a model is loaded as its bundle says; parameters and files are not taken")
        await self.asked.model(await self.asked.known(request))
        return as_json({})

    async def unload(self, request: Request) -> Response:
        """Give its memory back. It is loaded again when it is asked again."""
        read_options(await self.asked.body(request))
        known = await self.asked.known(request)
        for one in await asyncio.to_thread(self.asked.catalog.versions, known.name):
            self.asked.shelf.forget(one)
        return as_json({})


def read_options(body: bytes) -> dict[str, Any]:
    """A JSON object, or nothing at all. Raises Refusal (400)."""
    return read_object(body) if body.strip() else {}


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
