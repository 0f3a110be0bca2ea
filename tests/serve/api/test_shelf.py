"""Loaded models: within their memory, each in its own thread, and none that hangs keeps anybody waiting."""

from __future__ import annotations

import asyncio
import os
import select
import threading
from pathlib import Path

import pytest

from edge_runtime.config.load import load
from edge_runtime.core.errors import ModelError
from edge_runtime.flow.components import State
from edge_runtime.serve.access.refusal import Refusal
from edge_runtime.serve.api.catalog import Known
from edge_runtime.serve.api.models import FileTensors
from edge_runtime.serve.api.shelf import MB, MOST_HUNG, Shelf
from tests.conftest import TINY


class Model:
    """Holds so much memory, and hangs until it is let go."""

    def __init__(self, mb=20, budget_s=60.0):
        self.budget_s = budget_s
        self.held = bytearray(b"\1" * (mb * MB))
        self.let_go = threading.Event()
        self.closed = threading.Event()

    def close(self):
        self.closed.set()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(b"x")
    return path


@pytest.fixture
def shelf():
    shelf = Shelf(64 * MB)
    shelf.start()
    yield shelf
    shelf.stop()


def known(name, path):
    return Known(name, "1", Path(path), True, Path(path), Path(path))


def test_the_idlest_goes_when_the_next_needs_room(shelf, file):
    async def course():
        models = {}
        for name in ("a", "b", "c"):
            models[name] = await shelf.get(known(name, file), "tensors", Model)
            await shelf.ask(known("a", file), "tensors", Model, lambda model, seat: None)
        assert shelf.report()["loaded"] == ["a@1", "c@1"]
        return models

    models = asyncio.run(course())
    assert shelf.dropped == 1 and not models["a"].closed.is_set()


def test_many_who_ask_at_once_load_it_once(shelf, file):
    async def course():
        ask = shelf.ask(known("a", file), "tensors", Model, lambda model, seat: id(model))
        others = [shelf.ask(known("a", file), "tensors", Model, lambda model, seat: id(model)) for _ in range(20)]
        return set(await asyncio.gather(ask, *others))

    assert len(asyncio.run(course())) == 1 and shelf.loads == 1


def test_another_file_in_its_place_is_loaded_anew(shelf, file):
    async def course():
        first = await shelf.get(known("a", file), "tensors", Model)
        file.write_bytes(b"other")
        return first, await shelf.get(known("a", file), "tensors", Model)

    first, second = asyncio.run(course())
    assert first is not second


def test_a_file_replaced_while_it_loads_is_loaded_again_for_who_asks_then(shelf, file):
    begun, let_go, models = threading.Event(), threading.Event(), []

    def slow():
        models.append(Model(mb=1))
        begun.set()
        let_go.wait(60)
        return models[-1]

    async def course():
        before = asyncio.create_task(shelf.get(known("a", file), "tensors", slow))
        await asyncio.to_thread(begun.wait, 60)
        file.write_bytes(b"other")
        after = asyncio.create_task(shelf.get(known("a", file), "tensors", slow))
        await asyncio.sleep(0)  # it has asked
        let_go.set()
        return await before, await after

    assert list(asyncio.run(course())) == models and len(models) == 2
    assert models[0].closed.wait(30) and not models[1].closed.is_set()
    assert shelf.report()["loaded"] == ["a@1"]


def test_what_cannot_be_loaded_is_remembered_until_the_file_changes(shelf, file):
    def broken():
        raise ModelError("no good")

    async def course():
        with pytest.raises(Refusal, match="no good"):
            await shelf.get(known("a", file), "tensors", broken)

    asyncio.run(course())
    assert shelf.failure(known("a", file)) == "no good"
    file.write_bytes(b"other")
    assert shelf.failure(known("a", file)) == ""


def test_a_model_larger_than_all_the_room_is_refused(file):
    file.write_bytes(b"x" * 3000)
    shelf = Shelf(4000)
    shelf.start()
    with pytest.raises(Refusal, match=r"serve\.models_mb"):
        asyncio.run(shelf.get(known("a", file), "tensors", Model))
    shelf.stop()


def test_a_hung_one_is_given_up_and_the_next_request_gets_a_fresh_one(shelf, file):
    made = []

    def load():
        made.append(Model(mb=1, budget_s=60.0 if made else 0.05))
        return made[-1]

    async def course():
        hung = shelf.ask(known("a", file), "tensors", load, lambda model, seat: model.let_go.wait(60))
        behind = shelf.ask(known("a", file), "tensors", load, lambda model, seat: "answered")
        said = await asyncio.gather(hung, behind, return_exceptions=True)
        assert [type(one) for one in said] == [Refusal, Refusal] and said[0].status == 503
        return await shelf.ask(known("a", file), "tensors", load, lambda model, seat: "answered")

    assert asyncio.run(course()) == "answered"
    assert not made[0].closed.is_set()
    made[0].let_go.set()
    assert made[0].closed.wait(30)  # by its own thread, which came back
    assert (len(made), shelf.health().state) == (2, State.DEGRADED)
    shelf.hung = MOST_HUNG + 1
    assert shelf.health().progress_ns == 0  # the watchdog hears of it


def test_the_child_of_a_hung_file_is_killed_at_once(shelf):
    path = TINY / "colour.tflite"
    cfg = load(None, []).config

    def impatient():
        model = FileTensors(path, "a@1", cfg)
        model.budget_s = 0.05
        return model

    async def course():
        model = await shelf.get(known("a", path), "tensors", impatient)
        child, let_go = os.pidfd_open(model.pid), threading.Event()
        with pytest.raises(Refusal, match="was given up"):
            await shelf.ask(known("a", path), "tensors", impatient, lambda model, seat: let_go.wait(60))
        return child, let_go, model

    child, let_go, model = asyncio.run(course())
    ended, _, _ = select.select([child], [], [], 10)
    os.close(child)
    assert ended and model.pid is not None  # its thread hangs still, and has closed nothing
    let_go.set()


def test_a_load_that_hangs_fails_alone_and_others_are_loaded(file):
    shelf, let_go, late = Shelf(64 * MB, load_s=0.1), threading.Event(), Model(mb=1)
    shelf.start()

    def hangs():
        let_go.wait(60)
        return late

    async def course():
        hung = shelf.get(known("a", file), "tensors", hangs)
        behind = shelf.get(known("b", file), "tensors", lambda: Model(mb=1))
        return await asyncio.gather(hung, behind, return_exceptions=True)

    refused, loaded = asyncio.run(course())
    assert (refused.status, "a@1 was not loaded within 0.1 s" in refused.why) == (503, True)
    assert isinstance(loaded, Model) and shelf.report()["loaded"] == ["b@1"]
    assert "was not loaded" in shelf.failure(known("a", file))
    assert (shelf.hung, shelf.health().state) == (1, State.DEGRADED)
    let_go.set()
    assert late.closed.wait(30)
    shelf.stop()


def test_loads_that_hang_again_and_again_are_told_to_the_watchdog(file):
    shelf, let_go = Shelf(64 * MB, load_s=0.02), threading.Event()
    shelf.start()

    async def course():
        for _ in range(MOST_HUNG + 1):
            with pytest.raises(Refusal, match="was not loaded"):
                await shelf.get(known("a", file), "tensors", lambda: let_go.wait(60) and Model(mb=1))

    asyncio.run(course())
    assert (shelf.health().state, shelf.health().progress_ns) == (State.FAILED, 0)
    let_go.set()
    shelf.stop()
