"""From a station file to a box: which parts there are and who is handed what. The only place that knows them all."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edge_runtime import __version__
from edge_runtime.actuation.beeper import Beeper
from edge_runtime.actuation.rejecter import Rejecter
from edge_runtime.capture.cameras.camera import open_camera
from edge_runtime.config.load import Loaded
from edge_runtime.config.paths import JOURNAL, state_dir
from edge_runtime.config.schema import Automation, EdgeConfig
from edge_runtime.core.clock import Clock
from edge_runtime.core.errors import DeviceError, EdgeError, ModelError, StorageError
from edge_runtime.core.messages import Event, PartKey
from edge_runtime.decision.policy import station_policy
from edge_runtime.flow.components import Component, Health, State
from edge_runtime.inference.engine import pick_runtime
from edge_runtime.lines.sound_line import SoundLine
from edge_runtime.lines.vision_line import VisionLine
from edge_runtime.modelstore.bundle import Bundle
from edge_runtime.modelstore.slots import Slots
from edge_runtime.modelstore.slots_file import Change
from edge_runtime.modelstore.store import ModelStore, open_store
from edge_runtime.predictors.model_choice import Chooser, Chosen
from edge_runtime.predictors.model_switch import Request, switch
from edge_runtime.predictors.vision import VisionModel, open_vision_model, picture_gate
from edge_runtime.recording.evidence import Evidence
from edge_runtime.recording.journal import Journal
from edge_runtime.recording.labels import labels
from edge_runtime.recording.reader import JournalReader
from edge_runtime.recording.records import RunInfo
from edge_runtime.simulation.line import SimLine
from edge_runtime.simulation.model_faults import BadDay
from edge_runtime.station.operator_desk import OperatorDesk
from edge_runtime.station.sound_wiring import open_shared_microphone, open_sound, sound_rule
from edge_runtime.station.voice_wiring import NoVoice, Voice, open_voice

log = logging.getLogger(__name__)

FLUSH_S = 2.0  # for a change of model to be on the disk; where the disk refuses it is told again at the next start


@dataclass
class Box:
    """One station, wired. Start recording first, the line last; stop in the order of flow."""

    cfg: EdgeConfig
    line: VisionLine
    journal: Journal
    evidence: Evidence | None
    sim: SimLine | None
    bundle: Bundle
    desk: OperatorDesk
    voice: Voice | NoVoice | None
    sound: SoundLine | None
    store: ModelStore
    chooser: Chooser
    chosen: Chosen
    clock: Clock
    _told_at: tuple[int, int] | None = None
    _started: list[Component] = field(default_factory=list)
    _switching: threading.Lock = field(default_factory=threading.Lock)
    _telling: threading.Lock = field(default_factory=threading.Lock)

    @property
    def model_label(self) -> str:
        return self.bundle.label

    @property
    def controller_detail(self) -> str:
        return self.line.rejecter.health().detail

    def switch_model(self, request: Request) -> str:
        """Another version of the running model comes to work, without losing a part; see predictors/model_switch.py.

        What runs now. Raises EdgeError: what ran before runs on.
        """
        if not self._switching.acquire(blocking=False):
            raise ModelError("another switch of the model is under way", "ask again when it is done")
        try:
            if request.name != self.bundle.manifest.name:
                raise ModelError(
                    f"{self.bundle.label} is at work, not {request.name}; a model of another name comes to work by "
                    "model.name in the station file and a restart"
                )
            switch(self.cfg, self.store, request, self.chosen.held, self._take_over)
        except BaseException:
            self._tell_if_apart()
            raise
        finally:
            self._switching.release()
            self.tell_changes()
        return self.bundle.label

    def _take_over(self, bundle: Bundle, commit: Callable[[], None]) -> None:
        cfg = self.cfg
        self.journal.learn_model(bundle.label, bundle.digest)
        thresholds = station_policy(cfg.decision, bundle.manifest.thresholds)
        self.line.swap_model(lambda: open_model(bundle, cfg), thresholds, bundle.label, picture_gate(bundle), commit)
        self.bundle, self.chosen = bundle, Chosen(bundle)

    def _tell_if_apart(self) -> None:
        """A choice that could not be taken back is told until the next start, which runs what the slots say."""
        with contextlib.suppress(StorageError):
            active = Slots(self.store).of(self.bundle.manifest.name).active
            if active and not active.is_same(self.chosen.held):
                fault = f"{self.bundle.label} runs, the next start runs version {active.version}; restart the service"
                self.chosen = replace(self.chosen, fault=fault)

    def give_way(self, err: EdgeError) -> bool:
        """The model could not be loaded: the next start takes the one before it. False where there is none."""
        return self.chooser.give_way(self.chosen, str(err)) is not None

    def tell_changes(self) -> None:
        """Journal what was changed in the slots by whomever, each change once. Cheap while nothing was."""
        with self._telling:
            self._tell_changes(Slots(self.store))

    def _tell_changes(self, slots: Slots) -> None:
        if (there := slots.changed_at()) == self._told_at:
            return
        try:
            untold = slots.untold()
            for change in untold:
                self.line.on_event(Event(f"model.{change.verb}", self.clock(), change_detail(change)))
            if untold and self.journal.flush(FLUSH_S):
                slots.told(untold[-1].number)
                there = slots.changed_at()
        except StorageError as err:
            log.error("model.slots %s", err)
        self._told_at = there

    @property
    def run_id(self) -> int | None:
        return self.journal.run_id

    def start(self) -> None:
        sinks: list[Component] = [self.journal, *([self.evidence] if self.evidence else [])]
        for component in sinks:
            component.start()
            self._started.append(component)
        self.tell_changes()
        self.line.start()
        self.chooser.loaded(self.chosen)
        for ear in self._ears():
            try:
                ear.start()
            except Exception:  # an ear is never a reason to stop inspecting
                log.exception("ear.failed %s did not start", ear.name)

    def _ears(self) -> list[Component]:
        return [ear for ear in (self.voice, self.sound) if ear is not None]

    def set_automation(self, degree: Automation) -> None:
        """Who decides from now on, until the next start, which takes the station file's word."""
        self.line.set_automation(degree)
        if self.voice and self.voice.line:
            self.voice.line.set_automation(degree)

    def stop(self) -> None:
        """Voice, line, then the simulated line, then recording. Safe at any point of the start."""
        for ear in self._ears():
            ear.stop()
        self.line.stop()
        if self.sim:
            self.sim.stop()
        while self._started:
            self._started.pop().stop()

    def required(self) -> Mapping[str, Health]:
        """What systemd's watchdog is fed by. Recording is not in it: inspection outlives everything else."""
        return self.line.healths()

    def healths(self) -> Mapping[str, Health]:
        recording = {"journal": self.journal.health()}
        if self.evidence:
            recording["evidence"] = self.evidence.health()
        ears = {ear.name: ear.health() for ear in self._ears()}
        return {**self.line.healths(), "model": self._model_health(), **ears, **recording}

    def _model_health(self) -> Health:
        """The line's own word, and where that is good, whether this is the model that was chosen."""
        health = self.line.healths()["model"]
        if self.chosen.fault and health.state is State.OK:
            return Health(State.DEGRADED, self.chosen.fault, health.progress_ns)
        return health

    def reports(self) -> Mapping[str, Any]:
        recording = {"journal": dict(self.journal.report())}
        if self.evidence:
            recording["evidence"] = dict(self.evidence.report())
        ears = {ear.name: dict(ear.report()) for ear in self._ears()}
        return {**self.line.report(), **ears, **recording, "operator": dict(self.desk.report())}


