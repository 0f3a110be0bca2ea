"""What a request of the inference protocol names: its model, and its body unpacked."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.requests import Request

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.serve.access.guard import hold
from edge_runtime.serve.api.catalog import Catalog, Known
from edge_runtime.serve.api.packing import unpack
from edge_runtime.serve.api.shelf import Shelf

if TYPE_CHECKING:
    from edge_runtime.serve.api.models import TensorModel

HOW = "tensors"


@dataclass(frozen=True, slots=True)
class Asked:
    cfg: EdgeConfig
    catalog: Catalog
    shelf: Shelf
    unpacking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def known(self, request: Request) -> Known:
        name, version = request.path_params["name"], request.path_params.get("version", "")
        return await self.catalog.lookup(name, version)

    async def model(self, known: Known) -> TensorModel:
        return await self.shelf.get(known, HOW, lambda: self.load(known))

    def load(self, known: Known) -> TensorModel:
        from edge_runtime.serve.api.models import BundleTensors, FileTensors

        kind = BundleTensors if known.is_bundle else FileTensors
        return kind(known.path, known.label, self.cfg)

    async def body(self, request: Request) -> bytes:
        body = await request.body()
        encoding = request.headers.get("content-encoding", "")
        if not encoding:
            return body
        async with self.unpacking:  # many that grow side by side would all be refused, where one by one each has room
            return await unpack(body, encoding, self.cfg.serve.max_body_mb << 20, lambda size: hold(request, size))
