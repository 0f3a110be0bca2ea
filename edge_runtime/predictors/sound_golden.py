"""Golden sounds of a bundle: asked where the model was made, and again wherever it is about to run."""

from __future__ import annotations

from collections.abc import Callable

from edge_runtime.config.schema import ModelConfig
from edge_runtime.core.errors import ModelError
from edge_runtime.core.manifest import Kind
from edge_runtime.core.messages import Prediction
from edge_runtime.media.sound_file import Sound, SoundError, read_sound
from edge_runtime.modelstore.bundle import Bundle
from edge_runtime.predictors.keyword import open_keyword_model
from edge_runtime.predictors.sound import open_sound_model

MOST_S = 120.0


def ask_golden_sound(
    bundle: Bundle, names: list[str], cfg: ModelConfig | None = None
) -> tuple[dict[str, dict[str, float]], str]:
    """What the model says about these files of `golden/`, and the runtime that said it. In this process."""
    judge, rate_hz, runtime = _opened(bundle, cfg)
    said = {}
    for name in names:
        try:
            sound = read_sound(bundle.folder / "golden" / name, rate_hz, MOST_S)
        except SoundError as err:
            raise ModelError(f"{bundle.label}: golden sound {name}: {err}") from err
        prediction = judge(sound)
        said[name] = {"score": prediction.score, **{f"scores.{key}": one for key, one in prediction.scores.items()}}
    return {name: {key: round(one, 5) for key, one in row.items()} for name, row in said.items()}, runtime


def _opened(bundle: Bundle, cfg: ModelConfig | None) -> tuple[Callable[[Sound], Prediction], int, str]:
    """What judges a sound, the rate it wants, and its runtime: words for a keyword bundle, the machine for others."""
    if bundle.manifest.kind is Kind.KEYWORD:
        words = open_keyword_model(bundle, cfg)
        return lambda sound: words(sound.pcm), words.spec.rate_hz, words.runtime
    machine = open_sound_model(bundle, cfg)
    return lambda sound: machine(sound.pcm, sound.rate_hz), machine.audio.rate_hz, machine.engine.runtime.label
