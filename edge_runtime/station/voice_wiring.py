"""From a station file to its voice line. Whatever is missing degrades the voice, never the inspection."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edge_runtime.capture.microphones.shared import SharedMicrophone
from edge_runtime.capture.talk_key import TalkKey
from edge_runtime.catalogue.catalogue import DATABASE, Catalogue
from edge_runtime.catalogue.searcher import Searcher
from edge_runtime.catalogue.spoken import ALIASES, DIGITS, LETTERS
from edge_runtime.config.paths import socket_path
from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.clock import SECOND, Clock
from edge_runtime.core.errors import DeviceError, EdgeError, ModelError
from edge_runtime.core.messages import Command
from edge_runtime.decision.dialog import Act, Dialog, DialogTimes
from edge_runtime.features.voice_activity import VoiceActivity, speech_cutting
from edge_runtime.flow.components import Health, State
from edge_runtime.inference.grammar import Grammar, is_installed
from edge_runtime.inference.grammar_words import GrammarWords, phrases_of, shapes_of
from edge_runtime.inference.remote_speech import RemoteSpeech
from edge_runtime.inference.speech_wire import SOCKET
from edge_runtime.lines.voice_line import VoiceLine, VoiceTap
from edge_runtime.modelstore.store import ModelStore
from edge_runtime.predictors.keyword import open_keyword_model
from edge_runtime.predictors.model_choice import ear_bundle
from edge_runtime.predictors.recogniser_chain import Asked, InOrder, KeywordRecogniser
from edge_runtime.predictors.wake_word import StreamingKeyword, open_micro_wake_word
from edge_runtime.recording.clips import ClipShelf
from edge_runtime.recording.retention import Retention

log = logging.getLogger(__name__)

WAKE_PACKAGE = "pymicro_wakeword"
GRAMMAR_SHARE_S = 0.25  # with 320 ms until the end of a word is known, the whole stays below 600 ms
MOST_ITEMS = 2000  # of the catalogue make the grammar; 10 ms
DEAF_MS = 450  # longest tone, and the way through the sound system


class Voice:
    """The voice of one box as a component: the line, its keys, and what the screen asks of it.

    A part of it that cannot be had is told in health; the rest works without it.
    """

    name = "voice"

    def __init__(
        self, line: VoiceLine, model: str, key: TalkKey | None, grammar: Grammar | None, missing: Sequence[str]
    ) -> None:
        """model: label of the bundle that hears the commands."""
        self.line = line
        self.model = model
        self._key = key
        self._grammar = grammar
        self._missing = list(missing)

    def start(self) -> None:
        if self._grammar:
            try:
                self._grammar.start()
            except EdgeError as err:
                self._miss(str(err))
        self.line.start()
        if self._key:
            try:
                self._key.start()
            except DeviceError as err:
                self._miss(str(err))

    def stop(self) -> None:
        if self._key:
            self._key.stop()
        self.line.stop()
        if self._grammar:
            self._grammar.stop()

    def health(self) -> Health:
        health = self.line.health()
        if self._missing and health.state is State.OK:
            return Health(State.DEGRADED, "; ".join(self._missing), health.progress_ns)
        return health

    def report(self) -> Mapping[str, Any]:
        return {**self.line.report(), "missing": list(self._missing)}

    def _miss(self, why: str) -> None:
        log.error("voice.missing %s", why)
        self._missing.append(why)


class NoVoice:
    """A voice that cannot be had, with the reason. The box runs all the same."""

    name = "voice"
    line = None

    def __init__(self, why: str) -> None:
        self.why = why
        log.error("voice.unavailable %s", why)

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def health(self) -> Health:
        return Health(State.DEGRADED, f"voice unavailable: {self.why}")

    def report(self) -> Mapping[str, Any]:
        return {}


def open_voice(
    cfg: EdgeConfig,
    state: Path,
    store: ModelStore,
    *,
    carry_out: Callable[[Act], None],
    play: Callable[[str], None],
    taps: Sequence[VoiceTap],
    clock: Clock,
    microphone: SharedMicrophone | None,
    retention: Retention,
) -> Voice | NoVoice | None:
    """The station's voice, not yet started; None where it has no microphone."""
    if microphone is None:
        return None
    try:
        return _open(
            cfg,
            state,
            store,
            carry_out=carry_out,
            play=play,
            taps=taps,
            clock=clock,
            microphone=microphone,
            retention=retention,
        )
    except EdgeError as err:
        return NoVoice(str(err))


