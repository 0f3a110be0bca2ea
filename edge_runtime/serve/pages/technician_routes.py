"""The doors of the technician's page: what doctor says, parts and their stories, models, events, the support bundle."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from edge_runtime.config.load import leaves
from edge_runtime.config.paths import JOURNAL, socket_path, state_dir
from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.errors import UsageError
from edge_runtime.modelstore.slots_file import Held
from edge_runtime.modelstore.store import open_store
from edge_runtime.predictors.ask_switch import ask_switch
from edge_runtime.serve.access.guard import as_json, door
from edge_runtime.serve.access.roles import Role
from edge_runtime.serve.pages.acts import text, whole
from edge_runtime.serve.pages.answers import told
from edge_runtime.serve.pages.health_watch import HealthWatch
from edge_runtime.serve.pages.line_view import LineView
from edge_runtime.serve.pages.own_commands import OwnCommands
from edge_runtime.serve.pages.technician_reads import events, find_parts, models, story

JUDGE_S = 90.0  # a model is loaded and asked once, on what the line leaves
BUNDLE_S = 180.0  # doctor is in it
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}(@[A-Za-z0-9][A-Za-z0-9._+-]{0,63})?")

Write = Callable[[str, Callable[[Request, Mapping[str, Any], str], Awaitable[Any]]], BaseRoute]


@dataclass(frozen=True, slots=True)
class Technician:
    cfg: EdgeConfig
    commands: OwnCommands
    health: HealthWatch


def technician_routes(line: LineView, parts: Technician, write: Write) -> Sequence[BaseRoute]:
    """write: makes the door of a write for who maintains, with its session checked."""
    cfg, state = parts.cfg, state_dir(parts.cfg)
    journal = state / JOURNAL

    async def health(request: Request) -> Response:
        return as_json(parts.health.look())

    async def search(request: Request) -> Response:
        return as_json(await line.work(lambda: find_parts(journal, request.query_params)))

    async def part(request: Request) -> Response:
        return as_json(await line.work(lambda: story(cfg, journal, whole(request.path_params, "row"))))

    async def happened(request: Request) -> Response:
        return as_json(await line.work(lambda: events(journal, request.query_params.get("severity", ""))))

    async def shelf(request: Request) -> Response:
        running = (await line.look()).model
        return as_json(await line.work(lambda: models(cfg, running)))

    async def settings(request: Request) -> Response:
        return as_json({"settings": dict(leaves(cfg))})

    async def bundle(request: Request) -> Response:
        with tempfile.TemporaryDirectory(prefix="edge-bundle-") as folder:
            file = Path(folder) / "support.tar.gz"
            await parts.commands.tell("bundle", "--out", str(file), within_s=BUNDLE_S)
            content = await line.work(file.read_bytes)
        headers = {"Content-Disposition": 'attachment; filename="support.tar.gz"', "Cache-Control": "no-store"}
        return Response(content, 200, headers, "application/gzip")

    async def switch(request: Request, words: Mapping[str, Any], by: str) -> Any:
        verb = text(words, "verb", 16)
        if verb not in ("promote", "rollback"):
            raise UsageError(f"verb {verb!r} is none of promote, rollback")
        known: Literal["promote", "rollback"] = "promote" if verb == "promote" else "rollback"
        wanted = Held(text(words, "version", 64), text(words, "digest", 64))
        asked = (known, wanted, f"page:{by}", text(words, "why", 200))
        name, version = await line.work(lambda: ask_switch(cfg, open_store(cfg), socket_path(cfg), state, asked))
        return {"now": f"{name}@{version}"}

    async def judge(request: Request, words: Mapping[str, Any], by: str) -> Any:
        model = text(words, "model", 130)
        if model and not MODEL_NAME.fullmatch(model):
            raise UsageError(f"{model!r} is no model; one is named like scratch@3")
        asked = ["--model", model] if model else []
        return await parts.commands.tell(
            "parts", "replay", "--part", str(whole(words, "row")), *asked, within_s=JUDGE_S
        )

    return [
        door("/api/health", told(health), Role.VIEW),
        door("/api/parts", told(search), Role.VIEW),
        door("/api/parts/{row:int}", told(part), Role.VIEW),
        door("/api/journal/events", told(happened), Role.VIEW),
        door("/api/models", told(shelf), Role.VIEW),
        door("/api/settings", told(settings), Role.MAINTAIN),
        door("/api/bundle", told(bundle), Role.MAINTAIN, is_write=True),
        write("/api/models/switch", switch),
        write("/api/judge", judge),
    ]
