"""The one way by which another model comes to work: promote and rollback, on a running box and on a stopped one.

    agree    what was asked for is what stands in the slot: name, version and digest
    test     digests compared, loaded in a child process, its golden pictures asked
    load     on a running box: beside the model at work, warmed up
    commit   written into the slots, under their lock and durable
    switch   on a running box: between two parts

A failure before `commit` changes nothing; one after it takes the choice back. So what runs is what stands in the slots,
whatever fails and wherever the process dies.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.custody import custody_of
from edge_runtime.core.errors import DeviceError, ModelError, StorageError
from edge_runtime.modelstore.bundle import Bundle
from edge_runtime.modelstore.slots import Slots, Verb, candidate_of, previous_of
from edge_runtime.modelstore.slots_file import Held, Slot
from edge_runtime.modelstore.store import ModelStore
from edge_runtime.predictors.model_choice import proof_of, put_to_work
from edge_runtime.predictors.quarantine import try_or_quarantine

log = logging.getLogger(__name__)

TakeOver = Callable[[Bundle, Callable[[], None]], None]  # puts a bundle to work; calls the second just before it does


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asks for. wanted: the version and digest they mean; None: what stands in the slot."""

    verb: Literal["promote", "rollback"]
    name: str
    wanted: Held | None
    by: str = ""
    why: str = ""


def switch(cfg: EdgeConfig, store: ModelStore, request: Request, running: Held | None, take_over: TakeOver) -> Slot:
    """Carry out one request. Raises EdgeError, and what ran before runs on and is what the slots say."""
    slots = Slots(store)
    held = agreed(slots.of(request.name), request, running)
    bundle = store.open_exactly(request.name, held.version, held.digest)
    try_or_quarantine(bundle, store, cfg, request.by)
    proof = proof_of(bundle, cfg.model)
    done: list[Slot] = []

    def edit(slot: Slot) -> Slot:
        after = put_to_work(slot, Held(held.version, bundle.digest), running)
        if request.verb == "rollback":  # what was left stays at hand, unless something newer waits
            after = replace(after, candidate=slot.candidate or running, previous=None)
        return replace(after, proven=proof)

    def commit() -> None:
        before = slots.of(request.name)
        verb: Verb = "promoted" if request.verb == "promote" else "rolled_back"
        slots.change(request.name, verb, edit, request.by, request.why)
        done.append(before)

    try:
        take_over(bundle, commit)
    except BaseException as err:
        if done:
            log.error("model.undone %s: %s", bundle.label, err)
            slots.change(request.name, "undone", lambda slot: _back(slot, done[0]), "box", str(err))
        raise
    return slots.of(request.name)


def agreed(slot: Slot, request: Request, running: Held | None) -> Held:
    """What the request means. Raises ModelError when the slot holds something else than was asked for."""
    there = candidate_of(request.name, slot) if request.verb == "promote" else previous_of(request.name, slot)
    if request.wanted and not request.wanted.is_same(there):
        what = "candidate" if request.verb == "promote" else "previous version"
        raise ModelError(
            f"the {what} of {request.name} is {there.version} ({there.digest[:12]}) and no longer "
            f"{request.wanted.version} ({request.wanted.digest[:12]})",
            "look at `edge-runtime models list` and ask again",
        )
    if there.is_same(running):
        raise ModelError(f"{request.name}@{there.version} is at work already", "stage another version")
    return there


def switch_stopped(cfg: EdgeConfig, store: ModelStore, state: Path, request: Request, running: Held | None) -> Slot:
    """The same while no box runs on this state folder; the next start runs it. Raises DeviceError when one does."""

    def take_over(bundle: Bundle, commit: Callable[[], None]) -> None:
        with nobody_runs(state):
            commit()

    with nobody_runs(state):
        pass  # told before a minute of testing
    return switch(cfg, store, request, running, take_over)


@contextmanager
def nobody_runs(state: Path) -> Iterator[None]:
    """Hold the lock that a running box holds on its state folder: it answers or it does not, but it is there."""
    try:
        custody_of(state).make_folder(state)
        fd = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as err:
        raise StorageError(f"cannot use state folder {state}: {err.strerror}", "become root") from err
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as err:
        raise DeviceError(
            f"a running edge-runtime holds {state} and cannot be asked",
            "look with: systemctl status edge-runtime-run, or stop it, then ask again",
        ) from err
    finally:
        os.close(fd)


def _back(now: Slot, before: Slot) -> Slot:
    """The choice as it was; what was staged since then stays."""
    return replace(before, candidate=now.candidate or before.candidate)
