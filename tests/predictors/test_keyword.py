"""What the shipped voice models do with sound, and how a keyword bundle that is wrong is refused."""

from __future__ import annotations

import csv
import json
import shutil
import wave
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_runtime.core.errors import ModelError
from edge_runtime.features.speech_clip import as_float, speech_span
from edge_runtime.inference.engine import Engine
from edge_runtime.media.resample import Resampler
from edge_runtime.modelstore.bundle import Bundle, load_bundle, seal_bundle
from edge_runtime.predictors.keyword import OTHER, KeywordModel, open_keyword_model

MODELS = Path(__file__).resolve().parents[2] / "models"
BUNDLES = ("commands-embed", "commands-dscnn")
COMMANDS = ("accept", "reject", "rescan", "pause", "next", "cancel", "stop line")
I16 = NDArray[np.int16]


@pytest.fixture(scope="module", params=BUNDLES)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return load_bundle(MODELS / request.param / "1")


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> KeywordModel:
    return open_keyword_model(bundle)


@pytest.fixture(scope="module")
def embed() -> KeywordModel:
    return open_keyword_model(load_bundle(MODELS / "commands-embed" / "1"))


def golden(bundle: Bundle, stem: str) -> I16:
    with wave.open(str(bundle.folder / "golden" / f"{stem}.wav")) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def test_golden_sounds_give_the_stored_scores(bundle: Bundle, model: KeywordModel) -> None:
    expected = json.loads((bundle.folder / "golden" / "expected.json").read_text(encoding="utf-8"))
    assert len(expected) >= 5
    for name, numbers in expected.items():
        prediction = model(golden(bundle, name.removesuffix(".wav")))
        said = {"score": prediction.score} | {f"scores.{label}": value for label, value in prediction.scores.items()}
        for key, value in numbers.items():
            assert said[key] == pytest.approx(value, abs=bundle.manifest.golden_tolerance)


@pytest.mark.parametrize(("stem", "word"), [("reject", "reject"), ("accept", "accept"), ("stop_line", "stop line")])
def test_a_command_is_heard_as_itself(bundle: Bundle, model: KeywordModel, stem: str, word: str) -> None:
    heard = model.hear(golden(bundle, stem), COMMANDS)
    assert heard is not None
    assert heard.word == word
    assert heard.score >= bundle.manifest.thresholds.reject_at
    assert 200 <= heard.start_ms < heard.end_ms <= 1900


def test_a_command_that_is_not_asked_for_is_not_heard(bundle: Bundle, model: KeywordModel) -> None:
    assert model.hear(golden(bundle, "reject"), ("accept", "pause")) is None


