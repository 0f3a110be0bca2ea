"""`POST /predict`: one file, judged as `edge-runtime predict` judges it; a picture comes back with findings drawn in.

The upload never touches a disk: it is a file in memory (memfd) for the time of its judgement, because the readers of
pictures and sounds take paths.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.serve.access.guard import as_json, door
from edge_runtime.serve.access.refusal import Refusal
from edge_runtime.serve.access.roles import Role
from edge_runtime.serve.api.catalog import Catalog, Known
from edge_runtime.serve.api.held_answer import HeldAnswer, held
from edge_runtime.serve.api.seat import Seat
from edge_runtime.serve.api.shelf import Shelf

if TYPE_CHECKING:
    from edge_runtime.serve.api.models import BundlePredictor

MOST_FIELDS = 8
AT_ONCE = 2  # pictures in work, of whatever models: 64 megapixels take 250 MB each
MOST_NAME = 255
PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
SOUNDS = (b"RIFF", b"fLaC", b"OggS")
JSON, JPEG = "application/json", "image/jpeg"
HOW = "predict"
PARAMETERS = ("model", "confidence")  # in the address


@dataclass(frozen=True, slots=True)
class Upload:
    name: str
    content: bytes


def predict_routes(cfg: EdgeConfig, catalog: Catalog, shelf: Shelf) -> Sequence[BaseRoute]:
    places = asyncio.Semaphore(AT_ONCE)

    async def predict(request: Request) -> Response:
        for said in request.query_params:
            if said not in PARAMETERS:
                raise Refusal(400, f"{said[:20]!r} is no parameter; {' and '.join(PARAMETERS)} are")
        confidence = _confidence(request.query_params.get("confidence"))
        wanted = request.query_params.get("model") or catalog.stations
        name, _, version = wanted.partition("@")
        known = await catalog.lookup(name, version)
        if not known.is_bundle:
            raise Refusal(422, f"{known.label} is a bare file: what its numbers mean is not known; ask it by v2")
        upload = await _upload(request)
        wants_json = _wants_json(request.headers.get("accept", ""))

        def work(model: BundlePredictor, seat: Seat) -> HeldAnswer:
            return _judged(model, upload, confidence, wants_json)

        async with places:
            answer = await shelf.ask(known, HOW, lambda: _load(known, cfg), work)
        return held(request, answer)

    return [door("/predict", predict, Role.PREDICT, ["POST"], is_write=False)]


def _load(known: Known, cfg: EdgeConfig) -> BundlePredictor:
    from edge_runtime.serve.api.models import BundlePredictor

    return BundlePredictor(known.path, known.label, cfg)


def _judged(model: BundlePredictor, upload: Upload, confidence: float | None, wants_json: bool) -> HeldAnswer:
    kinds, words = (PICTURES, "JPEG or PNG") if model.is_for_pictures else (SOUNDS, "WAV, FLAC or OGG")
    if not upload.content.startswith(kinds):
        raise Refusal(415, f"{upload.name!r} is no {words} file, which is what this model judges")
    with _in_memory(upload.content) as path:
        entry = model.file(path)
    entry["file"] = upload.name
    if "error" in entry:
        raise Refusal(400, f"{upload.name!r}: {entry['error']}")
    if confidence is not None and "regions" in entry:
        entry["regions"] = [one for one in entry["regions"] if one["score"] >= confidence]
    if wants_json or not model.is_for_pictures:
        return HeldAnswer(as_json(entry).body, 200, media_type=JSON)
    return HeldAnswer(_drawn(upload.content, entry), 200, _headers(entry), JPEG)


def _drawn(content: bytes, entry: dict[str, Any]) -> bytes:
    from edge_runtime.media.picture import decode_picture
    from edge_runtime.serve.api.annotated import annotated_jpeg

    return annotated_jpeg(decode_picture(content), entry)  # it was decoded before: it is a picture


def _headers(entry: dict[str, Any]) -> dict[str, str]:
    """For scripts that want the picture and the verdict at once."""
    score = entry["score"]
    return {
        "X-Verdict": str(entry["verdict"]),
        "X-Score": "" if score is None else f"{score:g}",
        "X-Model": str(entry["model"]),
        "Vary": "Accept",
    }


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[Path]:
    fd = os.memfd_create("upload", os.MFD_CLOEXEC)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


class _InMemory(MultiPartParser):
    """Its bytes are bounded already, by the guard: no temporary files."""

    spool_max_size = max_file_size = 1 << 40


async def _upload(request: Request) -> Upload:
    """The part called `file`. Raises Refusal."""
    kind = request.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/form-data"):
        raise Refusal(415, "POST a form (multipart/form-data) with the file in `file`: curl -F file=@part.jpg URL")
    if request.headers.get("content-encoding"):
        raise Refusal(415, "a form is taken as it is, without Content-Encoding")
    try:
        form = await _InMemory(request.headers, _pieces(request), max_files=1, max_fields=MOST_FIELDS).parse()
    except (MultiPartException, KeyError, UnicodeError, ValueError) as err:
        raise Refusal(
            400, f"the form cannot be read ({getattr(err, 'message', None) or err or type(err).__name__})"
        ) from err
    async with contextlib.AsyncExitStack() as closing:
        closing.push_async_callback(form.close)
        for said in PARAMETERS:
            if said in form:
                raise Refusal(400, f"{said} stands in the address, not in the form: /predict?{said}=...")
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise Refusal(400, "the form has no file called `file`")
        content = await file.read()
        return Upload(_plain(file.filename or "file"), content)


async def _pieces(request: Request) -> AsyncGenerator[bytes, None]:
    async for piece in request.stream():
        yield piece
        await asyncio.sleep(0)  # the parser is Python: others have their turn between two pieces


def _plain(name: str) -> str:
    """The name alone, of a path that a client may have sent, without what a terminal or a log would act on."""
    last = name.replace("\\", "/").rpartition("/")[2][:MOST_NAME]
    return "".join(letter if letter.isprintable() else "?" for letter in last) or "file"


def _confidence(said: str | None) -> float | None:
    if said is None:
        return None
    try:
        found = float(said)
    except ValueError:
        found = math.nan
    if not 0.0 <= found <= 1.0:
        raise Refusal(400, f"confidence={said[:20]!r} must be a number from 0 to 1")
    return found


def _wants_json(accept: str) -> bool:
    """Where both are as welcome, the picture."""
    json, jpeg = (_quality(accept, kind) for kind in (JSON, JPEG))
    if not json and not jpeg:
        raise Refusal(406, f"Accept: {accept[:60]}; the answer is {JPEG} or {JSON}")
    return json > jpeg


def _quality(accept: str, kind: str) -> float:
    """How welcome a kind is, 0..1, by the most specific range that names it (RFC 9110, 12.5.1)."""
    best = (0, 0.0) if accept.strip() else (1, 1.0)
    for entry in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in entry.split(";"))
        rank = {kind: 3, f"{kind.partition('/')[0]}/*": 2, "*/*": 1}.get(name, 0)
        if rank > best[0]:
            weight = next((text[2:] for text in parameters if text.startswith("q=")), "1")
            try:
                best = (rank, min(1.0, max(0.0, float(weight))))
            except ValueError:
                best = (rank, 0.0)
    return best[1]
