"""Wake words in streams: found once, not in each other, and not carried from one stream into the next."""

from __future__ import annotations

import json
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.errors import ModelError
from edge_runtime.core.messages import AudioChunk
from edge_runtime.modelstore.bundle import seal_bundle
from edge_runtime.predictors.wake_word import StreamingKeyword, open_micro_wake_word, open_wake_word
from edge_runtime.station.voice_wiring import open_wake

pytest.importorskip("pymicro_features", reason="wake words need the extra voice (pymicro-features)")
I16 = NDArray[np.int16]
SECOND = 16_000


def sound(path: Path) -> I16:
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def hits(wake: StreamingKeyword, pcm: I16, chunk: int = 480) -> int:
    scores = [wake.hear(pcm[start : start + chunk]) for start in range(0, len(pcm), chunk)]
    return sum(score >= wake.least_score for score in scores)


@pytest.fixture
def settings(real_data: Path) -> Path:
    return real_data / "models" / "audio" / "mww_v2_hey_jarvis.json"


@pytest.fixture
def wake(settings: Path) -> StreamingKeyword:
    return open_micro_wake_word(settings)


@pytest.fixture
def spoken(real_data: Path) -> dict[str, I16]:
    folder, rest = real_data / "audio" / "wake_samples", np.zeros(SECOND, np.int16)
    return {path.stem: np.concatenate([rest, sound(path), rest]) for path in sorted(folder.glob("*.wav"))}


def test_the_word_is_found_once_in_each_sample_and_not_in_another_word(
    wake: StreamingKeyword, spoken: dict[str, I16]
) -> None:
    assert len(spoken) == 6
    for name, pcm in spoken.items():
        wake.reset()
        assert hits(wake, pcm) == name.startswith("hey_jarvis"), name


@pytest.mark.parametrize("chunk", [160, 480, 1000, 1280, 100_000])
def test_the_length_of_chunks_changes_nothing(wake: StreamingKeyword, spoken: dict[str, I16], chunk: int) -> None:
    assert hits(wake, spoken["hey_jarvis_1"], chunk) == 1


def test_a_reset_starts_over(wake: StreamingKeyword, spoken: dict[str, I16]) -> None:
    pcm = spoken["hey_jarvis_2"]
    first = [wake.hear(pcm[i : i + 480]) for i in range(0, len(pcm), 480)]
    wake.reset()
    again = [wake.hear(pcm[i : i + 480]) for i in range(0, len(pcm), 480)]
    assert again == first


def test_it_rests_after_a_hit(wake: StreamingKeyword, spoken: dict[str, I16]) -> None:
    word = spoken["hey_jarvis_3"][SECOND:-SECOND]  # a second of speech: the next is within the refractory time
    assert hits(wake, np.concatenate([np.zeros(SECOND, np.int16), word, word])) == 1


def test_a_hole_in_the_stream_forgets_half_a_word(wake: StreamingKeyword, spoken: dict[str, I16]) -> None:
    pcm = spoken["hey_jarvis_1"]

    def loudest(numbers: list[int]) -> float:
        wake.reset()
        chunks = [AudioChunk(seq, 0, SECOND, pcm[i * 480 : (i + 1) * 480]) for i, seq in enumerate(numbers)]
        return max(wake(chunk) for chunk in chunks)

    count = len(pcm) // 480
    whole = list(range(count))
    broken = [n + n // 10 for n in whole]  # a chunk is lost every 300 ms
    assert loudest(whole) >= wake.least_score
    assert loudest(broken) < wake.least_score


def test_another_rate_is_refused(wake: StreamingKeyword) -> None:
    with pytest.raises(ModelError, match="16000 Hz"):
        wake(AudioChunk(0, 0, 48_000, np.zeros(480, np.int16)))


def test_a_bundle_of_the_same_model_says_the_same(
    wake: StreamingKeyword, settings: Path, spoken: dict[str, I16], tmp_path: Path
) -> None:
    shutil.copy(settings.with_suffix(".tflite"), tmp_path / "model.tflite")
    bundle = seal_bundle(
        tmp_path,
        {
            "name": "hey-jarvis", "version": "1", "kind": "keyword", "licence": "Apache-2.0",
            "audio": {"front_end": "micro"}, "output": {"labels": ("hey jarvis",)},
            "thresholds": {"accept_below": wake.least_score, "reject_at": wake.least_score},
        },
    )  # fmt: skip
    other = open_wake_word(bundle)
    pcm = spoken["hey_jarvis_1"]
    assert [other.hear(pcm[i : i + 480]) for i in range(0, 32_000, 480)] == [
        wake.hear(pcm[i : i + 480]) for i in range(0, 32_000, 480)
    ]


def test_the_wheels_own_models_work(real_data: Path, spoken: dict[str, I16]) -> None:
    wheel = pytest.importorskip("pymicro_wakeword", reason="pymicro-wakeword is not installed")
    found = {}
    for path in sorted(Path(wheel.__file__).parent.glob("models/*.json")):
        wake = open_micro_wake_word(path)
        for name, pcm in spoken.items():
            wake.reset()
            if hits(wake, pcm):
                found.setdefault(path.stem, set()).add(name)
    assert found == {
        "hey_jarvis": {"hey_jarvis_1", "hey_jarvis_2", "hey_jarvis_3"},
        "hey_mycroft": {"hey_mycroft_1", "hey_mycroft_2", "hey_mycroft_3"},
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"micro": {}}, "not the settings"),
        ({"model": "../x.tflite"}, "does not lie beside"),
        ({"micro": {"probability_cutoff": 7, "sliding_window_size": 5}}, "makes no sense"),
        (
            {"micro": {"probability_cutoff": 0.9, "sliding_window_size": 5, "feature_step_size": 20}},
            "feature_step_size",
        ),
    ],
)
def test_settings_that_are_wrong_are_refused(
    settings: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    table = json.loads(settings.read_text(encoding="utf-8")) | change
    (tmp_path / "x.json").write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(ModelError, match=message):
        open_micro_wake_word(tmp_path / "x.json")


def test_a_model_of_another_shape_is_refused(settings: Path, tmp_path: Path, tiny_model: Path) -> None:
    shutil.copy(tiny_model, tmp_path / "hey_jarvis.tflite")
    shutil.copy(settings, tmp_path / "x.json")
    with pytest.raises(ModelError, match="streaming wake word takes"):
        open_micro_wake_word(tmp_path / "x.json")


@pytest.mark.parametrize(("station", "least"), [(None, 0.97), (0.8, 0.8)])
def test_the_makers_own_cut_off_holds_unless_the_station_says_otherwise(station, least):
    """hey_jarvis was measured at 0.97 by its makers; a word of another name has another figure."""
    voice = {"wake": "hey_jarvis"} | ({} if station is None else {"wake_at": station})
    missing: list[str] = []
    wake = open_wake(EdgeConfig.model_validate({"voice": voice}), missing)
    assert wake is not None, missing
    assert wake.least_score == pytest.approx(least)