def _open(
    cfg: EdgeConfig,
    state: Path,
    store: ModelStore,
    *,
    carry_out: Callable[[Act], None],
    play: Callable[[str], None],
    taps: Sequence[VoiceTap],
    clock: Clock,
    microphone: SharedMicrophone,
    retention: Retention,
) -> Voice:
    voice = cfg.voice
    missing: list[str] = []
    model = open_keyword_model(ear_bundle(voice.model, store), cfg.model)
    cutter = VoiceActivity(speech_cutting(cfg.microphone, model.spec))
    times = DialogTimes(*(round(seconds * SECOND) for seconds in (voice.window_s, voice.cancel_s, voice.show_s)))
    shelf = ClipShelf(state, voice.keep_days_audio, retention) if voice.keep_audio else None
    grammar = open_grammar(cfg, state, clock)
    wake = open_wake(cfg, missing)  # last: pymicro-features, freed on the way of an exception, loses the exception
    line = VoiceLine(
        microphone=microphone.view(),
        wake=wake,
        wake_at=wake.least_score if wake else 1.0,
        cutter=cutter,
        recognise=InOrder(KeywordRecogniser(model), others(cfg, grammar, clock), clock),
        search=Searcher(state / DATABASE),
        dialog=Dialog(cfg.decision.automation, times),
        carry_out=carry_out,
        play=play,
        keep_audio=shelf.keep if shelf else None,
        taps=taps,
        clock=clock,
        deaf_ms=DEAF_MS if voice.speaker else 0,
    )
    key = TalkKey(voice.talk_gpio, line.push) if voice.talk_gpio else None
    return Voice(line, model.label, key, grammar, missing)


def others(cfg: EdgeConfig, grammar: Grammar | None, clock: Clock) -> list[Asked]:
    """Who is asked beside the box's own bundle, the most trusted first."""
    remote = cfg.voice.remote
    asked: list[Asked] = []
    if remote.url and remote.may_leave:
        asked.append(RemoteSpeech(socket_path(cfg).with_name(SOCKET), remote.share_ms / 1000.0, clock))
    return [*asked, *([grammar] if grammar else [])]


def open_grammar(cfg: EdgeConfig, state: Path, clock: Clock) -> Grammar | None:
    """The station's grammar, not yet started; None where it is off or not installed, which is no fault."""
    if cfg.voice.grammar == "off" or not is_installed():
        return None
    path = state / DATABASE
    return Grammar(lambda: grammar_words(path), lambda: _changed(path), GRAMMAR_SHARE_S, clock)


def grammar_words(path: Path) -> GrammarWords:
    """Commands, and what the catalogue holds. A catalogue in trouble leaves the commands and the usual codes."""
    codes: list[str] = []
    names: list[str] = []
    try:
        with Catalogue(path) as catalogue:
            for item in itertools.islice(catalogue.items(), MOST_ITEMS):
                codes.append(item.code)
                names += [item.name, *item.aliases.split(";")]
    except EdgeError as err:
        log.error("catalogue.trouble %s", err)
    spelling = {word: symbol for word, symbol in ALIASES.items() if symbol != "-"}
    return GrammarWords(
        letters=(*LETTERS, *(word for word, symbol in spelling.items() if symbol.isalpha())),
        digits=(*DIGITS, *(word for word, symbol in spelling.items() if symbol.isdigit())),
        shapes=shapes_of(codes),
        phrases=(*(command.value for command in Command), *phrases_of(names, DIGITS)),
    )


def _changed(path: Path) -> int:
    """When the catalogue was last written; a write may be in the log beside it."""
    times = [0]
    for file in (path, path.with_name(path.name + "-wal")):
        with contextlib.suppress(OSError):
            times.append(file.stat().st_mtime_ns)
    return max(times)


def open_wake(cfg: EdgeConfig, missing: list[str]) -> StreamingKeyword | None:
    """The station's wake word. Where it cannot be had, the talk key still works."""
    try:
        return find_wake(cfg)
    except EdgeError as err:
        missing.append(f"no wake word: {err}")
        return None


def find_wake(cfg: EdgeConfig) -> StreamingKeyword | None:
    """None where the station wants none. Raises EdgeError where it cannot be had."""
    if not cfg.voice.wake:
        return None
    return open_micro_wake_word(wake_settings(cfg.voice.wake), cfg.model, cfg.voice.wake_at)


def wake_settings(wake: str) -> Path:
    """The file that describes a wake word: a path, or a name of the package. Raises ModelError."""
    if "/" in wake:
        return Path(wake).expanduser()
    spec = find_spec(WAKE_PACKAGE)  # only its models are of use here: it is not imported
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            "wake words come with pymicro-wakeword", "pip install 'edge-runtime[voice]', or clear voice.wake"
        )
    folder = Path(spec.submodule_search_locations[0]) / "models"
    settings = folder / f"{wake}.json"
    if not settings.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.json")))
        raise ModelError(f"no wake word '{wake}' (there is {known})", "set voice.wake")
    return settings
