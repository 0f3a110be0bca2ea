"""From a station file to a box: which parts there are and who is handed what. The only place that knows them all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from edge_runtime import __version__
from edge_runtime.actuation.beeper import Beeper
from edge_runtime.actuation.rejecter import Rejecter
from edge_runtime.capture.cameras.drivers import open_camera
from edge_runtime.capture.microphones.shared import SharedMicrophone
from edge_runtime.config.load import Loaded
from edge_runtime.config.paths import JOURNAL, state_dir
from edge_runtime.config.schema import Automation, EdgeConfig
from edge_runtime.core.clock import Clock
from edge_runtime.core.errors import DeviceError, StorageError
from edge_runtime.core.messages import PartKey
from edge_runtime.core.status import ModelSeat
from edge_runtime.flow.components import Component, Health, State
from edge_runtime.inference.engine import pick_runtime
from edge_runtime.lines.sound_line import SoundLine
from edge_runtime.lines.vision_line import VisionLine
from edge_runtime.modelstore.bundle import Bundle
from edge_runtime.modelstore.store import open_store
from edge_runtime.predictors.model_choice import Chooser
from edge_runtime.recording.evidence import Evidence
from edge_runtime.recording.journal import Journal
from edge_runtime.recording.labelled_parts import labels_in_force
from edge_runtime.recording.reader import JournalReader
from edge_runtime.recording.records import RunInfo
from edge_runtime.simulation.line import SimLine, controller_beside
from edge_runtime.simulation.model_faults import ModelFaults
from edge_runtime.station.operator_desk import OperatorDesk
from edge_runtime.station.preview import Preview
from edge_runtime.station.remote_wiring import health_of_remote, open_remote
from edge_runtime.station.running_model import RunningModel, line_model
from edge_runtime.station.sound_wiring import open_shared_microphone, open_sound, sound_rule
from edge_runtime.station.voice_wiring import NoVoice, Voice, open_voice

log = logging.getLogger(__name__)


@dataclass
class Box:
    """One station, wired. Start recording first, the line last; stop in the order of flow."""

    line: VisionLine
    model: RunningModel
    journal: Journal
    evidence: Evidence | None
    sim: SimLine | None
    desk: OperatorDesk
    microphone: SharedMicrophone | None  # None: off, or one that cannot be had; `voice` says why
    voice: Voice | NoVoice | None
    sound: SoundLine | None
    preview: Preview
    remote_health: Callable[[], Health | None]  # of the server that is asked first; None: the station asks none
    _started: list[Component] = field(default_factory=list)

    @property
    def controller_detail(self) -> str:
        return self.line.rejecter.health().detail

    @property
    def run_id(self) -> int | None:
        return self.journal.run_id

    def start(self) -> None:
        sinks: list[Component] = [self.journal, *([self.evidence] if self.evidence else [])]
        for component in sinks:
            component.start()
            self._started.append(component)
        self.model.tell_changes()
        self.line.start()
        self.model.loaded()
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
        ears = {**self._microphone_health(), **{ear.name: ear.health() for ear in self._ears()}}
        remote = self.remote_health()
        elsewhere = {"remote": remote} if remote else {}
        return {**self.line.healths(), "model": self.model.health(), **elsewhere, **ears, **recording}

    def _microphone_health(self) -> Mapping[str, Health]:
        """Nothing where the station has none."""
        if self.microphone is not None:
            return {"microphone": self.microphone.microphone.health()}
        return {"microphone": Health(State.FAILED, self.voice.why)} if isinstance(self.voice, NoVoice) else {}

    def reports(self) -> Mapping[str, Any]:
        """What each component counts and measures, as core/status.Reports has it; the voice's stands by itself."""
        beside: dict[str, Component | None] = {
            "journal": self.journal,
            "evidence": self.evidence,
            "microphone": self.microphone.microphone if self.microphone else None,
            "sound": self.sound,
        }
        return {**self.line.report(), **{name: part.report() for name, part in beside.items() if part}}

    def models(self) -> Mapping[str, ModelSeat]:
        """Which model sits where, and what waits in its slots. `sound` from when it is loaded."""
        seats = {"line": self.model.seat()}
        if isinstance(self.voice, Voice):
            seats["voice"] = self.model.seat_of(self.voice.model)
        if self.sound and (label := self.sound.report().get("model")):
            seats["sound"] = self.model.seat_of(label)
        return seats


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
    if "sim" not in (cfg.camera.driver, cfg.controller.driver) or cfg.camera.sim.attach:
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
    camera = sim.seen_by(cfg.camera) if sim else cfg.camera
    remote = open_remote(cfg, lambda event: line.on_event(event), clock)  # noqa: PLW0108 - the line comes after it
    model, model_faults = line_model(bundle, cfg, remote), ModelFaults(cfg.world.bad_days)
    try:
        microphone, no_microphone = open_shared_microphone(cfg, clock), None
    except DeviceError as err:
        microphone, no_microphone = None, NoVoice(str(err))
    sound = open_sound(cfg, microphone, store, [journal], clock)
    preview = Preview()
    line = VisionLine(
        camera=open_camera(camera, clock),
        camera_cfg=cfg.camera,
        model=replace(model, open=lambda: model_faults.over(model.open())),
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
        taps=[journal, *([evidence] if evidence else []), preview],
        clock=clock,
        rule=sound_rule(cfg, sound),
        elsewhere=remote,
        share=cfg.model.remote.share,
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
    running = RunningModel(cfg, store, chooser, chosen, line, journal, clock, remote)
    remote_health = partial(health_of_remote, cfg, remote)
    return Box(line, running, journal, evidence, sim, desk, microphone, voice, sound, preview, remote_health)


def _evidence(cfg: EdgeConfig, state: Path, journal: Journal, clock: Clock) -> Evidence:
    return Evidence(
        state,
        cfg.recording,
        clock=clock,
        kept=journal.kept,
        labelled=lambda: labels_in_force(journal.path),
        retention=journal.retention,
    )


def _controller_port(cfg: EdgeConfig, sim: SimLine | None) -> str:
    if cfg.controller.driver != "sim":
        return cfg.controller.port
    return sim.controller_port if sim else controller_beside(cfg.camera.sim.attach)


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