def open_box(loaded: Loaded, parts: int | None, clock: Clock) -> Box:
    """Wire the station; nothing runs yet but the simulated line, which comes up beside the loading of the model.

    parts: how many parts the simulated belt carries; None for ever. Raises EdgeError.
    """
    cfg = loaded.config
    state = state_dir(cfg)
    sim = _open_sim(cfg, parts)
    try:
        return _wire(loaded, state, sim, clock)
    except BaseException:
        if sim:
            sim.stop()
        raise


def _open_sim(cfg: EdgeConfig, parts: int | None) -> SimLine | None:
    if "sim" not in (cfg.camera.driver, cfg.controller.driver) or cfg.world.attach:
        return None
    sim = SimLine(cfg.world, cfg.controller, parts, width=cfg.camera.width, height=cfg.camera.height)
    sim.start()
    return sim


def _wire(loaded: Loaded, state: Path, sim: SimLine | None, clock: Clock) -> Box:
    cfg = loaded.config
    store = open_store(cfg)
    chooser = Chooser(cfg, store, state / JOURNAL)
    chosen = chooser.choose()
    bundle = chosen.bundle
    journal = Journal(state / JOURNAL, _run_info(loaded, bundle), clock, keep_days=cfg.recording.keep_days_journal)
    evidence = _evidence(cfg, state, journal, clock) if cfg.recording.evidence else None
    world = cfg.world.model_copy(update={"attach": sim.camera_socket}) if sim else cfg.world
    bad_day = BadDay(cfg.world.bad_days)
    try:
        microphone, no_microphone = open_shared_microphone(cfg, clock), None
    except DeviceError as err:
        microphone, no_microphone = None, NoVoice(str(err))
    sound = open_sound(cfg, microphone, store, [journal], clock)
    line = VisionLine(
        camera=open_camera(cfg.camera, world, clock),
        camera_cfg=cfg.camera,
        open_model=lambda: bad_day.over(open_model(bundle, cfg)),
        model_label=bundle.label,
        policy=station_policy(cfg.decision, bundle.manifest.thresholds),
        decision_cfg=cfg.decision,
        open_rejecter=lambda on_trigger, on_report, on_event: Rejecter(
            cfg.controller,
            port=_controller_port(cfg, sim),
            safe_action=cfg.decision.safe_action,
            clock=clock,
            on_trigger=on_trigger,
            on_report=on_report,
            on_event=on_event,
            resume=_last_part(state / JOURNAL),
        ),
        taps=[journal, *([evidence] if evidence else [])],
        clock=clock,
        rule=sound_rule(cfg, sound),
        gate=picture_gate(bundle),
    )
    desk = OperatorDesk(line, line.rejecter.hold, clock)
    voice = no_microphone or open_voice(
        cfg,
        state,
        store,
        carry_out=desk.carry_out,
        play=Beeper(cfg.voice.speaker).play,
        taps=[journal],
        clock=clock,
        microphone=microphone,
        retention=journal.retention,
    )
    return Box(cfg, line, journal, evidence, sim, bundle, desk, voice, sound, store, chooser, chosen, clock)


