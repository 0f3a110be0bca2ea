"""Golden sounds of a bundle: asked where the model was made, and again wherever it is about to run."""

from __future__ import annotations

from edge_runtime.core.config import ModelConfig
from edge_runtime.core.errors import ModelError
from edge_runtime.core.sound_file import SoundError, read_sound
from edge_runtime.lines.sound_model import open_sound_model
from edge_runtime.modelstore.bundle import Bundle

MOST_S = 120.0


def ask_golden_sound(
    bundle: Bundle, names: list[str], cfg: ModelConfig | None = None
) -> tuple[dict[str, dict[str, float]], str]:
    """What the model says about these files of `golden/`, and the runtime that said it. In this process."""
    model = open_sound_model(bundle, cfg)
    said = {}
    for name in names:
        try:
            sound = read_sound(bundle.folder / "golden" / name, model.audio.rate_hz, MOST_S)
        except SoundError as err:
            raise ModelError(f"{bundle.label}: golden sound {name}: {err}") from err
        prediction = model(sound.pcm, sound.rate_hz)
        said[name] = {"score": prediction.score, **{f"scores.{key}": one for key, one in prediction.scores.items()}}
    rounded = {name: {key: round(one, 5) for key, one in row.items()} for name, row in said.items()}
    return rounded, model.engine.runtime.label
