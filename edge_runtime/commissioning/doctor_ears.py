"""Doctor's look at what listens: the microphone, the operator's voice, the sound of the machine.

While the daemon runs it holds the microphone: it is asked, and the sound system is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from shutil import which

from edge_runtime.capture.microphones.survey import ask_devices, judge
from edge_runtime.capture.talk_key import check_chip, parse
from edge_runtime.catalogue.catalogue import DATABASE, Catalogue
from edge_runtime.commissioning.far_side import running_box
from edge_runtime.commissioning.finding import Finding, Level, of_error
from edge_runtime.commissioning.silent_box import SILENT, unasked
from edge_runtime.config.load import Loaded
from edge_runtime.config.paths import state_dir
from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.errors import DeviceError, EdgeError, ModelError
from edge_runtime.core.state import State
from edge_runtime.core.status import Status
from edge_runtime.features.voice_activity import speech_cutting
from edge_runtime.inference.native_noise import native_noise_hidden
from edge_runtime.lines.voice_line import LATCHED, LATCHED_FIX
from edge_runtime.modelstore.store import open_store
from edge_runtime.predictors.golden import check_golden
from edge_runtime.predictors.model_choice import would_listen
from edge_runtime.predictors.sound import open_sound_model
from edge_runtime.station.voice_wiring import find_wake

LOOK = "edge-runtime io microphones lists what is there; edge-runtime status says how the running box hears"
IMPORT = "import the station's own: edge-runtime search --import FILE.csv"


def microphone_findings(loaded: Loaded) -> Iterator[Finding]:
    cfg = loaded.config
    if cfg.microphone.driver == "off":
        yield Finding("microphone", "ok", "off")
        return
    try:
        box = running_box(cfg)
    except SILENT as err:
        yield unasked("microphone", err)
        return
    if box is not None:
        yield _running(box)
    else:
        devices, trouble = ask_devices() if cfg.microphone.driver == "pyaudio" else ([], None)
        found = judge(cfg.microphone, devices, trouble)
        state: Level = "ok" if found.is_ready else "fail"
        yield Finding("microphone", state, found.detail, "" if found.is_ready else found.fix or LOOK)


def voice_findings(loaded: Loaded) -> Iterator[Finding]:
    """Nothing for a station without a microphone."""
    cfg = loaded.config
    if cfg.microphone.driver == "off":
        return
    yield _words(cfg)
    yield _wake(cfg)
    if cfg.voice.talk_gpio:
        yield _key(cfg.voice.talk_gpio)
    if cfg.voice.speaker:
        yield _speaker(cfg.voice.speaker)
    yield _catalogue(cfg)
    with suppress(*SILENT):  # told of the microphone
        box = running_box(cfg)
        if box and box.voice and box.voice.voice_activity.is_latched:
            yield Finding("voice.noise", "warn", LATCHED, LATCHED_FIX)


def sound_findings(loaded: Loaded) -> Iterator[Finding]:
    """Nothing for a station without a microphone, unless its sound model needs one."""
    cfg = loaded.config
    model = cfg.sound.model
    if cfg.microphone.driver == "off":
        if model:
            what = f"sound.model is {model!r} and microphone.driver is 'off'"
            yield Finding("sound", "fail", what, "set one or the other")
    elif not model:
        yield Finding("sound", "ok", "off")
    else:
        try:
            bundle = would_listen(model, open_store(cfg))
            with native_noise_hidden():
                open_sound_model(bundle, cfg.model)
        except ModelError as err:
            fix = "set sound.model to a bundle of `edge-runtime models list`, or learn one: data learn-sound"
            yield of_error("sound", "fail", err, fix)
        else:
            yield Finding("sound", "ok", bundle.label)


def _running(box: Status) -> Finding:
    process, voice = f"process {box.pid}", box.health.get("voice")
    if voice is None:
        what = f"{process} was started without a microphone"
        return Finding("microphone", "warn", what, "restart it: systemctl restart edge-runtime-run")
    heard = box.report.microphone or (box.voice.microphone if box.voice else None)
    if heard is None or not _is_open(box):
        return Finding("microphone", "warn", voice.detail.removeprefix("voice unavailable: "), LOOK)
    device = heard.device or heard.driver
    if not heard.chunks:
        return Finding("microphone", "warn", f"{process} holds {device}, nothing heard yet", LOOK)
    detail = f"{process} listens: {device}, {heard.chunks} chunks"
    if heard.restarts:
        fix = "check cable and plug; edge-runtime status names the last trouble"
        return Finding("microphone", "warn", f"{detail}, opened again {heard.restarts} times", fix)
    return Finding("microphone", "ok", detail)


def _is_open(box: Status) -> bool:
    """Not where the file or the model of its listener is missing. A run before this release does not tell."""
    health = box.health.get("microphone")
    return health is None or health.state is not State.STOPPED


def _words(cfg: EdgeConfig) -> Finding:
    try:
        bundle = would_listen(cfg.voice.model, open_store(cfg))
    except ModelError as err:
        return of_error("voice.words", "fail", err, "set voice.model to a bundle of `edge-runtime models list`")
    try:
        speech_cutting(cfg.microphone, bundle.manifest.audio)
    except ModelError as err:
        return of_error("voice.words", "fail", err, LOOK)
    with native_noise_hidden():
        tested = check_golden(bundle, cfg.model)
    if tested.problem:
        fix = "edge-runtime models verify, then install the bundle again or set voice.model"
        return Finding("voice.words", "fail", f"{bundle.label}: {tested.problem}", fix)
    return Finding("voice.words", "ok", f"{bundle.label}, {tested.pictures} golden sounds heard as by its maker")


def _wake(cfg: EdgeConfig) -> Finding:
    try:
        if find_wake(cfg) is not None:
            return Finding("voice.wake", "ok", cfg.voice.wake)
    except EdgeError as err:
        return of_error("voice.wake", "warn", err, "set voice.wake")
    if cfg.voice.talk_gpio:
        return Finding("voice.wake", "ok", "talk key only")
    return Finding("voice.wake", "warn", "neither wake word nor talk key", "set voice.wake or voice.talk_gpio")


def _key(where: str) -> Finding:
    try:
        check_chip(parse(where)[0])
    except DeviceError as err:
        return of_error("voice.key", "fail", err, "set voice.talk_gpio")
    return Finding("voice.key", "ok", where)


def _speaker(device: str) -> Finding:
    if which("aplay") is None:
        return Finding("voice.speaker", "warn", f"{device} is silent: no aplay here", "apt install alsa-utils")
    return Finding("voice.speaker", "ok", device)


def _catalogue(cfg: EdgeConfig) -> Finding:
    """It is not made here: that is for the service's user to do."""
    path = state_dir(cfg) / DATABASE
    if not path.exists():
        return Finding("voice.catalogue", "warn", "none yet, operators will find the shipped sample", IMPORT)
    try:
        with Catalogue(path) as catalogue:
            count = len(catalogue)
    except EdgeError as err:
        return of_error("voice.catalogue", "fail", err, IMPORT)
    if not count:
        return Finding("voice.catalogue", "warn", f"{path} is empty: nothing can be found", IMPORT)
    return Finding("voice.catalogue", "ok", f"{count} items")
