"""Doctor on microphone, voice and machine sound: each finding names its fix, and a running box is asked."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.capture import talk_key
from edge_runtime.capture.microphones import drivers as microphones_module
from edge_runtime.capture.microphones.microphone import MicrophoneDevice
from edge_runtime.catalogue.catalogue import DATABASE, Catalogue
from edge_runtime.commissioning import doctor_ears
from edge_runtime.commissioning.doctor_ears import microphone_findings, sound_findings, voice_findings
from edge_runtime.commissioning.finding import Finding
from edge_runtime.config.load import load
from edge_runtime.core.errors import DeviceError
from edge_runtime.core.glance import ComponentHealth
from edge_runtime.core.state import State
from edge_runtime.core.status import Status, VoiceReport
from edge_runtime.lines.voice_line import LATCHED, LATCHED_FIX
from edge_runtime.modelstore.bundle import seal_bundle
from tests.lines.voice_rig import keyword_bundle, quiet, write_wav
from tests.support.real_box import telling

USB = MicrophoneDevice("USB PnP Audio: Mono (hw:1,0)", "ALSA", 1, 48_000, False)
SIM = "microphone.driver=sim"
NO_PACKAGE = "microphone driver 'pyaudio' needs the package 'pyaudio', which is not installed: apt install x, then pip"
CHECKS = {"microphone": microphone_findings, "voice": voice_findings, "sound": sound_findings}


@pytest.fixture
def found(tmp_path: Path) -> Any:
    def look(check: str, *settings: str) -> dict[str, Finding]:
        loaded = load(None, [f"recording.state_dir={tmp_path}", *settings])
        return {finding.name: finding for finding in CHECKS[check](loaded)}

    return look


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphones_module, "list_microphones", lambda: [USB])


@pytest.fixture
def box(tmp_path: Path, real_status: Status) -> Iterator[Any]:
    """A daemon that runs and says of its ears what a real one says, but for what the test changes."""
    with ExitStack() as stack:
        yield lambda change: stack.enter_context(telling(tmp_path / "control.sock", change(real_status)))


def with_microphone(shot: Status, **changes: Any) -> Status:
    assert shot.report.microphone
    return replace(shot, report=replace(shot.report, microphone=replace(shot.report.microphone, **changes)))


def without_microphone(shot: Status) -> Status:
    """As of a station whose microphone is off."""
    health = {name: told for name, told in shot.health.items() if name not in ("microphone", "voice", "sound")}
    return replace(shot, voice=None, health=health, report=replace(shot.report, microphone=None, sound=None))


def with_one_that_cannot_be_had(shot: Status) -> Status:
    lost = ComponentHealth(State.FAILED, NO_PACKAGE, None)
    voice = ComponentHealth(State.DEGRADED, f"voice unavailable: {NO_PACKAGE}", None)
    bare = without_microphone(shot)
    return replace(bare, health={**bare.health, "microphone": lost, "voice": voice})


def of_the_release_before(shot: Status) -> Status:
    """It told of the microphone only what the voice has of it."""
    health = {name: told for name, told in shot.health.items() if name != "microphone"}
    return replace(shot, health=health, report=replace(shot.report, microphone=None))


# -- microphone --------------------------------------------------------------------------------------------------------


def test_a_station_without_a_microphone_has_one_line(found: Any) -> None:
    assert found("microphone") == {"microphone": Finding("microphone", "ok", "off")}
    assert found("voice") == found("sound") == {}


def test_a_simulated_microphone_needs_nothing(found: Any) -> None:
    assert found("microphone", SIM)["microphone"] == Finding("microphone", "ok", "simulated")


@pytest.mark.parametrize(
    ("device", "state", "words"),
    [("usb pnp", "ok", USB.name), ("", "ok", USB.name), ("jabra", "fail", "no microphone 'jabra' (found: USB PnP")],
)
def test_the_device_is_looked_for_among_those_found(
    found: Any, devices: None, device: str, state: str, words: str
) -> None:
    finding = found("microphone", "microphone.driver=pyaudio", f'microphone.device="{device}"')["microphone"]
    assert finding.state == state and words in finding.detail
    assert finding.fix == ("check the cable or set microphone.device" if state == "fail" else "")


def test_no_device_at_all_is_a_failure(found: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphones_module, "list_microphones", list)
    finding = found("microphone", "microphone.driver=pyaudio")["microphone"]
    assert finding.state == "fail" and "no microphone that can record (found: none)" in finding.detail


def test_a_missing_library_is_named_with_what_to_install(found: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphones_module, "find_spec", lambda package: None)
    finding = found("microphone", "microphone.driver=pyaudio")["microphone"]
    assert finding.state == "fail" and "needs the package 'pyaudio'" in finding.detail
    assert finding.fix.startswith("apt install portaudio19-dev") and "edge-runtime[voice]" in finding.fix


def test_a_recording_must_be_there(found: Any, tmp_path: Path) -> None:
    wav = ("microphone.driver=wav", f"microphone.file={tmp_path / 'hall.wav'}")
    finding = found("microphone", *wav)["microphone"]
    assert finding.state == "fail" and "hall.wav' does not exist" in finding.detail and "WAV file" in finding.fix
    write_wav(tmp_path / "hall.wav", quiet(0.1))
    assert found("microphone", *wav)["microphone"].state == "ok"


def test_the_microphone_of_a_running_box_is_not_touched(found: Any, box: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> list[MicrophoneDevice]:
        raise AssertionError("the sound system was asked")

    monkeypatch.setattr(microphones_module, "list_microphones", refuse)
    box(lambda shot: with_microphone(replace(shot, pid=99), device=USB.name, chunks=1234))
    finding = found("microphone", "microphone.driver=pyaudio")["microphone"]
    assert finding == Finding("microphone", "ok", f"process 99 listens: {USB.name}, 1234 chunks")


@pytest.mark.parametrize("change", [lambda shot: shot, of_the_release_before], ids=["of now", "of before"])
def test_what_a_real_box_hears_is_told(found: Any, box: Any, real_status: Status, change: Any) -> None:
    box(change)
    finding = found("microphone", "microphone.driver=wav")["microphone"]
    assert finding.state == "ok" and finding.detail.startswith(f"process {real_status.pid} listens: wav, ")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_one_that_cannot_be_had, "microphone driver 'pyaudio' needs the package 'pyaudio'"),
        (without_microphone, "was started without a microphone"),
        (lambda shot: with_microphone(shot, chunks=0, restarts=4), "nothing heard yet"),
        (lambda shot: with_microphone(shot, chunks=9, restarts=4), "opened again 4 times"),
    ],
)
def test_a_running_box_that_hears_badly_is_a_warning(found: Any, box: Any, change: Any, words: str) -> None:
    box(change)
    finding = found("microphone", "microphone.driver=pyaudio")["microphone"]
    assert finding.state == "warn" and words in finding.detail and finding.fix


# -- voice -------------------------------------------------------------------------------------------------------------


def test_the_shipped_voice_is_good_and_its_golden_sounds_are_heard(found: Any, tmp_path: Path) -> None:
    pytest.importorskip("pymicro_wakeword")
    pytest.importorskip("pymicro_features")
    bundle = keyword_bundle()
    with Catalogue(tmp_path / DATABASE):
        pass
    every = found("voice", SIM)
    assert {finding.state for finding in every.values()} == {"ok"}
    words = every["voice.words"].detail
    assert words.startswith(f"{bundle.label}, ") and "golden sounds" in words
    assert every["voice.wake"].detail == "hey_jarvis"
    assert "voice.key" not in every and "voice.speaker" not in every and "voice.noise" not in every


def test_a_bundle_that_is_not_there_is_named(found: Any) -> None:
    finding = found("voice", SIM, "voice.model=nonsense")["voice.words"]
    assert finding.state == "fail" and "'nonsense'" in finding.detail and "voice.model" in finding.fix


def test_a_bundle_that_hears_other_words_than_its_maker_is_a_failure(found: Any, tmp_path: Path) -> None:
    source = keyword_bundle()
    folder = tmp_path / "models" / source.manifest.name / source.manifest.version
    shutil.copytree(source.folder, folder)
    for file in (folder / "golden").glob("*.wav"):
        write_wav(file, quiet(1.0))
    seal_bundle(folder, source.manifest)
    finding = found("voice", SIM, "voice.wake=''")["voice.words"]
    assert finding.state == "fail" and "differs" in finding.detail and "models verify" in finding.fix


def test_a_microphone_of_another_rate_is_named(found: Any) -> None:
    keyword_bundle()
    finding = found("voice", SIM, "microphone.rate_hz=48000", "voice.wake=''")["voice.words"]
    assert finding.state == "fail" and "48000" in finding.detail and "microphone.rate_hz" in finding.fix


@pytest.mark.parametrize(
    ("wake", "state", "words"),
    [("hey_nobody", "warn", "no wake word 'hey_nobody'"), ("", "warn", "neither wake word nor talk key")],
)
def test_a_wake_word_that_is_not_there_is_named(found: Any, wake: str, state: str, words: str) -> None:
    finding = found("voice", SIM, "voice.model=nonsense", f"voice.wake='{wake}'")["voice.wake"]
    assert finding.state == state and words in finding.detail and "voice.wake" in finding.fix


def test_a_talk_key_needs_its_chip_and_the_right_to_it(
    found: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talk_key, "find_spec", lambda package: object())
    words = (SIM, "voice.model=nonsense", "voice.wake=''", f"voice.talk_gpio='{tmp_path / 'gpiochip9'}:4'")
    missing = found("voice", *words)["voice.key"]
    assert missing.state == "fail" and "no GPIO chip" in missing.detail and missing.fix == "set voice.talk_gpio"
    (tmp_path / "gpiochip9").touch()
    every = found("voice", *words)
    assert every["voice.key"].state == "ok" and every["voice.wake"] == Finding("voice.wake", "ok", "talk key only")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    refused = found("voice", *words)["voice.key"]
    assert refused.state == "fail" and "may not be opened" in refused.detail and "usermod -aG gpio" in refused.fix
    monkeypatch.setattr(talk_key, "find_spec", lambda package: None)
    assert "edge-runtime[voice]" in found("voice", *words)["voice.key"].fix


def test_a_speaker_needs_aplay(found: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (SIM, "voice.model=nonsense", "voice.wake=''", "voice.speaker='plughw:1'")
    monkeypatch.setattr(doctor_ears, "which", lambda name: None)
    finding = found("voice", *words)["voice.speaker"]
    assert finding.state == "warn" and "aplay" in finding.detail and "apt install alsa-utils" in finding.fix
    monkeypatch.setattr(doctor_ears, "which", lambda name: "/usr/bin/aplay")
    assert found("voice", *words)["voice.speaker"].state == "ok"


def test_an_empty_catalogue_is_a_warning_and_none_is_made(found: Any, tmp_path: Path) -> None:
    words = (SIM, "voice.model=nonsense", "voice.wake=''")
    none = found("voice", *words)["voice.catalogue"]
    assert none.state == "warn" and "shipped sample" in none.detail and not (tmp_path / DATABASE).exists()
    with Catalogue(tmp_path / DATABASE), closing(sqlite3.connect(tmp_path / DATABASE)) as database:
        database.execute("DELETE FROM item")
        database.commit()
    empty = found("voice", *words)["voice.catalogue"]
    assert empty.state == "warn" and "is empty" in empty.detail and "search --import" in empty.fix
    (tmp_path / DATABASE).write_bytes(b"no database at all" * 100)
    assert found("voice", *words)["voice.catalogue"].state == "fail"


def with_noise(voice: VoiceReport) -> VoiceReport:
    return replace(voice, voice_activity=replace(voice.voice_activity, is_latched=True))


def test_noise_that_holds_the_voice_open_is_told_by_the_running_box(found: Any, box: Any) -> None:
    box(lambda shot: replace(shot, voice=with_noise(shot.voice)))
    finding = found("voice", SIM, "voice.model=nonsense", "voice.wake=''")["voice.noise"]
    assert finding.state == "warn" and (finding.detail, finding.fix) == (LATCHED, LATCHED_FIX)


# -- machine sound -----------------------------------------------------------------------------------------------------


def test_a_sound_model_without_a_microphone_contradicts_itself(found: Any) -> None:
    finding = found("sound", "sound.model=fan")["sound"]
    assert finding.state == "fail" and "microphone.driver is 'off'" in finding.detail
    assert finding.fix == "set one or the other"


def test_nobody_listens_to_the_machine_unless_told(found: Any) -> None:
    assert found("sound", SIM)["sound"] == Finding("sound", "ok", "off")


def test_a_sound_bundle_must_be_there_and_of_its_kind(found: Any) -> None:
    finding = found("sound", SIM, "sound.model=fan")["sound"]
    assert finding.state == "fail" and "'fan'" in finding.detail and "sound.model" in finding.fix
    words = found("sound", SIM, f"sound.model={keyword_bundle().manifest.name}")["sound"]
    assert words.state == "fail" and "does not judge machine sound" in words.detail and "learn-sound" in words.fix


def test_a_sound_bundle_that_works_is_named(found: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(doctor_ears, "open_sound_model", lambda bundle, cfg: opened.append(bundle.label))
    label = keyword_bundle().label
    assert found("sound", SIM, f"sound.model={label}")["sound"] == Finding("sound", "ok", label)
    assert opened == [label]


def test_a_sound_system_that_hangs_is_a_finding(found: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs() -> list[MicrophoneDevice]:
        raise DeviceError("the sound system does not answer within 10 s: a device or its server hangs")

    monkeypatch.setattr(microphones_module, "list_microphones", hangs)
    finding = found("microphone", "microphone.driver=pyaudio")["microphone"]
    assert finding.state == "fail" and "within 10 s" in finding.detail and finding.fix