def test_loudness_and_place_of_a_word_change_little(bundle: Bundle, model: KeywordModel) -> None:
    sound = golden(bundle, "reject")
    quiet = (sound // 12).astype(np.int16)
    late = np.concatenate([np.zeros(16_000, np.int16), sound, np.zeros(8000, np.int16)])
    for other in (quiet, late):
        heard = model.hear(other, COMMANDS)
        assert heard is not None
        assert heard.word == "reject"


@pytest.mark.parametrize("level", [0, 1, 300, 20_000])
def test_silence_and_noise_are_no_command(model: KeywordModel, level: int) -> None:
    noise = np.random.default_rng(level).normal(0, 1, 24_000) * level
    assert model.hear(np.clip(noise, -32768, 32767).astype(np.int16), COMMANDS) is None


@pytest.mark.parametrize("samples", [0, 1, 159, 160, 480, 15_999, 400_000])
def test_sound_of_any_length_is_answered(model: KeywordModel, samples: int) -> None:
    sound = np.random.default_rng(3).integers(-3000, 3000, samples).astype(np.int16)
    prediction = model(sound)
    assert sum(prediction.scores.values()) == pytest.approx(1.0, abs=0.05)
    assert set(prediction.scores) == set(model.labels)
    assert isinstance(model.spell(sound[:32_000]), list)


def test_who_talks_on_did_not_say_a_command(bundle: Bundle, model: KeywordModel) -> None:
    sound = golden(bundle, "reject")[4000:-4000]
    assert model.hear(np.tile(sound, 5), COMMANDS) is None


def test_a_code_is_spelled_in_order_with_its_times(embed: KeywordModel) -> None:
    words = ["alpha", "seven", "reject", "seven"]
    pause = np.zeros(2400, np.int16)
    parts, starts, at = [], [], 0
    for word in words:
        sound = golden(embed.bundle, word)[4000:-4000]
        starts.append(at / 16)
        parts += [sound, pause]
        at += len(sound) + len(pause)
    heard = embed.spell(np.concatenate(parts))
    assert [found.word for found in heard] == words
    assert all(abs(found.start_ms - start) < 250 for found, start in zip(heard, starts, strict=True))
    assert all(a.end_ms <= b.end_ms and a.start_ms < b.start_ms for a, b in pairwise(heard))


@pytest.mark.parametrize("pause_ms", [50, 60, 80, 100, 150, 250])
@pytest.mark.parametrize("code", ["alpha seven seven", "seven seven alpha", "alpha alpha seven", "seven seven seven"])
def test_a_symbol_said_twice_is_spelled_twice(embed: KeywordModel, code: str, pause_ms: int) -> None:
    """Said fast, so that both would fit into one word: then they read, joined, as well as they do apart."""
    parts = [np.zeros(4800, np.int16)]
    for word in code.split():
        sound = golden(embed.bundle, word)
        first, last = speech_span(as_float(sound), 16_000)
        parts += [Resampler(19_200, 16_000)(sound[first:last]), np.zeros(pause_ms * 16, np.int16)]
    heard = embed.spell(np.concatenate([*parts, parts[0]]))
    assert " ".join(found.word for found in heard) == code


def test_spelling_answers_with_allowed_words_only(embed: KeywordModel) -> None:
    sound = np.concatenate([golden(embed.bundle, "seven"), golden(embed.bundle, "reject")])
    assert {found.word for found in embed.spell(sound, ("seven", "eight"))} <= {"seven", "eight"}
    assert embed.spell(sound, ()) == []
    assert embed.spell(np.zeros(16_000, np.int16), ("seven",)) == []


def test_both_bundles_can_stand_in_for_each_other() -> None:
    a, b = (load_bundle(MODELS / name / "1").manifest for name in BUNDLES)
    assert a.output is not None and b.output is not None
    assert a.output.labels == b.output.labels
    assert set(COMMANDS) < set(a.output.labels)
    assert OTHER in a.output.labels
    assert a.audio is not None and b.audio is not None
    assert (a.audio.clip_ms, a.audio.pad_ms, a.audio.loudness_dbfs) == (
        b.audio.clip_ms,
        b.audio.pad_ms,
        b.audio.loudness_dbfs,
    )


def changed(bundle: Bundle, folder: Path, **manifest: object) -> Bundle:
    shutil.copytree(bundle.folder, folder)
    table = bundle.manifest.model_dump(exclude_none=True) | manifest
    return seal_bundle(folder, table)


def test_a_bundle_without_sound_settings_is_refused(tmp_path: Path) -> None:
    bundle = load_bundle(MODELS / "commands-dscnn" / "1")
    with pytest.raises(ModelError, match=r"no \[audio\]"):
        open_keyword_model(changed(bundle, tmp_path / "a", audio=None))


def test_a_bundle_with_too_few_labels_is_refused(tmp_path: Path) -> None:
    bundle = load_bundle(MODELS / "commands-dscnn" / "1")
    (folder := tmp_path / "a").parent.mkdir(exist_ok=True)
    shutil.copytree(bundle.folder, folder)
    (folder / "labels.txt").unlink()
    table = bundle.manifest.model_dump(exclude_none=True) | {"output": {"labels": ("accept", OTHER)}}
    with pytest.raises(ModelError, match="the model tells"):
        open_keyword_model(seal_bundle(folder, table))


def test_a_front_end_that_is_missing_or_does_not_fit_is_refused(tmp_path: Path) -> None:
    bundle = load_bundle(MODELS / "commands-embed" / "1")
    shutil.copytree(bundle.folder, tmp_path / "a")
    (tmp_path / "a" / "front_end" / "embedding.tflite").unlink()
    with pytest.raises(ModelError, match=r"front_end/embedding.tflite is missing"):
        open_keyword_model(seal_bundle(tmp_path / "a", bundle.manifest))
    assert bundle.manifest.audio is not None
    longer = bundle.manifest.audio.model_copy(update={"clip_ms": 2000}).model_dump(exclude_none=True)
    with pytest.raises(ModelError, match="does not fit"):
        open_keyword_model(changed(bundle, tmp_path / "b", audio=longer))


def test_a_front_end_that_was_altered_is_refused(tmp_path: Path) -> None:
    bundle = load_bundle(MODELS / "commands-embed" / "1")
    shutil.copytree(bundle.folder, tmp_path / "a")
    path = tmp_path / "a" / "front_end" / "embedding.tflite"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ModelError, match="altered"):
        open_keyword_model(load_bundle(tmp_path / "a", verify=False))


def test_a_reference_keyword_model_scores_as_published(real_data: Path) -> None:
    engine = Engine(real_data / "models" / "audio" / "kws_ref_model.tflite")
    rows = np.load(real_data / "audio" / "kws_features" / "kws01_mfcc_int8.npy")
    with (real_data / "audio" / "kws_features" / "labels.csv").open(encoding="utf-8") as file:
        truth = [int(row["class_index"]) for row in csv.DictReader(file)]
    said = [int(engine.invoke(row.reshape(engine.inputs[0].shape))[0].argmax()) for row in rows]
    assert sum(a == b for a, b in zip(said, truth, strict=True)) == 276  # what its makers' runtime gives


def test_a_picture_bundle_does_not_listen() -> None:
    with pytest.raises(ModelError, match="does not listen"):
        open_keyword_model(load_bundle(MODELS / "scratch" / "1"))
