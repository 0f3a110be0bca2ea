"""Promote and roll back for whoever asks, command line and page: in the running box, or here where none runs.

A box that refuses or does not answer is there all the same: its error ends it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from edge_runtime.config.paths import JOURNAL
from edge_runtime.config.schema import EdgeConfig
from edge_runtime.modelstore.slots import Slots
from edge_runtime.modelstore.slots_file import Held
from edge_runtime.modelstore.store import ModelStore
from edge_runtime.predictors.model_choice import Chooser
from edge_runtime.predictors.model_switch import Request, agreed, switch_stopped
from edge_runtime.process.ask_status import ask_status
from edge_runtime.process.control import NobodyThere, ask

SWITCH_WITHIN_S = 60.0  # a model is loaded in a child, tested on its golden pictures, loaded again and warmed up


def ask_switch(
    cfg: EdgeConfig,
    store: ModelStore,
    socket: Path,
    state: Path,
    request: tuple[Literal["promote", "rollback"], Held | None, str, str],
    confirm: Callable[[str, str], None] = lambda before, after: None,
) -> tuple[str, str]:
    """Name and version that are at work then. Raises EdgeError, and what ran before runs on.

    request: verb, what is meant (None: what stands in the slot), by whom, why. confirm: told what gives way to what;
    raises to leave it.
    """
    verb, wanted, by, why = request
    try:
        shot = ask_status(socket)
    except NobodyThere:
        name, is_there = cfg.model.name.partition("@")[0], False
        running = Chooser(cfg, store, state / JOURNAL).next_start()
    else:
        name, _, version = shot.model.partition("@")
        running, is_there = Held(version, shot.model_digest), True
    held = agreed(Slots(store).of(name), Request(verb, name, wanted), running)
    confirm(f"{name}@{running.version}" if running else "nothing", f"{name}@{held.version}")
    if is_there:
        words = {"verb": verb, "name": name, "version": held.version, "digest": held.digest}
        ask(socket, "model", SWITCH_WITHIN_S, **words, by=by, why=why)
    else:
        switch_stopped(cfg, store, state, Request(verb, name, held, by, why), running)
    return name, held.version
