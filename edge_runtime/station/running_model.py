"""The model that the box runs: chosen at the start, switched while parts pass, every change of it journalled once.

What was chosen stands in the slots of the model store, where the command line and updates write too; so the journal is
told of changes by looking there, whoever made them.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.clock import Clock
from edge_runtime.core.errors import EdgeError, ModelError, StorageError
from edge_runtime.core.events import kind_of_change
from edge_runtime.core.messages import Event
from edge_runtime.core.status import ModelSeat
from edge_runtime.decision.policy import station_policy
from edge_runtime.flow.components import Health, State
from edge_runtime.inference.remote_picture import RemotePicture
from edge_runtime.lines.inspector import LineModel
from edge_runtime.lines.vision_line import VisionLine
from edge_runtime.modelstore.bundle import Bundle
from edge_runtime.modelstore.provenance import Origin
from edge_runtime.modelstore.slots import Slots
from edge_runtime.modelstore.slots_file import Change, Slot
from edge_runtime.modelstore.store import ModelStore
from edge_runtime.predictors.model_choice import Chooser, Chosen
from edge_runtime.predictors.model_switch import Request, switch
from edge_runtime.predictors.remote_vision import RemoteReading
from edge_runtime.predictors.vision import VisionModel, open_vision_model, picture_gate
from edge_runtime.recording.journal import Journal

log = logging.getLogger(__name__)

FLUSH_S = 2.0  # for a change of model to be on the disk; where the disk refuses it is told again at the next start


class RunningModel:
    """See the module. Any thread may call any method; `switch` takes as long as loading a model."""

    def __init__(
        self,
        cfg: EdgeConfig,
        store: ModelStore,
        chooser: Chooser,
        chosen: Chosen,
        line: VisionLine,
        journal: Journal,
        clock: Clock,
        remote: RemotePicture | None = None,
    ) -> None:
        self._cfg = cfg
        self._store = store
        self._chooser = chooser
        self._chosen = chosen
        self._origin = store.provenance(chosen.bundle).origin
        self._line = line
        self._journal = journal
        self._remote = remote
        self._clock = clock
        self._told_at: tuple[int, int] | None = None
        self._slots: Mapping[str, Slot] = {}  # as of `_told_at`: who asks must not wait for the disk
        self._switching = threading.Lock()
        self._telling = threading.Lock()

    @property
    def bundle(self) -> Bundle:
        return self._chosen.bundle

    @property
    def label(self) -> str:
        return self.bundle.label

    def health(self) -> Health:
        """The line's own word, and where that is good, whether this is the model that was chosen."""
        health = self._line.inspector.health()
        if self._chosen.fault and health.state is State.OK:
            return Health(State.DEGRADED, self._chosen.fault, health.progress_ns)
        if self._origin is Origin.UNSIGNED:  # allowed by modelstore.require_signature = false, and never hidden
            return replace(health, detail="; ".join(filter(None, [health.detail, f"{self.label} is not signed"])))
        return health

    def seat(self) -> ModelSeat:
        """What the line runs, and what waits in its slots."""
        return replace(self.seat_of(self.label, self.bundle.digest, self._chosen.fault), origin=str(self._origin))

    def seat_of(self, label: str, digest: str = "", fault: str = "") -> ModelSeat:
        """The same for a model of another line of this box. label: NAME@VERSION."""
        name, _, version = label.partition("@")
        slot = self._slots.get(name, Slot())
        if slot.active and slot.active.version == version:
            digest = digest or slot.active.digest
        versions = slot.versions()
        return ModelSeat(label, digest, versions["candidate"], versions["previous"], fault)

    def loaded(self) -> None:
        """The start is over: the model is loaded and warm."""
        self._chooser.loaded(self._chosen)

    def give_way(self, err: EdgeError) -> bool:
        """The model could not be loaded: the next start takes the one before it. False where there is none."""
        return self._chooser.give_way(self._chosen, str(err)) is not None

    def switch(self, request: Request) -> str:
        """Another version of the running model comes to work, without losing a part; see predictors/model_switch.py.

        What runs now. Raises EdgeError: what ran before runs on.
        """
        if not self._switching.acquire(blocking=False):
            raise ModelError("another switch of the model is under way", "ask again when it is done")
        try:
            if request.name != self.bundle.manifest.name:
                raise ModelError(
                    f"{self.label} is at work, not {request.name}; a model of another name comes to work by "
                    "model.name in the station file and a restart"
                )
            switch(self._cfg, self._store, request, self._chosen.held, self._take_over)
        except BaseException:
            self._tell_if_apart()
            raise
        finally:
            self._switching.release()
            self.tell_changes()
        return self.label

    def tell_changes(self) -> None:
        """Journal what was changed in the slots by whomever, each change once. Cheap while nothing was."""
        with self._telling:
            self._tell_changes(Slots(self._store))

    def _take_over(self, bundle: Bundle, commit: Callable[[], None]) -> None:
        self._journal.learn_model(bundle.label, bundle.digest)
        self._line.swap_model(line_model(bundle, self._cfg, self._remote), commit)
        self._chosen = Chosen(bundle)
        self._origin = self._store.provenance(bundle).origin

    def _tell_if_apart(self) -> None:
        """A choice that could not be taken back is told until the next start, which runs what the slots say."""
        with contextlib.suppress(StorageError):
            active = Slots(self._store).of(self.bundle.manifest.name).active
            if active and not active.is_same(self._chosen.held):
                fault = f"{self.label} runs, the next start runs version {active.version}; restart the service"
                self._chosen = replace(self._chosen, fault=fault)

    def _tell_changes(self, slots: Slots) -> None:
        if (there := slots.changed_at()) == self._told_at:
            return
        try:
            untold = slots.untold()
            for change in untold:
                self._line.on_event(Event(kind_of_change(change.verb), self._clock(), _detail(change)))
            if untold and self._journal.flush(FLUSH_S):
                slots.told(untold[-1].number)
                there = slots.changed_at()
            self._slots = slots.every()
        except StorageError as err:
            log.error("model.slots %s", err)
        self._told_at = there


def line_model(bundle: Bundle, cfg: EdgeConfig, remote: RemotePicture | None = None) -> LineModel:
    """What a line needs of a bundle; nothing is loaded yet. remote: who else is asked about its pictures."""
    thresholds = station_policy(cfg.decision, bundle.manifest)
    reading = RemoteReading(bundle) if remote else None

    def open_model() -> VisionModel:
        model = _open_model(bundle, cfg)
        if remote and reading:
            reading.learn(model.engine.inputs, model.engine.outputs)
            remote.read_by(reading)
        return model

    return LineModel(bundle.label, open_model, thresholds, picture_gate(bundle), reading)


def _open_model(bundle: Bundle, cfg: EdgeConfig) -> VisionModel:
    """Whatever a runtime throws at it is the model's fault: ModelError."""
    try:
        return open_vision_model(bundle, cfg.model)
    except EdgeError:
        raise
    except Exception as err:
        raise ModelError(f"{bundle.label} cannot be loaded: {type(err).__name__}: {err}") from err


def _detail(change: Change) -> dict[str, Any]:
    """What the event of a change says."""
    detail = asdict(change)
    del detail["number"], detail["verb"]
    return detail
