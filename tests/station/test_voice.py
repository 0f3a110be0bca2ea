"""The voice of a whole box: the real daemon with a recording for a microphone, and what happens where parts lack."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.capture.microphones.drivers import open_microphone
from edge_runtime.capture.microphones.shared import SharedMicrophone
from edge_runtime.catalogue.catalogue import DATABASE, Catalogue
from edge_runtime.catalogue.searcher import Found, Searcher
from edge_runtime.catalogue.spoken import DIGITS
from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.clock import monotonic_ns
from edge_runtime.core.errors import DeviceError
from edge_runtime.flow.components import State
from edge_runtime.inference.speech_wire import SOCKET
from edge_runtime.modelstore.store import ModelStore
from edge_runtime.process.control import ask
from edge_runtime.recording.reader import JournalReader
from edge_runtime.recording.retention import Retention
from edge_runtime.serve.speech.relay import SpeechRelay
from edge_runtime.station.voice_wiring import NoVoice, grammar_words, open_voice, others, wake_settings
from tests.lines.voice_rig import golden, keyword_bundle, quiet, write_wav
from tests.serve.speech_servers import wyoming_server
from tests.support.waiting import until

LONG_S = 60.0


class Box:
    """A running daemon and its control socket."""

    def __init__(self, state: Path, process: subprocess.Popen[str]) -> None:
        self.state, self.process = state, process
        self.sock = state / "control.sock"

    def ask(self, do: str, **words: Any) -> Any:
        return ask(self.sock, do, **words)

    def voice(self) -> dict[str, Any]:
        voice: dict[str, Any] = self.ask("status")["voice"]
        return voice

    def until(self, claim: Callable[[], object]) -> None:
        until(claim, LONG_S, lambda: (self.state / "log").read_text()[-3000:])

    def say(self) -> dict[str, Any]:
        """Press the key and wait for the end of what it opened: the request, as the screen has it."""
        before = self.voice()["requests"]
        self.ask("listen", by="test")
        self.until(lambda: self.voice()["requests"] > before)
        last: dict[str, Any] = self.voice()["recent"][-1]
        return last

    def end(self) -> dict[str, Any]:
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=20)
        document: dict[str, Any] = json.loads(out)
        return document

    def requests(self) -> list[dict[str, Any]]:
        with JournalReader(self.state / "journal.db") as reader:
            return list(reader.requests())


@contextlib.contextmanager
def box(state: Path, *settings: str) -> Iterator[Box]:
    """`edge-runtime run` on the simulated line, ready."""
    state.mkdir(exist_ok=True)
    given = [f'recording.state_dir="{state}"', "world.parts_per_s=5", 'voice.wake=""', 'voice.grammar="off"']
    given += ["camera.width=320", "camera.height=180", *settings]
    command = [sys.executable, "-m", "edge_runtime", "run", "--json", "--config", "embedded"]
    for setting in given:
        command += ["--set", setting]
    with (state / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    running = Box(state, process)
    try:
        running.until(lambda: process.poll() is not None or is_up(running))
        assert process.poll() is None, (state / "log").read_text()
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def is_up(running: Box) -> bool:
    with contextlib.suppress(DeviceError):
        return bool(running.ask("status")["parts"])
    return False


def microphone(folder: Path, *words: str) -> list[str]:
    """Settings of a microphone that says these words of the bundle, over and over."""
    bundle = keyword_bundle()
    pieces = [piece for word in words for piece in (quiet(0.5), golden(bundle, word), quiet(0.7))]  # one a window
    path = write_wav(folder / "words.wav", np.concatenate(pieces))
    return ['microphone.driver="wav"', f'microphone.file="{path}"', "voice.cancel_s=0.3", "microphone.gap_ms=0"]


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


def test_a_spoken_reject_is_carried_out_and_recorded(tmp_path, state):
    with box(state, *microphone(tmp_path, "reject"), 'decision.automation="partial"') as running:
        said = running.say()
        assert (said["command"], said["outcome"]) == ("reject", "done")
        assert running.voice()["act.reject"] == 1
        assert running.ask("automation", degree="full") == {"before": "partial", "now": "full"}
        assert running.say()["outcome"] == "noted"
        summary = running.end()
    assert summary["unaccounted"] == 0
    first, second = running.requests()
    assert (first["source"], first["command"], first["outcome"]) == ("button", "reject", "done")
    assert first["end_ns"] > first["start_ns"] >= 0
    assert first["origin"] == keyword_bundle().label and first["audio"] == ""
    assert (second["outcome"], second["reason"]) == ("noted", "decision.automation is full: kept as a label")
    with JournalReader(state / "journal.db") as reader:
        people = [part for part in reader.newest(1000) if part.label == "reject" or part.cause == "human"]
    assert people, "no part has what was said of it"


def test_a_person_decides_the_part_that_waits(tmp_path, state):
    waits = ['decision.automation="human_only"', "decision.deadline_ms=900", "world.parts_per_s=1"]
    with box(state, *microphone(tmp_path, "reject"), *waits) as running:
        running.until(lambda: running.say() and running.ask("status")["causes"]["human"])
        running.end()
    with JournalReader(state / "journal.db") as reader:
        decided = [part for part in reader.newest(1000) if part.cause == "human"]
    assert {part.verdict for part in decided} == {"reject"}


def test_stop_line_holds_until_somebody_resumes(tmp_path, state):
    with box(state, *microphone(tmp_path, "stop_line")) as running:
        assert running.say()["command"] == "stop line"
        assert running.ask("status")["held_by"] == "stop line"
        assert running.ask("resume", by="test") == {"resumed": True}
        assert running.ask("status")["held_by"] == ""
        assert running.ask("hold", by="test") == {"held_by": "stop line"}
        assert running.ask("resume", by="test") == {"resumed": True}
        parts = running.ask("status")["parts"]
        running.until(lambda: running.ask("status")["parts"] > parts)


def test_sound_is_kept_only_where_the_station_says_so(tmp_path, state):
    with box(state, *microphone(tmp_path, "accept"), "voice.keep_audio=true") as running:
        running.say()
        running.end()
    (request,) = running.requests()
    assert (state / request["audio"]).read_bytes()[:4] == b"RIFF"


def test_a_typed_search_is_a_request_too(tmp_path, state):
    with box(state, *microphone(tmp_path, "other")) as running:
        assert running.ask("search", text="alpha seven four one") == {"results": [], "near": ["A742", "A743"]}
        assert running.ask("search", text="grease")["results"][0] == "D02"
        assert running.ask("choose", code="D02")
        running.until(lambda: running.voice()["requests"] == 2)
        running.end()
    near, found = [request for request in running.requests() if request["source"] == "typed"]
    assert (near["outcome"], near["results"], near["reason"]) == ("empty", [], "no A741; one symbol off: A742, A743")
    assert (found["transcript"], found["choice"]) == ("grease", "D02")


def test_a_dead_microphone_costs_the_voice_and_no_part(tmp_path, state):
    keyword_bundle()
    settings = ['microphone.driver="wav"', f'microphone.file="{tmp_path}/missing.wav"']
    with box(state, *settings) as running:
        running.until(lambda: running.ask("status")["health"]["voice"]["state"] == "degraded")
        health = running.ask("status")["health"]
        assert "microphone.file" in health["voice"]["detail"]
        assert health["line"]["state"] == "ok"
        write_wav(tmp_path / "missing.wav", np.concatenate([quiet(1), golden(keyword_bundle(), "accept"), quiet(1)]))
        running.until(lambda: running.ask("status")["health"]["voice"]["state"] == "ok")
        assert running.say()["command"] == "accept"  # it came back by itself
        summary = running.end()
    assert summary["unaccounted"] == 0 and summary["parts"] > 0


def test_a_simulated_microphone_that_breaks_comes_back(state):
    keyword_bundle()
    bad = ['microphone.driver="sim"', 'microphone.sim.bad_days.fault="disconnect"', "microphone.sim.bad_days.at_s=1"]
    with box(state, *bad, "microphone.sim.bad_days.for_s=2") as running:
        running.until(lambda: running.ask("status")["health"]["voice"]["state"] == "degraded")
        running.until(lambda: running.ask("status")["health"]["voice"]["state"] == "ok")
        assert running.voice()["lost"] >= 1
        assert running.end()["unaccounted"] == 0


def test_a_station_without_its_bundle_runs_without_voice(state):
    with box(state, 'microphone.driver="sim"', 'voice.model="nonsense"') as running:
        health = running.ask("status")["health"]["voice"]
        assert health["state"] == "degraded" and "no model 'nonsense'" in health["detail"]
        with pytest.raises(DeviceError, match="voice unavailable"):
            running.ask("listen")


def test_a_speech_server_is_asked_over_serve_and_missed_without_harm(tmp_path, state):
    remote = ['voice.remote.url="tcp://127.0.0.1:9"', "voice.remote.may_leave=true"]
    with box(state, *microphone(tmp_path, "seven"), *remote) as running:
        running.say()  # nobody serves: the box's own word counts
        recogniser = running.voice()["recogniser"]
        assert recogniser["remote.unavailable"] >= 1
        assert recogniser["own.spelled"] >= 1
        running.end()
    assert running.requests()[0]["transcript"] == "seven"


def test_a_speech_server_answers_the_box_over_serve(tmp_path, state):
    with wyoming_server() as url:
        remote = [f'voice.remote.url="{url}"', "voice.remote.may_leave=true", "voice.remote.share_ms=5000"]
        with box(state, *microphone(tmp_path, "seven"), *remote) as running:
            cfg = EdgeConfig.model_validate({"voice": {"remote": {"url": url, "may_leave": True}}})
            relay = SpeechRelay(cfg.voice.remote, state / SOCKET)
            relay.start()
            try:
                said = running.say()
            finally:
                relay.stop()
            assert running.voice()["recogniser"]["remote.answered"] == 1
            running.end()
    assert said["transcript"].startswith("asr heard ") and said["transcript"].endswith("started true")
    assert running.requests()[0]["origin"] == f"remote:asr@{url.removeprefix('tcp://')}"


# -- wiring ------------------------------------------------------------------------------------------------------------


def wired(tmp_path, tree):
    cfg = EdgeConfig.model_validate({"recording": {"state_dir": str(tmp_path)}, **tree})
    store = ModelStore(tmp_path / "models")
    shared = None if cfg.microphone.driver == "off" else SharedMicrophone(open_microphone(cfg.microphone, monotonic_ns))
    return open_voice(
        cfg,
        tmp_path,
        store,
        carry_out=lambda act: None,
        play=lambda sound: None,
        taps=[],
        clock=monotonic_ns,
        microphone=shared,
        retention=Retention(tmp_path, monotonic_ns),
    )


def test_without_a_microphone_there_is_no_voice(tmp_path):
    assert wired(tmp_path, {}) is None


def test_a_wake_word_that_lacks_leaves_the_key(tmp_path):
    keyword_bundle()
    voice = wired(tmp_path, {"microphone": {"driver": "sim"}, "voice": {"wake": "hey_nobody", "grammar": "off"}})
    voice.start()
    try:
        until(lambda: voice.health().state not in (State.STARTING, State.STOPPED))
        assert voice.health().state is State.DEGRADED
        assert "hey_jarvis" in voice.health().detail
        assert voice.line.push() == "listening"
    finally:
        voice.stop()


def test_a_rate_that_the_model_does_not_take_is_told(tmp_path):
    keyword_bundle()
    voice = wired(tmp_path, {"microphone": {"driver": "sim", "rate_hz": 48_000}})
    assert isinstance(voice, NoVoice)
    assert "set microphone.rate_hz" in voice.health().detail


def test_a_wake_word_by_path_or_name(tmp_path):
    assert wake_settings("./my.json") == Path("my.json")
    assert wake_settings("hey_jarvis").name == "hey_jarvis.json"


def test_sound_goes_to_a_server_only_where_it_may(tmp_path):
    remote = {"url": "tcp://asr:10300", "may_leave": True}
    cfg = EdgeConfig.model_validate({"recording": {"state_dir": str(tmp_path)}, "voice": {"remote": remote}})
    assert [asked.label for asked in others(cfg, None, monotonic_ns)] == ["remote"]
    closed = cfg.voice.remote.model_copy(update={"may_leave": False})
    shut = cfg.model_copy(update={"voice": cfg.voice.model_copy(update={"remote": closed})})
    assert others(shut, None, monotonic_ns) == []


def test_the_grammar_holds_the_catalogue(tmp_path):
    words = grammar_words(tmp_path / DATABASE)
    assert set(words.shapes) == {"LDD", "LDDD"}
    assert {"reject", "stop line", "display glass", "oil drop", "grease"} <= set(words.phrases)
    assert set(DIGITS) <= set(words.digits) and "niner" in words.digits and "alfa" in words.letters


def test_a_catalogue_in_trouble_finds_nothing_and_leaves_the_commands(tmp_path):
    path = tmp_path / DATABASE
    path.write_bytes(b"nothing like a database" * 100)
    assert Searcher(path)("grease") == Found()
    assert "reject" in grammar_words(path).phrases


def test_an_import_is_seen_at_once(tmp_path):
    search = Searcher(tmp_path / DATABASE)
    assert search("grease").results[0] == "D02"
    assert search("alpha seven four one") == Found((), ("A742", "A743"))
    csv = tmp_path / "c.csv"
    csv.write_text("code,name\nX1,grease gun\n")
    with Catalogue(tmp_path / DATABASE) as catalogue:
        catalogue.import_csv(csv)
    assert search("grease") == Found(("X1",))
