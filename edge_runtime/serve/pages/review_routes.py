"""The doors of the review: what waits for this person, and what others said once they have answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from edge_runtime.core.typed_json import to_json
from edge_runtime.dataset.review import Queue, answers, review_queue
from edge_runtime.recording.labels import Saying
from edge_runtime.serve.access.guard import as_json, door
from edge_runtime.serve.access.roles import Role
from edge_runtime.serve.pages.acts import text, whole
from edge_runtime.serve.pages.answers import told
from edge_runtime.serve.pages.line_view import LineView
from edge_runtime.serve.pages.shift import kept

SHOWN = 60  # of the queue at once; the page asks again


def review_routes(line: LineView, journal: Path, who: Callable[[Request, str], str]) -> Sequence[BaseRoute]:
    """who: the name of whoever asks, from what the page says it is."""

    async def queue(request: Request) -> Response:
        by, day = who(request, request.query_params.get("by", "")), request.query_params.get("day", "")
        found: Queue = await line.work(lambda: review_queue(journal, by, text({"day": day}, "day", 10)))
        shown = [to_json(one) for one in found.waiting[:SHOWN]]
        about = {"kinds": dict(found.kinds), "days": dict(found.days), "good": found.good}
        return as_json({"by": by, "queue": shown, "to_go": len(found.waiting), "defects": found.defects, **about})

    async def said(request: Request) -> Response:
        by, row = who(request, request.query_params.get("by", "")), whole(request.path_params, "row")
        part, sayings = await line.work(lambda: answers(journal, row, by))
        return as_json({"part": to_json(kept(part)), "labels": [_said(one) for one in sayings]})

    return [
        door("/api/review", told(queue), Role.VIEW),
        door("/api/parts/{row:int}/answers", told(said), Role.VIEW),
    ]


def _said(one: Saying) -> dict[str, object]:
    return {
        "number": one.id, "by": one.by, "label": one.label, "defect": one.defect, "comment": one.comment,
        "where": one.where, "at_ms": one.at_utc_ns // 10**6,
    }  # fmt: skip
