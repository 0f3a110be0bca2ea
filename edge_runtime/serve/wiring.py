"""The station file becomes what `edge-runtime serve` runs. Read down: what is started first stands first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from edge_runtime.config.paths import socket_path, state_dir
from edge_runtime.config.schema import EdgeConfig
from edge_runtime.flow.components import Component, Health
from edge_runtime.inference import picture_wire, speech_wire
from edge_runtime.serve.access.audit import Audit
from edge_runtime.serve.access.certificate import station_papers
from edge_runtime.serve.access.recognise import ByToken, Recogniser, by_loopback
from edge_runtime.serve.access.sessions import BySession, Sessions
from edge_runtime.serve.access.token import box_token
from edge_runtime.serve.api.routes import api_routes
from edge_runtime.serve.api.shelf import LOAD_S, Shelf
from edge_runtime.serve.app import Access, Part, build_app
from edge_runtime.serve.health import health_routes
from edge_runtime.serve.http_server import HttpServer
from edge_runtime.serve.pages.component import Pages
from edge_runtime.serve.remote.relay import PictureRelay
from edge_runtime.serve.speech.relay import SpeechRelay


def serve_components(cfg: EdgeConfig, told: Callable[[str], None] = lambda url: None) -> list[Component]:
    """told: given the address that is listened on. Raises EdgeError."""
    beside = socket_path(cfg)
    components: list[Component] = [
        SpeechRelay(cfg.voice.remote, beside.with_name(speech_wire.SOCKET)),
        PictureRelay(cfg, beside.with_name(picture_wire.SOCKET)),
    ]

    def healths() -> Mapping[str, Health]:
        return {component.name: component.health() for component in components}

    shelf = Shelf(cfg.serve.models_mb << 20, LOAD_S + cfg.serve.invoke_s)
    token, sessions = box_token(state_dir(cfg)), Sessions()
    pages = Pages(cfg, sessions, token)
    parts: list[Part] = [partial(health_routes, healths), partial(api_routes, cfg, shelf), pages.routes]
    recognisers: list[Recogniser] = [BySession(sessions), ByToken(token)]
    if not cfg.serve.loopback_login:
        recognisers.append(by_loopback)
    components += [shelf, _http(cfg, parts, recognisers, told), pages]
    return components


def _http(
    cfg: EdgeConfig, parts: Sequence[Part], recognisers: Sequence[Recogniser], told: Callable[[str], None]
) -> HttpServer:
    access = Access(recognisers, Audit(state_dir(cfg)))
    return HttpServer(
        build_app(cfg.serve, access, parts),
        cfg.serve.host,
        cfg.serve.port,
        most_connections=cfg.serve.max_connections,
        tls=station_papers(cfg).context() if cfg.serve.tls else None,
        told=told,
    )
