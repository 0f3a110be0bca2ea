"""What the pages are made of: the doors of `serve` that a browser opens. PAGES.md has them all as a table.

Pages and their files stand open for everybody, and tell nothing of the box; everything under `api/` asks who it is.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute

from edge_runtime.core.errors import StorageError, UsageError
from edge_runtime.core.messages import OPERATOR
from edge_runtime.core.typed_json import to_json
from edge_runtime.serve.access.guard import admit, as_json, caller_of, door, peer_of
from edge_runtime.serve.access.limits import Buckets
from edge_runtime.serve.access.recognise import TRIES_AT_ONCE, TRIES_PER_S
from edge_runtime.serve.access.refusal import Refusal
from edge_runtime.serve.access.role_tokens import role_of
from edge_runtime.serve.access.roles import Caller, Role
from edge_runtime.serve.access.sessions import COOKIE, Session, Sessions, logged_in
from edge_runtime.serve.pages.acts import MOST_PART_NAME, Labels, key_of, text, whole
from edge_runtime.serve.pages.answers import told
from edge_runtime.serve.pages.line_view import LineView
from edge_runtime.serve.pages.messages import choose, languages
from edge_runtime.serve.pages.pictures import WIDTHS, Picture, Pictures
from edge_runtime.serve.pages.review_routes import review_routes
from edge_runtime.serve.pages.stream import stream

STATIC = Path(__file__).parent / "static"
PAGES = {"/": "operator.html", "/review": "review.html", "/login": "login.html"}
KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".json": "application/json"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; font-src 'self'; "
    "manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache", "X-Frame-Options": "DENY"}
FOR_EVER = "private, max-age=31536000, immutable"
MOST_NAME = 40  # of a person
Answer = Callable[[Request, Mapping[str, Any], str], Awaitable[Any]]  # request, its words, who asks


@dataclass(frozen=True, slots=True)
class PageParts:
    """token: of the box. is_secure: the cookie goes over TLS alone."""

    line: LineView
    pictures: Pictures
    labels: Labels
    sessions: Sessions
    token: str
    is_secure: bool


def page_routes(parts: PageParts) -> Sequence[BaseRoute]:
    review = review_routes(parts.line, parts.labels.journal, _named)
    return [*_pages(), *_who(parts), *_reads(parts), *_writes(parts), *review]


# -- pages and their files ---------------------------------------------------------------------------------------------


def _pages() -> list[BaseRoute]:
    def page(file: Path) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            return FileResponse(file, headers=PAGE_HEADERS)

        return answer

    async def static(request: Request) -> Response:
        file = (STATIC / request.path_params["file"]).resolve()
        if not file.is_relative_to(STATIC) or file.suffix not in KINDS or not file.is_file():
            raise Refusal(404, f"there is nothing at {request.url.path}")
        return FileResponse(file, media_type=KINDS[file.suffix], headers={"Cache-Control": "no-cache"})

    async def messages(request: Request) -> Response:
        language = choose(request.query_params.get("lang", ""), request.headers.get("accept-language", ""))
        answer = {"language": language, "languages": list(languages()), "messages": languages()[language]}
        return as_json(answer, headers={"Vary": "Accept-Language", "Cache-Control": "no-cache"})

    return [
        *(door(path, page(STATIC / file), None) for path, file in PAGES.items()),
        door("/static/{file:path}", static, None),
        door("/api/messages", messages, None),
    ]


# -- who asks ----------------------------------------------------------------------------------------------------------


def _who(parts: PageParts) -> list[BaseRoute]:
    tries = Buckets(TRIES_PER_S, TRIES_AT_ONCE)

    async def me(request: Request) -> Response:
        """Who the browser is taken for, and the word that its writes must say."""
        caller = caller_of(request)
        session = parts.sessions.of(request)
        if session is None and caller is not None:
            session = parts.sessions.begin(None)
        return _with_cookie(as_json(_about(caller, session)), session, parts.is_secure)

    async def login(request: Request) -> Response:
        address, words = peer_of(request).address, await words_of(request)
        role = role_of(text(words, "token", 512).strip(), parts.token)
        if role is None:  # the right token is let in whatever was tried from its address
            if not tries.take(address):
                raise Refusal(429, "too many wrong tokens from this address; wait a minute", {"Retry-After": "60"})
            raise Refusal(401, "wrong token; `edge-runtime serve --token` on the box tells it")
        session = parts.sessions.begin(logged_in(_name(words) or str(role), role))
        return _with_cookie(as_json(_about(session.caller, session)), session, parts.is_secure)

    async def logout(request: Request) -> Response:
        parts.sessions.end(parts.sessions.check_word(request))
        return as_json({})

    return [
        door("/api/me", me, None),
        door("/api/login", told(login), None, ["POST"]),
        door("/api/logout", told(logout), None, ["POST"]),
    ]


def _about(caller: Caller | None, session: Session | None) -> dict[str, Any]:
    roles = sorted(caller.roles) if caller else []
    return {"name": caller.name if caller else "", "roles": roles, "word": session.word if session else ""}


def _name(words: Mapping[str, Any]) -> str:
    name = text(words, "name", MOST_NAME).strip()
    if not name.isprintable():
        raise UsageError("the name holds characters that cannot be printed")
    return name


def _with_cookie(response: Response, session: Session | None, is_secure: bool) -> Response:
    response.headers["Cache-Control"] = "no-store"
    if session is not None:
        response.set_cookie(COOKIE, session.key, httponly=True, samesite="strict", secure=is_secure)
    return response


# -- looking -----------------------------------------------------------------------------------------------------------


def _reads(parts: PageParts) -> list[BaseRoute]:
    line, pictures = parts.line, parts.pictures

    async def events(request: Request) -> Response:
        return await stream(line.hub, request)

    async def status(request: Request) -> Response:
        return as_json(to_json(await line.look()))

    async def view(request: Request) -> Response:
        name, _, kind = request.path_params["file"].partition(".")
        found = line.view(name, is_heat=kind == "heat.png") if kind in ("jpg", "heat.png") else None
        return _picture(found, f"there is no picture of part {name} any more")

    async def kept_picture(request: Request) -> Response:
        width = request.query_params.get("w", "0")
        if not width.isdecimal() or int(width) not in (0, *WIDTHS):
            raise UsageError(f"w must be one of {', '.join(map(str, WIDTHS))}, or left out for the file as it is")
        file = await evidence(request)
        return _picture(await line.work(lambda: pictures.picture(file, int(width))), "")

    async def kept_heat(request: Request) -> Response:
        file = await evidence(request)
        return _picture(await line.work(lambda: pictures.heat(file)), "")

    async def evidence(request: Request) -> str:
        row = whole({"row": request.path_params["row"]}, "row")
        part = await line.work(lambda: parts.labels.row({"row": row}))
        if part.evidence is None:
            raise StorageError(f"no picture of part {part.part} was kept")
        return str(part.evidence)

    return [
        door("/api/events", told(events), Role.VIEW),
        door("/api/line", told(status), Role.VIEW),
        door("/api/view/{file}", told(view), Role.VIEW),
        door("/api/parts/{row:int}/picture", told(kept_picture), Role.VIEW),
        door("/api/parts/{row:int}/heat", told(kept_heat), Role.VIEW),
    ]


def _picture(found: Picture | None, else_why: str) -> Response:
    if found is None:
        raise StorageError(else_why)
    kind, content = found
    return Response(content, 200, {"Cache-Control": FOR_EVER}, kind)


# -- doing -------------------------------------------------------------------------------------------------------------


def _writes(parts: PageParts) -> list[BaseRoute]:
    line, labels = parts.line, parts.labels

    async def label(request: Request, words: Mapping[str, Any], by: str) -> Any:
        return to_json(await line.work(lambda: labels.say(words, by)))

    async def undo(request: Request, words: Mapping[str, Any], by: str) -> Any:
        await line.work(lambda: labels.take_back(words, by))
        return {}

    async def search(request: Request, words: Mapping[str, Any], by: str) -> Any:
        return await line.ask("search", text=text(words, "text", 200))

    async def choice(request: Request, words: Mapping[str, Any], by: str) -> Any:
        return await line.ask("choose", code=text(words, "code", 64))

    async def decide(request: Request, words: Mapping[str, Any], by: str) -> Any:
        key = key_of(text(words, "part", MOST_PART_NAME))
        verdict = text(words, "verdict", 10)
        return await line.ask("decide", boot_id=key.boot_id, part_id=key.part_id, verdict=verdict, by=by)

    def plain(do: str) -> Answer:
        async def answer(request: Request, words: Mapping[str, Any], by: str) -> Any:
            return await line.ask(do, by=by)

        return answer

    doors: Mapping[str, Answer] = {
        "label": label, "undo": undo, "decide": decide, "search": search, "choose": choice, "hold": plain("hold"),
        "resume": plain("resume"), "rescan": plain("rescan"), "listen": plain("listen"), "cancel": plain("cancel"),
    }  # fmt: skip
    return [door(f"/api/{name}", _write(parts, answer), Role.OPERATE, ["POST"]) for name, answer in doors.items()]


def _write(parts: PageParts, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    """A write of a page: it says its session's word, so that no page of another site can make a browser do it."""

    async def checked(request: Request) -> Response:
        session = parts.sessions.check_word(request)
        caller = session.caller or caller_of(request)
        admit(caller, Role.OPERATE)
        words = await words_of(request)
        by = _named(request, words.get("by", ""))
        return as_json(await answer(request, words, by))

    return told(checked)


def _named(request: Request, said: object) -> str:
    """Who asks: the name that they logged in with; on the box itself, where nobody does, the one that the page says."""
    caller = caller_of(request)
    if caller is not None and caller.by == "session":
        return caller.name
    return _name({"name": said}) or OPERATOR


async def words_of(request: Request) -> dict[str, Any]:
    """The JSON object of a body. Raises Refusal."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refusal(415, "a write is JSON: send Content-Type application/json")
    try:
        words = json.loads(await request.body() or b"{}")
    except (ValueError, RecursionError) as err:
        raise Refusal(400, f"the body is no JSON: {err}") from err
    if not isinstance(words, dict):
        raise Refusal(400, "the body is no JSON object")
    return words