def _evidence(cfg: EdgeConfig, state: Path, journal: Journal, clock: Clock) -> Evidence:
    return Evidence(
        state,
        cfg.recording,
        clock=clock,
        kept=journal.kept,
        labelled=lambda: labels(journal.path),
        retention=journal.retention,
    )


def open_model(bundle: Bundle, cfg: EdgeConfig) -> VisionModel:
    """The model of a line. Whatever a runtime throws at it is the model's fault: ModelError."""
    try:
        return open_vision_model(bundle, cfg.model)
    except EdgeError:
        raise
    except Exception as err:
        raise ModelError(f"{bundle.label} cannot be loaded: {type(err).__name__}: {err}") from err


def change_detail(change: Change) -> dict[str, Any]:
    """What the event of a change says."""
    detail = asdict(change)
    del detail["number"], detail["verb"]
    return detail


def _controller_port(cfg: EdgeConfig, sim: SimLine | None) -> str:
    """A line that is attached to keeps the link `controller` beside its camera's socket."""
    if cfg.controller.driver != "sim":
        return cfg.controller.port
    return sim.controller_port if sim else str(Path(cfg.world.attach).parent / "controller")


def _last_part(journal: Path) -> PartKey | None:
    """The last part an earlier run knew of; the controller tells what passed since."""
    try:
        with JournalReader(journal) as reader:
            newest = reader.newest(1)
    except StorageError:
        return None  # no journal yet, or one that the journal itself will set aside
    return PartKey(newest[0].boot_id, newest[0].part_id) if newest else None


def _run_info(loaded: Loaded, bundle: Bundle) -> RunInfo:
    return RunInfo(
        config=loaded.config.model_dump(mode="json"),
        config_digest=loaded.digest,
        model=bundle.label,
        model_digest=bundle.digest,
        versions={"edge_runtime": __version__, "tflite": pick_runtime(loaded.config.model.runtime).label},
    )
